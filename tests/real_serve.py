"""A real `transformers serve` on a free port of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

MISSING = [
    name for name in ("fastapi", "openai", "uvicorn", "pydantic") if importlib.util.find_spec(name) is None
]
needs_serve = pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}")

#: Seconds until the server answers: it imports transformers, on a machine that may be busy.
START = 300.0

#: The command's own entry. InternVL's processor has a part for videos, which needs torchvision: without it,
#: the processor is the one that `hf:` uses.
PROGRAM = """
from pathlib import Path
import transformers
from evalkit_models.hf_loading import _processor
whole = transformers.AutoProcessor.from_pretrained
def processor(folder, **settings):
    transformers.AutoProcessor.from_pretrained = whole
    return _processor(Path(folder))
if not transformers.utils.is_torchvision_available():
    transformers.AutoProcessor.from_pretrained = processor
from transformers.cli.transformers import main
main()
"""


@contextlib.contextmanager
def served(folder: Path, work: Path) -> Iterator[str]:
    """The base URL of a server of the model in `folder`; its log and an empty cache stand in `work`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log, cache = work / "serve.log", work / "hub"
    cache.mkdir()  # the server lists the hub's cache, which a new machine does not have: then it answers 500
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.3)
    pytest.fail(f"transformers serve did not start: {log.read_text(errors='replace')[-2000:]}")
