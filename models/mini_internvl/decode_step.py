"""One decoding step, straight through the language model's weights.

A step of one token is bound by reading the weights; what transformers' classes do around each product (calls
of modules, hooks, masks, arguments) is then a good part of it. Here a step is the products alone, in the same
order and with the same rounding. Qwen2, Qwen3, Llama (InternLM2) and Phi-3 are told apart by what their
layers hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mini_internvl.model import MiniInternVL
from mini_internvl.prefix_cache import SharedPrefixCache
from mini_internvl.shared_attention import Prefixes, attend_shared

Product = Callable[[Tensor], Tensor]


class Step:
    """The language model of a network, one new token of every row at a time. For inference only.

    Args:
        network: its weights are used as they are at every call; its compiled parts where it has them.
    """

    def __init__(self, network: MiniInternVL) -> None:
        language_model = network.language_model
        decoder = language_model.model
        self._embed = decoder.embed_tokens
        self._rotary = decoder.rotary_emb
        self._layers = [Layer(layer) for layer in decoder.layers]
        self._norm = _norm(decoder.norm)
        self._head = _product(language_model.lm_head)
        compiled = network.compiled
        self._graphs = compiled is not None and compiled.graphs
        self._before = Layer.before if compiled is None else compiled.before
        self._after = Layer.after if compiled is None else compiled.after

    def __call__(
        self, tokens: Tensor, positions: Tensor, cache: SharedPrefixCache, mask: Tensor | None
    ) -> Tensor:
        """Logits of the next token, `[rows, vocabulary]`.

        Args:
            tokens: int64 `[rows]`.
            positions: int64 `[rows]`, of the tokens.
            cache: with room for them; its `advance` is called here.
            mask: as `shared_attention.fold_mask` returns it, or None.
        """
        prefixes = cache.advance()
        rows = len(tokens)
        spare = 0
        if self._graphs:  # what a graph gave at the last step may be overwritten from here on
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            spare = padded_rows(rows) - rows
            tokens, positions = F.pad(tokens, (0, spare)), F.pad(positions, (0, spare))
        x = self._embed(tokens)
        cos, sin = self._rotary(x, positions[:, None])
        half = sin.shape[-1] // 2
        sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)  # so that turning halves needs no minus
        for layer in self._layers:
            parts = self._before(layer, x, cos, sin)
            queries, keys, values = (part[:rows] for part in parts) if spare else parts
            attended = layer.attend(queries, keys, values, cache, mask, prefixes)
            x = self._after(layer, x, F.pad(attended, (0, 0, 0, spare)) if spare else attended)
        return self._head(self._norm(x[:rows]))


class Layer:
    """One decoder layer over rows of one token, in three parts: `before`, `attend`, `after`."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._attention = attention
        self._width = int(attention.head_dim)
        self._heads = attention.o_proj.in_features // self._width
        fused = hasattr(attention, "qkv_proj")  # Phi-3
        parts = (attention.qkv_proj,) if fused else (attention.q_proj, attention.k_proj, attention.v_proj)
        self._inner = [_product(part) for part in parts]
        self._outer = _product(attention.o_proj)
        gates = (mlp.gate_up_proj,) if hasattr(mlp, "gate_up_proj") else (mlp.gate_proj, mlp.up_proj)
        self._gates = [_product(part) for part in gates]
        self._activation = mlp.activation_fn if fused else mlp.act_fn
        self._down = _product(mlp.down_proj)
        self._head_norms = (
            [_norm(attention.q_norm), _norm(attention.k_norm)] if hasattr(attention, "q_norm") else []
        )  # Qwen3
        self._norm_before = _norm(layer.input_layernorm)
        self._norm_after = _norm(layer.post_attention_layernorm)

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[rows, heads, 1, head_dim]`, the first two turned.

        Args:
            x: `[rows, width]`.
            cos: `[rows, 1, head_dim]`. sin: likewise, its first half negated.
        """
        normed = self._norm_before(x)
        inner = [product(normed) for product in self._inner]
        joined = (inner[0] if len(inner) == 1 else torch.cat(inner, dim=-1)).view(x.shape[0], -1, self._width)
        values = (joined.shape[1] - self._heads) // 2
        asked = joined[:, :-values]
        if self._head_norms:
            parts = asked[:, : self._heads], asked[:, self._heads :]
            asked = torch.cat([norm(part) for norm, part in zip(self._head_norms, parts, strict=True)], dim=1)
        turned = _turn(asked, cos, sin)
        return turned[:, : self._heads, None], turned[:, self._heads :, None], joined[:, -values:, None]

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        cache: SharedPrefixCache,
        mask: Tensor | None,
        prefixes: Prefixes,
    ) -> Tensor:
        """What the queries find in the cache, the new keys and values in it, `[rows, heads * head_dim]`."""
        key, value = cache.update(keys, values, self._attention.layer_idx)
        found, _ = attend_shared(
            self._attention, queries, key, value, mask, self._attention.scaling, prefixes
        )
        return found.reshape(len(queries), -1)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output, `[rows, width]`.

        Args:
            x: its input. attended: what `attend` returned.
        """
        x = x + self._outer(attended)
        normed = self._norm_after(x)
        gates = [product(normed) for product in self._gates]
        gate, up = gates if len(gates) == 2 else gates[0].chunk(2, dim=-1)
        return x + self._down(self._activation(gate) * up)


def padded_rows(rows: int) -> int:
    """The next power of two: a graph holds for one number of rows, so there are few of them."""
    return 1 << (rows - 1).bit_length()


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of `[rows, heads, head_dim]`; `sin` has its first half negated."""
    return x * cos + torch.roll(x, x.shape[-1] // 2, dims=-1) * sin


def _product(layer: nn.Module) -> Product:
    """A linear layer's product; layers that are more than that (8 bits, adapters, wrapped) are called."""
    if type(layer) is not nn.Linear or "forward" in vars(layer) or layer._forward_hooks:
        return layer
    return partial(F.linear, weight=layer.weight, bias=layer.bias)


def _norm(layer: Any) -> Product:
    """Root-mean-square norm, rounded as transformers rounds it."""
    weight, eps = layer.weight, layer.variance_epsilon
    if weight.dtype == torch.float32:
        return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=eps)
    return partial(_half_norm, weight=weight, eps=eps)


def _half_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)
