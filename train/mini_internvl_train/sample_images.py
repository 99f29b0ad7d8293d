"""Images of a sample: grids from headers, frames in place of a video, pixels when its pack is built."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from evalkit.installation import install_command
from mini_internvl import ImageError
from mini_internvl.decoding import MAX_PIXELS, image_size
from mini_internvl.images import choose_grid, open_image, tile_image
from mini_internvl_train.conversations import Conversation, DataSet, Line, Turn, parse_line
from mini_internvl_train.errors import TrainingDataError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are tiled and videos shown: the checkpoint's settings and the recipe's bounds."""

    tile_size: int
    max_tiles: int
    thumbnail: bool = True
    max_pixels: int = MAX_PIXELS
    frames: int = 8


def expand_video(conversation: Conversation, frames: int) -> Conversation:
    """A video conversation with one `Frame<i>: <image>` line a frame in place of `<video>`.

    Args:
        frames: how many, unless the data set says.
    """
    if conversation.video is None:
        return conversation
    count = conversation.frames or frames
    marks = "\n".join(f"Frame{i}: <image>" for i in range(1, count + 1))
    turns = tuple(
        Turn(t.role, t.text.replace("<video>", marks)) if t.role == "user" else t for t in conversation.turns
    )
    return replace(conversation, turns=turns, frames=count)


def image_grids(conversation: Conversation, tiling: Tiling) -> list[tuple[int, int]]:
    """The grid of every image; several images share the bound, a video frame is one tile.

    Raises:
        TrainingDataError: an image or video is missing or cannot be read, with file and line of the sample.
    """
    if conversation.video is not None:
        check_video(conversation.video, conversation.clip, conversation.where, tiling.max_pixels)
        return [(1, 1)] * (conversation.frames or tiling.frames)
    bound = conversation.max_tiles or tiling.max_tiles
    each = max(1, bound // max(1, len(conversation.images)))
    return [
        choose_grid(
            *upright_size(path, conversation.where, tiling.max_pixels),
            max_tiles=each,
            tile_size=tiling.tile_size,
        )
        for path in conversation.images
    ]


def tile_count(grid: tuple[int, int], thumbnail: bool) -> int:
    """Tiles of a grid and its thumbnail; a single tile has none."""
    tiles = grid[0] * grid[1]
    return tiles + (1 if thumbnail and tiles > 1 else 0)


def upright_size(path: str, where: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height, from the header alone. Raises TrainingDataError."""
    try:
        return image_size(path, max_pixels)
    except ImageError as error:
        raise TrainingDataError(f"{where}: image {error}") from None


def check_decoder(where: str) -> None:
    """Raises TrainingError if PyAV is not installed: not the sample's fault, so it is never skipped."""
    if find_spec("av") is None:
        raise TrainingError(f"{where}: video needs PyAV: {install_command('video')}")


def check_video(path: str, clip: tuple[float, float] | None, where: str, max_pixels: int) -> None:
    """Reads the header of a video.

    Raises:
        TrainingDataError: the file is missing, no video, too large, or shorter than where the clip begins.
        TrainingError: PyAV is not installed.
    """
    check_decoder(where)
    try:
        width, height, seconds = _video_header(path, Path(path).stat().st_mtime_ns)
    except FileNotFoundError:
        raise TrainingDataError(f"{where}: video {path} missing") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise TrainingDataError(f"{where}: video {path} cannot be decoded ({error})") from None
    if width * height > max_pixels:
        raise TrainingDataError(
            f"{where}: video {path} has {width} x {height} pixels, more than {max_pixels}"
        )
    if clip is not None and seconds is not None and clip[0] > seconds:
        raise TrainingDataError(f"{where}: video {path} has no frame within the clip {clip}")


@lru_cache(maxsize=4096)  # a sample is looked at again when its pack is built
def _video_header(path: str, _modified: int) -> tuple[int, int, float | None]:
    """Width, height and seconds; the time of its last change tells a repaired file."""
    import av

    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        seconds = None if container.duration is None else container.duration / av.time_base
        return stream.width, stream.height, seconds


def video_frames(path: str, clip: tuple[float, float] | None, count: int, where: str) -> list[Image.Image]:
    """`count` frames in one pass over the file.

    Args:
        path: of the video.
        clip: first and last second; None takes the whole file.
        count: parts of equal length, each gives the frame in its middle.
        where: file and line of the sample, for messages.

    Raises:
        TrainingDataError: the file is missing, cannot be decoded or is shorter than the clip.
        TrainingError: PyAV is not installed.
    """
    check_decoder(where)
    import av

    if not Path(path).is_file():
        raise TrainingDataError(f"{where}: video {path} missing")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise TrainingDataError(f"{where}: video {path} holds no video stream")
            stream = container.streams.video[0]
            times = [float(frame.time or 0.0) for frame in container.decode(stream)]
            wanted = _nearest(times, clip, count)
            container.seek(0)
            found = {
                index: frame.to_image()
                for index, frame in enumerate(container.decode(stream))
                if index in set(wanted)
            }
    except TrainingDataError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise TrainingDataError(f"{where}: video {path} cannot be decoded ({error})") from None
    if not times or (clip is not None and clip[0] > times[-1]):
        raise TrainingDataError(f"{where}: video {path} has no frame within the clip {clip}")
    return [found[index] for index in wanted]


def _nearest(times: list[float], clip: tuple[float, float] | None, count: int) -> list[int]:
    """Indices of the frames nearest to the middles of `count` equal parts."""
    if clip is None:
        return [int(len(times) * (part + 0.5) / count) for part in range(count)]
    start, end = clip
    middles = [start + (end - start) * (part + 0.5) / count for part in range(count)]
    return [min(range(len(times)), key=lambda i: abs(times[i] - middle)) for middle in middles if times]


THREADS = max(1, min(8, (os.cpu_count() or 2) - 1))
"""Threads that decode; Pillow decodes without holding Python's lock."""


def sample_tiles(
    conversation: Conversation,
    grids: tuple[tuple[int, int], ...],
    tiling: Tiling,
    change: Callable[[Image.Image], Image.Image],
) -> list[Tensor]:
    """uint8 tiles of each image, in order.

    Args:
        conversation, grids: of the sample. change: of each image before it is cut.

    Raises:
        TrainingDataError: an image cannot be decoded, with file and line of the sample.
    """
    try:
        images = _open(conversation, tiling)
    except ImageError as error:
        raise TrainingDataError(f"{conversation.where}: {error}") from None
    return [
        tile_image(change(image), tile_size=tiling.tile_size, thumbnail=tiling.thumbnail, grid=grid)
        for image, grid in zip(images, grids, strict=True)
    ]


def line_damage(data_set: DataSet, tiling: Tiling, line: Line) -> str | None:
    """The damage to the pixels of a line's images, with file and line; None if all can be decoded.

    A header does not show that a file is truncated. A line that cannot be parsed has no images yet.
    """
    try:
        conversation = parse_line(data_set, line)
    except TrainingDataError:
        return None
    if conversation.video is not None:
        try:
            _open(conversation, tiling)
        except TrainingDataError as error:
            return str(error)
        return None
    found = next(filter(None, (_image_damage(path, tiling.max_pixels) for path in conversation.images)), None)
    return None if found is None else f"{conversation.where}: {found}"


@lru_cache(maxsize=256)  # several lines ask about one image
def _image_damage(path: str, max_pixels: int) -> str | None:
    try:
        open_image(path, max_pixels)
    except ImageError as error:
        return str(error)
    return None


def _open(conversation: Conversation, tiling: Tiling) -> list[Image.Image]:
    if conversation.video is None:
        return [open_image(path, tiling.max_pixels) for path in conversation.images]
    count = conversation.frames or tiling.frames
    frames = video_frames(conversation.video, conversation.clip, count, conversation.where)
    return [open_image(frame) for frame in frames]
