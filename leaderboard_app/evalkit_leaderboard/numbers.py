"""Values as people read them."""

from __future__ import annotations

from evalkit.text import value_text

#: The unit of a count of points, whole unless samples are missing.
_POINTS = "score"
#: No value of ours is as large; its digits would fill the page.
_ABSURD = 1e7


def shown(value: float | None, unit: str = "") -> str:
    """A value, or a dash."""
    if value is None:
        return "–"
    if abs(value) >= _ABSURD:
        return f"{value:.3g}"
    return f"{value:.0f}" if unit == _POINTS and value == round(value) else value_text(value, unit)


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """`[40.12, 51.30]`, or an empty string."""
    return "" if low is None or high is None else f"[{shown(low, unit)}, {shown(high, unit)}]"


def signed(value: float | None, unit: str = "") -> str:
    """A difference with its sign."""
    if value is None:
        return "–"
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{shown(abs(value), unit)}"


def magnitude(count: float | None) -> str:
    """`2.81M`, `76B`."""
    if not count:
        return ""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= 0.9995 * size:  # 999,999 is 1M in three digits
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def memory(count: int | None) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:.2f} GiB" if count else ""
