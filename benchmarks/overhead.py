"""Milliseconds and memory that the harness takes a sample, with a model that answers at once.

    python benchmarks/overhead.py [--samples N --samples M ...] [--questions N] [--profile]

Everything but the model is in it: reading the official file, planning, hashing requests, storing responses
with fsync, scoring, metrics with their intervals, records, summary. Each size runs in a process of its own,
which did not write the files and has run ten thousand samples before: the table shows the process' peak, how
far that lies above its peak after the ten thousand, and by how many bytes a sample it grew from the size in
the line above.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evalkit.contracts import ModelInfo, Request, Response
from evalkit.pipeline.options import RunOptions

SMALL, SIZES = 10_000, (100_000, 200_000, 400_000)
HEADER = ("samples", "processor, ms", "clock, ms", "peak, MB", f"above {SMALL}, MB", "growth, bytes a sample")


class AtOnce:
    """A model that says yes."""

    info = ModelInfo(name="at-once", fingerprint="0", dtype="float32", device="cpu")

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Answer in order."""
        for request in requests:
            yield request.id, Response("yes", "stop", 20, 256, 2, 0.0)

    def close(self) -> None:
        """Nothing to free."""


def write_files(folder: Path, samples: int, questions: int) -> None:
    """RSVQA-LR's test files with `questions` a picture."""
    from PIL import Image

    images = folder / "Images_LR"
    images.mkdir(parents=True)
    rows, answers = [], []
    for i in range(samples):
        if i % questions == 0:
            shade = i // questions
            Image.new("RGB", (32, 32), (shade % 256, shade // 256 % 256, shade // 65536)).save(
                images / f"{shade}.tif"
            )
        text = f"Is a building number {i} present?"
        rows.append({"id": i, "img_id": i // questions, "type": "presence", "question": text,
                     "answers_ids": [i], "active": True})  # fmt: skip
        answers.append({"id": i, "question_id": i, "answer": ("yes", "no")[i % 3 == 0], "active": True})
    pictures = [
        {"id": n, "original_name": f"{n}.tif", "questions_ids": [], "active": True}
        for n in range((samples + questions - 1) // questions)
    ]
    for name, content in (("questions", rows), ("answers", answers), ("images", pictures)):
        (folder / f"LR_split_test_{name}.json").write_text(json.dumps({name: content}))


def run(data: Path, samples: int, profile: bool, results: multiprocessing.Queue[tuple[float, ...]]) -> None:
    """One whole run; puts seconds of the processor and of the clock, peak megabytes and those before."""
    import cProfile
    import pstats

    from evalkit import statistics  # noqa: F401
    from evalkit.engines.base import InProcess
    from evalkit.pipeline import run as workflow
    from evalkit_tasks.remote_sensing import rsvqa  # noqa: F401

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        options = RunOptions("at-once", data_root=data / "small", output=folder / "warm", quiet=True)
        workflow.run_task("rsvqa-lr", InProcess(AtOnce()), options)
        options = RunOptions("at-once", data_root=data / str(samples), output=folder / "runs", quiet=True)
        before = peak_megabytes()
        profiler = cProfile.Profile()
        started = time.perf_counter(), time.process_time()
        if profile:
            profiler.enable()
        result = workflow.run_task("rsvqa-lr", InProcess(AtOnce()), options)
        seconds, spent = time.perf_counter() - started[0], time.process_time() - started[1]
        profiler.disable()
        assert result.counts["answered"] == samples
        peak = peak_megabytes()
        if profile:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    results.put((spent, seconds, peak, before))


def peak_megabytes() -> float:
    """Of this process so far, in 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def in_process(target: Callable[..., None], *arguments: Any) -> None:
    """Runs `target` in a process of its own, whose memory is then its own."""
    worker = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    worker.start()
    worker.join()
    if worker.exitcode:
        sys.exit(worker.exitcode)


def print_row(cells: Sequence[str]) -> None:
    """A line of the table, at once."""
    sys.stdout.write(
        "  ".join(cell.rjust(max(9, len(name))) for cell, name in zip(cells, HEADER, strict=True)) + "\n"
    )
    sys.stdout.flush()


def main() -> int:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples", type=int, action="append", help="100,000, 200,000 and 400,000 if left out"
    )
    parser.add_argument("--questions", type=int, default=100, help="questions a picture")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    print_row(HEADER)
    last = 0, 0.0
    for samples in sorted(arguments.samples or SIZES):
        with tempfile.TemporaryDirectory() as place:
            data = Path(place)
            in_process(write_files, data / "small", SMALL, arguments.questions)
            in_process(write_files, data / str(samples), samples, arguments.questions)
            results = multiprocessing.get_context("spawn").Queue()
            in_process(run, data, samples, arguments.profile, results)
            spent, seconds, peak, before = results.get()
        each = [f"{1000 * figure / samples:.3f}" for figure in (spent, seconds)]
        growth = f"{1e6 * (peak - before - last[1]) / (samples - last[0]):.0f}" if last[0] else ""
        print_row((f"{samples:,}", *each, f"{peak:.0f}", f"{peak - before:.1f}", growth))
        last = samples, peak - before
    return 0


if __name__ == "__main__":
    sys.exit(main())
