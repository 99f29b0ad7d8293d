"""Milliseconds and memory that the harness takes a sample, with a model that answers at once.

    python benchmarks/overhead.py [--samples N ...] [--questions N] [--stored] [--parts] [--profile]

Everything but the model is in it: reading the official files, planning, hashing requests, storing responses
with fsync, scoring, metrics with their intervals, records, summary. The files are RSVQA-HR's. The questions
of an image lie far apart, as in the official files; the largest default size is that of test1. Each size runs
in a process of its own, which did not write the files and has run ten thousand samples before. The table
shows the peak of the process, and by how many bytes a sample it lies above the peak after the ten thousand.
The exit code is 1 where that is more than the bound. With `--stored` the answers are those of a predictions
file, whose reading is counted too. With `--parts` a second run says what reading, hashing, JSON, flushing to
the disk and the other parts take of each sample.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pkgutil
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from evalkit.contracts import ModelInfo, Request, Response
from evalkit.pipeline.options import RunOptions

#: The warm-up; RSVQA-HR's test1 and parts of it; bytes of memory that a sample may take.
SMALL, SIZES, BOUND = 10_000, (60_000, 120_000, 222_684), 1500
HEADER = ("samples", "processor, ms", "clock, ms", "peak, MB", "bytes a sample", "bound")


#: What `--parts` times, all calls of a function together, without the parts that it calls itself.
PARTS = {
    "reading the files, ids": "evalkit.pipeline.job.unique",
    "hashing the data": "evalkit.pipeline.job.data_hashes",
    "making the requests": "evalkit.pipeline.job.Job.request",
    "grouping them by their images": "evalkit.pipeline.run.make_plan",
    "hashing them": "evalkit.contracts.Request.key",
    "JSON of the answers": "evalkit.store.responses.StoredResponse.to_json",
    "writing their lines": "evalkit.store.responses.ResponseLog._write",
    "flushing to the disk": "os.fsync",
    "reading the lines back": "evalkit.store.folder.read_responses",
    "parsing and scoring": "evalkit.pipeline.finish.score_job",
    "records.parquet": "evalkit.pipeline.finish.write_records",
    "values with intervals": "evalkit.pipeline.finish.metric_values",
}


class Taken(NamedTuple):
    """What a run took: seconds, megabytes at the peak and at the peak before it, and the parts."""

    processor: float
    clock: float
    peak: float
    before: float
    parts: dict[str, list[float]]


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
    """RSVQA-HR's files of test1 with `questions` an image."""
    from PIL import Image

    count = -(-samples // questions)
    images = folder / "Data"
    images.mkdir(parents=True)
    for shade in range(count):
        colour = shade % 256, shade // 256 % 256, shade // 65536
        Image.new("RGB", (32, 32), colour).save(images / f"{shade}.tif")
    rows, answers = [], []
    for i in range(samples):
        kind, text = ("presence", "comp")[i % 2], f"Is a small building number {i} present next to the road?"
        rows.append({"id": i, "img_id": i % count, "type": kind, "question": text, "answers_ids": [i],
                     "active": True})  # fmt: skip
        answers.append({"id": i, "question_id": i, "answer": ("yes", "no")[i % 3 == 0], "active": True})
    for name, content in (("questions", rows), ("answers", answers)):
        (folder / f"USGS_split_test_{name}.json").write_text(json.dumps({name: content}))
    stored = (json.dumps({"id": row["id"], "text": "yes"}) for row in rows)
    (folder / "stored.jsonl").write_text("\n".join(stored))


class Watch:
    """Processor and clock seconds of the parts, while they are replaced by functions that take the time."""

    def __init__(self) -> None:
        self.spent = {name: [0.0, 0.0] for name in PARTS}
        self._within = [[0.0, 0.0]]

    def replace(self, stack: ExitStack) -> None:
        """Replace the functions until the stack closes."""
        for name, place in PARTS.items():
            stack.enter_context(mock.patch(place, self._timed(name, pkgutil.resolve_name(place))))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **settings: Any) -> Any:
            self._within.append([0.0, 0.0])
            started = time.process_time(), time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                ended, within = (time.process_time(), time.perf_counter()), self._within.pop()
                for which in (0, 1):
                    taken = ended[which] - started[which]
                    self.spent[name][which] += taken - within[which]
                    self._within[-1][which] += taken

        return run


def run(data: Path, samples: int, profile: bool, stored: bool, watch: bool, results: Any) -> None:
    """One whole run; puts what it took."""
    import cProfile
    import pstats

    from evalkit.engines.base import InProcess
    from evalkit.pipeline.run import load_model, run_task

    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        options = RunOptions("at-once", data_root=data / "small", output=folder / "warm", quiet=True)
        run_task("rsvqa-hr", InProcess(AtOnce()), options)
        name = f"predictions:{data / str(samples) / 'stored.jsonl'}" if stored else "at-once"
        options = RunOptions(name, data_root=data / str(samples), output=folder / "runs", quiet=True)
        before, watched = peak_megabytes(), Watch()
        if watch:
            watched.replace(stack)
        profiler = cProfile.Profile()
        started = time.perf_counter(), time.process_time()
        if profile:
            profiler.enable()
        result = run_task("rsvqa-hr", load_model(options) if stored else InProcess(AtOnce()), options)
        seconds, spent = time.perf_counter() - started[0], time.process_time() - started[1]
        profiler.disable()
        assert result.counts["answered"] == samples
        peak = peak_megabytes()
        if profile:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    results.put(Taken(spent, seconds, peak, before, watched.spent))


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


def print_parts(samples: int, taken: Taken) -> None:
    """Microseconds a sample of each part, of the processor and of the clock."""
    known = [sum(pair[which] for pair in taken.parts.values()) for which in (0, 1)]
    rest = [taken.processor - known[0], taken.clock - known[1]]
    for name, pair in {**taken.parts, "everything else, and taking these times": rest}.items():
        processor, clock = (1e6 * seconds / samples for seconds in pair)
        sys.stdout.write(f"    {name:42} {processor:8.1f} us of the processor {clock:8.1f} of the clock\n")


def main() -> int:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ", ".join(f"{size:,}" for size in SIZES)
    parser.add_argument("--samples", type=int, action="append", help=f"{sizes} if left out")
    parser.add_argument("--questions", type=int, default=100, help="questions an image")
    parser.add_argument("--stored", action="store_true", help="answers of a predictions file")
    parser.add_argument("--parts", action="store_true", help="what each part takes, by a second run")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    print_row(HEADER)
    exceeded = False
    for samples in sorted(arguments.samples or SIZES):
        with tempfile.TemporaryDirectory() as place:
            data = Path(place)
            in_process(write_files, data / "small", SMALL, arguments.questions)
            in_process(write_files, data / str(samples), samples, arguments.questions)
            results = multiprocessing.get_context("spawn").Queue()
            in_process(run, data, samples, arguments.profile, arguments.stored, False, results)
            found: Taken = results.get()
            if arguments.parts:
                in_process(run, data, samples, False, arguments.stored, True, results)
        each = [f"{1000 * taken / samples:.3f}" for taken in (found.processor, found.clock)]
        taken = 1e6 * (found.peak - found.before) / samples
        exceeded |= taken > BOUND
        verdict = f"{BOUND} {'exceeded' if taken > BOUND else 'kept'}"
        print_row((f"{samples:,}", *each, f"{found.peak:.0f}", f"{taken:.0f}", verdict))
        if arguments.parts:
            print_parts(samples, results.get())
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
