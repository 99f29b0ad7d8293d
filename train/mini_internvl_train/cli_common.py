"""What the commands of training share: their flags, settings that were given, errors as exit statuses."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from evalkit.cli.options import FOLDER, given, option_flag, option_flags
from evalkit.cli.terminal import flag
from evalkit.pipeline.options import RunSettings, comma_list, options_of

if TYPE_CHECKING:
    from mini_internvl_train.recipe import Recipe


def recipe_names(incomplete: str) -> list[CompletionItem]:
    """Packaged recipes."""
    from mini_internvl_train.recipe import packaged

    return [CompletionItem(name) for name in packaged() if name.startswith(incomplete)]


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Packaged recipes; a file where one is begun."""
    return recipe_names(incomplete) or [CompletionItem(incomplete, type="file")]


set_flag = flag(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the recipe, such as steps.max_steps=100; repeatable.",
)


def settings_given(values: Mapping[str, Any]) -> list[str]:
    """Settings of flags that were given; JSON is YAML, so a path is never read as a number."""
    return [f"{key}={json.dumps(value, default=str)}" for key, value in values.items() if value is not None]


#: Options of a run that keep their flag here; the others of the recipe's `evaluation` are set by `--set`.
_RUN_FLAGS = (
    "log_to",
    "data_root",
    "engine",
    "ray_address",
    "cpus_per_worker",
    "ship_data",
    "worker_timeout",
)


def evaluation_flags(command: Callable[..., int]) -> Callable[..., int]:
    """Flags of evaluation during training, handed on as one list of settings called `evaluation`."""
    options = options_of(RunSettings)
    own = ("tasks", "every", "limit", "split", "runs")

    @functools.wraps(command)
    def with_settings(*arguments: Any, **flags: Any) -> int:
        values = given({name: flags.pop(name) for name in (*own, *_RUN_FLAGS)})
        for name in ("tasks", "log_to"):
            if name in values:
                values[name] = comma_list(values[name])
        settings = settings_given({f"evaluation.{key}": value for key, value in values.items()})
        settings += settings_given({"log_to": values.get("log_to")})  # the training itself too
        return command(*arguments, evaluation=settings, **flags)

    wrapped: Callable[..., int] = with_settings
    for decorate in (
        option_flags(_RUN_FLAGS),
        flag("--runs", type=FOLDER, help="Folder of run folders. Default: runs."),
        option_flag(options["split"], "--eval-split", help="Split of these tasks."),
        option_flag(options["limit"], "--eval-limit", help="Only N samples at each evaluation."),
        flag("--eval-every", "every", type=int, metavar="N", help="Steps between evaluations."),
        flag("--eval-task", "tasks", multiple=True, metavar="NAME", help="Evaluate on it; repeatable."),
    ):
        wrapped = decorate(wrapped)
    return wrapped


def read(recipe: str, settings: Sequence[str]) -> Recipe:
    """A recipe with its settings changed."""
    from mini_internvl_train.recipe import read_recipe

    return read_recipe(recipe, pairs_of(settings))


def pairs_of(settings: Sequence[str]) -> dict[str, str]:
    """Settings by key, as `KEY=VALUE` gives them. Raises RecipeError: another form."""
    from mini_internvl_train.errors import RecipeError

    pairs = [text.partition("=") for text in settings]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise RecipeError(f"--set {wrong[0]}: write KEY=VALUE, such as steps.max_steps=100")
    return {key: value for key, _, value in pairs}


def is_quiet() -> bool:
    """Whether only warnings are told."""
    import logging

    return logging.getLogger().level >= logging.WARNING


def sayer(quiet: bool) -> Callable[[str], None]:
    """Lines to stdout, above the progress bar; or nowhere."""
    from tqdm import tqdm

    return (lambda line: None) if quiet else tqdm.write


@contextmanager
def training_errors() -> Iterator[None]:
    """Turns training's errors into evalkit's, one line and an exit status each."""
    from evalkit.errors import CheckpointError, DataError, EvalkitError, UsageError
    from mini_internvl import MiniInternVLError
    from mini_internvl_train.errors import RecipeError, ResumeError, Stopped, TrainingDataError, TrainingError

    try:
        yield
    except Stopped as stopped:
        interrupted = EvalkitError(str(stopped))
        interrupted.exit_code = 130
        raise interrupted from stopped
    except RecipeError as error:
        raise UsageError(str(error)) from error
    except TrainingDataError as error:
        raise DataError(str(error)) from error
    except (ResumeError, MiniInternVLError) as error:
        raise CheckpointError(str(error)) from error
    except (TrainingError, OSError) as error:
        failed = EvalkitError(" ".join(str(error).split()))
        failed.exit_code = 3
        raise failed from error
