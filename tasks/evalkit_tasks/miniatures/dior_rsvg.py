"""The miniature of DIOR-RSVG: `Annotations/`, `JPEGImages/` and the index files."""

from __future__ import annotations

from pathlib import Path

from evalkit_tasks.miniatures import questions, scenes
from evalkit_tasks.miniatures.drawing import SIDE, generator

IMAGES = 80

_XML = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<annotation>
  <filename>{name}.jpg</filename>
  <source>
    <database>drawn</database>
  </source>
  <size>
    <width>{side}</width>
    <height>{side}</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
{objects}</annotation>
"""
_OBJECT = """  <object>
    <name>{name}</name>
    <pose>Unspecified</pose>
    <bndbox>
      <xmin>{0:.0f}</xmin>
      <ymin>{1:.0f}</ymin>
      <xmax>{2:.0f}</xmax>
      <ymax>{3:.0f}</ymax>
    </bndbox>
    <description>{text}</description>
  </object>
"""


def draw(folder: Path) -> None:
    """Writes 80 images; every object is a query of the test split."""
    rng = generator("dior-rsvg", 0)
    for part in ("Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    total = 0
    for number in range(IMAGES):
        scene, name = scenes.overhead(rng, training=False), f"{number + 1:05d}"
        scene.view().image.save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
        described = questions.about_overhead(scene)
        objects = "".join(_OBJECT.format(*box, name=text.split()[-1], text=text) for text, box in described)
        xml = _XML.format(name=name, side=SIDE, objects=objects)
        (folder / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
        total += len(described)
    indexes = {"test": range(total), "train": range(0), "val": range(0)}
    for split, ids in indexes.items():
        (folder / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
