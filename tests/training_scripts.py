"""Scripts of trainings in processes of their own, as launchers start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
#: Child processes import what this process imports, whichever checkout is installed.
SOURCES = [str(REPOSITORY / name) for name in ("tests", ".", "tasks", "models", "train", "leaderboard_app")]


def run_script(script: str, folder: Path, launcher: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(script)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*SOURCES, os.environ.get("PYTHONPATH", "")]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(
        [sys.executable, *launcher, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
