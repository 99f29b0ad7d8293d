"""Scores under every protocol named after another harness are that harness's own; make.py made them.

python tests/peers/test_peers.py        writes the table of docs/protocols.md again
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path += map(str, (Path(__file__).parents[2], Path(__file__).parents[1]))  # as a script

from general_tables import plain_values

from evalkit import registry
from evalkit.contracts import Record, Response, Sample
from evalkit.pipeline.score import score
from evalkit.store import StoredResponse
from evalkit_tasks.base import PINNED

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parents[1] / "docs" / "protocols.md"
START, END = "<!-- made by tests/peers/test_peers.py -->\n", "<!-- end of it -->\n"
#: The score of a record that is the harness's score of an answer.
SCORES = {
    "chartqa": "accuracy",
    "dior-rsvg": "acc_0.5",
    "docvqa": "anls",
    "infovqa": "anls",
    "mathvista": "accuracy_rules",
    "mmbench": "circular",
    "ocrbench": "right",
    "textvqa": "vqa_accuracy",
}
LEAST = 300


class Stored(NamedTuple):
    """Samples by question, (question, answer, expected by protocol), and expected metrics by protocol."""

    samples: Mapping[str, Sample]
    answers: Sequence[tuple[str, str, Mapping[str, float | None]]]
    metrics: Mapping[str, Mapping[str, float]]


def read(task: str) -> Stored:
    """The stored comparison of a task."""
    lines = gzip.decompress((FOLDER / f"{task}.jsonl.gz").read_bytes()).decode().splitlines()
    items = [json.loads(line) for line in lines]
    samples = {
        item["id"]: Sample(item["id"], ("",), (), item["target"], item["id"], item["tags"], item["data"])
        for item in items
        if "id" in item
    }
    return Stored(samples, [tuple(item) for item in items if isinstance(item, list)], items[-1]["metrics"])


TASKS = sorted(path.name.removesuffix(".jsonl.gz") for path in FOLDER.glob("*.jsonl.gz"))
PAIRS = [(task, protocol) for task in TASKS for protocol in sorted(read(task).answers[0][2])]


def rounds(stored: Stored) -> Iterator[list[int]]:
    """Places of answers that are scored together: no question twice, as the circular score needs it."""
    seen = defaultdict[str, int](int)
    found = defaultdict[int, list[int]](list)
    for place, (question, *_) in enumerate(stored.answers):
        found[seen[question]].append(place)
        seen[question] += 1
    yield from found.values()


def records_of(task: str, protocol: str, stored: Stored) -> list[Record]:
    """The record of every answer, in order."""
    made: dict[int, Record] = {}
    for places in rounds(stored):
        texts = {stored.answers[place][0]: stored.answers[place][1] for place in places}
        samples = [stored.samples[question] for question in texts]
        given = {name: StoredResponse(name, "", Response(text=text)) for name, text in texts.items()}
        scored = score(registry.task(task, protocol), samples, given)
        made.update(zip(places, (item.record for item in scored), strict=True))
    return [made[place] for place in range(len(stored.answers))]


def compared(task: str, protocol: str) -> tuple[int, list[str]]:
    """How many answers were compared, and what differs."""
    stored, name, count, found = read(task), SCORES.get(task, "accuracy"), 0, list[str]()
    records = records_of(task, protocol, stored)
    for (question, text, expected), item in zip(stored.answers, records, strict=True):
        wanted = expected[protocol]
        if wanted is None:
            continue
        count += 1
        if item.scores[name] != pytest.approx(wanted, abs=1e-9):
            target = stored.samples[question].target
            found.append(f"{text!r} for {target!r}: {item.scores[name]}, the harness says {wanted}")
    return count, found


@pytest.mark.parametrize(("task", "protocol"), PAIRS)
def test_every_answer_scores_as_in_the_harness(task: str, protocol: str) -> None:
    count, found = compared(task, protocol)
    assert not found, f"{len(found)} of {count} differ\n" + "\n".join(found[:20])
    assert count >= LEAST  # of mmbench, base questions, each with its rotations


@pytest.mark.parametrize(("task", "protocol"), PAIRS)
def test_metrics_are_the_harness_s_own(task: str, protocol: str) -> None:
    stored = read(task)
    records = records_of(task, protocol, stored)
    answered = zip(records, stored.answers, strict=True)
    known = [item for item, (_, _, expected) in answered if expected[protocol] is not None]
    values = plain_values(registry.task(task, protocol), known)
    for name, wanted in stored.metrics.get(protocol, {}).items():
        assert values[name] == pytest.approx(wanted, abs=1e-6), name


def table() -> str:
    """The table of docs/protocols.md."""
    lines = ["| task | protocol | answers compared | differences |", "|---|---|---|---|"]
    for task, protocol in PAIRS:
        count, found = compared(task, protocol)
        lines.append(f"| {task} | `{protocol}` | {count} | {len(found)} |")
    return "".join(f"{line}\n" for line in lines)


def test_every_task_is_compared_under_every_name() -> None:
    known = registry.tasks()
    named = {
        (name, protocol) for name, kind in known.items() for protocol in kind.protocols if protocol in PINNED
    }
    assert set(PAIRS) == named
    for task, protocol in named:
        assert registry.task(task, protocol).scorer_version() == f"{protocol}.{PINNED[protocol]}"


def test_the_table_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text.partition(START)[2].partition(END)[0] == table()


if __name__ == "__main__":
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(START)
    DOCS.write_text(before + START + table() + END + rest.partition(END)[2], encoding="utf-8")
    sys.exit(0)
