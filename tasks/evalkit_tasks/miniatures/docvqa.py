"""The miniature of DocVQA: `val/val_v1.0.json` and `val/documents/`."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit_tasks.miniatures import pages, questions
from evalkit_tasks.miniatures.drawing import generator

PAGES = 60


def draw(folder: Path) -> None:
    """Writes 60 grey pages and a question about every entry."""
    rng = generator("docvqa", 0)
    documents = folder / "val" / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    data: list[dict[str, object]] = []
    for number in range(PAGES):
        page = pages.page(rng, training=False)
        name = f"drawn{number:04d}_1"
        page.view().image.convert("L").save(documents / f"{name}.png")
        for asked in questions.about_page(page):
            data.append(
                {
                    "questionId": 1000 + len(data),
                    "question": asked.text,
                    "question_types": ["form"],
                    "image": f"documents/{name}.png",
                    "docId": number,
                    "ucsf_document_id": name.partition("_")[0],
                    "ucsf_document_page_no": "1",
                    "answers": [asked.answer],
                    "data_split": "val",
                }
            )
    listing = {"dataset_name": "docvqa", "dataset_split": "val", "dataset_version": "1.0", "data": data}
    (folder / "val" / "val_v1.0.json").write_text(json.dumps(listing), encoding="utf-8")
