"""The three lists of an RSVQA split: questions, answers and images, in the official form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evalkit_tasks.miniatures.questions import Asked

_COMMON: Mapping[str, object] = {"date_added": 1543613776.0, "people_id": 0, "active": True}


class RsvqaRecords:
    """Records of a split, numbered from 0 in each list."""

    def __init__(self) -> None:
        self._questions: list[dict[str, object]] = []
        self._answers: list[dict[str, object]] = []
        self._images: list[dict[str, object]] = []

    def add(self, image: int, asked: Sequence[Asked], details: Mapping[str, object] | None = None) -> None:
        """An image with its questions; `details` come into the image's record."""
        first = len(self._questions)
        for number, item in enumerate(asked, first):
            question = {"id": number, "img_id": image, "type": item.kind, "question": item.text}
            self._questions.append({**question, "answers_ids": [number], **_COMMON})
            self._answers.append({"id": number, "question_id": number, "answer": item.answer, **_COMMON})
        record = {"id": image, "original_name": f"drawn_{image}.tif", **(details or {})}
        ids = list(range(first, len(self._questions)))
        self._images.append({**record, "questions_ids": ids, **_COMMON})

    def add_stub(self) -> None:
        """A question and an answer of another split, as they stand between the official records."""
        for rows in (self._questions, self._answers):
            rows.append({"id": len(rows), "active": False})

    def write(self, folder: Path, prefix: str, indent: int | None = None) -> None:
        """Write `<prefix>_questions.json` and so on."""
        parts = {"questions": self._questions, "answers": self._answers, "images": self._images}
        for part, rows in parts.items():
            text = json.dumps({part: rows}, indent=indent)
            (folder / f"{prefix}_{part}.json").write_text(text, encoding="utf-8")
