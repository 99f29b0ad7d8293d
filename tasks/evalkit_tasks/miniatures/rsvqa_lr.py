"""The miniature of RSVQA-LR: the three files of the test split and `Images_LR/`."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit_tasks.miniatures import questions, tiles
from evalkit_tasks.miniatures.drawing import generator

TILES = 60


def draw(folder: Path) -> None:
    """Writes 60 tiles with one area question, and two each about presence, comparison and count."""
    rng = generator("rsvqa-lr", 0)
    pictures = folder / "Images_LR"
    pictures.mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, object]] = []
    answers: list[dict[str, object]] = []
    images: list[dict[str, object]] = []
    common = {"date_added": 1543613776.0, "people_id": 0, "active": True}
    for number in range(TILES):
        tile = tiles.tile(rng, training=False)
        tile.view().image.save(pictures / f"{number}.tif")
        drawn = questions.about_tile(tile, rng)
        drawn += [a for a in questions.about_tile(tile, rng) if a.text not in {b.text for b in drawn}]
        first = len(asked)
        for item in drawn:
            i = len(asked)
            asked.append(
                {
                    "id": i,
                    "img_id": number,
                    "type": item.kind,
                    "question": item.text,
                    "answers_ids": [i],
                    **common,
                }
            )
            answers.append({"id": i, "question_id": i, "answer": item.answer, **common})
        images.append(
            {
                "id": number,
                "original_name": f"drawn_{number}.tif",
                "sensor": "drawn",
                "type": "RGB",
                "upperleft_map_x": 0.0,
                "upperleft_map_y": 0.0,
                "res_x": "10m",
                "res_y": "10m",
                "questions_ids": list(range(first, len(asked))),
                **common,
            }
        )
    for part, rows in (("questions", asked), ("answers", answers), ("images", images)):
        path = folder / f"LR_split_test_{part}.json"
        path.write_text(json.dumps({part: rows}), encoding="utf-8")
