"""The miniature of ChartQA: `test/test_human.json`, `test/test_augmented.json` and `test/png/`."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit_tasks.miniatures import charts, questions
from evalkit_tasks.miniatures.drawing import generator

CHARTS = 80


def draw(folder: Path) -> None:
    """Writes 80 charts, each with one augmented question (a value) and one human question."""
    rng = generator("chartqa", 0)
    images = folder / "test" / "png"
    images.mkdir(parents=True, exist_ok=True)
    human: list[dict[str, str]] = []
    augmented: list[dict[str, str]] = []
    for number in range(CHARTS):
        chart = charts.chart(rng, training=False)
        name = f"drawn_{number}.png"
        chart.view().image.save(images / name)
        value, *rest = questions.about_chart(chart, rng)
        for rows, asked in ((augmented, value), (human, rest[number % len(rest)])):
            rows.append({"imgname": name, "query": asked.text, "label": asked.answer})
    for kind, rows in (("human", human), ("augmented", augmented)):
        (folder / "test" / f"test_{kind}.json").write_text(json.dumps(rows), encoding="utf-8")
