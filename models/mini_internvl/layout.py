"""Names and shapes of weights: the released layout, transformers' native layout, and the module's own.

Each parameter of the module is made from one or more stored tensors. InternLM2 stores q, k and v fused and
grouped by key-value head; the native layout stores the encoder's q, k and v apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mini_internvl.config import MiniInternVLConfig

Combine = Callable[[list[Tensor]], Tensor]

_INTERNLM2 = (
    ("model.embed_tokens.", "model.tok_embeddings."),
    (".self_attn.o_proj.", ".attention.wo."),
    (".mlp.gate_proj.", ".feed_forward.w1."),
    (".mlp.up_proj.", ".feed_forward.w3."),
    (".mlp.down_proj.", ".feed_forward.w2."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
)
_NATIVE = (
    ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.patch_embeddings.projection."),
    ("vision_model.encoder.layers.", "vision_tower.encoder.layer."),
    (".attn.proj.", ".attention.projection_layer."),
    (".attn.q_norm.", ".attention.q_norm."),
    (".attn.k_norm.", ".attention.k_norm."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
)


_PARTS = (
    "vision_model.",
    "language_model.model.",
    "language_model.output.",
    "language_model.lm_head.",
    "mlp1.",
)
_WRAPPERS = re.compile(
    r"^module\.|(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_model\.model|base_layer)\."
)


@dataclass(frozen=True)
class Recipe:
    """How one parameter is made: the stored tensors it needs and what is done with them."""

    sources: tuple[str, ...]
    combine: Combine | None = None

    def make(self, fetch: Callable[[str], Tensor]) -> Tensor:
        """The parameter, from stored tensors fetched by name."""
        tensors = [fetch(name) for name in self.sources]
        return tensors[0] if self.combine is None else self.combine(tensors)


def released_recipe(name: str, config: MiniInternVLConfig) -> Recipe:
    """Where the module's parameter `name` is in a released checkpoint."""
    if config.family != "internlm2" or not name.startswith("language_model."):
        return Recipe((name,))
    if name == "language_model.lm_head.weight":
        return Recipe(("language_model.output.weight",))
    fused = re.sub(r"\.self_attn\.[qkv]_proj\.", ".attention.wqkv.", name)
    if fused != name:
        part = "qkv".index(name.rsplit("_proj", 1)[0][-1])
        return Recipe((fused,), lambda tensors: split_wqkv(tensors[0], config)[part])
    return Recipe((_rename(name, _INTERNLM2),))


def native_recipe(name: str) -> Recipe:
    """Where the module's parameter `name` is in transformers' native InternVL layout (canonical names)."""
    if name.startswith("language_model."):
        return Recipe((name,))
    stored = _rename(name, _NATIVE)
    if ".attn.qkv." in stored:
        parts = tuple(stored.replace(".attn.qkv.", f".attention.{x}_proj.") for x in "qkv")
        return Recipe(parts, torch.cat)
    return Recipe((stored,))


def canonical_native(stored: str) -> str:
    """A native name without the differences between transformers' versions.

    Version 5 keeps `model.language_model.layers…` and `lm_head.weight`; earlier ones
    `language_model.model.layers…` and `language_model.lm_head.weight`.
    """
    name = stored.removeprefix("model.")
    if name == "lm_head.weight":
        return "language_model.lm_head.weight"
    if name.startswith("language_model.") and not name.startswith(
        ("language_model.model.", "language_model.lm_head.", "language_model.output.")
    ):
        return name.replace("language_model.", "language_model.model.", 1)
    return name


def unwrapped(stored: str) -> str:
    """A stored name without what wrappers put in: DataParallel, torch.compile, FSDP, PEFT, a trainer."""
    name = _WRAPPERS.sub("", stored)
    inner = name.removeprefix("model.")
    return inner if inner.startswith(_PARTS) else name


def canonical_adapted(stored: str) -> str:
    """The name of a weight that an adapter changes, in the released or the native layout.

    Adapters of a whole model name it from its root, those of a language model alone from there.
    """
    name = canonical_native(_WRAPPERS.sub("", stored))
    if name.startswith(("layers.", "embed_tokens.", "tok_embeddings.", "norm.")):
        return f"language_model.model.{name}"
    return f"language_model.{name}" if name == "output.weight" else name


def released_state(state: Mapping[str, Tensor], config: MiniInternVLConfig) -> dict[str, Tensor]:
    """The module's state under the released names, q, k and v fused again for InternLM2.

    Args:
        state: `MiniInternVL.state_dict()`.
        config: of the same model.
    """
    released: dict[str, Tensor] = {}
    for name, tensor in state.items():
        recipe = released_recipe(name, config)
        (stored,) = recipe.sources
        if recipe.combine is None:
            released[stored] = tensor
        elif ".q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv"]
            released[stored] = fuse_wqkv(parts, config)
    return released


def split_wqkv(fused: Tensor, config: MiniInternVLConfig) -> tuple[Tensor, Tensor, Tensor]:
    """InternLM2's fused rows to q, k and v.

    The rows are grouped by key-value head: the group's query heads, then its key, then its value.

    Args:
        fused: `[(heads + 2 * kv_heads) * head_dim, …]`, a weight or a bias.
    """
    kv_heads, queries, head_dim = _heads(config)
    grouped = fused.reshape(kv_heads, queries + 2, head_dim, *fused.shape[1:])
    q, k, v = grouped[:, :queries], grouped[:, queries], grouped[:, queries + 1]
    return tuple(part.reshape(-1, *fused.shape[1:]) for part in (q, k, v))  # type: ignore[return-value]


def fuse_wqkv(parts: Iterable[Tensor], config: MiniInternVLConfig) -> Tensor:
    """The inverse of `split_wqkv`."""
    kv_heads, queries, head_dim = _heads(config)
    q, k, v = parts
    rest = q.shape[1:]
    grouped = torch.cat(
        [
            q.reshape(kv_heads, queries, head_dim, *rest),
            k.reshape(kv_heads, 1, head_dim, *rest),
            v.reshape(kv_heads, 1, head_dim, *rest),
        ],
        dim=1,
    )
    return grouped.reshape(-1, *rest)


def _heads(config: MiniInternVLConfig) -> tuple[int, int, int]:
    """Key-value heads, query heads of each, and the width of a head."""
    heads = int(config.llm["num_attention_heads"])
    kv_heads = int(config.llm.get("num_key_value_heads") or heads)
    return kv_heads, heads // kv_heads, int(config.llm["hidden_size"]) // heads


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str:
    for ours, theirs in table:
        name = name.replace(ours, theirs)
    return name
