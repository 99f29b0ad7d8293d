"""The manifest: what identifies the program that made a run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evalkit.environment import git_revision

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a checkout of git")
def test_a_run_names_the_commit_it_was_made_with(bench: Any) -> None:
    git_revision.cache_clear()
    said = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert bench.run() == 0
    manifest = json.loads((Path(bench.result["run"]) / "manifest.json").read_text())
    assert manifest["git"]["commit"] == said.stdout.strip()
