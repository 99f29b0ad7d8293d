"""The stories of the documentation are run as they stand, with the embedded model."""

from __future__ import annotations

import runpy
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from story_pages import blocks, follow

from evalkit import registry


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_included", {})


@pytest.mark.slow
def test_my_checkpoint_against_yesterdays(capsys: pytest.CaptureFixture[str]) -> None:
    follow("my-checkpoint.md", capsys)


def test_my_own_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    follow("my-benchmark.md", capsys)


def test_a_model_behind_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    (served,) = [block for block in blocks("my-server.md") if block.title == "serve.py"]
    Path("serve.py").write_text(served.text, encoding="utf-8")
    started: list[ThreadingHTTPServer] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadingHTTPServer, "serve_forever", lambda server: started.append(server))
        patch.setattr("sys.argv", ["serve.py", "0"])
        runpy.run_path("serve.py")
    (server,) = started
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        follow("my-server.md", capsys, port=server.server_port)
    finally:
        server.shutdown()
        server.server_close()
