"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]
#: Child processes import what this process imports, whichever checkout is installed.
SOURCES = [str(REPOSITORY / name) for name in (".", "tests", "tasks", "models", "train", "leaderboard_app")]
os.environ["PYTHONPATH"] = os.pathsep.join([*SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])])


def find_shared() -> Path | None:
    """Folder with real benchmark samples and reference outputs, where somebody has put one."""
    folder = Path(os.environ.get("EVALKIT_SHARED", str(REPOSITORY.parent / "shared")))
    return folder if (folder / "data").is_dir() or (folder / "oracle").is_dir() else None


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared folder; skips with a reason where it is absent."""
    folder = find_shared()
    if folder is None:
        pytest.skip("no folder of real samples (set EVALKIT_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Tens of thousands of flushes would wait for minutes, and no test cuts the power.

    Child processes flush as they do elsewhere.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a closed file too
        yield


@pytest.fixture(scope="session", autouse=True)
def drivelm_is_drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Its 240 pictures take seconds, and many tests have a cache of their own: they get copies.

    test_drawn_worlds.py asks the drawing code itself.
    """
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "drivelm"
    scratch = kept.with_name("drivelm-unfinished")

    def copy(folder: Path) -> None:
        with FileLock(f"{kept}.lock"):
            if not kept.is_dir():
                scratch.mkdir()
                import_module("evalkit_tasks.miniatures.drivelm").draw(scratch)
                scratch.rename(kept)
        shutil.copytree(kept, folder, dirs_exist_ok=True)

    def module(name: str) -> Any:
        return SimpleNamespace(draw=copy) if name.endswith(".drivelm") else import_module(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evalkit_tasks.base.import_module", module)
        yield


@pytest.fixture(autouse=True)
def tasks_of_one_test_only() -> Iterator[None]:
    """A task file that a test includes is gone for the next test."""
    from evalkit import registry

    included, before = registry._included, dict(registry._included)
    yield
    included.clear()
    included.update(before)
    registry._included = included
