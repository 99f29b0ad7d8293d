"""Which samples changed: right to wrong, wrong to right, with both answers and the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Json, Record
from evalkit.metrics.base import Metric

#: Samples listed where outcomes are graded and no sample flips.
_LARGEST = 20


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample whose outcome changed.

    Attributes:
        metric: the one in which it did. before, after: the sample's outcome on each side.
        rotations: where the outcome rests on several records (`Metric.rests_on`), those whose change made
            it, both sides of each; empty otherwise.
        hidden: whether it rests on several records, and the one that changed is not among those that both
            sides answered.
    """

    metric: str
    base: Record
    new: Record
    before: float
    after: float
    rotations: tuple[tuple[Record, Record], ...] = ()
    hidden: bool = False

    @property
    def answers(self) -> tuple[Record, Record]:
        """The two records whose answers show the change."""
        return self.rotations[0] if self.rotations else (self.base, self.new)

    def to_json(self) -> dict[str, Json]:
        """Id, both answers that show the change with their target, tags."""
        base, new = self.answers
        found: dict[str, Json] = {
            "id": self.base.id,
            "metric": self.metric,
            "base": base.text,
            "new": new.text,
            "target": base.target,
            "outcomes": [self.before, self.after],
            "tags": dict(self.base.tags),
        }
        if self.rotations:
            found["rotations"] = [
                {"id": mine.id, "base": mine.text, "new": theirs.text, "target": mine.target}
                for mine, theirs in self.rotations
            ]
        return found


@dataclass(frozen=True, slots=True)
class Flips:
    """Changed samples of a task.

    Attributes:
        graded: outcomes are not right or wrong; the lists hold the largest drops and gains instead.
        right_to_wrong, wrong_to_right: each sample once, under the first metric in which it changed.
    """

    graded: bool
    right_to_wrong: tuple[Flip, ...]
    wrong_to_right: tuple[Flip, ...]

    def by_tag(self, tags: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
        """Counts (right to wrong, wrong to right) by tag and tag value."""
        table: dict[str, dict[str, tuple[int, int]]] = {}
        for flips, change in ((self.right_to_wrong, (1, 0)), (self.wrong_to_right, (0, 1))):
            for flip in flips:
                for tag in tags:
                    if tag in flip.base.tags:
                        values = table.setdefault(tag, {})
                        lost, won = values.get(flip.base.tags[tag], (0, 0))
                        values[flip.base.tags[tag]] = (lost + change[0], won + change[1])
        return table

    def to_json(self, tags: Sequence[str]) -> dict[str, Json]:
        """Both lists in full, and the counts by tag."""
        lost, won = (
            ("largest_drops", "largest_gains") if self.graded else ("right_to_wrong", "wrong_to_right")
        )
        counts = {
            tag: {value: {lost: c[0], won: c[1]} for value, c in values.items()}
            for tag, values in self.by_tag(tags).items()
        }
        return {
            lost: [flip.to_json() for flip in self.right_to_wrong],
            won: [flip.to_json() for flip in self.wrong_to_right],
            "by_tag": counts,
        }


def find_flips(metrics: Sequence[Metric], base: Sequence[Record], new: Sequence[Record]) -> Flips:
    """Changed samples of two runs' paired records.

    Rests on the task's binary metrics; a task without any shows the largest changes of its first metric that
    has an outcome for each sample.
    """
    binary = [metric for metric in metrics if metric.binary]
    if binary:
        found: dict[str, Flip] = {}
        for metric in binary:
            for flip in _changes(metric, base, new):
                found.setdefault(flip.base.id, flip)
        changed = list(found.values())
        return Flips(
            False,
            tuple(flip for flip in changed if flip.after < flip.before),
            tuple(flip for flip in changed if flip.after > flip.before),
        )
    for metric in metrics:
        if metric.outcomes(base) is not None:
            sign = 1.0 if metric.higher_is_better else -1.0
            ranked = sorted(_changes(metric, base, new), key=lambda flip: sign * (flip.after - flip.before))
            worse = [flip for flip in ranked if sign * (flip.after - flip.before) < 0]
            better = [flip for flip in reversed(ranked) if sign * (flip.after - flip.before) > 0]
            return Flips(True, tuple(worse[:_LARGEST]), tuple(better[:_LARGEST]))
    return Flips(True, (), ())


def _changes(metric: Metric, base: Sequence[Record], new: Sequence[Record]) -> list[Flip]:
    before, after = metric.outcomes(base), metric.outcomes(new)
    if before is None or after is None:
        return []
    with np.errstate(invalid="ignore"):
        changed = np.flatnonzero(np.isfinite(before) & np.isfinite(after) & (before != after))
    found = [
        Flip(metric.name, base[place], new[place], float(before[place]), float(after[place]))
        for place in changed.tolist()
    ]
    return _with_rotations(found, metric.rests_on, base, new) if metric.rests_on else found


def _with_rotations(
    flips: Sequence[Flip], score: str, base: Sequence[Record], new: Sequence[Record]
) -> list[Flip]:
    """Flips with the records of their clusters whose score changed the same way."""
    members: dict[str, list[tuple[Record, Record]]] = {flip.base.cluster: [] for flip in flips}
    for mine, theirs in zip(base, new, strict=True):
        if mine.cluster in members and score in mine.scores and score in theirs.scores:
            members[mine.cluster].append((mine, theirs))
    found = []
    for flip in flips:
        sign = 1.0 if flip.after > flip.before else -1.0
        changed = tuple(
            (mine, theirs)
            for mine, theirs in members[flip.base.cluster]
            if sign * (theirs.scores[score] - mine.scores[score]) > 0
        )
        found.append(dataclasses.replace(flip, rotations=changed, hidden=not changed))
    return found
