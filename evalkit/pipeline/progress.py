"""Progress of a run: a bar on a terminal, a live table in a notebook, otherwise a line every ten seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evalkit.contracts import Response
from evalkit.environment import peak_memory
from evalkit.notebook import LiveTable, in_notebook

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

_COLUMNS = ("run", "samples", "samples/s", "tokens, memory, errors", "left")
#: Seconds between two lines where there is no terminal.
INTERVAL = 10.0


class Progress:
    """Counts responses and shows them; `quiet` only counts. `more` adds to the line.

    Attributes:
        done: responses of this session. kept: those found in the run folder. tokens: new ones generated.
    """

    def __init__(
        self, title: str, total: int, kept: int, quiet: bool, more: Callable[[], str] | None = None
    ) -> None:
        self.total = total
        self.kept = kept
        self.done = 0
        self.errors = 0
        self.tokens = 0
        self.started = self._shown = time.monotonic()
        self._title = title
        self._more = more
        self._quiet = quiet or not log.isEnabledFor(logging.INFO)
        self._bar: tqdm[Any] | None = None
        self._table = LiveTable(_COLUMNS) if not quiet and in_notebook() else None
        if self._table is None and not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=kept, desc=title, unit="sample", dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Since the start of this session."""
        return time.monotonic() - self.started

    def add(self, response: Response) -> None:
        """Count one response and show it when it is time to."""
        self.done += 1
        self.errors += response.error is not None
        self.tokens += response.new_tokens
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update()
            if now - self._shown >= 1.0:
                self._shown = now
                self._bar.set_postfix_str(self._rates())
        elif self._table is not None:
            if now - self._shown >= 0.5:
                self._shown = now
                self._table.show(self._row())
        elif not self._quiet and now - self._shown >= INTERVAL:
            self._shown = now
            log.info("%s", self.line())

    def line(self) -> str:
        """Samples done and in all, speed, time left, peak memory."""
        speed = self.done / max(self.seconds, 1e-9)
        finished = self.kept + self.done
        left = (self.total - finished) / speed if speed else 0.0
        return (
            f"{self._title}: {finished}/{self.total} samples, {speed:.3g} samples/s, {self._rates()}, "
            f"{clock(left)} left"
        )

    def _row(self) -> list[str]:
        """`line` in columns."""
        speed = self.done / max(self.seconds, 1e-9)
        finished = self.kept + self.done
        left = clock((self.total - finished) / speed) if speed else ""
        return [self._title, f"{finished}/{self.total}", f"{speed:.3g}", self._rates(), left]

    def close(self) -> None:
        """End the bar, or print the last line."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._rates())
            self._bar.close()
        elif self._table is not None:
            self._table.show(self._row())
        elif not self._quiet and self.done:
            log.info("%s", self.line())

    def throughput(self) -> dict[str, float | int]:
        """Counts and rates for the manifest."""
        seconds = self.seconds
        return {
            "samples": self.done,
            "seconds": seconds,
            "samples_per_second": self.done / seconds if seconds else 0.0,
            "new_tokens": self.tokens,
            "new_tokens_per_second": self.tokens / seconds if seconds else 0.0,
        }

    def _rates(self) -> str:
        parts = [f"{self.tokens / max(self.seconds, 1e-9):.3g} tokens/s"]
        parts += [f"peak {name.split('_')[0]} {size / 2**30:.2f} GiB" for name, size in peak_memory().items()]
        if self.errors:
            parts.append(f"{self.errors} errors")
        if self._more is not None and (more := self._more()):
            parts.append(more)
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """`4:05` or `1:02:03`."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
