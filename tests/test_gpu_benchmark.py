"""`benchmarks/gpu.py` as a dry run: rows are kept part by part, and a second call measures nothing again."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_parts_are_kept_and_not_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The part runs in a process of its own."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    main, out = importlib.import_module("gpu").main, tmp_path / "gpu.json"

    def run(*parts: str, minutes: str = "4") -> tuple[int, str, dict[str, Any]]:
        chosen = [word for part in parts for word in ("--part", part)]
        arguments = [str(PROGRAM), "--dry-run", "--out", str(out), "--minutes", minutes, *chosen]
        monkeypatch.setattr(sys, "argv", arguments)
        status, said = main(), capsys.readouterr()
        return status, said.out + said.err, json.loads(out.read_text())

    status, text, first = run("feeding")
    assert status == 0 and list(first["parts"]) == ["feeding"], text
    (row,) = first["parts"]["feeding"]["rows"]
    assert row["value"] > 0 and 0 <= row["ratio"] <= 1 and "| feeding |" in text
    status, text, second = run("feeding", "int8", minutes="0")
    assert status == 1 and second == first
    assert "no time was left for: int8" in text


def test_figures_of_another_machine_are_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    start = importlib.import_module("gpu").start
    out = tmp_path / "gpu.json"
    assert start(out, {"cores": 2}) == {"machine": {"cores": 2}, "parts": {}}
    out.write_text(json.dumps({"machine": {"cores": 2}, "parts": {"int8": {}}}))
    assert start(out, {"cores": 2})["parts"] == {"int8": {}}
    with pytest.raises(SystemExit, match="another machine"):
        start(out, {"cores": 4})
