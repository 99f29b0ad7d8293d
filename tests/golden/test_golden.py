"""Numbers, records, answers and loss curves are those of the stored set (make.py says how it is made)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

SHOWN = 20


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", Path(__file__).with_name("make.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


golden = _maker()
STORED = sorted(path.stem for path in golden.FOLDER.glob("*.jsonl") if path.stem != "tiny_model")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of them: each miniature is drawn once."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(autouse=True)
def environment(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("EVALKIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EVALKIT_CACHE", str(work / "cache"))


def agree(found: Sequence[str]) -> None:
    """Fail with what differs."""
    more = f"\n… and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    assert not found, f"{len(found)} differences\n" + "\n".join(found[:SHOWN]) + more


def test_every_miniature_is_in_the_set() -> None:
    assert sorted(golden.tasks()) == STORED


@pytest.mark.parametrize("task", STORED)
def test_scores(task: str, work: Path) -> None:
    agree(golden.check_task(task, work))


def test_answers_of_the_packaged_model(work: Path) -> None:
    agree(golden.check_tiny_model(work))


def test_loss_curves(work: Path) -> None:
    agree(golden.check_trainings(work))


def test_what_counts_as_a_difference() -> None:
    def found(stored: object, now: object) -> list[str]:
        return list(golden.differences(stored, now, "x"))

    assert found({"a": 1, "b": [0.1, None]}, {"a": 1, "b": [0.1 * (1 + 1e-14), None], "new": 2}) == []
    assert found({"a": 1}, {}) == ["x > a: missing"]
    assert found({"a": {"b": 0.5}}, {"a": {"b": 0.5 + 1e-9}}) == ["x > a > b: 0.5 became 0.500000001"]
    assert found([1, 2], [1]) == ["x: [1, 2] became [1]"]
    assert found(1, True) == ["x: 1 became True"]
    assert found(None, 0.0) == ["x: None became 0.0"]
    assert found(0.0, 1e-3) == ["x: 0.0 became 0.001"]
