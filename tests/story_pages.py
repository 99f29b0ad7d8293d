"""Follows a page of docs/ as a reader would: writes its files, runs its commands, compares what it shows."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from evalkit.cli.main import invoke

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Block(NamedTuple):
    """A fenced block of a page: its language, the file that it is to be saved as, and its text."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in found]


def follow(page: str, capsys: pytest.CaptureFixture[str], *, port: int = 0) -> None:
    """Save the files and run the `sh` blocks of a page in the current folder.

    `RUN` stands for the latest run folder, port 8000 for `port`; a command that ends in `&` is left out.
    A `text` block shows lines that the commands before it print. Numbers may differ; `…` is any lines.
    """
    printed = ""
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "sh":
            for line in block.text.strip().splitlines():
                _run(line.replace("8000", str(port)), capsys)
            printed += capsys.readouterr().out
        elif block.language == "text":
            known = {_masked(line) for line in printed.splitlines()}
            shown = [line for line in block.text.splitlines() if line.strip() and line != "…"]
            assert shown and not [line for line in shown if _masked(line) not in known], printed


def _run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = re.search(r"# exit status (\d+)$", line)
    program, *arguments = shlex.split(line, comments=True)
    if arguments[-1] == "&":
        return
    if program == "python":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")
        return
    assert program == "evalkit"
    runs = sorted(Path("runs").glob("*/*/*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    arguments = [str(runs[-1].parent) if word == "RUN" else word for word in arguments]
    status = invoke(arguments)
    assert status == int(expected.group(1) if expected else 0), f"{line}\n{capsys.readouterr()}"


def _masked(line: str) -> str:
    """A line without its numbers and the widths of its columns."""
    return re.sub(r"[\s-]+", " ", re.sub(r"[-+]?\d[\d.]*(?:e-?\d+)?", "#", line)).strip()
