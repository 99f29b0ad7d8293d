"""Pixels of a training sample, decoded when its pack is built."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from mini_internvl import ImageError
from mini_internvl.images import open_image, tile_image
from mini_internvl_train.conversations import Conversation
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.samples import VIDEO_FRAMES, Tiling, jpeg_quality
from mini_internvl_train.videos import video_frames

if TYPE_CHECKING:
    from torch import Tensor


def sample_tiles(
    conversation: Conversation,
    grids: tuple[tuple[int, int], ...],
    tiling: Tiling,
    *,
    seed: int,
    epoch: int,
) -> list[Tensor]:
    """uint8 tiles of each picture, in order.

    Raises:
        TrainingDataError: a picture cannot be decoded, with file and line of the sample.
    """
    try:
        pictures = _open(conversation)
    except ImageError as error:
        raise TrainingDataError(f"{conversation.where}: {error}") from None
    if conversation.augment:
        quality = jpeg_quality(seed, epoch, conversation.id)
        pictures = [_recompressed(picture, quality) for picture in pictures]
    return [
        tile_image(picture, tile_size=tiling.tile_size, thumbnail=tiling.thumbnail, grid=grid)
        for picture, grid in zip(pictures, grids, strict=True)
    ]


def _open(conversation: Conversation) -> list[Image.Image]:
    if conversation.video is None:
        return [open_image(path) for path in conversation.images]
    frames = video_frames(conversation.video, conversation.clip, VIDEO_FRAMES, conversation.where)
    return [open_image(frame) for frame in frames]


def _recompressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return open_image(buffer.getvalue())
