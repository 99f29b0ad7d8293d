"""Columns of an Arrow table made from Python values.

`pyarrow.array` imports pandas wherever it is installed, which takes longer than the rest of a small run. Made
from their buffers, columns need no pandas.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def text_column(values: Sequence[str | None]) -> pa.Array:
    """A column of texts. Raises UnicodeEncodeError for a lone surrogate."""
    import pyarrow as pa

    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def number_column(values: Sequence[float | None], kind: pa.DataType) -> pa.Array:
    """A column of `int64` or `float64`; None is an empty cell. Raises OverflowError beyond 64 bits."""
    import pyarrow as pa

    there = np.array([value is not None for value in values], dtype=np.bool_)
    filled = np.array([0 if value is None else value for value in values], dtype=kind.to_pandas_dtype())
    mask = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(filled)])


def list_column(values: Sequence[Sequence[str]]) -> pa.Array:
    """A column of lists of texts."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(_offsets(values), text_column(list(chain.from_iterable(values))))


def map_column(values: Sequence[Sequence[tuple[str, Any]]], kind: pa.MapType) -> pa.Array:
    """A column of maps from texts to texts or numbers, each given as pairs."""
    import pyarrow as pa

    names = text_column([name for pairs in values for name, _ in pairs])
    items = [item for pairs in values for _, item in pairs]
    made = text_column(items) if kind.item_type == pa.string() else number_column(items, kind.item_type)
    return pa.MapArray.from_arrays(_offsets(values), names, made)


def _offsets(values: Sequence[Collection[Any]]) -> pa.Array:
    """Where each value begins among the items of all, and where the last one ends."""
    import pyarrow as pa

    ends = np.fromiter(accumulate(map(len, values), initial=0), dtype=np.int32, count=len(values) + 1)
    return pa.Array.from_buffers(pa.int32(), len(ends), [None, pa.py_buffer(ends)])
