"""SIGTERM ends any command with 130 and a line, also those that write nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SLOW = """
import sys, types, time, click
module = types.ModuleType("slow_command")
module.command = click.Command("x", callback=lambda: (print("ready", flush=True), time.sleep(60)))
sys.modules["slow_command"] = module
from evalkit.cli import main
main.COMMANDS["compare"] = main.COMMANDS["list"] = ("slow_command:command", "")
sys.argv = ["evalkit", sys.argv[1]]
main.main()
"""


@pytest.mark.parametrize("command", ["compare", "list"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_any_command_with_130(command: str, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told.strip() == "evalkit: interrupted; the same command continues"
