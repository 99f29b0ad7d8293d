"""`evalkit leaderboard`."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, option_flags
from evalkit.cli.terminal import flag
from evalkit.errors import SetupError, UsageError
from evalkit.installation import install_command, missing
from evalkit_leaderboard.folders import remark
from evalkit_leaderboard.serving import LOOPBACK, PORT, base_of, command, free_port, is_free, serve


@click.command(short_help="Start the leaderboard.")
@flag(
    "--runs",
    type=FOLDER,
    multiple=True,
    default=(Path("runs"),),
    help="Folder of run folders; several times for several.  [default: runs]",
)
@flag("--port", type=click.IntRange(1, 65535), metavar="N", help=f"Default: {PORT}, or the next free one.")
@flag("--address", default=LOOPBACK, show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@flag("--base-path", default="", metavar="P", help="Path below which a proxy shows it, such as /board.")
@flag(
    "--training",
    type=FOLDER,
    default=Path("checkpoints"),
    show_default=True,
    help="Folder of training outputs, for loss curves and sweeps.",
)
@flag("--export", "folder", type=FOLDER, metavar="DIR",
      help="Write the board into DIR as static files that need no server, and end.")  # fmt: skip
@flag("--with-images", is_flag=True,
      help="Export images too; most benchmarks' licences forbid passing them on.")  # fmt: skip
@option_flags(("max_pixels",))
@terminal.verbosity
def leaderboard(
    runs: tuple[Path, ...],
    port: int | None,
    address: str,
    base_path: str,
    training: Path,
    folder: Path | None,
    with_images: bool,
    max_pixels: int,
) -> int:
    """Look at runs in the browser: models by tasks, comparisons, samples, training, progress.

    Reads run folders and writes nothing into them. There is no password: whoever reaches the address reads
    the runs and the images they were made on. Ctrl-C and SIGTERM end it with status 0.

    \b
    evalkit leaderboard --runs runs
    evalkit leaderboard --runs runs --export site
    """
    if lacking := missing("leaderboard", importlib.util.find_spec):
        raise UsageError(
            f"`evalkit leaderboard` needs the package {lacking[0]}: {install_command('leaderboard')}"
        )
    if folder is not None:
        _remark(runs)
        return _export(runs, training, folder, with_images, max_pixels)
    if with_images:
        raise UsageError("--with-images: has no meaning without --export")
    base = base_of(base_path)
    chosen = port or free_port(address)
    if chosen is None:
        raise UsageError(f"--address {address}: no free port from {PORT} on; give --port, or another address")
    if port is not None and not is_free(address, port):
        raise UsageError(f"--port {port}: taken on {address}; choose another, or leave --port out")
    _remark(runs)
    place = f"http://{_shown(address)}:{chosen}" + (f"/{base}" if base else "")
    click.echo(f"leaderboard of {', '.join(map(str, runs))}: {place}  (Ctrl-C ends it)")
    status = serve(command(runs, training, address, chosen, max_pixels, base))
    if status not in (0, -2, 130):
        raise SetupError(f"the leaderboard ended with status {status}; its messages are above")
    return 0


def _remark(runs: tuple[Path, ...]) -> None:
    for root in runs:
        if said := remark(root):
            click.echo(f"warning: {said}", err=True)


def _export(runs: tuple[Path, ...], training: Path, folder: Path, with_images: bool, max_pixels: int) -> int:
    from evalkit.data.decoding import set_max_pixels
    from evalkit_leaderboard.exported.board import export_board
    from evalkit_leaderboard.index import Index

    set_max_pixels(max_pixels)
    index = Index([root.absolute() for root in runs])
    index.refresh()
    try:
        title = f"evalkit leaderboard: {runs[0].name}"
        size = export_board(index.runs, folder, title, with_images, (training, *runs))
    except OSError as error:
        raise SetupError(f"--export {folder}: cannot be written ({error.strerror})") from error
    images = ", and images" if with_images else ""
    click.echo(f"{len(index.runs):,} runs in {folder / 'index.html'} ({size / 1e6:.1f} MB{images})")
    return 0


def _shown(address: str) -> str:
    if address in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{address}]" if ":" in address else address
