"""Readers of benchmark files as downloaded, with errors that name file, place and fix.

TSV tables are indexed by record, so that a table of many gigabytes of base64 images costs one pass over its
bytes and no memory for the images.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.data import strict_json
from evalkit.data.images import TableImage
from evalkit.data.json_stream import JsonStream
from evalkit.doors import cause, reading
from evalkit.errors import DataError

#: No field of a benchmark table is larger than this.
FIELD_LIMIT = 1 << 30
NOT_OFFICIAL = "not the official file"
_HEADER_AGAIN = "the header stands here again, as where two tables were joined: not the official file"


def require(path: Path, fix: str = "see `evalkit data where TASK`") -> Path:
    """The path itself, if it exists.

    Raises:
        DataError: it does not.
    """
    if not path.exists():
        raise DataError(f"{path}: missing; {fix}")
    return path


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: missing, not UTF-8, not JSON (with line and column), or ambiguous (`strict_json`).
    """
    try:
        return strict_json.loads(require(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}: download it again") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{path}: broken JSON at {place} ({error.msg}): download it again") from None
    except strict_json.AmbiguousJson as error:
        raise DataError(f"{path}: {error}: {NOT_OFFICIAL}") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply: {NOT_OFFICIAL}") from None
    except (OSError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({cause(error)})") from None


def read_json_items(path: Path, key: str | None = None) -> Iterator[Any]:
    """Elements of a JSON file's array, one at a time: a file of gigabytes costs no memory for its whole.

    Args:
        key: the file is an object and the array is this member of it; None: the file is the array.

    Raises:
        DataError: missing, not UTF-8, not of this form, ambiguous (`strict_json`) or broken, with the number
            of elements read before.
    """
    count = 0
    try:
        with require(path).open(encoding="utf-8-sig") as file:
            stream = JsonStream(file)
            if key is not None and not stream.enter(key):
                raise DataError(f"{path}: holds no list {key!r}: {NOT_OFFICIAL}")
            for item in stream.array():
                count += 1
                yield item
            stream.leave(inside=key is not None)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 after {count} records: download it again") from None
    except strict_json.AmbiguousJson as error:
        raise DataError(f"{path}: after {count} records: {error}: {NOT_OFFICIAL}") from None
    except ValueError as error:
        raise DataError(f"{path}: broken JSON after {count} records ({error}): download it again") from None
    except (RecursionError, OSError, MemoryError) as error:
        why = cause(error)
        raise DataError(f"{path}: broken JSON after {count} records ({why}): download it again") from None


class JsonRow(dict[str, Any]):
    """A row of a JSON Lines or CSV file; asking for a field it lacks is a DataError with file and line."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        super().__init__(fields)
        self.where = where

    def __missing__(self, name: str) -> Any:
        raise DataError(f"{self.where}: field {name!r} missing: {NOT_OFFICIAL}")


def read_jsonl(path: Path) -> Iterator[JsonRow]:
    """Objects of a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: missing, or a line that is not a JSON object or ambiguous (`strict_json`), with its number;
            later, a field that a row lacks (`row["name"]`).
    """
    with reading(path, DataError, "download it again"), require(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = strict_json.loads(line)
            except strict_json.AmbiguousJson as error:
                raise DataError(f"{path}: line {number}: {error}: {NOT_OFFICIAL}") from None
            except RecursionError:
                raise DataError(f"{path}: line {number}: nested too deeply: {NOT_OFFICIAL}") from None
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: line {number} is not JSON ({error}): download it again") from None
            if not isinstance(item, dict):
                raise DataError(f"{path}: line {number} is not an object: {NOT_OFFICIAL}")
            yield JsonRow(item, f"{path}: line {number}")


def read_csv(path: Path, required: tuple[str, ...] = ()) -> Iterator[JsonRow]:
    """Rows of a CSV table with a header, as texts by column name; an empty cell is an empty text.

    Raises:
        DataError: missing, not UTF-8, a column missing or twice, a row with another number of cells, or an
            open quote.
    """
    csv.field_size_limit(FIELD_LIMIT)
    first: list[str] = []
    header: list[str] | None = None
    with (
        reading(path, DataError, "download it again"),
        require(path).open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.reader(file, strict=True)
        try:
            for cells in filter(None, reader):
                where = f"{path}: line {reader.line_num}"
                if header is None:
                    first, header = cells, [name.strip() for name in cells]
                    if absent := [name for name in required if name not in header]:
                        raise DataError(f"{where}: column {absent[0]!r} missing (found {', '.join(header)})")
                    if name := strict_json.twice(header):
                        raise DataError(f"{where}: column {name!r} occurs twice: {NOT_OFFICIAL}")
                elif len(cells) != len(header):
                    raise DataError(f"{where}: {len(cells)} cells, the header has {len(header)}")
                elif cells == first:
                    raise DataError(f"{where}: {_HEADER_AGAIN}")
                else:
                    yield JsonRow(dict(zip(header, cells, strict=True)), where)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 after line {reader.line_num} ({error.reason})") from None
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: broken table ({error})") from None
    if header is None:
        raise DataError(f"{path}: empty file: download it again")


def fields(item: object, names: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """`item` as a mapping that has all of `names`.

    Raises:
        DataError: it is not a mapping or lacks a field, naming `where`.
    """
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: expected an object, found {type(item).__name__}: {NOT_OFFICIAL}")
    for name in names:
        if name not in item:
            raise DataError(f"{where}: field {name!r} missing: {NOT_OFFICIAL}")
    return item


def text_of(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field that must be text: an object or a number is never turned into one.

    Raises:
        DataError: it is something else, naming `where`.
    """
    return as_text(row[name], f"{where}: field {name!r}")


def id_of(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field that names something, a text or a whole number. Raises DataError: it is something else."""
    value = row[name]
    return str(value) if type(value) is int else as_text(value, f"{where}: field {name!r}")


def texts_of(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A field that must be a text or a list of some; a text is never split.

    Raises:
        DataError: it is something else, or an empty list.
    """
    value = row[name]
    if value == []:
        raise DataError(f"{where}: field {name!r} is an empty list: {NOT_OFFICIAL}")
    return [
        as_text(each, f"{where}: field {name!r}") for each in (value if isinstance(value, list) else [value])
    ]


def as_text(value: object, where: str) -> str:
    """`value`, which must be text. Raises DataError: it is something else, naming `where`."""
    if isinstance(value, str):
        return value
    kind = "null" if value is None else type(value).__name__
    raise DataError(f"{where} is {kind} ({str(value)[:40]}), not text: {NOT_OFFICIAL}")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One record of a TSV table: cells by column name as text, and where the record lies."""

    cells: Mapping[str, str]
    path: str
    offset: int
    length: int
    columns: Mapping[str, int]

    def image(self, column: str) -> TableImage:
        """Handle of the base64 image in `column`."""
        return TableImage(self.path, self.offset, self.length, self.columns[column])


def _stays_open(line: bytes, quoted: bool) -> bool:
    """Whether a quoted field is still open after `line`; a quote inside an unquoted field is a character."""
    if b'"' not in line:
        return quoted
    for cell in line.split(b"\t"):
        if (quoted or cell.startswith(b'"')) and cell.count(b'"') % 2:
            quoted = not quoted
    return quoted


def _record_spans(path: Path) -> Iterator[tuple[int, bytes]]:
    """Byte offset and bytes of every record; a quoted field may span lines."""
    offset, start, pending, quoted = 0, 0, b"", False
    with reading(path, DataError, "download it again"), path.open("rb") as file:
        for line in file:
            pending += line
            offset += len(line)
            quoted = _stays_open(line, quoted)
            if not quoted:
                yield start, pending
                start, pending = offset, b""
    if pending:
        raise DataError(f"{path}: the record at byte {start} has an open quote: truncated, download it again")


def read_tsv(
    path: Path, required: tuple[str, ...], heavy: tuple[str, ...] = ("image",)
) -> Iterator[TableRow]:
    """Rows of a TSV table in file order; cells of `heavy` columns longer than 64 characters are left empty.

    Column names are stripped, and a byte order mark is ignored. Texts are never turned into numbers or
    missing values.

    Raises:
        DataError: missing, not UTF-8, a column missing or twice, a row with another number of cells, an open
            quote, the header again.
    """
    csv.field_size_limit(FIELD_LIMIT)
    first: list[str] = []
    header: list[str] | None = None
    for number, (offset, raw) in enumerate(_record_spans(require(path))):
        try:
            text = raw.decode("utf-8-sig" if number == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: record {number + 1} is not UTF-8 ({error.reason}): download it again"
            ) from None
        if not text.strip("\r\n"):
            continue
        with reading(f"{path}: record {number + 1}", DataError, "download it again"):
            cells = next(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
        if header is None:
            first, header = cells, [name.strip() for name in cells]
            if absent := [name for name in required if name not in header]:
                raise DataError(f"{path}: column {absent[0]!r} missing (found {', '.join(header)})")
            if name := strict_json.twice(header):
                raise DataError(f"{path}: column {name!r} occurs twice: {NOT_OFFICIAL}")
            columns = {name: position for position, name in enumerate(header)}
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{path}: record {number + 1} has {len(cells)} cells, the header {len(header)}: "
                "truncated or not the official file, download it again"
            )
        if cells == first:
            raise DataError(f"{path}: record {number + 1}: {_HEADER_AGAIN}")
        values = dict(zip(header, cells, strict=True))
        for name in heavy:
            if len(values.get(name, "")) > 64:
                values[name] = ""
        yield TableRow(values, str(path), offset, len(raw), columns)
    if header is None:
        raise DataError(f"{path}: empty file: download it again")
