"""Packs and mixes: nothing lost, nothing over the bounds, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.packing import measured
from mini_internvl_train import packing
from mini_internvl_train.errors import RecipeError, TrainingDataError
from mini_internvl_train.packing import Bounds, Length, PackOrder, SamplePool, epoch_order, mix, plan_packs
from mini_internvl_train.plan import largest_micro_step
from mini_internvl_train.recipe import Data, Recipe, Steps

lengths = st.lists(
    st.builds(Length, tokens=st.integers(1, 100), tiles=st.integers(0, 13)), min_size=1, max_size=200
)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 5), st.sampled_from([1, 16]))
def test_packs_hold_every_sample_once_within_bounds(sizes: list[Length], seed: int, waiting: int) -> None:
    order = epoch_order(len(sizes), seed, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "OPEN", waiting)
        packs = plan_packs(sizes, order, Bounds(120, 16))
        assert packs == plan_packs(sizes, order, Bounds(120, 16))
    assert Counter(index for pack in packs for index in pack) == Counter(order)
    for pack in packs:
        assert sum(sizes[index].tokens for index in pack) <= 120
        assert sum(sizes[index].tiles for index in pack) <= 16


def test_packing_is_tight() -> None:
    sizes = [Length(tokens, 1) for tokens in (60, 50, 40, 60, 50, 40)]
    assert len(plan_packs(sizes, range(6), Bounds(100, 48))) == 3


@pytest.mark.parametrize("name", ["drivelm", "medical"])
def test_packs_are_mixed_and_full(name: str) -> None:
    """A step's share of general data varies as in arrival order, and packs are as full as sorted ones."""
    found = measured(name)
    assert found.packed <= 1.2 * found.arrival
    assert found.fill >= 0.97 * found.sorted_fill


def test_a_sample_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(TrainingDataError, match="sample 0: 200 tokens"):
        plan_packs([Length(200, 1)], [0], Bounds(100, 48))


def test_packing_off() -> None:
    assert plan_packs([Length(1, 1)] * 3, [2, 0, 1], Bounds(100, 48), enabled=False) == [(2,), (0,), (1,)]


def test_epochs_differ_and_repeat() -> None:
    assert epoch_order(50, 1, 0) == epoch_order(50, 1, 0)
    assert epoch_order(50, 1, 0) != epoch_order(50, 1, 1)


def test_ratio_takes_every_general_set_at_the_same_fraction() -> None:
    domain = [SamplePool("d", range(400))]
    general = [SamplePool("a", range(400, 700)), SamplePool("b", range(700, 800))]
    chosen = mix(domain, general, ratio=0.25, share=None, seed=1)
    by_pool = Counter("d" if i < 400 else "a" if i < 700 else "b" for i in chosen)
    assert by_pool == {"d": 400, "a": 75, "b": 25}
    lines = [i for i in chosen if 400 <= i < 700]
    assert lines != list(range(400, 475)), "the first lines are not a random sample"
    assert chosen == mix(domain, general, ratio=0.25, share=None, seed=1)
    assert chosen != mix(domain, general, ratio=0.25, share=None, seed=2)
    assert mix(domain, general, ratio=0.0, share=None, seed=1) == mix(
        domain, [], ratio=None, share=None, seed=1
    )


def test_share_and_repeat() -> None:
    domain = [SamplePool("d", range(10), repeat_time=2.5)]
    general = [SamplePool("a", range(10, 110))]
    chosen = mix(domain, general, ratio=None, share=0.2, seed=0)
    counts = Counter(i for i in chosen if i < 10)
    assert sum(counts.values()) == 25
    assert set(counts.values()) == {2, 3}
    assert len([i for i in chosen if i >= 10]) == 20


def test_ratio_larger_than_the_pool_repeats_it() -> None:
    chosen = mix(
        [SamplePool("d", range(10))], [SamplePool("a", range(10, 14))], ratio=1.0, share=None, seed=0
    )
    assert sorted(Counter(i for i in chosen if i >= 10).values()) == [2, 2, 3, 3]


def test_ratio_without_general_data_is_an_error() -> None:
    with pytest.raises(RecipeError, match="general"):
        mix([SamplePool("d", range(10))], [], ratio=0.5, share=None, seed=0)


def order_of(steps: Steps, samples: int = 10) -> PackOrder:
    """Two samples a pack: five packs an epoch."""
    recipe = Recipe("a", "b", "c", Data("d"), steps=steps)
    return PackOrder([Length(recipe.packing.max_tokens // 2, 1, 1)] * samples, range(samples), recipe)


def seen(order: PackOrder) -> list[tuple[int, int]]:
    """(epoch, sample) in training order."""
    packs = [pack for step in range(order.total_steps) for pack in order.step(step)]
    return [(pack.epoch, index) for pack in packs for index in pack.samples]


def test_epochs_see_every_sample_once_each() -> None:
    order = order_of(Steps(packs_per_step=3, epochs=2.0))
    assert (order.total_packs, order.total_steps) == (10, 4)
    assert [len(order.step(step)) for step in range(4)] == [3, 3, 3, 1]
    assert sorted(seen(order)) == [(epoch, index) for epoch in range(2) for index in range(10)]


def test_an_empty_pool_gives_nothing() -> None:
    assert mix([SamplePool("d", range(0), 2.0)], [], ratio=None, share=None, seed=0) == []
    repeated = SamplePool("d", range(1), 10.0)  # a share of three tenths of one sample is none
    assert mix([repeated], [], ratio=None, share=None, domain_share=0.3, seed=0) == []


def test_the_largest_micro_step_is_of_the_longest_packs_of_the_first_epoch() -> None:
    recipe = Recipe("a", "b", "c", Data("d"), steps=Steps(packs_per_micro_step=2))
    longest = recipe.packing.max_tokens
    sizes = [Length(longest * share // 100, share // 20, share) for share in (91, 83, 47, 41, 37, 31, 29, 23)]
    order = PackOrder(sizes, range(len(sizes)), recipe)

    def first_two(epoch: int) -> list[tuple[int, ...]]:
        packs = sorted(order.epoch(epoch), key=lambda pack: -sum(sizes[i].tokens for i in pack.samples))
        return [tuple(pack.samples) for pack in packs[:2]]

    first, second = first_two(0)
    assert set(first_two(1)) != {first, second}, "epochs that are packed alike show nothing"
    found = largest_micro_step(order, sizes, recipe)
    assert found.tokens == 2 * sum(sizes[i].tokens for i in first)
    assert found.tiles == sum(sizes[i].tiles for i in (*first, *second))
    assert found.trained == sum(sizes[i].trained for i in (*first, *second))


def test_part_of_an_epoch() -> None:
    order = order_of(Steps(packs_per_step=2, epochs=1.4))
    assert (order.total_packs, order.total_steps) == (7, 4)
    assert Counter(epoch for epoch, _ in seen(order)) == {0: 10, 1: 4}


def test_a_number_of_steps_takes_whole_steps_across_epochs() -> None:
    order = order_of(Steps(packs_per_step=3, max_steps=4))
    assert [len(order.step(step)) for step in range(order.total_steps)] == [3, 3, 3, 3]
    assert Counter(epoch for epoch, _ in seen(order)) == {0: 10, 1: 10, 2: 4}
    assert [pack.epoch for pack in order.step(1)] == [0, 0, 1]
