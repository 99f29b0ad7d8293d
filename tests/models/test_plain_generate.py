"""The batched path against the plainest way to generate: one prompt, the whole network for every token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import small_networks as networks
import torch

import mini_internvl
from mini_internvl import GenerationSettings, MiniInternVL
from mini_internvl.batching import BatchRunner
from mini_internvl.generation import TokenRules
from mini_internvl.prompt_groups import TokenSequence

RULES = TokenRules(stop=(2, *range(100, 120)), forbidden=(networks.IMAGE_TOKEN, 3, 4), pad=2)


@torch.inference_mode()
def plain_generate(
    network: MiniInternVL, ids: Sequence[int], tiles: torch.Tensor | None, new: int, rules: TokenRules
) -> list[int]:
    """Greedy tokens after one prompt: no batch, no cache, nothing shared.

    Args:
        network: the model.
        ids: the prompt's tokens. tiles: uint8 `[tiles, 3, size, size]` of its images, or None.
        new: most new tokens.
        rules: tokens that end an answer, and those that are never generated.
    """
    tokens = list(ids)
    for _ in range(new):
        logits = network(input_ids=torch.tensor([tokens]), pixel_values=tiles)  # [1, length, vocabulary]
        scores = logits[0, -1].clone()  # [vocabulary]
        scores[list(rules.forbidden)] = float("-inf")
        token = int(scores.argmax())
        tokens.append(token)
        if token in rules.stop:
            break
    return tokens[len(ids) :]


def prompts(seed: int) -> list[TokenSequence]:
    """Questions about three images of one to three tiles, some after the same words, and some without."""
    drawn = random.Random(seed)
    found = []
    for tiles, questions in ((1, 6), (3, 4), (2, 1), (0, 3)):
        pixels = torch.randint(0, 256, (tiles, 3, 56, 56), generator=torch.Generator().manual_seed(seed))
        pixels = pixels.to(torch.uint8)
        image = [498, *[networks.IMAGE_TOKEN] * (networks.TOKENS_PER_TILE * tiles), 499] if tiles else []
        words = [drawn.randrange(3, 400) for _ in range(4)]
        for question in range(questions):
            own = [drawn.randrange(3, 400) for _ in range(1 + drawn.randrange(8))]
            ids = [1, *image, *(words if question % 2 else []), *own]
            found.append(TokenSequence(ids, pixels if tiles else None))
    drawn.shuffle(found)
    return found


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_batched_answers_equal_the_plain_ones_token_by_token(family: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path)
    network = mini_internvl.load(tmp_path, dtype="float32", device="cpu")
    network.image_token_id = networks.IMAGE_TOKEN
    asked = [prompt for seed in range(2) for prompt in prompts(seed)]
    expected = [plain_generate(network, each.ids, each.tiles, 10, RULES) for each in asked]
    runner = BatchRunner(network)
    for share, most in ((True, 128), (True, 5), (False, 128)):
        runner.share, runner.most_sequences = share, most
        found = runner.run(asked, GenerationSettings(max_new_tokens=10), RULES)
        assert [answer.tokens for answer in found] == expected
    assert {len(tokens) for tokens in expected} > {10} and len({tuple(tokens) for tokens in expected}) > 10
