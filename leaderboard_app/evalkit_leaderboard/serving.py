"""The app as a process that serves it."""

from __future__ import annotations

import importlib
import ipaddress
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalkit.errors import SetupError

LOOPBACK = "127.0.0.1"
LOOPBACKS = (LOOPBACK, "localhost", "::1")
#: Where the leaderboard listens unless told otherwise; the next free port where that one is taken.
PORT = 8501
_TRIES = 50


def command(runs: Path, training: Path, address: str, port: int) -> list[str]:
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
    given = ["--runs", str(runs.absolute()), "--training", str(training.absolute())]
    return [sys.executable, "-m", "evalkit_leaderboard", *flags, "--", *given]


def is_own_host(host: str, address: str) -> bool:
    """Whether a request's Host names this server, and not a foreign name that was made to lead here.

    Args:
        host: without port. address: where the server listens.

    DNS rebinding needs a name of the attacker's: numeric addresses are always safe.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in {"localhost", address.lower(), socket.gethostname().lower()}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return address not in LOOPBACKS and name == socket.getfqdn().lower()
    return True


def check_hosts(address: str) -> None:
    """Make this process's web server refuse pages and websockets asked for under a foreign name."""
    web: Any = importlib.import_module("tornado.web")  # Streamlit's server; it comes without types
    find = web.Application.find_handler

    def find_handler(self: Any, request: Any, **options: Any) -> Any:
        if is_own_host(request.host_name, address):
            return find(self, request, **options)
        return self.get_handler_delegate(request, web.ErrorHandler, {"status_code": 403})

    web.Application.find_handler = find_handler


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
