"""`evalkit data where|check|prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import completion, terminal
from evalkit.cli.options import FOLDER, data_flags, include_flag, json_flag, option_flags
from evalkit.cli.terminal import flag
from evalkit.text import command

if TYPE_CHECKING:
    from evalkit.data.check import SplitReport
    from evalkit.task import DataFile, Task


@click.group(short_help="Where a task's files come from, and whether they are complete.")
def data() -> None:
    """A task's files: where they come from, whether they are complete, how to arrange downloads.

    \b
    evalkit data where drivelm
    evalkit data check drivelm --data-root data
    """


@data.command()
@click.argument("name", metavar="TASK", shell_complete=completion.tasks)
@flag("--split", metavar="NAME", help="Only this split.")
@include_flag
@json_flag
@terminal.verbosity
def where(name: str, split: str | None, as_json: bool) -> int:
    """Name the official files of TASK: source, licence, size, and where to put them.

    \b
    evalkit data where chartqa --split test
    """
    task, splits = _task(name, split)
    items = [_where(task, item) for item in splits]
    if as_json:
        terminal.print_json({"task": task.name, "splits": items})
    else:
        click.echo("\n\n".join(_where_text(task, item) for item in items))
    return 0


@data.command()
@click.argument("name", metavar="TASK", shell_complete=completion.tasks)
@flag("--split", metavar="NAME", help="Only this split. Default: every split that has a file here.")
@flag(
    "--images/--no-images",
    "--pictures/--no-pictures",
    "images",
    default=True,
    shown=1,
    help="Decode every image (default), or read only the texts.",
)
@data_flags
@option_flags(("max_pixels",))
@json_flag
@terminal.verbosity
def check(
    name: str,
    split: str | None,
    images: bool,
    data_root: Path | None,
    offline: bool,
    max_pixels: int,
    as_json: bool,
) -> int:
    """Check that the files of TASK are complete, readable and of the published size (exit 3 if not).

    \b
    evalkit data check chartqa --data-root data
    """
    from evalkit.data.check import check as check_split
    from evalkit.data.decoding import set_max_pixels

    set_max_pixels(max_pixels)
    task, splits = _task(name, split)
    folders = {item: _folder(task, item, data_root, offline, named=split is not None) for item in splits}
    reports = [check_split(task, s, folder, images) for s, folder in folders.items() if folder is not None]
    if not reports:
        from evalkit.data.locate import locate

        locate(task, splits[0], data_root, offline=True)  # says what is missing
    if as_json:
        terminal.print_json({"task": task.name, "splits": [_report(report) for report in reports]})
    else:
        click.echo("\n\n".join(_report_text(report) for report in reports))
    return 0 if all(report.complete for report in reports) else 3


@data.command()
@click.argument("name", metavar="TASK", shell_complete=completion.tasks)
@flag("--from", "source", type=FOLDER, required=True, help="Folder of the downloads: archives, loose files.")
@flag("--data-root", type=FOLDER, required=True, envvar=["EVALKIT_DATA_ROOT", "EVALKIT_DATA"],
      help="Files are put into DIR/<task>.")  # fmt: skip
@include_flag
@terminal.verbosity
def prepare(name: str, source: Path, data_root: Path) -> int:
    """Unpack raw downloads and arrange them as TASK reads them; the downloads are not changed.

    \b
    evalkit data prepare rsvqa-lr --from downloads --data-root data
    """
    from evalkit.data.locate import missing_files
    from evalkit.data.prepare import prepare as arrange

    task, splits = _task(name, None)
    folder = data_root / task.name
    for place in arrange(task, source, folder):
        click.echo(str(place))
    for split in splits:
        done = command("data", "check", task.name, "--data-root", data_root)
        if not (absent := missing_files(task, split, folder)):
            click.echo(f"{split}: complete; next: {done}")
        elif len(absent) < len(task.data_source.files_of(split)):
            click.echo(f"{split}: still missing {', '.join(file.path for file in absent)}")
    return 0


def _task(name: str, split: str | None) -> tuple[Task, tuple[str, ...]]:
    from evalkit import registry
    from evalkit.errors import UsageError
    from evalkit.task import MINIATURE

    task = registry.task(name)
    if split is not None and split not in (*task.splits, MINIATURE):
        raise UsageError(f"--split {split}: {name} has {', '.join((*task.splits, MINIATURE))}")
    return task, task.splits if split is None else (split,)


def _folder(task: Task, split: str, data_root: Path | None, offline: bool, named: bool) -> Path | None:
    """Where to check a split; None if it was not asked for and has no file."""
    from evalkit.data.locate import given_root, locate, task_folder
    from evalkit.errors import DataError

    try:
        return locate(task, split, data_root, offline=offline or not named)
    except DataError:
        root = given_root(data_root)
        if root is None or not root.is_dir():
            if named:
                raise
            return None
        folder = task_folder(task, root)
        files = [file for file in task.data_source.files_of(split) if not file.path.endswith("/")]
        return folder if named or any(file.find(folder) for file in files) else None


def _where(task: Task, split: str) -> dict[str, Any]:
    source = task.data_source.hub_of(split)
    return {
        "split": split,
        "questions": task.data_source.sizes.get(split),
        "files": [_file(file) for file in task.data_source.files_of(split)],
        "hub": source.repository if source else None,
    }


def _file(file: DataFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "alternatives": list(file.alternatives),
        "source": file.source,
        "licence": file.licence,
        "bytes": file.size,
    }


def _where_text(task: Task, item: dict[str, Any]) -> str:
    count = f", {item['questions']:,} questions" if item["questions"] else ""
    lines = [f"{task.name} {item['split']}{count}"]
    for file in item["files"]:
        size = f"{file['bytes']:,} bytes" if file["bytes"] else "not stated"
        lines += [f"  DIR/{task.name}/{file['path']}", f"    from     {file['source']}"]
        lines += [f"    licence  {file['licence']}", f"    size     {size}"]
        if file["alternatives"]:
            lines.append(f"    or as    {', '.join(file['alternatives'])}")
    if item["hub"]:
        lines.append(
            f"  or do nothing: without --data-root it is downloaded from the Hub ({item['hub']}) once"
        )
    lines.append("  then: --data-root DIR, or set EVALKIT_DATA=DIR")
    return "\n".join(lines)


def _report(report: SplitReport) -> dict[str, Any]:
    return {
        "split": report.split,
        "folder": report.folder,
        "complete": report.complete,
        "questions": report.samples,
        "published": report.published,
        "pictures": report.images,
        "missing": [file.path for file, place in report.files if place is None],
        "problems": report.problems,
        "more_problems": report.more,
    }


def _report_text(report: SplitReport) -> str:
    published = f" of {report.published:,}" if report.published else ""
    count = len(report.problems) + report.more
    state = "complete" if report.complete else f"{count} problem{'s' * (count > 1)}"
    lines = [f"{report.task} {report.split}: {state} ({report.folder})"]
    lines.append(f"  {report.samples:,}{published} questions, {report.images:,} images opened")
    lines += [f"  - {problem}" for problem in report.problems]
    if report.more:
        lines.append(f"  - and {report.more} more")
    return "\n".join(lines)


def folder_of(task: Task, split: str, data_root: Path | None) -> Path | None:
    """Where the split's files are, without the network; or None."""
    from evalkit.data.locate import locate
    from evalkit.errors import EvalkitError

    try:
        return locate(task, split, data_root, offline=True)
    except EvalkitError:
        return None


def splits_at_hand(task: Task, data_root: Path | None) -> dict[str, Path]:
    """Folders of the published splits that could be run now, without the network."""
    found = {split: folder_of(task, split, data_root) for split in task.splits}
    return {split: folder for split, folder in found.items() if folder is not None}
