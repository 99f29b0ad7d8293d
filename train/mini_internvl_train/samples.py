"""The training set: conversations with their images' tile counts and lengths, known before training.

Only headers of images are read here; pixels are decoded when a pack is built. Every sample's length is
known ahead, so packs, steps and loss denominators are plain arithmetic.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mini_internvl_train.augmentation import UNCHANGED, Augmentation, ImageChange
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
from mini_internvl_train.held_out import split_pool, warn_of_shared_images
from mini_internvl_train.packing import Bounds, Length, SamplePool, mix
from mini_internvl_train.recipe import Data
from mini_internvl_train.sample_files import PlannedLines
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
    """One sample: its conversation with video frames expanded, its images' grids and change, its ids."""

    conversation: Conversation
    grids: tuple[tuple[int, int], ...]
    encoded: Encoded
    change: ImageChange = UNCHANGED


class TrainingSet:
    """An index of all samples: a sample is read from its file when its pack is built.

    Attributes:
        lengths: of every sample, by index.
        domain, general: pools of indices for mixing. held_out: those of validation, never learned from.
        fingerprints: by data set of training, over annotation contents, settings and lengths.
        held_fingerprints: the same, of validation's own.
        files: of each sample, a hash of the sizes of its images' files.
        looks: of each sample, a hash of which images it shows; of its text where it shows none.
        kept: what samples do not get of the changes of images that are asked for.
        bad: lines skipped under `skip_bad`. damaged: samples of damaged images, by what is wrong.
    """

    def __init__(
        self,
        encoder: ConversationEncoder,
        tiling: Tiling,
        regime: Callable[[int], int],
        bounds: Bounds | None,
        planned: PlannedLines | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.kept: list[str] = []
        self.lengths: list[Length] = []
        self.domain: list[SamplePool] = []
        self.general: list[SamplePool] = []
        self.held_out: list[SamplePool] = []
        self.fingerprints: dict[str, str] = {}
        self.held_fingerprints: dict[str, str] = {}
        self.files, self.looks = array("q"), array("q")
        self.bad = BadLines()
        self.damaged: dict[int, str] = {}
        self._encoder = encoder
        self._tiling = tiling
        self._regime = regime
        self._bounds = bounds
        self._planned = planned
        self._augmentation = augmentation
        self._sets: list[DataSet] = []
        self._owners, self._numbers = array("l"), array("q")
        self._offsets, self._sizes = array("q"), array("q")  # of each line, in bytes

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all data sets."""
        return hashlib.sha256("".join(self.fingerprints.values()).encode()).hexdigest()[:16]

    @property
    def held_fingerprint(self) -> str:
        """Over the held-out samples."""
        places = [(pool.name, list(pool.indices)) for pool in self.held_out]
        return hashlib.sha256(repr((places, self.held_fingerprints)).encode()).hexdigest()[:16]

    def epoch(self, data: Data, seed: int) -> list[int]:
        """Sample indices of one pass over the mix, before shuffling."""
        return mix(
            self.domain,
            self.general,
            ratio=data.general_ratio,
            share=data.general_share,
            domain_share=data.share,
            seed=seed,
        )

    def add(self, data_set: DataSet, *, skip_bad: bool, learned: bool = True) -> SamplePool:
        """Index a data set.

        A sample whose images have headers but damaged pixels has its place in the plan, and so has one that
        was planned and cannot be read any more: packs are the same before and after damage and repair.

        Raises:
            TrainingDataError: a bad line or image, or a sample that fits no pack, unless bad ones are
                skipped. To skip a damaged image, every image is decoded here.
        """
        first = len(self)
        digest = hashlib.sha256(data_set.fingerprint().encode())
        self._sets.append(data_set)
        damages = _damages(data_set, self._tiling) if skip_bad else _no_damages()
        kept = Counter[str]()
        known = self._planned if learned else None
        for line, damage in zip(read_lines(data_set), damages, strict=False):
            with left_out(self.bad if skip_bad else None):
                conversation = expand_video(parse_line(data_set, line), self._tiling.frames)
                planned = None if known is None else known.find(len(self._sets) - 1, line.number)
                if known is not None and planned is None:
                    logger.warning("%s: was left out and stays so", conversation.where)
                    continue
                try:
                    length = self._fitting(self._encoded(conversation))
                except TrainingDataError as error:
                    if not skip_bad or planned is None:
                        raise
                    length, damage = planned, str(error)
                if damage is not None:
                    self.damaged[len(self)] = damage
                if self._augmentation is not None and learned:
                    kept.update(self._augmentation.kept(conversation))
                digest.update(f"{line.number} {length.tokens} {length.tiles} {length.trained}\n".encode())
                self.files.append(_number(*_file_sizes(conversation)))
                self.looks.append(_number(*_shown(conversation)))
                self.lengths.append(length)
                self._owners.append(len(self._sets) - 1)
                self._numbers.append(line.number)
                self._offsets.append(line.offset)
                self._sizes.append(len(line.content))
        whole = len(self) - first
        self.kept += [f"{n} of {whole} samples of {data_set.name} are {what}" for what, n in kept.items()]
        fingerprints = self.fingerprints if learned else self.held_fingerprints
        fingerprints[data_set.name] = digest.hexdigest()[:16]
        return SamplePool(data_set.name, range(first, len(self)), data_set.repeat_time)

    def augmented(self, index: int, epoch: int) -> TrainingSample:
        """One sample as it is learned from in an epoch, with its images changed at random; see `sample`."""
        sample = self.sample(index)
        if self._augmentation is None:
            return sample

        def encode(conversation: Conversation) -> Encoded:
            return self._encoder.encode(conversation, sample.encoded.tile_counts)

        conversation, encoded, change = self._augmentation.draw(
            sample.conversation, sample.encoded, epoch, encode
        )
        return TrainingSample(conversation, sample.grids, encoded, change)

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

    @property
    def set_names(self) -> list[str]:
        """Names of the data sets by their numbers."""
        return [data_set.name for data_set in self._sets]

    def owner(self, index: int) -> int:
        """The number of a sample's data set."""
        return self._owners[index]

    def set_of(self, index: int) -> str:
        """Name of a sample's data set."""
        return self._sets[self._owners[index]].name

    def line_of(self, index: int) -> tuple[int, int]:
        """Place of a sample's data set, and the number of its line."""
        return self._owners[index], self._numbers[index]

    def sample_id(self, index: int) -> str:
        """`<data set>/<id>` of a sample."""
        return self.sample(index).conversation.id

    def _read(self, data_set: DataSet, line: Line) -> TrainingSample:
        return self._encoded(expand_video(parse_line(data_set, line), self._tiling.frames))

    def _encoded(self, conversation: Conversation) -> TrainingSample:
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
    seed: int = 0,
    planned: PlannedLines | None = None,
    augmentation: Augmentation | None = None,
) -> TrainingSet:
    """Indexes all data sets of a recipe.

    Args:
        data: which sets, and whether bad lines are skipped.
        encoder, tiling: of the checkpoint.
        regime: of a length in tokens (`packing.Length.regime`).
        bounds: of a pack, which every sample has to fit.
        seed: of the choice of held-out samples.
        planned: lines of the training that is continued.
        augmentation: draws changes of images.

    Raises:
        TrainingDataError: a bad line or image, unless the recipe skips bad ones.
    """
    found = TrainingSet(encoder, tiling, regime, bounds, planned, augmentation)
    for pools, meta in ((found.domain, data.meta), (found.general, data.general_meta)):
        for data_set in read_meta(meta) if meta is not None else ():
            if data_set.name in found.fingerprints:
                raise TrainingDataError(f"{meta}: data set {data_set.name!r} is named in both meta files")
            pools.append(found.add(data_set, skip_bad=data.skip_bad))
    _hold_out(found, data, seed)
    left = [*found.bad.messages, *found.damaged.values()]
    for message in left:
        logger.warning("left out: %s", message)
    if left:
        logger.warning("left out %d of %d lines", len(left), len(found.bad.messages) + len(found))
    if len(found) == len(found.damaged):
        raise TrainingDataError(f"{data.meta}: no usable sample")
    return found


def _hold_out(found: TrainingSet, data: Data, seed: int) -> None:
    """Takes validation's samples out of the pools, or reads them from their meta file."""
    if isinstance(data.validation, str):
        for data_set in read_meta(data.validation):
            pool = found.add(replace(data_set, repeat_time=1.0), skip_bad=data.skip_bad, learned=False)
            found.held_out.append(pool)
        warn_of_shared_images([*found.domain, *found.general], found.held_out, found.looks)
    elif data.validation is not None:
        for pools in (found.domain, found.general):
            halves = [split_pool(pool, found.looks, data.validation, seed) for pool in pools]
            pools[:] = [learned for learned, _ in halves]
            found.held_out += [held for _, held in halves if held.indices]


def _damages(data_set: DataSet, tiling: Tiling) -> Iterator[str | None]:
    """For each line, what is wrong with the pixels of its images."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as threads:
        yield from threads.map(partial(line_damage, data_set, tiling), read_lines(data_set))


def _no_damages() -> Iterator[None]:
    while True:
        yield None


def _file_sizes(conversation: Conversation) -> list[int]:
    """Bytes of its images' files, by which a changed image is noticed."""
    paths = conversation.images if conversation.video is None else (conversation.video,)
    return [_size(Path(path)) for path in paths]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _shown(conversation: Conversation) -> Sequence[str]:
    """What tells a sample's images from those of others: their paths, or its text."""
    if conversation.video is not None:
        return (conversation.video,)
    return conversation.images or [turn.text for turn in conversation.turns]


def _number(*parts: object) -> int:
    """A hash as a signed number of 64 bits."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def describe(lengths: Sequence[Length]) -> str:
    """One line on a set's lengths."""
    tokens = sorted(length.tokens for length in lengths)
    return (
        f"{len(tokens)} samples, tokens min {tokens[0]} median {tokens[len(tokens) // 2]} max {tokens[-1]}, "
        f"tiles {sum(length.tiles for length in lengths)}, "
        f"trained tokens {sum(length.trained for length in lengths)}"
    )
