"""What a long run keeps in memory: places and sums, not samples, answers and records."""

from __future__ import annotations

import gc
import random
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from evalkit.contracts import Failure, Message, Record, Request, Response
from evalkit.data.images import ImageFile
from evalkit.metrics.base import Accuracy, Composite, Mean, Metric, RootMeanSquare, macro_mean
from evalkit.pipeline.plan import make_plan
from evalkit.pipeline.summary import Report, counts, groups
from evalkit.spool import Chosen, Spool
from evalkit.statistics import estimate_all
from evalkit.statistics.gathering import Gathering, by_record
from evalkit.store import ResponseLog, StoredResponse
from evalkit.store.response_index import ResponseIndex
from evalkit.store.responses import read_responses
from evalkit.task import Task


@pytest.mark.parametrize("length", [0, 1, 31, 4096, 4097, 5000])
def test_a_spool_is_the_list_that_went_in(length: int) -> None:
    items = [("x" * (n % 7), n) for n in range(length)]
    spool = Spool(iter(items))
    assert list(spool) == items and len(spool) == length
    for place in random.Random(0).choices(range(-length, length), k=200) if length else []:
        assert spool[place] == items[place]
    assert spool[3:4000:777] == items[3:4000:777]
    with pytest.raises(IndexError):
        spool[length]
    chosen = Chosen(spool, range(0, length, 3))
    assert list(chosen) == items[::3] and chosen[1:3] == items[::3][1:3]


def test_a_long_spool_holds_little_memory() -> None:
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    spool = Spool((f"Is building {n} present?", n, str(n)) for n in range(12_000))
    assert sum(number for _, number, _ in spool) == 12_000 * 11_999 // 2
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 12_000 * 100  # three objects and a tuple have 250


def test_index_plan_and_sums_hold_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("evalkit.scratch._SHORT", 1 << 14)  # as if there were more of them
    monkeypatch.setattr("evalkit.scratch._RUN", 1 << 8)
    count = 3000
    line = StoredResponse("{}", "0" * 32, Response("yes")).to_json()
    lines = "".join(line.replace("{}", f"sample {n}") + "\n" for n in range(count))
    (tmp_path / "responses-0.jsonl").write_text(lines)
    requests = (Request(str(n), (Message("user", "q"),), (ImageFile(f"{n}.png"),)) for n in range(count))
    gathering = Gathering([Accuracy("a", "right")])
    records = (Record(str(n), f"cluster {n}", "", None, "t", {"right": 1.0}) for n in range(count))
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    with ResponseIndex(tmp_path) as index:
        plan = make_plan(requests)
        while part := list(islice(records, 100)):
            gathering.add(part)
        del part
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(index) == plan.size == count and index["sample 7"].response.text == "yes"
    assert after - before < count * 40  # 8 are the plan's; a name in a dict has 150
    assert gathering.estimates()["a"].n == count


def test_the_index_is_what_reading_all_responses_gives(tmp_path: Path) -> None:
    drawn = random.Random(1)
    for worker in ("0", "1", "2"):
        log = ResponseLog(tmp_path / f"responses-{worker}.jsonl")
        for n in range(60):
            answer = Response(f"{worker} {n}") if n % 7 else Response(error=Failure("image", "gone"))
            log.append(f"s{drawn.randrange(40)}", f"key{n}", answer)
        log.close()
    with (tmp_path / "responses-1.jsonl").open("ab") as file:
        file.write(b'{"id": 3}\n{"id": "s1", "request_key": "torn')
    expected = read_responses(tmp_path)
    with ResponseIndex(tmp_path) as index:
        assert dict(index) == expected and len(index) == len(expected)
        assert "s1" in index and "nothing" not in index and index.get("nothing") is None
    with ResponseIndex(tmp_path / "empty") as empty:
        assert len(empty) == 0 and empty.get("s1") is None


def some_metrics() -> list[Metric]:
    """Of every kind that is summed while records pass by."""
    parts = [
        Accuracy("a", "right", select=lambda r: r.tags.get("kind") == "a"),
        Accuracy("b", "right", select=lambda r: r.tags.get("kind") == "b"),
    ]
    nested = Composite("nested", [macro_mean("inner", parts), Mean("error")], lambda v: v.sum(axis=-1))
    never = Accuracy("never", "right", select=lambda r: r.tags.get("kind") == "never")
    return [*parts, macro_mean("macro", parts), nested, RootMeanSquare("rms", "error", unit="m/s"), never]


def some_records(count: int, labelled: bool = True) -> list[Record]:
    """Clusters in no order, some failed, some without a kind."""
    drawn = random.Random(count)
    found = []
    for n in range(count):
        failed = drawn.random() < 0.1
        scores = {} if failed else {"right": float(drawn.random() < 0.4), "error": drawn.random()}
        tags = {"kind": drawn.choice("abc")} if drawn.random() < 0.9 else {}
        error = Failure("image", "gone") if failed else None
        target = "t" if labelled else None
        cluster = f"c{drawn.randrange(30)}"
        found.append(Record(str(n), cluster, "", None, target, scores, tags, error=error))
    return found


class Bench(Task):
    """Reports by kind."""

    name = "bench"
    group_by = ("kind",)

    def samples(self, split: str, root: Path) -> Any:
        """None."""
        return iter(())

    def score(self, sample: Any, response: Any) -> Record:
        """Never called."""
        raise NotImplementedError

    def metrics(self) -> list[Metric]:
        """All kinds."""
        return some_metrics()


@pytest.mark.parametrize("count,labelled", [(0, True), (1, True), (40, False), (500, True)])
def test_parts_give_what_all_records_at_once_give(count: int, labelled: bool) -> None:
    records = some_records(count, labelled)
    gathering, report = Gathering(some_metrics()), Report(Bench())
    for start in range(0, count, 37):
        gathering.add(records[start : start + 37])
        report.add(records[start : start + 37])
    assert gathering.estimates() == estimate_all(some_metrics(), records)
    assert report.metrics() == estimate_all(some_metrics(), records)
    assert report.counts(count + 1) == counts(records, count + 1)
    ours, theirs = report.groups(), groups(Bench(), records)
    assert {k: set(v) for k, v in ours.items()} == {k: set(v) for k, v in theirs.items()}
    for value, figures in theirs.get("kind", {}).items():
        for name, figure in figures.items():
            mine = ours["kind"][value][name]
            assert mine == {**figure, "value": figure["value"] and pytest.approx(figure["value"])}


def test_a_metric_of_another_kind_sees_all_records_at_once() -> None:
    class Corpus(Mean):
        """Counts how many records it is given."""

        def statistics(self, records: Any) -> Any:
            seen.append(len(records))
            return super().statistics(records)

    class WithCorpus(Bench):
        """Has one."""

        def metrics(self) -> list[Metric]:
            return [Corpus("right")]

    seen: list[int] = []
    assert not by_record(Corpus("right")) and not by_record(macro_mean("m", [Corpus("right")]))
    report = Report(WithCorpus())
    for start in range(0, 200, 50):
        report.add(some_records(200)[start : start + 50])
    assert report.metrics().keys() == {"right"} and report.groups()["kind"] and set(seen) == {200}
