"""The miniature of MMBench: the official table, every question in four rotations of its options."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

from evalkit_tasks.miniatures import questions, scenes
from evalkit_tasks.miniatures.drawing import generator

FILE = "MMBench_DEV_EN.tsv"
QUESTIONS = 80
#: Copy k of a question has the index of its base question plus k times this.
COPY = 1_000_000
_HEADER = (
    "index",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "image",
    "source",
    "l2-category",
)
_CATEGORIES = {
    "color": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "shape": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "count": ("object_localization", "finegrained_perception (instance-level)"),
    "place": ("spatial_relationship", "finegrained_perception (cross-instance)"),
}


def draw(folder: Path) -> None:
    """Writes `MMBench_DEV_EN.tsv` with 80 base questions on 80 scenes and their circular copies."""
    rng = generator("mmbench", 0)
    rows: list[tuple[object, ...]] = []
    for base in range(QUESTIONS):
        scene = scenes.quartered(rng, training=False)
        asked = questions.about_scene(scene, rng)[base % 4]
        buffer = io.BytesIO()
        scene.view().image.save(buffer, "JPEG", quality=95)
        image = base64.b64encode(buffer.getvalue()).decode()
        right = "ABCD".index(asked.answer)
        for copy in range(4):
            options = asked.options[copy:] + asked.options[:copy]
            answer = "ABCD"[(right - copy) % 4]
            ends = (*_CATEGORIES[asked.kind][:1], image, "drawn", _CATEGORIES[asked.kind][1], "", "dev")
            rows.append((base + copy * COPY, asked.text, "", *options, answer, *ends))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow((*_HEADER, "comment", "split"))
        writer.writerows(rows)
