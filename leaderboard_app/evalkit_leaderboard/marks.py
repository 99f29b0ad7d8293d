"""What a reader must know of a run before its value is set beside another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from evalkit.comparison.alike import Measured, refusal
from evalkit.task import MINIATURE, PARTS
from evalkit_leaderboard.catalogue import TaskInfo
from evalkit_leaderboard.runs import Run


class Mark(NamedTuple):
    """A word beside a value and what it means; `ranked` is whether the value is ranked in spite of it.

    Values of a split of `PARTS` are ranked among themselves: no published value stands in their column.
    """

    word: str
    meaning: str
    ranked: bool = False


#: Characters of a word before a colon that stands for a model's note.
_WORD = 20
#: Who else may have made tokens and pixels of messages and images, by the signature's field `inputs`.
_INPUTS = {
    "server": Mark(
        "served", "chat template and tiling are the server's own, not the protocol's", ranked=True
    ),
    "processor": Mark(
        "own processor", "chat template and tiling are the model's own, not the protocol's", ranked=True
    ),
}
#: Signature fields that say which samples were asked and how they were scored.
_SAME = ("version", "n", "subset", "data", "scorer")


def marks_of(run: Run, task: TaskInfo) -> tuple[Mark, ...]:
    """Marks that follow from the run alone."""
    found: list[Mark] = []
    errors, expected = run.counts.get("errors", 0), run.counts.get("expected", 0)
    size = task.sizes.get(run.split)
    if run.split in PARTS:
        kind = (
            "drawn questions, none of the benchmark's"
            if run.split == MINIATURE
            else "questions of the benchmark"
        )
        whole = next((task.sizes[split] for split in task.splits if split in task.sizes), None)
        of = f"; it publishes {whole:,}" if whole else ""
        found.append(Mark(run.split, f"{expected} {kind}{of}", ranked=True))
    if run.limited:
        of = f" of {held:,}" if (held := run.counts.get("in_files") or size) else ""
        found.append(Mark("limited", f"a chosen part of the split: {expected}{of} samples"))
    elif run.status == "excerpt":
        published = run.counts.get("published", "more")
        found.append(Mark("excerpt", f"{expected} samples; the benchmark publishes {published}"))
    elif run.status != "complete":
        found.append(Mark(run.status, run.reason or "not every sample was asked"))
    if errors:
        found.append(Mark("incomplete", f"{errors} of {expected} samples have no answer and enter no value"))
    if run.nonstandard:
        settings = ", ".join(f"{name}={value}" for name, value in run.nonstandard.items())
        found.append(Mark("non-standard", f"{settings} in place of the protocol's own"))
    if run.protocol != task.protocol:
        found.append(Mark(f"protocol {run.protocol}", f"scored by another protocol than {task.protocol}"))
    if size is not None and expected != size and not run.limited and run.status != "excerpt":
        found.append(Mark("excerpt", f"{expected} samples; the published split has {size}"))
    inputs = _INPUTS.get(run.measured.fields.get("inputs", ""))
    if inputs is not None:
        found.append(inputs)
    found += (mark for note in run.notes if (mark := _noted(note)).word not in {m.word for m in found})
    return tuple(found)


def _noted(note: str) -> Mark:
    """The mark of a model's own words, such as `untrained` or `served: template and tiling are ...`."""
    word, colon, _ = note.partition(":")
    if note.startswith("untrained"):
        return Mark("untrained", note)
    return Mark(word if colon and len(word) <= _WORD else "note", note, ranked=True)


def asked(run: Run) -> tuple[str, ...]:
    """What of a run's signature must be equal for two values to be of the same samples and scorer."""
    return tuple(run.measured.fields.get(name, "") for name in _SAME)


def alike(runs: Mapping[str, Run]) -> list[list[str]]:
    """Keys of runs of one task and split by what may be compared, the largest group first (`refusal`)."""
    groups: list[tuple[Measured, list[str]]] = []
    known: dict[tuple[object, ...], list[str]] = {}
    for key, run in runs.items():
        told = run.measured
        same = (*sorted(told.fields.items()), told.data, told.older_data)
        if same not in known:
            fitting = (keys for first, keys in groups if refusal(first, told) is None)
            known[same] = next(fitting, [])
            if not known[same]:
                groups.append((told, known[same]))
        known[same].append(key)
    return sorted((keys for _, keys in groups), key=len, reverse=True)


def other_data(runs: Iterable[Run]) -> dict[str, Mark]:
    """Marks, by path, of runs of one task and split that asked or scored something else than most of them."""
    keys: dict[str, tuple[str, ...]] = {}
    newest: dict[tuple[str, ...], str] = {}
    for run in runs:
        keys[run.path] = key = asked(run)
        newest[key] = max(run.created, newest.get(key, ""))
    if len(newest) < 2:
        return {}
    counts = Counter(keys.values())
    usual = max(counts, key=lambda key: (counts[key], newest[key]))
    return {path: _differing(key, usual) for path, key in keys.items() if key != usual}


def _differing(key: Sequence[str], usual: Sequence[str]) -> Mark:
    names = [
        f"{name} {a or 'none'}, elsewhere {b or 'none'}"
        for name, a, b in zip(_SAME, key, usual, strict=True)
        if a != b
    ]
    return Mark("other data", f"not comparable with the other runs of the split: {'; '.join(names)}")


def all_marks(runs: Mapping[str, Run], infos: Mapping[str, TaskInfo]) -> dict[str, tuple[Mark, ...]]:
    """Marks of every run by key."""
    marks = {key: marks_of(run, infos[run.task]) for key, run in runs.items() if run.task in infos}
    groups: dict[tuple[str, str], list[Run]] = {}
    for key, found in marks.items():
        if all(mark.ranked for mark in found):
            groups.setdefault((runs[key].task, runs[key].split), []).append(runs[key])
    others = {path: mark for members in groups.values() for path, mark in other_data(members).items()}
    return {
        key: (*found, others[runs[key].path]) if runs[key].path in others else found
        for key, found in marks.items()
    }


def is_ranked(marks: Iterable[Mark]) -> bool:
    """Whether a value with these marks is ranked by default."""
    return all(mark.ranked for mark in marks)
