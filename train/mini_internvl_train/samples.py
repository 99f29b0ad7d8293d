"""The training set: conversations with their pictures' tile counts and lengths, known before training.

Only headers of pictures are read here; pixels are decoded when a pack is built. Every sample's length is
known ahead, so packs, steps and loss denominators are plain arithmetic.
"""

from __future__ import annotations

import hashlib
import logging
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from mini_internvl.images import choose_grid
from mini_internvl_train.conversations import (
    BadLines,
    Conversation,
    DataSet,
    Line,
    Turn,
    left_out,
    parse_line,
    read_lines,
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


@dataclass(frozen=True, slots=True)
class Tiling:
    """What decides a picture's tiles: the checkpoint's own settings and the recipe's bound."""

    tile_size: int
    max_tiles: int
    thumbnail: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample whole: its conversation with video frames expanded, its pictures' grids, its ids."""

    conversation: Conversation
    grids: tuple[tuple[int, int], ...]
    encoded: Encoded


class TrainingSet:
    """Everything a run learns from, as an index: a sample is read from its file when its pack is built.

    Attributes:
        lengths: of every sample, by index.
        domain, general: pools of indices for mixing.
        fingerprints: by data set, over annotation contents, settings and lengths.
        bad: lines left out under skip_bad.
    """

    def __init__(self, encoder: Encoder, tiling: Tiling, regime: Callable[[int], int]) -> None:
        self.lengths: list[Length] = []
        self.domain: list[Pool] = []
        self.general: list[Pool] = []
        self.fingerprints: dict[str, str] = {}
        self.bad = BadLines()
        self._encoder = encoder
        self._tiling = tiling
        self._regime = regime
        self._sets: list[DataSet] = []
        self._owners, self._numbers, self._offsets = array("l"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all data sets."""
        return hashlib.sha256("".join(self.fingerprints.values()).encode()).hexdigest()[:16]

    def epoch(self, data: Data, seed: int) -> list[int]:
        """Sample indices of one pass over the mix, before shuffling."""
        return mix(self.domain, self.general, ratio=data.general_ratio, share=data.general_share, seed=seed)

    def add(self, data_set: DataSet, *, skip_bad: bool) -> Pool:
        """Index a data set.

        Raises:
            TrainingDataError: a bad line or picture, unless bad ones are skipped.
        """
        first = len(self)
        digest = hashlib.sha256(data_set.fingerprint().encode())
        self._sets.append(data_set)
        for line in read_lines(data_set):
            with left_out(self.bad if skip_bad else None):
                length = self._length(self._read(data_set, line))
                digest.update(f"{line.number} {length.tokens} {length.tiles} {length.trained}\n".encode())
                self.lengths.append(length)
                self._owners.append(len(self._sets) - 1)
                self._numbers.append(line.number)
                self._offsets.append(line.offset)
        self.fingerprints[data_set.name] = digest.hexdigest()[:16]
        return Pool(data_set.name, first, len(self) - first, data_set.repeat_time)

    def sample(self, index: int) -> Sample:
        """One sample, read anew from its file.

        Raises:
            TrainingDataError: the file has changed since it was indexed.
        """
        data_set = self._sets[self._owners[index]]
        with data_set.annotation.open("rb") as file:
            file.seek(self._offsets[index])
            line = Line(self._numbers[index], self._offsets[index], file.readline())
        sample = self._read(data_set, line)
        if self._length(sample) != self.lengths[index]:
            raise TrainingDataError(
                f"{sample.conversation.where}: the sample or a picture of it changed while training ran"
            )
        return sample

    def sample_id(self, index: int) -> str:
        """`<data set>/<id>` of a sample."""
        return self.sample(index).conversation.id

    def _read(self, data_set: DataSet, line: Line) -> Sample:
        conversation = expand_video(parse_line(data_set, line))
        grids = picture_grids(conversation, self._tiling)
        counts = [tile_count(grid, self._tiling.thumbnail) for grid in grids]
        return Sample(conversation, tuple(grids), self._encoder.encode(conversation, counts))

    def _length(self, sample: Sample) -> Length:
        encoded = sample.encoded
        tokens = len(encoded.input_ids)
        return Length(tokens, sum(encoded.tile_counts), encoded.trained, self._regime(tokens))


def read_training_set(
    data: Data, encoder: Encoder, tiling: Tiling, regime: Callable[[int], int] = lambda tokens: 0
) -> TrainingSet:
    """Indexes all data sets of a recipe.

    Args:
        data: which, and how bad lines are taken.
        encoder, tiling: of the checkpoint.
        regime: of a length in tokens (`packing.Length.regime`).

    Raises:
        TrainingDataError: a bad line or picture, unless the recipe skips bad ones.
    """
    found = TrainingSet(encoder, tiling, regime)
    for pools, meta in ((found.domain, data.meta), (found.general, data.general_meta)):
        for data_set in read_meta(meta) if meta is not None else ():
            if data_set.name in found.fingerprints:
                raise TrainingDataError(f"{meta}: data set {data_set.name!r} is named in both meta files")
            pools.append(found.add(data_set, skip_bad=data.skip_bad))
    for message in found.bad.messages:
        logger.warning("left out: %s", message)
    if not len(found):
        raise TrainingDataError(f"{data.meta}: no usable sample")
    return found


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
        f"tiles {sum(length.tiles for length in lengths)}, "
        f"trained tokens {sum(length.trained for length in lengths)}"
    )
