"""Samples of a run by filter and page, out of its records table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from evalkit.contracts import Record
from evalkit_leaderboard.components import LONGEST_TEXT
from evalkit_leaderboard.runs import RECORDS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Outcome = Literal["all", "right", "wrong", "near miss", "between", "unparsed", "not scored", "no answer"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
#: Characters of a text in the list of samples.
_PREVIEW = 120
#: Values of a tag that are offered.
_VALUES = 200
#: Outcomes that hang on no score.
_PLAIN_OUTCOMES: Mapping[str, str] = {
    "unparsed": "list_contains(flags, 'unparsed')",
    "near miss": "list_contains(flags, 'near_miss')",
    "no answer": "error_kind IS NOT NULL",
}
_SCORE = "map_extract(records.scores, ?)[1]"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which samples to list.

    Attributes:
        score: name of the per-sample score that `outcome` looks at: 1 is right, 0 wrong.
        tags: wanted value by tag. flag: a flag that must be set, or empty.
        text: a part of the id, the question, the answer or the target, whatever the case.
        other: records of another run of the same samples, of which the two must disagree in `score`.
    """

    score: str = ""
    outcome: Outcome = "all"
    tags: Mapping[str, str] = field(default_factory=dict)
    flag: str = ""
    text: str = ""
    other: Path | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that is shown of one sample; texts are cut at `LONGEST_TEXT`, with their whole lengths."""

    record: Record
    question: str
    images: tuple[str, ...]
    lengths: Mapping[str, int]
    finish: str
    tokens: tuple[int, int, int]
    seconds: float


@dataclass(frozen=True)
class Table:
    """A run's records in memory, numbered by the column `row`."""

    records: pa.Table

    @cached_property
    def scores(self) -> list[str]:
        """Names of per-sample scores."""
        rows = self._ask("SELECT DISTINCT unnest(map_keys(scores)) AS name FROM records ORDER BY name")
        return [str(name) for (name,) in rows]

    @cached_property
    def tags(self) -> dict[str, list[str]]:
        """The commonest values of every tag."""
        found: dict[str, list[str]] = {}
        rows = self._ask(
            "SELECT tag, value, count(*) AS n FROM (SELECT unnest(map_keys(tags)) AS tag, "
            "unnest(map_values(tags)) AS value FROM records) GROUP BY ALL ORDER BY tag, n DESC, value"
        )
        for tag, value, _ in rows:
            values = found.setdefault(str(tag), [])
            if len(values) < _VALUES:
                values.append(str(value))
        return found

    @cached_property
    def failures(self) -> list[tuple[str, int, str]]:
        """Kind, count and first message of what went wrong."""
        rows = self._ask(
            "SELECT error_kind, count(*) AS n, left(first(error_message ORDER BY row), 300) FROM records "
            "WHERE error_kind IS NOT NULL GROUP BY error_kind ORDER BY n DESC, error_kind"
        )
        return [(str(kind), int(n), str(message)) for kind, n, message in rows]

    def row_of(self, identifier: str) -> int | None:
        """Row number of a sample id, or None."""
        found = self._ask("SELECT row FROM records WHERE id = ? LIMIT 1", [identifier])
        return int(found[0][0]) if found else None

    def fitting(self, wanted: Filter) -> Rows:
        """Numbers of the rows that fit, ascending.

        Raises:
            RunFolderError: the records of `wanted.other` are missing or broken.
        """
        where, parameters = _conditions(wanted)
        with _connect(self.records) as connection:
            joined = "records"
            if wanted.other is not None:
                connection.register("others", table(wanted.other).records.select(["id", "scores"]))
                joined = "records JOIN others USING (id)"
                where.append(f"{_SCORE} IS DISTINCT FROM map_extract(others.scores, ?)[1]")
                parameters += [wanted.score, wanted.score]
            condition = f"WHERE {' AND '.join(where)}" if where else ""
            query = f"SELECT records.row AS row FROM {joined} {condition} ORDER BY records.row"
            rows: Rows = connection.execute(query, parameters).fetchnumpy()["row"]
            return rows

    def counts(self, score: str) -> dict[Outcome, int]:
        """How many samples of each outcome there are by a score."""
        conditions = [_conditions(Filter(score, outcome)) for outcome in OUTCOMES]
        parts = ", ".join(
            f"count(*) FILTER (WHERE {' AND '.join(where) or 'true'})" for where, _ in conditions
        )
        (row,) = self._ask(f"SELECT {parts} FROM records", [p for _, given in conditions for p in given])
        return dict(zip(OUTCOMES, map(int, row), strict=True))

    def preview(self, rows: Sequence[int], score: str) -> list[dict[str, Any]]:
        """What a list shows of these rows."""
        names = ("row", "id", "score", "question", "target", "answer", "flags")
        found = self._ask(
            "SELECT row, id, map_extract(scores, ?)[1], left(question, ?), left(target, ?), left(text, ?), "
            "array_to_string(flags, ', ') FROM records WHERE list_contains(?, row) ORDER BY row",
            [score, _PREVIEW, _PREVIEW, _PREVIEW, list(rows)],
        )
        return [dict(zip(names, row, strict=True)) for row in found]

    def sample(self, row: int) -> Sample:
        """One sample."""
        return _sample(self.records.slice(row, 1).to_pylist()[0])

    def samples(self) -> list[Sample]:
        """All samples."""
        return [_sample(item) for item in self.records.to_pylist()]

    def _ask(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _connect(self.records) as connection:
            found: list[tuple[Any, ...]] = connection.execute(query, list(parameters)).fetchall()
            return found


def table(folder: Path) -> Table:
    """A run's records.

    Raises:
        RunFolderError: missing or broken.
    """
    try:
        status = (folder / RECORDS).stat()
    except OSError:
        return _table(folder, 0, 0)
    return _table(folder, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _table(folder: Path, _changed: int, _size: int) -> Table:
    import pyarrow as pa

    from evalkit.store.records import read_table

    records = read_table(folder)
    return Table(records.append_column("row", pa.array(range(records.num_rows), pa.int64())))


def _connect(records: pa.Table) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_external_access = false")
    connection.register("records", records)
    return connection


def _conditions(wanted: Filter) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    parameters: list[Any] = []
    outcome = {
        "right": f"{_SCORE} >= 1",
        "wrong": f"{_SCORE} <= 0",
        "between": f"{_SCORE} > 0 AND {_SCORE} < 1",
        "not scored": f"{_SCORE} IS NULL AND error_kind IS NULL",
    }.get(wanted.outcome)
    if outcome is not None:
        where.append(f"({outcome})")
        parameters += [wanted.score] * outcome.count("?")
    elif wanted.outcome in _PLAIN_OUTCOMES:
        where.append(_PLAIN_OUTCOMES[wanted.outcome])
    for tag, value in wanted.tags.items():
        where.append("map_extract(records.tags, ?)[1] = ?")
        parameters += [tag, value]
    if wanted.flag:
        where.append("list_contains(flags, ?)")
        parameters.append(wanted.flag)
    if wanted.text:
        columns = ("records.id", "question", "text", "target")
        where.append(f"({' OR '.join(f'contains(lower({column}), ?)' for column in columns)})")
        parameters += [wanted.text.lower()] * len(columns)
    return where, parameters


def _sample(item: Mapping[str, Any]) -> Sample:
    from evalkit.store.records import record_of

    record = record_of(item, text=_cut, value=_value)
    return Sample(
        record,
        _cut(item["question"]),
        tuple(item["images"]),
        {name: len(item[name] or "") for name in ("text", "question", "target", "prediction")},
        item["finish"] or "",
        (item["prompt_tokens"] or 0, item["visual_tokens"] or 0, item["new_tokens"] or 0),
        item["seconds"] or 0.0,
    )


def _cut(text: str) -> str:
    return text[: LONGEST_TEXT + 1]


def _value(text: str) -> Any:
    """The JSON value; a huge or broken one as its beginning."""
    if len(text) > 50 * LONGEST_TEXT:
        return _cut(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _cut(text)
