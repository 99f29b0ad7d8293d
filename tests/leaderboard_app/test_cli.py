"""`evalkit leaderboard`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest

from evalkit.cli.main import invoke
from evalkit.installation import install_command
from evalkit_leaderboard import cli, folders, serving, theme


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that would have been run."""
    commands: list[list[str]] = []

    def serve(command: list[str]) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(cli, "serve", serve)
    return commands


def test_it_listens_on_loopback_and_sends_nothing_home(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["leaderboard", "--runs", str(tmp_path)]) == 0
    (command,) = started
    assert "--server.address=127.0.0.1" in command and "--browser.gatherUsageStats=false" in command
    assert "--server.headless=true" in command and "--client.showErrorDetails=none" in command
    assert command[command.index("--runs") + 1] == str(tmp_path)
    assert "http://127.0.0.1:" in capsys.readouterr().out


def test_a_taken_port_is_refused_in_one_line(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert invoke(["leaderboard", "--runs", str(tmp_path), "--port", port]) == 2
    message = capsys.readouterr().err
    assert f"--port {port}: taken" in message and message.count("\n") == 1 and not started


def test_a_folder_that_is_not_there_yet_is_warned_of(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["leaderboard", "--runs", str(tmp_path / "later")]) == 0
    assert "no such folder yet" in capsys.readouterr().err and started


def test_several_folders_and_a_base_path(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    arguments = ["leaderboard", "--runs", str(first), "--runs", str(second), "--base-path", "/team/board/"]
    assert invoke(arguments) == 0
    (command,) = started
    assert "--server.baseUrlPath=team/board" in command
    assert [after for flag, after in pairwise(command) if flag == "--runs"] == [str(first), str(second)]
    assert "/team/board " in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/a b", "/../x", "https://host/x", "/x?y=1"])
def test_what_is_no_base_path_is_refused(
    started: list[list[str]], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["leaderboard", "--base-path", path]) == 2 and not started
    message = capsys.readouterr().err
    assert f"--base-path {path}: not a path" in message and message.count("\n") == 1


def test_empty_and_read_only_folders_are_said_in_one_line(
    started: list[list[str]], tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tree.parent / "empty"
    empty.mkdir()
    monkeypatch.setattr(folders.os, "access", lambda path, mode: not (path == tree and mode & os.W_OK))
    assert invoke(["leaderboard", "--runs", str(empty), "--runs", str(tree)]) == 0 and started
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {empty}: no run in it yet",
        f"warning: {tree}: its runs are shown; it is read-only, so no run can be written there",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the server's process in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_once_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    """With a page open, whose connection the server would wait for."""
    port = serving.free_port("127.0.0.1")
    arguments = ["leaderboard", "--runs", str(tmp_path), "--port", str(port), "--base-path", "board"]
    process = subprocess.Popen([sys.executable, "-m", "evalkit", *arguments])
    try:
        assert port is not None
        server = _server(process.pid, port)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as page:
            host = f"127.0.0.1:{port}"
            page.sendall(
                f"GET /board/_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert page.recv(1024).split()[1] == b"101"
            process.send_signal(number)
            assert process.wait(20) == (0 if number != signal.SIGKILL else -signal.SIGKILL)
            gone = time.monotonic() + 20
            while server.exists() and server.read_bytes():  # an ended one that nobody waited for has no words
                assert time.monotonic() < gone, "the server goes on"
                time.sleep(0.1)
    finally:
        process.kill()


def _server(parent: int, port: int) -> Path:
    """The file of the server's command line while it runs, once it answers."""
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/board/_stcore/health", timeout=2):
            (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            return Path(f"/proc/{child}/cmdline")
        time.sleep(0.2)
    raise AssertionError("the leaderboard did not start")


@pytest.mark.parametrize("package", ["streamlit", "altair", "duckdb"])
def test_without_a_package_of_its_extra_it_says_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == package else name)
    assert invoke(["leaderboard"]) == 2
    needs = f"`evalkit leaderboard` needs the package {package}: {install_command('leaderboard')}"
    assert capsys.readouterr().err == f"evalkit: error: {needs}\n"


def test_a_server_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "serve", lambda command: 1)
    assert invoke(["leaderboard", "--runs", str(tmp_path)]) != 0
    assert "ended with status 1" in capsys.readouterr().err


def test_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = serving.free_port("127.0.0.1", port)
    assert found is not None and found > port


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK])
def test_text_is_readable_in_both_themes(colours: theme.Palette) -> None:
    """WCAG 2 level AA: 4.5 for text, 3 for graphics."""
    for ground in (colours.background, colours.raised, colours.best, colours.published):
        assert contrast(colours.text, ground) >= 7
        assert contrast(colours.muted, ground) >= 4.5
    assert contrast(colours.bad, colours.background) >= 4.5
    assert all(contrast(colour, colours.background) >= 2.4 for colour in colours.series)
