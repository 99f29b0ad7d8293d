"""`evalkit show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal
from evalkit.cli.options import json_flag
from evalkit.cli.terminal import flag
from evalkit.text import one_line, visible

if TYPE_CHECKING:
    from evalkit.store import StoredRun

_FAILED_SHOWN = 200


@click.command(short_help="Show a run's scores, or its samples.")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@flag("--sample", "sample_id", metavar="ID", help="One sample: question, answer, target, scores.")
@flag("--failed", is_flag=True, help="Samples without an answer, with the cause.")
@json_flag
@terminal.verbosity
def show(run: Path, sample_id: str | None, failed: bool, as_json: bool) -> int:
    """Show what a run folder holds; nothing is written."""
    from evalkit.cli import report
    from evalkit.pipeline.results import describe
    from evalkit.store import load_run

    stored = load_run(run)
    if sample_id is not None:
        rows = [_one(stored, sample_id)]
    elif failed:
        rows = _failed(stored)
    else:
        summary = describe(stored)
        if as_json:
            terminal.print_json({"runs": [summary]})
        else:
            click.echo(report.report(summary, with_groups=True))
        return 0
    if as_json:
        terminal.print_json({"run": str(stored.path), "samples": rows})
    elif sample_id is not None:
        click.echo(_sample_text(rows[0]))
    else:
        click.echo(_failed_text(rows))
    return 0


def _rows(stored: StoredRun) -> list[dict[str, Any]]:
    from evalkit.store.records import read_table

    return [_decoded(row) for row in read_table(stored.path).to_pylist()]


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    """A table row with its JSON texts decoded; figures that are no number become null."""
    for name in ("prediction", "target", "data"):
        row[name] = json.loads(row[name], parse_constant=lambda _: None)
    scores = dict(row["scores"])
    row["scores"] = {name: value if abs(value) < float("inf") else None for name, value in scores.items()}
    row["tags"] = dict(row["tags"])
    return row


def _one(stored: StoredRun, sample_id: str) -> dict[str, Any]:
    from evalkit.errors import UsageError
    from evalkit.registry import nearest

    rows = _rows(stored)
    for row in rows:
        if row["id"] == sample_id:
            return row
    hint = nearest(sample_id, [row["id"] for row in rows])
    raise UsageError(f"--sample {sample_id}: no such sample in {stored.path}{hint}")


def _failed(stored: StoredRun) -> list[dict[str, Any]]:
    return [row for row in _rows(stored) if row["error_kind"] is not None]


def _sample_text(row: dict[str, Any]) -> str:
    parts = [f"sample    {one_line(row['id'])}", f"cluster   {one_line(row['cluster'])}"]
    parts += [f"picture   {one_line(name)}" for name in row["images"]]
    parts += [f"{name}: {one_line(value)}" for name, value in row["tags"].items()]
    parts += ["", "question", _indented(row["question"])]
    if row["error_kind"] is not None:
        parts += ["", f"no answer ({one_line(row['error_kind'])}): {one_line(row['error_message'])}"]
    else:
        cut = " (cut by max_new_tokens)" if row["finish"] == "length" else ""
        parts += ["", f"answer{cut}", _indented(row["text"])]
        parts += ["", f"read as   {one_line(json.dumps(row['prediction'], ensure_ascii=False))}"]
    parts.append(f"target    {one_line(json.dumps(row['target'], ensure_ascii=False))}")
    parts += [
        f"{name:<9} {'-' if value is None else format(value, '.4g')}" for name, value in row["scores"].items()
    ]
    if row["flags"]:
        parts.append(f"flags     {', '.join(row['flags'])}")
    parts.append(
        f"tokens    {row['prompt_tokens']} of text, {row['visual_tokens']} of pictures, "
        f"{row['new_tokens']} generated, {row['seconds']:.2f} s"
    )
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in visible(text).split("\n"))


def _failed_text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "every sample has an answer"
    lines = [["sample", "kind", "cause"]]
    lines += [
        [one_line(row["id"], 60), one_line(row["error_kind"]), one_line(row["error_message"], 300)]
        for row in rows[:_FAILED_SHOWN]
    ]
    text = terminal.table(lines)
    more = len(rows) - _FAILED_SHOWN
    return f"{text}\n… and {more} more; --json has all" if more > 0 else text
