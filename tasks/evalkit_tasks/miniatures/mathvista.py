"""The miniature of MathVista: `data/testmini.json` and `images/`."""

from __future__ import annotations

import json
import random
from pathlib import Path

from evalkit_tasks.miniatures import charts, questions
from evalkit_tasks.miniatures.drawing import generator

FIGURES = 12


def draw(folder: Path) -> None:
    """Writes 12 charts, each with a question with choices, one for a whole number and one for a mean."""
    rng = generator("mathvista", 0)
    for name in ("data", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    items: dict[str, dict[str, object]] = {}
    for number in range(FIGURES):
        chart = charts.chart(rng, training=False)
        image = f"images/{number + 1}.png"
        chart.view().image.save(folder / image)
        for item in _asked(chart, rng):
            pid = str(len(items) + 1)
            items[pid] = {**item, "image": image, "unit": None, "pid": pid, "metadata": _METADATA}
    (folder / "data" / "testmini.json").write_text(json.dumps(items), encoding="utf-8")


_METADATA = {"split": "testmini", "task": "figure question answering", "skills": ["statistical reasoning"]}


def _asked(chart: charts.Chart, rng: random.Random) -> list[dict[str, object]]:
    value, highest = questions.about_chart(chart, rng)[:2]
    colours = [colour for colour, _ in chart.bars]
    mean = sum(height for _, height in chart.bars) / len(chart.bars)
    return [
        _item(highest.text, highest.answer, "multi_choice", "text", choices=colours),
        _item(value.text, value.answer, "free_form", "integer"),
        _item("What is the mean value of the bars?", f"{mean:.1f}", "free_form", "float", precision=1),
    ]


def _item(
    text: str, answer: str, question: str, kind: str, choices: object = None, precision: int | None = None
) -> dict[str, object]:
    return {
        "question": text,
        "answer": answer,
        "question_type": question,
        "answer_type": kind,
        "choices": choices,
        "precision": precision,
    }
