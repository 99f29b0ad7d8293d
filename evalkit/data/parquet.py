"""Rows of Parquet files as the Hugging Face hub publishes data sets, with lazy pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.data.images import MISSING, decode
from evalkit.data.strict_json import twice
from evalkit.errors import DataError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = 64


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An encoded picture in a Parquet cell (bytes, or the hub's struct of bytes and path).

    Attributes:
        group, row: row group, and row in it.
        content: hash of the encoded picture, known from loading.
    """

    path: str
    group: int
    row: int
    column: str
    content: str

    def open(self) -> Image:
        """See `evalkit.data.images.ImageHandle.open`."""
        where = f"{self.path} row group {self.group} row {self.row} column {self.column}"
        try:
            encoded = _picture(_column(self.path, self.group, self.column)[self.row].as_py())
        except (OSError, ValueError, IndexError) as error:
            raise ImageError(f"{where}: cannot be read ({error})") from None
        if encoded is None:
            raise ImageError(f"{where}: holds no picture bytes")
        return decode(encoded, where)

    def digest(self) -> str:
        """See `evalkit.data.images.ImageHandle.digest`."""
        return self.content if Path(self.path).exists() else MISSING

    def identity(self) -> str:
        """The content."""
        return self.content

    def paths(self) -> tuple[str, ...]:
        """The Parquet file."""
        return (self.path,)


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """One row: values by column name (pictures left out), and the pictures by column name."""

    cells: Mapping[str, Any]
    images: Mapping[str, ParquetImage]
    where: str


def read_parquet(paths: Sequence[Path], required: tuple[str, ...]) -> Iterator[ParquetRow]:
    """Rows of the files in order; memory holds a few rows' pictures at a time.

    Raises:
        DataError: missing, not Parquet, a column of `required` missing, or a column that occurs twice.
    """
    for path in paths:
        yield from _read_file(path, required)


def _read_file(path: Path, required: tuple[str, ...]) -> Iterator[ParquetRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if absent := [name for name in required if name not in names]:
                raise DataError(f"{path}: column {absent[0]!r} missing (found {', '.join(names)})")
            if name := twice(names):
                raise DataError(f"{path}: column {name!r} occurs twice: not the official file")
            pictures = [field.name for field in file.schema_arrow if _holds_pictures(field.type)]
            for group in range(file.num_row_groups):
                row = 0
                for batch in file.iter_batches(_BATCH, row_groups=[group]):
                    for cells in batch.to_pylist():
                        yield _row(path, group, row, cells, pictures)
                        row += 1
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}): download it again") from None


def _holds_pictures(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _row(path: Path, group: int, row: int, cells: dict[str, Any], pictures: Sequence[str]) -> ParquetRow:
    images = {}
    for name in pictures:
        if (encoded := _picture(cells.pop(name))) is not None:
            content = hashlib.sha256(encoded).hexdigest()[:32]
            images[name] = ParquetImage(str(path), group, row, name, content)
    return ParquetRow(cells, images, f"{path} row group {group} row {row}")


def _picture(cell: Any) -> bytes | None:
    value = cell.get("bytes") if isinstance(cell, dict) else cell
    return value if isinstance(value, bytes) else None


@lru_cache(maxsize=2)
def _column(path: str, group: int, column: str) -> Any:
    """A row group's picture column; neighbouring rows are asked for one after the other."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)
