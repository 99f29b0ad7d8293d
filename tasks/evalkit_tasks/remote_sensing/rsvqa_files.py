"""RSVQA's official files: records that are not stubs, and answers by id in a few bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from evalkit.errors import DataError
from evalkit.files import read_json_items


def active_rows(path: Path, key: str | None) -> Iterator[dict[str, Any]]:
    """Records of a file, without the stubs of other splits."""
    for row in read_json_items(path, key):
        if type(row) is not dict:
            raise DataError(f"{path}: a record is not an object: not the official file")
        active = row.get("active", True)
        if not isinstance(active, bool):
            raise DataError(
                f"{path}: record {row.get('id')}: active must be true or false: not the official file"
            )
        if active:
            yield row


def lacking(path: Path, row: Mapping[str, Any], error: Exception) -> DataError:
    """The error for a record that lacks a field or holds another kind of value."""
    what = f"field {error} missing" if isinstance(error, KeyError) else str(error)
    return DataError(f"{path}: record {row.get('id')}: {what}: not the official file")


def plain_text(value: object, name: str) -> str:
    """The field `name`, which must be text. Raises TypeError: it is something else."""
    if type(value) is str:
        return value
    raise TypeError(f"field {name!r} is {type(value).__name__}, not text")


def only_one(names: object) -> Hashable:
    """The one id in `answers_ids`. Raises TypeError: it is no list of one."""
    if not isinstance(names, list) or len(names) != 1:
        raise TypeError(f"answers_ids is {str(names)[:40]}, not a list of one id")
    name: Hashable = names[0]
    return name


class Answers:
    """Texts by id, each text kept once: 12 bytes an id.

    Args:
        pairs: id and text. Ids that are not whole numbers, which the official files do not have, cost what a
            dict costs.

    Raises:
        TypeError: an id is a list, or has two texts.
    """

    def __init__(self, pairs: Iterable[tuple[Hashable, str]]) -> None:
        texts: dict[str, int] = {}
        self._others: dict[Hashable, int] = {}
        self._names, self._codes = array("q"), array("i")
        for name, text in pairs:
            code = texts.setdefault(text, len(texts))
            if _whole(name):
                self._names.append(name)
                self._codes.append(code)
            elif self._others.setdefault(name, code) != code:
                raise TypeError(f"answer {name!r} occurs twice with different texts")
        self._texts = list(texts)
        names = np.frombuffer(self._names, np.int64) if self._names else np.zeros(0, np.int64)
        if (names[1:] < names[:-1]).any():
            order = names.argsort(kind="stable")
            self._codes = array("i", np.frombuffer(self._codes, np.intc)[order].tobytes())
            self._names = array("q", names[order].tobytes())
        names, codes = np.frombuffer(self._names, np.int64), np.frombuffer(self._codes, np.intc)
        if (twice := (names[1:] == names[:-1]) & (codes[1:] != codes[:-1])).any():
            raise TypeError(f"answer {names[1:][twice][0]} occurs twice with different texts")

    def get(self, name: Hashable) -> str | None:
        """The text, or None."""
        if not _whole(name):
            code = self._others.get(name)
            return None if code is None else self._texts[code]
        place = bisect_right(self._names, name) - 1
        return self._texts[self._codes[place]] if place >= 0 and self._names[place] == name else None


def _whole(name: Hashable) -> TypeGuard[int]:
    return type(name) is int and -(1 << 63) <= name < 1 << 63


def read_answers(path: Path, key: str = "id") -> Answers:
    """The texts of an answers file by the field `key`.

    Raises:
        DataError: not the official file.
    """
    row: Mapping[str, Any] = {}

    def pairs() -> Iterator[tuple[Hashable, str]]:
        nonlocal row
        for row in active_rows(path, "answers"):
            yield row[key], plain_text(row["answer"], "answer")

    try:
        return Answers(pairs())
    except (LookupError, TypeError) as error:
        raise lacking(path, row, error) from None
