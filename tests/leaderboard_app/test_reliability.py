"""Whether the check of intervals tells good ones from bad ones."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy
from evalkit_leaderboard import reliability
from evalkit_leaderboard.reliability import Coverage, coverage

METRIC = Accuracy("accuracy")


def answers(clusters: int, share: float = 0.6) -> list[Record]:
    """Five answers a cluster, right in some clusters more often than in others."""
    rng = np.random.default_rng(0)
    odds = rng.beta(4 * share, 4 * (1 - share), clusters)
    return [
        Record(f"{cluster}-{place}", f"{cluster}", "", None, None, {"accuracy": float(rng.random() < right)})
        for cluster, right in enumerate(odds)
        for place in range(5)
    ]


def test_intervals_that_are_right_hold_the_value_and_narrow_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = coverage(METRIC, answers(60))
    assert isinstance(found, Coverage) and found.worlds == reliability.WORLDS and found.clusters == 60
    assert found.low <= 95 <= found.high + 3 and found.low < found.value < found.high
    whole = reliability.interval

    def halved(sums: object, resampler: object) -> object:
        (low, high), note = whole(sums, resampler)  # type: ignore[misc, arg-type]
        return (low + (high - low) / 4, high - (high - low) / 4), note

    monkeypatch.setattr(reliability, "interval", halved)
    narrow = coverage(METRIC, answers(60))
    assert isinstance(narrow, Coverage) and narrow.high < 90


def test_what_tells_nothing_is_said() -> None:
    assert "one cluster" in str(coverage(METRIC, answers(1)))
    assert "all clusters are alike" in str(coverage(METRIC, answers(20, share=0.999999)))
