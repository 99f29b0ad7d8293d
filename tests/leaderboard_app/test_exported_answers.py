"""What the static board says of each sample: its row of answers, without a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evalkit.contracts import Failure, Record
from evalkit_leaderboard.components import LONGEST_TEXT, Quote
from evalkit_leaderboard.exported import pages, pairs, training
from evalkit_leaderboard.exported.samples import _row
from evalkit_leaderboard.matrix import Matrix, build


def held(score: str = "accuracy", question: str = "What?", **fields: Any) -> Any:
    """A run that holds one sample."""
    content: dict[str, Any] = {"scores": {"accuracy": 1.0}, "tags": {"type": "count"}, **fields}
    record = Record("s", "c", content.pop("text", "B"), content.pop("prediction", None), "B", **content)
    return SimpleNamespace(chosen={"s": SimpleNamespace(record=record, question=question)}, score=score)


def row(one: Any) -> list[Any]:
    _, rows = _row("s", {"run": one})
    return rows["run"]


def test_what_was_read_stands_beside_an_answer_that_it_differs_from() -> None:
    assert row(held(text="It is B.", prediction="B"))[:2] == ["It is B.", "B"]
    assert row(held(text="B", prediction="B"))[:2] == ["B", ""]
    assert row(held(text="B", prediction=None))[:2] == ["B", ""]
    assert row(held(text="[1, 2]", prediction=[1, 2]))[:2] == ["[1, 2]", "[1, 2]"]


def test_scores_outcome_flags_and_error() -> None:
    assert row(held(flags=("unparsed",)))[2:6] == [{"accuracy": "1"}, "right", ["unparsed"], ""]
    outcomes = {1.0: "right", 0.25: "between", 0.0: "wrong"}
    assert [row(held(scores={"accuracy": value}))[3] for value in outcomes] == list(outcomes.values())
    assert row(held(score="other"))[3] == "not scored"
    failed = row(held(text="kept", error=Failure("image", "gone"), flags=("error",)))
    assert (failed[0], failed[3], failed[5]) == ("", "no answer", "image: gone")


def test_what_was_asked_stands_once_unless_runs_differ() -> None:
    runs = {"a": held(), "b": held(), "c": held(question="Which?"), "d": SimpleNamespace(chosen={}, score="")}
    shared, rows = _row("s", runs)
    assert shared == ["What?", "B", {"type": "count"}]
    assert list(rows) == ["a", "b", "c"]
    assert [rows[name][6] for name in rows] == [None, None, ["Which?", "B", {"type": "count"}]]


def test_the_training_page_draws_every_log(tmp_path: Path) -> None:
    assert "no training log" in training.page(Matrix((), (), {}), {}, [tmp_path])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": step, "loss": 4.5 / step, "lr": 1e-4}) for step in (1, 2)]
        (tmp_path / name / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))
    content = training.page(Matrix((), (), {}), {}, [tmp_path])
    assert 'data-name="Training log: loss"' in content and 'data-name="Training log: lr"' in content
    for name in ("one", "two"):
        assert re.search(rf"{name}</th><td>2</td><td>2.25</td>", content), content


def test_a_quoted_text_is_shown_as_it_is_and_an_empty_one_as_empty() -> None:
    assert "(empty)" in Quote("New answers", "").render()
    whole = Quote("New answers", "a <b>\n").render()
    assert "<pre>a &lt;b&gt;&#10;</pre>" in whole and "(empty)" not in whole and "characters" not in whole
    cut = Quote("New answers", "x" * (LONGEST_TEXT + 1)).render()
    assert f"the first {LONGEST_TEXT:,} of {LONGEST_TEXT + 1:,} characters" in cut
    assert cut.count("x") == LONGEST_TEXT


def test_published_rows_are_folded_away_only_beside_measured_ones() -> None:
    published = build({})
    assert published.rows and 'class="published"' in pages.overview(published, published.rows, {})
    assert "away" not in pages.overview(published, published.rows, {})
    ours = replace(published.rows[0], label="ours", published=False)
    content = pages.overview(published, [ours, *published.rows[1:3], replace(ours, current=False)], {})
    assert re.findall(r'<tr class="([^"]*)">', content)[:4] == ["", *["published away"] * 2, "earlier away"]


def test_equal_texts_are_kept_once_and_name_no_path() -> None:
    texts = pairs._Texts()
    paths = {"/home/me/runs/a/1": "a", "/home/me/runs/b/2": "b"}
    plain = partial(pairs._unplaced, paths=paths)
    content = {
        "said": ["/home/me/runs/b/2: 3 fewer", "same", "same"],
        "note": {"of": "/home/me/runs/a/1, same"},
    }
    assert texts.numbered(content, plain) == {"said": [0, 1, 1], "note": {"of": 2}}
    assert texts.all == ["b: 3 fewer", "same", "a, same"]
