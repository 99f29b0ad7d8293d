"""Every task runs from its drawn files to its figures with the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

import evalkit
from evalkit import registry

SAMPLES = 4


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry.tasks()))
def test_task_runs_on_its_miniature(name: str, tmp_path: Path) -> None:
    result = evalkit.run(
        model="mini-internvl-tiny",
        task=name,
        split="miniature",
        limit=SAMPLES,
        gen={"max_new_tokens": 4},
        output=tmp_path,
    )
    assert result.counts["answered"] == SAMPLES
    assert len(result.records()) == SAMPLES
    assert set(result.metrics) == {metric.name for metric in registry.task(name).metrics()}
    assert all(metric.value is not None or metric.reason for metric in result.metrics.values())
    assert any(metric.value is not None for metric in result.metrics.values())
