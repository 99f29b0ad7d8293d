"""The miniature of InfographicVQA: `infographicsVQA_val_v1.0.json` and `infographicsvqa_images/`."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from evalkit_tasks.miniatures import charts, pages, questions
from evalkit_tasks.miniatures.drawing import SIDE, generator

SHEETS = 12


def draw(folder: Path) -> None:
    """Writes 12 sheets, each a page above a chart, and three questions about each."""
    rng = generator("infovqa", 0)
    images = folder / "infographicsvqa_images"
    images.mkdir(parents=True, exist_ok=True)
    data: list[dict[str, object]] = []
    for number in range(SHEETS):
        page, chart = pages.page(rng, training=False), charts.chart(rng, training=False)
        sheet = Image.new("RGB", (SIDE, 2 * SIDE))
        sheet.paste(page.view().image, (0, 0))
        sheet.paste(chart.view().image, (0, SIDE))
        name = f"{30000 + number}.jpeg"
        sheet.save(images / name, quality=95)
        asked = [questions.about_page(page)[0], *questions.about_chart(chart, rng)[:2]]
        for question in asked:
            data.append(
                {
                    "questionId": 98000 + len(data),
                    "question": question.text,
                    "image_local_name": name,
                    "image_url": "drawn",
                    "ocr_output_file": f"{30000 + number}.json",
                    "answers": [question.answer],
                    "data_split": "val",
                }
            )
    listing = {
        "dataset_name": "infographicVQA",
        "dataset_split": "val",
        "dataset_version": "1.0",
        "data": data,
    }
    (folder / "infographicsVQA_val_v1.0.json").write_text(json.dumps(listing), encoding="utf-8")
