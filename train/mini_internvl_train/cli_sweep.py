"""`evalkit train sweep` and `compare-methods`, a sweep over what learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag
from evalkit.cli.terminal import flag
from evalkit.installation import missing
from evalkit.pipeline.options import comma_list
from mini_internvl_train.cli_common import (
    evaluation_flags,
    is_quiet,
    pairs_of,
    recipes,
    set_flag,
    training_errors,
)

FAILED = 3
"""Exit status where a training failed."""


def _sweep_flags(command: Callable[..., int]) -> Callable[..., int]:
    """Flags that both commands have."""
    wrapped = command
    for decorate in (
        terminal.verbosity,
        json_flag,
        include_flag,
        evaluation_flags,
        flag("-o", "--output", type=FOLDER, help="Folder of all trainings, in place of the recipe's."),
        flag("--at-once", type=click.IntRange(1), default=1, show_default=True, metavar="N",
             help="Trainings at the same time, each on devices of its own."),
        flag("--devices", type=click.IntRange(1), default=1, show_default=True, metavar="N",
             help="Processes of each training, one a GPU."),
        set_flag,
    ):  # fmt: skip
        wrapped = decorate(wrapped)
    return wrapped


@click.command("sweep", short_help="Train a recipe with every value of one or more settings; compare.")
@click.argument("recipe", metavar="RECIPE", shell_complete=recipes)
@flag("--vary", "varied", multiple=True, required=True, metavar="KEY=V,V",
      help="A setting and its values, the first the base; repeatable. Seeds are repeats.")  # fmt: skip
@_sweep_flags
def sweep(recipe: str, varied: tuple[str, ...], **flags: Any) -> int:
    """Train RECIPE with every combination of values, and set each against the first.

    The same command goes on after an interruption.

    \b
    evalkit train sweep demo --vary data.general_ratio=0,0.25,1 --vary seed=1,2,3 --eval-task mmbench
    """
    return _run(recipe, varied, **flags)


@click.command("compare-methods", short_help="A sweep over full, frozen encoder and LoRA.")
@click.argument("recipe", metavar="RECIPE", shell_complete=recipes)
@flag("--method", "methods", multiple=True, metavar="NAME",
      help="Values of the setting trainable; repeatable. Default: full, frozen_vit, lora.")  # fmt: skip
@_sweep_flags
def compare_methods(recipe: str, methods: tuple[str, ...], **flags: Any) -> int:
    """`evalkit train sweep RECIPE --vary trainable=full,frozen_vit,lora`.

    \b
    evalkit train compare-methods drivelm-1b --eval-task drivelm
    """
    from mini_internvl_train.sweep import METHODS

    chosen = [name.replace("-", "_") for name in comma_list(methods)]
    return _run(recipe, (f"trainable={','.join(chosen)}" if chosen else METHODS,), **flags)


def _run(
    recipe: str,
    varied: tuple[str, ...],
    *,
    settings: tuple[str, ...],
    devices: int,
    at_once: int,
    output: Path | None,
    evaluation: list[str],
    as_json: bool,
) -> int:
    if lacking := missing("train"):  # a process of its own would say so for each training
        raise ModuleNotFoundError(f"No module named {lacking[0]!r}", name=lacking[0])
    with training_errors():
        from mini_internvl_train.sweep import parse_varied, plan_sweep, sweep_json, sweep_table
        from mini_internvl_train.sweep import sweep as run_sweep

        chosen = [parse_varied(text) for text in varied]
        points = plan_sweep(recipe, pairs_of((*settings, *evaluation)), chosen, output)
        found = run_sweep(points, chosen, devices=devices, at_once=at_once, say=_say)
    if as_json:
        terminal.print_json(sweep_json(found))
    else:
        click.echo("\n".join(sweep_table(found)))
    return FAILED if found.failures else 0


def _say(line: str) -> None:
    if not is_quiet():
        click.echo(line, err=True)
