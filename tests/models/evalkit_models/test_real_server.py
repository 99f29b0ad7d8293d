"""A real `transformers serve` behind a failing proxy: its answers are those of the model in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from real_serve import needs_serve, served
from small_vlms import make_vlm

from evalkit.cli.main import invoke
from evalkit.store import load_run
from evalkit_models import sending

pytestmark = [pytest.mark.slow, needs_serve]

_TASKS = "rsvqa-lr,drivelm"


@dataclass
class Real:
    """A running server and the folder of the model that it serves."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = make_vlm("llava", tmp_path_factory.mktemp("llava"))
    with served(folder, tmp_path_factory.mktemp("serve")) as url:
        yield Real(url, folder)


def run(
    capsys: pytest.CaptureFixture[str], output: Path, model: str, *arguments: str
) -> dict[str, dict[str, Any]]:
    """Stored answers by task and sample."""
    capsys.readouterr()
    fixed = ["--split", "miniature", "--limit", "12", "--gen", "max_new_tokens=8", "--json", "-q"]
    assert invoke(["run", "-m", model, "-t", _TASKS, "-o", str(output), *fixed, *arguments]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert all(found["counts"]["answered"] == 12 for found in runs)
    return {found["task"]: load_run(found["run"]).responses() for found in runs}


def test_through_a_failing_proxy_the_answers_are_those_of_this_process(
    real: Real, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BACKOFF", 0.05)
    inside = run(capsys, tmp_path / "inside", f"hf:{real.folder}", "--device", "cpu", "--dtype", "float32")
    proxy = FaultProxy(real.url, delay=12.0)
    try:
        more = ["--base-url", proxy.url, "--gen", "timeout=10"]
        outside = run(capsys, tmp_path / "outside", f"openai:{real.folder}", *more)
    finally:
        proxy.close()
    assert all(count >= 2 for count in proxy.done.values())
    for task, answers in inside.items():
        assert answers.keys() == outside[task].keys()
        for name, stored in answers.items():
            ours, theirs = stored.response, outside[task][name].response
            assert (theirs.text, theirs.finish) == (ours.text, ours.finish), (task, name)
            assert theirs.prompt_tokens == ours.prompt_tokens + ours.visual_tokens
            assert theirs.new_tokens == ours.new_tokens
            assert stored.request_key == outside[task][name].request_key
        assert len({stored.response.text for stored in answers.values()}) > 6


def test_open_requests_reach_a_real_server(
    real: Real, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", "-m", f"openai:{real.folder}", "-t", "rsvqa-lr", "--base-url", real.url, "--json", "-q"]
    asked += ["--split", "miniature", "--limit", "2", "--gen", "max_new_tokens=4", "-o", str(tmp_path)]
    assert invoke([*asked, "--gen", "omit=seed,temperature"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["counts"]["answered"] == 2 and "|gen:server,4|" in found["signature"]
    assert invoke([*asked, "--gen", 'extra_body={"no_such_field": 1}']) == 4
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["failures"] == {"refused": 2}  # the server's own words, after one attempt
    session = load_run(found["run"]).manifest["sessions"][-1]
    assert session["workers"]["sent"] == 2 and session["workers"]["again"] == 0


def test_doctor_tells_what_the_server_can(real: Real, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["doctor", "--base-url", real.url, "--model", f"openai:{real.folder}", "--json"]
    assert invoke(asked) == 0
    found = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    well = [name for name, finding in found.items() if finding["state"] == "ok"]
    assert {"chat", "usage", "image", "several images", "greedy"} <= set(well)
    assert found["models"]["found"] == "the list is empty"
    assert found["stop"]["state"] == "missing" and "send_stop=no" in found["stop"]["mend"]
    assert found["logprobs"]["state"] == "missing"
    assert invoke(asked[:3]) == 3
    assert "--model NAME" in capsys.readouterr().out
