"""Published rows as values of our metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from evalkit.task import Reference
from evalkit_tasks.published.columns import COLUMNS, Column
from evalkit_tasks.published.rows import PublishedRow
from evalkit_tasks.published.tables import printed_rows

#: Rows whose printed Avg is the unweighted mean of the types: (model, task).
_MACRO = frozenset(
    {
        *((model, "rsvqa-lr") for model in ("RSVQA", "EasyToHard", "SkyEyeGPT", "SkySenseGPT")),
        *((model, "rsvqa-hr") for model in ("SkyEyeGPT", "SkySenseGPT")),
    }
)
#: Rows whose printed Avg is neither of our averages.
_OTHER_AVERAGE = frozenset(
    {("Bi-Modal", "rsvqa-lr"), *((model, "rsvqa-hr") for model in ("RSVQA", "Bi-Modal", "EasyToHard"))}
)
#: Printed on another scale than their column: (table, model, metric) to the factor.
_RESCALED = {("4", "MTMM", "match"): 100.0}


@lru_cache(maxsize=64)
def references(task: str) -> Sequence[Reference]:
    """Published rows of a task: one for each table or report, model and split, values in our units.

    An average is named by how it was computed (`average` pooled, `average_macro`); others are left out.
    """
    return tuple(
        Reference(row.table, row.model, values, row.size, row.note, split, tuple(stand_ins))
        for number, columns in COLUMNS.items()
        for (split, *stand_ins), chosen in _by_splits(columns, task).items()
        for row in printed_rows(number)
        if (values := dict(filter(None, (_value(row, column) for column in chosen))))
    )


def _by_splits(columns: Sequence[Column], task: str) -> dict[tuple[str, ...], list[Column]]:
    found: dict[tuple[str, ...], list[Column]] = {}
    for column in columns:
        if column.task == task:
            found.setdefault(column.splits, []).append(column)
    return found


def _value(row: PublishedRow, column: Column) -> tuple[str, float] | None:
    printed = row.printed.get(column.key)
    if printed is None:
        return None
    metric = column.metric
    if metric == "average" and (row.model, column.task) in _OTHER_AVERAGE:
        return None
    if metric == "average" and (row.model, column.task) in _MACRO:
        metric = "average_macro"
    value = float(printed) * _RESCALED.get((row.table, row.model, metric), 1.0)
    return metric, value
