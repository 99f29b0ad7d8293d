"""Reasoning through every kind of model: think tags survive decoding; a budget used up by them is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Server, completion
from small_tokenizers import write_phi3, write_qwen3
from small_vlms import make_vlm
from toy import make_benchmark

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.contracts import Generation, Message, ModelOptions, Request, Response
from evalkit.reasoning import as_scored, cut_while_thinking, opened_by
from evalkit.store import load_run
from evalkit_models import hf, predictions, served
from evalkit_models.predictions import Predictions
from mini_internvl.tokenizers import read_tokenizer


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "families", lambda: (served.FAMILY, predictions.FAMILY))
    monkeypatch.setattr(registry, "_included", {})
    monkeypatch.chdir(tmp_path)
    return make_benchmark(tmp_path / "data", samples=6)


def run(
    task: Path, capsys: pytest.CaptureFixture[str], *flags: str, status: int = 0
) -> tuple[dict[str, Any], str]:
    command = ["run", "--include", str(task), "-t", "yes-no", "--data-root", str(task.parent), "--json"]
    assert invoke([*command, *flags]) == status
    out, err = capsys.readouterr()
    return json.loads(out)["runs"][0], err


CUT = "6 of 6 answers used up their 100 tokens while thinking and hold no answer"


def test_a_server_that_thinks_until_its_budget_ends(
    server: Server, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(body: dict[str, Any], attempt: int) -> tuple[int, object]:
        status, content = completion(None, "length")
        content["choices"][0]["message"]["reasoning_content"] = "hm"  # type: ignore[index]
        return status, content

    server.behave = behave
    found, told = run(bench, capsys, "-m", "openai:m", "--base-url", server.url)
    assert (found["counts"]["errors"], found["counts"]["truncated"]) == (0, 6)
    assert found["metrics"]["accuracy"]["value"] == 0.0 and CUT in found["notes"]
    assert "max_new_tokens=N gives more" in told


@pytest.mark.parametrize(
    ("text", "mode", "accuracy"),
    [
        ("<think>\nlet me see\n</think>\n\nyes", "strip", 66.7),
        ("let me see\n</think>\n\nyes", "strip", 66.7),
        ("<think>\nlet me see\n</think>\n\nyes", "keep", 0.0),
    ],
)
def test_a_server_without_a_reasoning_parser(
    text: str, mode: str, accuracy: float, server: Server, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behave = lambda body, attempt: completion(text)
    found, told = run(bench, capsys, "-m", "openai:m", "--base-url", server.url, "--reasoning", mode)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(accuracy, abs=0.1)
    assert ("hold reasoning in think tags, which was scored" in told) is (mode == "keep")
    assert ("reasoning:strip" in found["signature"]) is (mode == "strip")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "thinking"])
def test_predictions_with_reasoning_beside_the_answer(
    field: str, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": n, "text": "yes", field: "hm", "finish_reason": "stop"} for n in range(4)
    ]
    rows += [{"id": n, "text": None, field: "hm", "finish_reason": "length"} for n in (4, 5)]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = run(bench, capsys, "-m", "predictions:p.jsonl")
    assert found["counts"]["reasoning"] == 6 and found["counts"]["truncated"] == 2
    assert "2 of 6 answers used up their 100 tokens while thinking and hold no answer" in found["notes"]


def test_predictions_that_end_in_an_open_tag(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.jsonl").write_text("".join(f'{{"id": {n}, "text": "<think>hm"}}\n' for n in range(6)))
    for mode, text in (("auto", "<think>hm"), ("strip", "")):
        found, _ = run(bench, capsys, "-m", "predictions:p.jsonl", "--reasoning", mode)
        assert found["counts"]["truncated"] == 6 and CUT in found["notes"]
        assert found["metrics"]["accuracy"]["value"] == 0.0 and found["counts"]["errors"] == 0
        assert {record.text for record in load_run(Path(found["run"])).records()} == {text}
    assert Predictions(Path("p.jsonl")).info.name == "predictions:p.jsonl"


def test_what_counts_as_cut() -> None:
    assert cut_while_thinking(Response("<think>a", "length"))
    assert cut_while_thinking(Response("", "length", reasoning="a"))
    assert cut_while_thinking(as_scored(Response("<think>a", "length"), "strip", False))
    assert not cut_while_thinking(Response("", "length"))
    assert not cut_while_thinking(Response("<think>a</think>b", "length"))
    assert not cut_while_thinking(Response("", "stop", reasoning="a"))


# Decoding ------------------------------------------------------------------------------------------------


def special(folder: Path) -> Path:
    """Make the think tags special tokens of a tokenizer."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    tags = [t for t in settings["added_tokens_decoder"].values() if "think>" in t["content"]]
    assert len(tags) == 2
    for tag in tags:
        tag["special"] = True
    settings["additional_special_tokens"] += ["<think>", "</think>"]
    path.write_text(json.dumps(settings))
    return folder


def test_the_1b_s_tokenizer_keeps_special_think_tags(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(special(write_qwen3(tmp_path)))
    assert tokenizer is not None and "<think>" in tokenizer.special_ids
    ids = tokenizer.encode("<think>hm</think>yes<|im_end|>")
    assert tokenizer.decode(ids) == "<think>hm</think>yes"
    assert tokenizer.decode(tokenizer.encode("no tag<|im_end|>")) == "no tag"


def test_the_sentencepiece_tokenizers_keep_special_think_tags(tmp_path: Path) -> None:
    folder = write_phi3(tmp_path)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    added = settings["added_tokens_decoder"]
    token = next(iter(added.values()))
    first = max(map(int, added)) + 1
    added.update({str(first + n): {**token, "content": tag} for n, tag in enumerate(("<think>", "</think>"))})
    settings["additional_special_tokens"] += ["<think>", "</think>"]
    path.write_text(json.dumps(settings))
    tokenizer = read_tokenizer(folder)
    assert tokenizer is not None and "<think>" in tokenizer.special_ids
    text = tokenizer.decode([first, *tokenizer.encode("a"), first + 1])
    assert text.startswith("<think>") and text.endswith("</think>")


def test_hf_keeps_special_think_tags_and_those_of_the_template(tmp_path: Path) -> None:
    folder = make_vlm("llava", tmp_path)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n<think>\n"))
    model = hf.FAMILY.load(f"hf:{folder}", ModelOptions(dtype="float32", device="cpu"))
    tokenizer = model._processor.tokenizer  # type: ignore[attr-defined]
    request = Request("a", (Message("user", "Why?"),), (), Generation(max_new_tokens=8))
    (response,) = dict(model.generate([request])).values()
    assert response.text.startswith("<think>")  # the template has opened it
    if response.finish == "length":
        assert cut_while_thinking(response)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    model._tags = hf._special_tags(tokenizer)  # type: ignore[attr-defined]
    assert sorted(model._tags.values()) == ["</think>", "<think>"]  # type: ignore[attr-defined]
    ids = tokenizer.encode("<think>hm</think>yes", add_special_tokens=False)
    made = model._response([*ids, 256], "", 1, 0, Generation(), 0.0)  # type: ignore[attr-defined]
    assert (made.text, made.finish) == ("<think>hm</think>yes", "stop")


def test_tags_that_a_template_opens() -> None:
    assert opened_by("assistant\n<think>\n") == "<think>" and opened_by("<think>x</think>") == ""
    assert opened_by("assistant◁think▷") == "◁think▷"
