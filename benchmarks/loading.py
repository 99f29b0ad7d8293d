"""Seconds and memory to load a million RSVQA-HR questions in the official format, beside `json.load`.

    python benchmarks/loading.py [--questions N] [--images N]

Each measurement runs in a process of its own, on the same files, and prints its peak memory above that of the
bare interpreter with the package imported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from evalkit.contracts import Sample
from evalkit_tasks.remote_sensing.rsvqa import RsvqaHr

TYPES = ("presence", "comp", "count", "area")
ANSWERS = ("yes", "no", "403", "9658m2")


def write_files(folder: Path, questions: int, images: int) -> None:
    """The two files of test1, indented by four like the official ones; every tenth record is a stub."""
    for part, row in (("questions", _question), ("answers", _answer)):
        with (folder / f"USGS_split_test_{part}.json").open("w", encoding="utf-8") as file:
            _write(file, part, (row(i, images) for i in range(questions * 10 // 9)))


def _write(file: TextIO, part: str, rows: Iterator[dict[str, Any]]) -> None:
    file.write(f'{{\n    "{part}": [\n')
    for position, row in enumerate(rows):
        body = {"id": position, "active": False} if position % 10 == 9 else row
        file.write((",\n" if position else "") + json.dumps(body, indent=4))
    file.write("\n    ]\n}\n")


def _question(i: int, images: int) -> dict[str, Any]:
    return {
        "id": i,
        "date_added": 1543644324.1270297,
        "img_id": i % images,
        "people_id": 0,
        "type": TYPES[i % 4],
        "question": f"Are there more residential buildings than {i % 977} roads next to a parking?",
        "answers_ids": [i],
        "active": True,
    }


def _answer(i: int, _: int) -> dict[str, Any]:
    return {
        "id": i,
        "date_added": 1543644324.1270324,
        "question_id": i,
        "people_id": 0,
        "answer": ANSWERS[i % 4],
        "active": True,
    }


def stream(folder: Path) -> int:
    """evalkit, one sample at a time."""
    return sum(1 for _ in RsvqaHr().samples("test1", folder))


def hold(folder: Path) -> int:
    """evalkit, all samples kept."""
    samples: list[Sample] = list(RsvqaHr().samples("test1", folder))
    return len(samples)


def whole(folder: Path) -> int:
    """json.load of both files and a join by position, as reference loaders do."""
    with (folder / "USGS_split_test_questions.json").open(encoding="utf-8") as file:
        questions = json.load(file)["questions"]
    with (folder / "USGS_split_test_answers.json").open(encoding="utf-8") as file:
        answers = json.load(file)["answers"]
    pairs = [(q["question"], answers[q["answers_ids"][0]]["answer"]) for q in questions if q["active"]]
    return len(pairs)


def _measure(work: Callable[[Path], int], folder: Path, results: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    count = work(folder)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    results.put((count, seconds, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)))


def main() -> None:
    """Prints a line for each way of loading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=2226)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.questions, options.images)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"{options.questions} questions on {options.images} images, {size:.0f} MB of JSON")
        for work in (stream, hold, whole):
            results = context.Queue()
            process = context.Process(target=_measure, args=(work, folder, results))
            process.start()
            count, seconds, peak = results.get()
            process.join()
            print(f"{str(work.__doc__).rstrip('.'):62s} {count:8d} {seconds:7.1f} s {peak:7.0f} MiB")


if __name__ == "__main__":
    main()
