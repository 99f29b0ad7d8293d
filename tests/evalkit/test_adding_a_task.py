"""docs/adding-a-task.md: its task runs as shown, and its further methods fit in."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import toy
from scored_answers import GivenReplies, score_texts

from evalkit.contracts import Sample

HEAD = """
import json
import random
from collections.abc import Mapping
from evalkit import DataFile, DataSource, Generation, HubSource, ImagePolicy, JudgeQuestion
from evalkit import ParsedAnswer, Reference, Submission
from evalkit.task import Overlay, Region
from evalkit.errors import DataError
"""


def blocks(language: str = "python") -> list[str]:
    """Code blocks of the page."""
    page = toy.PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def whole_task() -> str:
    """The page's task with every method that the page shows for it."""
    methods = [block for block in blocks() if block.startswith("    ")]
    functions = [block for block in blocks() if block.startswith("def ")]
    assert len(methods) >= 5 and len(functions) == 2
    imports, task = toy.task_source().split("class YesNo")
    parts = [
        imports,
        HEAD,
        *functions,
        f"class YesNo{task}",
        '    protocols = ("paper", "official")',
        *methods,
    ]
    return "\n".join(parts)


def test_the_task_is_about_thirty_lines() -> None:
    assert len(toy.task_source().splitlines()) <= 32


def test_the_page_shows_a_task_that_runs(bench) -> None:
    assert bench.run() == 0
    assert bench.result["title"] == "Yes or no"


def test_every_shown_method_works_together(bench) -> None:
    bench.task.write_text(whole_task())
    assert bench.run("--split", "miniature") == 0
    assert bench.result["counts"]["expected"] == 20 and "gen:greedy,10" in bench.result["signature"]
    assert "tiles:6" in bench.result["signature"]
    first = bench.result
    assert bench.run("--split", "miniature", "--protocol", "official", "--no-resume") == 0
    assert "scorer:official.1" in bench.result["signature"]
    assert bench.result["signature"].split("prompt:")[1][:6] != first["signature"].split("prompt:")[1][:6]
    assert bench.cli("data", "where", "yes-no", "--include", bench.task) == 0
    assert "https://example.org/yes-no" in bench.out
    (bench.folder / "test.jsonl").unlink()
    assert bench.run() == 3
    assert "test.jsonl" in bench.err and "example.org" in bench.err


def test_the_shown_objects_are_used(bench) -> None:
    bench.task.write_text(whole_task())
    assert bench.run("--split", "miniature") == 0
    assert bench.result["reference"][0]["model"] == "Model-7B"
    assert bench.cli("export", "yes-no", bench.result["run"], "--include", bench.task) == 0
    assert len(json.loads(Path(bench.out.strip()).read_text())) == 20


def test_the_shown_judge_reads_what_the_rules_do_not(tmp_path: Path) -> None:
    names: dict[str, object] = {"__name__": "yes_no"}
    exec(compile(f"from __future__ import annotations\n{whole_task()}", "adding-a-task.md", "exec"), names)
    task = names["YesNo"]()  # type: ignore[operator]
    samples = [Sample(name, ("?",), (), "no", "c", {"kind": "k"}) for name in "ab"]
    judge = GivenReplies("no")
    read, judged = score_texts(task, samples, {"a": "Yes.", "b": "Hardly."}, judge)
    assert list(judge.asked) == ["b"] and judge.asked["b"].user == "Hardly."
    assert (read.scores, judged.scores) == ({"accuracy": 0.0}, {"accuracy": 1.0})
    assert (judged.flags, judged.data) == (("unparsed",), {"judge": "no"})


def test_the_shown_metric_computes_f1() -> None:
    import numpy as np

    from evalkit.contracts import Record
    from evalkit.metrics.base import Metric, ratio

    (source,) = [block for block in blocks() if block.startswith("class F1")]
    names: dict[str, object] = {"Metric": Metric, "ratio": ratio, "np": np}
    exec(compile(source, "adding-a-task.md", "exec"), names)
    metric = names["F1"]("f1")  # type: ignore[operator]
    scores = [{"tp": 3.0, "fp": 1.0, "fn": 0.0}, {"tp": 0.0, "fp": 1.0, "fn": 2.0}]
    records = [Record(str(i), "c", "", None, None, score) for i, score in enumerate(scores)]
    assert metric.value(metric.statistics(records).sum(axis=0)) == 100 * 6 / (6 + 2 + 2)
    assert np.isnan(metric.value(np.zeros(3)))


def test_the_shown_tests_pass(bench, tmp_path: Path, monkeypatch) -> None:
    (source,) = [block for block in blocks() if "def test_known_answers" in block]
    (tmp_path / "yes_no.py").write_text(whole_task())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(
        compile(textwrap.dedent(source).replace("mini-internvl-tiny", "fake"), "adding-a-task.md", "exec"),
        names,
    )
    for number, name in enumerate(["test_known_answers", "test_the_whole_path"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        names[name](folder)  # type: ignore[operator]
