"""`evalkit leaderboard`."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from evalkit.cli.main import invoke
from evalkit.installation import install_command
from evalkit_leaderboard import cli, serving, theme


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that would have been run."""
    commands: list[list[str]] = []

    def call(command: list[str], **_: object) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    return commands


def test_it_listens_on_loopback_and_sends_nothing_home(
    started: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["leaderboard", "--runs", str(tmp_path)]) == 0
    (command,) = started
    assert "--server.address=127.0.0.1" in command and "--browser.gatherUsageStats=false" in command
    assert "--server.headless=true" in command and "--client.showErrorDetails=none" in command
    assert command[-4:-2] == ["--runs", str(tmp_path)]
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
    monkeypatch.setattr(subprocess, "call", lambda command, **_: 1)
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
