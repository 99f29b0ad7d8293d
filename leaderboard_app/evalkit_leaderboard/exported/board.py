"""Writes the board as static files: no Python, no server and no network are needed to read it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evalkit.errors import UsageError
from evalkit.installation import VERSION
from evalkit.text import one_line
from evalkit_leaderboard import exports, matrix
from evalkit_leaderboard.comparing import ALL, Side, side
from evalkit_leaderboard.exported import pages
from evalkit_leaderboard.exported.pairs import Comparisons
from evalkit_leaderboard.exported.samples import IMAGES, export_samples
from evalkit_leaderboard.exported.scripts import DATA, Writer
from evalkit_leaderboard.exported.training import page as training_page
from evalkit_leaderboard.matrix import Matrix, Row, default_columns
from evalkit_leaderboard.naming import run_names
from evalkit_leaderboard.runs import Run
from evalkit_leaderboard.theme import DARK, LIGHT, Palette

#: Bytes of an export without images: of up to 50 runs, and a run where there are more.
_ROOM, _ROOM_A_RUN = 2_900_000, 58_000
_PAGE = "index.html"
#: Models that are compared over all tasks, the newest.
_MODELS = 60

Groups = Mapping[str, Mapping[str, Run]]


def export_board(
    runs: Mapping[str, Run],
    folder: Path,
    title: str,
    with_images: bool = False,
    training: Sequence[Path] = (),
) -> int:
    """Write the board of these runs into a folder; `training` are folders of training logs and sweeps.

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
    board = matrix.build(shown)
    sides = _sides(board, shown)
    usual, over = _compare(groups, names, sides, board, writer)
    _write_pages(board, shown, groups, title, training, writer)
    whole = max(_ROOM, _ROOM_A_RUN * len(shown))
    left = len(names)
    exported: dict[str, int] = {}
    for place, group in enumerate(groups.values()):
        room = (whole - writer.bytes) * len(group) // left
        left -= len(group)
        exported |= export_samples(group, place, room, writer, with_images)
    targets = [_target(name, group, names, exported) for name, group in groups.items()]
    if sides:
        targets.append({"name": ALL, "runs": [[key, one.name, 0] for key, one in sides.items()]})
    writer.script("board", {"targets": targets, "usual": usual, "over": over})
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


def _sides(board: Matrix, runs: Mapping[str, Run]) -> dict[str, Side]:
    """The newest models with runs of several tasks, the earliest first; none where there is only one."""
    found = {
        row.key: Side(one_line(row.label, 120), side(row, runs)) for row in board.rows if not row.published
    }
    several = {
        key: Side(one.name, {k: run for k, run in one.runs.items() if run.scored})
        for key, one in found.items()
    }
    several = {key: one for key, one in several.items() if len(one.runs) > 1}
    ordered = sorted(several, key=lambda key: several[key].created)[-_MODELS:]
    return {key: several[key] for key in ordered} if len(ordered) > 1 else {}


def _compare(
    groups: Groups, names: Mapping[str, str], sides: Mapping[str, Side], board: Matrix, writer: Writer
) -> tuple[list[str], list[str]]:
    """Write all comparisons; the newest pair of runs that can be compared, and of models over all tasks."""
    usual: tuple[str, list[str]] = ("", [])
    count = sum(len(list(combinations(group, 2))) for group in (*groups.values(), sides))
    comparisons = Comparisons(board.infos)
    over: list[str] = []
    with tqdm(total=count, desc="comparing pairs", disable=None, leave=False) as bar:
        if sides:
            found = comparisons.of_models(sides, bar.update)
            writer.script(f"pairs-{len(groups)}", found)
            places = list(sides)
            pairs = [name.split(" ") for name, said in found["pairs"].items() if said["rows"]]
            over = max(pairs, key=lambda pair: [places.index(key) for key in reversed(pair)], default=[])
        for place, group in enumerate(groups.values()):
            found = comparisons.of_runs(group, names, bar.update)
            writer.script(f"pairs-{place}", found)
            pairs = [name.split(" ") for name, said in found["pairs"].items() if said["rows"]]
            usual = max([usual, *((group[new].created, [base, new]) for base, new in pairs)])
    return usual[1], over


def _target(
    name: str, group: Mapping[str, Run], names: Mapping[str, str], exported: Mapping[str, int]
) -> dict[str, Any]:
    """A task and split with its runs, the earliest first: key, name, number of samples."""
    keys = sorted(group, key=lambda key: (group[key].created, group[key].path))
    return {"name": one_line(name, 120), "runs": [[key, names[key], exported.get(key, 0)] for key in keys]}


def _write_pages(
    board: Matrix,
    runs: Mapping[str, Run],
    groups: Groups,
    title: str,
    training: Sequence[Path],
    writer: Writer,
) -> None:
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
        ("Training", training_page(board, runs, training)),
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
        series = "".join(f"--series-{place}:{colour};" for place, colour in enumerate(palette.series))
        return "".join(f"--{name}:{getattr(palette, name)};" for name in names) + series

    own = "".join(
        f".series-{place} {{ --own: var(--series-{place}); }}\n" for place in range(len(LIGHT.series))
    )
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}"
    return f":root {{ color-scheme: light dark; {variables(LIGHT)} }}\n{dark}\n{own}"
