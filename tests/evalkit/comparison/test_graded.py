"""Comparisons of what is not right or wrong: graded scores, unbounded metrics, fractions beside points."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stored_runs import Answers, General, Toy, outcomes, write_run

from evalkit.cli.main import invoke
from evalkit.comparison.flips import Flips, find_flips
from evalkit.contracts import Failure, Record
from evalkit.metrics.base import Accuracy, Mean, Metric, RootMeanSquare, macro_mean
from evalkit.metrics.circular import ROTATION, Rotation, circular_metrics, score_rotations
from evalkit.reports.wording import flip_cells
from evalkit.statistics import Resampler, difference

ANLS = Mean("anls")
ERROR = Mean("error", unit="m/s", scale=1.0, higher_is_better=False)


def records(values: Sequence[float | None], score: str = "anls", **more: Sequence[float]) -> list[Record]:
    """One sample a value, tagged odd or even; None is a sample without an answer."""
    found = []
    for place, value in enumerate(values):
        scores = {score: value, **{name: column[place] for name, column in more.items()}}
        gone = Failure("image", "unreadable") if value is None else None
        tags = {"kind": "odd" if place % 2 else "even"}
        found.append(
            Record(
                f"s{place}",
                f"c{place}",
                f"{value}",
                None,
                "",
                {k: v for k, v in scores.items() if v is not None},
                tags,
                error=gone,
            )
        )
    return found


def ids(flips: Flips) -> tuple[list[str], list[str]]:
    return [flip.base.id for flip in flips.right_to_wrong], [flip.base.id for flip in flips.wrong_to_right]


def test_graded_scores_show_the_largest_drops_and_gains_first() -> None:
    base = records([0.5, 0.9, 1.0, 0.2, 0.7, None, 0.4])
    new = records([0.4, 0.9, 0.0, 0.9, 0.8, 0.9, None])
    flips = find_flips([ANLS], base, new)
    assert flips.graded
    assert ids(flips) == (["s2", "s0"], ["s3", "s4"]), "unchanged and unanswered samples are no change"
    assert (flips.right_to_wrong[0].before, flips.right_to_wrong[0].after) == (1.0, 0.0)
    document = flips.to_json(["kind"])
    assert [one["id"] for one in document["largest_drops"]] == ["s2", "s0"]
    assert [one["id"] for one in document["largest_gains"]] == ["s3", "s4"]
    assert document["by_tag"] == {
        "kind": {
            "even": {"largest_drops": 2, "largest_gains": 1},
            "odd": {"largest_drops": 0, "largest_gains": 1},
        }
    }


def test_a_smaller_error_is_a_gain() -> None:
    base, new = records([1.0, 2.0, 3.0], "error"), records([0.5, 4.0, 3.5], "error")
    assert ids(find_flips([ERROR], base, new)) == (["s1", "s2"], ["s0"])


def test_only_the_twenty_largest_of_each_are_listed() -> None:
    base, new = records([0.5] * 60), records([place / 60 for place in range(60)])
    lost, won = ids(find_flips([ANLS], base, new))
    assert lost == [f"s{place}" for place in range(20)]
    assert won == [f"s{place}" for place in range(59, 39, -1)]


def test_a_metric_of_the_whole_corpus_is_passed_over() -> None:
    """A macro mean has no outcome of a single sample; the next metric that has one is shown."""
    average = macro_mean("average", [ANLS, ERROR])
    base, new = records([1.0, 0.0]), records([0.0, 1.0])
    assert ids(find_flips([average, ANLS], base, new)) == (["s0"], ["s1"])
    assert find_flips([average], base, new) == Flips(True, (), ())


def test_a_binary_metric_comes_before_graded_ones_and_a_sample_counts_once() -> None:
    right = Accuracy("accuracy")
    loose = Accuracy("loose")
    base = records([0.1, 0.9, 0.5], accuracy=[1.0, 0.0, 1.0], loose=[1.0, 0.0, 0.0])
    new = records([0.9, 0.1, 0.5], accuracy=[0.0, 1.0, 1.0], loose=[0.0, 1.0, 1.0])
    flips = find_flips([ANLS, right, loose], base, new)
    assert not flips.graded
    assert ids(flips) == (["s0"], ["s1", "s2"])
    assert [flip.metric for flip in flips.wrong_to_right] == ["accuracy", "loose"]


@pytest.mark.parametrize(
    ("metric", "bounds"),
    [
        (Mean("x"), (0.0, 100.0)),
        (Mean("x", unit="fraction", scale=1.0), (0.0, 1.0)),
        (Mean("x", unit="m/s", scale=1.0), (-math.inf, math.inf)),
        (RootMeanSquare("x", "x", unit="degrees"), (0.0, math.inf)),
        (Mean("x", bounds=(0.0, 1000.0)), (0.0, 1000.0)),
    ],
)
def test_bounds_follow_the_unit_unless_given(metric: Metric, bounds: tuple[float, float]) -> None:
    assert metric.bounds == bounds


def test_an_unbounded_error_has_a_detectable_drop() -> None:
    """No value is out of reach for it, and no least number of flips either."""
    rng = np.random.default_rng(0)
    base = records(list(rng.normal(5, 1, 200)), "error")
    new = records(list(rng.normal(5, 1, 200)), "error")
    found = difference(ERROR, base, new, Resampler(0, 500))
    detectable = found.detectable(0.05)
    # 2.8 standard errors of the mean of 200 differences of variance 2
    assert detectable == pytest.approx(2.8 * math.sqrt(2 / 200), rel=0.1)
    assert found.se is not None and found.se == pytest.approx(math.sqrt(2 / 200), rel=0.1)


def test_a_detectable_drop_counts_the_changes_that_the_drop_brings() -> None:
    """A drop of a bounded score may come as whole answers lost, however little the scores moved so far."""
    base = records([0.5] * 100)
    new = records([0.5] * 99 + [0.501])
    graded = difference(Mean("anls"), base, new, Resampler(0, 500)).detectable(0.05)
    assert graded is not None and graded == pytest.approx(7.5, abs=0.5), "x^2 = 2.8^2 x (100 - x) / 100"
    share = difference(
        Accuracy("accuracy", "anls"), records([1.0] * 100), records([1.0] * 99 + [0.0]), Resampler(0, 500)
    ).detectable(0.05)
    assert share is not None and share >= 6.0, "ceil(1 + log2(20)) flips of 100 samples"


class Fraction(Toy):
    """Figures between 0 and 1, as DriveLM's."""

    name = "toy"

    def metrics(self) -> Sequence[Metric]:
        return [Mean("accuracy", unit="fraction", scale=1.0)]


def test_suites_are_compared_in_points_whatever_the_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fraction counts a hundred times; the interval is 1.96 standard errors of the mean over tasks."""
    from evalkit import registry

    def forgetting(domain: Toy, runs: Path) -> list[dict[str, object]]:
        for model, share in (("base", 0.3), ("new", 0.7)):
            write_run(runs, model, Answers(outcomes(share, seed=1)), task=domain)
            write_run(runs, model, Answers(outcomes(share, seed=2)), task=General())
        assert invoke(["compare", "base", "new", "-o", str(runs), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        found: list[dict[str, object]] = document["forgetting"]
        rows = {row["task"]: row for row in document["metrics"] if row["metric"] == "accuracy"}
        for change, task in zip(found, ("toy-general", "toy"), strict=True):
            scale = 100.0 if rows[task]["unit"] == "fraction" else 1.0
            assert change["change"] == pytest.approx(scale * rows[task]["difference"])
            low, high = change["ci95"]  # type: ignore[misc]
            own = [scale * end for end in rows[task]["ci95"]]
            # normal and bootstrap intervals of 500 answers agree
            assert [low, high] == pytest.approx(own, abs=0.7)
        return found

    percent = forgetting(Toy(), tmp_path / "percent")
    monkeypatch.setattr(registry, "_included", {task.name: task for task in (Fraction, General)})
    fraction = forgetting(Fraction(), tmp_path / "fraction")
    assert fraction[1]["change"] == pytest.approx(percent[1]["change"])
    assert fraction[1]["ci95"] == pytest.approx(percent[1]["ci95"])


def circular(*rows: tuple[int, float, float]) -> tuple[list[Record], list[Record]]:
    """Both sides' records of rotations: index, and whether it is right on each side."""
    indices = [index for index, _, _ in rows]
    sides = []
    for side in (1, 2):
        choices = ["A" if row[side] else "B" for row in rows]
        scores = score_rotations(
            [Rotation(i, choice, "A") for i, choice in zip(indices, choices, strict=True)]
        )
        sides.append(
            [
                Record(str(i), str(i % ROTATION), choice, choice, "A", score.scores)
                for i, choice, score in zip(indices, choices, scores, strict=True)
            ]
        )
    return sides[0], sides[1]


def test_a_circular_question_shows_the_rotation_that_changed() -> None:
    """The base row has the same answer twice; what changed is one of its rotations."""
    base, new = circular((7, 1, 1), (1000007, 1, 1), (2000007, 1, 0), (8, 1, 1), (1000008, 0, 1))
    flips = find_flips(circular_metrics(), base, new)
    (lost,), (won,) = flips.right_to_wrong, flips.wrong_to_right
    assert (lost.base.id, *(record.id for record in lost.answers)) == ("7", "2000007", "2000007")
    assert [record.text for record in lost.answers] == ["A", "B"]
    assert [record.text for record in won.answers] == ["B", "A"] and won.answers[0].id == "1000008"
    (document,) = flips.to_json([])["right_to_wrong"]
    assert (document["id"], document["base"], document["new"]) == ("7", "A", "B")
    assert document["rotations"] == [{"id": "2000007", "base": "A", "new": "B", "target": "A"}]
    assert flip_cells(lost)[0] == "7 (rotation 2000007)"


def test_a_rotation_that_only_one_side_answered_is_not_passed_off_as_the_base_row() -> None:
    base, new = circular((7, 1, 1), (1000007, 1, 0))
    (lost,) = find_flips(circular_metrics(), base[:1], new[:1]).right_to_wrong
    assert lost.hidden and not lost.rotations
    assert flip_cells(lost)[0] == "7 (a rotation unanswered)"
