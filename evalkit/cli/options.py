"""Flags that several commands share, and their parsing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from evalkit.cli.terminal import flag

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)


def batch_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """`auto` is None, otherwise a number."""
    if value.strip().lower() == "auto":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}: write a number, or auto", ctx, param) from None


def include_flag(command: F) -> F:
    """`--include`."""
    return flag(
        "--include",
        multiple=True,
        type=click.Path(path_type=Path),
        callback=_include,
        expose_value=False,
        is_eager=True,
        help="Load a task file that is not installed (docs/adding-a-task.md).",
    )(command)


def data_flags(command: F) -> F:
    """`--data-root`, `--offline`, `--include`."""
    for decorate in (
        include_flag,
        flag("--offline", is_flag=True, help="Take nothing from the network."),
        flag(
            "--data-root",
            type=FOLDER,
            envvar=["EVALKIT_DATA_ROOT", "EVALKIT_DATA"],
            help="Folder of the official files: DIR/<task> where that exists, otherwise DIR.",
        ),
    ):
        command = decorate(command)
    return command


def _include(ctx: click.Context, _: click.Parameter, paths: tuple[Path, ...]) -> None:
    if paths and not ctx.resilient_parsing:
        from evalkit import registry

        for path in paths:
            registry.include(path)


#: Names of the flags that `engine_flags` adds.
ENGINE_FLAGS = ("engine", "ray_address", "cpus_per_worker", "ship_data", "worker_timeout")


def engine_flags(command: F) -> F:
    """`--engine` and the flags of Ray."""
    for decorate in (
        flag(
            "--worker-timeout",
            type=float,
            default=1800.0,
            show_default=True,
            metavar="SECONDS",
            help="Without an answer from a worker of Ray, or a sign of a rank, after which it is given up.",
        ),
        flag("--ship-data", is_flag=True, help="Ray: send pictures with the questions; no shared data root."),
        flag(
            "--cpus-per-worker",
            type=int,
            metavar="N",
            help="Ray: cores of a worker; without GPUs, a node has as many workers as its cores allow.",
        ),
        flag(
            "--ray-address",
            envvar=["EVALKIT_RAY_ADDRESS", "RAY_ADDRESS"],
            metavar="ADDRESS",
            help="A running cluster, `auto` for that of this machine. Default: start one here.",
        ),
        flag(
            "--engine",
            default="local",
            show_default=True,
            type=click.Choice(["local", "ray"]),
            help="Where the model runs (docs/scaling.md).",
        ),
    ):
        command = decorate(command)
    return command


def engine_given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags that were given on the command line or in the environment."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in flags.items() if context.get_parameter_source(name) != default}


def judge_flags(command: F) -> F:
    """`--judge`, `--judge-model`."""
    for decorate in (
        flag("--judge-model", metavar="NAME", help="The judge's model name there."),
        flag(
            "--judge",
            metavar="URL",
            help="OpenAI-compatible endpoint of a judge; its key is read from EVALKIT_JUDGE_KEY.",
        ),
    ):
        command = decorate(command)
    return command


def json_flag(command: F) -> F:
    """`--json`."""
    return flag("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")(
        command
    )
