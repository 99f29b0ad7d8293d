"""`benchmarks/gpu.py` as a dry run: rows are kept part by part, and a second call measures nothing again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


def run(out: Path, *parts: str, minutes: str = "4") -> tuple[int, str, dict[str, Any]]:
    command = [sys.executable, str(PROGRAM), "--dry-run", "--out", str(out), "--minutes", minutes]
    done = subprocess.run(
        [*command, *(word for part in parts for word in ("--part", part))], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.slow
def test_parts_are_kept_and_not_measured_twice(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    status, text, first = run(out, "feeding")
    assert status == 0 and list(first["parts"]) == ["feeding"], text
    (row,) = first["parts"]["feeding"]["rows"]
    assert row["value"] > 0 and 0 <= row["ratio"] <= 1 and "| feeding |" in text
    status, text, second = run(out, "feeding", "int8", minutes="0")
    assert status == 1 and second == first
    assert "no time was left for: int8" in text
    out.write_text(json.dumps({**first, "machine": {**first["machine"], "cores": -1}}))
    status, text, _ = run(out, "feeding")
    assert status == 1 and "another machine" in text
