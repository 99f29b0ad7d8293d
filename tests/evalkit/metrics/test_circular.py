"""Circular and vanilla scoring against the rule written out plainly."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Record
from evalkit.metrics.circular import ROTATION, Rotation, circular_metrics, score_rotations

Row = tuple[int, str | None]


def figures(rows: list[Row], targets: str = "") -> dict[str, tuple[float, int]]:
    """Value and samples by metric, of rows with index and letter; the right letter is A unless given."""
    wanted = targets or "A" * len(rows)
    scores = score_rotations([Rotation(*row, right) for row, right in zip(rows, wanted, strict=True)])
    records = [Record(str(n), "c", "", None, "A", score.scores) for n, score in enumerate(scores)]
    found = {}
    for metric in circular_metrics():
        sums = metric.statistics(records).sum(axis=0)
        found[metric.name] = (float(metric.value(sums)), int(metric.selected(records).sum()))
    return found


def test_a_question_counts_only_if_every_rotation_is_right() -> None:
    rows: list[Row] = [(1, "A"), (1 + ROTATION, "B"), (2, "A"), (2 + ROTATION, "A")]
    assert figures(rows) == {"circular": (50.0, 2), "vanilla": (100.0, 2)}


def test_file_order_is_not_index_order() -> None:
    assert figures([(7 + ROTATION, "B"), (8, "A"), (7, "A")])["circular"] == (50.0, 2)
    assert figures([(7 + ROTATION, "B"), (8, "A"), (7, "A")])["vanilla"] == (100.0, 2)


def test_a_copy_without_its_base_row_is_in_no_score() -> None:
    assert figures([(1, "A"), (9 + ROTATION, "A")]) == {"circular": (100.0, 1), "vanilla": (100.0, 1)}


def test_a_letter_that_was_not_read_is_wrong() -> None:
    assert figures([(1, "A"), (1 + ROTATION, None)]) == {"circular": (0.0, 1), "vanilla": (100.0, 1)}
    assert figures([(1, "A"), (1 + ROTATION, "Z")])["circular"] == (0.0, 1)


def test_only_rows_that_can_change_a_value_are_decisive() -> None:
    indices = (1, 1 + ROTATION, 1 + 2 * ROTATION, 2, 2 + ROTATION, 3 + ROTATION)
    letters = (None, "B", None, "A", None, None)
    scores = score_rotations([Rotation(i, c, "A") for i, c in zip(indices, letters, strict=True)])
    assert [score.decisive for score in scores] == [True, False, False, True, True, False]


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
    letters = [(base + copy * ROTATION, rule) for (base, copy), (rule, _) in rows.items()]
    targets = "".join(target for _, target in rows.values())
    groups = defaultdict(list)
    for (base, copy), (rule, target) in rows.items():
        groups[base].append((copy, rule == target))
    circular, vanilla = [], []
    for members in groups.values():
        if any(copy == 0 for copy, _ in members):
            circular.append(all(hit for _, hit in members))
            vanilla.append(next(hit for copy, hit in members if copy == 0))
    found = figures(letters, targets)
    for name, expected in (("circular", circular), ("vanilla", vanilla)):
        value, n = found[name]
        assert n == len(expected)
        if expected:
            assert value == pytest.approx(100 * float(np.mean(expected)), abs=1e-9)
