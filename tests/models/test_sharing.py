"""Prefix caching changes no answer: in float32 tokens equal those of each prompt alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
import small_networks as networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_internvl import NETWORK_BATCHING, GenerationSettings, MiniInternVL
from mini_internvl.batching import BatchRunner
from mini_internvl.generation import TokenRules
from mini_internvl.prefill import PrefilledBatch, PromptTail, _passes, encode_tiles, prefill, prefill_prefix
from mini_internvl.prefix_cache import SharedPrefixCache, grow_trees
from mini_internvl.prompt_groups import BatchLimits, RequestQueue, TokenSequence, group_sequences
from mini_internvl.shared_attention import attend, attend_in_products, fold_mask

RULES = TokenRules(stop=(2, 77, 78, 79), forbidden=(networks.IMAGE_TOKEN,), pad=2)
FAMILIES = networks.FAMILIES


@lru_cache
def network(family: str) -> MiniInternVL:
    """A small model; `-dynamic` and `-long` change their rotary positions after 24 tokens."""
    import tempfile
    from pathlib import Path

    import mini_internvl

    with tempfile.TemporaryDirectory() as folder:
        networks.save_native(family, Path(folder))
        model = mini_internvl.load(folder, dtype="float32", device="cpu")
    model.image_token_id = networks.IMAGE_TOKEN
    return model


def ask(random_: random.Random, images: Sequence[tuple[int, int]], longest: int = 12) -> list[TokenSequence]:
    """Sequences about several images, in random order.

    Args:
        random_: draws everything.
        images: (tiles, questions) of each; no tiles are questions without an image.
        longest: most words after the image.
    """
    rows: list[TokenSequence] = []
    for tiles, questions in images:
        seed = random_.randrange(1 << 30)
        pixels = torch.randint(0, 256, (tiles, 3, 56, 56), generator=torch.Generator().manual_seed(seed))
        pixels = pixels.to(torch.uint8)
        head = [1, *(random_.randrange(3, 400) for _ in range(random_.randrange(4)))]
        image = [498, *[networks.IMAGE_TOKEN] * (networks.TOKENS_PER_TILE * tiles), 499] if tiles else []
        history = [random_.randrange(3, 400) for _ in range(random_.randrange(6))]
        for _ in range(questions):
            words = [random_.randrange(3, 400) for _ in range(random_.randrange(1, longest))]
            earlier = history if random_.random() < 0.5 else []
            rows.append(TokenSequence([*head, *image, *earlier, *words], pixels if tiles else None))
    random_.shuffle(rows)
    return rows


def answers(model: MiniInternVL, rows: Sequence[TokenSequence], share: bool, **changes: Any) -> list[Any]:
    """All answers; not shared, every row is a batch of its own."""
    runner = BatchRunner(model)
    runner.share = share
    wanted = GenerationSettings(**{"max_new_tokens": 12, **changes})
    if share:
        return runner.run(rows, wanted, RULES)
    return [runner.run([row], wanted, RULES)[0] for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    images=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 7)), min_size=1, max_size=4),
)
def test_shared_answers_equal_those_one_by_one(family: str, seed: int, images: list[tuple[int, int]]) -> None:
    rows = ask(random.Random(seed), images)
    model = network(family)
    assert answers(model, rows, True) == answers(model, rows, False)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_more_than_a_hundred_unlike_requests(family: str) -> None:
    rows = ask(random.Random(5), [(1, 60), (3, 20), (0, 12), (2, 1), (1, 1), (2, 30)], longest=30)
    model = network(family)
    shared = answers(model, rows, True)
    assert shared == answers(model, rows, False)
    assert len({tuple(answer.tokens) for answer in shared}) > 60
    assert {answer.finish for answer in shared} == {"stop", "length"}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_after_a_prefix(family: str) -> None:
    rows = ask(random.Random(2), [(2, 5)], longest=8)
    model = network(family)
    (group, *rest) = group_sequences(rows, lambda length: 0)
    assert not rest and group.images is not None and group.shared_tokens > 8
    features = encode_tiles(model, group.images.tiles)
    with torch.inference_mode():
        whole = [model.embed(torch.tensor([row.ids]), features)[0] for row in rows]
        assert group.prefix is not None
        prefill_prefix(model, whole[0][: group.shared_tokens], group.prefix)
        tails = [PromptTail(row[group.shared_tokens :]) for row in whole]
        at_once = prefill(model, [(group.prefix, tails)]).logits
        alone = torch.cat([prefill(model, [(None, [PromptTail(row)])]).logits for row in whole])
    regime = model.language_model.model.rotary_emb.regime
    same = [regime(len(row.ids)) == regime(group.shared_tokens) for row in rows]
    difference = (at_once - alone).abs().amax(dim=1)[torch.tensor(same)]
    assert difference.numel() == 0 or difference.max() < 1e-4
    assert any(same) or family.endswith(("dynamic", "long"))


@pytest.mark.parametrize("family", ["phi3-long", "internlm2-dynamic"])
def test_rows_across_a_change_of_positions_are_read_apart(family: str) -> None:
    model = network(family)
    regime = model.language_model.model.rotary_emb.regime
    image = [498, *[networks.IMAGE_TOKEN] * 4, 499]
    tiles = torch.zeros(1, 3, 56, 56)
    rows = [TokenSequence([1, *image, *range(3, 3 + n)], tiles) for n in (2, 5, 9, 14, 30, 40)]
    groups = group_sequences(rows, regime)
    shared = [place for group in groups if group.prefix for place in group.members]
    assert shared == [0, 1, 2, 3][: len(shared)] and 1 < len(shared) < len(rows)
    assert all(len(rows[place].ids) <= 24 for place in shared)
    assert answers(model, rows, True) == answers(model, rows, False)


def test_an_image_is_encoded_once_and_a_prefix_prefilled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("qwen2")
    rows = ask(random.Random(1), [(12, 9), (2, 4), (1, 1)])
    encoded: list[int] = []
    prefilled: list[int] = []
    encode, inner = model.encode_images, model.language_model.model.forward

    def count(tiles: torch.Tensor) -> torch.Tensor:
        encoded.append(len(tiles))
        return encode(tiles)

    def passes(*args: Any, **kwargs: Any) -> Any:
        embeddings = kwargs.get("inputs_embeds")
        if embeddings is not None:
            prefilled.append(embeddings.shape[0] * embeddings.shape[1])
        return inner(*args, **kwargs)

    monkeypatch.setattr(model, "encode_images", count)
    monkeypatch.setattr(model.language_model.model, "forward", passes)
    answers(model, rows, True)
    assert sorted(encoded) == [1, 2, 12]
    together = sum(prefilled)
    encoded.clear()
    prefilled.clear()
    answers(model, rows, False)
    assert sum(encoded) == 12 * 9 + 2 * 4 + 1
    assert together < 0.5 * sum(prefilled)


@pytest.mark.parametrize("most_rows,most_tokens", [(3, None), (100, 120), (1, 1), (2, 60)])
def test_small_batches_change_nothing(most_rows: int, most_tokens: int | None) -> None:
    model = network("internlm2")
    rows = ask(random.Random(3), [(1, 11), (2, 5), (0, 3), (1, 1)])
    runner = BatchRunner(model)
    runner.most_sequences, runner.most_tokens = most_rows, most_tokens
    wanted = GenerationSettings(max_new_tokens=12)
    assert runner.run(rows, wanted, RULES) == answers(model, rows, False)
    queue = RequestQueue(group_sequences(rows, lambda length: 0), rows, 12)
    taken: list[int] = []
    while batch := queue.take(BatchLimits(most_rows, most_tokens)):
        places = [place for group in batch for place in group.members]
        assert len(places) <= most_rows
        assert len(places) == 1 or most_tokens is None or queue.tokens(batch) <= most_tokens
        taken += places
    assert sorted(taken) == list(range(len(rows)))


def test_passes_are_no_longer_than_they_must() -> None:
    enough = NETWORK_BATCHING.prefill_tokens
    rows = [PromptTail(torch.zeros(length, 1)) for length in [*range(20, 60), 511, 600, 2000, 5000]]
    passes = _passes(rows, enough)
    assert [place for first, last in passes for place in range(first, last)] == list(range(len(rows)))
    for first, last in passes:
        lengths = [row.length for row in rows[first:last]]
        assert sum(lengths[:-1]) < enough
        assert sum(lengths) >= enough or last == len(rows)


def test_running_out_of_memory_halves_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("phi3")
    rows = ask(random.Random(4), [(2, 9), (1, 3)])
    expected = answers(model, rows, False)
    inner = SharedPrefixCache.advance
    sizes: list[int] = []

    def advance(cache: SharedPrefixCache) -> Any:
        sizes.append(cache.rows)
        if cache.rows > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(cache)

    monkeypatch.setattr(SharedPrefixCache, "advance", advance)
    assert answers(model, rows, True) == expected
    assert max(sizes) > 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_join_a_batch_that_goes_on(
    family: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(family)
    rows = ask(random.Random(9), [(1, 3), (2, 4), (1, 2), (0, 9), (3, 1), (2, 3), (1, 2), (1, 4)])
    rules = TokenRules(stop=tuple(range(0, 500, 5)), forbidden=(networks.IMAGE_TOKEN,), pad=2)
    wanted = GenerationSettings(max_new_tokens=9, temperature=temperature)
    expected = [BatchRunner(model).run([row], wanted, rules)[0] for row in rows]
    inner = PrefilledBatch.join
    joined: list[tuple[int, int]] = []

    def join(batch: PrefilledBatch, other: PrefilledBatch) -> None:
        joined.append((batch.cache.rows, other.cache.rows))
        inner(batch, other)

    monkeypatch.setattr(PrefilledBatch, "join", join)
    runner = BatchRunner(model)
    runner.most_sequences = 6
    assert runner.run(rows, wanted, rules) == expected
    assert joined and all(going + new <= 6 for going, new in joined)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(1, 20)
)
def test_a_tree_holds_every_row_once(rows: list[list[int]], most: int) -> None:
    rows = sorted(rows)
    trees = grow_trees(rows, most)
    assert [first for first, _ in trees] == [
        sum(len(tree.paths) for _, tree in trees[:number]) for number in range(len(trees))
    ]
    for first, tree in trees:
        some = rows[first : first + len(tree.paths)]
        assert len(tree.source) <= most or len(some) == 1
        assert len(tree.source) == len({tuple(row[:end]) for row in some for end in range(1, len(row) + 1)})
        hidden, columns = tree.hidden(), tree.columns()
        for row, path, places in zip(some, tree.paths, columns.tolist(), strict=True):
            assert [some[of][place] for of, place in (tree.source[node] for node in path)] == row
            assert [tree.source[node][1] for node in path] == list(range(len(row)))
            assert places[len(places) - len(path) :] == path
            assert (~hidden[path[-1]]).nonzero().flatten().tolist() == sorted(path)


def test_what_is_shared_is_said_by_the_tensors_and_never_found_in_the_pixels() -> None:
    rows = ask(random.Random(6), [(2, 3)])
    (group,) = group_sequences(rows, lambda length: 0)
    assert sorted(group.members) == [0, 1, 2]
    assert len(group_sequences(rows, lambda length: 0, share=False)) == 3
    apart = [TokenSequence(row.ids, None if row.tiles is None else row.tiles.clone()) for row in rows]
    assert len(group_sequences(apart, lambda length: 0)) == 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_long_answers_outgrow_the_buffers(temperature: float) -> None:
    model = network("qwen2")
    rows = ask(random.Random(7), [(1, 4), (2, 1)])
    changes = {"max_new_tokens": 150, "min_new_tokens": 149, "temperature": temperature, "top_p": 0.9}
    together = answers(model, rows, True, **changes)
    assert together == answers(model, rows, False, **changes)
    assert min(len(answer.tokens) for answer in together) >= 149


def test_products_equal_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from mini_internvl import shared_attention

    monkeypatch.setattr(shared_attention, "SCORES_AT_ONCE", 200)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 10, 16), torch.randn(3, 2, 7, 16), torch.randn(3, 2, 7, 16)
    hidden = torch.rand(3, 5, 7) < 0.3
    hidden[..., -1] = False
    for mask in (None, fold_mask(hidden, 2, torch.float32)):
        for one, other in zip(
            attend(query, key, value, mask, 0.25),
            attend_in_products(query, key, value, mask, 0.25),
            strict=True,
        ):
            assert torch.allclose(one, other, atol=1e-5)


def test_the_attention_of_the_model_is_put_back() -> None:
    model = network("qwen2")
    before = model.language_model.config._attn_implementation
    answers(model, ask(random.Random(8), [(1, 3)]), True)
    assert model.language_model.config._attn_implementation == before == "sdpa"
