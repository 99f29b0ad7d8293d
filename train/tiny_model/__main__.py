"""`PYTHONPATH=train python -m tiny_model FOLDER`: makes the embedded model by its recipe, stage by stage.

Every stage is a training of its own folder, with checkpoints and log. A stage that is finished is not run
again; one that was stopped continues from its checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train import checkpoints
from mini_internvl_train.checkpoints import Resumed
from mini_internvl_train.errors import Stopped, TrainingError
from mini_internvl_train.loop import run
from mini_internvl_train.objective import Say
from tiny_model import vocabulary
from tiny_model.stage import Network, Stage, StageSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

RECIPE = Path(__file__).with_name("tiny.yaml")


def main() -> None:
    """Runs the stages of the recipe that are not finished."""
    parser = argparse.ArgumentParser(prog="python -m tiny_model", description=__doc__)
    parser.add_argument("folder", type=Path, help="of stages, logs and the model")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch
    import yaml

    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.WARNING)
    recipe = yaml.safe_load(options.recipe.read_text(encoding="utf-8"))
    try:
        print(make(recipe, options.folder))
    except Stopped as stopped:
        print(stopped)
        raise SystemExit(130) from None
    except TrainingError as error:
        raise SystemExit(str(error)) from None


def make(recipe: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> Path:
    """Runs a recipe.

    Args:
        recipe: `seed` and `stages`, each with a `name`, its `kind` (of `kinds`) and its settings.
        folder: of a folder for each stage, and of the model. quiet: no progress bar.

    Returns:
        The model as the package holds it.

    Raises:
        TrainingError: a loss diverged, or a checkpoint belongs to another recipe. Stopped: by a signal.
    """
    from mini_internvl.tokenizers import read_tokenizer

    words = folder / "tokenizer"
    if not (words / "tokenizer_config.json").is_file():
        vocabulary.write(words)
    tokenizer = read_tokenizer(words)
    assert tokenizer is not None
    before: Path | None = None
    for entry in recipe["stages"]:
        output = folder / entry["name"]
        if not (output / "final").is_dir():
            _run(StageSettings(str(output), int(recipe["seed"]), entry), before, tokenizer, words, quiet)
        before = output
    assert before is not None
    write_half(before / "final", folder / "model")
    return folder / "model"


def kinds() -> dict[str, type[Stage]]:
    """Stages by the name that the recipe calls their kind."""
    from tiny_model.align import AlignStage
    from tiny_model.dense import EncoderStage
    from tiny_model.questions import QuestionStage

    return {"encoder": EncoderStage, "align": AlignStage, "questions": QuestionStage}


def _run(
    settings: StageSettings, before: Path | None, tokenizer: Tokenizer, words: Path, quiet: bool
) -> None:
    options = {key: value for key, value in settings.stage.items() if key not in ("name", "kind")}
    kind = kinds()[settings.stage["kind"]]

    def make_stage(accelerator: Accelerator, resumed: Resumed | None, say: Say) -> Stage:
        network = Network(tokenizer, settings.seed)
        if before is not None:
            load(network, before / checkpoints.LATEST)
        stage = kind(network, tokenizer, words, settings.seed, **options)
        if resumed is not None:
            resumed.check(settings.decisive(), stage.data, stage.total_steps)
            load(network, resumed.folder)
        return stage

    say: Say = (lambda line: None) if quiet else print
    run(settings, make_stage, say=say, quiet=quiet, on_cpu=True)


def load(network: Network, checkpoint: Path) -> None:
    """Loads the weights of a stage's checkpoint, in place."""
    path = checkpoint / checkpoints.MASTER_WEIGHTS
    checkpoints.load_learned(network, checkpoints.read_weights(path), path)


def write_half(checkpoint: Path, folder: Path) -> None:
    """Copies a model folder with its weights in float16."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(checkpoint.iterdir()):
        if path.name != "model.safetensors":
            shutil.copyfile(path, folder / path.name)
    weights = load_file(checkpoint / "model.safetensors")
    halves = {name: weight.to(torch.float16) for name, weight in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
