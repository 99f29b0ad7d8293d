"""The miniature of RSVQA-HR: the files of the test1 split and `Data/`."""

from __future__ import annotations

from pathlib import Path

from evalkit_tasks.miniatures import questions, tiles
from evalkit_tasks.miniatures.drawing import generator
from evalkit_tasks.miniatures.rsvqa_records import RsvqaRecords

TILES = 50
#: Square metres of a drawn building: its pixels at the official 0.15 m, four official pixels to a drawn one.
BUILDING = round(22 * 22 * (4 * 0.15) ** 2)


def draw(folder: Path) -> None:
    """Writes 50 tiles with a question each about presence, comparison, count and area.

    Stubs of another split stand between the records, as in the official files.
    """
    rng = generator("rsvqa-hr", 0)
    (folder / "Data").mkdir(parents=True, exist_ok=True)
    records = RsvqaRecords()
    for number in range(TILES):
        tile = tiles.tile(rng, training=False)
        tile.view().image.save(folder / "Data" / f"{number}.tif")
        drawn = [item for item in questions.about_tile(tile, rng) if item.kind != "rural_urban"]
        area = f"{BUILDING * tile.count('building')}m2"
        drawn.append(questions.Asked("area", "What is the area covered by buildings?", area))
        records.add(number, drawn)
        records.add_stub()
    records.write(folder, "USGS_split_test", indent=4)
