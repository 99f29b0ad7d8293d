"""The rows of the paper's tables, as printed, with what is doubtful about them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

#: Task and metric of the published data.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A row of a table of the Mini-InternVL paper (arXiv 2410.16261), or of a successor's report.

    Attributes:
        table: the table's number, or the report.
        size: parameters as printed, empty where not.
        printed: the values as printed, by task and metric of `paper_tables.csv`.
        note: what makes the row doubtful, or empty.
    """

    table: str
    model: str
    size: str
    printed: Mapping[Key, str]
    note: str = ""


_SWAPPED = (
    "Perception and Reasoning look swapped: the printed Avg weighs Perception .344, others .656 or .731"
)
_WEIGHTED = "Avg weighs Perception .656, the paper's own rows .731: another mix of questions"
_MACRO = "LR Avg is the unweighted mean of the three types, not the pooled accuracy of the paper's own rows"
_ALL_MACRO = "every Avg is the unweighted mean of the types, not the pooled accuracy of the paper's own rows"
_CLASSICAL = "HR Avg includes count and area questions"
_ALL_FRAMES = "control signals scored over all frames of a clip, not one value a clip"

#: What is doubtful, by table and model.
NOTES: Mapping[tuple[str, str], str] = {
    ("4", "MTMM"): "Match is printed as 0.45; on the other rows' scale it is 45",
    ("5", "GPT-4o"): _SWAPPED,
    ("5", "Claude-3.5-Sonnet"): _SWAPPED,
    ("5", "LLaVA-OneVision-7B"): _WEIGHTED,
    ("5", "Qwen2-VL-7B"): _WEIGHTED,
    ("7", "ADAPT"): _ALL_FRAMES,
    ("11", "RSVQA"): f"{_MACRO}; {_CLASSICAL}",
    ("11", "Bi-Modal"): f"LR Avg 91.63 is neither the pooled nor the unweighted mean; {_CLASSICAL}",
    ("11", "EasyToHard"): f"{_MACRO}; {_CLASSICAL}; test1 Avg 93.97 exceeds both its parts, likely 83.97",
    (
        "11",
        "GeoChat",
    ): "test2 cells are shifted by one column in some copies of the paper; DIOR-RSVG is blank",
    ("11", "SkyEyeGPT"): _ALL_MACRO,
    ("11", "SkySenseGPT"): (
        f"{_ALL_MACRO}; test2 cells are shifted by one column in some copies of the paper; DIOR-RSVG is blank"
    ),
    (
        "12",
        "Mini-InternVL-2B",
    ): "another run than Table 4's, which has DriveLM .5958; DocVQA and InfoVQA are val",
    ("12", "Mini-InternVL-CLIP-2B"): "DocVQA and InfoVQA are val",
}

#: What holds of whole tables.
TABLE_NOTES: Mapping[str, str] = {
    "2": "MMBench, DocVQA and InfoVQA are test scores from the benchmarks' servers",
    "6": "the paper does not say how 'full' joins description and justification; here by one space",
    "9": (
        "2D Mcls is reconstructed here as mean precision and recall of the letters chosen, its code not "
        "being public; the paper does not say whether the rows are val or test"
    ),
    "11": "Avg of the paper's own rows is the accuracy pooled over all questions but count and area",
}


@lru_cache(maxsize=1)
def rows() -> tuple[PublishedRow, ...]:
    """Every row of every table, in the order of the paper."""
    found: dict[tuple[str, str, str], dict[Key, str]] = {}
    with (Path(__file__).parent / "paper_tables.csv").open(encoding="utf-8", newline="") as file:
        for cell in csv.DictReader(file):
            row = found.setdefault((cell["table"], cell["model"], cell["size"]), {})
            row[cell["task"], cell["metric"]] = cell["value"]
    return tuple(
        PublishedRow(table, model, size, printed, NOTES.get((table, model), ""))
        for (table, model, size), printed in found.items()
    )


def table(number: str) -> tuple[PublishedRow, ...]:
    """The rows of one table; empty where the paper has no such table."""
    return tuple(row for row in rows() if row.table == number)
