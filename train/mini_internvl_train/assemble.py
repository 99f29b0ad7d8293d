"""A Mini-InternVL from its parts (paper section 3.1): encoder, language model, untrained projector.

As InternVL's own training begins: tokens of images and boxes are added to the language model's vocabulary,
the output rows of new tokens are the mean of all others (so are the input rows, which is our choice), and a
tied head becomes a matrix of its own, as in the released 1B.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mini_internvl import MiniInternVL, MiniInternVLConfig
from mini_internvl.checkpoint import HEAD, save_checkpoint
from mini_internvl.config import FAMILIES, read_json
from mini_internvl.layout import released_recipe
from mini_internvl.model import projector_of
from mini_internvl.prompts import DEFAULT_TEMPLATES, IMAGE_CONTEXT, IMAGE_END, IMAGE_START, TEMPLATES
from mini_internvl.releases import locate
from mini_internvl.tokenizers import read_language_tokenizer, read_tokenizer, tokenizer_files
from mini_internvl.vision import InternViT
from mini_internvl.weights import WeightReader, weight_files
from mini_internvl_train.checkpoints import answer, published
from mini_internvl_train.clip_student import KINDS as CLIP
from mini_internvl_train.clip_student import read_clip
from mini_internvl_train.distill import load_vision
from mini_internvl_train.errors import RecipeError, TrainingError
from mini_internvl_train.vocabulary import with_rows, with_tokens

logger = logging.getLogger(__name__)

TOKENS = (
    *(IMAGE_START, IMAGE_END, IMAGE_CONTEXT),
    *("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),
)
"""Special tokens in the order of their ids in the released checkpoints."""
EMBEDDINGS = "language_model.model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was written.

    Attributes:
        vision: what the encoder was made of. added: tokens added to the vocabulary. rows: of the embeddings.
        parameters: of encoder, projector and language model.
    """

    folder: Path
    vision: str
    added: tuple[str, ...]
    rows: int
    parameters: tuple[int, int, int]


def assemble(
    vision: str | Path,
    language: str | Path,
    output: Path,
    *,
    template: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Assembled:
    """Writes a Mini-InternVL in the released layout, in the language model's stored type.

    Args:
        vision: an InternViT, a Mini-InternVL (its encoder is taken) or a CLIP: a name, folder or Hub id.
        language: a language model of a supported family: a folder or Hub id.
        output: folder of the model; must not exist, or be empty.
        template: of conversations, in place of the family's.
        image_size: side of a tile; default 448, or the InternViT's own.
        seed: of the projector.

    Raises:
        RecipeError: parts that do not make a Mini-InternVL. MiniInternVLError: one that cannot be read.
        TrainingError: the folder is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TrainingError(f"{output}: exists already; give another folder, or remove it")
    folder = locate(language)
    settings = _language_settings(folder)
    family = str(settings["model_type"])
    name = template or DEFAULT_TEMPLATES[family]
    if name not in TEMPLATES:
        raise RecipeError(f"--template {name}: {', '.join(TEMPLATES)} are known")
    encoder, what = _encoder(locate(vision), image_size)
    files, added, known, rows = _tokenizer(folder, settings)
    config = MiniInternVLConfig.from_dict(
        {
            "model_type": "internvl_chat",
            "vision_config": dataclasses.asdict(encoder.config),
            "llm_config": {**settings, "vocab_size": rows, "tie_word_embeddings": False},
            "template": name,
        }
    )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = MiniInternVL(config)
    dtype, state = _language_weights(folder, network, known, rows)
    projector = _projector(config, seed)
    state |= {f"mlp1.{name}": tensor for name, tensor in projector.items()}
    state |= {f"vision_model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    _check_shapes(folder, network, state)
    with published(output) as temporary:
        save_checkpoint(network, temporary, state=state, tokenizer_from=files, dtype=dtype)
        _check_tokens(temporary, added, known)
        answer(temporary)
    sizes = [sum(t.numel() for n, t in state.items() if n.startswith(part)) for part in _PARTS]
    return Assembled(output, what, added, rows, (sizes[0], sizes[1], sizes[2]))


_PARTS = ("vision_model.", "mlp1.", "language_model.")


def _language_settings(folder: Path) -> dict[str, Any]:
    """The language model's config.json, without what only the loading of foreign code needs."""
    raw = read_json(folder / "config.json")
    family = raw.get("model_type")
    if family not in FAMILIES:
        whole = "; give its language model alone" if family in ("internvl_chat", "internvl") else ""
        raise RecipeError(f"{folder}: model_type {family!r} is not one of {', '.join(FAMILIES)}{whole}")
    return {name: value for name, value in raw.items() if name not in ("auto_map", "_name_or_path")}


def _encoder(folder: Path, image_size: int | None) -> tuple[InternViT, str]:
    """The encoder in float32, and what it was made of."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind in CLIP:
        return read_clip(folder, image_size or 448), "CLIP"
    encoder = load_vision(str(folder), torch.float32)
    if image_size not in (None, encoder.config.image_size):
        raise RecipeError(
            f"{folder}: its tiles have {encoder.config.image_size} pixels a side, not {image_size}"
        )
    return encoder, "InternViT"


def _tokenizer(folder: Path, settings: dict[str, Any]) -> tuple[dict[str, bytes], tuple[str, ...], int, int]:
    """Tokenizer files with the special tokens, which were added, how many tokens there were, and are."""
    tokenizer = read_language_tokenizer(folder)
    if tokenizer is None:
        raise RecipeError(f"{folder}: has no tokenizer files")
    added = tuple(token for token in TOKENS if tokenizer.token_id(token) is None)
    known = len(tokenizer)
    if known > int(settings["vocab_size"]):
        raise RecipeError(
            f"{folder}: the tokenizer has {known} tokens, the embeddings {settings['vocab_size']} rows"
        )
    files = tokenizer_files(folder)
    return (with_tokens(files, added, known) if added else files), added, known, known + len(added)


def _language_weights(
    folder: Path, network: MiniInternVL, known: int, rows: int
) -> tuple[torch.dtype, dict[str, Tensor]]:
    """The stored type, and the weights by the network's names, with rows for new tokens."""
    reader = WeightReader(weight_files(folder))
    stored = set(reader.names())
    state: dict[str, Tensor] = {}
    used: set[str] = set()

    def fetch(name: str) -> Tensor:
        plain = name.removeprefix("language_model.")
        if plain not in stored:
            raise RecipeError(f"{folder}: the weight {plain} is missing")
        used.add(plain)
        return reader.fetch(plain)

    for name in (name for name in network.state_dict() if name.startswith("language_model.")):
        recipe = released_recipe(name, network.config)
        tied = name == HEAD and recipe.sources[0].removeprefix("language_model.") not in stored
        tensor = (released_recipe(EMBEDDINGS, network.config) if tied else recipe).make(fetch)
        state[name] = with_rows(tensor, known, rows).clone() if name in (HEAD, EMBEDDINGS) else tensor
    if left := sorted(name for name in stored - used if not name.endswith(".rotary_emb.inv_freq")):
        raise RecipeError(f"{folder}: {len(left)} weights are not of its family, first {left[0]}")
    return reader.stored_dtype(), state


def _projector(config: MiniInternVLConfig, seed: int) -> dict[str, Tensor]:
    """Weights of an untrained projector, drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(projector_of(config).state_dict())


def _check_shapes(folder: Path, network: MiniInternVL, state: dict[str, Tensor]) -> None:
    for name, expected in network.state_dict().items():
        if state[name].shape != expected.shape:
            raise RecipeError(
                f"{folder}: {name} is {list(state[name].shape)}, config.json says {list(expected.shape)}"
            )


def _check_tokens(folder: Path, added: tuple[str, ...], first: int) -> None:
    """Reads the written tokenizer back: each added token must be one id, in order."""
    tokenizer = read_tokenizer(folder)
    assert tokenizer is not None
    for place, token in enumerate(added):
        ids = tokenizer.encode(f"a{token}b")
        if tokenizer.token_id(token) != first + place or first + place not in ids:
            raise TrainingError(f"{folder}: the tokenizer does not know {token} as {first + place}")
