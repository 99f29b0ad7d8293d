"""docs/architecture.md names files and names that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
#: Lines such as "1. `path/file.py`: text with `names`", with the lines that continue them.
STEP = re.compile(r"^\d\. `([^`]+\.py)`: (.*?)(?=\n\d\. |\n\n|\Z)", re.MULTILINE | re.DOTALL)
#: Files at most, by question.
MOST = {
    "How is ChartQA's answer scored?": 2,
    "Where is the 2B's prompt?": 3,
    "What happens to a corrupt image?": 4,
    "How do I add a metric?": 2,
    "Where does a batch's size come from?": 2,
    "How is a run resumed?": 4,
}


def defined(path: Path) -> set[str]:
    """Names that a module defines or imports, and `Class.method`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path, text", STEP.findall(PAGE))
def test_a_step_names_a_file_and_names_in_it(path: str, text: str) -> None:
    assert (REPOSITORY / path).is_file()
    names = re.findall(r"`([A-Za-z_.]+)`", text)
    assert names and not set(names) - defined(REPOSITORY / path) - {"Mean", "Accuracy"}


def test_each_question_takes_few_files() -> None:
    parts = re.split(r"^\*\*(.+)\*\*$", PAGE, flags=re.MULTILINE)[1:]
    counts = {
        question: len(re.findall(r"^\d\. ", text, re.MULTILINE))
        for question, text in zip(parts[::2], parts[1::2], strict=True)
    }
    assert set(counts) == set(MOST)
    assert all(0 < counts[question] <= most for question, most in MOST.items())


@pytest.mark.parametrize("room", re.findall(r"^\| `([^|]+)` \|", PAGE, re.MULTILINE))
def test_rooms_exist(room: str) -> None:
    for name in room.replace("`", "").split(", "):
        assert (REPOSITORY / name).exists()
