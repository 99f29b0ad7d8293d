"""Training of an export: scores over checkpoints, sweeps, curves of training logs, as the app shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from evalkit.errors import RunFolderError
from evalkit_leaderboard import logs, sweeps, trends
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.exported import pages
from evalkit_leaderboard.matrix import Matrix
from evalkit_leaderboard.runs import Run

#: Bytes of all plots and their tables; what comes first is kept.
_ROOM = 500_000
#: Training logs that are read, the newest.
_LOGS = 24


def page(board: Matrix, runs: Mapping[str, Run], folders: Sequence[Path]) -> str:
    """The page; `folders` are searched for training logs and sweeps."""
    parts: list[str] = []
    room, left_out = _ROOM, 0
    for part in _parts(board, runs, [folder.absolute() for folder in folders]):
        room -= len(part.encode("utf-8", "backslashreplace"))
        if room < 0 and parts:
            left_out += 1
        else:
            parts.append(part)
    if not parts:
        return pages.note(
            "No model has two evaluated checkpoints, and there is no sweep and no training log."
        )
    more = f"{left_out} more plots are left out of this export; the app has them." if left_out else ""
    picker = '<p class="pick"><label>Shown <select id="shown"></select></label></p>'
    return f"{picker}{''.join(parts)}{pages.note(more) if more else ''}"


def _parts(board: Matrix, runs: Mapping[str, Run], folders: Sequence[Path]) -> Iterator[str]:
    """The plots with their tables: headlines, sweeps and losses first, then all other metrics and values."""
    found = trends.series(runs)
    usual = {target: trends.metrics(board, target, lines)[1] for target, lines in found.items()}
    for target, lines in found.items():
        yield from _scores(board, runs, target, lines, usual[target])
    yield from _sweeps(folders)
    read = _read(folders)
    values, first = trends.values(read)
    for value in sorted(values, key=lambda value: value != first):
        if value != trends.VALIDATION:
            yield _curves(f"Training log: {value}", trends.losses(read, value), "training step", value, "")
    for target, lines in found.items():
        for metric in trends.metrics(board, target, lines)[0]:
            if metric != usual[target]:
                yield from _scores(board, runs, target, lines, metric)


def _scores(
    board: Matrix, runs: Mapping[str, Run], target: str, lines: Mapping[str, Sequence[Run]], metric: str
) -> Iterator[str]:
    known, usual = trends.bases(board, runs, target, lines)
    base = [known[usual]] if usual else []
    drawn = {name: [*base, *own] for name, own in lines.items()}
    frame, by_step = trends.frame(drawn, metric, trends.labels(list(lines)))
    if frame.empty:
        return
    unit = next((r.metrics[metric].unit for own in lines.values() for r in own if metric in r.metrics), "")
    words = (
        f"Bands are 95% intervals. Step 0 is {trends.plain(base[0].model)}."
        if base
        else "Bands are 95% intervals."
    )
    axis = "training step" if by_step else "checkpoint"
    yield _curves(f"{target}: {metric}", frame, axis, f"{metric} ({unit})", words)


def _curves(name: str, frame: pd.DataFrame, x: str, y: str, words: str) -> str:
    """A plot of curves with its table."""
    columns = ["step", "value", *(["low", "high"] if "low" in frame else [])]
    series = [
        [str(label), [[_short(number) for number in point] for point in own[columns].itertuples(index=False)]]
        for label, own in frame.groupby("series", sort=False)
    ]
    header = [HtmlCell("Series", "name"), HtmlCell(escape(x)), HtmlCell(escape(y, 60))]
    rows = [
        (
            "",
            [
                pages.named(escape(label, 80)),
                f"<td>{where}</td><td>{value}</td>",
            ],
        )
        for label, where, value in trends.rows(frame)
    ]
    content = pages.chart({"kind": "curves", "x": x, "y": y, "series": series})
    table = (
        f"<details><summary>The same as a table</summary>{pages.table(f'{y} by {x}', header, rows)}</details>"
    )
    return _article(name, f"{content}{table}{pages.note(words) if words else ''}")


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _article(name: str, content: str) -> str:
    return f'<article data-name="{escape(name, 160)}"><h2>{escape(name, 160)}</h2>{content}</article>'


def _sweeps(folders: Sequence[Path]) -> Iterator[str]:
    for name, path in logs.named(sweeps.RESULT, *folders).items():
        try:
            sweep = sweeps.read_sweep(path)
        except (RunFolderError, OSError):
            continue  # the app says what is wrong with it
        for scores in sweep.scores:
            yield _article(f"Sweep {trends.plain(name)}, {scores.name}", _sweep(sweep, scores, folders))


def _sweep(sweep: sweeps.Sweep, scores: sweeps.Scores, folders: Sequence[Path]) -> str:
    points = [
        {
            "label": point.label[:60],
            "kind": sweeps.kind_of(scores, point),
            "x": point.x,
            "value": point.value,
            "reach": point.ci95 or (point.value, point.value),
            "runs": [run for run in point.runs if run is not None] if len(point.runs) > 1 else [],
            "text": " ".join(filter(None, sweeps.cells(point))),
        }
        for point in sweeps.drawn(scores)
    ]
    content = {
        "kind": "points",
        "x": sweep.setting,
        "y": f"{scores.metric} ({scores.unit})",
        "points": points,
    }
    titles = sweeps.header(sweep)
    header = [HtmlCell(titles[0], "name"), *(HtmlCell(escape(title, 60)) for title in titles[1:])]
    rows = [
        (
            "",
            [
                pages.named(escape(name, 60)),
                *(f"<td>{escape(c, 200)}</td>" for c in rest),
            ],
        )
        for name, *rest in map(sweeps.cells, scores.points)
    ]
    notes = sweeps.notes(sweep, scores)
    for folder in folders:
        notes = [note.replace(str(folder), folder.name) for note in notes]
    table = pages.table(f"sweep over {sweep.setting}", header, rows)
    return f"{pages.chart(content) if points else ''}{table}{''.join(map(pages.note, notes))}"


def _read(folders: Sequence[Path]) -> dict[str, logs.TrainingLog]:
    """The newest training logs by name."""
    found = logs.named(logs.LOG, *folders)
    newest = sorted(found, key=lambda name: found[name].stat().st_mtime, reverse=True)[:_LOGS]
    read = {name: _log(path) for name, path in found.items() if name in newest}
    return {name: log for name, log in read.items() if log is not None}


def _log(path: Path) -> logs.TrainingLog | None:
    """The log; None where it cannot be read, of which the app says why."""
    try:
        return logs.read_log(path)
    except OSError:
        return None
