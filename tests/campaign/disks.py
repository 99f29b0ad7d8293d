"""Full disks: a quota, or a small file system where root may mount one; what was stored is kept."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from campaign.kills import RunKills
from campaign.processes import Child
from campaign.trial import Trial, Verdict


class _FullDisk(RunKills):
    """A run that meets the end of the disk somewhere, then room, then goes on."""

    seconds = 120.0

    def narrowed(self, rng: random.Random) -> Child:
        """The command where there is little room."""
        raise NotImplementedError

    def widened(self) -> None:
        """Room again."""

    def once(self, rng: random.Random) -> Verdict:
        """Little room, then enough."""
        self.begin()
        try:
            first = self.narrowed(rng)
            status = first.wait()
            if status not in (0, 3):
                first.end()
                return Verdict("raw", f"a full disk ended with {status}: {first.text[-300:]}")
            if status == 3 and ("Traceback" in first.text or "an error in evalkit" in first.text):
                return Verdict("raw", first.text[-400:])
            if (missing := self.lost()) is not None:
                return Verdict("lost", missing)
            self.widened()
            last = self.start()
            if (status := last.wait()) != 0:
                last.end()
                return Verdict("lost", f"with room again it ends with {status}: {last.text[-300:]}")
            if self.result() != self.expected:
                return Verdict("lost", "another result than with enough room")
            return Verdict()
        finally:
            self.ended()

    def ended(self) -> None:
        """After a try."""


class Quota(_FullDisk):
    """No file may grow beyond a random size."""

    name = "full disk: quota"

    def narrowed(self, rng: random.Random) -> Child:
        size = rng.randrange(0, 24_000)
        work = self.work()

        def limited() -> int:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return work()

        told = self.folder / "told.txt"
        return Child(limited, told)


class SmallFileSystem(_FullDisk):
    """A file system of a random size. Where nobody may mount one, it is a quota."""

    name = "full disk: file system"

    def prepare(self) -> None:
        super().prepare()
        self.runs = self.folder / "small" / "runs"

    def narrowed(self, rng: random.Random) -> Child:
        place = self.runs.parent
        place.mkdir(exist_ok=True)
        size = rng.randrange(8, 120)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        return self.start() if self.mounted else Quota.narrowed(self, rng)  # type: ignore[arg-type]

    def widened(self) -> None:
        if self.mounted:
            again = ["mount", "-o", "remount,size=16m", str(self.runs.parent)]
            subprocess.run(again, check=True, capture_output=True)

    def ended(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.runs.parent)], check=True, capture_output=True)
        shutil.rmtree(self.runs.parent, ignore_errors=True)


TRIALS: tuple[Callable[[Path], Trial], ...] = (Quota, SmallFileSystem)
