"""Rows of Parquet files, as the Hugging Face Hub publishes data sets, read by `datasets`, with lazy images.

`datasets` copies a Parquet file once into the cache (`EVALKIT_CACHE`) as an Arrow file. Any process maps that
into memory and reads single rows.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evalkit.data.decoding import decode
from evalkit.data.images import MISSING
from evalkit.data.locate import cache_folder
from evalkit.doors import cause, guarded
from evalkit.errors import DataError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Rows read at a time.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """An encoded image in a cell (bytes, or the Hub's struct of bytes and path).

    Attributes:
        path: the Parquet file. row: its row, from 0.
        content: hash of the encoded image, known from loading.
    """

    path: str
    row: int
    column: str
    content: str

    def open(self) -> Image:
        """See `evalkit.data.images.ImageHandle.open`."""
        where = f"{self.path} row {self.row} column {self.column}"
        try:
            (cell,) = _column(self.path, self.column)[self.row].column(0).to_pylist()
        except Exception as error:
            raise ImageError(f"{where}: cannot be read ({cause(error)})") from None
        if (encoded := _encoded(cell)) is None:
            raise ImageError(f"{where}: holds no image bytes")
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


class DatasetRow(NamedTuple):
    """One row: values by column name (images left out), the images by column name, file and place."""

    cells: Mapping[str, Any]
    images: Mapping[str, DatasetImage]
    where: str


def read_rows(paths: Sequence[Path], required: tuple[str, ...]) -> Iterator[DatasetRow]:
    """Rows of the files in order; memory holds a few rows' images at a time.

    Raises:
        DataError: a file is missing or cannot be read, or lacks a column of `required`.
    """
    for path in paths:
        table = _table(str(path))
        if absent := [name for name in required if name not in table.column_names]:
            found = ", ".join(table.column_names)
            raise DataError(f"{path}: column {absent[0]!r} missing (found {found})")
        columns = [name for name, feature in table.features.items() if _holds_images(feature)]
        batches = (batch.to_pylist() for batch in table.iter(_BATCH))
        rows = guarded(chain.from_iterable(batches), path, DataError, "download it again")
        for row, cells in enumerate(rows):
            images = {}
            for name in columns:
                if (encoded := _encoded(cells.pop(name))) is not None:
                    content = hashlib.sha256(encoded).hexdigest()[:32]
                    images[name] = DatasetImage(str(path), row, name, content)
            yield DatasetRow(cells, images, f"{path} row {row}")


@contextmanager
def _quiet() -> Iterator[None]:
    """`datasets` without progress bars and messages of its own: evalkit's errors say what went wrong."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    silent, level = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not silent:
            enable_progress_bars()


def _table(path: str) -> Any:
    """A file as a `datasets.Dataset` in the format `arrow`, which leaves images encoded.

    Raises:
        DataError: it is missing or cannot be read.
    """
    from datasets import load_dataset

    try:
        with _quiet():
            table = load_dataset(
                "parquet",
                data_files=glob.escape(path),
                split="train",
                cache_dir=str(cache_folder() / "datasets"),
            )
    except Exception as error:  # `datasets` and Arrow raise many kinds
        why = cause(error.__cause__ or error)
        raise DataError(f"{path}: not a readable Parquet file ({why}): download it again") from None
    return table.with_format("arrow")


@lru_cache(maxsize=64)
def _column(path: str, column: str) -> Any:
    """A column of a file; only the rows asked for are read."""
    return _table(path).select_columns([column])


def _holds_images(feature: Any) -> bool:
    from datasets import Image, Value

    if isinstance(feature, Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, Image) or (isinstance(feature, dict) and "bytes" in feature)


def _encoded(cell: Any) -> bytes | None:
    value = cell.get("bytes") if isinstance(cell, dict) else cell
    return value if isinstance(value, bytes) else None
