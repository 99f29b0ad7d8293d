"""A sweep as one SVG image: a panel a task, a mark with its 95% interval a point, small marks for seeds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mini_internvl_train.sweep_scores import PointScore, TaskScores

WIDTH, HEIGHT = 560, 300
"""Of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 74
TICKS = 5
INK, FAINT, MARK = "#333333", "#d9d9d9", "#1f5fa8"


def draw(scores: Sequence[TaskScores], labels: Sequence[str]) -> str:
    """The image.

    Args:
        scores: of the tasks. labels: of all points, in their order; one without a value has no mark.
    """
    panels = [_panel(task, labels, place * HEIGHT) for place, task in enumerate(scores)]
    height = HEIGHT * len(scores)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" fill="{INK}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n{"".join(panels)}</svg>\n'
    )


def _panel(task: TaskScores, labels: Sequence[str], above: int) -> str:
    known = {point.label: point for point in task.points if point.value is not None}
    low, high = _range(list(known.values()))

    def y(value: float) -> float:
        return above + HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    step = (WIDTH - LEFT - RIGHT) / len(labels)
    places = {label: LEFT + step * (place + 0.5) for place, label in enumerate(labels)}
    title = escape(f"{task.key}: {task.metric} ({task.unit}), n = {task.n}")
    lines = [_text(LEFT, above + 20, title, weight="bold")]
    for tick in range(TICKS):
        value = low + (high - low) * tick / (TICKS - 1)
        lines.append(_line(LEFT, y(value), WIDTH - RIGHT, y(value), FAINT))
        lines.append(_text(LEFT - 6, y(value) + 4, f"{value:.3g}", anchor="end"))
    for label, x in places.items():
        lines.append(_text(x, above + HEIGHT - BOTTOM + 16, escape(label), anchor="end", turned=True))
    for label, point in known.items():
        x = places[label]
        if point.ci95 is not None:
            lines.append(_line(x, y(point.ci95[0]), x, y(point.ci95[1]), MARK))
            lines += [_line(x - 5, y(end), x + 5, y(end), MARK) for end in point.ci95]
        lines += [_dot(x + 9, y(run), 2) for run in point.runs if run is not None and len(point.runs) > 1]
        lines.append(_dot(x, y(point.value or 0.0), 4))
    return "".join(lines)


def _range(points: Sequence[PointScore]) -> tuple[float, float]:
    """Least and most of all values and ends of intervals, with some room."""
    values = [value for point in points for value in (point.value, *point.runs, *(point.ci95 or ()))]
    known = [value for value in values if value is not None] or [0.0]
    room = 0.05 * (max(known) - min(known)) or 1.0
    return min(known) - room, max(known) + room


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>\n'


def _dot(x: float, y: float, radius: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{MARK}"/>\n'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", turned: bool = False
) -> str:
    turn = f' transform="rotate(-25 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"{turn}>{text}</text>\n'
    )
