"""Driving control signals in answers: speed in m/s and turning angle in degrees (BDD-X).

The benchmark has no official parser. Here a signal is the first number anywhere in the answer, or, where one
answer holds both signals, the number after its own label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, RootMeanSquare

Signal = Literal["speed", "angle"]

#: A sign, then digits with or without decimals, or a bare `.digits`.
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)")

_LABELS = {
    "speed": r"speed",
    "angle": r"(?:turning|steering)\s+angle|angle|course",
    "curvature": r"curvature",
    "acceleration": r"acceleration",
}
_ANY_LABEL = re.compile(
    r"\b(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _LABELS.items()) + r")\b", re.IGNORECASE
)
_MARKED = {name: re.compile(rf"\b(?:{words})\s*[:=]", re.IGNORECASE) for name, words in _LABELS.items()}

#: Beyond this the square of an error is not finite.
LARGEST = 1e150

#: Thresholds of the published accuracies A_tau (strict).
TAUS = (0.1, 0.5, 1.0, 5.0)


def first_number(text: str) -> float | None:
    """The first number in a text; None where there is none or it is too large to square.

    `3.3.3` is 3.3; in `- 1.5` the sign stands apart and is not the number's.
    """
    found = NUMBER.search(text)
    if found is None:
        return None
    value = float(found.group())
    return value if abs(value) < LARGEST else None


def labelled_number(text: str, signal: Signal | Literal["curvature"]) -> float | None:
    """The first number between a signal's own label and the next label (`Speed: 1.42 Course: -3.2`)."""
    labels = _ANY_LABEL.finditer(text)
    for label in labels:
        if label.lastgroup == signal:
            following = next(labels, None)
            return first_number(text[label.end() : following.start() if following else len(text)])
    return None


def read_signal(text: str, signal: Signal, *, both: bool = False) -> float | None:
    """One signal of an answer.

    Args:
        both: the question asked for both signals, so the number must follow its own label. An answer to a
            question for one signal is read that way too where it marks both (`Speed: ... Course: ...`).
    """
    if both or (_MARKED["speed"].search(text) and _MARKED["angle"].search(text)):
        return labelled_number(text, signal)
    return first_number(text)


def gives_curvature(text: str) -> bool:
    """Whether a text labels its second signal Curvature, which is not a turning angle."""
    return _MARKED["curvature"].search(text) is not None and _MARKED["angle"].search(text) is None


def threshold_scores(signal: Signal, predicted: float | None, target: float) -> dict[str, float]:
    """`<signal>_a_<tau>` 0/1 for |target - predicted| strictly below tau, and `<signal>_error` where parsed.

    An unparsable answer misses every threshold and has no error.
    """
    if predicted is None:
        return {f"{signal}_a_{tau}": 0.0 for tau in TAUS}
    error = abs(target - predicted)
    return {**{f"{signal}_a_{tau}": float(error < tau) for tau in TAUS}, f"{signal}_error": error}


#: `Record.data` key of a sample whose second signal is a curvature.
CURVATURE = "curvature"


class ThresholdAccuracy(Accuracy):
    """A_tau of one signal, in percent of all answered questions for it."""

    def __init__(self, signal: Signal, tau: float) -> None:
        super().__init__(f"{signal}_a_{tau}")
        self._signal = signal

    def reason(self, records: Sequence[Record]) -> str | None:
        """Also says where the data give a curvature in place of the angle."""
        return _missing(self, self._signal, records) or super().reason(records)


class SignalRmse(RootMeanSquare):
    """Root mean squared error of one signal over the answers that hold a number."""

    def __init__(self, signal: Signal) -> None:
        unit = "m/s" if signal == "speed" else "degrees"
        super().__init__(f"{signal}_rmse", f"{signal}_error", unit=unit)
        self._signal = signal

    def reason(self, records: Sequence[Record]) -> str | None:
        """Also says where the data give a curvature, or no answer holds a number."""
        if (why := _missing(self, self._signal, records)) is not None:
            return why
        asked = any(f"{self._signal}_a_{TAUS[0]}" in record.scores for record in records)
        why = super().reason(records)
        return "no answer holds a readable number" if why is not None and asked else why


def _missing(metric: Accuracy | RootMeanSquare, signal: Signal, records: Sequence[Record]) -> str | None:
    if signal != "angle" or metric.selected(records).any():
        return None
    if any(record.data.get(CURVATURE) for record in records):
        return "the data label the second signal Curvature, which gives no turning angle"
    return None
