"""The app as a process that serves it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evalkit.contracts import MAX_PIXELS
from evalkit.errors import SetupError

LOOPBACK = "127.0.0.1"
LOOPBACKS = (LOOPBACK, "localhost", "::1")
#: Where the leaderboard listens unless told otherwise; the next free port where that one is taken.
PORT = 8501
_TRIES = 50


def command(runs: Path, training: Path, address: str, port: int, max_pixels: int = MAX_PIXELS) -> list[str]:
    """The command line that serves the app."""
    from evalkit_leaderboard import theme

    settings = {
        "server.address": address,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "logger.level": "warning",
        **theme.options(),
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    flags += [f"--server.allowedHosts={name}" for name in own_hosts(address)]
    given = ["--runs", str(runs.absolute()), "--training", str(training.absolute())]
    given += ["--max-pixels", str(max_pixels)]
    return [sys.executable, "-m", "evalkit_leaderboard", *flags, "--", *given]


def own_hosts(address: str) -> list[str]:
    """Names under which the data may be asked for; empty for all of them.

    A server on this machine alone answers to this machine's own names, so that a foreign name that was made
    to lead here (DNS rebinding) opens no connection. Whoever listens on a network is reached by names that
    cannot be known here.
    """
    if address not in LOOPBACKS:
        return []
    return sorted({*LOOPBACKS, socket.gethostname().lower()})


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError:
        return False
    return True


def free_port(address: str, first: int = PORT) -> int | None:
    """The first free port from `first` on, or None where there is none near."""
    return next((port for port in range(first, first + _TRIES) if is_free(address, port)), None)


@contextmanager
def served(
    runs: Path, training: Path, environment: Mapping[str, str] | None = None, patience: float = 60.0
) -> Iterator[str]:
    """Serve the app on loopback for the length of a block; yields its address.

    Raises:
        SetupError: it does not answer within `patience` seconds.
    """
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        command(runs, training, LOOPBACK, port), stdout=subprocess.DEVNULL, env=environment
    )
    address = f"http://{LOOPBACK}:{port}"
    try:
        deadline = time.monotonic() + patience
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"{address}: the leaderboard did not start; its messages are above")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
