"""Every table of the Mini-InternVL paper (arXiv 2410.16261) as it is printed, without a row of ours."""

from __future__ import annotations

from dataclasses import replace

from evalkit.suite import PrintedRow, Table
from evalkit_tasks.published.columns import COLUMNS
from evalkit_tasks.published.rows import PublishedRow, rows, table
from evalkit_tasks.published.tables import paper_table

#: Tables without benchmark results: title, and what a row is.
_OTHERS = {
    "3": ("Table 3: data of general multimodal instruction tuning", "dataset"),
    "8": ("Table 8: data of the medical domain", "dataset"),
    "10": ("Table 10: data of remote sensing", "dataset"),
    "13": ("Table 13: cost of the ways to adapt", "method"),
}
_HEADINGS = {
    "size_K": "samples (thousands)",
    "gpu_memory_GB": "GPU memory (GB)",
    "iterations_per_hour": "iterations per hour",
    "params_pct": "% of the 76B model's parameters",
    "performance_pct": "% of its Avg. Score",
}


def printed_tables() -> tuple[Table, ...]:
    """The tables in the paper's order."""
    numbers = dict.fromkeys(row.table for row in rows())
    return tuple(_results(n) if n in COLUMNS else _other(n) for n in sorted(numbers, key=int))


def _results(number: str) -> Table:
    """A table of results, with what is printed beside the columns that can be measured."""
    made, printed = paper_table(number), table(number)
    measured = {column.key for column in COLUMNS[number]}
    beside = tuple(dict.fromkeys(key for row in printed for key in row.printed if key not in measured))
    found = tuple(
        replace(line, cells=(*line.cells, *(row.printed.get(key) for key in beside)))
        for line, row in zip(made.rows[: len(printed)], printed, strict=True)
    )
    return replace(made, columns=(*made.columns, *(_HEADINGS[metric] for _, metric in beside)), rows=found)


def _other(number: str) -> Table:
    title, kind = _OTHERS[number]
    printed = table(number)
    metrics = tuple(dict.fromkeys(metric for row in printed for _, metric in row.printed))
    lines = _by_dataset(printed) if kind == "dataset" else [(row.model, row) for row in printed]
    found = tuple(
        PrintedRow(label, "", tuple(_value(row, label, metric) for metric in metrics)) for label, row in lines
    )
    return Table(title, tuple(_HEADINGS[metric] for metric in metrics), found)


def _by_dataset(printed: tuple[PublishedRow, ...]) -> list[tuple[str, PublishedRow]]:
    """The published data have a dataset where other tables have a task."""
    return [(dataset, row) for row in printed for dataset in dict.fromkeys(task for task, _ in row.printed)]


def _value(row: PublishedRow, label: str, metric: str) -> str | None:
    """The value of a dataset, or of a method, whose rows have one task."""
    for (task, name), value in row.printed.items():
        if name == metric and (task == label or row.model == label):
            return value
    return None


TABLES = printed_tables()
