"""The miniature of AI2D: `AI2D_TEST.tsv`; a question on an image already shown refers to its row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.miniatures import questions, scenes
from evalkit_tasks.miniatures.drawing import generator
from evalkit_tasks.miniatures.tables import encoded, write_table

DIAGRAMS = 16
HEADER = ("index", "image", "question", "A", "B", "C", "D", "answer", "category")


def draw(folder: Path) -> None:
    """Writes 16 scenes with two questions each."""
    write_table(folder / "AI2D_TEST.tsv", HEADER, _rows())


def _rows() -> Iterator[tuple[object, ...]]:
    rng = generator("ai2d", 0)
    for number in range(DIAGRAMS):
        scene = scenes.quartered(rng, training=False)
        drawn = encoded(scene.view().image)
        for place, asked in enumerate(rng.sample(questions.about_scene(scene, rng), 2)):
            index = 2 * number + place
            image = str(index - 1) if place else drawn
            yield (index, image, asked.text, *asked.options, asked.answer, asked.kind)
