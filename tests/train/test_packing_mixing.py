"""Packs and mixes: nothing lost, nothing over the bounds, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import make_recipe

from mini_internvl_train.errors import RecipeError, TrainingDataError
from mini_internvl_train.packing import (
    Bounds,
    Length,
    Pack,
    PackOrder,
    SamplePool,
    epoch_order,
    mix,
    plan_packs,
)

lengths = st.lists(
    st.builds(Length, tokens=st.integers(1, 100), tiles=st.integers(0, 13)), min_size=1, max_size=200
)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 5))
def test_packs_hold_every_sample_once_within_bounds(sizes: list[Length], seed: int) -> None:
    order = epoch_order(len(sizes), seed, 0)
    packs = plan_packs(sizes, order, Bounds(120, 16))
    assert Counter(index for pack in packs for index in pack) == Counter(order)
    for pack in packs:
        assert sum(sizes[index].tokens for index in pack) <= 120
        assert sum(sizes[index].tiles for index in pack) <= 16
    assert packs == plan_packs(sizes, order, Bounds(120, 16))


@pytest.mark.parametrize("count", [511, 512, 513, 1024, 1500])
def test_packs_hold_every_sample_once_whatever_their_number(count: int) -> None:
    """Samples are packed window by window; none is lost or doubled at a window's end."""
    sizes = [Length(tokens=1 + place % 97, tiles=place % 13) for place in range(count)]
    order = epoch_order(count, 3, 0)
    packs = plan_packs(sizes, order, Bounds(120, 16))
    assert sorted(index for pack in packs for index in pack) == list(range(count))


def test_packing_is_tight() -> None:
    sizes = [Length(tokens, 1) for tokens in (60, 60, 40, 40, 50, 50)]
    assert len(plan_packs(sizes, range(6), Bounds(100, 48))) == 3


def test_a_sample_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(TrainingDataError, match="sample 0: 200 tokens"):
        plan_packs([Length(200, 1)], [0], Bounds(100, 48))


def test_packing_off() -> None:
    assert plan_packs([Length(1, 1)] * 3, [2, 0, 1], Bounds(100, 48), enabled=False) == [(2,), (0,), (1,)]


def test_epochs_differ_and_repeat() -> None:
    assert epoch_order(50, 1, 0) == epoch_order(50, 1, 0)
    assert epoch_order(50, 1, 0) != epoch_order(50, 1, 1)


def test_ratio_takes_every_general_set_at_the_same_fraction() -> None:
    domain = [SamplePool("d", 0, 400)]
    general = [SamplePool("a", 400, 300), SamplePool("b", 700, 100)]
    chosen = mix(domain, general, ratio=0.25, share=None, seed=1)
    by_pool = Counter("d" if i < 400 else "a" if i < 700 else "b" for i in chosen)
    assert by_pool == {"d": 400, "a": 75, "b": 25}
    lines = [i for i in chosen if 400 <= i < 700]
    assert lines != list(range(400, 475)), "the first lines are not a random sample"
    assert chosen == mix(domain, general, ratio=0.25, share=None, seed=1)
    assert chosen != mix(domain, general, ratio=0.25, share=None, seed=2)


def test_share_and_repeat() -> None:
    domain = [SamplePool("d", 0, 10, repeat_time=2.5)]
    general = [SamplePool("a", 10, 100)]
    chosen = mix(domain, general, ratio=None, share=0.2, seed=0)
    counts = Counter(i for i in chosen if i < 10)
    assert sum(counts.values()) == 25
    assert set(counts.values()) == {2, 3}
    assert len([i for i in chosen if i >= 10]) == 20


def test_ratio_larger_than_the_pool_repeats_it() -> None:
    chosen = mix([SamplePool("d", 0, 10)], [SamplePool("a", 10, 4)], ratio=1.0, share=None, seed=0)
    assert sorted(Counter(i for i in chosen if i >= 10).values()) == [2, 2, 3, 3]


def test_ratio_without_general_data_is_an_error() -> None:
    with pytest.raises(RecipeError, match="general"):
        mix([SamplePool("d", 0, 10)], [], ratio=0.5, share=None, seed=0)


def steps_of(folder: Path, lengths: Sequence[Length], **settings: Any) -> tuple[PackOrder, list[list[Pack]]]:
    """The packs of all steps of a recipe that counts epochs."""
    recipe = make_recipe(
        folder, packing__max_tokens=100, packing__max_tiles=9, steps__max_steps=None, **settings
    )
    order = PackOrder(lengths, range(len(lengths)), recipe)
    return order, [order.step(step) for step in range(order.total_steps)]


@pytest.mark.parametrize(("epochs", "each"), [(1, 4), (2, 4), (3, 7), (1, 100), (1.5, 4), (0.5, 3)])
def test_epochs_are_seen_whole_and_in_as_few_steps_as_hold_them(
    tmp_path: Path, epochs: float, each: int
) -> None:
    """One sample a pack, 10 samples: `epochs` times 10 packs, `each` a step, the last with the rest."""
    lengths = [Length(tokens=60, tiles=1)] * 10
    order, steps = steps_of(tmp_path, lengths, steps__epochs=epochs, steps__packs_per_step=each)
    packs = int(epochs * 10)
    assert order.total_steps == -(-packs // each)
    assert [len(step) for step in steps[:-1]] == [each] * (len(steps) - 1)
    seen = [(pack.epoch, index) for step in steps for pack in step for index in pack.samples]
    assert len(seen) == len(set(seen)) == packs
    for number in range(int(epochs)):
        assert sorted(index for epoch, index in seen if epoch == number) == list(range(10))
    assert [epoch for epoch, _ in seen] == sorted(epoch for epoch, _ in seen)


def test_a_fixed_number_of_steps_goes_on_into_the_next_epoch(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, packing__max_tokens=100, steps__max_steps=7, steps__packs_per_step=4)
    order = PackOrder([Length(tokens=60, tiles=1)] * 10, range(10), recipe)
    epochs = [pack.epoch for step in range(order.total_steps) for pack in order.step(step)]
    assert epochs == [0] * 10 + [1] * 10 + [2] * 8
    assert order.step(5) == PackOrder([Length(tokens=60, tiles=1)] * 10, range(10), recipe).step(5)
