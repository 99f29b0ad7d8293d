"""Files of stored answers as people have them, read row by row.

Told apart by content: JSON lists and Lines, JSON documents with a list of answers or a mapping from id to
answer, CSV and TSV, Excel tables, Parquet, and run folders of evalkit; each may be compressed by gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from evalkit.data import strict_json
from evalkit.doors import guarded, reading
from evalkit.errors import DataError
from evalkit_models.prediction_rows import is_field

#: A row and where it stands, in words.
Row = tuple[Mapping[str, Any], str]

#: Members of a JSON document that may hold the list of answers; `results` is DriveLM's.
LISTS = ("results", "predictions", "answers", "samples", "data", "annotations", "questions")
#: Keys of a row made of a mapping from id to answer.
ID, TEXT = "id", "text"

_EXCEL, _OLD_EXCEL, _PARQUET, _GZIP = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1", b"\x1f\x8b"


class AnswerFile(NamedTuple):
    """What a file was found to be, its bytes (of a run folder: of its responses), and its rows."""

    kind: str
    data: bytes
    rows: Iterator[Row]


def read(path: Path) -> AnswerFile:
    """Read the whole file.

    Raises:
        DataError: missing or of no known kind; while rows are taken, whatever is broken, with its place.
    """
    with reading(path, DataError, "make the file again"):
        found = _read(path)
    return found._replace(rows=guarded(found.rows, path, DataError, "make the file again"))


def _read(path: Path) -> AnswerFile:
    if path.is_dir() and (logs := sorted(path.glob("responses-*.jsonl"))):
        parts = [(log, _bytes(log)) for log in logs]
        rows = (row for log, data in parts for row in _lines(log, _text(log, data)))
        return AnswerFile("a run folder", b"".join(data for _, data in parts), rows)
    data, name = _bytes(path), PurePath(path.name)
    if data.startswith(_GZIP):
        data, name = _decompressed(path, data), PurePath(path.stem)
    if data.startswith(_EXCEL):
        return AnswerFile("an Excel table", data, _excel(path, data))
    if data.startswith(_OLD_EXCEL):
        raise DataError(f"{path}: a table of Excel 97 to 2003; save it as .xlsx or CSV")
    if data.startswith(_PARQUET):
        return AnswerFile("a Parquet table", data, _parquet(path, data))
    text = _text(path, data)
    if name.suffix.lower() in (".csv", ".tsv") or _has_header(text):
        return AnswerFile("a table", data, _table(path, text, _delimiter(text, name.suffix.lower())))
    if text.lstrip()[:1] == "[":
        return AnswerFile("a JSON list", data, _list(path, text))
    if _is_document(text):
        return AnswerFile("a JSON document", data, _document(path, text))
    return AnswerFile("JSON Lines", data, _lines(path, text))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such predictions file") from None
    except OSError as error:
        raise DataError(f"{path}: predictions cannot be read ({error.strerror})") from None


def _decompressed(path: Path, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip ({error}); write it again") from None


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


# JSON -----------------------------------------------------------------------------------------------------


def _is_document(text: str) -> bool:
    """Whether one JSON object fills the file, rather than an object a line."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{"):
        return False
    try:
        item = json.loads(first)
    except (ValueError, RecursionError):
        # The first line of an indented object ends within it; that of JSON Lines ends with it.
        return not first.rstrip().endswith("}")
    return not rest.strip() and isinstance(item, dict) and (_holds_answers(item) or _is_mapping(item))


def _holds_answers(item: Mapping[str, Any]) -> bool:
    """Whether an object is a document with a list of answers, and no answer itself."""
    return any(isinstance(item.get(name), list) and item[name] for name in LISTS) and "id" not in item


def _is_mapping(item: Mapping[str, Any]) -> bool:
    """Whether an object maps ids to answers: no key is a field's name, and all values are of one kind."""
    kinds = {type(value) for value in item.values()}
    return len(kinds) == 1 and kinds <= {str, dict} and not any(map(is_field, item))


def _list(path: Path, text: str) -> Iterator[Row]:
    for number, item in enumerate(_whole(path, text), 1):
        yield _object(item, f"{path}: item {number}")


def _whole(path: Path, text: str) -> Any:
    try:
        return strict_json.loads(text)
    except strict_json.AmbiguousJson as error:
        raise DataError(f"{path}: {error}; say what the answer is") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno} column {error.colno}: broken JSON ({error.msg})"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply: not a predictions file") from None


def _document(path: Path, text: str) -> Iterator[Row]:
    content = _whole(path, text)
    for name in LISTS:
        if isinstance(content.get(name), list) and content[name]:
            for number, item in enumerate(content[name], 1):
                yield _object(item, f"{path}: {name}: item {number}")
            return
    if {"id", "question_id", "index"} & content.keys():  # one answer, indented
        yield content, f"{path}: the object"
        return
    for key, value in content.items():
        where = f"{path}: key {key!r}"
        if isinstance(value, Mapping):
            yield {ID: key, **value}, where
        else:
            yield {ID: key, TEXT: value}, where


def _lines(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): texts may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            item = strict_json.loads(line)
        except strict_json.AmbiguousJson as error:
            raise DataError(f"{where}: {error}; say what the answer is") from None
        except (json.JSONDecodeError, RecursionError) as error:
            cause = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise DataError(f"{where}: not JSON ({cause}); {_HINT}") from None
        yield _object(item, where)


_HINT = "a file of JSON Lines has one object a line; tables end in .csv or .tsv"


def _object(item: Any, where: str) -> Row:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with id and text, found {type(item).__name__}")
    return item, where


# Tables ---------------------------------------------------------------------------------------------------


def _delimiter(text: str, suffix: str) -> str:
    """That of the suffix, unless the header has only another one (Excel may write semicolons)."""
    usual = "\t" if suffix == ".tsv" else ","
    header = text.lstrip().partition("\n")[0]
    return usual if usual in header else next((mark for mark in "\t,;" if mark in header), usual)


def _has_header(text: str) -> bool:
    """Whether the first line names an id and an answer in columns, whatever the file's name."""
    header = text.lstrip().partition("\n")[0].strip()
    if header[:1] in ("{", "["):
        return False
    cells = header.split(next((mark for mark in "\t,;" if mark in header), ","))
    return len(cells) > 1 and sum(map(is_field, cells)) > 1


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    header = [name.strip() for name in cells]
    if name := strict_json.twice(header):
        raise DataError(f"{path}: line {line}: column {name!r} occurs twice; keep one")
    return header


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = _header(cells, path, reader.line_num)
                continue
            where = f"{path}: line {reader.line_num}"
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells, the header has {len(header)}")
            yield dict(zip(header, cells, strict=True)), where
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: broken table ({error})") from None


def _excel(path: Path, data: bytes) -> Iterator[Row]:
    """Rows of the first sheet; an empty cell is an empty text, as in CSV."""
    from openpyxl import load_workbook

    try:
        rows = _cells(data, load_workbook)
    except Exception as error:  # openpyxl raises nearly anything for archives that are not tables
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{path}: an archive, but no Excel table that can be read ({cause})") from None
    header: list[str] | None = None
    for number, cells in enumerate(rows, 1):
        if all(cell is None for cell in cells):
            continue
        if header is None:
            header = _header(["" if cell is None else str(cell) for cell in cells], path, number)
            continue
        cells += [None] * (len(header) - len(cells))
        named = {name: cell for name, cell in zip(header, cells, strict=False) if name}
        yield {name: _cell(value) for name, value in named.items()}, f"{path}: row {number}"


def _cells(data: bytes, load: Any) -> list[list[Any]]:
    """Values of the first sheet.

    A text that begins with `=`, which programs write as a formula without a value, is that text.
    """

    def read(values: bool) -> list[list[Any]]:
        sheet = load(io.BytesIO(data), read_only=True, data_only=values).worksheets[0]
        sheet.reset_dimensions()  # some writers store wrong ones
        return [list(cells) for cells in sheet.iter_rows(values_only=True)]

    rows = read(values=False)
    if any(isinstance(cell, str) and cell.startswith("=") for cells in rows for cell in cells):
        computed = read(values=True)
        rows = [
            [text if value is None else value for text, value in zip(*both, strict=True)]
            for both in zip(rows, computed, strict=True)
        ]
    return rows


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value) if isinstance(value, bool) else value


def _parquet(path: Path, data: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        batches = file.iter_batches()
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield row, f"{path}: row {number}"
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: broken Parquet ({str(error).splitlines()[0]})") from None
