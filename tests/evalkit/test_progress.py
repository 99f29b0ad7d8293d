"""Counts, rates and time left of a run, on a terminal, in a log and in the manifest."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from evalkit.contracts import Failure, Response
from evalkit.pipeline import progress
from evalkit.pipeline.progress import Progress, clock


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        """As of `time`."""
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    monkeypatch.setattr(progress, "peak_memory", lambda: {"host_bytes": 3 * 2**29})
    return found


RATES = "6 tokens/s, peak host 1.50 GiB, 1 errors, busy"


def test_a_line_every_ten_seconds_and_at_the_end(time: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shown = Progress("toy test", 50, 10, quiet=False, more=lambda: "busy")
    shown.close()
    assert not caplog.messages  # nothing was answered
    lines = []
    for number in range(8):
        time.now += 2.5
        shown.add(Response("a", new_tokens=15, error=Failure("image", "") if number == 2 else None))
        lines.append(len(caplog.messages))
    assert lines == [0, 0, 0, 1, 1, 1, 1, 2]
    line = f"toy test: 18/50 samples, 0.4 samples/s, {RATES}, 1:20 left"
    assert shown.line() == caplog.messages[-1] == line
    shown.close()
    assert caplog.messages[2:] == [line]
    assert shown.throughput() == {
        "samples": 8,
        "seconds": 20.0,
        "samples_per_second": 0.4,
        "new_tokens": 120,
        "new_tokens_per_second": 6.0,
    }


def test_quiet_only_counts(time: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shown = Progress("toy", 5, 0, quiet=True)
    time.now += 60
    shown.add(Response("a"))
    shown.close()
    assert not caplog.messages and shown.done == 1
    assert Progress("toy", 5, 0, quiet=True).throughput()["samples_per_second"] == 0.0


def test_a_bar_on_a_terminal(
    time: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    shown = Progress("toy test", 4, 1, quiet=False)
    for _ in range(3):
        time.now += 20
        shown.add(Response("a", new_tokens=3))
    shown.close()
    assert "toy test: 100%" in screen.getvalue() and "4/4" in screen.getvalue()
    assert "0.15 tokens/s, peak host 1.50 GiB" in screen.getvalue() and not caplog.messages


def test_a_row_in_a_notebook(time: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[str]] = []

    class Table:
        def __init__(self, columns: tuple[str, ...]) -> None:
            rows.append(list(columns))

        def show(self, row: list[str]) -> None:
            rows.append(row)

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "LiveTable", Table)
    shown = Progress("toy", 8, 2, quiet=False)
    for step in (0.25, 0.25, 0.25, 0.25):
        time.now += step
        shown.add(Response("a", new_tokens=1))
    shown.close()
    assert [row[:3] for row in rows[1:]] == [["toy", "4/8", "4"], ["toy", "6/8", "4"], ["toy", "6/8", "4"]]
    assert rows[-1][3:] == ["4 tokens/s, peak host 1.50 GiB", "0:00"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0:00"),
        (59.9, "0:59"),
        (60, "1:00"),
        (245, "4:05"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (3723, "1:02:03"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
