"""Writes the board as static files: no Python, no server and no network are needed to read it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evalkit.errors import UsageError
from evalkit.installation import VERSION
from evalkit.text import one_line
from evalkit_leaderboard import exports, matrix
from evalkit_leaderboard.exported import pages
from evalkit_leaderboard.exported.pairs import compared
from evalkit_leaderboard.exported.samples import IMAGES, export_samples
from evalkit_leaderboard.exported.scripts import DATA, Writer
from evalkit_leaderboard.matrix import Matrix, Row, default_columns
from evalkit_leaderboard.naming import run_names
from evalkit_leaderboard.runs import Run
from evalkit_leaderboard.theme import DARK, LIGHT, Palette

#: Bytes of an export without images: of up to 50 runs, and a run where there are more.
_ROOM, _ROOM_A_RUN = 2_900_000, 58_000
_PAGE = "index.html"

Groups = Mapping[str, Mapping[str, Run]]


def export_board(runs: Mapping[str, Run], folder: Path, title: str, with_images: bool = False) -> int:
    """Write the board of these runs into a folder.

    Returns:
        Bytes of all files but the images.

    Raises:
        UsageError: the folder holds something else.
    """
    _check(folder)
    shown = {key: run for key, run in runs.items() if run.status != "broken"}
    groups = _groups(shown)
    names = {key: name for group in groups.values() for key, name in run_names(group).items()}
    writer = Writer(folder)
    usual = _compare(groups, names, writer)
    _write_pages(shown, groups, title, writer)
    whole = max(_ROOM, _ROOM_A_RUN * len(shown))
    left = len(names)
    exported: dict[str, int] = {}
    for place, group in enumerate(groups.values()):
        room = (whole - writer.bytes) * len(group) // left
        left -= len(group)
        exported |= export_samples(group, place, room, writer, with_images)
    targets = [_target(name, group, names, exported) for name, group in groups.items()]
    writer.script("board", {"targets": targets, "usual": usual})
    writer.sweep((DATA, IMAGES))
    return writer.bytes


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--export {folder}: is a file; name a folder")
    page = folder / _PAGE
    ours = page.is_file() and pages.GENERATOR in page.read_text(errors="replace")[:2000]
    others = [path.name for path in folder.glob("*") if not path.name.startswith(".")]
    if others and not ours:
        raise UsageError(
            f"--export {folder}: holds {one_line(others[0], 60)}, which no export wrote; name an empty folder"
        )


def _groups(runs: Mapping[str, Run]) -> Groups:
    """Scored runs by task and split."""
    found: dict[str, dict[str, Run]] = {}
    for key, run in runs.items():
        if run.scored and run.metrics:
            found.setdefault(f"{run.task}@{run.split}", {})[key] = run
    return dict(sorted(found.items()))


def _rows(board: Matrix) -> list[Row]:
    """Measured rows, then published ones with a value in one of the columns; the best of a column first."""
    columns = default_columns(board)
    measured = [row for row in board.rows if not row.published]
    published = [row for row in board.rows if row.published]
    first = next((c for c in columns if any(c in row.cells for row in measured)), None)

    def place(row: Row) -> tuple[bool, float]:
        cell = row.cells.get(first) if first is not None else None
        if cell is None or cell.value is None or first is None:
            return True, 0.0
        return False, -cell.value if board.higher_is_better(first) else cell.value

    return [*sorted(measured, key=place), *sorted(published, key=place)]


def _compare(groups: Groups, names: Mapping[str, str], writer: Writer) -> list[str]:
    """Write all comparisons; the newest pair of runs that can be compared."""
    usual: tuple[str, list[str]] = ("", [])
    count = sum(len(list(combinations(group, 2))) for group in groups.values())
    with tqdm(total=count, desc="comparing pairs", disable=None, leave=False) as bar:
        for place, group in enumerate(groups.values()):
            found = compared(group, names, bar.update)
            writer.script(f"pairs-{place}", found)
            pairs = [name.split(" ") for name, said in found["pairs"].items() if said["rows"]]
            usual = max([usual, *((group[new].created, [base, new]) for base, new in pairs)])
    return usual[1]


def _target(
    name: str, group: Mapping[str, Run], names: Mapping[str, str], exported: Mapping[str, int]
) -> dict[str, Any]:
    """A task and split with its runs, the earliest first: key, name, number of samples."""
    keys = sorted(group, key=lambda key: (group[key].created, group[key].path))
    return {"name": one_line(name, 120), "runs": [[key, names[key], exported.get(key, 0)] for key in keys]}


def _write_pages(runs: Mapping[str, Run], groups: Groups, title: str, writer: Writer) -> None:
    board = matrix.build(runs)
    rows, columns = _rows(board), default_columns(board)
    held = [row for row in rows if row.average or any(column in row.cells for column in columns)]
    tasks = [
        pages.task(board, run.task, run.split, rows, runs)
        for run in (next(iter(group.values())) for group in groups.values())
    ]
    picker = f'<p class="pick"><label>Task <select id="task"></select></label></p>{pages.switches(rows)}'
    sections = [
        ("Overview", pages.overview(board, held, runs)),
        ("Tasks", f"{picker}{''.join(tasks)}" if tasks else pages.note("No run has a value yet.")),
        ("Compare", pages.COMPARE),
        ("Samples", pages.SAMPLES),
        ("Runs", pages.run_list(runs)),
    ]
    made = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    foot = pages.note(
        f"{len(runs):,} runs, written by evalkit {VERSION} on {made}. Nothing is sent anywhere."
    )
    shown = exports.Shown(board, held, columns)
    writer.text("table.csv", exports.to_csv(held, columns))
    writer.text("table.md", exports.to_markdown(shown))
    writer.text("table.tex", exports.to_latex(shown))
    own = files("evalkit_leaderboard.exported")
    writer.text("board.css", _colours() + own.joinpath("board.css").read_text("utf-8"))
    parts = (own.joinpath(name).read_text("utf-8") for name in ("board.js", "charts.js"))
    writer.text("board.js", "\n".join(parts))
    writer.text(_PAGE, pages.document(title, sections, foot))


def _colours() -> str:
    """The app's colours of both themes."""

    def variables(palette: Palette) -> str:
        names = (
            "background",
            "raised",
            "text",
            "muted",
            "line",
            "accent",
            "best",
            "published",
            "good",
            "bad",
        )
        return "".join(f"--{name}:{getattr(palette, name)};" for name in names)

    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}"
    return f":root {{ color-scheme: light dark; {variables(LIGHT)} }}\n{dark}\n"
