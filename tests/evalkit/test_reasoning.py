"""Reasoning in answers: told apart, kept, and scored only where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import FakeModel, make_benchmark

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.contracts import Response
from evalkit.reasoning import LMMS_TAGS, as_scored, split_reasoning
from evalkit.store import load_run


@pytest.mark.parametrize(
    ("text", "answer", "reasoning", "unfinished"),
    [
        ("yes", "yes", "", False),
        (" yes ", " yes ", "", False),
        ("<think>\nhm\n</think>\n\nyes", "yes", "hm", False),
        ("hm</think>yes", "yes", "hm", False),
        ("<think>a</think>x<think>b</think> y", "x y", "a\nb", False),
        ("<think>a<think>b</think>c</think>d", "d", "a<think>b\nc", False),
        ("<analysis>a</analysis><think>b</think>d", "d", "b\na", False),
        ("<think>still", "", "still", True),
        ("yes <think>more", "yes", "more", True),
        ("◁think▷hm◁/think▷ja", "ja", "hm", False),
        ("<think></think>yes", "yes", "", False),
        ("a < b > think", "a < b > think", "", False),
    ],
)
def test_split(text: str, answer: str, reasoning: str, unfinished: bool) -> None:
    split = split_reasoning(text)
    assert (split.answer, split.reasoning, split.unfinished) == (answer, reasoning, unfinished)


@pytest.mark.parametrize(
    "text", ["<think>still", "a</think>b<think>c", "<THINK>a</THINK>b", "<thinking>a</thinking>b"]
)
def test_lmms_eval_leaves_what_it_leaves(text: str) -> None:
    assert as_scored(Response(f" {text}\n"), "auto", True).text == text
    assert split_reasoning(text, LMMS_TAGS, open_end=False).answer == text


def test_modes() -> None:
    given = Response(" <think>hm</think> yes ", "stop", reasoning="before")
    assert as_scored(given, "auto", False) == given == as_scored(given, "keep", True)
    for stripped in (as_scored(given, "strip", False), as_scored(given, "auto", True)):
        assert (stripped.text, stripped.reasoning, stripped.finish) == ("yes", "before\nhm", "stop")
    assert as_scored(Response(" yes "), "strip", False).text == " yes "
    for mode in ("auto", "keep", "strip"):  # a budget used up while thinking
        assert as_scored(Response("<think>hm"), mode, False).finish == "length"


class Thinker(FakeModel):
    def __init__(self) -> None:
        super().__init__(
            answers={str(n): f"<think>well {n}</think>\nYes" for n in range(19)} | {"19": "<think>cut"}
        )


@pytest.fixture
def thinker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from toy import FakeFamily

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "families", lambda: (FakeFamily(Thinker()),))
    return make_benchmark(tmp_path / "data")


def run(task: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[dict, str]:
    command = [
        "run",
        "--include",
        str(task),
        "-m",
        "fake",
        "-t",
        "yes-no",
        "--data-root",
        str(task.parent),
        "--json",
    ]
    assert invoke([*command, *flags]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out)["runs"][0], captured.err


def test_a_run_says_that_reasoning_was_scored_and_scores_without_it(
    thinker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, said = run(thinker, capsys)
    assert (
        "20 of 20 answers hold reasoning" in said
        and "1 of 20 answers used up" in said
        and "--reasoning strip" in said
    )
    assert raw["counts"]["truncated"] == 1 and any("hold reasoning" in note for note in raw["notes"])
    assert raw["metrics"]["accuracy"]["value"] == 0 and "reasoning" not in raw["signature"]

    assert invoke(["score", raw["run"], "--include", str(thinker), "--reasoning", "strip", "--json"]) == 0
    captured = capsys.readouterr()
    stripped = json.loads(captured.out)["runs"][0]
    assert "hold reasoning" not in captured.err and stripped["metrics"]["accuracy"]["value"] > 50
    assert "|reasoning:strip|" in stripped["signature"]
    assert stripped["counts"] | {"reasoning": 20, "truncated": 1} == stripped["counts"]
    stored = load_run(Path(raw["run"]))
    records = {record.id: record for record in stored.records()}
    assert records["1"].text == "Yes" and records["1"].data["reasoning"] == "well 1"
    assert records["19"].text == "" and "truncated" in records["19"].flags
    assert stored.responses()["1"].response.text.startswith("<think>")

    # scored again, it is scored as it was last; the same command of `run` goes back without asking anything
    assert invoke(["score", raw["run"], "--include", str(thinker), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["metrics"] == stripped["metrics"]
    again, _ = run(thinker, capsys)
    assert again["run"] == raw["run"] and again["metrics"] == raw["metrics"]
