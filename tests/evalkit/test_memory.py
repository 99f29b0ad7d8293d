"""Samples, responses and records of a run are in memory: at most 1.5 KB a sample of short questions."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalkit.contracts import ModelInfo, Request, Response
from evalkit.engines.base import InProcess
from evalkit.pipeline.job import make_job
from evalkit.pipeline.options import RunOptions
from evalkit.pipeline.plan import make_plan
from evalkit.pipeline.run import run_task
from evalkit.pipeline.score import score
from evalkit.store.responses import read_responses

#: Bytes a sample, as docs/performance.md promises.
BOUND = 1500
SAMPLES, IMAGES = 3000, 40


class AtOnce:
    """A model that says yes."""

    info = ModelInfo(name="at-once", fingerprint="0", dtype="float32", device="cpu")

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Answer in order."""
        for request in requests:
            yield request.id, Response("yes", "stop", 20, 256, 2, 0.25)

    def close(self) -> None:
        """Nothing to free."""


def draw(folder: Path) -> Path:
    """RSVQA-HR's files; the questions of an image lie far apart, as in the official ones."""
    from PIL import Image

    (folder / "Data").mkdir(parents=True)
    for number in range(IMAGES):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / "Data" / f"{number}.tif")
    questions, answers = [], []
    for number in range(SAMPLES):
        text = f"Is a small building number {number} present next to the road?"
        questions.append({"id": number, "img_id": number % IMAGES, "type": ("presence", "comp")[number % 2],
                          "question": text, "answers_ids": [number], "active": True})  # fmt: skip
        answers.append({"id": number, "question_id": number, "answer": "yes", "active": True})
    for name, rows in (("questions", questions), ("answers", answers)):
        (folder / f"USGS_split_test_{name}.json").write_text(json.dumps({name: rows}))
    return folder


def test_a_run_holds_a_bounded_amount_for_each_sample(tmp_path: Path) -> None:
    options = RunOptions("at-once", data_root=draw(tmp_path / "data"), output=tmp_path, quiet=True)
    folder = run_task("rsvqa-hr", InProcess(AtOnce()), options).path  # imports and fills caches, too
    gc.collect()
    tracemalloc.start()
    job = make_job("rsvqa-hr", options)
    plan = make_plan(job.request(position) for position in range(SAMPLES))
    responses = read_responses(folder)
    scored = score(job.task, job.samples, responses)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(job.samples) == plan.size == len(responses) == len(scored) == SAMPLES
    assert held / SAMPLES < BOUND
