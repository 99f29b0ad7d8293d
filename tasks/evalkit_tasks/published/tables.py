"""The paper's tables in its own columns, with the rows measured here among the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalkit.contracts import Json
from evalkit.reports.run import why_apart
from evalkit.suite import PrintedRow, Source, Summary, Table
from evalkit_tasks.published.columns import COLUMNS, TITLES, Column
from evalkit_tasks.published.rows import TABLE_NOTES, PublishedRow, table
from evalkit_tasks.published.successors import successor_rows

#: Table 2's average counts OCRBench in tenths, so that it is of 100 like the rest.
_TENTHS = "OCRBench"


def paper_table(number: str, summaries: Sequence[Summary] = ()) -> Table:
    """Table `number` with a row for each model of `summaries`.

    A cell holds the run on the paper's split, else a run on a split that may stand in for it; a note says so.
    What is missing is named, never filled.
    """
    columns = COLUMNS[number]
    published = [
        PrintedRow(
            row.model, row.size, tuple(row.printed.get(column.key) for column in columns), note=row.note
        )
        for row in printed_rows(number)
    ]
    ours = [_our_row(columns, model, summaries) for model in _models(columns, summaries)]
    general = TABLE_NOTES.get(number, "")
    headings = tuple(column.heading for column in columns)
    return Table(TITLES[number], headings, (*published, *ours), (general,) if general else ())


def printed_rows(number: str) -> tuple[PublishedRow, ...]:
    """The published rows of a table: the paper's, in Table 2 also those of the successors' reports."""
    return (*table(number), *(successor_rows() if number == "2" else ()))


def average_score(cells: Mapping[str, float | None]) -> float | None:
    """Table 2's Avg. Score of values by heading: the plain mean, OCRBench in tenths, blanks skipped."""
    values = [value / 10 if name == _TENTHS else value for name, value in cells.items() if value is not None]
    return sum(values) / len(values) if values else None


def _models(columns: Sequence[Column], summaries: Sequence[Summary]) -> list[str]:
    tasks = {column.task for column in columns}
    return list(dict.fromkeys(str(summary["model"]) for summary in summaries if summary["task"] in tasks))


def _our_row(columns: Sequence[Column], model: str, summaries: Sequence[Summary]) -> PrintedRow:
    mine = [summary for summary in summaries if str(summary["model"]) == model]
    values: dict[str, float | None] = {}
    sources: dict[str, Source] = {}
    notes: list[str] = []
    apart: list[str] = []
    for column in columns:
        if column.task:
            values[column.heading], run = _cell_value(column, mine, notes, apart)
            if run:
                sources[column.heading] = Source(run, column.metric)
    missing = [name for name, value in values.items() if value is None]
    measured = len(values) - len(missing)
    if any(not column.task for column in columns):
        average = None if apart else average_score(values)
        values.update({column.heading: average for column in columns if not column.task})
        over = f"over {measured} of {measured + len(missing)} benchmarks"
        notes.insert(
            0,
            f"no Avg. Score from parts of benchmarks or other settings ({over})"
            if apart
            else f"Avg. Score {over}",
        )
    if missing:
        notes.append(f"missing: {', '.join(missing)}")
    cells = tuple(_printed(values[column.heading], column.decimals) for column in columns)
    note = f"{model}: {'; '.join(dict.fromkeys(notes))}" if notes else ""
    whence = tuple(sources.get(column.heading) for column in columns)
    return PrintedRow(model, "", cells, True, note, "; ".join(dict.fromkeys(apart)), whence)


def _cell_value(
    column: Column, summaries: Sequence[Summary], notes: list[str], apart: list[str]
) -> tuple[float | None, str]:
    """The value for a column and its run; adds what differs to `notes`, what makes it another to `apart`."""
    fitting = [s for s in summaries if s["task"] == column.task and column.accepts(str(s["split"]))]
    for summary in sorted(fitting, key=lambda s: column.splits.index(str(s["split"]))):
        value = _value(summary, column.metric)
        if value is None:
            continue
        split, protocol = str(summary["split"]), summary.get("protocol", "paper")
        if split != column.splits[0]:
            notes.append(f"{column.task} on {split}, the paper's is {column.splits[0]}")
        if protocol != "paper":
            notes.append(f"{column.task} by protocol {protocol}")
        if summary.get("status", "complete") != "complete":
            notes.append(f"{column.task} {summary['status']}")
        if why := why_apart(summary) or _settings(summary):
            apart.append(f"{column.task}: {why}")
        return value, str(summary.get("run") or "")
    return None, ""


def _settings(summary: Summary) -> str:
    """Settings in place of the protocol's own, in words."""
    changed: Mapping[str, Json] = summary.get("nonstandard") or {}
    words = ", ".join(f"{name}={value}" for name, value in changed.items())
    return f"non-standard settings ({words})" if words else ""


def _value(summary: Summary, metric: str) -> float | None:
    metrics: Mapping[str, Mapping[str, Json]] = summary.get("metrics") or {}
    value = metrics.get(metric, {}).get("value")
    return None if value is None else float(value)


def _printed(value: float | None, decimals: int) -> str | None:
    return None if value is None else f"{value:.{decimals}f}"
