"""The tables of options and settings in the documentation, made from their definitions.

`python -m tests.option_tables` writes them into the pages; tests/evalkit/test_options.py compares.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from evalkit.pipeline.comparison_options import ComparisonOptions
from evalkit.pipeline.options import Decides, Entry, RunKeywords, RunSettings, options_of
from mini_internvl_train.settings import settings_of

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


def comparison_table() -> dict[str, str]:
    """The options of a comparison."""
    rows = [
        f"| {_flags(entry)} | {_default(entry)} | {_meaning(entry)} |"
        for entry in options_of(ComparisonOptions).values()
    ]
    return {"comparison": "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows])}


def recipe_table() -> dict[str, str]:
    """The settings of a training recipe."""
    from mini_internvl_train.recipe import Recipe

    rows = ["| setting | default | meaning |", "|---|---|---|", *_setting_rows(Recipe)]
    return {"recipe": "\n".join(rows)}


def distillation_table() -> dict[str, str]:
    """The settings of a distillation that a training does not have."""
    from mini_internvl_train.distill import Distillation

    rows = ["| setting | default | meaning |", "|---|---|---|", *_setting_rows(Distillation)]
    groups = ("| `optimizer.", "| `checkpoints.")
    return {"distillation": "\n".join(row for row in rows if not row.startswith(groups))}


def _setting_rows(kind: type[Any], above: str = "") -> Iterator[str]:
    hints, own = get_type_hints(kind), settings_of(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _setting_rows(cast(type[Any], hint), f"{field.name}.")
        elif field.name in own:
            meaning = own[field.name].meaning
            if get_origin(hint) is Literal:
                meaning += f" One of {', '.join(f'`{choice}`' for choice in get_args(hint))}."
            required = field.default is dataclasses.MISSING
            default = "required" if required else _text(field.default)
            yield f"| `{above}{field.name}` | {default} | {meaning} |"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value in (None, "") else f"{value:g}" if isinstance(value, float) else f"{value}"


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
PAGES = {
    DOCS / "options.md": run_tables,
    DOCS / "comparing.md": comparison_table,
    DOCS / "recipe-settings.md": lambda: {**recipe_table(), **distillation_table()},
}

if __name__ == "__main__":
    for page, tables in PAGES.items():
        page.write_text(with_tables(page.read_text(encoding="utf-8"), tables()), encoding="utf-8")
