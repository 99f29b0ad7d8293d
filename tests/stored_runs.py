"""Run folders with invented answers, written through the store like real ones, and their task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from evalkit.contracts import Failure, Record, Response, Sample
from evalkit.metrics.base import Accuracy, Metric, RootMeanSquare
from evalkit.pipeline.summary import counts, groups, metric_json, metric_values, status
from evalkit.store import ResponseLog, Scored, open_run, write_records
from evalkit.task import Task, record

FIELDS = {
    "n": "",
    "tiles": "12",
    "prompt": "40f71b",
    "gen": "greedy,50",
    "scorer": "paper.1",
    "dtype": "bf16",
    "data": "8a3d42",
    "evalkit": "0.1.0",
}


class Toy(Task):
    """Yes or no, with a number beside it."""

    name = "toy"
    splits = ("test", "val")
    protocols = ("paper", "official")
    group_by = ("kind",)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """The official file: one line a sample."""
        for line in (root / "toy.txt").read_text().splitlines():
            name, cluster, target = line.split()
            yield Sample(name, (f"{name}?",), (), target, cluster, {"kind": target})

    def score(self, sample: Sample, response: Response) -> Record:
        """Right or wrong."""
        right = float(response.text == sample.target)
        return record(
            sample, response, prediction=response.text, scores={"accuracy": right, "error": 1 - right}
        )

    def metrics(self) -> Sequence[Metric]:
        """Accuracy and an error."""
        return [Accuracy("accuracy"), RootMeanSquare("rmse", "error", unit="m/s")]


class General(Toy):
    """The same, of another domain."""

    name = "toy-general"


@dataclass
class Answers:
    """Invented outcomes: `right` [n] in clusters of `per_cluster`; ids in `failed` have no answer."""

    right: np.ndarray
    per_cluster: int = 5
    failed: frozenset[str] = frozenset()
    flagged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    error: float = 1.0

    def records(self) -> list[Record]:
        """Scored samples `s0`, `s1` ..., targets yes and no in turn."""
        found = []
        for place, right in enumerate(self.right):
            name, target = f"s{place}", ("yes", "no")[place % 2]
            text = target if right else ("no", "yes")[place % 2]
            gone = name in self.failed
            found.append(
                Record(
                    name,
                    f"c{place // self.per_cluster}",
                    "" if gone else text,
                    None if gone else text,
                    target,
                    {} if gone else {"accuracy": float(right), "error": self.error * (2.0 - right)},
                    {"kind": target},
                    ("error",) if gone else self.flagged.get(name, ()),  # type: ignore[arg-type]
                    error=Failure("image", "unreadable") if gone else None,
                )
            )
        return found


def write_run(
    output: Path,
    model: str,
    answers: Answers,
    *,
    task: Task | None = None,
    split: str = "test",
    fingerprint: str | None = None,
    checkpoint: str | None = None,
    created: str = "2026-01-01T00:00:00+00:00",
    fields: dict[str, str] | None = None,
    seconds: float = 1.0,
    key: str = "k",
    records: Sequence[Record] | None = None,
    limited: bool = False,
    summary: bool = True,
) -> Path:
    """Write a complete run; returns its folder.

    Args:
        fields: signature fields in place of `FIELDS`; key: prefix of every request hash.
        records: in place of those of `answers`. summary: False leaves the run without one.
    """
    task = task or Toy()
    found = list(answers.records() if records is None else records)
    manifest = {
        "created": created,
        "model": {"name": model, "revision": None, "fingerprint": fingerprint or model},
        "task": {"name": task.name, "protocol": task.protocol, "split": split},
        "settings": {"checkpoint": checkpoint},
    }
    signature = {**FIELDS, "n": str(len(found)), "scorer": task.scorer_version(), **(fields or {})}
    line = "|".join([task.name, "v1", split, *(f"{name}:{value}" for name, value in signature.items())])
    with open_run(output, model, task.name, split, "identity", manifest, resume=False) as folder:
        log = ResponseLog(folder.path / "responses-0.jsonl")
        scored = []
        for item in found:
            response = Response(item.text, "stop", seconds=seconds, error=item.error)
            log.append(item.id, key + item.id, response)
            scored.append(Scored(item, response, key + item.id, f"{item.id}?", ()))
        log.close()
        write_records(folder.path, scored)
        if summary:
            total = counts(found, len(found))
            folder.write_summary(
                {
                    "status": status(total, limited),
                    "model": model,
                    "task": task.name,
                    "split": split,
                    "protocol": task.protocol,
                    "counts": total,
                    "limited": limited,
                    "metrics": {n: metric_json(v) for n, v in metric_values(task, found).items()},
                    "groups": groups(task, found),
                    "reference": [],
                    "signature": line,
                }
            )
    return folder.path


def outcomes(share: float, n: int = 500, seed: int = 0) -> np.ndarray:
    """Right answers with this probability; the same seed gives nested outcomes for falling shares."""
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def junit_cases(document: str) -> dict[str | None, ElementTree.Element]:
    """The test cases by name; every suite counts the marks that stand in it."""
    cases: dict[str | None, ElementTree.Element] = {}
    for suite in ElementTree.fromstring(document.encode("utf-8")).findall("testsuite"):
        assert suite.get("tests") == str(len(suite)) and {case.tag for case in suite} == {"testcase"}
        for count, mark in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(count) == str(sum(case.find(mark) is not None for case in suite)), count
        assert all(sum(part.tag != "system-out" for part in case) <= 1 for case in suite)
        cases |= {case.get("name"): case for case in suite}
    assert cases
    return cases
