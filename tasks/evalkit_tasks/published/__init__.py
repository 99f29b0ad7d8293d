"""The paper's rows as data: references of the tasks, and its tables with our rows among them."""

from __future__ import annotations

from evalkit_tasks.published.columns import COLUMNS, TITLES, Column
from evalkit_tasks.published.reference_rows import references
from evalkit_tasks.published.rows import NOTES, TABLE_NOTES, PublishedRow, rows, table
from evalkit_tasks.published.tables import average_score, paper_table

__all__ = [
    "COLUMNS",
    "NOTES",
    "TABLE_NOTES",
    "TITLES",
    "Column",
    "PublishedRow",
    "average_score",
    "paper_table",
    "references",
    "rows",
    "table",
]
