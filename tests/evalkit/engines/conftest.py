"""The toy benchmark with more samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_runs import SAMPLES, Ground
from toy import make_benchmark

from evalkit import registry


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_environment: None) -> Ground:
    """A hundred and twenty samples on thirty pictures."""
    monkeypatch.setattr(registry, "_included", {})
    task = make_benchmark(tmp_path / "data", samples=SAMPLES)
    registry.include(task)
    return Ground(tmp_path, task)
