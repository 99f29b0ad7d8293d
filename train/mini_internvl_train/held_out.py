"""Samples that are held out of training: a share of every data set, or the sets of a meta file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.packing import SamplePool, set_generator

logger = logging.getLogger(__name__)


def split_pool(
    pool: SamplePool, looks: Sequence[int], share: float, seed: int
) -> tuple[SamplePool, SamplePool]:
    """A data set without its held-out samples, and those.

    Samples of one image stay together: a question about an image that was learned is no test. At least one
    image is held out, and one is kept.

    Args:
        pool: the data set.
        looks: of each sample by index, equal where they show the same images.
        share: of the samples, above 0 and below 1.
        seed: of the choice.

    Raises:
        TrainingDataError: all samples show the same image.
    """
    groups: dict[int, list[int]] = {}
    for index in pool.indices:
        groups.setdefault(looks[index], []).append(index)
    if not groups:
        return pool, replace(pool, repeat_time=1.0)
    if len(groups) == 1:
        raise TrainingDataError(
            f"data set {pool.name!r}: all its samples show the same image, so no share of them can be held "
            "out; give data.validation a meta file"
        )
    found, members = list[int](), list(groups.values())
    for place in set_generator(seed, pool.name, 2).permutation(len(members))[:-1]:
        if found and len(found) >= share * len(pool.indices):
            break
        found += members[place]
    held = set(found)
    learned = [index for index in pool.indices if index not in held]
    return replace(pool, indices=learned), SamplePool(pool.name, sorted(found))


def warn_of_shared_images(
    learned: Sequence[SamplePool], held: Sequence[SamplePool], looks: Sequence[int]
) -> None:
    """Says how many samples of validation show an image that is learned from."""
    known = {looks[index] for pool in learned for index in pool.indices}
    for pool in held:
        if same := sum(looks[index] in known for index in pool.indices):
            logger.warning(
                "validation: %d of %d samples of %s show images that are learned from: their loss is no test",
                same, len(pool.indices), pool.name,
            )  # fmt: skip
