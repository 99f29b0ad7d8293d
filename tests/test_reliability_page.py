"""docs/reliability.md names tests that exist, and a promise never stands without one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[^`:]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_named_test_exists(path: str, name: str) -> None:
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_has_a_test() -> None:
    promises = PAGE.partition("## The campaign")[0]
    rows = [line for line in promises.splitlines() if re.match(r"\| [A-Z`J]", line)]
    assert len(rows) > 15
    assert [line for line in rows if "::test_" not in line] == []


def test_the_page_names_rows_of_the_campaign() -> None:
    from campaign import catalogue

    known = {trial.name for trial in catalogue.TRIALS}
    table = PAGE.partition("| what | tries |")[2]
    listed = [name for name in re.findall(r"^\| ([^|]+?) \|", table, re.M) if name not in ("---", "all")]
    assert listed and set(listed) <= known
