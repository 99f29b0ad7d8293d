"""Submission tables for servers that take Excel files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Excel holds no longer text in a cell.
CELL_LIMIT = 32767


def write_xlsx(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one sheet, a missing cell empty. Texts stay texts ("=1+1" is not a formula) without control
    characters, which Excel refuses, and no longer than `CELL_LIMIT`; the file appears whole or not at all."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(list(columns))
    for row in rows:
        cells = []
        for column in columns:
            value = row.get(column)
            if isinstance(value, str):
                value = ILLEGAL_CHARACTERS_RE.sub("", value)[:CELL_LIMIT]
            cell = WriteOnlyCell(sheet, value=value)
            if isinstance(value, str):
                cell.data_type = "s"
            cells.append(cell)
        sheet.append(cells)
    scratch = path.with_name(f".{path.name}.part")
    book.save(scratch)
    scratch.replace(path)
