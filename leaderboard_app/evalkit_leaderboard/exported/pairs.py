"""Comparisons of any two exported runs of a task and split: what the page Compare of the app says of them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from evalkit.comparison import Comparison, Key
from evalkit.comparison.compare import TaskPart
from evalkit.comparison.shared import Shared
from evalkit.data.locate import cache_folder
from evalkit.installation import VERSION
from evalkit.reports import wording
from evalkit.text import one_line
from evalkit_leaderboard.catalogue import TaskInfo
from evalkit_leaderboard.comparing import (
    ALL,
    Runs,
    Settings,
    Side,
    compare_over,
    fate,
    headline,
    load,
    said,
    shared,
)
from evalkit_leaderboard.runs import Run, or_reason, stamp

#: Raise when what is kept of a comparison changes.
_VERSION = 2
#: Characters of a reason or note.
_SENTENCE = 400
#: Comparisons of two runs that are at hand for one of two models, which has as many as they have tasks.
_TASKS = 64


def ordered_pairs(runs: Mapping[str, Run]) -> Iterator[tuple[str, str]]:
    """Keys of every two runs, the earlier one first: it is the base."""
    return combinations(sorted(runs, key=lambda key: _age(runs[key])), 2)


def _age(run: Run) -> tuple[str, str]:
    return run.created, run.path


class Comparisons:
    """What there is to say of every two runs and models, each worked out once."""

    def __init__(self, infos: Mapping[str, TaskInfo]) -> None:
        self._infos = infos
        self._shared: Shared[TaskPart] = Shared(load, most=_TASKS)
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def of_runs(
        self, runs: Mapping[str, Run], names: Mapping[str, str], step: Callable[[], object]
    ) -> dict[str, Any]:
        """All comparisons of runs of one task and split, each text once.

        Returns:
            `texts`, and by `BASE NEW` numbers of texts: `says`, `notes`, and `rows`, each of a metric: its
            cells under `header`, its verdict, unit and notes.
        """
        texts = _Texts()
        found: dict[str, Any] = {}
        for base, new in ordered_pairs(runs):
            kept = self._of_two(runs[base], runs[new])
            paths = {runs[base].path: names[base], runs[new].path: names[new]}
            found[f"{base} {new}"] = texts.numbered(kept, partial(_unplaced, paths=paths))
            step()
        return {"header": list(wording.HEADER), "texts": texts.all, "pairs": found}

    def of_models(self, sides: Mapping[str, Side], step: Callable[[], object]) -> dict[str, Any]:
        """All comparisons of models over the tasks that both have: as `of_runs`, a row for each headline."""
        texts = _Texts()
        found: dict[str, Any] = {}
        for base, new in combinations(sides, 2):
            one, other = sides[base].runs, sides[new].runs
            if len(shared(one, other)) > 1:
                kept = _kept([*one.values(), *other.values()], partial(self._over_all, one, other), ALL)
                paths = {run.path: sides[key].name for key in (base, new) for run in sides[key].runs.values()}
                found[f"{base} {new}"] = texts.numbered(kept, partial(_unplaced, paths=paths))
            step()
        return {"header": list(wording.HEADER), "texts": texts.all, "pairs": found}

    def _of_two(self, base: Run, new: Run) -> dict[str, Any]:
        key = (base.path, new.path)
        if key not in self._known:
            self._known[key] = _kept([base, new], lambda: _said(base, new, self._shared))
        return self._known[key]

    def _over_all(self, base: Runs, new: Runs) -> dict[str, Any]:
        """Task by task first: those comparisons stand in the board as well, and are at hand then."""
        for key in shared(base, new):
            if _age(base[key]) < _age(new[key]):
                self._of_two(base[key], new[key])
        return _said_over_all(base, new, self._infos, self._shared)


def _unplaced(text: str, paths: Mapping[str, str]) -> str:
    """The text without the paths of this machine."""
    for path, name in paths.items():
        text = text.replace(path, name)
    return text


class _Texts:
    """Texts by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def all(self) -> list[str]:
        """In the order of their numbers."""
        return list(self._numbers)

    def numbered(self, content: Any, plain: Callable[[str], str]) -> Any:
        """The content with the number of each text in its place."""
        if isinstance(content, str):
            return self._numbers.setdefault(plain(content), len(self._numbers))
        if isinstance(content, dict):
            return {name: self.numbered(value, plain) for name, value in content.items()}
        return [self.numbered(value, plain) for value in content]


def _kept(runs: Sequence[Run], said: Callable[[], dict[str, Any]], kind: str = "") -> dict[str, Any]:
    """What there is to say of two sides' runs, from the cache where their files are what they were."""
    name = "\0".join((str(_VERSION), VERSION, kind, *(run.path + stamp(run.path) for run in runs)))
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
    path = cache_folder() / "leaderboard" / "pairs" / f"{digest}.json"
    try:
        known: dict[str, Any] = json.loads(path.read_bytes())
        return known
    except (OSError, ValueError):
        found = said()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(found, file)
        Path(file.name).replace(path)
    except OSError:
        pass  # without a cache the next export compares again
    return found


def _said(base: Run, new: Run, work: Shared[TaskPart]) -> dict[str, Any]:
    key = Key(base.task, base.split)
    names = (base.model, new.model)
    outcome = or_reason(lambda: compare_over({key: base}, {key: new}, names, Settings(), work))
    comparison = None if isinstance(outcome, str) else outcome.comparison
    if isinstance(outcome, str) or comparison is None:
        why = outcome if isinstance(outcome, str) else "; ".join(outcome.refused.values())
        return {"says": [f"Not comparable: {one_line(why, 2 * _SENTENCE)}."], "notes": [], "rows": []}
    results = [result for task in comparison.tasks for result in wording.shown(comparison, task)]
    of_metrics = tuple(f"{result.key} {result.name}: " for result in results)  # the table has these
    notes = [reason for reason in comparison.reasons if not reason.startswith(of_metrics)]
    return {
        "says": [one_line(said(comparison), 2 * _SENTENCE), *_counts(comparison)],
        "notes": [one_line(note, _SENTENCE) for note in notes],
        "rows": [
            [
                [one_line(cell, _SENTENCE) for cell in wording.cells(result)],
                result.verdict.replace("_", " "),
                result.difference.metric.unit,
                [one_line(note, _SENTENCE) for note in result.notes],
            ]
            for result in results
        ],
    }


def _said_over_all(
    base: Runs, new: Runs, infos: Mapping[str, TaskInfo], work: Shared[TaskPart]
) -> dict[str, Any]:
    """The page's first table: each task's headline with what became of it."""
    outcome = or_reason(lambda: compare_over(base, new, ("base", "new"), Settings(), work))
    if isinstance(outcome, str):
        return {"says": [f"Not comparable: {one_line(outcome, 2 * _SENTENCE)}."], "notes": [], "rows": []}
    refused = [one_line(f"{key}: not comparable: {why}", _SENTENCE) for key, why in outcome.refused.items()]
    comparison = outcome.comparison
    if comparison is None:
        return {"says": ["Not comparable: no task may be compared."], "notes": refused, "rows": []}
    heads = {task.key: headline(infos, comparison, task.key) for task in comparison.tasks}
    rows = []
    for key, result in heads.items():
        if result is not None:
            name, *middle, verdict = wording.cells(result)
            cells = [f"{key} {name}", *middle, f"{fate(result)}: {verdict}"]
            kind, unit = result.verdict.replace("_", " "), result.difference.metric.unit
            notes = [one_line(note, _SENTENCE) for note in result.notes]
            rows.append([[one_line(cell, _SENTENCE) for cell in cells], kind, unit, notes])
    level = f"level {comparison.alpha:g}, Holm over the metrics judged of all tasks"
    says = [one_line(said(comparison, heads), 2 * _SENTENCE), f"By each task's headline; {level}"]
    return {"says": says, "notes": refused, "rows": rows}


def _counts(comparison: Comparison) -> Sequence[str]:
    found = []
    for task in comparison.tasks:
        flips = [wording.flip_title(task, lost) for lost in (True, False)]
        changed = "" if task.flips.graded else f"; {' and '.join(flips)}"
        level = f"level {comparison.alpha:g}, Holm over the metrics judged"
        found.append(f"{wording.counts(task)}; {level}{changed}")
    return found
