"""A share of the campaign (docs/reliability.md), and that faults planted on purpose are found."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from campaign import catalogue, predictions, settings
from campaign.driver import Campaign
from campaign.trial import Trial, Verdict, ask, attempt, judge

HERE = Path(__file__).parent
QUICK = (
    "predictions: JSON Lines",
    "predictions: CSV",
    "images",
    "archives",
    "settings",
    "HTTP",
    "judge.jsonl",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows", [QUICK, ("task files: TSV", "task files: CSV"), ("kills: run", "kills: score")], ids=" ".join
)
def test_a_share_holds(rows: tuple[str, ...], tmp_path: Path) -> None:
    """Some tries of each row, the same every time; `make campaign` makes others."""
    command = [
        sys.executable,
        str(HERE),
        "--minutes",
        "0.1",
        "--seed",
        "1",
        "--quiet",
        "--tries",
        "80",
    ]
    only = [part for row in rows for part in ("--only", row)]
    done = subprocess.run([*command, *only], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def tries(trial: Trial, count: int) -> set[str]:
    """Kinds of the verdicts of some tries."""
    return {attempt(trial, random.Random(number)).kind for number in range(count)}


def test_a_reader_that_takes_the_last_of_two_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit.data import strict_json

    trial = predictions.JsonList(tmp_path)
    assert tries(trial, 80) == {"held"}
    monkeypatch.setattr(strict_json, "loads", json.loads)
    assert "silent" in tries(trial, 300)


def test_settings_that_ignore_a_line_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = settings.Recipes(tmp_path)
    assert tries(trial, 60) == {"held"}
    base = trial.base
    monkeypatch.setattr(trial, "read", lambda: base)
    assert "silent" in tries(trial, 30)


class Faulty(Trial):
    """Does what `fault` says."""

    name = "faulty"
    seconds = 0.2

    def __init__(self, folder: Path, fault: Any) -> None:
        super().__init__(folder)
        self.fault = fault

    def once(self, rng: random.Random) -> Verdict:
        return judge(ask(self.fault), "base", touched=lambda: True, file="a.json")


def fail_raw() -> None:
    raise KeyError("x")


def fail_namelessly() -> None:
    from evalkit.errors import DataError

    raise DataError("something is wrong")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (fail_raw, "raw"),
        (fail_namelessly, "raw"),
        (lambda: "base", "silent"),
        (lambda: "other", "held"),
        (lambda: time.sleep(5), "hang"),
    ],
)
def test_each_kind_of_fault_is_told(fault: Any, kind: str, tmp_path: Path) -> None:
    assert attempt(Faulty(tmp_path, fault), random.Random(0)).kind == kind


def test_a_table_counts_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    campaign = Campaign(5, path)
    campaign.batch("settings: baseline (JSON)", 60, 20, 20.0)
    assert campaign.held and "| all | 20 | 20 | 0 | 0 |" in campaign.table()
    again = Campaign(5, path)
    again.batch("settings: baseline (JSON)", 60, 5, 20.0)
    assert again.rows["settings: baseline (JSON)"].next == 25
    again.rows["settings: baseline (JSON)"].add(25, "silent", "planted")
    assert not again.held and "planted" in again.failures()[0] and "--from 25" in again.failures()[0]


def test_every_row_has_a_name_of_its_own() -> None:
    names = [trial.name for trial in catalogue.TRIALS]
    assert len(set(names)) == len(names) >= 25
