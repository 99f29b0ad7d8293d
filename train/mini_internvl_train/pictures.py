"""Pixels of a training sample, decoded when its pack is built."""

from __future__ import annotations

import io
import os
import random
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image

from mini_internvl import ImageError
from mini_internvl.images import open_image, tile_image
from mini_internvl_train.conversations import Conversation, DataSet, Line, parse_line
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.tiling import VIDEO_FRAMES, Tiling
from mini_internvl_train.videos import video_frames

if TYPE_CHECKING:
    from torch import Tensor

THREADS = max(1, min(8, (os.cpu_count() or 2) - 1))
"""Threads that decode; Pillow decodes without holding Python's lock."""


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


def jpeg_quality(seed: int, epoch: int, sample_id: str) -> int:
    """Quality of the data_augment re-encoding, uniform over 75..100; a function of seed, epoch and sample."""
    return random.Random(f"{seed}/{epoch}/{sample_id}").randint(75, 100)


def line_damage(data_set: DataSet, line: Line) -> str | None:
    """What is wrong with the pixels of a line's pictures, with file and line; None if all can be decoded.

    A header says nothing of a file that ends early. A line that cannot be read at all has no pictures yet.
    """
    try:
        conversation = parse_line(data_set, line)
    except TrainingDataError:
        return None
    if conversation.video is not None:
        try:
            _open(conversation)
        except TrainingDataError as error:
            return str(error)
        return None
    found = next(filter(None, map(_picture_damage, conversation.images)), None)
    return None if found is None else f"{conversation.where}: {found}"


@lru_cache(maxsize=256)  # several lines ask about one picture
def _picture_damage(path: str) -> str | None:
    try:
        open_image(path)
    except ImageError as error:
        return str(error)
    return None


def _open(conversation: Conversation) -> list[Image.Image]:
    if conversation.video is None:
        return [open_image(path) for path in conversation.images]
    frames = video_frames(conversation.video, conversation.clip, VIDEO_FRAMES, conversation.where)
    return [open_image(frame) for frame in frames]


def _recompressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return open_image(buffer.getvalue())
