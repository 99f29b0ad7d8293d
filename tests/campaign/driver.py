"""Runs the campaign: batches of tries in processes of their own, a table of what came of them.

A try is named by the seed, the row and its number, and can be repeated alone. Results are kept in a file
after every batch, so that a campaign that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
KINDS = ("held", "lost", "silent", "raw", "hang")
#: Failures of a row that are kept in full.
_SHOWN = 20
#: Seconds that a row's undisturbed inputs may take to make on a busy machine.
_SETUP = 900.0


@dataclass
class Row:
    """What came of one kind of tries.

    Attributes:
        next: number of the next try. counts: by verdict. failures: number and words of the first ones.
    """

    next: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    failures: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tries(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def add(self, number: int, kind: str, note: str, count: int = 1) -> None:
        """Counts a verdict; keeps its words where something is wrong."""
        self.counts[kind] += count if kind == "held" else 1
        self.next = max(self.next, number + 1)
        if kind != "held" and len(self.failures) < _SHOWN:
            self.failures.append([number, kind, note[:600]])


def trials() -> dict[str, Callable[[Path], Any]]:
    """Every row's trial by its name."""
    from campaign import catalogue

    return {trial.name: trial for trial in catalogue.TRIALS}


# In the child -------------------------------------------------------------------------------------------


def work(name: str, seed: int, first: int, seconds: float, most: int) -> None:
    """Tries of one row, a line of JSON each; what a batch held is told in one line from time to time."""
    from campaign.trial import attempt

    out = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    if not os.environ.get("CAMPAIGN_LOUD"):
        os.dup2(quiet, 2)
    with TemporaryDirectory(prefix="campaign-") as folder:
        os.environ["EVALKIT_CACHE"] = str(Path(folder) / "cache")
        (Path(folder) / "trial").mkdir()
        trial = trials()[name](Path(folder) / "trial")
        print(json.dumps({"ready": True}), file=out)
        end = time.monotonic() + seconds
        try:
            for number in range(first, first + most):
                if time.monotonic() > end:
                    break
                print(json.dumps({"at": number}), file=out)
                verdict = attempt(trial, random.Random(f"{seed}/{name}/{number}"))
                print(
                    json.dumps(
                        {"done": number, "kind": verdict.kind, "note": verdict.note, "count": verdict.count}
                    ),
                    file=out,
                )
        finally:
            trial.close()


# In the parent ------------------------------------------------------------------------------------------


class Campaign:
    """All rows, and the file that keeps them."""

    def __init__(self, seed: int, path: Path | None) -> None:
        self.seed = seed
        self.path = path
        self.rows: dict[str, Row] = {}
        if path is not None and path.is_file():
            content = json.loads(path.read_text())
            if content["seed"] != seed:
                sys.exit(f"{path}: of seed {content['seed']}; give another --state")
            self.rows = {name: Row(**row) for name, row in content["rows"].items()}

    def batch(self, name: str, seconds: float, most: int, limit: float) -> None:
        """Tries of one row for so many seconds. A process that dies or hangs costs the try it was at."""
        row = self.rows.setdefault(name, Row())
        began = time.monotonic()
        command = [sys.executable, str(HERE), "--work", name, "--seed", str(self.seed)]
        command += ["--from", str(row.next), "--seconds", str(seconds), "--tries", str(most)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        at, ready, patience = row.next, False, 60 + limit * 3
        watch = _Watch(process, _SETUP)
        for line in process.stdout:
            said = json.loads(line)
            ready = ready or "ready" in said
            watch.heard(patience)
            if "at" in said:
                at = said["at"]
            elif "done" in said:
                row.add(said["done"], said["kind"], said["note"], said["count"])
        status = process.wait()
        watch.cancel()
        if status:
            if not ready:
                row.add(at, "raw", f"the trial cannot be set up (exit {status}); CAMPAIGN_LOUD=1 shows why")
            elif watch.fired:
                row.add(at, "hang", f"no end in {patience:.0f} s, and no signal helped")
            else:
                row.add(at, "raw", f"the process died with {status}")
        row.seconds += time.monotonic() - began
        self.save()

    def save(self) -> None:
        """Writes the file whole."""
        if self.path is None:
            return
        content = {"seed": self.seed, "rows": {name: vars(row) for name, row in self.rows.items()}}
        scratch = self.path.with_suffix(".new")
        scratch.write_text(json.dumps(content, indent=1, ensure_ascii=True))
        scratch.replace(self.path)

    def table(self) -> str:
        """What | tries | held | lost or silent | raw, and the failures below."""
        lines = ["| what | tries | held | lost or silent | raw or hung |", "|---|---|---|---|---|"]
        total = dict.fromkeys(KINDS, 0)
        for name in sorted(self.rows):
            counts = self.rows[name].counts
            for kind in KINDS:
                total[kind] += counts[kind]
            lines.append(_line(name, counts))
        lines.append(_line("all", total))
        return "\n".join(lines)

    def failures(self) -> list[str]:
        """A line for each failure kept, with the command that repeats it."""
        return [
            f"{kind}: {name}, try {number}: {note}\n"
            f"  again: tests/campaign --seed {self.seed} --only {name!r} --from {number} --tries 1"
            for name, row in sorted(self.rows.items())
            for number, kind, note in row.failures
        ]

    @property
    def held(self) -> bool:
        """Whether nothing was lost, silent, raw or hanging."""
        return all(row.counts["held"] == row.tries for row in self.rows.values())


def _line(name: str, counts: dict[str, int]) -> str:
    wrong = counts["lost"] + counts["silent"]
    raw = counts["raw"] + counts["hang"]
    return f"| {name} | {sum(counts.values()):,} | {counts['held']:,} | {wrong:,} | {raw:,} |"


class _Watch:
    """Kills a process and its children where it says nothing for too long."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.fired = False
        self._process = process
        self._seconds = seconds
        self._heard = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def heard(self, seconds: float) -> None:
        """It has said something; what comes next may take so long."""
        self._seconds = seconds
        self._heard = time.monotonic()

    def cancel(self) -> None:
        """The process ended by itself."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            if time.monotonic() - self._heard > self._seconds:
                self.fired = True
                os.killpg(self._process.pid, signal.SIGKILL)
                return


def run(campaign: Campaign, names: Sequence[str], minutes: float, most: int | None, quiet: bool) -> None:
    """Rounds of batches until the time is up; what is behind its share of the time comes first."""
    known = trials()
    end = time.monotonic() + minutes * 60
    length = max(2.0, min(120.0, minutes * 60 / (3 * len(names))))
    while (left := end - time.monotonic()) > 1:
        name = min(names, key=lambda each: _spent(campaign, each) / known[each].share)
        before = campaign.rows.get(name, Row()).tries
        cap = 10**9 if most is None else most - before
        if cap <= 0:
            names = [each for each in names if each != name]
            if not names:
                break
            continue
        campaign.batch(name, min(left, length), cap, known[name].seconds)
        row = campaign.rows[name]
        if not quiet:
            wrong = row.tries - row.counts["held"]
            print(f"{name}: {row.tries:,} tries{f', {wrong} WRONG' if wrong else ''}", flush=True)


def _spent(campaign: Campaign, name: str) -> float:
    return campaign.rows[name].seconds if name in campaign.rows else 0.0


def main() -> int:
    """Command line; the exit status is 1 where anything was lost, silent, raw or hanging."""
    parser = argparse.ArgumentParser(description=__doc__, prog="tests/campaign")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, help="file to keep results in and go on from")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WHAT", help="rows whose names begin so"
    )
    parser.add_argument("--tries", type=int, help="at most so many of each row")
    parser.add_argument("--from", type=int, dest="first", default=0, help="number of the first try")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--quiet", action="store_true", help="print the table alone")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=1e9, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed, given.first, given.seconds, given.tries or 10**9)
        return 0
    known = list(trials())
    names = [name for name in known if not given.only or name.startswith(tuple(given.only))]
    if given.list or not names:
        print("\n".join(known))
        return 0 if names else 2
    campaign = Campaign(given.seed, given.state)
    for name in names:
        if given.first and name not in campaign.rows:
            campaign.rows[name] = Row(next=given.first)
    try:
        run(campaign, names, given.minutes, given.tries, given.quiet)
    except KeyboardInterrupt:
        print("stopped; with --state the same command goes on")
    print(f"\n{campaign.table()}\n")
    for line in campaign.failures():
        print(line)
    return 0 if campaign.held else 1
