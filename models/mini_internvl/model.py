"""Mini-InternVL: InternViT, pixel unshuffle, a two-layer projector and a language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl.config import MiniInternVLConfig
from mini_internvl.errors import ImageTokenMismatch
from mini_internvl.language_model import build_language_model
from mini_internvl.vision import InternViT

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class CompiledStep:
    """The compiled parts of a decoding step.

    Attributes:
        before: `decode_step.Layer.before`. after: `decode_step.Layer.after`.
        graphs: whether they are CUDA graphs: rows are padded, and what they return holds until the next step.
    """

    before: Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    after: Callable[[Any, Tensor, Tensor], Tensor]
    graphs: bool


def projector_of(config: MiniInternVLConfig) -> nn.Sequential:
    """The projector from the encoder's width to the language model's, with random weights."""
    unshuffled = int(config.vision.hidden_size / config.downsample_ratio**2)
    width = int(config.llm["hidden_size"])
    return nn.Sequential(
        nn.LayerNorm(unshuffled), nn.Linear(unshuffled, width), nn.GELU(), nn.Linear(width, width)
    )


class MiniInternVL(nn.Module):
    """The network, with the parameter names of the released checkpoints.

    `vision_model.*` is the encoder, `mlp1.*` the projector, `language_model.*` transformers' own class
    (InternLM2 runs as Llama; `mini_internvl.layout` renames its weights on the way in and out). Trainable as
    it stands: nothing in `forward` stops gradients, drop path and dropout follow `train()`.

    Args:
        config: the model's settings.
        attention: the language model's attention, by its name in transformers' registry.

    Attributes:
        compiled: parts of the decoding step, where `compiled.compile_network` made them.
    """

    compiled: CompiledStep | None = None

    def __init__(self, config: MiniInternVLConfig, attention: str = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.image_token_id = config.image_token_id
        self.vision_model = InternViT(config.vision)
        self.language_model: Any = build_language_model(config.llm, attention)
        self.mlp1 = projector_of(config)

    @property
    def device(self) -> torch.device:
        """Where the projector, and with it the model's input, lives."""
        return next(self.mlp1.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.mlp1.parameters()).dtype

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of every position.

        Args:
            input_ids: int64 `[batch, length]`, padded on the left.
            attention_mask: `[batch, length]`, 1 at real tokens, or a 4-D mask as transformers takes it.
            pixel_values: tiles of the whole batch in order, `[tiles, 3, size, size]`; float (normalised) or
                uint8 (normalised here, on the device). None for text alone.
            position_ids: `[batch, length]`; counted from the mask if left out.

        Returns:
            `[batch, length, vocabulary]`.

        Raises:
            ImageTokenMismatch: image tokens and visual features differ in number.
        """
        features = None if pixel_values is None else self.encode_images(pixel_values)
        embeddings = self.embed(input_ids, features)
        if position_ids is None:
            position_ids = positions_of(attention_mask, input_ids)
        logits: Tensor = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
        ).logits
        return logits

    def encode_images(self, tiles: Tensor) -> Tensor:
        """Visual tokens of tiles.

        Args:
            tiles: `[tiles, 3, size, size]`, normalised floats or uint8.

        Returns:
            `[tiles, num_image_token, language width]`.
        """
        tiles = normalise(tiles.to(self.device)).to(self.dtype)
        selected = self.config.select_layer
        output = self.vision_model(tiles, output_hidden_states=selected != -1)
        states = output.last_hidden_state if selected == -1 else output.hidden_states[selected]
        return self.project(states)

    def project(self, states: Tensor) -> Tensor:
        """Visual tokens from encoder states `[tiles, 1 + patches, hidden]`, the class token left out."""
        patches = states[:, 1:]
        side = round(patches.shape[1] ** 0.5)
        grid = patches.reshape(patches.shape[0], side, side, -1)
        tokens: Tensor = self.mlp1(
            pixel_unshuffle(grid, self.config.downsample_ratio, self.config.ps_version).flatten(1, 2)
        )
        return tokens

    def embed(self, input_ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Token embeddings with the visual tokens in the places of the image token.

        Args:
            input_ids: `[batch, length]`.
            features: `[tiles, num_image_token, width]`, the tiles of the whole batch in order; None without.

        Returns:
            `[batch, length, width]`.

        Raises:
            ImageTokenMismatch: the counts differ, or a row's image tokens are not whole tiles.
        """
        embeddings: Tensor = self.language_model.get_input_embeddings()(input_ids.to(self.device))
        self.check_image_tokens(input_ids, 0 if features is None else features.shape[0])
        if features is None or self.image_token_id is None:
            return embeddings
        if features.shape[1] != self.config.num_image_token:
            raise ImageTokenMismatch(
                f"a tile gave {features.shape[1]} visual tokens, not {self.config.num_image_token}; "
                f"tiles must be {self.config.image_size} pixels on a side"
            )
        at_image = torch.eq(input_ids.to(self.device), self.image_token_id)
        flat = features.reshape(-1, features.shape[-1]).to(embeddings.dtype)
        return embeddings.masked_scatter(at_image[..., None], flat)

    def check_image_tokens(self, input_ids: Tensor, tiles: int) -> None:
        """Checks that every row's image tokens are whole tiles, and all together as many as there are.

        Args:
            input_ids: `[batch, length]`.
            tiles: tiles of the whole batch.

        Raises:
            ImageTokenMismatch: they are not.
        """
        if self.image_token_id is None:
            if tiles:
                raise ImageTokenMismatch(
                    "images were given but the id of the image token is unknown; "
                    "load a folder with its tokenizer, or give image_token_id=…"
                )
            return
        each = self.config.num_image_token
        per_row = torch.eq(input_ids, self.image_token_id).sum(dim=1).tolist()
        if sum(per_row) != tiles * each:
            raise ImageTokenMismatch(
                f"{sum(per_row)} image tokens in the text but {tiles * each} visual features "
                f"({tiles} tiles of {each})"
            )
        for row, count in enumerate(per_row):
            if count % each:
                raise ImageTokenMismatch(
                    f"row {row} holds {count} image tokens, not a multiple of {each}: "
                    "a tile would be torn between rows"
                )


def pixel_unshuffle(grid: Tensor, ratio: float, version: str = "v2") -> Tensor:
    """Trades resolution for channels, as InternVL's `pixel_shuffle` does.

    Args:
        grid: `[tiles, height, width, channels]`.
        ratio: side ratio; 0.5 halves both sides and makes four times the channels.
        version: `v2`, or `v1`, which leaves the result transposed.

    Returns:
        `[tiles, height * ratio, width * ratio, channels / ratio**2]`.
    """
    n, height, width, channels = grid.shape
    x = grid.reshape(n, height, int(width * ratio), int(channels / ratio))
    x = x.permute(0, 2, 1, 3)
    x = x.reshape(n, int(width * ratio), int(height * ratio), int(channels / ratio**2))
    return x if version == "v1" else x.permute(0, 2, 1, 3)


def normalise(tiles: Tensor) -> Tensor:
    """uint8 tiles to ImageNet-normalised float32, bit-equal to the reference; floats pass through."""
    if tiles.dtype != torch.uint8:
        return tiles
    mean = torch.tensor(IMAGENET_MEAN, device=tiles.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=tiles.device).view(3, 1, 1)
    return tiles.float().div_(255).sub_(mean).div_(std)


def positions_of(attention_mask: Tensor | None, input_ids: Tensor) -> Tensor:
    """`[batch, length]` positions that count real tokens only, so that padding on the left shifts nothing."""
    if attention_mask is None or attention_mask.ndim != 2:
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape[0], -1)
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
