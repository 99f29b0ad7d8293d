"""Samples of a run by filter and page, out of its records table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit.contracts import Failure, Record
from evalkit_leaderboard.components import LONGEST_TEXT

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Outcome = Literal["all", "right", "wrong", "between", "not scored", "no answer"]
OUTCOMES: tuple[Outcome, ...] = ("all", "right", "wrong", "between", "not scored", "no answer")
#: Characters of a text in the list of samples.
_PREVIEW = 120


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
class Listing:
    """One page of a list of samples.

    Attributes:
        count: samples that fit in all. rows: row numbers of the whole list in order. page: shown columns.
    """

    count: int
    rows: Sequence[int]
    page: Sequence[Mapping[str, Any]]


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


def table(folder: Path) -> pa.Table:
    """A run's records.

    Raises:
        RunFolderError: missing or broken.
    """
    path = folder / "records.parquet"
    try:
        status = path.stat()
        key = (status.st_mtime_ns, status.st_size)
    except OSError:
        key = (0, 0)
    return _table(folder, key)


@lru_cache(maxsize=4)
def _table(folder: Path, _: tuple[int, int]) -> pa.Table:
    from evalkit.store.records import read_table

    return read_table(folder)


def _connect(records: pa.Table) -> duckdb.DuckDBPyConnection:
    import duckdb
    import pyarrow as pa

    numbered = records.append_column("row", pa.array(range(records.num_rows), pa.int64()))
    connection = duckdb.connect()
    connection.execute("SET enable_external_access = false")
    connection.register("records", numbered)
    return connection


def score_names(records: pa.Table) -> list[str]:
    """Names of per-sample scores."""
    with _connect(records) as connection:
        rows = connection.execute(
            "SELECT DISTINCT unnest(map_keys(scores)) AS name FROM records ORDER BY name"
        )
        return [str(name) for (name,) in rows.fetchall()]


def tag_values(records: pa.Table, most: int = 200) -> dict[str, list[str]]:
    """The commonest values of every tag."""
    found: dict[str, list[str]] = {}
    with _connect(records) as connection:
        rows = connection.execute(
            "SELECT tag, value, count(*) AS n FROM (SELECT unnest(map_keys(tags)) AS tag, "
            "unnest(map_values(tags)) AS value FROM records) GROUP BY ALL ORDER BY tag, n DESC, value"
        ).fetchall()
    for tag, value, _ in rows:
        values = found.setdefault(str(tag), [])
        if len(values) < most:
            values.append(str(value))
    return found


def listing(folder: Path, wanted: Filter, start: int, length: int) -> Listing:
    """Rows that fit, and the columns of `length` of them from `start`.

    Raises:
        RunFolderError: the records, or those of `wanted.other`, are missing or broken.
    """
    records = table(folder)
    with _connect(records) as connection:
        where, parameters = _conditions(wanted)
        joined = "records"
        if wanted.other is not None:
            connection.register("others", table(wanted.other).select(["id", "scores"]))
            joined = "records JOIN others USING (id)"
            where.append(
                "map_extract(records.scores, ?)[1] IS DISTINCT FROM map_extract(others.scores, ?)[1]"
            )
            parameters += [wanted.score, wanted.score]
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        rows = [
            int(row)
            for (row,) in connection.execute(
                f"SELECT records.row FROM {joined} {condition} ORDER BY records.row", parameters
            ).fetchall()
        ]
        chosen = rows[start : start + length]
        page = connection.execute(
            "SELECT row, id, map_extract(scores, ?)[1] AS score, left(question, ?) AS question, "
            "left(target, ?) AS target, left(text, ?) AS answer, array_to_string(flags, ', ') AS flags "
            "FROM records WHERE list_contains(?, row) ORDER BY row",
            [wanted.score, _PREVIEW, _PREVIEW, _PREVIEW, chosen],
        )
        names = [column[0] for column in page.description]
        return Listing(len(rows), rows, [dict(zip(names, row, strict=True)) for row in page.fetchall()])


def _conditions(wanted: Filter) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    parameters: list[Any] = []
    score = "map_extract(records.scores, ?)[1]"
    outcome = {
        "right": f"{score} >= 1",
        "wrong": f"{score} <= 0",
        "between": f"{score} > 0 AND {score} < 1",
        "not scored": f"{score} IS NULL AND error_kind IS NULL",
    }.get(wanted.outcome)
    if outcome is not None:
        where.append(f"({outcome})")
        parameters += [wanted.score] * outcome.count("?")
    elif wanted.outcome == "no answer":
        where.append("error_kind IS NOT NULL")
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


def row_of(records: pa.Table, identifier: str) -> int | None:
    """Row number of a sample id, or None."""
    with _connect(records) as connection:
        found = connection.execute("SELECT row FROM records WHERE id = ? LIMIT 1", [identifier]).fetchone()
    return int(found[0]) if found else None


def sample(records: pa.Table, row: int) -> Sample:
    """One sample."""
    item = records.slice(row, 1).to_pylist()[0]
    error = None
    if item["error_kind"] is not None:
        error = Failure(item["error_kind"], _cut(item["error_message"] or ""))
    record = Record(
        id=item["id"],
        cluster=item["cluster"],
        text=_cut(item["text"]),
        prediction=_value(item["prediction"]),
        target=_value(item["target"]),
        scores=dict(item["scores"]),
        tags=dict(item["tags"]),
        flags=tuple(item["flags"]),
        data=_value(item["data"]) or {},
        error=error,
    )
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
