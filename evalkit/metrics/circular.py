"""Circular scoring of multiple choice: a question counts only if it is answered in every rotation.

Copy k of question q has index q + k * 10^6 and rotated options; q itself is the base row. The metrics rest on
base rows, each scored over the rows of its group that were answered; a copy without its base row is in none.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, Metric
from evalkit.metrics.multiple_choice import Options

ROTATION = 10**6

#: Reads a letter out of a text, None where it cannot.
Infer = Callable[[str, Options], str | None]


def circular_metrics() -> tuple[Metric, ...]:
    """`circular` (all rotations right) and `vanilla` (the base row right), in percent of base questions."""
    return Accuracy("circular"), Accuracy("vanilla")


def relate_circular(records: Sequence[Record], infer: Infer) -> list[Record]:
    """Score each row (`right`), and on base rows their group (`circular`) and themselves (`vanilla`).

    Reads `data`: `index`, `options`, `rule` (letter by rules or None) and, after a judge, `judge` (its reply,
    read by `infer`). Sets `data["choice"]`, and `data["open"]`: whether a judge's reply can still change a
    value. Rows without a target get no score. Idempotent.
    """
    groups = defaultdict[int, list[Record]](list)
    for record in records:
        if not record.failed and record.target is not None:
            groups[record.data["index"] % ROTATION].append(record)
    related = {r.id: r for base, rows in groups.items() for r in _related(base, rows, infer)}
    return [related.get(record.id, record) for record in records]


def choice_of(record: Record, infer: Infer) -> str | None:
    """The letter by rules, else by the judge's reply, else None; never a guess."""
    rule: str | None = record.data["rule"]
    reply = record.data.get("judge")
    return rule or (infer(reply, record.data["options"]) if reply is not None else None)


def _related(base: int, rows: Sequence[Record], infer: Infer) -> list[Record]:
    choices = [choice_of(row, infer) for row in rows]
    right = [choice == row.target for choice, row in zip(choices, rows, strict=True)]
    based = any(row.data["index"] == base for row in rows)
    lost = not based or any(
        choice is not None and not hit for choice, hit in zip(choices, right, strict=True)
    )
    out = []
    for row, choice, hit in zip(rows, choices, right, strict=True):
        is_base = row.data["index"] == base
        scores = {"right": float(hit)}
        if is_base:
            scores |= {"circular": float(all(right)), "vanilla": float(hit)}
        data: dict[str, Any] = {**row.data, "choice": choice}
        data["open"] = row.data["rule"] is None and (is_base or not lost)
        out.append(dataclasses.replace(row, scores=scores, data=data))
    return out
