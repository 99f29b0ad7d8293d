"""Completion of tasks, models, runs and recipes in bash, zsh and fish."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

#: Runs that are offered.
_RUNS = 200


@click.command(short_help="Print the completion of a shell.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> int:
    """Print a script that makes SHELL complete commands, flags, tasks, models, runs and recipes.

    \b
    evalkit completion bash > evalkit.bash
    bash: eval "$(evalkit completion bash)"    in ~/.bashrc
    zsh:  eval "$(evalkit completion zsh)"     in ~/.zshrc, after compinit
    fish: evalkit completion fish > ~/.config/fish/completions/evalkit.fish
    """
    from evalkit.cli.main import COMPLETION, cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "evalkit", COMPLETION).source())
    return 0


def tasks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tasks and suites; after a comma the next; after `@` the splits."""
    from evalkit import registry
    from evalkit.task import MINIATURE

    before, comma, last = incomplete.rpartition(",")
    known = registry.tasks()
    task = last.partition("@")[0]
    if "@" in last and task in known:
        names: Iterable[str] = (f"{task}@{split}" for split in (*known[task].splits, MINIATURE))
    else:
        names = [*known, *registry.suites()]
    return _items((before + comma + name for name in names), incomplete)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models and schemes; a folder where one is begun."""
    from evalkit import registry

    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="dir")]
    names = (name for family in registry.families() for name in family.names())
    # `predictions:FILE`: the scheme is typed, what follows is the user's
    return _items((f"{name.partition(':')[0]}:" if ":" in name else name for name in names), incomplete)


def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run folders below --output, the latest first; a folder where another one is begun."""
    return _run_items(_found(context), incomplete)


def models_or_runs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What `compare` takes: names of models that have runs, and run folders."""
    found = _found(context)
    named = {path.parent.parent.name for path in found}
    return _items(sorted(named), incomplete) + _run_items(found, incomplete)


def _found(context: click.Context) -> list[Path]:
    from evalkit.store import find_runs

    output = Path(context.params.get("output") or "runs")
    return list(find_runs(output)) if output.is_dir() else []


def _run_items(found: Iterable[Path], incomplete: str) -> list[CompletionItem]:
    latest = sorted(found, key=lambda path: path.name, reverse=True)
    items = _items(itertools.islice(map(str, latest), _RUNS), incomplete)
    return items or [CompletionItem(incomplete, type="dir")]


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]
