"""What many workers cost, and how far one driver goes.

    python benchmarks/scale.py overhead [--samples N]     in process, Ray, ranks: a model that answers at once
    python benchmarks/scale.py planned [--requests N]     the driver's memory and speed at 5,000,000 requests
    python benchmarks/scale.py measure FILE               service times of the embedded model on miniatures
    python benchmarks/scale.py simulate FILE              8, 64 and 512 workers with those times

Seconds are of the wall; processor seconds are of the process that holds the run folder. Each way runs in a
process of its own. `overhead` is everything from the official files to the summary, as in overhead.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overhead import AtOnce, write_files
from scale_simulation import Driver, Outcome, World, ranks, simulate

from evalkit.contracts import Message, Model, Request, Response
from evalkit.data.images import ImageFile
from evalkit.pipeline.options import RunOptions

#: Questions about one image, as RSVQA asks them.
QUESTIONS = 100
#: Driver's seconds in `simulate`: what `overhead` and `planned` measured (docs/scaling-measured.md).
DRIVER = Driver(exchange=0.0025, request=0.00005)


def say(text: str) -> None:
    """A line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class LoadAtOnce:
    """Makes the model in a worker."""

    def __call__(self, number: int) -> Model:
        return AtOnce()


def options(folder: Path, name: str, **changes: Any) -> RunOptions:
    """A run of the written files."""
    return RunOptions("at-once", data_root=folder / "data", output=folder / name, quiet=True, **changes)


def in_process(folder: Path) -> dict[str, Any]:
    """One process."""
    from evalkit.engines.base import InProcess
    from evalkit.pipeline import run as workflow

    return counted(lambda: workflow.run_task("rsvqa-hr", InProcess(AtOnce()), options(folder, "alone")))


def on_ray(folder: Path) -> dict[str, Any]:
    """Two actors of a Ray that is started here; starting it is told of on its own."""
    import scale  # by the name under which the actors find it

    from evalkit.engines.ray_engine import RayEngine, RayOptions
    from evalkit.pipeline import run as workflow

    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    started = time.perf_counter()
    pool = RayEngine(scale.LoadAtOnce(), RayOptions(cores=1))
    ready = time.perf_counter() - started
    try:
        return counted(lambda: workflow.run_task("rsvqa-hr", pool, options(folder, "ray"))) | {"ready": ready}
    finally:
        pool.close()


def by_ranks(folder: Path) -> dict[str, Any]:
    """Two ranks, this process being the first."""
    from evalkit.engines.base import InProcess
    from evalkit.engines.rank import Rank
    from evalkit.pipeline import run as workflow

    other = multiprocessing.get_context("spawn").Process(target=second_rank, args=(folder,))
    other.start()
    found = counted(
        lambda: workflow.run_task("rsvqa-hr", InProcess(AtOnce()), options(folder, "ranks", rank=Rank(0, 2)))
    )
    other.join()
    return found


def second_rank(folder: Path) -> None:
    """The other rank."""
    from evalkit.engines.base import InProcess
    from evalkit.engines.rank import Rank
    from evalkit.pipeline import run as workflow

    workflow.run_share("rsvqa-hr", InProcess(AtOnce()), options(folder, "ranks", rank=Rank(1, 2)))


def counted(work: Callable[[], Any]) -> dict[str, Any]:
    """Wall and processor seconds, and megabytes above what everything imported takes."""
    from evalkit import statistics  # noqa: F401
    from evalkit_tasks.remote_sensing import rsvqa  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return {
        "answered": result.counts["answered"],
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Its result, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[dict[str, Any]] = context.Queue()
    process = context.Process(target=_into, args=(results, work, arguments))
    process.start()
    found = results.get()
    process.join()
    return found


def _into(results: Any, work: Callable[..., dict[str, Any]], arguments: Sequence[Any]) -> None:
    results.put(work(*arguments))


def overhead(samples: int) -> None:
    """Each way, and what it takes more than one process."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_files(folder / "data", samples, QUESTIONS)
        alone: dict[str, Any] = {}
        for name, work in (("one process", in_process), ("Ray, 2 workers", on_ray), ("2 ranks", by_ranks)):
            found = apart(work, folder)
            alone = alone or found
            assert found["answered"] == samples
            more = [1e6 * (found[kind] - alone[kind]) / samples for kind in ("wall", "processor")]
            say(
                f"{name:>15}: {found['wall']:7.1f} s, {found['processor']:6.1f} s of the processor, "
                f"{found['megabytes']:.0f} MB; a sample {more[0]:+.0f} us, {more[1]:+.0f} us of the processor"
                + (f"; ready after {found['ready']:.1f} s" if "ready" in found else "")
            )


def planned(count: int, answered: int) -> None:
    """Plan so many requests; then hand out, pack, take back and store some of them."""
    found = apart(drive, count, answered)
    say(f"{count} requests in groups of {QUESTIONS}: {json.dumps(found)}")


def drive(count: int, answered: int) -> dict[str, Any]:
    """The driver's work without a cluster: everything that it does with a request but sending it."""
    from evalkit.batch_config import BATCHING
    from evalkit.engines.scheduler import Assignment, Scheduler
    from evalkit.pipeline.plan import make_plan
    from evalkit.store import ResponseLog

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        request = image_request(folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        plan = make_plan(request(position) for position in range(count))
        planning = time.process_time() - started
        scheduler = Scheduler(plan.groups, request, "at-once", BATCHING.ray_chunk, BATCHING.groups_kept * 64)
        worker = Assignment("0")
        parts = dict.fromkeys(("make", "hash", "pack", "store"), 0.0)
        log, done, chunks = ResponseLog(folder / "responses-0.jsonl"), 0, 0
        while done < answered:
            marks = [time.process_time()]
            if not (chunk := scheduler.take(worker, 1 / 64)):
                break
            marks.append(time.process_time())
            for asked in chunk:
                asked.key = asked.request.key()
            marks.append(time.process_time())
            pickle.dumps([(asked.request, asked.key) for asked in chunk])
            back = pickle.dumps([(a.request.id, Response("yes", "stop", 20, 256, 2, 0.0)) for a in chunk])
            answers = pickle.loads(back)
            marks.append(time.process_time())
            for identifier, response in answers:
                answer = scheduler.answer(worker, identifier, response)
                log.append(answer.id, answer.key, answer.response)
            list(scheduler.finish(worker))
            marks.append(time.process_time())
            for name, start, end in zip(parts, marks, marks[1:], strict=False):
                parts[name] += end - start
            done += len(chunk)
            chunks += 1
        log.close()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "planning_us_a_request": round(1e6 * planning / count, 1),
        "megabytes": round((peak - before) / 1024),
        "handed_out": done,
        "requests_a_chunk": round(done / chunks, 1),
        **{f"{name}_us": round(1e6 * seconds / done, 1) for name, seconds in parts.items()},
        "us_a_request": round(1e6 * sum(parts.values()) / done, 1),
        "requests_a_second": round(done / sum(parts.values())),
    }


def image_request(folder: Path) -> Callable[[int], Request]:
    """Requests by position: a hundred about each image, of which there are as many files as may be open."""
    from PIL import Image

    files = [folder / f"{number}.png" for number in range(256)]
    for number, file in enumerate(files):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(file)

    def make(position: int) -> Request:
        group = position // QUESTIONS
        image = ImageFile(f"{files[group % len(files)]}") if group < len(files) else Numbered(group)
        text = f"Is a building number {position} present?\nAnswer the question using a single word or phrase."
        return Request(str(position), (Message("user", text),), (image,))

    return make


@dataclass(frozen=True)
class Numbered:
    """An image that is nowhere: as many as there are groups."""

    number: int

    def open(self) -> Any:
        """Not asked for."""
        raise NotImplementedError

    def digest(self) -> str:
        """Thirty-two digits."""
        return f"{self.number:032x}"

    def identity(self) -> str:
        """A path's length of text."""
        return f"/data/rsvqa-hr/Data/{self.number:08d}.tif"

    def paths(self) -> tuple[str, ...]:
        """None."""
        return ()


def measure(file: Path) -> None:
    """Size and seconds of each group of the miniatures, answered by the embedded model group by group."""
    from evalkit import registry
    from evalkit.contracts import ModelOptions
    from evalkit.pipeline.job import make_job
    from evalkit.pipeline.plan import make_plan

    model = registry.model("mini-internvl-tiny", ModelOptions())
    times: dict[str, list[tuple[int, float]]] = {}
    for task in ("drivelm", "rsvqa-lr"):
        job = make_job(task, RunOptions("mini-internvl-tiny", split="miniature"))
        plan = make_plan(job.request(position) for position in range(len(job.samples)))
        times[task] = []
        for group in plan.groups:
            started = time.perf_counter()
            list(model.generate([job.request(position) for position in group]))
            times[task].append((len(group), time.perf_counter() - started))
        seconds, requests = sum(s for _, s in times[task]), sum(n for n, _ in times[task])
        say(f"{task}: {requests} requests in {len(times[task])} groups, {seconds / requests:.3f} s a request")
    file.write_text(json.dumps(times))


def drawn(times: Sequence[tuple[int, float]], seconds: float) -> list[tuple[int, float]]:
    """Groups like the measured ones, until they are so many seconds' work."""
    chance, groups, work = random.Random(0), list[tuple[int, float]](), 0.0
    while work < seconds:
        groups.append(chance.choice(times))
        work += groups[-1][1]
    return groups


def simulations(file: Path, minutes: float, driver: Driver) -> None:
    """So many minutes' work for each worker, in several worlds."""
    for task, times in json.loads(file.read_text()).items():
        each = sum(s for _, s in times) / sum(n for n, _ in times)
        bound = each / (driver.request + driver.exchange / 64)
        say(f"\n{task}: {each:.3f} s a request; the driver keeps up with {bound:.0f} workers")
        for workers in (8, 64, 512):
            groups = drawn(times, 60 * minutes * workers)
            for name, world in worlds(groups, workers, driver):
                way = ranks if name.startswith("ranks") else simulate
                say(f"  {workers:>4} workers, {name:<40} {line(way(world))}")


def worlds(groups: Sequence[tuple[int, float]], workers: int, driver: Driver) -> Iterator[tuple[str, World]]:
    """What is compared."""
    equal = [1.0] * workers
    unequal = [1.0 if number % 4 else 0.33 for number in range(workers)]
    yield "equal", World(groups, equal, driver)
    yield "in plan order, chunks of one size", World(groups, equal, driver, kept=0, fixed=True)
    yield "a quarter of them 3 times slower", World(groups, unequal, driver)
    yield "1% lost an hour", World(groups, equal, driver, losses_an_hour=0.01)
    yield "100% lost an hour", World(groups, equal, driver, losses_an_hour=1.0)
    yield "ranks, equal", World(groups, equal, driver)
    yield "ranks, a quarter 3 times slower", World(groups, unequal, driver)


def line(outcome: Outcome) -> str:
    """Figures of one simulation."""
    return (
        f"{outcome.seconds:8.0f} s, efficiency {outcome.efficiency:6.1%}, tail {outcome.tail:7.1f} s, "
        f"driver {outcome.driver_busy:4.0%}, {outcome.losses} lost"
    )


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["overhead", "planned", "measure", "simulate"])
    parser.add_argument("file", type=Path, nargs="?", help="service times")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=5_000_000)
    parser.add_argument("--answered", type=int, default=200_000, help="of the planned ones")
    parser.add_argument("--minutes", type=float, default=10, help="of work for each simulated worker")
    parser.add_argument("--exchange", type=float, default=DRIVER.exchange, help="driver: s a hand-over")
    parser.add_argument("--request", type=float, default=DRIVER.request, help="driver: s a request")
    given = parser.parse_args()
    if given.what in ("measure", "simulate") and given.file is None:
        parser.error("name a file of service times")
    if given.what == "overhead":
        overhead(given.samples)
    elif given.what == "planned":
        planned(given.requests, given.answered)
    elif given.what == "measure":
        measure(given.file)
    else:
        simulations(given.file, given.minutes, Driver(given.exchange, given.request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
