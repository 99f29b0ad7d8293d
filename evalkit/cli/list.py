"""`evalkit list`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal
from evalkit.cli.options import data_flags, json_flag, output_flag
from evalkit.text import one_line, table

if TYPE_CHECKING:
    from evalkit.task import Task

#: Columns of a terminal, and of them those of a task's name.
_WIDTH, _NAMES = 100, 24


@click.command("list", short_help="List tasks, models, suites or runs.")
@click.argument("what", type=click.Choice(["tasks", "models", "suites", "runs"]))
@output_flag
@data_flags
@json_flag
@terminal.verbosity
def list_command(what: str, output: Path, data_root: Path | None, offline: bool, as_json: bool) -> int:
    """List tasks (splits, protocols, metrics, size, whether the data is here), models, suites or runs.

    \b
    evalkit list tasks
    evalkit list runs -o runs
    """
    if what == "tasks":
        items, text = _tasks(data_root)
    elif what == "models":
        items, text = _models()
    elif what == "suites":
        items, text = _suites()
    else:
        items, text = _runs(output)
    if as_json:
        terminal.print_json({what: items})
    else:
        click.echo(text)
    return 0


def _tasks(data_root: Path | None) -> tuple[list[dict[str, Any]], str]:
    from evalkit import registry

    items = [_task(factory(), data_root) for factory in registry.tasks().values()]
    hint = (
        "*: the data is here; miniature is drawn and needs none\n"
        "next: evalkit run -m mini-internvl-tiny -t TASK --split miniature\n"
        "      evalkit data where TASK    which files, from where, how large"
    )
    return items, "\n\n".join([*map(_described, items), hint])


def _described(item: Mapping[str, Any]) -> str:
    """What a task asks, its splits with their published samples, metrics, protocols and size."""
    splits = [
        f"{name}{'*' if name in item['at_hand'] else ''}{_samples(item['samples'].get(name))}"
        for name in item["splits"]
    ]
    names, same = item["metrics"], item["same_scorer"]
    metrics = [*names[:8], *([f"and {len(names) - 8} more"] if len(names) > 8 else [])]
    protocols = [f"{p} (scores as {same[p]})" if p in same else p for p in item["protocols"]]
    lines = [f"{item['title']}. {item['about']}" if item["about"] else item["title"]]
    lines += [f"splits: {', '.join(splits)}", f"metrics: {', '.join(metrics)}"]
    lines.append(f"protocols: {', '.join(protocols)}; download: {_size(item['bytes'])}")
    blank = " " * _NAMES
    heads = [f"{item['name']:{_NAMES - 1}} ", *[blank] * (len(lines) - 1)]
    wrapped = (
        fill(line, _WIDTH, initial_indent=head, subsequent_indent=f"{blank}  ", break_on_hyphens=False)
        for head, line in zip(heads, lines, strict=True)
    )
    return "\n".join(wrapped)


def _samples(count: int | None) -> str:
    return "" if count is None else f" ({count:,})"


def _task(task: Task, data_root: Path | None) -> dict[str, Any]:
    from evalkit.cli.data import splits_at_hand
    from evalkit.task import MINIATURE

    drawn = [MINIATURE] if task.data_source.draw else []
    at_hand = [*splits_at_hand(task, data_root), *drawn]
    files = {file.path: file.size for split in task.splits for file in task.data_source.files_of(split)}
    return {
        "name": task.name,
        "title": task.title or task.name,
        "about": task.about,
        "version": task.version,
        "splits": [*task.splits, MINIATURE],
        "at_hand": at_hand,
        "protocols": list(task.protocols),
        "same_scorer": dict(task.same_scorer),
        "metrics": [metric.name for metric in task.metrics()],
        "samples": dict(task.data_source.sizes),
        "bytes": sum(size for size in files.values() if size) or None,
    }


def _size(size: int | None) -> str:
    if size is None:
        return "not stated"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _models() -> tuple[list[dict[str, Any]], str]:
    from evalkit import registry

    names = [name for family in registry.families() for name in family.names()]
    hint = "a checkpoint's folder or a Hub id works too:  evalkit run -m FOLDER -t drivelm"
    return [{"name": name} for name in names], "\n".join([*names, "", hint])


def _suites() -> tuple[list[dict[str, Any]], str]:
    from evalkit import registry

    items: list[dict[str, Any]] = [
        {"name": suite.name, "members": list(suite.members), "table": suite.table is not None}
        for suite in registry.suites().values()
    ]
    rows = [["suite", "tasks"], *([str(item["name"]), ", ".join(item["members"])] for item in items)]
    return items, table(rows)


def _runs(output: Path) -> tuple[list[dict[str, Any]], str]:
    from evalkit.store import find_runs

    items = [_run(path) for path in find_runs(output)]
    if not items:
        return [], f"no runs under {output}; evalkit run -m mini-internvl-tiny -t drivelm --split miniature"
    rows = [["run", "model", "task", "split", "status", "answered", "headline", ""]]
    for item in items:
        answered = f"{item['counts'].get('answered', '?')}/{item['counts'].get('expected', '?')}"
        rows.append(
            [
                item["run"],
                one_line(item["model"], 40),
                one_line(item["task"], 40),
                one_line(item["split"], 20),
                one_line(item["status"], 20),
                answered,
                _headline(item["metrics"]),
                _marks(item),
            ]
        )
    return items, table(rows)


def _run(path: Path) -> dict[str, Any]:
    """What a folder holds; a broken one is listed as broken, and the others follow."""
    from evalkit.errors import RunFolderError
    from evalkit.pipeline.results import load_run

    blank = {"run": str(path), "model": "", "task": "", "split": "", "counts": {}, "metrics": {}}
    try:
        summary = {**blank, **load_run(path).summary}
        json.dumps(summary, allow_nan=False)
        if not all(isinstance(summary[name], Mapping) for name in ("counts", "metrics")):
            raise ValueError("counts or metrics are not objects")
    except (RunFolderError, ValueError, TypeError) as error:
        return {**blank, "status": "broken", "reason": one_line(str(error))}
    for name in ("model", "task", "split", "status"):
        summary[name] = str(summary[name])
    return summary


def _marks(run: Mapping[str, Any]) -> str:
    """Why a run does not count as a standard one."""
    notes = run.get("notes")
    marks = [one_line(str(note), 40) for note in notes] if isinstance(notes, list) else []
    marks += ["limited"] if run.get("limited") else []
    marks += ["non-standard"] if run.get("nonstandard") else []
    marks += [one_line(str(run["reason"]), 100)] if run.get("reason") else []
    return "; ".join(marks)


def _headline(metrics: Mapping[str, Any]) -> str:
    from evalkit.text import value_text

    for name, content in metrics.items():
        if isinstance(content, Mapping) and isinstance(content.get("value"), (int, float)):
            return f"{one_line(name, 40)} {value_text(content['value'], str(content.get('unit', '')))}"
    return "-"
