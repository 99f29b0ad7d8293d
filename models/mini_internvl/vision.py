"""InternViT: the image encoder, with the parameter names of the released checkpoints (`vision_model.*`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mini_internvl.config import VisionConfig


class VisionOutput(NamedTuple):
    """What the encoder returns.

    Attributes:
        last_hidden_state: `[tiles, 1 + patches, hidden]`, the class token first.
        hidden_states: the embeddings and each layer's output, `layers + 1` tensors; None unless asked for.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None


class InternViT(nn.Module):
    """A pre-norm vision transformer with layer scale and no norm at either end (InternVL, arXiv 2312.14238).

    Set `gradient_checkpointing` to recompute the layers in the backward pass.

    Attributes:
        run_layer: what calls a layer, where it is not called directly (`compiled`).
    """

    run_layer: Callable[[nn.Module, Tensor], Tensor] | None = None

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False) -> VisionOutput:
        """Encodes tiles.

        Args:
            pixel_values: `[tiles, 3, height, width]`, normalised floats.
            output_hidden_states: also return every layer's output.
        """
        x = self.embeddings(pixel_values)
        states = [x]
        for layer in self.encoder.layers:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, use_reentrant=False)
            elif self.run_layer is not None:
                x = self.run_layer(layer, x)
            else:
                x = layer(x)
            if output_hidden_states:
                states.append(x)
        return VisionOutput(x, tuple(states) if output_hidden_states else None)


class Embeddings(nn.Module):
    """Patches, the class token and learned positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.grid = config.grid
        width = config.hidden_size
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width) * config.initializer_range)
        self.patch_embedding = nn.Conv2d(
            config.num_channels, width, config.patch_size, stride=config.patch_size
        )
        positions = torch.randn(1, config.grid**2 + 1, width) * config.initializer_range
        self.position_embedding = nn.Parameter(positions)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        height, width = patches.shape[-2:]
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return x + self._positions(height, width).to(x.dtype)

    def _positions(self, height: int, width: int) -> Tensor:
        """The position table, resized bicubically where the tile is not of the trained size."""
        if (height, width) == (self.grid, self.grid):
            return self.position_embedding
        table = self.position_embedding[:, 1:].float()
        table = table.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(height, width), mode="bicubic", align_corners=False)
        table = table.flatten(2).transpose(1, 2).to(self.position_embedding.dtype)
        return torch.cat([self.position_embedding[:, :1], table], dim=1)


class Encoder(nn.Module):
    """The stack of layers; stochastic depth rises linearly from 0 at the first."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        last = max(config.num_hidden_layers - 1, 1)
        self.layers = nn.ModuleList(
            EncoderLayer(config, config.drop_path_rate * i / last) for i in range(config.num_hidden_layers)
        )


class EncoderLayer(nn.Module):
    """Attention and MLP, each pre-normed, scaled per channel and dropped with the layer's probability."""

    def __init__(self, config: VisionConfig, drop_path: float) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = MLP(config)
        self.norm1 = _norm(config)
        self.norm2 = _norm(config)
        self.ls1 = nn.Parameter(config.initializer_factor * torch.ones(config.hidden_size))
        self.ls2 = nn.Parameter(config.initializer_factor * torch.ones(config.hidden_size))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        x = self._join(x, self.attn(self.norm1(x).to(x.dtype)), self.ls1)
        return self._join(x, self.mlp(self.norm2(x).to(x.dtype)), self.ls2)

    def _join(self, x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
        """`x + branch * scale`; in the branch's own memory where no gradient needs it."""
        if torch.is_grad_enabled() or not x.dtype == branch.dtype == scale.dtype:
            return x + self._drop(branch * scale)
        return self._drop(branch.mul_(scale)).add_(x)

    def _drop(self, branch: Tensor) -> Tensor:
        """Stochastic depth (arXiv 1603.09382), one draw per tile, in training only."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        mask = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * mask / keep


class Attention(nn.Module):
    """Multi-head self-attention over fused q, k, v."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(config.dropout)
        self.qk_normalization = config.qk_normalization
        if config.qk_normalization:
            self.q_norm = RMSNorm(width, config.layer_norm_eps)
            self.k_norm = RMSNorm(width, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        fused: Tensor = self.qkv(x)
        fused = fused.view(*x.shape[:2], 3, self.heads, -1)
        if self.qk_normalization:
            q, k = self.q_norm(fused[:, :, 0].flatten(2)), self.k_norm(fused[:, :, 1].flatten(2))
            fused = torch.stack([q, k, fused[:, :, 2].flatten(2)], dim=2)
            fused = fused.view(*x.shape[:2], 3, self.heads, -1)
        heads = fused.permute(2, 0, 3, 1, 4)
        if x.device.type == "cpu":  # attention reads a head's rows 5 to 10% faster where they lie together
            heads = heads.contiguous()
        q, k, v = heads.unbind()
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        projected: Tensor = self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))
        return projected


class MLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.fc1(x)
        out: Tensor = self.fc2(F.gelu(inner) if torch.is_grad_enabled() else torch.ops.aten.gelu_(inner))
        return out


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, as InternViT-6B (the distillation teacher) has it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def _norm(config: VisionConfig) -> nn.Module:
    if config.norm_type == "rms_norm":
        return RMSNorm(config.hidden_size, config.layer_norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
