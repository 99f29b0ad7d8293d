"""The miniature of RSVQA-HR: the files of the test1 split and `Data/`."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit_tasks.miniatures import questions, tiles
from evalkit_tasks.miniatures.drawing import generator

TILES = 50
#: Square metres of a drawn building: its pixels at the official 0.15 m, four official pixels to a drawn one.
BUILDING = round(22 * 22 * (4 * 0.15) ** 2)


def draw(folder: Path) -> None:
    """Writes 50 tiles with a question each about presence, comparison, count and area.

    Stubs of another split stand between the records, as in the official files.
    """
    rng = generator("rsvqa-hr", 0)
    (folder / "Data").mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, object]] = []
    answers: list[dict[str, object]] = []
    images: list[dict[str, object]] = []
    common = {"date_added": 1543613776.0, "people_id": 0, "active": True}
    for number in range(TILES):
        tile = tiles.tile(rng, training=False)
        tile.view().image.save(folder / "Data" / f"{number}.tif")
        drawn = [item for item in questions.about_tile(tile, rng) if item.kind != "rural_urban"]
        area = f"{BUILDING * tile.count('building')}m2"
        drawn.append(questions.Asked("area", "What is the area covered by buildings?", area))
        for item in drawn:
            i = len(asked)
            record = {"id": i, "img_id": number, "type": item.kind, "question": item.text, "answers_ids": [i]}
            asked.append({**record, **common})
            answers.append({"id": i, "question_id": i, "answer": item.answer, **common})
        ids = [row["id"] for row in asked[-len(drawn) :]]
        images.append({"id": number, "original_name": f"drawn_{number}.tif", "questions_ids": ids, **common})
        for rows in (asked, answers):
            rows.append({"id": len(rows), "active": False})
    for part, rows in (("questions", asked), ("answers", answers), ("images", images)):
        path = folder / f"USGS_split_test_{part}.json"
        path.write_text(json.dumps({part: rows}, indent=4), encoding="utf-8")
