"""How many tiles each picture of a sample is cut into, from headers alone, and frames in place of a video."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from mini_internvl.images import choose_grid
from mini_internvl_train.conversations import Conversation, Turn
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.videos import check_decoder

EXIF_ORIENTATION = 0x0112
VIDEO_FRAMES = 8
"""Frames taken of a video file, one tile each."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """What decides a picture's tiles: the checkpoint's own settings and the recipe's bound."""

    tile_size: int
    max_tiles: int
    thumbnail: bool = True


def expand_video(conversation: Conversation) -> Conversation:
    """A video conversation with one `Frame<i>: <image>` line a frame in place of `<video>`."""
    if conversation.video is None:
        return conversation
    marks = "\n".join(f"Frame{i}: <image>" for i in range(1, VIDEO_FRAMES + 1))
    turns = tuple(
        Turn(t.role, t.text.replace("<video>", marks)) if t.role == "user" else t for t in conversation.turns
    )
    return replace(conversation, turns=turns)


def picture_grids(conversation: Conversation, tiling: Tiling) -> list[tuple[int, int]]:
    """The grid of every picture; several pictures share the bound, a video frame is one tile.

    Raises:
        TrainingDataError: a picture is missing or cannot be read, with file and line of the sample.
    """
    if conversation.video is not None:
        check_decoder(conversation.where)
        if not Path(conversation.video).is_file():
            raise TrainingDataError(f"{conversation.where}: video {conversation.video} missing")
        return [(1, 1)] * VIDEO_FRAMES
    bound = conversation.max_tiles or tiling.max_tiles
    each = max(1, bound // max(1, len(conversation.images)))
    return [
        choose_grid(*picture_size(path, conversation.where), max_tiles=each, tile_size=tiling.tile_size)
        for path in conversation.images
    ]


def tile_count(grid: tuple[int, int], thumbnail: bool) -> int:
    """Tiles of a grid with its thumbnail, which a single tile has not."""
    tiles = grid[0] * grid[1]
    return tiles + (1 if thumbnail and tiles > 1 else 0)


def picture_size(path: str, where: str) -> tuple[int, int]:
    """Upright width and height, from the header alone."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise TrainingDataError(f"{where}: picture {path} missing") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise TrainingDataError(f"{where}: picture {path} cannot be read ({error})") from None
    return (height, width) if turned else (width, height)
