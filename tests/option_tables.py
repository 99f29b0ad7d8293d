"""The tables of options in the documentation, made from their definitions.

`python -m tests.option_tables` writes them into the pages; tests/evalkit/test_options.py compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from evalkit.pipeline.options import Decides, Entry, RunKeywords, RunSettings, options_of

DOCS = Path(__file__).resolve().parents[1] / "docs"


def run_tables() -> dict[str, str]:
    """By name of the table: the options of a run that decide the same."""
    return {name: "\n".join(_run_table(name)) for name in get_args(Decides)}


def _run_table(decides: Decides) -> Iterator[str]:
    yield "| flag | default | meaning | policy, recipe |"
    yield "|---|---|---|---|"
    shared = options_of(RunSettings)
    for name, entry in options_of(RunKeywords, decides).items():
        where = "yes" if name in shared else ""
        yield f"| {_flags(entry)} | {_default(entry)} | {_meaning(entry)} | {where} |"


def _flags(entry: Entry) -> str:
    if not entry.option.flag:
        return f"`{entry.name}` in Python, `-q` in the shell"
    value = entry.option.metavar or "/".join(entry.choices)
    names = [f"--no-{entry.flag[2:]}" if entry.default is True else entry.flag, *entry.option.flags]
    return ", ".join(f"`{name} {value}`".replace(" `", "`") for name in names).replace("|", "\\|")


def _default(entry: Entry) -> str:
    if entry.default is True:
        return "on"
    return "" if entry.default in (None, False, ()) else f"`{entry.default}`"


def _meaning(entry: Entry) -> str:
    option = entry.option
    notes = [f"Earlier name: `--{name}`." for name in option.aliases]
    if option.variables:
        notes.append(f"Variables: {', '.join(f'`{name}`' for name in option.variables)}.")
    return " ".join([option.help, *notes]).replace("|", "\\|")


def with_tables(text: str, tables: dict[str, str]) -> str:
    """A page with each `<!-- table NAME -->` followed by its table, in place of the table that was there."""
    for name, table in tables.items():
        mark = f"<!-- table {name} -->\n"
        assert mark in text, f"no place for table {name}"
        before, after = text.split(mark)
        rest = re.sub(r"^(?:[|].*\n)*", "", after)
        text = f"{before}{mark}{table}\n{rest}"
    return text


#: Page to its tables.
PAGES = {DOCS / "options.md": run_tables}

if __name__ == "__main__":
    for page, tables in PAGES.items():
        page.write_text(with_tables(page.read_text(encoding="utf-8"), tables()), encoding="utf-8")
