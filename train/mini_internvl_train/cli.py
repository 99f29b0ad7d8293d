"""`evalkit train RECIPE | plan | merge | export | convert | distill | compare-methods`."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, given, include_flag, json_flag, option_flag, option_flags
from evalkit.cli.terminal import flag
from evalkit.pipeline.options import RunSettings, comma_list, options_of

if TYPE_CHECKING:
    from mini_internvl_train.recipe import Recipe


def _recipe_names(incomplete: str) -> list[CompletionItem]:
    """Packaged recipes."""
    from mini_internvl_train.recipe import packaged

    return [CompletionItem(name) for name in packaged() if name.startswith(incomplete)]


def _recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Packaged recipes; a file where one is begun."""
    return _recipe_names(incomplete) or [CompletionItem(incomplete, type="file")]


class _Recipes(click.Group):
    """`evalkit train NAME` trains the recipe NAME where NAME is not a command."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, flags and recipes."""
        return [*super().shell_complete(ctx, incomplete), *_recipe_names(incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `run` in front of a recipe."""
        if args and args[0] not in ("-h", "--help") and args[0].replace("_", "-") not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Recipes, short_help="Fine-tune, merge and convert.")
def train() -> None:
    """Train: `evalkit train RECIPE`, a YAML file or the name of a packaged recipe.

    On several GPUs: `torchrun --nproc_per_node 8 --no-python evalkit train RECIPE`, or `accelerate launch`
    with FSDP settings (docs/training.md).

    \b
    evalkit train drivelm-1b --set data.meta=data/drivelm/meta.json --eval-task drivelm --eval-every 500
    """


set_flag = flag(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the recipe, such as steps.max_steps=100; repeatable.",
)


def _given(values: Mapping[str, Any]) -> list[str]:
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


def _evaluation_flags(command: Callable[..., int]) -> Callable[..., int]:
    """Flags of evaluation during training, handed on as one list of settings called `evaluation`."""
    options = options_of(RunSettings)
    own = ("tasks", "every", "limit", "split", "runs")

    @functools.wraps(command)
    def with_settings(*arguments: Any, **flags: Any) -> int:
        values = given({name: flags.pop(name) for name in (*own, *_RUN_FLAGS)})
        for name in ("tasks", "log_to"):
            if name in values:
                values[name] = comma_list(values[name])
        settings = _given({f"evaluation.{key}": value for key, value in values.items()})
        settings += _given({"log_to": values.get("log_to")})  # the training itself too
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


@train.command("run", short_help="Train a recipe (the word run may be left out).")
@click.argument("recipe", metavar="RECIPE", shell_complete=_recipes)
@set_flag
@flag("-o", "--output", type=FOLDER, help="Folder of checkpoints and log, in place of the recipe's.")
@flag("--skip-bad", is_flag=True, help="Count and list bad lines of the data instead of stopping.")
@_evaluation_flags
@include_flag
@terminal.verbosity
def run(
    recipe: str,
    settings: tuple[str, ...],
    output: Path | None,
    skip_bad: bool,
    evaluation: list[str],
) -> int:
    """Train RECIPE, or continue the training in its output folder."""
    given = _given({"output": output, "data.skip_bad": skip_bad or None})
    with _training_errors():
        from mini_internvl_train.fine_tuning import train as train_recipe

        quiet = _quiet()
        train_recipe(_read(recipe, (*settings, *given, *evaluation)), say=_say(quiet), quiet=quiet)
    return 0


@train.command(short_help="Parameters, memory, tokens, packs, steps, hours; then stop.")
@click.argument("recipe", metavar="RECIPE", shell_complete=_recipes)
@set_flag
@flag(
    "--flops", type=float, metavar="RATE", help="Operations per second of a device. Default: measured here."
)
@flag("--devices", type=int, default=1, show_default=True, help="Devices that will train.")
@json_flag
@terminal.verbosity
def plan(recipe: str, settings: tuple[str, ...], flops: float | None, devices: int, as_json: bool) -> int:
    """Estimate what training RECIPE takes."""
    with _training_errors():
        from mini_internvl_train.plan import plan_lines, plan_of, rate_of

        read = _read(recipe, settings)
        found = plan_of(read)
        rate, source = rate_of(read, flops)
    if as_json:
        content = dataclasses.asdict(found)
        content["memory"]["total"] = found.memory.total
        terminal.print_json({**content, "hours": found.hours(rate, devices), "rate": rate, "source": source})
    else:
        click.echo("\n".join(plan_lines(found, read, rate, source, devices)))
    return 0


@train.command(short_help="Fold a LoRA checkpoint into its base.")
@click.argument("checkpoint", type=click.Path(path_type=Path, file_okay=False, exists=True))
@flag("-o", "--output", type=FOLDER, help="Folder of the model. Default: <checkpoint>-merged.")
@flag("--base", metavar="NAME|DIR", help="Its base, in place of the one that the adapter names.")
@terminal.verbosity
def merge(checkpoint: Path, output: Path | None, base: str | None) -> int:
    """Write CHECKPOINT (step-000100, or another program's adapter) as a model.

    The logits of a step's model are checked against the unmerged ones.
    """
    with _training_errors():
        from mini_internvl_train.merge import merge as fold

        folder = checkpoint.resolve()
        merged = fold(folder, output or folder.with_name(f"{folder.name}-merged"), base)
    checked = (
        ""
        if merged.difference is None
        else (f": logits differ from the unmerged ones by {merged.difference:.1e} of their spread")
    )
    click.echo(f"{merged.folder}{checked}")
    return 0


@train.command(short_help="Write a checkpoint in another layout.")
@click.argument("checkpoint", type=click.Path(path_type=Path, file_okay=False, exists=True))
@flag("--to", "layout", type=click.Choice(["hf", "released"]), required=True,
      help="hf: transformers' own classes; released: InternVL's.")  # fmt: skip
@flag("-o", "--output", type=FOLDER, required=True, help="Folder of the new checkpoint.")
@terminal.verbosity
def export(checkpoint: Path, layout: Literal["hf", "released"], output: Path) -> int:
    """Write CHECKPOINT (final) so that transformers, vLLM and LMDeploy open it.

    \b
    evalkit train export runs/drivelm/final --to hf -o drivelm-hf
    """
    with _training_errors():
        from mini_internvl_train.export import export as write

        exported = write(checkpoint.resolve(), output, layout)
    click.echo(f"{exported.folder}: {', '.join(exported.files)}")
    return 0


@train.command(short_help="Official training files to conversation JSONL and meta JSON.")
@click.argument("name", metavar="BENCHMARK")
@flag("--data-root", type=FOLDER, required=True, envvar=["EVALKIT_DATA_ROOT", "EVALKIT_DATA"],
      help="Folder of the official files.")  # fmt: skip
@flag("-o", "--output", type=FOLDER, required=True, help="Folder of the new files.")
@flag("--split", metavar="NAME", help="Default: the training split.")
@terminal.verbosity
def convert(name: str, data_root: Path, output: Path, split: str | None) -> int:
    """Convert drivelm, bdd-x, rsvqa-lr, rsvqa-hr, dior-rsvg, gmai-mmbench or classification."""
    from evalkit.errors import UsageError
    from evalkit.registry import nearest
    from mini_internvl_train.convert import ALIASES, CONVERTERS
    from mini_internvl_train.convert import convert as convert_files

    chosen = name.replace("_", "-")
    if chosen not in CONVERTERS and chosen not in ALIASES:
        raise UsageError(
            f"no converter {name!r}{nearest(chosen, list(CONVERTERS))}; there are {', '.join(CONVERTERS)}"
        )
    found = data_root / chosen
    with _training_errors():
        written = convert_files(chosen, found if found.is_dir() else data_root, output, split)
    for item in written:
        click.echo(f"{item.path}: {item.samples:,} samples")
    click.echo(f"{output / 'meta.json'}")
    return 0


@train.command(short_help="Vision distillation: a small encoder learns from a large one.")
@click.argument("recipe", metavar="RECIPE", default="distill")
@set_flag
@terminal.verbosity
def distill(recipe: str, settings: tuple[str, ...]) -> int:
    """Distil by RECIPE (default: the packaged `distill`), or go on where its output folder left off."""
    with _training_errors():
        from mini_internvl_train.distill import distill as run_distillation
        from mini_internvl_train.distill import read_distillation

        quiet = _quiet()
        run_distillation(read_distillation(recipe, _pairs(settings)), say=_say(quiet), quiet=quiet)
    return 0


@train.command("compare-methods", short_help="Full, frozen encoder and LoRA from one checkpoint.")
@click.argument("recipe", metavar="RECIPE", shell_complete=_recipes)
@set_flag
@flag("--method", "methods", multiple=True, metavar="NAME",
      help="full, frozen_vit, lora, lora_projector; repeatable. Default: the first three.")  # fmt: skip
@flag(
    "--devices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes of each training, one a GPU.",
)
@flag("-o", "--output", type=FOLDER, help="Folder of all trainings, in place of the recipe's.")
@_evaluation_flags
@include_flag
@json_flag
@terminal.verbosity
def compare_methods(
    recipe: str,
    settings: tuple[str, ...],
    methods: tuple[str, ...],
    devices: int,
    output: Path | None,
    evaluation: list[str],
    as_json: bool,
) -> int:
    """Train RECIPE by each method on the same data order; memory, speed, and scores by step."""
    given = [*evaluation, *_given({"output": output})]
    with _training_errors():
        from mini_internvl_train.compare_methods import METHODS, table
        from mini_internvl_train.compare_methods import compare_methods as compare

        chosen = tuple(name.replace("-", "_") for name in comma_list(methods)) or METHODS
        read = _read(recipe, (*settings, *given))
        _check_methods(chosen)
        outcomes = compare(read, chosen, devices=devices, say=lambda line: click.echo(line, err=True))
    if as_json:
        terminal.print_json({"methods": [dataclasses.asdict(outcome) for outcome in outcomes]})
    else:
        click.echo("\n".join(table(outcomes)))
    return 0


def _check_methods(methods: Sequence[str]) -> None:
    from typing import get_args

    from mini_internvl_train.errors import RecipeError
    from mini_internvl_train.recipe import Trainable

    known = get_args(Trainable)
    if unknown := [name for name in methods if name not in known]:
        raise RecipeError(f"--method {unknown[0]}: {', '.join(known)} are known")


def _read(recipe: str, settings: Sequence[str]) -> Recipe:
    from mini_internvl_train.recipe import read_recipe

    return read_recipe(recipe, _pairs(settings))


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    from mini_internvl_train.errors import RecipeError

    pairs = [text.partition("=") for text in settings]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise RecipeError(f"--set {wrong[0]}: write KEY=VALUE, such as steps.max_steps=100")
    return {key: value for key, _, value in pairs}


def _quiet() -> bool:
    import logging

    return logging.getLogger().level >= logging.WARNING


def _say(quiet: bool) -> Callable[[str], None]:
    """Lines to stdout, above the progress bar; or nowhere."""
    from tqdm import tqdm

    return (lambda line: None) if quiet else tqdm.write


@contextmanager
def _training_errors() -> Iterator[None]:
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
