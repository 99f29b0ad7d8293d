"""Rows that name their sample by its place alone (lmms-eval's `doc_id`): which sample each one is.

A place is believed only where the row's question and reference answer are those of the sample there. A file
made from the same data in another order is matched by them; what fits neither way is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.contracts import Sample
from evalkit.errors import DataError

#: Share of rows whose question and reference answer must be their sample's: copies may differ a little.
_CONFIRMED = 0.95
#: Share of a question's words without which a row is another sample's.
_CONTRADICTED = 0.5
_WORD = re.compile(r"\w+")


class Evidence(NamedTuple):
    """What a row says of its sample: all text of the question, and the reference answer as text, if any."""

    text: str
    target: str | None


class _Row:
    def __init__(self, evidence: Evidence) -> None:
        self.words = _words(evidence.text)
        self.known = set(self.words)
        self.target = None if evidence.target is None else _plain(evidence.target)
        self.text = evidence.text


class _Asked:
    """A sample as it can be recognised."""

    def __init__(self, sample: Sample) -> None:
        data = sample.data
        self.id = sample.id
        self.question = str(data.get("question") or sample.turns[-1])
        self.words = _words(self.question)
        options = data.get("options")
        self._options: Mapping[str, Any] = options if isinstance(options, Mapping) else {}
        self._target, self._asked = sample.target, sample.turns[-1]

    @cached_property
    def needed(self) -> set[str]:
        """Words of the question and of the options that are asked with it."""
        options = [str(text) for text in self._options.values() if str(text) in self._asked]
        return {word for text in (self.question, *options) for word in _words(text)}

    @cached_property
    def targets(self) -> set[str]:
        """Spellings of the reference answer: itself, each of several, an option's letter, place and text."""
        several = self._target if isinstance(self._target, (list, tuple)) else [self._target]
        found = {_plain(str(text)) for text in (*several, self._target)}
        for number, (letter, text) in enumerate(self._options.items()):
            if {_plain(str(letter)), _plain(str(text))} & found:
                found |= {str(number), _plain(str(letter)), _plain(str(text))}
        return found


def place(rows: Mapping[int, Evidence], samples: Sequence[Sample], path: Path) -> dict[int, str]:
    """The sample's id by row.

    Raises:
        DataError: a row beyond the split, or rows that are not those of its samples.
    """
    asked = [_Asked(sample) for sample in samples]
    beyond = next((row for row in rows if not 0 <= row < len(asked)), None)
    if beyond is not None:
        raise DataError(
            f"{path}: doc_id {beyond}, but the split has {len(asked)} samples; choose the split and the data "
            "that lmms-eval read"
        )
    found = {number: _Row(evidence) for number, evidence in rows.items()}
    compared = _comparable(found, asked)
    wrong = _misplaced(found, asked, compared)
    if wrong is None:
        return {number: asked[number].id for number in found}
    if (matched := _by_content(found, asked, compared)) is not None:
        return matched
    raise DataError(
        f"{path}: doc_id {wrong} is not the sample at its place: it was asked "
        f"{_short(found[wrong].text)!r}, the split asks {_short(asked[wrong].question)!r}; choose the split "
        "and the data that lmms-eval read, or give the answers under the ids of the samples"
    )


def _comparable(rows: Mapping[int, _Row], asked: Sequence[_Asked]) -> bool:
    """Whether the rows spell reference answers as the samples do."""
    ours = {target for sample in asked for target in sample.targets}
    return sum(row.target in ours for row in rows.values()) > len(rows) / 2


def _misplaced(rows: Mapping[int, _Row], asked: Sequence[_Asked], compared: bool) -> int | None:
    """A row that is not the sample at its place; None where all are."""
    doubtful = []
    for number, row in rows.items():
        sample = asked[number]
        missing = sample.needed - row.known
        if not row.known or len(missing) > _CONTRADICTED * len(sample.needed):
            return number
        if missing or (compared and row.target not in sample.targets):
            doubtful.append(number)
    return doubtful[0] if len(doubtful) > (1 - _CONFIRMED) * len(rows) else None


def _by_content(rows: Mapping[int, _Row], asked: Sequence[_Asked], compared: bool) -> dict[int, str] | None:
    """Ids by row where question and answer name exactly one sample of every row."""
    by_question = defaultdict[tuple[str, ...], list[_Asked]](list)
    for sample in asked:
        by_question[sample.words].append(sample)
    lengths = sorted({len(words) for words in by_question if words}, reverse=True)
    found = dict[int, str]()
    for number, row in rows.items():
        fitting = [
            sample
            for sample in _longest(row.words, by_question, lengths)
            if sample.needed <= row.known and (not compared or row.target in sample.targets)
        ]
        if len(fitting) != 1:
            return None
        found[number] = fitting[0].id
    return found if len(set(found.values())) == len(found) else None


def _longest(
    words: tuple[str, ...], by_question: Mapping[tuple[str, ...], list[_Asked]], lengths: Sequence[int]
) -> list[_Asked]:
    """The samples with the longest question that stands in a text."""
    for length in lengths:
        for start in range(len(words) - length + 1):
            if samples := by_question.get(words[start : start + length]):
                return samples
    return []


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
