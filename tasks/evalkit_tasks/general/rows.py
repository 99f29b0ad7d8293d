"""Rows of benchmark tables, from VLMEvalKit's TSV files or the Hub's Parquet files, with their images.

An image cell holds base64, a list of base64 texts, or the index of the row that holds it; a table may name
image files in `image_path` instead. Only an empty cell is missing; "None", "NA" and the like are texts.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.contracts import ImageHandle
from evalkit.data.decoding import decode
from evalkit.data.images import MISSING, ImageFile, TableImage
from evalkit.data.locate import hub_files
from evalkit.data.tables import read_rows
from evalkit.errors import DataError, ImageError
from evalkit.files import TableRow, as_text, id_of, read_json, read_tsv, text_of

if TYPE_CHECKING:
    from PIL.Image import Image

#: An image cell of at most this many characters is the index of another row (as VLMEvalKit takes it).
_REFERENCE = 64
_LISTED = re.compile(r"""['"]([^'"]*)['"]""")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        cells: values by column name; names longer than a letter are in lower case.
        images: the row's images in order.
        cluster: equal for rows that show the same images.
        where: file and place, for errors.
    """

    cells: Mapping[str, Any]
    images: tuple[ImageHandle, ...]
    cluster: str
    where: str

    def text(self, column: str) -> str:
        """The cell, which must be text; empty where it is missing or absent. Raises DataError."""
        return "" if self.cells.get(column) is None else text_of(self.cells, column, self.where)

    def name(self, column: str) -> str:
        """The cell, a text or a whole number that names the row; empty where absent. Raises DataError."""
        return "" if self.cells.get(column) is None else id_of(self.cells, column, self.where).strip()


@dataclass(frozen=True, slots=True)
class ListedImage:
    """The `position`-th image of a TSV cell that lists several."""

    table: TableImage
    position: int

    def _encoded(self) -> bytes:
        from base64 import b64decode

        try:
            return b64decode(_LISTED.findall(self.table.cell())[self.position])
        except (IndexError, ValueError) as error:
            raise ImageError(f"{self.table.path} at byte {self.table.offset}: no image ({error})") from None

    def open(self) -> Image:
        """See `evalkit.data.images.ImageHandle.open`."""
        return decode(self._encoded(), f"{self.table.path} at byte {self.table.offset}")

    def digest(self) -> str:
        """See `evalkit.data.images.ImageHandle.digest`."""
        try:
            return hashlib.sha256(self._encoded()).hexdigest()[:32]
        except ImageError:
            return MISSING

    def identity(self) -> str:
        """File, record and position."""
        return f"{self.table.identity()}#{self.position}"

    def paths(self) -> tuple[str, ...]:
        """The table."""
        return self.table.paths()


@dataclass(frozen=True, slots=True)
class AbsentImage:
    """An image that a table names but does not hold; its sample fails with `reason`."""

    reason: str

    def open(self) -> Image:
        """Raises ImageError, always."""
        raise ImageError(self.reason)

    def digest(self) -> str:
        """`missing`."""
        return MISSING

    def identity(self) -> str:
        """The reason."""
        return self.reason

    def paths(self) -> tuple[str, ...]:
        """No file."""
        return ()


def tsv_rows(path: Path, required: tuple[str, ...]) -> list[Row]:
    """Rows of a TSV table in file order, references between rows resolved; images stay in the file.

    Raises:
        DataError: see `evalkit.files.read_tsv`; also an `index` that occurs twice.
    """
    rows, kept = [], dict[str, _ImageCell]()
    for number, row in enumerate(read_tsv(path, required, heavy=()), 1):
        cells = {_name(column): value for column, value in row.cells.items()}
        shown = _image_cell(row, cells, path.parent)
        cells.pop("image", None)
        index = cells.get("index", str(number - 1)).strip()
        if index in kept:
            raise DataError(f"{path}: index {index} occurs twice: not the official file, download it again")
        kept[index] = shown
        rows.append((cells, shown, f"{path} row {number}"))
    return [
        Row(cells, *_resolved(shown, kept, where), where) for cells, shown, where in rows
    ]  # a row may refer to a later one, so references are resolved last


def parquet_rows(paths: Iterable[Path], required: tuple[str, ...]) -> Iterator[Row]:
    """Rows of the Hub's Parquet files in order.

    Raises:
        DataError: see `evalkit.data.tables.read_rows`.
    """
    for row in read_rows(list(paths), required):
        images = tuple(row.images.values())
        cells = {_name(column): value for column, value in row.cells.items()}
        if "question" in cells:
            text_of(cells, "question", row.where)
        cluster = "+".join(image.content[:16] for image in images)
        yield Row(cells, images or (AbsentImage(f"{row.where}: no image"),), cluster or row.where, row.where)


def parquet_files(root: Path, split: str, configuration: str | None = None) -> list[Path]:
    """The Hub's Parquet files of a split, in order: `<split>-*.parquet` in `root` or a folder of it.

    If the configuration has a folder of its own, only the files in it.
    """
    files = [path for path in hub_files(root) if re.match(rf"{split}[-_.]", path.name)]
    own = [path for path in files if path.parent.name == configuration]
    return own or files


def unique(rows: Iterable[Row], column: str) -> Iterator[tuple[str, Row]]:
    """Rows with their ids, the text of `column`.

    Raises:
        DataError: an id occurs twice.
    """
    seen = set[str]()
    for row in rows:
        if (name := row.name(column)) in seen:
            raise DataError(f"{row.where}: id {name} occurs twice: not the official file, download it again")
        seen.add(name)
        yield name, row


def listed_items(path: Path) -> Iterator[tuple[Any, str]]:
    """Items of a JSON list with their places, for errors.

    Raises:
        DataError: it is not a list.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a list of questions: not the official file")
    for number, item in enumerate(items):
        yield item, f"{path} item {number}"


def literal_list(text: Any, where: str) -> list[str]:
    """A list of texts, given as a list or spelled as a Python list; another text is a list of itself.

    Raises:
        DataError: it looks like a list but does not read as one, or is neither text nor a list of texts.
    """
    if isinstance(text, (list, tuple)):
        return [as_text(item, f"{where}: an element") for item in text]
    if not (stripped := as_text(text, f"{where}: a cell").strip()).startswith("["):
        return [text]
    try:
        value = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise DataError(f"{where}: {stripped[:60]!r} does not read as a list") from None
    if any(isinstance(item, (list, tuple, dict, set)) for item in value):
        raise DataError(f"{where}: {stripped[:60]!r} is no list of texts")
    return [str(item) for item in value]


# Image cells ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ImageCell:
    """What an image cell says: images with their content's hash, or the index of another row."""

    images: tuple[ImageHandle, ...] = ()
    content: str = ""
    reference: str = ""


def _name(column: str) -> str:
    return column if len(column) == 1 else column.lower()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _image_cell(row: TableRow, cells: Mapping[str, str], folder: Path) -> _ImageCell:
    text = cells.get("image", "").strip()
    if text and len(text) <= _REFERENCE:
        return _ImageCell(reference=text)
    if text:
        table = row.image(next(column for column in row.columns if _name(column) == "image"))
        if not text.startswith("["):
            return _ImageCell((table,), _hash(text))
        count = len(_LISTED.findall(text))
        return _ImageCell(tuple(ListedImage(table, i) for i in range(count)), _hash(text))
    if paths := cells.get("image_path", "").strip():
        names = literal_list(paths, f"{row.path} at byte {row.offset}")
        return _ImageCell(tuple(ImageFile(str(folder / name)) for name in names), _hash(paths))
    return _ImageCell()


def _resolved(
    cell: _ImageCell, kept: Mapping[str, _ImageCell], where: str
) -> tuple[tuple[ImageHandle, ...], str]:
    """Images and cluster of a row, its reference resolved."""
    seen = set[str]()
    while (index := cell.reference) and index not in seen:
        seen.add(index)
        if index not in kept:
            reason = f"{where}: refers to the image of row {index}, which is not in the table"
            return (AbsentImage(reason),), index
        cell = kept[index]
    if cell.images:
        return cell.images, cell.content
    return (AbsentImage(f"{where}: no image in the table"),), where
