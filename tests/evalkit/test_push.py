"""`evalkit push`: the list, the cards, and the upload to a local stand-in for the Hub."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from http_server import LocalServer, body_of
from small_training import write_checkpoint

import evalkit
from evalkit.cli.main import invoke

TOKEN = "hf_" + "x" * 34


class Hub:
    """Takes commits; `refuse` answers 403."""

    def __init__(self) -> None:
        self.refuse = False
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.server = LocalServer(self.handle)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        self.tokens.add(request.headers.get("Authorization") or "")
        answer: dict[str, Any] = {}
        if request.path == "/api/repos/create":
            self.created.append(json.loads(body))
            answer = {"url": f"{self.server.origin}/me/it"}
        elif "/preupload/" in request.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]}
        elif "/commit/" in request.path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            answer = {"commitUrl": f"{self.server.origin}/me/it/commit/{'0' * 40}", "commitOid": "0" * 40}
        self.send(request, 403 if self.refuse else 200, answer)

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    one = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", one.server.origin)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield one
    one.server.close()


def run_of(model: str, folder: Path, **options: Any) -> Path:
    result = evalkit.run(model, "chartqa", split="miniature", limit=3, output=folder, quiet=True, **options)
    return result.path


def test_results_become_a_dataset_with_a_card(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("mini-internvl-tiny", tmp_path / "runs")
    assert invoke(["push", str(run), "--to", "me/it"]) == 0
    shown = capsys.readouterr().out
    assert "README.md" in shown and "records.parquet" in shown and "nothing was uploaded" in shown
    assert not hub.files and not hub.created
    assert invoke(["push", str(run), "--to", "me/it", "--yes", "--private"]) == 0
    assert f"{hub.server.origin}/me/it/commit/" in capsys.readouterr().out
    assert hub.created[0]["type"] == "dataset" and hub.created[0]["visibility"] == "private"
    (summary,) = (name for name in hub.files if name.endswith("summary.json"))
    assert hub.files[summary] == (run / "summary.json").read_bytes()
    from huggingface_hub import DatasetCard

    card = DatasetCard(hub.files["README.md"].decode())
    assert [config["data_files"] for config in card.data.configs] == [
        summary.replace("summary.json", "records.parquet")
    ]
    assert "partial" in card.text and TOKEN not in "".join(map(str, hub.files.values()))
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"}


def test_a_checkpoint_becomes_a_model_whose_card_has_its_scores(hub: Hub, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    for name in ("optimizer.pt", "notes.bin"):
        (folder / name).write_bytes(b"x")
    (folder / "training").mkdir()
    state = {
        "recipe": {"model": "OpenGVLab/InternVL2-1B", "optimizer.lr": 4e-5},
        "data": {"drivelm": "0"},
        "step": 20,
        "samples": 1234,
    }
    (folder / "training/state.json").write_text(json.dumps(state))
    run = run_of(str(folder), tmp_path / "runs")
    assert invoke(["push", str(folder), str(run), "--to", "me/it", "--yes", "--license", "mit"]) == 0
    assert {"config.json", "model.safetensors", "README.md"} <= hub.files.keys()
    assert not any(name.endswith((".pt", ".bin")) for name in hub.files)
    from huggingface_hub import ModelCard

    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.base_model == "OpenGVLab/InternVL2-1B" and card.data.license == "mit"
    assert not card.data.eval_results, "a miniature is not a benchmark"
    assert "1,234 samples" in card.text and "4e-05" in card.text and "chartqa" in card.text
    other = write_checkpoint(tmp_path / "other", seed=1)
    assert invoke(["push", str(other), str(run), "--to", "me/it", "--yes"]) == 3


def test_whole_runs_of_a_benchmark_enter_the_model_index(tmp_path: Path) -> None:
    from evalkit.publish.cards import model_card

    run = evalkit.load_run(run_of("mini-internvl-tiny", tmp_path / "runs"))
    run.summary["status"] = "complete"
    run.manifest["task"]["split"] = "test"
    from huggingface_hub import ModelCard

    card = ModelCard(model_card("me/it", None, [run], None))
    results = card.data.eval_results
    assert {result.metric_name for result in results} == {
        n for n, v in run.metrics.items() if v.value is not None
    }
    assert results[0].metric_value == run.metrics[results[0].metric_name].value
    assert results[0].dataset_split == "test"


def test_refusals(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    for arguments, status, text in (
        ([str(folder), "--to", "no-owner"], 2, "OWNER/NAME"),
        ([str(tmp_path / "empty"), "--to", "me/it"], 3, "neither a run folder"),
        ([str(folder), str(tmp_path / "empty"), "--to", "me/it"], 2, "one checkpoint at a time"),
    ):
        assert invoke(["push", *arguments]) == status
        assert text in capsys.readouterr().err
    hub.refuse = True
    assert invoke(["push", str(folder), "--to", "me/it", "--yes"]) == 3
    assert "nothing was published" in capsys.readouterr().err and not hub.files
