"""`evalkit push`: publish results or a model on the Hugging Face Hub, after a list of what is sent."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.terminal import flag


@click.command(short_help="Publish a checkpoint or results on the Hugging Face Hub.")
@click.argument("paths", metavar="RUN…|CHECKPOINT", nargs=-1, required=True,
                type=click.Path(path_type=Path, exists=True, file_okay=False))  # fmt: skip
@flag("--to", "repository", required=True, metavar="OWNER/NAME", help="The repository; made if need be.")
@flag("--yes", is_flag=True, help="Upload without asking. Without it and without a terminal nothing is sent.")
@flag("--private", is_flag=True, help="Make a new repository private.")
@flag("--license", "licence", metavar="NAME", help="For a checkpoint's card, as the Hub spells it.")
@terminal.verbosity
def push(paths: tuple[Path, ...], repository: str, yes: bool, private: bool, licence: str | None) -> int:
    """List what would be published, ask, and upload it in one commit.

    Runs become a dataset with a card. A checkpoint becomes a model; the scores of runs named with it stand on
    its card. The token of `hf auth login` or HF_TOKEN is used and written nowhere.

    \b
    evalkit push runs/mine/drivelm@val/20260101-120000-ab12cd --to me/drivelm-results
    evalkit push merged runs/mine/drivelm@val/20260101-120000-ab12cd --to me/mini-internvl-drivelm
    """
    from evalkit.publish.hub import plan_upload, upload

    plan = plan_upload(paths, repository, licence)
    for line in plan.listing():
        click.echo(line)
    if not yes and not sys.stdin.isatty():
        click.echo("nothing was uploaded; the same command with --yes does it")
        return 0
    if not yes and not click.confirm("Upload?"):
        return 0
    click.echo(upload(plan, private=private))
    return 0
