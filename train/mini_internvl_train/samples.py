"""The training set: conversations with their pictures' tile counts and lengths, known before training.

Only headers of pictures are read here; pixels are decoded when a pack is built. Every sample's length is
known ahead, so packs, steps and loss denominators are plain arithmetic.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from mini_internvl.images import choose_grid
from mini_internvl_train.conversations import (
    BadLines,
    Conversation,
    DataSet,
    Turn,
    read_conversations,
    read_meta,
)
from mini_internvl_train.encoding import Encoded, Encoder
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.mixing import Pool, mix
from mini_internvl_train.packing import Length
from mini_internvl_train.recipe import Data

logger = logging.getLogger(__name__)

EXIF_ORIENTATION = 0x0112
VIDEO_FRAMES = 8
"""Frames taken of a video file, one tile each."""


@dataclass(slots=True)
class TrainingSet:
    """Everything a run learns from.

    Attributes:
        conversations, encoded, grids: by sample index; a grid (columns, rows) for each picture.
        domain, general: pools of indices for mixing.
        fingerprint: over annotation contents and the settings that choose samples.
        bad: lines left out under skip_bad.
    """

    conversations: list[Conversation] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    grids: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    domain: list[Pool] = field(default_factory=list)
    general: list[Pool] = field(default_factory=list)
    fingerprint: str = ""
    bad: BadLines = field(default_factory=BadLines)

    def lengths(self) -> list[Length]:
        """Tokens and tiles of every sample."""
        return [Length(len(e.input_ids), sum(e.tile_counts)) for e in self.encoded]

    def epoch(self, data: Data, seed: int) -> list[int]:
        """Sample indices of one pass over the mix, before shuffling."""
        return mix(self.domain, self.general, ratio=data.general_ratio, share=data.general_share, seed=seed)


@dataclass(frozen=True, slots=True)
class Tiling:
    """What decides a picture's tiles: the checkpoint's own settings and the recipe's bound."""

    tile_size: int
    max_tiles: int
    thumbnail: bool = True


def read_training_set(data: Data, encoder: Encoder, tiling: Tiling) -> TrainingSet:
    """Reads all data sets of a recipe.

    Raises:
        TrainingDataError: a bad line or picture, unless the recipe skips bad ones.
    """
    found = TrainingSet()
    digest = hashlib.sha256()
    for pools, meta in ((found.domain, data.meta), (found.general, data.general_meta)):
        for data_set in read_meta(meta) if meta is not None else ():
            pools.append(_read_data_set(found, data_set, data, encoder, tiling))
            digest.update(data_set.fingerprint().encode())
    found.fingerprint = digest.hexdigest()[:16]
    for message in found.bad.messages:
        logger.warning("left out: %s", message)
    if not found.encoded:
        raise TrainingDataError(f"{data.meta}: no usable sample")
    return found


def _read_data_set(
    found: TrainingSet, data_set: DataSet, data: Data, encoder: Encoder, tiling: Tiling
) -> Pool:
    first = len(found.encoded)
    bad = found.bad if data.skip_bad else None
    for conversation in read_conversations(data_set, bad):
        try:
            expanded = expand_video(conversation)
            grids = picture_grids(expanded, tiling)
            counts = [tile_count(grid, tiling.thumbnail) for grid in grids]
            encoded = encoder.encode(expanded, counts)
        except TrainingDataError as error:
            if bad is None:
                raise
            bad.add(error)
            continue
        found.conversations.append(expanded)
        found.encoded.append(encoded)
        found.grids.append(tuple(grids))
    return Pool(data_set.name, first, len(found.encoded) - first, data_set.repeat_time)


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


def jpeg_quality(seed: int, epoch: int, sample_id: str) -> int:
    """Quality of the data_augment re-encoding, uniform over 75..100; a function of seed, epoch and sample."""
    return random.Random(f"{seed}/{epoch}/{sample_id}").randint(75, 100)


def describe(lengths: Sequence[Length]) -> str:
    """One line on a set's lengths."""
    tokens = sorted(length.tokens for length in lengths)
    return (
        f"{len(tokens)} samples, tokens min {tokens[0]} median {tokens[len(tokens) // 2]} max {tokens[-1]}, "
        f"tiles {sum(length.tiles for length in lengths)}"
    )
