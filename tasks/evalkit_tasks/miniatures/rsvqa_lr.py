"""The miniature of RSVQA-LR: the three files of the test split and `Images_LR/`."""

from __future__ import annotations

from pathlib import Path

from evalkit_tasks.miniatures import questions, tiles
from evalkit_tasks.miniatures.drawing import generator
from evalkit_tasks.miniatures.rsvqa_records import RsvqaRecords

TILES = 60
#: What an image's record says besides.
DETAILS = {
    "sensor": "drawn",
    "type": "RGB",
    "upperleft_map_x": 0.0,
    "upperleft_map_y": 0.0,
    "res_x": "10m",
    "res_y": "10m",
}


def draw(folder: Path) -> None:
    """Writes 60 tiles with one area question, and two each about presence, comparison and count."""
    rng = generator("rsvqa-lr", 0)
    image_folder = folder / "Images_LR"
    image_folder.mkdir(parents=True, exist_ok=True)
    records = RsvqaRecords()
    for number in range(TILES):
        tile = tiles.tile(rng, training=False)
        tile.view().image.save(image_folder / f"{number}.tif")
        drawn = questions.about_tile(tile, rng)
        drawn += [a for a in questions.about_tile(tile, rng) if a.text not in {b.text for b in drawn}]
        records.add(number, drawn, DETAILS)
    records.write(folder, "LR_split_test")
