"""The image of a sweep: marks stand where their values are."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest

from evalkit.comparison.runs import Key
from mini_internvl_train import sweep_plot
from mini_internvl_train.sweep_scores import PointScore, TaskScores

SVG = "{http://www.w3.org/2000/svg}"


def scores(task: str, *points: PointScore) -> TaskScores:
    return TaskScores(Key(task, "test"), "accuracy", "%", True, 20, 10, points)


def drawn(*tasks: TaskScores, labels: tuple[str, ...]) -> Element:
    return fromstring(sweep_plot.draw(tasks, labels))


def dots(image: Element, radius: int) -> list[tuple[float, float]]:
    found = [dot for dot in image.iter(f"{SVG}circle") if dot.get("r") == str(radius)]
    return [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in found]


def whiskers(image: Element) -> list[tuple[float, float]]:
    """Both ends of each upright line, the lower value first."""
    lines = [line for line in image.iter(f"{SVG}line") if line.get("x1") == line.get("x2")]
    return [(float(line.get("y1", "")), float(line.get("y2", ""))) for line in lines]


def test_marks_stand_where_their_values_are() -> None:
    labels = ("0", "0.5", "1")
    one = PointScore("0", 20.0, (10.0, 30.0), (20.0,))
    seeds = PointScore("1", 60.0, (50.0, 70.0), (55.0, None, 65.0))
    image = drawn(scores("t", one, PointScore("0.5", None, None, (None,)), seeds), labels=labels)
    (first, low), (second, high) = dots(image, 4)
    assert first < second and low > high
    each = dots(image, 2)  # of the seeds that have a value; a single training has none beside its mark
    assert [x for x, _ in each] == [second + 9] * 2 and each[0][1] > high > each[1][1]
    scale = (low - high) / 40
    assert [y for _, y in each] == pytest.approx([high + 5 * scale, high - 5 * scale], abs=0.11)
    ends = [y for pair in whiskers(image) for y in pair]
    wanted = [low + 10 * scale, low - 10 * scale, high + 10 * scale, high - 10 * scale]
    assert ends == pytest.approx(wanted, abs=0.11)
    assert min(ends) >= sweep_plot.TOP and max(ends) <= sweep_plot.HEIGHT - sweep_plot.BOTTOM
    assert first > sweep_plot.LEFT and second < sweep_plot.WIDTH - sweep_plot.RIGHT
    texts = [text.text for text in image.iter(f"{SVG}text")]
    assert texts[0] == "t@test: accuracy (%), n = 20" and texts[-3:] == list(labels)
    ticks = [float(text or "nan") for text in texts[1:-3]]
    assert len(ticks) == sweep_plot.TICKS and ticks == sorted(ticks)
    assert ticks[0] == 7.0 and ticks[-1] == 73.0  # ends of intervals, and a twentieth more


def test_panels_lie_below_each_other_and_names_are_only_text() -> None:
    point = PointScore("<b>", 5.0, None, (5.0,))
    image = drawn(scores("one", point), scores("two", point), labels=("<b>",))
    (x, y), below = dots(image, 4)
    assert below == (x, y + sweep_plot.HEIGHT)
    assert image.get("height") == str(2 * sweep_plot.HEIGHT)
    assert not whiskers(image)
    assert [text.text for text in image.iter(f"{SVG}text")].count("<b>") == 2
