"""`evalkit train RECIPE | plan | merge | export | convert | distill | sweep | compare-methods`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import CompletionItem

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag
from evalkit.cli.terminal import flag
from mini_internvl_train.cli_common import (
    evaluation_flags,
    is_quiet,
    pairs_of,
    read,
    recipe_names,
    recipes,
    sayer,
    set_flag,
    settings_given,
    training_errors,
)
from mini_internvl_train.cli_sweep import compare_methods, sweep


class _Recipes(click.Group):
    """`evalkit train NAME` trains the recipe NAME where NAME is not a command."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, flags and recipes."""
        return [*super().shell_complete(ctx, incomplete), *recipe_names(incomplete)]

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


@train.command("run", short_help="Train a recipe (the word run may be left out).")
@click.argument("recipe", metavar="RECIPE", shell_complete=recipes)
@set_flag
@flag("-o", "--output", type=FOLDER, help="Folder of checkpoints and log, in place of the recipe's.")
@flag("--skip-bad", is_flag=True, help="Count and list bad lines of the data instead of stopping.")
@evaluation_flags
@include_flag
@terminal.verbosity
def run(
    recipe: str,
    settings: tuple[str, ...],
    output: Path | None,
    skip_bad: bool,
    evaluation: list[str],
) -> int:
    """Train RECIPE, or continue the training in its output folder.

    \b
    evalkit train run drivelm-1b --set data.meta=data/drivelm/meta.json
    """
    given = settings_given({"output": output, "data.skip_bad": skip_bad or None})
    with training_errors():
        from mini_internvl_train.fine_tuning import train as train_recipe

        quiet = is_quiet()
        train_recipe(read(recipe, (*settings, *given, *evaluation)), say=sayer(quiet), quiet=quiet)
    return 0


@train.command(short_help="Parameters, memory, tokens, packs, steps, hours; then stop.")
@click.argument("recipe", metavar="RECIPE", shell_complete=recipes)
@set_flag
@flag(
    "--flops", type=float, metavar="RATE", help="Operations per second of a device. Default: measured here."
)
@flag("--devices", type=int, default=1, show_default=True, help="Devices that will train.")
@json_flag
@terminal.verbosity
def plan(recipe: str, settings: tuple[str, ...], flops: float | None, devices: int, as_json: bool) -> int:
    """Estimate what training RECIPE takes.

    \b
    evalkit train plan drivelm-1b --devices 8
    """
    with training_errors():
        from mini_internvl_train.plan import plan_lines, plan_of, rate_of

        planned = read(recipe, settings)
        found = plan_of(planned)
        rate, source = rate_of(planned, flops)
    if as_json:
        content = dataclasses.asdict(found)
        content["memory"]["total"] = found.memory.total
        terminal.print_json({**content, "hours": found.hours(rate, devices), "rate": rate, "source": source})
    else:
        click.echo("\n".join(plan_lines(found, planned, rate, source, devices)))
    return 0


@train.command(short_help="Fold a LoRA checkpoint into its base.")
@click.argument("checkpoint", type=click.Path(path_type=Path, file_okay=False, exists=True))
@flag("-o", "--output", type=FOLDER, help="Folder of the model. Default: <checkpoint>-merged.")
@flag("--base", metavar="NAME|DIR", help="Its base, in place of the one that the adapter names.")
@terminal.verbosity
def merge(checkpoint: Path, output: Path | None, base: str | None) -> int:
    """Write CHECKPOINT (step-000100, or another program's adapter) as a model.

    The logits of a step's model are checked against the unmerged ones.

    \b
    evalkit train merge work/step-000100 -o work/merged
    """
    with training_errors():
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
    with training_errors():
        from mini_internvl_train.export import export as write

        exported = write(checkpoint.resolve(), output, layout)
    click.echo(f"{exported.folder}: {', '.join(exported.files)}")
    return 0


@train.command(short_help="A Mini-InternVL from an encoder and a language model.")
@flag("--vision", required=True, metavar="NAME|DIR", help="InternViT, a Mini-InternVL, or CLIP.")
@flag("--llm", "language", required=True, metavar="NAME|DIR", help="The language model.")
@flag("-o", "--output", type=FOLDER, required=True, help="Folder of the new model.")
@flag("--template", metavar="NAME", help="Of conversations. Default: the language model family's.")
@flag(
    "--image-size", type=int, metavar="N", help="Side of a tile in pixels. Default: the encoder's; CLIP: 448."
)
@flag("--seed", type=int, default=0, show_default=True, help="Of the projector.")
@terminal.verbosity
def assemble(
    vision: str, language: str, output: Path, template: str | None, image_size: int | None, seed: int
) -> int:
    """Write a Mini-InternVL of an encoder, a language model and a fresh projector; stage 1 starts from it.

    \b
    evalkit train assemble --vision OpenGVLab/InternViT-300M-448px --llm Qwen/Qwen2-0.5B-Instruct -o assembled
    """
    with training_errors():
        from mini_internvl_train.assemble import assemble as put_together

        made = put_together(vision, language, output, template=template, image_size=image_size, seed=seed)
    sizes = "encoder {:,}, projector {:,}, language model {:,}".format(*made.parameters)
    click.echo(f"{made.folder}: {sizes} parameters; {len(made.added)} tokens added, {made.rows:,} rows")
    return 0


@train.command(short_help="Official training files to conversation JSONL and meta JSON.")
@click.argument("name", metavar="BENCHMARK")
@flag("--data-root", type=FOLDER, required=True, envvar=["EVALKIT_DATA_ROOT", "EVALKIT_DATA"],
      help="Folder of the official files.")  # fmt: skip
@flag("-o", "--output", type=FOLDER, required=True, help="Folder of the new files.")
@flag("--split", metavar="NAME", help="Default: the training split.")
@flag("--repeat", type=click.IntRange(1), default=1, show_default=True, metavar="N",
      help="How often an epoch sees each sample.")  # fmt: skip
@terminal.verbosity
def convert(name: str, data_root: Path, output: Path, split: str | None, repeat: int) -> int:
    """Convert drivelm, bdd-x, rsvqa-lr, rsvqa-hr, dior-rsvg, gmai-mmbench, classification and others.

    The others are published instruction files: geochat, fit-rs, pmc-vqa, pmc-oa, general (the paper's
    general sets).

    \b
    evalkit train convert drivelm --data-root data -o data/drivelm-train
    """
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
    with training_errors():
        written = convert_files(chosen, found if found.is_dir() else data_root, output, split, repeat)
    for item in written:
        click.echo("; ".join((f"{item.path}: {item.samples:,} samples", *item.notes)))
    click.echo(f"{output / 'meta.json'}")
    return 0


@train.command(short_help="Vision distillation: a small encoder learns from a large one.")
@click.argument("recipe", metavar="RECIPE", default="distill")
@set_flag
@terminal.verbosity
def distill(recipe: str, settings: tuple[str, ...]) -> int:
    """Distil by RECIPE (default: the packaged `distill`), or go on where its output folder left off.

    \b
    evalkit train distill --set output=distilled
    """
    with training_errors():
        from mini_internvl_train.distill import distill as run_distillation
        from mini_internvl_train.distill import read_distillation

        quiet = is_quiet()
        run_distillation(read_distillation(recipe, pairs_of(settings)), say=sayer(quiet), quiet=quiet)
    return 0


for command in (sweep, compare_methods):
    train.add_command(command)
