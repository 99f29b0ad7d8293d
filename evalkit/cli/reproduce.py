"""`evalkit reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag, option_flags
from evalkit.cli.terminal import flag
from evalkit.text import one_line

if TYPE_CHECKING:
    from evalkit.pipeline.reproduce import Change, Reproduction

#: Differing answers that are printed; `--json` has all.
_SHOWN = 10


@click.command(short_help="Run a stored run again from its manifest, and compare the answers.")
@click.argument("path", metavar="RUN", type=FOLDER)
@flag("-o", "--output", type=FOLDER, default=Path("reproduced"), show_default=True,
      help="Folder of the new run folders.")  # fmt: skip
@option_flags(decides="place")
@include_flag
@json_flag
@terminal.verbosity
def reproduce(path: Path, output: Path, as_json: bool, **flags: Any) -> int:
    """Run RUN again as its manifest says, and tell whether the answers are the same.

    Task file, data, pictures and weights are checked by their hashes first; where it runs is free to differ.
    Exit status: 0 equal, 1 some answers or figures differ, 3 what was asked is not there any more.

    \b
    evalkit reproduce runs/mini-internvl-2b/drivelm@val/…
    """
    from evalkit import registry
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.reproduce import reproduce as run_again

    where = RunOptions("", quiet=as_json, **flags)
    where.check()
    with terminal.interruptible():
        found = run_again(path, where, registry.included_tasks(), output)
    if as_json:
        terminal.print_json(found.to_json())
    else:
        click.echo("\n".join(_lines(found)))
    return 0 if found.equal else 1


def _lines(found: Reproduction) -> list[str]:
    lines = [f"run    {found.run}", f"again  {found.again}", ""]
    lines += [_line(change) for change in found.answers[:_SHOWN]]
    if len(found.answers) > _SHOWN:
        lines.append(f"… and {len(found.answers) - _SHOWN} more (--json has all)")
    lines += [f"{change.name}: {change.before}, now {change.after}" for change in found.figures]
    lines += [
        f"{c.name} {c.before or 'not installed'}, now {c.after or 'not installed'}" for c in found.versions
    ]
    lines += list(found.notes)
    same = found.compared - len(found.answers)
    if found.equal:
        lines.append(f"equal: all {same} answers are the same")
    else:
        lines.append(
            f"differs: {same} of {found.compared} answers are the same, {len(found.figures)} figures differ"
        )
    return lines


def _line(change: Change) -> str:
    before, after = (one_line(str(text), 60) for text in (change.before, change.after))
    return f"{one_line(change.name, 40)}: {before!r}, now {after!r}"
