"""Commands on stored runs: `evalkit show`, `score` and `reproduce`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import completion, terminal
from evalkit.cli.options import (
    FOLDER,
    data_flags,
    fitting,
    include_flag,
    json_flag,
    judge_flags,
    option_flags,
)
from evalkit.cli.terminal import flag
from evalkit.text import one_line, table, visible

if TYPE_CHECKING:
    from evalkit.pipeline.reproduce import Change, Reproduction
    from evalkit.reasoning import ReasoningMode
    from evalkit.store import StoredRun


_FAILED_SHOWN = 200


@click.command(short_help="Show a run's scores, or its samples.")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN", shell_complete=completion.runs)
@flag("--sample", "sample_id", metavar="ID", help="One sample: question, answer, target, scores.")
@flag("--failed", is_flag=True, help="Samples without an answer, and why.")
@flag("--wrong", is_flag=True, help="Answers that do not get the full score.")
@flag("--near-miss", is_flag=True,
      help="Wrong answers that are right but for their form (case, final full stop …).")  # fmt: skip
@json_flag
@terminal.verbosity
def show(run: Path, sample_id: str | None, failed: bool, wrong: bool, near_miss: bool, as_json: bool) -> int:
    """Show what a run folder holds; nothing is written.

    \b
    evalkit show runs/mini-internvl-2b/drivelm@val/…
    evalkit show runs/mini-internvl-2b/drivelm@val/… --wrong
    """
    from evalkit.pipeline.results import describe
    from evalkit.reports import run as report
    from evalkit.store import load_run

    stored = load_run(run)
    if sample_id is not None:
        rows = [_one(stored, sample_id)]
    elif failed:
        rows = _failed(stored)
    elif wrong or near_miss:
        rows = _wrong(stored, near_miss)
    else:
        summary = describe(stored)
        if as_json:
            terminal.print_json({"runs": [summary]})
        else:
            click.echo(report.run_text(summary, with_groups=True))
        return 0
    if as_json:
        terminal.print_json({"run": str(stored.path), "samples": rows})
    elif sample_id is not None:
        click.echo(_sample_text(rows[0]))
    elif failed:
        click.echo(_failed_text(rows))
    else:
        click.echo(_wrong_text(rows, "near misses" if near_miss else "wrong answers"))
    return 0


def _rows(stored: StoredRun) -> list[dict[str, Any]]:
    from evalkit.store.records import read_table, rows_of

    return [_decoded(row) for row in rows_of(read_table(stored.path))]


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    """A table row with its JSON texts decoded; numbers that JSON does not have become null."""
    for name in ("prediction", "target", "data"):
        row[name] = json.loads(row[name], parse_constant=lambda _: None)
    scores = dict(row["scores"])
    row["scores"] = {name: value if abs(value) < float("inf") else None for name, value in scores.items()}
    row["tags"] = dict(row["tags"])
    row["repeats"] = row["repeats"] and json.loads(row["repeats"], parse_constant=lambda _: None)
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


def _wrong(stored: StoredRun, near_miss: bool) -> list[dict[str, Any]]:
    """Rows without the full score, or the near misses among them."""
    from evalkit.near_miss import NEAR_MISS, is_wrong

    if near_miss:
        return [row for row in _rows(stored) if NEAR_MISS in row["flags"]]
    names = _exact_scores(stored)
    return [row for row in _rows(stored) if row["error_kind"] is None and is_wrong(row["scores"], names)]


def _exact_scores(stored: StoredRun) -> Sequence[Sequence[str]]:
    """The scores that say whether an answer is right: as stored, for older runs from the task."""
    from evalkit import registry

    if names := (stored.summary or {}).get("exact_scores"):
        return [[str(name) for name in group] for group in names]
    asked = stored.manifest.get("task", {})
    return registry.task(str(asked.get("name")), asked.get("protocol")).exact_scores


def _wrong_text(rows: list[dict[str, Any]], what: str) -> str:
    from evalkit.near_miss import NEAR_MISS

    if not rows:
        return f"no {what}"
    lines = [["sample", "target", "answer", "near miss"]]
    for row in rows[:_FAILED_SHOWN]:
        target = (
            row["target"] if isinstance(row["target"], str) else json.dumps(row["target"], ensure_ascii=False)
        )
        kind = str((row["data"] or {}).get(NEAR_MISS, ""))
        lines.append(
            [one_line(row["id"], 60), one_line(target, 50), one_line(row["text"], 60), one_line(kind)]
        )
    more = len(rows) - _FAILED_SHOWN
    text = f"{len(rows)} {what}\n{table(lines)}"
    return f"{text}\n… and {more} more; --json has all" if more > 0 else text


def _sample_text(row: dict[str, Any]) -> str:
    parts = [f"sample    {one_line(row['id'])}", f"cluster   {one_line(row['cluster'])}"]
    parts += [f"image     {one_line(name)}" for name in row["images"]]
    parts += [f"{name}: {one_line(value)}" for name, value in row["tags"].items()]
    parts += ["", "question", _indented(row["question"])]
    if row["error_kind"] is not None:
        parts += ["", f"no answer ({one_line(row['error_kind'])}): {one_line(row['error_message'])}"]
    else:
        cut = " (cut by max_new_tokens)" if row["finish"] == "length" else ""
        if thought := (row["data"] or {}).get("reasoning"):
            parts += ["", "reasoning (not scored)", _indented(str(thought))]
        parts += ["", f"answer{cut}", _indented(row["text"])]
        parts += ["", f"read as   {one_line(json.dumps(row['prediction'], ensure_ascii=False))}"]
    parts.append(f"target    {one_line(json.dumps(row['target'], ensure_ascii=False))}")
    parts += [
        f"{name:<9} {'-' if value is None else format(value, '.4g')}" for name, value in row["scores"].items()
    ]
    if row["flags"]:
        parts.append(f"flags     {', '.join(row['flags'])}")
    for place, repeat in enumerate(row["repeats"] or ()):
        scores = ", ".join(f"{name} {value:.4g}" for name, value in repeat["scores"].items())
        parts.append(f"repeat {place + 1}  {one_line(repeat['text'], 80)}  {scores}".rstrip())
    if kind := (row["data"] or {}).get("near_miss"):
        parts.append(f"near miss {one_line(str(kind))}: the official rule counts it wrong")
    parts.append(
        f"tokens    {row['prompt_tokens']} of text, {row['visual_tokens']} of images, "
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
    text = table(lines)
    more = len(rows) - _FAILED_SHOWN
    return f"{text}\n… and {more} more; --json has all" if more > 0 else text


@click.command(short_help="Score stored responses again, without a model.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…",
                shell_complete=completion.runs)  # fmt: skip
@data_flags
@judge_flags
@option_flags(("reasoning",), default=None, help="Text in think tags: kept but not scored (strip), "
              "scored (keep), or as the protocol does (auto). Default: as the run was told.")  # fmt: skip
@json_flag
@terminal.verbosity
def score(
    runs: tuple[Path, ...],
    data_root: Path | None,
    offline: bool,
    judge: str | None,
    judge_model: str | None,
    judge_gen: tuple[str, ...],
    judge_repeats: int | None,
    judge_labels: str | None,
    reasoning: ReasoningMode | None,
    as_json: bool,
) -> int:
    """Score the stored responses of run folders again; nothing is generated.

    The data is read from its place at the time of the run, or from --data-root.

    \b
    evalkit score runs/mini-internvl-2b/drivelm@val/…
    """
    from evalkit.pipeline.finish import score_run
    from evalkit.pipeline.judge_options import judge_options
    from evalkit.pipeline.judging import gave_nothing
    from evalkit.reports import run as report

    chosen = judge_options(judge, judge_model, judge_gen, judge_repeats)
    labels = None if judge_labels is None else Path(judge_labels)
    results = []
    for path in runs:
        with terminal.interruptible():
            result = score_run(path, data_root, chosen, offline, reasoning, labels)
        results.append(result.summary)
        if not as_json:
            click.echo(report.run_text(result.summary) + "\n")
    if as_json:
        terminal.print_json({"runs": results})
    useless = next(filter(None, map(gave_nothing, results)), "")
    return terminal.fail(f"done, but {useless}", 4) if useless else 0


#: Differing answers that are printed; `--json` has all.
_SHOWN = 10


@click.command(short_help="Run a stored run again, and compare the answers.")
@click.argument("path", metavar="RUN", type=FOLDER, shell_complete=completion.runs)
@flag("-o", "--output", type=FOLDER, default=Path("reproduced"), show_default=True,
      help="Folder of the new run folders.")  # fmt: skip
@option_flags(decides="place")
@include_flag
@json_flag
@terminal.verbosity
def reproduce(path: Path, output: Path, as_json: bool, **flags: Any) -> int:
    """Run RUN again as its manifest says, and report whether the answers are the same.

    Hashes of task file, data, images and weights are checked first. Where it runs may differ.
    Exit status: 0 equal, 1 some answers or values differ, 3 data or weights are missing or have changed.

    \b
    evalkit reproduce runs/mini-internvl-2b/drivelm@val/…
    """
    from evalkit import registry
    from evalkit.pipeline.manifest import stored_options
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.reproduce import reproduce as run_again
    from evalkit.pipeline.results import load_run

    stored = load_run(path).stored
    _, asked = stored_options(stored.manifest, stored.path, data_root=None, offline=False)
    where = RunOptions("", quiet=as_json, **fitting(asked.model, flags))
    where.check()
    with terminal.interruptible():
        found = run_again(path, where, registry.included_tasks(), output)
    if as_json:
        terminal.print_json(found.to_json())
    else:
        click.echo("\n".join(_lines(found)))
    return 0 if found.equal else 1


def _lines(found: Reproduction) -> list[str]:
    lines = [f"run    {found.run}", f"again  {found.again}", ""]
    lines += [_line(change) for change in found.answers[:_SHOWN]]
    if len(found.answers) > _SHOWN:
        lines.append(f"… and {len(found.answers) - _SHOWN} more (--json has all)")
    lines += [f"{change.name}: {change.before}, now {change.after}" for change in found.values]
    lines += [
        f"{c.name} {c.before or 'not installed'}, now {c.after or 'not installed'}" for c in found.versions
    ]
    lines += list(found.notes)
    same = found.compared - len(found.answers)
    if found.equal:
        lines.append(f"equal: all {same} answers are the same")
    else:
        lines.append(
            f"differs: {same} of {found.compared} answers are the same, {len(found.values)} values differ"
        )
    return lines


def _line(change: Change) -> str:
    before, after = (one_line(str(text), 60) for text in (change.before, change.after))
    return f"{one_line(change.name, 40)}: {before!r}, now {after!r}"
