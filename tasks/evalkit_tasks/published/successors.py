"""Published rows of InternVL2.5, 3 and 3.5 on Table 2's benchmarks, from their own reports.

The models answer some benchmarks by chain of thought or thinking. Those values have a row of their own that
says so in its name, so that they never stand in a row of direct answers.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from evalkit_tasks.published.rows import Key, PublishedRow

#: Where the reports are.
REPORTS: Mapping[str, str] = {
    "InternVL2.5": "InternVL2.5 report",
    "InternVL3": "InternVL3 report",
    "InternVL3.5": "InternVL3.5 report",
}
_SOURCES: Mapping[str, str] = {
    "InternVL2.5": "arXiv 2412.05271, Tables 6, 7 and 9",
    "InternVL3": "arXiv 2504.10479, Tables 2, 3 and 5",
    "InternVL3.5": "arXiv 2508.18265, Tables 3 and 4",
}
#: What each way of asking means, by the name in the table.
_ASKED: Mapping[str, str] = {
    "direct or chain of thought": "the higher of direct answers and chain of thought, as the report says",
    "chain of thought": "asked for a chain of thought, as the models' evaluation guide says",
    "best of 8": "the best of 8 answers by a critic (VisualPRM), each by chain of thought",
    "thinking": "read as answered in thinking mode; the report does not state its decoding",
    "parallel thinking": "several answers in thinking mode are weighed against each other",
}
_DIRECT: Mapping[str, str] = {
    "InternVL2.5": "MathVista as this report prints it; the InternVL3 report prints other figures",
    "InternVL3": "MMMU and MathVista are in a row of their own: they were asked for a chain of thought",
    "InternVL3.5": "MMMU and MathVista are in a row of their own: they were answered in thinking mode",
}


@lru_cache(maxsize=1)
def successor_rows() -> tuple[PublishedRow, ...]:
    """Every row, in the order of the reports; `table` names the report."""
    found: dict[tuple[str, str, str, str], dict[Key, str]] = {}
    with (Path(__file__).parent / "successor_tables.csv").open(encoding="utf-8", newline="") as file:
        for cell in csv.DictReader(file):
            row = found.setdefault((cell["report"], cell["model"], cell["size"], cell["asked"]), {})
            row[cell["task"], cell["metric"]] = cell["value"]
    return tuple(
        PublishedRow(
            REPORTS[report],
            f"{model} ({asked})" if asked else model,
            size,
            printed,
            f"{_SOURCES[report]}: {_ASKED[asked] if asked else _DIRECT[report]}",
        )
        for (report, model, size, asked), printed in found.items()
    )
