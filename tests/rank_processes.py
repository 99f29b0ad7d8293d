"""Commands of the toy benchmark as several processes, as launchers start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress

from engine_runs import Ground, until
from puppet import install, write_wishes

from evalkit.engines.heartbeat import PLACE, STATUS_NAME


class Ranks:
    """Commands of the toy benchmark as several processes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.wishes = ground.folder / "wishes.json"
        self.environment = {**os.environ, "PYTHONPATH": install(ground.folder / "plugin")}
        self.processes: list[subprocess.Popen[str]] = []
        self.command = ["-m", "evalkit", "run", "-m", f"puppet:{self.wishes}", "-t", "yes-no", "--json"]
        self.command += ["--include", str(ground.task), "--data-root", str(ground.folder / "data")]
        self.command += ["-o", str(ground.folder / "runs")]

    def wish(self, **wishes: str) -> None:
        """What the model does from now on."""
        write_wishes(self.wishes, **wishes)

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """A process."""
        self.processes.append(
            subprocess.Popen(
                [sys.executable, *command],
                env={**self.environment, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self.processes[-1]

    def by_srun(self, world: int) -> list[subprocess.Popen[str]]:
        """As srun starts them: nobody looks after the others."""
        return [
            self.start(*self.command, SLURM_PROCID=str(number), SLURM_NTASKS=str(world))
            for number in range(world)
        ]

    def by_torchrun(self, world: int, restarts: int) -> subprocess.Popen[str]:
        """torchrun, which starts all of them again when one dies."""
        fixed = ["--standalone", "--nproc-per-node", str(world), "--max-restarts", str(restarts)]
        return self.start("-m", "torch.distributed.run", *fixed, *self.command)

    def victim(self, number: int) -> int:
        """The process of a rank that has given answers and has more to give."""
        found: list[int] = []

        def look() -> bool:
            with suppress(OSError, ValueError):  # folders and files come and go
                for path in self._ground.folder.rglob(f"{PLACE}/{number}-*/{STATUS_NAME}"):
                    status = json.loads(path.read_text())
                    if 0 < status["done"] < status["share"]:
                        found.append(status["process"])
            return bool(found)

        until(look)
        return found[0]
