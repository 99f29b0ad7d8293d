"""What is new since last week, and whether it is better or worse."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from evalkit.comparison import Key
from evalkit.comparison.alike import refusal
from evalkit.text import one_line
from evalkit_leaderboard import components
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.numbers import signed
from evalkit_leaderboard.runs import Run

_WEEK = timedelta(days=7)
#: Pairs that are compared, and names in a list.
_PAIRS, _NAMES = 12, 4


def render(context: Context, now: datetime | None = None) -> None:
    """A line on the runs of the last seven days; nothing where there are no runs at all."""
    dated = [(when, run) for run in context.runs.values() if run.metrics and (when := _time(run)) is not None]
    if not dated:
        return
    since = (now or datetime.now(timezone.utc)) - _WEEK
    recent = sorted(((when, run) for when, run in dated if when >= since), key=lambda pair: pair[0])
    date = since.date().isoformat()
    if not recent:
        newest = max(when for when, _ in dated).date().isoformat()
        components.note(f"Since last week ({date}): no new run; the newest is of {newest}.")
        return
    before = [run for when, run in sorted(dated, key=lambda pair: pair[0]) if when < since]
    pairs = _pairs([run for _, run in recent], before)
    said: dict[str, list[str]] = {"better": [], "worse": [], "no evidence": []}
    waiting = 0
    for old, new in pairs:
        found = _change(context, old, new)
        if found is None:
            waiting += 1
        elif found[0]:
            said[found[0]].append(found[1])
    models = len({run.model for _, run in recent})
    words = [f"{len(recent):,} new runs of {models:,} models"]
    for kind in ("better", "worse"):
        if names := said[kind]:
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            words.append(f"{kind}: {', '.join(names[:_NAMES])}{more}")
    if said["no evidence"]:
        words.append(f"{len(said['no evidence'])} without evidence of a change")
    if waiting:
        words.append(f"{waiting} being compared …")
    if not pairs:
        words.append("none has an earlier run of the same series to compare with")
    components.note(f"Since last week ({date}): {'; '.join(words)}.")


def _time(run: Run) -> datetime | None:
    try:
        when = datetime.fromisoformat(run.created)
    except ValueError:
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)


def _pairs(recent: list[Run], before: list[Run]) -> list[tuple[Run, Run]]:
    """The newest run of each series, task and split beside the newest comparable one from before."""
    newest = {(run.series, run.task, run.split): run for run in recent}
    found = []
    for key, run in newest.items():
        earlier = [old for old in before if (old.series, old.task, old.split) == key]
        fitting = [old for old in earlier if refusal(old.measured, run.measured) is None]
        if fitting:
            found.append((fitting[-1], run))
    return found[-_PAIRS:]


def _change(context: Context, old: Run, new: Run) -> tuple[str, str] | None:
    """Better, worse or no evidence by the task's headline, and in words; None while it is being compared."""
    key = Key(new.task, new.split)
    changes = context.verdicts.of({key: old}, {key: new})
    if changes is None:
        return None
    info = context.matrix.infos[new.task]
    names = [info.headline, *new.metrics]
    name = next((name for name in names if f"{key}:{name}" in changes), None)
    if name is None:
        return "", ""
    change = changes[f"{key}:{name}"]
    kind = {"improved": "better", "regressed": "worse"}.get(change.verdict, "no evidence")
    unit = new.metrics[name].unit if name in new.metrics else ""
    return kind, f"{one_line(new.model, 60)} on {key} ({signed(change.difference, unit)})"
