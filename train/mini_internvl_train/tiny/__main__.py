"""`python -m mini_internvl_train.tiny FOLDER`: makes the embedded model by its recipe, stage by stage.

Every stage writes a folder of its own with its checkpoint and log; a stage that is finished is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_name("tiny.yaml")


def main() -> None:
    """Runs the stages of the recipe that are not finished."""
    parser = argparse.ArgumentParser(prog="python -m mini_internvl_train.tiny", description=__doc__)
    parser.add_argument("folder", type=Path, help="where stages, logs and the model go")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch
    import yaml

    torch.set_num_threads(options.threads)
    recipe = yaml.safe_load(options.recipe.read_text(encoding="utf-8"))
    make(recipe, options.folder)


def make(recipe: dict[str, Any], folder: Path) -> Path:
    """Runs a recipe.

    Args:
        recipe: `seed` and `stages`, each with a `name`, its `kind` (eye, align, mix) and its settings.

    Returns:
        The model as the package holds it.
    """
    from mini_internvl.tokenizers import read_tokenizer
    from mini_internvl_train.tiny import vocabulary
    from mini_internvl_train.tiny.ship import ship

    seed = int(recipe["seed"])
    words = folder / "tokenizer"
    if not (words / "tokenizer_config.json").is_file():
        vocabulary.write(words)
    tokenizer = read_tokenizer(words)
    assert tokenizer is not None
    before: Path | None = None
    for stage in recipe["stages"]:
        settings = dict(stage)
        here = folder / settings.pop("name")
        if not (here / "done").is_file():
            here.mkdir(parents=True, exist_ok=True)
            _run(settings.pop("kind"), settings, seed, before, here, words, tokenizer)
            (here / "done").touch()
        before = here
    assert before is not None
    ship(before / "checkpoint", folder / "model")
    return folder / "model"


def _run(
    kind: str,
    settings: dict[str, Any],
    seed: int,
    before: Path | None,
    here: Path,
    words: Path,
    tokenizer: Any,
) -> None:
    import torch
    from safetensors.torch import load_file

    from mini_internvl.model import MiniInternVL
    from mini_internvl_train.tiny import align, build, dense, labels, mix, start

    torch.manual_seed(seed)
    image_token = tokenizer.token_id("<IMG_CONTEXT>")
    model = MiniInternVL(build.configuration(len(tokenizer), tokenizer.eos_id, image_token))
    head = labels.DenseHead(int(model.config.llm["hidden_size"]))
    start.prepare(model, seed)
    if before is not None:
        model.load_state_dict(load_file(before / "checkpoint" / "model.safetensors"), strict=False)
        head.load_state_dict(load_file(before / "dense_head.safetensors"))
    if kind == "eye":
        head = dense.train_eye(model, folder=here, seed=seed, **settings)
    elif kind == "align":
        align.align(model, head, tokenizer, seed=seed, **settings)
    else:
        mix.train(model, head, tokenizer, mix.Plan(**settings), here, words)
    mix.save(model, head, here, words)


if __name__ == "__main__":
    main()
