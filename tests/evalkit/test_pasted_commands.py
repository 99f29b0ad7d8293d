"""What evalkit tells its user to type, typed as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from toy import FakeFamily, make_benchmark

from evalkit import registry
from evalkit.cli import terminal
from evalkit.cli.main import invoke
from evalkit.text import command, ordinal


@pytest.mark.parametrize("name", ["plain", "my runs", "it's $HOME & more"])
def test_what_stands_under_next_can_be_pasted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "families", lambda: (FakeFamily(),))
    monkeypatch.setattr(registry, "_included", {})
    task = make_benchmark(tmp_path / "data")
    arguments = ["run", "-m", "fake", "-t", "yes-no", "--include", str(task), "--data-root", str(task.parent)]
    assert invoke([*arguments, "-o", str(tmp_path / name)]) == 0
    lines = capsys.readouterr().out.partition("next:\n")[2].splitlines()
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.partition("  #")[0])
        words = ["0" if word == "ID" else word for word in words if word != "BASE"]
        if words[1] == "compare":
            words.append(words[-1])
        assert words[0] == "evalkit" and invoke(words[1:]) in (0, 5), capsys.readouterr().err
    (records,) = (tmp_path / name).rglob("records.parquet")
    records.unlink()
    capsys.readouterr()
    assert invoke(["show", str(records.parent), "--wrong"]) == 3
    told = re.findall(r"`([^`]*)`", capsys.readouterr().err)[-1]
    assert invoke([*shlex.split(told)[1:], "--include", str(task)]) == 0
    assert records.exists()


def test_quoting_and_ordinals() -> None:
    assert command("show", Path("a b"), "--sample", "x'y") == "evalkit show 'a b' --sample 'x'\"'\"'y'"
    numbers = [1, 2, 3, 4, 10, 11, 12, 13, 21, 22, 101, 111, 112, 1001]
    assert " ".join(map(ordinal, numbers)) == (
        "1st 2nd 3rd 4th 10th 11th 12th 13th 21st 22nd 101st 111th 112th 1001st"
    )


def test_what_the_user_typed_is_told_without_passwords() -> None:
    headers = 'extra_headers={"api-key": "abc", "X-Team": "$TEAM"}'
    shown = 'extra_headers={"api-key": "***", "X-Team": "$TEAM"}'
    typed = [
        "run",
        "-m",
        "http://me:pw@host/v1",
        "--gen",
        headers,
        f"--judge-gen={headers}",
        "-o",
        "a b@c",
        "",
    ]
    terminal.remember(typed)
    told = shlex.split(terminal.command_line())
    assert told == [
        "evalkit",
        "run",
        "-m",
        "http://host/v1",
        "--gen",
        shown,
        f"--judge-gen={shown}",
        "-o",
        "a b@c",
        "",
    ]
