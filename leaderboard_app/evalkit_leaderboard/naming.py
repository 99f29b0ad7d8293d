"""Runs as people tell them apart in a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from evalkit.text import one_line
from evalkit_leaderboard.runs import Run


def run_names(runs: Mapping[str, Run]) -> dict[str, str]:
    """A name for each key: the model, where needed with the time, where needed with the folder."""
    plain = {key: one_line(run.model or run.folder.name, 80) for key, run in runs.items()}
    times = {key: f"{name}, {when(runs[key])}" for key, name in _told_apart(plain).items()}
    named = {key: plain[key] if key not in times else times[key] for key in runs}
    folders = {
        key: f"{name} ({one_line(runs[key].folder.name, 60)})" for key, name in _told_apart(named).items()
    }
    return {key: folders.get(key, named[key]) for key in runs}


def when(run: Run) -> str:
    """`2026-11-24 14:46`, or `time unknown`."""
    return run.created[:16].replace("T", " ") or "time unknown"


def _told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Those names that several have."""
    counts = Counter(names.values())
    return {key: name for key, name in names.items() if counts[name] > 1}
