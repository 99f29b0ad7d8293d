"""Question files of GeoChat-Bench (huggingface.co/datasets/MBZUAI/GeoChat-Bench, arXiv 2311.15826).

`lrben.jsonl` and `hrben.jsonl` ask RSVQA's questions without their answers; `referring.jsonl` asks for
objects in images of three sets, of which SIOR is DIOR's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from evalkit.errors import DataError
from evalkit.files import NOT_OFFICIAL, id_of, read_jsonl, text_of

SOURCE = "huggingface.co/datasets/MBZUAI/GeoChat-Bench"
REFERRING = "referring.jsonl"
#: Where the images of `referring.jsonl` lie once GeoChat_Instruct's archive is unpacked.
FOLDERS = ("images", "final_images_llava", "share/softwares/kartik/GeoChat_finetuning/final_images_llava")
#: DIOR's name in that file, and the sides of all its images.
DIOR, SIDES = "SIOR", (800.0, 800.0)
#: The sentence that GeoChat adds to a question.
_ADDED = "\nAnswer the question using a single word or phrase."


class RsvqaQuestion(NamedTuple):
    """A row of RSVQA's questions.

    Attributes:
        kind: the question's type. answer: None where the file has none, as the published one.
    """

    id: Any
    image: str
    kind: str
    text: str
    answer: str | None
    where: str


class ObjectReference(NamedTuple):
    """A row that asks for one object of DIOR; `box` encloses its corners, in pixels."""

    id: str
    image: str
    expression: str
    box: tuple[float, float, float, float]


def questions(path: Path, kinds: tuple[str, ...]) -> Iterator[RsvqaQuestion]:
    """Rows of `lrben.jsonl` or `hrben.jsonl`.

    Raises:
        DataError: broken, or a category that is none of `kinds`, the types of RSVQA's questions.
    """
    for row in read_jsonl(path):
        kind, text, image = (text_of(row, name, row.where) for name in ("category", "text", "image"))
        if kind not in kinds:
            raise DataError(
                f"{row.where}: category {kind[:40]!r} is no type of question ({', '.join(kinds)}); put "
                "RSVQA's own file of questions there"
            )
        answer = None if row.get("ground_truth") is None else text_of(row, "ground_truth", row.where)
        name = image if PurePosixPath(image).suffix else f"{image}.tif"
        yield RsvqaQuestion(
            *(row["question_id"], name, kind, text.removesuffix(_ADDED)),
            *(answer, row.where),
        )


def references(path: Path) -> Iterator[ObjectReference]:
    """Rows of `referring.jsonl` that refer to one object of a DIOR image; all others are passed over.

    Raises:
        DataError: broken, an id twice, or no such row.
    """
    seen = set[str]()
    for row in read_jsonl(path):
        polygons = row["ground_truth"]
        one = isinstance(polygons, list) and len(polygons) == 1
        if row["type"] != "ref" or row["dataset"] != DIOR or not one:
            continue
        name = id_of(row, "question_id", row.where)
        if name in seen:
            raise DataError(f"{row.where}: question_id {name} occurs twice: {NOT_OFFICIAL}")
        seen.add(name)
        image, asked = id_of(row, "image_id", row.where), text_of(row, "question", row.where)
        yield ObjectReference(name, image, asked, _enclosing(polygons[0], row.where))
    if not seen:
        raise DataError(f"{path}: no row refers to one object of a DIOR image ({DIOR}): {NOT_OFFICIAL}")


def _enclosing(polygon: object, where: str) -> tuple[float, float, float, float]:
    """The box around corners [[x, y], …]."""
    try:
        xs, ys = zip(*((float(x), float(y)) for x, y in polygon), strict=True)  # type: ignore[attr-defined]
        box = min(xs), min(ys), max(xs), max(ys)
        if not all(abs(edge) < 1e9 for edge in box):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"{where}: ground_truth is no list of corners [x, y]: {NOT_OFFICIAL}") from None
    return box


def image_path(root: Path, image: str) -> Path:
    """An image of `referring.jsonl`: `<id>.png` in GeoChat's folders, otherwise DIOR's own `<id>.jpg`."""
    stem = image.partition(".")[0]
    places = [root / folder / f"{stem}.png" for folder in FOLDERS]
    places.append(root / "JPEGImages" / f"{stem}.jpg")
    return next((path for path in places if path.is_file()), places[0])
