"""The app as a process that serves it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from evalkit.cli.terminal import interruptible
from evalkit.contracts import MAX_PIXELS
from evalkit.errors import SetupError, UsageError

LOOPBACK = "127.0.0.1"
LOOPBACKS = (LOOPBACK, "localhost", "::1")
#: Where the leaderboard listens unless told otherwise; the next free port where that one is taken.
PORT = 8501
_TRIES = 50
#: Seconds that the server has to end in.
_GRACE = 5.0
#: What lies between two slashes of a base path.
_PART = re.compile(r"[A-Za-z0-9._~-]+")


def command(
    runs: Sequence[Path],
    training: Path,
    address: str,
    port: int,
    max_pixels: int = MAX_PIXELS,
    base_path: str = "",
) -> list[str]:
    """The command line that serves the app; `base_path` is as `base_of` gives it."""
    from evalkit_leaderboard import theme

    settings = {
        "server.address": address,
        "server.port": str(port),
        "server.baseUrlPath": base_path,
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
    given = [word for folder in runs for word in ("--runs", str(folder.absolute()))]
    given += ["--training", str(training.absolute()), "--max-pixels", str(max_pixels)]
    return [sys.executable, "-m", "evalkit_leaderboard", *flags, "--", *given]


def base_of(path: str) -> str:
    """`/team/board/` as `team/board`; `/` as nothing.

    Raises:
        UsageError: no path that an address can have.
    """
    parts = [part for part in path.split("/") if part]
    if any(part.strip(".") == "" or not _PART.fullmatch(part) for part in parts):
        raise UsageError(
            f"--base-path {path}: not a path; letters, digits and -_.~ between slashes, as in /board"
        )
    return "/".join(parts)


def serve(command_line: Sequence[str]) -> int:
    """Run the server until it ends or this process is interrupted or terminated; its exit status, then 0."""
    server = None
    try:
        with interruptible():
            server = subprocess.Popen(command_line, stdout=subprocess.DEVNULL)
            return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        if server is not None:
            _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """No process is left, whatever connections are open."""
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(_GRACE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


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
    runs: Sequence[Path],
    training: Path,
    environment: Mapping[str, str] | None = None,
    patience: float = 60.0,
    base_path: str = "",
) -> Iterator[str]:
    """Serve the app on loopback for the length of a block; yields its address.

    Raises:
        SetupError: it does not answer within `patience` seconds.
    """
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        command(runs, training, LOOPBACK, port, base_path=base_path),
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    address = f"http://{LOOPBACK}:{port}" + (f"/{base_path}" if base_path else "")
    try:
        deadline = time.monotonic() + patience
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"{address}: the leaderboard did not start; its messages are above")
            time.sleep(0.1)
        yield address
    finally:
        _end(process)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
