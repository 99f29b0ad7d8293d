"""A run folder may be somebody else's: nothing that it names is contacted, imported or taken on trust."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toy import command

import evalkit.judge
from evalkit.contracts import Failure
from evalkit.judge import StoredReplies
from evalkit.store import load_run
from evalkit.store.folder import place_of_runs
from evalkit.task import JudgeQuestion


def _manifest(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("replies", ["", '{"key": "x", "reply": "1"}\n'])
def test_a_judge_that_a_manifest_names_is_never_asked(
    replies: str, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(evalkit.judge, "Judge", lambda url, *_: asked.append(url))
    monkeypatch.setenv("EVALKIT_JUDGE_KEY", "secret")
    assert bench.run() == 0
    folder = Path(bench.result["run"])
    _manifest(folder, judge={"url": "http://127.0.0.1:9/v1", "model": "j"})
    (folder / "judge.jsonl").write_text(replies)
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.run() == 0
    assert asked == []


def test_stored_replies_are_found_and_the_others_are_said(tmp_path: Path) -> None:
    known, new = JudgeQuestion("", "known"), JudgeQuestion("", "new")
    key = evalkit.judge._reply_key("j", known, "", 0)
    (tmp_path / "judge.jsonl").write_text(json.dumps({"key": key, "reply": "7"}) + "\ntorn")
    found = dict(StoredReplies("j", tmp_path / "judge.jsonl").replies({"a": known, "b": new}))
    assert found["a"] == "7"
    assert isinstance(found["b"], Failure) and "--judge URL" in found["b"].message


def _rewrite(folder: Path, ids: set[str]) -> None:
    """Other request keys for some stored responses."""
    path = next(folder.glob("responses-*.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(
            json.dumps({**row, "request_key": "0" * 32} if row["id"] in ids else row) + "\n" for row in rows
        )
    )


def test_responses_to_other_requests_are_not_scored(bench: Any) -> None:
    assert bench.run() == 0
    folder = Path(bench.result["run"])
    _rewrite(folder, {"0", "3"})
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["counts"]["answered"] == 18 and bench.result["status"] == "partial"
    assert "2 responses are to other requests" in bench.err
    assert bench.run() == 0
    assert bench.result["counts"]["answered"] == 20 and bench.result["status"] == "complete"


def test_only_foreign_responses(bench: Any) -> None:
    assert bench.run() == 0
    folder = Path(bench.result["run"])
    _rewrite(folder, {str(number) for number in range(20)})
    assert bench.cli("score", folder, "--include", bench.task) == 3
    assert "20 responses are to other requests" in bench.err


def test_images_that_changed_make_their_responses_foreign_and_lost_ones_do_not(bench: Any) -> None:
    assert bench.run() == 0
    folder = Path(bench.result["run"])
    (bench.folder / "p0.png").unlink()
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["counts"]["answered"] == 20 and "the images of 4 samples are gone" in bench.err
    Image.new("RGB", (9, 9)).save(bench.folder / "p0.png")
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["counts"]["answered"] == 16


def test_unknown_predictions_are_still_counted_after_score(bench: Any, predictions: Any) -> None:
    lines = [json.dumps({"id": str(number), "text": "Yes"}) for number in (*range(20), 77, 78)]
    file = predictions("p.jsonl", "\n".join(lines) + "\n")
    assert bench.run(model=f"predictions:{file}") == 0
    assert bench.result["counts"]["unknown"] == 2
    folder = Path(bench.result["run"])
    for _ in range(2):
        assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
        assert bench.result["counts"]["unknown"] == 2
    (folder / "summary.json").unlink()
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["counts"]["unknown"] == 2


def test_folders_of_a_killed_process_are_taken_away(bench: Any) -> None:
    parent = place_of_runs(bench.output, "fake", "yes-no", "test")
    (parent / ".new-20260101-000000-abcdef").mkdir(parents=True)
    assert bench.run() == 0
    assert not list(parent.glob(".new-*"))


def test_sigterm_on_score_ends_with_130(bench: Any, tmp_path: Path) -> None:
    assert bench.run() == 0
    folder = bench.result["run"]
    mark = tmp_path / "scoring"
    source = bench.task.read_text()
    slow = tmp_path / "slow.py"
    waits = f"    def score(self, sample, response):\n        open({str(mark)!r}, 'w'); time.sleep(60)\n"
    assert "    def score(" in source
    renamed = source.replace("    def score(", waits + "\n    def _score(", 1)
    slow.write_text(renamed.replace("from __future__ import annotations", "", 1).join(("import time\n", "")))
    process = subprocess.Popen(command("score", folder, "--include", str(slow)), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in said and b"Traceback" not in said
    assert load_run(folder).summary is not None
