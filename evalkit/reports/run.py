"""A run's values for people: scores, intervals, sample counts, the paper's rows, what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.reports.repeats import repeats_text
from evalkit.task_parts import MINIATURE
from evalkit.text import command, one_line, table, value_text, visible

_GROUPS_SHOWN = 40
_VALUES_WIDE = 10
_KINDS_SHOWN = 6


def run_text(run: Mapping[str, Any], with_groups: bool = False) -> str:
    """The whole report of one element of `runs`."""
    parts = [_head(run)]
    if run["metrics"]:
        parts.append(_scores(run["metrics"]))
        parts.append(repeats_text(run))
    if with_groups and run["groups"]:
        parts.append(_groups(run["groups"]))
    if run["reference"] and run["metrics"]:
        parts.append(_references(run))
    parts.append(_foot(run))
    return visible("\n\n".join(part for part in parts if part))


def _head(run: Mapping[str, Any]) -> str:
    counts = run["counts"]
    title = f" · {run['title']}" if run.get("title") else ""
    lines = [
        f"{run['task']}{title} · split {run['split']} · protocol {run['protocol']}",
        f"model   {one_line(run['model'])}",
        f"status  {_status(run)}: {counts['answered']} of {counts['expected']} samples answered, "
        f"{counts['errors']} errors, {counts['unparsed']} unparsed, {counts['truncated']} truncated",
    ]
    if said := _size(run):
        lines.append(said)
    if said := _near_misses(run):
        lines.append(said)
    if keys := counts.get("impossible_keys"):
        lines.append(f"NOTE: {keys} samples count as wrong whatever is answered: their key is not an option")
    if said := _failures(run):
        lines.append(said)
    if said := _judge(run):
        lines.append(said)
    if counts.get("unknown"):
        lines.append(f"        {counts['unknown']} stored predictions match no sample")
    for name, value in run.get("nonstandard", {}).items():
        lines.append(
            f"NON-STANDARD: {name}={value} in place of the protocol's own; not comparable with its values"
        )
    lines.extend(f"NOTE: {one_line(note)}" for note in run.get("notes", ()))
    if run["counts"]["errors"]:
        lines.append("NOTE: the values rest on the answered samples alone")
    if run.get("reason"):
        lines.append(f"NOTE: {one_line(run['reason'])}")
    return "\n".join(lines)


def _size(run: Mapping[str, Any]) -> str:
    """What the files hold, where it is not what the benchmark publishes."""
    held, published = run["counts"].get("in_files"), run["counts"].get("published")
    if held is None or published is None:
        return ""
    if held > published:
        return f"NOTE: the files hold {held:,} samples, the benchmark publishes {published:,}"
    return f"EXCERPT: the files hold {held:,} of the {published:,} samples that the benchmark publishes"


def _near_misses(run: Mapping[str, Any]) -> str:
    """How many wrong answers are near misses, and why; empty where none is."""
    found = run.get("near_misses")
    if not found:
        return ""
    kinds, total = found["kinds"], sum(found["kinds"].values())
    named = [
        f"{one_line(name)} {count}" if len(kinds) > 1 else one_line(name) for name, count in kinds.items()
    ]
    more = [f"{len(named) - _KINDS_SHOWN} more kinds"] if len(named) > _KINDS_SHOWN else []
    said = ", ".join([*named[:_KINDS_SHOWN], *more])
    answers = "is a near miss" if total == 1 else "are near misses"
    rule = "it" if total == 1 else "them"
    return (
        f"NEAR MISS: {total} of {found['wrong']} wrong answers {answers} ({said}): the official rule counts "
        f"{rule} wrong (evalkit show RUN --near-miss)"
    )


def _failures(run: Mapping[str, Any]) -> str:
    """Samples without an answer by kind, where a server or a model withheld some."""
    kinds = run.get("failures", {})
    if not any(name in kinds for name in ("refused", "truncated")):
        return ""
    named = ", ".join(f"{count} {one_line(name)}" for name, count in kinds.items())
    return f"NO ANSWER: {named} (evalkit show RUN --failed)"


def _judge(run: Mapping[str, Any]) -> str:
    """What a judge that was asked did not answer, and what asking again has cost."""
    judge = run.get("judge", {})
    if not judge.get("failed") and not judge.get("again"):
        return ""
    replied = f"{judge['asked'] - judge['failed']} of {judge['asked']}"
    said = f"JUDGE: {one_line(judge['model'])} gave {replied} replies"
    if judge.get("failed"):
        kinds = ", ".join(f"{count} {name}" for name, count in judge["failures"].items())
        said += f" (without: {kinds}; first: {one_line(judge['reason'], 200)})"
    if judge.get("again"):
        said += f"; {judge['again']} of {judge['sent']} requests were sent again"
    return said


def _status(run: Mapping[str, Any]) -> str:
    return f"{run['status']} (limited)" if run.get("limited") else str(run["status"])


def _scores(metrics: Mapping[str, Any]) -> str:
    rows = [["metric", "value", "95% interval", "n", "unit", ""]]
    for name, content in metrics.items():
        unit, interval = content["unit"], content.get("ci95")
        shown = f"[{value_text(interval[0], unit)}, {value_text(interval[1], unit)}]" if interval else "-"
        said = content.get("reason") or content.get("note") or ""
        rows.append([name, value_text(content["value"], unit), shown, str(content["n"]), unit, said])
    return table(rows, right=(1, 3))


def _groups(groups: Mapping[str, Any]) -> str:
    parts = []
    for tag, values in groups.items():
        names = list(dict.fromkeys(name for metrics in values.values() for name in metrics))
        if not names:
            continue
        rows = [[tag, *names, "n"]]
        for value, metrics in list(values.items())[:_GROUPS_SHOWN]:
            cells = [value_text(metrics[name]["value"]) if name in metrics else "" for name in names]
            n = max((content["n"] for content in metrics.values()), default=0)
            rows.append([one_line(value, 48), *cells, str(n)])
        parts.append(_in_pieces(rows, fixed=1, last=1))
        if len(values) > _GROUPS_SHOWN:
            parts[-1] += f"\n… and {len(values) - _GROUPS_SHOWN} more values of {tag}; --json has all"
    return "\n\n".join(parts)


def _references(run: Mapping[str, Any]) -> str:
    rows, metrics = run["reference"], run["metrics"]
    names = [name for name in metrics if any(name in row["metrics"] for row in rows)]
    if not names:
        return ""
    unit = {name: metrics[name]["unit"] for name in names}
    ours = [value_text(metrics[name]["value"], unit[name]) for name in names]
    lines = [["", "model", "table", *names], ["measured here", one_line(run["model"], 40), "", *ours]]
    apart = why_apart(run)
    if apart:
        head = f"NOT COMPARABLE with published values: {apart}"
        measured, lines = _in_pieces(lines, fixed=3), lines[:1]
    for row in rows:
        cells = [value_text(row["metrics"].get(name), unit[name]) for name in names]
        lines.append(["published", row["model"], row["table"], *cells])
    if apart:
        return f"{head}\n{measured}\n\nfor orientation, the published values:\n{_in_pieces(lines, fixed=3)}"
    return _in_pieces(lines, fixed=3)


def why_apart(run: Mapping[str, Any]) -> str:
    """Why a run's values are none of the whole published split; empty where they are.

    `run` is a summary: `split`, `status`, `counts`, `limited`.
    """
    counts = run.get("counts", {})
    if run["split"] == MINIATURE:
        return "the miniature is drawn, it holds no question of the benchmark"
    if run["split"] == "sample":
        return "the split `sample` is a small part of the benchmark"
    if run.get("limited"):
        whole = counts.get("published", counts.get("in_files"))
        return f"limited to {counts.get('expected', 'some')}{f' of {whole}' if whole else ''} samples"
    status = run.get("status", "complete")
    if status == "excerpt":
        return f"an excerpt, {counts.get('in_files', 'some')} of {counts.get('published', 'all')} samples"
    if status != "complete":
        return f"the run is {status}"
    return ""


def _in_pieces(rows: Sequence[Sequence[str]], fixed: int, last: int = 0) -> str:
    """A wide table as several narrow ones; the outer columns are repeated."""
    values = len(rows[0]) - fixed - last
    pieces = []
    for start in range(fixed, fixed + values, _VALUES_WIDE):
        end = min(start + _VALUES_WIDE, fixed + values)
        piece = [[*row[:fixed], *row[start:end], *row[len(row) - last :]] for row in rows]
        pieces.append(table(piece, right=range(fixed, len(piece[0]))))
    return "\n\n".join(pieces)


def _foot(run: Mapping[str, Any]) -> str:
    return f"signature   {run['signature']}\nrun folder  {run['run']}"


def next_steps(runs: Sequence[Mapping[str, Any]]) -> str:
    """What to type after a run."""
    first = runs[0]
    path = first["run"]
    lines = [f"  {command('show', path)}  # the values by group"]
    if first["counts"]["errors"]:
        lines.append(f"  {command('show', path, '--failed')}  # samples without an answer, and why")
    else:
        lines.append(f"  {command('show', path, '--sample', 'ID')}  # one sample: question, answer, score")
    lines.append(f"  {command('compare', 'BASE', path)}  # better than another run, or noise?")
    return "next:\n" + "\n".join(lines)


def check_reference(run: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, list[dict[str, Any]]]:
    """The published row of the run's own model, and the difference of each value that both have."""
    row = matching_row(str(run["model"]), run["reference"])
    if row is None:
        return None, []
    differences = []
    for name, published in row["metrics"].items():
        content = run["metrics"].get(name)
        if content is not None and content["value"] is not None:
            interval = content.get("ci95")
            differences.append(
                {
                    "metric": name,
                    "published": published,
                    "measured": content["value"],
                    "difference": content["value"] - published,
                    "inside_ci95": bool(interval and interval[0] <= published <= interval[1]),
                }
            )
    return row, differences


def matching_row(model: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The published row named by the same words as the model, whatever their order and case.

    Values that only a later table has (BDD-X has captions in one, signals in another) join the first's.
    """
    words = _words(model)
    found: dict[str, Any] | None = None
    for row in (row for row in rows if _words(str(row["model"])) == words):
        if found is None:
            found = dict(row)
        elif new := {name: value for name, value in row["metrics"].items() if name not in found["metrics"]}:
            found["metrics"] = {**found["metrics"], **new}
            found["table"] = f"{found['table']}, {row['table']}"
    return found


#: Hub names of the released checkpoints call the family InternVL2; the paper calls it Mini-InternVL.
_DOMAINS = {"drivelm", "bdd", "rs", "medical"}


def _words(name: str) -> frozenset[str]:
    plain = name.rpartition("/")[2].lower().replace("mini-internvl2", "mini-internvl")
    if plain.startswith("internvl2-") and plain.rpartition("-")[2] in ("1b", "2b", "4b"):
        plain = f"mini-internvl-{plain.rpartition('-')[2]}"
    return frozenset(plain.replace("_", "-").split("-")) - _DOMAINS


def reference_text(run: Mapping[str, Any]) -> str:
    """`--check-reference` for people."""
    row, differences = check_reference(run)
    if row is None:
        known = ", ".join(dict.fromkeys(str(row["model"]) for row in run["reference"]))
        return f"reference: no published row of {one_line(run['model'])}; there are {known or 'none'}"
    lines = [["metric", "published", "measured", "difference", ""]]
    for item in differences:
        unit = run["metrics"][item["metric"]]["unit"]
        inside = "inside the interval" if item["inside_ci95"] else "outside the interval"
        lines.append(
            [
                item["metric"],
                value_text(item["published"], unit),
                value_text(item["measured"], unit),
                f"{'+' if item['difference'] >= 0 else ''}{value_text(item['difference'], unit)}",
                inside,
            ]
        )
    apart = f"; NOT COMPARABLE: {why}" if (why := why_apart(run)) else ""
    head = f"against the published row of {row['model']} (table {row['table']}{apart}):"
    return f"{head}\n{table(lines, right=(1, 2, 3))}" if differences else f"{head} no value in common"
