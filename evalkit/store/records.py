"""Scored samples as one Parquet table, written whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evalkit.contracts import Failure, ImageHandle, Json, Record, Response
from evalkit.data.images import DoubledImage, ImageBytes, ImageFile, TableImage, VideoFrame
from evalkit.doors import cause
from evalkit.errors import ImageError, RunFolderError
from evalkit.store.atomic import write_whole
from evalkit.store.columns import list_column, map_column, number_column, text_column
from evalkit.text import command

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

RECORDS_NAME = "records.parquet"

#: Columns that are empty where nothing is known; the others are filled in every row.
_OPTIONAL = (
    *("error_kind", "error_message", "finish", "image_key", "repeats"),
    *("prompt_tokens", "visual_tokens", "new_tokens", "seconds"),
)
#: Rows that are turned into columns at a time, so that a large run is not in memory twice.
_ROWS_AT_ONCE = 4096
#: One JSON value from a place of a text on: the value, and where it ends.
_SCAN: Callable[[str, int], tuple[Json, int]] = json.scanner.make_scanner(json.JSONDecoder())  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Scored:
    """A record with what a reader wants to see beside it.

    Attributes:
        image_key: content hash of its images; None in tables of earlier versions.
    """

    record: Record
    response: Response
    request_key: str
    question: str
    images: tuple[str, ...]
    image_key: str | None = None


def image_key(handles: Iterable[ImageHandle]) -> str:
    """Content hash (16 digits) of a sample's images, in order."""
    return hashlib.sha256("\0".join(handle.digest() for handle in handles).encode()).hexdigest()[:16]


def image_reference(handle: ImageHandle) -> tuple[str, ...]:
    """Where an image is, as text: its files, or file and byte range of a table's cell."""
    if isinstance(handle, DoubledImage):
        return image_reference(handle.image)
    if isinstance(handle, TableImage):
        return (f"{handle.path}#bytes={handle.offset}+{handle.length}&column={handle.column}",)
    if isinstance(handle, VideoFrame):
        return (handle.identity(),)
    if isinstance(handle, ImageBytes):
        return (handle.name,)
    return handle.paths()


_CELL = re.compile(r"(.+)#bytes=(\d+)\+(\d+)&column=(\d+)", re.DOTALL)
_FRAME = re.compile(r"(.+)#(\d+)/(\d+)", re.DOTALL)


def open_reference(reference: str) -> Image:
    """Decode the image that `image_reference` named.

    Raises:
        ImageError: it is gone, broken, or was in memory alone.
    """
    handle: ImageHandle = ImageFile(reference)
    if cell := _CELL.fullmatch(reference):
        handle = TableImage(cell[1], *(int(number) for number in cell.groups()[1:]))
    elif frame := _FRAME.fullmatch(reference):
        handle = VideoFrame(frame[1], int(frame[2]), int(frame[3]))
    for path in handle.paths():
        if not Path(path).is_file():
            raise ImageError(f"{path}: no such image file: put it back where the run read it")
    return handle.open()


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number, names = pa.string(), pa.float64(), pa.list_(pa.string())
    return pa.schema(
        {
            "id": text,
            "cluster": text,
            "text": text,
            "prediction": text,
            "target": text,
            "scores": pa.map_(text, number),
            "tags": pa.map_(text, text),
            "flags": names,
            "data": text,
            "error_kind": text,
            "error_message": text,
            "finish": text,
            "prompt_tokens": pa.int64(),
            "visual_tokens": pa.int64(),
            "new_tokens": pa.int64(),
            "seconds": number,
            "request_key": text,
            "images": names,
            "image_key": text,
            "question": text,
            "repeats": text,
        }
    )


#: Columns that tables of earlier versions lack.
_LATER = ("image_key", "repeats")


def _plain(text: str) -> str:
    """Valid UTF-8: a lone surrogate, which a model or a file may hold, becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _batch(part: Sequence[Scored], schema: pa.Schema) -> pa.RecordBatch:
    """Some rows of the table."""
    import pyarrow as pa

    records, responses = [each.record for each in part], [each.response for each in part]

    def text(values: Iterable[str | None]) -> pa.Array:
        return text_column([value and _plain(value) for value in values])

    def number(name: str) -> pa.Array:
        return number_column([getattr(response, name) for response in responses], schema.field(name).type)

    scores, tags = schema.field("scores").type, schema.field("tags").type
    columns = {
        "id": text(record.id for record in records),
        "cluster": text(record.cluster for record in records),
        "text": text(record.text for record in records),
        "prediction": text_column([json.dumps(record.prediction) for record in records]),
        "target": text_column([json.dumps(record.target) for record in records]),
        "scores": map_column([list(record.scores.items()) for record in records], scores),
        "tags": map_column([_tags(record) for record in records], tags),
        "flags": list_column([record.flags for record in records]),
        "data": text_column([json.dumps(dict(record.data)) if record.data else "{}" for record in records]),
        "error_kind": text(record.error.kind if record.error else None for record in records),
        "error_message": text(record.error.message if record.error else None for record in records),
        "finish": text_column([response.finish for response in responses]),
        **{name: number(name) for name in ("prompt_tokens", "visual_tokens", "new_tokens", "seconds")},
        "request_key": text_column([each.request_key for each in part]),
        "images": list_column([[_plain(name) for name in each.images] for each in part]),
        "image_key": text_column([each.image_key for each in part]),
        "question": text(each.question for each in part),
        "repeats": text_column([_repeats(record) for record in records]),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _tags(record: Record) -> list[tuple[str, str]]:
    return [(_plain(name), _plain(value)) for name, value in record.tags.items()]


def _repeats(record: Record) -> str | None:
    return json.dumps([_repeat(each) for each in record.repeats]) if record.repeats else None


def _repeat(record: Record) -> dict[str, Json]:
    """What a repeat has of its own."""
    error = record.error and [record.error.kind, record.error.message]
    return {
        "text": record.text,
        "prediction": record.prediction,
        "scores": dict(record.scores),
        "tags": dict(record.tags),
        "flags": record.flags,
        "data": dict(record.data),
        "error": error,
    }


def write_records(folder: Path, scored: Iterable[Scored]) -> None:
    """Write `records.parquet` whole.

    Raises:
        RunFolderError: the disk is full or refuses.
    """
    import pyarrow.parquet as parquet

    schema = _schema()
    rows = iter(scored)

    def write(scratch: Path) -> None:
        with parquet.ParquetWriter(scratch, schema, compression="zstd") as writer:
            while part := list(islice(rows, _ROWS_AT_ONCE)):
                writer.write_batch(_batch(part, schema))

    write_whole(folder / RECORDS_NAME, write)


def read_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or some of its columns.

    Raises:
        RunFolderError: missing, cut, or with other columns, other types or empty cells.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = folder / RECORDS_NAME
    if not path.is_file():
        raise RunFolderError(f"{path}: missing; the run was not scored yet: `{command('score', folder)}`")
    schema = _schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    try:
        with parquet.ParquetFile(path) as file:  # `read_table` of Arrow imports its data sets, and pandas
            table = file.read(schema.names if columns else None)
        for name in _LATER:
            if name in schema.names and name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), pa.string()))
        if absent := [name for name in schema.names if name not in table.column_names]:
            raise pa.ArrowInvalid(f"column {absent[0]} missing")
        table = table.select(schema.names)
        if not table.schema.equals(schema):
            table = table.cast(schema)
        table.validate(full=True)
    except Exception as error:  # Arrow raises many kinds
        raise _broken(folder, cause(error)) from None
    if empty := [n for n in schema.names if n not in _OPTIONAL and table[n].null_count]:
        raise _broken(folder, f"column {empty[0]} has empty cells")
    return table


def _broken(folder: Path, cause: str) -> RunFolderError:
    path = folder / RECORDS_NAME
    return RunFolderError(f"{path}: broken ({cause}); make it again: `{command('score', folder)}`")


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table, several times as fast as its `to_pylist`, with part of it in memory at a time."""
    names = table.column_names
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        columns = [column.to_pylist() for column in batch.columns]
        yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def read_column(folder: Path, name: str) -> dict[str, Any]:
    """A column of the table by sample id.

    Raises:
        RunFolderError: see `read_table`.
    """
    table = read_table(folder, ("id", name))
    return dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))


def json_value(text: str) -> Json:
    """The value of a JSON text that stands alone, faster than `json.loads`. Raises ValueError otherwise."""
    try:
        found, end = _SCAN(text, 0)
    except StopIteration:
        raise ValueError(f"not JSON: {text[:40]!r}") from None
    if end != len(text):
        raise ValueError(f"not JSON: {text[:40]!r}")
    return found


class ScoredTable(NamedTuple):
    """Records in sample order, and by sample id what lies beside them.

    Attributes:
        request_keys: content hash of the request. image_keys: of the images, None in older tables.
        seconds: model time, where it is known.
    """

    records: list[Record]
    request_keys: dict[str, str]
    image_keys: dict[str, str | None]
    seconds: dict[str, float]


def read_scored(folder: Path) -> ScoredTable:
    """Records and hashes, in one pass over the table.

    Raises:
        RunFolderError: see `read_records`.
    """
    found = ScoredTable([], {}, {}, {})
    for row, record in _read(folder):
        found.records.append(record)
        found.request_keys[record.id] = row["request_key"]
        found.image_keys[record.id] = row["image_key"]
        if row["seconds"] is not None:
            found.seconds[record.id] = row["seconds"]
    return found


def read_records(folder: Path) -> list[Record]:
    """Records in sample order.

    Raises:
        RunFolderError: see `read_table`; a cell that should hold JSON does not.
    """
    return [record for _, record in _read(folder)]


def _read(folder: Path) -> Iterator[tuple[dict[str, Any], Record]]:
    try:
        for row in rows_of(read_table(folder)):
            yield row, record_of(row)
    except RunFolderError:
        raise
    except Exception as error:
        raise _broken(folder, cause(error)) from None


def record_of(
    row: Mapping[str, Any],
    text: Callable[[str], str] = str,
    value: Callable[[str], Json] = json_value,
) -> Record:
    """The record of one row of the table.

    Args:
        text: makes a text of a stored text. value: makes a value of stored JSON.

    Raises:
        ValueError, TypeError: whatever these raise for a broken cell.
    """
    failed = row["error_kind"] is not None
    target = value(row["target"])
    repeats = json.loads(row["repeats"]) if row["repeats"] else ()
    return Record(
        id=row["id"],
        cluster=row["cluster"],
        text=text(row["text"]),
        prediction=value(row["prediction"]),
        target=target,
        scores=dict(row["scores"]),
        tags=dict(row["tags"]),
        flags=tuple(row["flags"]),
        data=value(row["data"]) or {},
        error=Failure(row["error_kind"], text(row["error_message"] or "")) if failed else None,
        repeats=tuple(
            Record(
                id=row["id"],
                cluster=row["cluster"],
                text=text(each["text"]),
                prediction=each["prediction"],
                target=target,
                scores=each["scores"],
                tags=each["tags"],
                flags=tuple(each["flags"]),
                data=each["data"],
                error=Failure(*map(str, each["error"])) if each["error"] else None,
            )
            for each in repeats
        ),
    )
