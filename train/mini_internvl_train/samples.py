"""The training set: conversations with their images' tile counts and lengths, known before training.

Only headers of images are read here; pixels are decoded when a pack is built. Every sample's length is
known ahead, so packs, steps and loss denominators are plain arithmetic.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mini_internvl_train.conversations import (
    BadLines,
    Conversation,
    DataSet,
    Line,
    left_out,
    parse_line,
    read_lines,
    read_meta,
)
from mini_internvl_train.encoding import ConversationEncoder, Encoded
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.packing import Bounds, Length, SamplePool, mix
from mini_internvl_train.recipe import Data
from mini_internvl_train.sample_images import (
    THREADS,
    Tiling,
    expand_video,
    image_grids,
    line_damage,
    tile_count,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One sample: its conversation with video frames expanded, its images' grids, its ids."""

    conversation: Conversation
    grids: tuple[tuple[int, int], ...]
    encoded: Encoded


class TrainingSet:
    """An index of all samples: a sample is read from its file when its pack is built.

    Attributes:
        lengths: of every sample, by index.
        domain, general: pools of indices for mixing.
        fingerprints: by data set, over annotation contents, settings and lengths.
        bad: lines skipped under `skip_bad`.
    """

    def __init__(
        self,
        encoder: ConversationEncoder,
        tiling: Tiling,
        regime: Callable[[int], int],
        bounds: Bounds | None,
    ) -> None:
        self.lengths: list[Length] = []
        self.domain: list[SamplePool] = []
        self.general: list[SamplePool] = []
        self.fingerprints: dict[str, str] = {}
        self.bad = BadLines()
        self._encoder = encoder
        self._tiling = tiling
        self._regime = regime
        self._bounds = bounds
        self._sets: list[DataSet] = []
        self._owners, self._numbers = array("l"), array("q")
        self._offsets, self._sizes = array("q"), array("q")  # of each line, in bytes

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all data sets."""
        return hashlib.sha256("".join(self.fingerprints.values()).encode()).hexdigest()[:16]

    def epoch(self, data: Data, seed: int) -> list[int]:
        """TrainingSample indices of one pass over the mix, before shuffling."""
        return mix(
            self.domain,
            self.general,
            ratio=data.general_ratio,
            share=data.general_share,
            domain_share=data.share,
            seed=seed,
        )

    def add(self, data_set: DataSet, *, skip_bad: bool) -> SamplePool:
        """Index a data set.

        Raises:
            TrainingDataError: a bad line or image, or a sample that fits no pack, unless bad ones are
                skipped. To skip a damaged image, every image is decoded here.
        """
        first = len(self)
        digest = hashlib.sha256(data_set.fingerprint().encode())
        self._sets.append(data_set)
        damages = _damages(data_set, self._tiling.max_pixels) if skip_bad else _no_damages()
        for line, damage in zip(read_lines(data_set), damages, strict=False):
            with left_out(self.bad if skip_bad else None):
                if damage is not None:
                    raise TrainingDataError(damage)
                sample = self._read(data_set, line)
                length = self._fitting(sample)
                sizes = _file_sizes(sample.conversation)
                digest.update(
                    f"{line.number} {length.tokens} {length.tiles} {length.trained} {sizes}\n".encode()
                )
                self.lengths.append(length)
                self._owners.append(len(self._sets) - 1)
                self._numbers.append(line.number)
                self._offsets.append(line.offset)
                self._sizes.append(len(line.content))
        self.fingerprints[data_set.name] = digest.hexdigest()[:16]
        return SamplePool(data_set.name, first, len(self) - first, data_set.repeat_time)

    def sample(self, index: int) -> TrainingSample:
        """One sample, read again from its file.

        Raises:
            TrainingDataError: the file has changed since it was indexed.
        """
        data_set = self._sets[self._owners[index]]
        with data_set.annotation.open("rb") as file:
            file.seek(self._offsets[index])
            content = file.read(self._sizes[index])
            line = Line(self._numbers[index], self._offsets[index], content)
        sample = self._read(data_set, line)
        if self._length(sample) != self.lengths[index]:
            raise TrainingDataError(
                f"{sample.conversation.where}: the sample or an image of it changed while training ran"
            )
        return sample

    def sample_id(self, index: int) -> str:
        """`<data set>/<id>` of a sample."""
        return self.sample(index).conversation.id

    def _read(self, data_set: DataSet, line: Line) -> TrainingSample:
        conversation = expand_video(parse_line(data_set, line))
        grids = image_grids(conversation, self._tiling)
        counts = [tile_count(grid, self._tiling.thumbnail) for grid in grids]
        return TrainingSample(conversation, tuple(grids), self._encoder.encode(conversation, counts))

    def _fitting(self, sample: TrainingSample) -> Length:
        length = self._length(sample)
        excess = None if self._bounds is None else self._bounds.excess(length)
        if excess is not None:
            raise TrainingDataError(f"{sample.conversation.where}: {excess}")
        return length

    def _length(self, sample: TrainingSample) -> Length:
        encoded = sample.encoded
        tokens = len(encoded.input_ids)
        return Length(tokens, sum(encoded.tile_counts), encoded.trained, self._regime(tokens))


def read_training_set(
    data: Data,
    encoder: ConversationEncoder,
    tiling: Tiling,
    regime: Callable[[int], int] = lambda tokens: 0,
    bounds: Bounds | None = None,
) -> TrainingSet:
    """Indexes all data sets of a recipe.

    Args:
        data: which sets, and whether bad lines are skipped.
        encoder, tiling: of the checkpoint.
        regime: of a length in tokens (`packing.Length.regime`).
        bounds: of a pack, which every sample has to fit.

    Raises:
        TrainingDataError: a bad line or image, unless the recipe skips bad ones.
    """
    found = TrainingSet(encoder, tiling, regime, bounds)
    for pools, meta in ((found.domain, data.meta), (found.general, data.general_meta)):
        for data_set in read_meta(meta) if meta is not None else ():
            if data_set.name in found.fingerprints:
                raise TrainingDataError(f"{meta}: data set {data_set.name!r} is named in both meta files")
            pools.append(found.add(data_set, skip_bad=data.skip_bad))
    for message in found.bad.messages:
        logger.warning("left out: %s", message)
    if found.bad.messages:
        logger.warning(
            "left out %d of %d lines", len(found.bad.messages), len(found.bad.messages) + len(found)
        )
    if not len(found):
        raise TrainingDataError(f"{data.meta}: no usable sample")
    return found


def _damages(data_set: DataSet, max_pixels: int) -> Iterator[str | None]:
    """For each line, what is wrong with the pixels of its images."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as threads:
        yield from threads.map(partial(line_damage, data_set, max_pixels), read_lines(data_set))


def _no_damages() -> Iterator[None]:
    while True:
        yield None


def _file_sizes(conversation: Conversation) -> list[int]:
    """Bytes of its images' files, by which a changed image is noticed."""
    paths = conversation.images if conversation.video is None else (conversation.video,)
    return [Path(path).stat().st_size for path in paths]


def describe(lengths: Sequence[Length]) -> str:
    """One line on a set's lengths."""
    tokens = sorted(length.tokens for length in lengths)
    return (
        f"{len(tokens)} samples, tokens min {tokens[0]} median {tokens[len(tokens) // 2]} max {tokens[-1]}, "
        f"tiles {sum(length.tiles for length in lengths)}, "
        f"trained tokens {sum(length.trained for length in lengths)}"
    )
