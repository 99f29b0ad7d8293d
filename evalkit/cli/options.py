"""Flags that several commands share: those of options, made from their entries, and a few others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from evalkit.cli import completion
from evalkit.cli.terminal import flag
from evalkit.errors import UsageError
from evalkit.pipeline.options import Decides, Entry, RunOptions, options_of

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)


def option_flag(entry: Entry, long: str | None = None, **settings: Any) -> Callable[[F], F]:
    """The flag of a run's option.

    Args:
        long: another spelling of its long flag. settings: of `flag`, in place of the option's own.
    """
    option, default = entry.option, entry.default
    switch = entry.kinds == (bool,)
    names = [_switch(name, default) if switch else name for name in (long or entry.flag, *_earlier(entry))]
    given: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    given["envvar"] = list(option.variables) or None
    if list in entry.kinds or dict in entry.kinds:
        given["multiple"] = True
    elif switch:
        given |= {"default": default, "is_flag": True, "show_default": default, "metavar": None}
    else:
        given |= {"type": _type(entry), "default": default, "show_default": default is not None}
    return flag(*option.flags, *names, entry.name, shown=1 + len(option.flags), **{**given, **settings})


def option_flags(
    names: Iterable[str] | None = None,
    decides: Decides | None = None,
    kind: type[Any] = RunOptions,
    **settings: Any,
) -> Callable[[F], F]:
    """The flags of the options named, or of all that decide the same; `settings` as those of `option_flag`.

    Args:
        kind: the dataclass that they are options of.
    """
    entries = options_of(kind, decides)
    chosen = [entry for entry in entries.values() if entry.option.flag]
    if names is not None:
        chosen = [entries[name] for name in names]

    def decorate(command: F) -> F:
        for entry in reversed(chosen):
            command = option_flag(entry, **settings)(command)
        return command

    return decorate


def _switch(name: str, default: bool) -> str:
    return f"{name}/--no-{name.removeprefix('--')}" if default else name


def _earlier(entry: Entry) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in entry.option.aliases]


def _type(entry: Entry) -> Any:
    if entry.choices:
        return click.Choice(entry.choices)
    if entry.option.metavar == "DIR" and entry.name != "checkpoint":
        return FOLDER
    if entry.kinds == (int,):
        return int
    return float if float in entry.kinds else str


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags that were given on the command line or in the environment."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in flags.items() if context.get_parameter_source(name) != default}


def fitting(model: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags, less what the environment sets and the model's family has no use for.

    A variable is a default for every model: `EVALKIT_BASE_URL` does not stop one that runs in this process.
    A flag that is typed stays, for the family to refuse.
    """
    from evalkit import registry

    source, environment = (
        click.get_current_context().get_parameter_source,
        click.core.ParameterSource.ENVIRONMENT,
    )
    defaults = {name for name in flags if source(name) == environment}
    unused = defaults.intersection(getattr(registry.family(model), "unused", ())) if defaults else ()
    return {name: value for name, value in flags.items() if name not in unused}


def model_flag(command: F) -> F:
    """`--model`."""
    return flag(
        "-m",
        "--model",
        required=True,
        metavar="NAME|FOLDER|HUB-ID",
        shell_complete=completion.models,
        help="See `evalkit list models`.",
    )(command)


def include_flag(command: F) -> F:
    """`--include`."""
    return flag(
        "--include",
        multiple=True,
        type=click.Path(path_type=Path),
        callback=_include,
        expose_value=False,
        is_eager=True,
        help="Load tasks that are not installed: a file, a folder or a package (docs/adding-a-task.md).",
    )(command)


def _include(ctx: click.Context, _: click.Parameter, paths: tuple[Path, ...]) -> None:
    if paths and not ctx.resilient_parsing:
        from evalkit import registry

        for path in paths:
            registry.include(path)


def data_flags(command: F) -> F:
    """`--data-root`, `--offline`, `--include`."""
    return option_flags(("data_root", "offline"))(include_flag(command))


def judge_flags(command: F) -> F:
    """`--judge`, `--judge-model`, `--judge-gen`, `--judge-repeats`, `--judge-labels`."""
    names = ("judge", "judge_model", "judge_gen", "judge_repeats", "judge_labels")
    return option_flags(names)(command)


def output_flag(command: F) -> F:
    """`--output`, a folder of run folders."""
    return option_flags(("output",))(command)


def json_flag(command: F) -> F:
    """`--json`."""
    return flag("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")(
        command
    )


@dataclass(frozen=True, slots=True)
class MaxErrors:
    """How many samples may fail before a finished run counts as bad: a number, or a percentage."""

    number: float = 0
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> MaxErrors:
        """`N` or `P%`. Raises UsageError otherwise."""
        percent = text.strip().endswith("%")
        try:
            number = float(text.strip().rstrip("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf") or (not percent and number != int(number)):
            raise UsageError(f"--max-errors {text}: write a number of samples, or a percentage such as 2%")
        return cls(number, percent)

    def exceeded(self, errors: int, expected: int) -> bool:
        """Whether so many errors are too many."""
        return errors > (self.number * expected / 100 if self.percent else self.number)
