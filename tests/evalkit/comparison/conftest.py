"""The invented tasks, known to the registry while a test runs."""

from __future__ import annotations

import pytest
from stored_runs import General, Toy

from evalkit import registry
from evalkit.suite import Suite


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """`toy` and `toy-general`, with a suite for each."""
    monkeypatch.setattr(registry, "_included", {task.name: task for task in (Toy, General)})
    suites = {"toys": Suite("toys", ("toy",)), "general": Suite("general", ("toy-general",))}
    monkeypatch.setattr(registry, "suites", lambda: suites)
