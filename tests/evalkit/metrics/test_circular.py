"""Circular and vanilla scoring against the rule written out plainly."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Failure, Record
from evalkit.metrics.circular import ROTATION, circular_metrics, relate_circular
from evalkit.metrics.multiple_choice import vlmevalkit_choice

OPTIONS = {"A": "cat", "B": "dog"}


def row(index: int, rule: str | None, target: str | None = "A", **data: object) -> Record:
    return Record(
        str(index),
        str(index % ROTATION),
        rule or "?",
        rule,
        target,
        data={"index": index, "options": OPTIONS, "rule": rule, **data},
    )


def figures(records: list[Record]) -> dict[str, tuple[float, int]]:
    related = relate_circular(records, vlmevalkit_choice)
    found = {}
    for metric in circular_metrics():
        sums = metric.statistics(related).sum(axis=0)
        found[metric.name] = (float(metric.value(sums)), int(metric.selected(related).sum()))
    return found


def test_a_question_counts_only_if_every_rotation_is_right() -> None:
    records = [row(1, "A"), row(1 + ROTATION, "B"), row(2, "A"), row(2 + ROTATION, "A")]
    assert figures(records) == {"circular": (50.0, 2), "vanilla": (100.0, 2)}


def test_file_order_is_not_index_order() -> None:
    records = [row(7 + ROTATION, "B"), row(8, "A"), row(7, "A")]
    assert figures(records) == {"circular": (50.0, 2), "vanilla": (100.0, 2)}


def test_a_copy_without_its_base_row_is_in_no_score() -> None:
    assert figures([row(1, "A"), row(9 + ROTATION, "A")]) == {"circular": (100.0, 1), "vanilla": (100.0, 1)}


def test_a_group_is_scored_on_the_rows_present_and_answered() -> None:
    failed = Record("2000001", "1", "", None, "A", flags=("error",), error=Failure("image", "missing"))
    assert figures([row(1, "A"), row(1 + ROTATION, "A"), failed])["circular"] == (100.0, 1)


def test_unresolved_rows_are_wrong_without_a_judge() -> None:
    assert figures([row(1, "A"), row(1 + ROTATION, None)]) == {"circular": (0.0, 1), "vanilla": (100.0, 1)}


def test_a_judge_resolves_and_never_guesses() -> None:
    assert figures([row(1, "A"), row(1 + ROTATION, None, judge="A")])["circular"] == (100.0, 1)
    assert figures([row(1, "A"), row(1 + ROTATION, None, judge="A or B")])["circular"] == (0.0, 1)
    assert figures([row(1, "A"), row(1 + ROTATION, None, judge="Z")])["circular"] == (0.0, 1)


def test_only_rows_that_can_change_a_figure_are_open() -> None:
    related = relate_circular(
        [
            row(1, None),
            row(1 + ROTATION, "B"),
            row(1 + 2 * ROTATION, None),
            row(2, "A"),
            row(2 + ROTATION, None),
        ],
        vlmevalkit_choice,
    )
    assert [record.data["open"] for record in related] == [True, False, False, False, True]


def test_relating_twice_changes_nothing() -> None:
    once = relate_circular([row(1, None, judge="B"), row(1 + ROTATION, "A")], vlmevalkit_choice)
    assert relate_circular(once, vlmevalkit_choice) == once


def test_rows_without_answers_get_no_score_but_a_reason() -> None:
    related = relate_circular([row(1, "A", None)], vlmevalkit_choice)
    for metric in circular_metrics():
        assert "not public" in str(metric.reason(related))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.sampled_from(["A", "B", "Z", None]), st.sampled_from("AB")),
        min_size=1,
    ),
    st.randoms(),
)
def test_equals_the_plain_rule(rows: dict[tuple[int, int], tuple[str | None, str]], rng: object) -> None:
    records = [row(base + copy * ROTATION, rule, target) for (base, copy), (rule, target) in rows.items()]
    groups = defaultdict(list)
    for (base, copy), (rule, target) in rows.items():
        groups[base].append((copy, rule == target))
    circular, vanilla = [], []
    for members in groups.values():
        if any(copy == 0 for copy, _ in members):
            circular.append(all(hit for _, hit in members))
            vanilla.append(next(hit for copy, hit in members if copy == 0))
    found = figures(records)
    for name, expected in (("circular", circular), ("vanilla", vanilla)):
        value, n = found[name]
        assert n == len(expected)
        if expected:
            assert value == pytest.approx(100 * float(np.mean(expected)), abs=1e-9)
