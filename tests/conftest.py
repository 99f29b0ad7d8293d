"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(autouse=True)
def tasks_of_one_test_only() -> Iterator[None]:
    """A task file that a test includes is gone for the next test."""
    from evalkit import registry

    included, before = registry._included, dict(registry._included)
    yield
    included.clear()
    included.update(before)
    registry._included = included
