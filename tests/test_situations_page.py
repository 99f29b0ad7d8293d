"""The table of situations in docs/situations.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
_PAGE = (REPOSITORY / "docs/situations.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in _PAGE.partition("<!-- situations -->\n")[2].partition("\n\n")[0].splitlines()[2:]
]


def test_the_table_is_there() -> None:
    assert len(ROWS) >= 25 and all(len(row) == 3 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_situation_has_its_test(row: list[str]) -> None:
    found = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[2])
    assert found is not None, row[2]
    path, name = found.groups()
    assert f"\ndef {name}(" in (REPOSITORY / path).read_text(encoding="utf-8"), row[2]
