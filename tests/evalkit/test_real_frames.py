"""The main job on real driving frames: stored answers with known figures, and a killed run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine_runs import stored

from evalkit.store import load_run
from evalkit.store.records import read_table


@pytest.fixture
def frames(shared_dir: Path) -> Path:
    folder = shared_dir / "data" / "drivelm"
    if not (folder / "test_eval.json").is_file():
        pytest.skip("no DriveLM sample")
    return folder


def command(frames: Path, output: Path, model: str, *flags: str) -> list[str]:
    fixed = ["-m", model, "-t", "drivelm", "--split", "sample", "--data-root", str(frames), "-o", str(output)]
    return [sys.executable, "-m", "evalkit", "run", *fixed, "--json", *flags]


def run(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["runs"]
    return dict(result)


def test_stored_answers_have_the_known_figures(frames: Path, tmp_path: Path) -> None:
    result = run(command(frames, tmp_path, f"predictions:{frames / 'output.json'}"))
    assert result["counts"]["answered"] == result["counts"]["expected"] == 66
    values = {name: content["value"] for name, content in result["metrics"].items()}
    known = {
        "bleu_1": 0.19878472,
        "bleu_2": 0.08021752,
        "bleu_3": 0.03049990,
        "bleu_4": 2.2409684e-06,
        "rouge_l": 0.18421722,
        "cider": 0.00172301,
        "accuracy": 0.0,
        "match_f1": 0.0,
    }
    for name, value in known.items():
        assert values[name] == pytest.approx(value, abs=1e-8)
    assert result["metrics"]["accuracy"]["n"] == 9 and result["metrics"]["match_f1"]["n"] == 4
    for name in ("chatgpt", "match", "final_score"):
        assert values[name] is None and "judge" in result["metrics"][name]["reason"]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_records_of_an_undisturbed_one(frames: Path, tmp_path: Path) -> None:
    flags = ["--gen", "max_new_tokens=6", "--batch-size", "8", "--dtype", "float32", "--max-tiles", "2"]
    flags += ["--limit", "16"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = command(frames, tmp_path / "killed", "mini-internvl-tiny", *flags)
    process = subprocess.Popen(killed, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while stored(tmp_path / "killed") < 8:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = (tmp_path / "killed").glob("*/*/2*")
    assert load_run(folder).status == "partial"
    resumed = run(killed)
    whole = run(command(frames, tmp_path / "whole", "mini-internvl-tiny", *flags))
    assert resumed["run"] == str(folder) and resumed["counts"] == whole["counts"]
    assert resumed["metrics"] == whole["metrics"] and resumed["counts"]["answered"] == 16
    tables = [
        read_table(Path(result["run"])).drop_columns(["seconds"]).to_pylist() for result in (resumed, whole)
    ]
    assert tables[0] == tables[1]
