"""Estimates of a dry run: tokens with and without sharing, costs, time and memory."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_training import write_checkpoint
from torch import nn

from evalkit.contracts import Generation, Message, Request
from evalkit.data.images import ImageBytes
from evalkit.pipeline.cost_estimate import Costs, Speed, estimate_cost, estimate_work, measure, memory
from evalkit.pipeline.plan import make_plan
from evalkit_models.costs import costs
from mini_internvl.checkpoint import read_config
from mini_internvl.model import MiniInternVL

COSTS = Costs(
    tokens_per_tile=10, tile_flops=1e9, token_flops=1e6, weight_bytes=1000, step_bytes=100, token_bytes=2
)


def picture(number: int) -> ImageBytes:
    """A picture of 1000 by 500, which gives nine tiles of at most twelve."""
    data = io.BytesIO()
    Image.new("RGB", (1000, 500), (number, 0, 0)).save(data, "PNG")
    return ImageBytes(data.getvalue(), str(number))


def asked() -> list[Request]:
    """Two pictures, three questions each, alike in their first forty characters; one without a picture."""
    found = []
    for number in range(6):
        text = "x" * 40 + f"{number:04}"
        found.append(Request(str(number), (Message("user", text),), (picture(number % 2),), Generation(8)))
    return [*found, Request("6", (Message("user", "y" * 44),), (), Generation(8))]


def test_tokens_with_and_without_sharing() -> None:
    requests = asked()
    seen = estimate_cost(make_plan(requests), requests.__getitem__)
    tiles = seen.tiles // 2
    assert tiles > 1 and seen.tile_uses == 6 * tiles and seen.group_tiles == 2 * tiles
    assert seen.text_tokens == 7 * 11 and 40 <= seen.repeated_text_tokens <= 43
    assert seen.prefilled(10, shared=False) == 60 * tiles + 77
    assert seen.prefilled(10, shared=True) == 20 * tiles + 77 - seen.repeated_text_tokens


def test_time_and_memory() -> None:
    requests = asked()
    seen = estimate_cost(make_plan(requests), requests.__getitem__)
    speed = Speed(flops=1e9, bytes=1e3)
    shared, alone = (
        estimate_work(seen, COSTS, speed, share, batch) for share, batch in ((True, 7), (False, 1))
    )
    work = seen.tile_uses * 1e9 + seen.prefilled(10, False) * 1e6
    assert alone.seconds == pytest.approx((work / 1e9 + 28 * 100 / 1e3) / 0.6)
    assert alone.encoded == 3 * shared.encoded and alone.seconds > 2 * shared.seconds
    work = seen.tiles * 1e9 + seen.prefilled(10, True) * 1e6
    assert shared.seconds == pytest.approx((work / 1e9 + 4 * 100 / 1e3) / 0.6)
    image, text = seen.tile_uses * 10 / 7, (77 + 7 * 8) / 7
    assert memory(seen, COSTS, 7) == pytest.approx(1000 + 2 * (image + 7 * text))
    assert min(dataclasses.astuple(measure())) > 0


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3"])
def test_costs_are_counted_from_the_networks_matrices(tmp_path: Path, family: str) -> None:
    """Two operations a weight and token, and four a pair of positions and channel in the vision encoder."""
    found = costs(str(write_checkpoint(tmp_path / "model", family)), None)
    config, _ = read_config(tmp_path / "model")
    with torch.device("meta"):
        network = MiniInternVL(config)

    def weights(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.dim() > 1)

    vision, language = config.vision, network.language_model
    decoder, encoder = weights(language.model.layers), weights(network.vision_model.encoder)
    table = weights(language.get_input_embeddings())
    positions = (vision.image_size // vision.patch_size) ** 2 + 1
    attention = 4 * vision.num_hidden_layers * positions**2 * vision.hidden_size
    layers, heads = int(config.llm["num_hidden_layers"]), int(config.llm["num_key_value_heads"])
    width = int(config.llm["hidden_size"]) // int(config.llm["num_attention_heads"])
    assert found == Costs(
        tokens_per_tile=config.num_image_token,
        tile_flops=2 * encoder * positions + attention,
        token_flops=2 * decoder,
        weight_bytes=2 * (decoder + encoder + 2 * table),
        step_bytes=2 * (decoder + table),
        token_bytes=2 * 2 * layers * heads * width,
    )


def test_costs_of_the_models() -> None:
    one, two, four = (costs(f"mini-internvl-{size}", None) for size in ("1b", "2b", "4b"))
    assert one and two and four
    assert one.tokens_per_tile == 256 and one.token_bytes == 2 * 24 * 128 * 2
    assert [round(c.weight_bytes / 1e9, 1) for c in (one, two, four)] == pytest.approx(
        [1.9, 4.4, 8.3], abs=0.5
    )
    assert one.tile_flops == pytest.approx(0.72e12, rel=0.05)
    # layers x (two projections, keys and values, three of the MLP), then with the table of embeddings
    assert [c.token_flops for c in (one, two, four)] == [715_653_120, 3_019_898_880, 7_247_757_312]
    assert [c.step_bytes for c in (one, two, four)] == [987_418_880, 3_398_995_968, 7_444_488_192]
    small = costs("mini-internvl-tiny", None)
    assert small and small.weight_bytes < 1e8
    assert costs("somebody/else", None) is None
