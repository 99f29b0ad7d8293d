"""How long the leaderboard takes to open and to answer a filter over thousands of runs.

    python benchmarks/leaderboard.py [--runs 2000] [--records 2500] [--task NAME] [--folder DIR]

Makes a tree of invented runs (removed afterwards), reads it as the app does, then opens the app in a headless
Chromium where there is one. The baseline of each reading is what it replaces: every run read from its folder;
that of the first page is a script of one title, served by the same Streamlit. With `--task` all runs are of
that task. Processor seconds in the browser are those of browser and server together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalkit import registry
from evalkit.contracts import Record, Response
from evalkit.store import Scored, write_records
from evalkit_leaderboard import records
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.matrix import build, default_columns
from evalkit_leaderboard.records import Filter
from evalkit_leaderboard.runs import read_run
from evalkit_leaderboard.serving import LOOPBACK, free_port, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_VARIANTS = 4
#: Seconds between the start of the server and the first visit, as a person takes to open the address.
_STARTED = 8.0
_WORDS = ("the", "car", "left", "white", "slowly", "while", "people", "wait", "near", "crossing", "trees")


def make_tree(root: Path, runs: int, rows: int, names: Sequence[str]) -> None:
    """Runs of invented models on tasks, each with its own copy of one of a few record tables."""
    rng = np.random.default_rng(0)
    templates = root.with_name(f"{root.name}-templates")
    for name in names:
        for variant in range(_VARIANTS):
            folder = templates / f"{name}-{variant}"
            folder.mkdir(parents=True)
            write_records(folder, [scored(row, rng) for row in range(rows)])
    for number in range(runs):
        model, name = f"model-{number // len(names):04}", names[number % len(names)]
        folder = root / model / f"{name}@miniature" / f"20260101-{number:06}-{number:06x}"
        folder.mkdir(parents=True)
        shutil.copyfile(
            templates / f"{name}-{number % _VARIANTS}/records.parquet", folder / "records.parquet"
        )
        write_descriptions(folder, model, name, rows, rng)
    shutil.rmtree(templates)


def scored(row: int, rng: np.random.Generator) -> Scored:
    """One invented sample."""
    right = float(rng.random() < 0.6)
    text = " ".join(rng.choice(_WORDS, size=12))
    tags = {"type": ("presence", "count", "compare")[row % 3]}
    record = Record(f"s{row}", f"c{row // 10}", text, text, "the car", {"accuracy": right}, tags)
    return Scored(record, Response(text, "stop", 60, 256, 14, 0.1), f"{row:032x}", f"What is in {row}?", ())


def write_descriptions(folder: Path, model: str, name: str, rows: int, rng: np.random.Generator) -> None:
    """Manifest and summary, with the published rows that real summaries repeat."""
    task = registry.task(name)
    figures = {
        metric.name: {"value": float(rng.random() * 90), "unit": metric.unit, "n": rows, "ci95": [1.0, 95.0]}
        for metric in task.metrics()
    }
    signature = f"{name}|v1|miniature|n:{rows}|tiles:12|prompt:a|gen:greedy,100|scorer:paper.1|data:abc"
    manifest = {
        "created": "2026-01-01T00:00:00+00:00",
        "model": {"name": model, "fingerprint": model, "parameters": int(1e9 * rng.random()) + 1},
        "task": {"name": name, "split": "miniature", "protocol": task.protocol},
    }
    summary = {
        "status": "complete",
        "model": model,
        "task": name,
        "split": "miniature",
        "protocol": task.protocol,
        "counts": {"expected": rows, "answered": rows, "errors": 0, "unparsed": 0, "truncated": 0},
        "metrics": figures,
        "groups": {"type": {value: {"accuracy": {"value": 1.0, "n": 9}} for value in "abcdefgh"}},
        "reference": [
            {"table": r.table, "model": r.model, "metrics": dict(r.metrics)} for r in task.published_rows
        ],
        "signature": signature,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))


class Times(NamedTuple):
    """Seconds on the clock and seconds of processor, which a busy machine lengthens far less."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} s {self.processor:8.3f} s of processor"


def timed(work: Callable[[], object], repeat: int = 3) -> Times:
    """The best of a few times."""
    times = []
    for _ in range(repeat):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        times.append(Times(time.perf_counter() - wall, time.process_time() - processor))
    return min(times)


def read_everything(root: Path, cache: Path) -> None:
    """The readings behind the pages, each beside its baseline."""
    cold = timed(lambda: Index([root], cache).refresh(), repeat=1)
    warm = timed(lambda: Index([root], cache).refresh())
    index = Index([root], cache)
    again = timed(lambda: index.refresh(patience=0))
    folders = [run.folder for run in index.runs.values()]
    every = timed(lambda: [read_run(folder) for folder in folders], repeat=1).processor
    print(f"index, first time            {cold}")
    print(f"index, from its cache        {warm}   {every / warm.processor:5.1f} times every run's files")
    print(f"look for new runs            {again}   {every / again.processor:5.1f} times")
    print(f"overview's matrix            {timed(lambda: default_columns(build(index.runs)))}")
    folder = folders[0]
    other = next(f for f in folders[1:] if f.parent.name == folder.parent.name)
    for label, wanted in (
        ("samples, wrong ones", Filter("accuracy", "wrong")),
        ("samples, text and tag", Filter("accuracy", tags={"type": "count"}, text="crossing")),
        ("samples, two models differ", Filter("accuracy", other=other)),
    ):
        print(f"{label:<28} {timed(lambda wanted=wanted: list_samples(folder, wanted))}")  # type: ignore[misc]


def list_samples(folder: Path, wanted: Filter) -> None:
    """What a filter of the samples page costs."""
    table = records.table(folder)
    table.preview(table.fitting(wanted)[:50].tolist(), wanted.score)


def _overview(runs: str) -> None:
    """What AppTest runs: the overview without a server or a browser."""
    from pathlib import Path

    from evalkit_leaderboard.app import guarded
    from evalkit_leaderboard.views import overview

    guarded(overview.render, [Path(runs)], Path(runs))


def make_overview(root: Path) -> None:
    """The overview's own work: the page made again, and after a search."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_function(_overview, args=(str(root),), default_timeout=300).run()
    print(f"overview made again          {timed(app.run)}")
    texts = iter(("model-001", "model-0012", "model-0"))
    search = timed(lambda: app.text_input(key="q-search").set_value(next(texts)).run())
    print(f"overview after a search      {search}")


def open_in_browser(root: Path, cache: Path) -> None:
    """Seconds until the overview's table stands, and until a search has narrowed or a header sorted it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no Chromium here: the app was not opened in a browser")
        return
    from playwright.sync_api import sync_playwright

    empty = root.with_name("empty")
    empty.mkdir(exist_ok=True)
    environment = {**os.environ, "EVALKIT_CACHE": str(cache.parent)}
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with bare(root.with_name("bare.py"), environment) as address:
            visit(chrome, address, "bare Streamlit", "h1")
        for folder, what in ((empty, "no runs"), (root, "all runs")):
            with served([folder], empty, environment) as address:
                page = visit(chrome, address, f"overview, {what}", "table.ek tbody tr")
                if folder == root:
                    filter_rows(page)
                    sort_rows(page)
        chrome.close()


@contextmanager
def bare(script: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Address of a page of one title."""
    script.write_text("import streamlit as st\nst.title('nothing')\n")
    port = free_port(LOOPBACK, 18501)
    flags = ["--server.headless=true", f"--server.port={port}", "--browser.gatherUsageStats=false"]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *flags, "--server.fileWatcherType=none"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.terminate()
        process.wait()


def visit(chrome: Browser, address: str, what: str, selector: str) -> Page:
    """Open a page several times, as its first and later visitors do; the last one."""
    time.sleep(_STARTED)
    for visitor in ("first", "later", "later", "later"):
        for other in chrome.contexts:
            other.close()  # an open page looks for new runs, which would be counted
        time.sleep(1)
        page = chrome.new_page(viewport={"width": 1366, "height": 768})
        with clocked(f"{what}, {visitor}"):
            page.goto(address)
            page.wait_for_selector(selector, timeout=60_000)
    return page


@contextmanager
def clocked(what: str) -> Iterator[None]:
    """Print what a block takes, of the clock and of the processors of all processes below this one."""
    wall, processor = time.perf_counter(), below()
    yield
    print(f"{what:<28} {Times(time.perf_counter() - wall, below() - processor)}")


def below() -> float:
    """Processor seconds of the processes below this one; 0 where /proc is missing."""
    parents: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            ticks = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
            parents[int(path.parent.name)] = int(fields[1]), ticks
    mine, grown = {os.getpid()}, True
    while grown:
        found = mine | {pid for pid, (parent, _) in parents.items() if parent in mine}
        mine, grown = found, len(found) > len(mine)
    return sum(ticks for pid, (_, ticks) in parents.items() if pid in mine and pid != os.getpid())


def filter_rows(page: Page) -> None:
    """Seconds from a search's Enter to the narrower table."""
    rows = "document.querySelectorAll('table.ek tbody tr').length"
    for text in ("model-001", "model-0012", ""):
        before = page.evaluate(rows)
        page.get_by_label("Search models").fill(text)
        with clocked(f"filter by {text!r}"):
            page.get_by_label("Search models").press("Enter")
            page.wait_for_function(f"{rows} != {before}", timeout=60_000)


def sort_rows(page: Page) -> None:
    """Seconds from a header's press to the sorted table."""
    page.wait_for_function("!!document.ekPressed")
    for _ in range(3):
        order = page.locator("th[aria-sort]").first.get_attribute("aria-sort")
        other = "ascending" if order == "descending" else "descending"
        with clocked(f"sort, {other}"):
            page.locator("th[aria-sort] button").first.dispatch_event("click")
            page.wait_for_selector(f"th[aria-sort={other}]", timeout=60_000)


def main() -> None:
    """Make the tree, measure, remove it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--records", type=int, default=2500, help="a run")
    parser.add_argument(
        "--task", choices=sorted(registry.tasks()), help="of all runs; default: every task in turn"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="evalkit-leaderboard-") as scratch:
        root, cache = Path(scratch) / "runs", Path(scratch) / "cache/leaderboard"
        make_tree(root, given.runs, given.records, [given.task] if given.task else list(registry.tasks()))
        files = subprocess.run(["du", "-sh", str(root)], capture_output=True, text=True, check=False).stdout
        load = (
            f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
        )
        print(f"{given.runs} runs, {given.runs * given.records:,} records, {files.split()[0]}{load}")
        read_everything(root, cache)
        os.environ["EVALKIT_CACHE"] = str(cache.parent)
        make_overview(root)
        open_in_browser(root, cache)


if __name__ == "__main__":
    main()
