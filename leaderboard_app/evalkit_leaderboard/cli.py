"""`evalkit leaderboard`."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, option_flags
from evalkit.cli.terminal import flag
from evalkit.errors import SetupError, UsageError
from evalkit.installation import install_command, missing
from evalkit_leaderboard.serving import LOOPBACK, PORT, command, free_port, is_free


@click.command(short_help="Start the leaderboard.")
@flag("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of run folders.")
@flag("--port", type=click.IntRange(1, 65535), metavar="N", help=f"Default: {PORT}, or the next free one.")
@flag("--address", default=LOOPBACK, show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@flag(
    "--training",
    type=FOLDER,
    default=Path("checkpoints"),
    show_default=True,
    help="Folder of training outputs, for loss curves.",
)
@option_flags(("max_pixels",))
@terminal.verbosity
def leaderboard(runs: Path, port: int | None, address: str, training: Path, max_pixels: int) -> int:
    """Look at runs in the browser: models by tasks, comparisons, samples, training, progress.

    Reads run folders and writes nothing into them. There is no password: whoever reaches the address reads
    the runs and the images they were made on.

    \b
    evalkit leaderboard --runs runs
    """
    if lacking := missing("leaderboard", importlib.util.find_spec):
        raise UsageError(
            f"`evalkit leaderboard` needs the package {lacking[0]}: {install_command('leaderboard')}"
        )
    chosen = port or free_port(address)
    if chosen is None:
        raise UsageError(f"--address {address}: no free port from {PORT} on; give --port, or another address")
    if port is not None and not is_free(address, port):
        raise UsageError(f"--port {port}: taken on {address}; choose another, or leave --port out")
    if not runs.is_dir():
        click.echo(
            f"warning: {runs}: no such folder yet; the leaderboard shows runs once there are some", err=True
        )
    click.echo(f"leaderboard of {runs}: http://{_shown(address)}:{chosen}  (Ctrl-C ends it)")
    try:
        status = subprocess.call(
            command(runs, training, address, chosen, max_pixels), stdout=subprocess.DEVNULL
        )
    except KeyboardInterrupt:
        return 0
    if status not in (0, -2, 130):
        raise SetupError(f"the leaderboard ended with status {status}; its messages are above")
    return 0


def _shown(address: str) -> str:
    if address in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{address}]" if ":" in address else address
