"""Trees of runs for the leaderboard: real ones on drawn miniatures, and hostile ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from answerer import Answerer
from filelock import FileLock

import evalkit
from evalkit import registry
from evalkit.data.locate import locate
from evalkit.task import MINIATURE

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The app's index and the drawn miniatures in a folder of the tests'."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("EVALKIT_CACHE")
    os.environ["EVALKIT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EVALKIT_CACHE"]
    else:
        os.environ["EVALKIT_CACHE"] = before


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; skips where there is none."""
    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium (`make test` does it for root), or set CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


#: Tasks of the tree.
TASKS = ("dior-rsvg", "rsvqa-lr", "drivelm")
#: Models of the tree and how often they are wrong: checkpoints of one training, and two others.
MODELS = {"good": 10, "worse": 3, "tuned@step-100": 2, "tuned@step-200": 4, "tuned@step-300": 8}


@pytest.fixture(scope="session")
def real_tree(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Runs of several models on three drawn miniatures, one of them limited; and a training log.

    Made once for all processes of the tests.
    """
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "real"
    with FileLock(f"{place}.lock"):
        if not place.is_dir():
            make_tree(place.with_name("real-unfinished") / "runs")
            place.with_name("real-unfinished").rename(place)
    return place / "runs"


def make_tree(output: Path) -> None:
    """The runs of `real_tree`."""
    for task_name in TASKS:
        task = registry.task(task_name)
        samples = list(task.samples(MINIATURE, locate(task, MINIATURE)))
        for name, every in MODELS.items():
            model = Answerer(name, task_name, samples, every)
            evalkit.run(model, task_name, split=MINIATURE, output=output, quiet=True)
        if task_name == "rsvqa-lr":
            model = Answerer("part", task_name, samples, 5)
            evalkit.run(model, task_name, split=MINIATURE, output=output, limit=20, quiet=True)
    log = output.parent / "checkpoints" / "tuned" / "log.jsonl"
    log.parent.mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 3 / (1 + step / 40), "lr": 1e-4}) for step in range(1, 300)]
    log.write_text("\n".join(lines) + '\n{"step": 300, "lo')


@pytest.fixture
def tree(real_tree: Path, tmp_path: Path) -> Path:
    """A copy of the real tree to spoil."""
    return Path(shutil.copytree(real_tree, tmp_path / "runs"))
