"""Progress of a training where there is no terminal."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mini_internvl_train.log import StepLog, TrainingLog


def test_without_a_terminal_there_are_lines_in_place_of_a_bar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    log = TrainingLog(tmp_path, 300, 0, main=True, quiet=False)
    with caplog.at_level(logging.INFO):
        for step in range(1, 301):
            log.step(StepLog(step, 0, 1.0, 1e-4, 1.0, 2, 30, 0.01, 1))
    log.close()
    lines = [record.message for record in caplog.records]
    assert lines[-1].startswith("step 300/300: loss 1.0000") and len(lines) <= 3
    assert "\r" not in capsys.readouterr().err


def test_quiet_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = TrainingLog(tmp_path, 1, 0, main=True, quiet=True)
    with caplog.at_level(logging.INFO):
        log.step(StepLog(1, 0, 1.0, 1e-4, 1.0, 2, 30, 0.01, 1))
    log.close()
    assert not caplog.records
