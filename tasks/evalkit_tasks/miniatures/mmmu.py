"""The miniature of MMMU: `MMMU_DEV_VAL.tsv` with one and two images, options and open answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.miniatures import charts, questions, scenes
from evalkit_tasks.miniatures.drawing import generator
from evalkit_tasks.miniatures.tables import encoded, write_table

QUESTIONS = 24
HEADER = ("index", "id", "image", "question", *"ABCD", "answer", "split", "category", "l2-category")


def draw(folder: Path) -> None:
    """Writes 24 questions: a third with options, a third on two images, a third open."""
    write_table(folder / "MMMU_DEV_VAL.tsv", HEADER, _rows())


def _rows() -> Iterator[tuple[object, ...]]:
    rng = generator("mmmu", 0)
    for index in range(QUESTIONS):
        scene = scenes.quartered(rng, training=False)
        asked = rng.choice(questions.about_scene(scene, rng))
        first = encoded(scene.view().image)
        end = ("validation", "Art", "Art & Design")
        name = f"validation_Art_{index + 1}"
        if index % 3 == 0:
            yield (index, name, first, f"{asked.text} <image 1>", *asked.options, asked.answer, *end)
        elif index % 3 == 1:
            other = scenes.quartered(rng, training=False)
            more = "A" if len(scene.things) > len(other.things) else "B"
            text = "Has <image 1> more objects than <image 2>?"
            images = str([first, encoded(other.view().image)])
            yield (index, name, images, text, "yes", "no", "", "", more, *end)
        else:
            chart = charts.chart(rng, training=False)
            value = questions.about_chart(chart, rng)[0]
            text = f"{value.text} <image 1>"
            yield (index, name, encoded(chart.view().image), text, "", "", "", "", value.answer, *end)
