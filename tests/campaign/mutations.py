"""Mutations of bytes, of JSON and of tables, drawn from a seed."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def difference(before: bytes, after: bytes) -> str:
    """What was changed, in a few words."""
    most = min(len(before), len(after))
    head = next((n for n in range(most) if before[n] != after[n]), most)
    most -= head
    tail = next((n for n in range(most) if before[-1 - n] != after[-1 - n]), most)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    around = before[max(0, head - 30) : head]
    return f"at byte {head} after {around!r}: {_short(old)} became {_short(new)}"


def _short(data: bytes) -> str:
    return repr(data) if len(data) < 90 else f"{data[:60]!r}… ({len(data)} bytes)"


# Bytes ----------------------------------------------------------------------------------------------------


def mutate_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One or a few changes: flipped, cut, doubled, swapped, zeroed, foreign."""
    changed = data
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        changed = rng.choice(_BYTES)(changed, rng, other)
    return changed


def _at(data: bytes, rng: random.Random) -> int:
    """A place, near the beginning as often as anywhere."""
    if not data:
        return 0
    return rng.randrange(min(len(data), 64)) if rng.random() < 0.4 else rng.randrange(len(data))


def _flip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3))):
        if changed:
            changed[_at(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _at(data, rng)
    return (
        data[:place]
        + bytes([rng.choice((0, 255, 128, 127, 34, 10, 9, rng.randrange(256)))])
        + data[place + 1 :]
    )


def _word(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A length or a size that cannot be."""
    place, width = _at(data, rng), rng.choice((2, 4, 8))
    value = rng.choice((0, 1, -1, 2**31 - 1, 2**15, 1 << 20))
    word = (value % (1 << (8 * width))).to_bytes(width, rng.choice(("big", "little")))  # type: ignore[arg-type]
    return data[:place] + word + data[place + width :]


def _cut(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: _at(data, rng)]


def _drop(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _at(data, rng)
    return data[:place] + data[place + rng.choice((1, 2, 16, 512)) :]


def _double(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place, size = _at(data, rng), rng.choice((1, 8, 100, 512))
    return data[: place + size] + data[place:]


def _swap(data: bytes, rng: random.Random, other: bytes) -> bytes:
    size = rng.choice((1, 4, 64))
    first, second = sorted((_at(data, rng), _at(data, rng)))
    if second - first < size:
        return data
    one, two = data[first : first + size], data[second : second + size]
    return data[:first] + two + data[first + size : second] + one + data[second + size :]


def _zero(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place, size = _at(data, rng), rng.choice((1, 16, 256))
    return data[:place] + b"\0" * len(data[place : place + size]) + data[place + size :]


def _noise(data: bytes, rng: random.Random, other: bytes) -> bytes:
    place = _at(data, rng)
    return data[:place] + rng.randbytes(rng.choice((1, 4, 64))) + data[place:]


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The head of one file and the tail of another."""
    other = other or data
    return data[: _at(data, rng)] + other[_at(other, rng) :]


def _append(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data + rng.choice((b"\0" * 32, rng.randbytes(16), data[:64], b"\n"))


Change = Callable[[bytes, random.Random, bytes], bytes]
_BYTES: Sequence[Change] = (
    *(_flip, _set, _word, _cut, _drop, _double, _swap, _zero, _noise, _splice, _append),
)

# JSON -----------------------------------------------------------------------------------------------------


class Token(str):
    """Text that stands in the JSON as it is."""


class Members(list[tuple[Any, Any]]):
    """An object's members in order; a name may occur twice."""


def parse(text: str | bytes) -> Any:
    """JSON with objects as `Members` and numbers as their tokens: nothing is lost.

    Raises:
        ValueError, RecursionError: not JSON.
    """
    return json.loads(
        text, object_pairs_hook=Members, parse_float=Token, parse_int=Token, parse_constant=Token
    )


def write(value: Any) -> str:
    """The text of what `parse` gives."""
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, Members):
        return "{" + ", ".join(f"{json.dumps(name)}: {write(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value)


ODD: Sequence[Any] = (
    *(None, True, False, "", " ", "CC", "nan", "\0", "\ud800", "\u202e", "\u22121", "ＡＢ", "x" * 70_000),
    *(Token(text) for text in ("0", "-1", "1", "7", "0.5", "1e308", "NaN", "1e999", "-Infinity", "9" * 5000)),
    *([], Members(), [[]], [None], Members([("", "")]), ["a", "b"]),
    *(Token("[" * 3000 + "]" * 3000), Token('{"a":' * 3000 + "1" + "}" * 3000), Token("1" + "0" * 30)),
)

Path = tuple[int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of all values: positions in lists and in members."""
    yield path
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each[1] if isinstance(value, Members) else each, (*path, number))


def value_at(value: Any, path: Path) -> Any:
    """The value at a path."""
    for number in path:
        value = value[number][1] if isinstance(value, Members) else value[number]
    return value


def changed_at(value: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    """A copy with the value at a path replaced by what `change` makes of it."""
    if not path:
        return change(value)
    copy = type(value)(value)
    number = path[0]
    if isinstance(value, Members):
        copy[number] = (value[number][0], changed_at(value[number][1], path[1:], change))
    else:
        copy[number] = changed_at(value[number], path[1:], change)
    return copy


def mutate_json(value: Any, rng: random.Random, odd: Sequence[Any] = ODD) -> tuple[Any, Path]:
    """A copy with one change, and where it is."""
    every = list(places(value))
    path = rng.choice(every)
    found = value_at(value, path)
    if isinstance(found, list) and found and rng.random() < 0.6:
        return changed_at(value, path, lambda inner: _other_members(inner, rng, odd)), path
    return changed_at(value, path, lambda inner: _other_value(inner, rng, odd)), path


def _other_members(value: list[Any], rng: random.Random, odd: Sequence[Any]) -> Any:
    copy = type(value)(value)
    number = rng.randrange(len(copy))
    kind = rng.randrange(5)
    if kind == 0:
        del copy[number]
    elif kind == 1 and isinstance(copy, Members):
        copy.insert(rng.randrange(len(copy) + 1), (copy[number][0], rng.choice(odd)))
    elif kind == 2 and isinstance(copy, Members):
        name = copy[number][0]
        renamed = rng.choice((name.upper(), f"{name}_", name[:-1], f" {name}", "id", "text", "answer"))
        copy[number] = (renamed, copy[number][1])
    elif kind == 3:
        copy.append(copy[number])
    else:
        other = rng.randrange(len(copy))
        copy[number], copy[other] = copy[other], copy[number]
    return copy


def _other_value(value: Any, rng: random.Random, odd: Sequence[Any]) -> Any:
    if isinstance(value, str) and not isinstance(value, Token) and value and rng.random() < 0.4:
        place = rng.randrange(len(value))
        letter = rng.choice("abcZ019 \t.-/\\\"'\u00e9\u4e2d")
        return value[:place] + letter + value[place + rng.randrange(2) :]
    return rng.choice((*odd, [value], Members([("value", value)])))


def mutate_json_text(text: str, rng: random.Random) -> bytes:
    """JSON text with a change of its structure, or of its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(text.encode(), rng)
    return write(mutate_json(parse(text), rng)[0]).encode("utf-8", "surrogatepass")


# Tables ---------------------------------------------------------------------------------------------------

Rows = list[list[str]]
CELLS = (
    *("", " ", "nan", "NaN", "inf", "1e999", "-1", "CC", "A", "Z", "\u22121", "yes", "9" * 5000, "\0"),
    *("a\nb", 'say "x"', "\u202e", "None", "null", "x" * 70_000, "=1+1"),
)


def rows_of(text: str, delimiter: str) -> Rows:
    """Cells of a table."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def table_text(rows: Rows, delimiter: str) -> str:
    """A table of cells."""
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return file.getvalue()


def mutate_rows(rows: Rows, rng: random.Random) -> Rows:
    """A copy with one change of a cell, a row or a column."""
    copy = [list(row) for row in rows]
    number, column = rng.randrange(len(copy)), rng.randrange(len(copy[0]))
    kind = rng.randrange(9)
    if kind == 0:
        del copy[number]
    elif kind == 1:
        copy.insert(rng.randrange(len(copy) + 1), list(copy[number]))
    elif kind == 2:
        for row in copy:
            del row[column]
    elif kind == 3:
        for row in copy:
            row.insert(column, row[column])
        copy[rng.randrange(len(copy))][column] = rng.choice(CELLS)
    elif kind == 4:
        copy[0][column] = rng.choice((copy[0][column].upper(), f"{copy[0][column]} ", "", "id", "text", "A"))
    elif kind == 5:
        copy[number].append(rng.choice(CELLS))
    elif kind == 6:
        copy[number] = copy[number][:column]
    elif kind == 7:
        other = rng.randrange(len(copy))
        copy[number][column], copy[other][column] = copy[other][column], copy[number][column]
    else:
        copy[number][column] = rng.choice(CELLS)
    return copy
