"""The network against transformers' own InternVL with random weights, which needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import torch

import mini_internvl
from mini_internvl.generation import GenerationSettings

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=networks.FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, str]:
    """transformers' model, ours read from the same folder, and the family."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = networks.save_native(request.param, folder)
    return theirs, mini_internvl.load(folder, dtype="float32", device="cpu"), request.param


def fresh(theirs: Any) -> Any:
    """The same model without the rope state that earlier lengths left in it."""
    copy = networks.native_model("qwen2").__class__(theirs.config).eval()
    copy.load_state_dict(theirs.state_dict())
    return copy


@torch.no_grad()
def greedy_by_hand(theirs: Any, batch: dict[str, torch.Tensor], steps: int) -> list[int]:
    """One row token by token, each key kept as it was turned in its own step (as the released code does)."""
    model = fresh(theirs).model
    features = model.get_image_features(batch["pixel_values"]).pooler_output
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    at_image = (batch["input_ids"] == networks.IMAGE_TOKEN)[..., None]
    embeddings = embeddings.masked_scatter(at_image, torch.cat(list(features)).to(embeddings.dtype))
    tokens: list[int] = []
    cache = None
    position = torch.arange(embeddings.shape[1])[None]
    for _ in range(steps):
        output = model.language_model(
            inputs_embeds=embeddings, position_ids=position, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        logits = theirs.lm_head(output.last_hidden_state[:, -1])
        logits[:, networks.IMAGE_TOKEN] = float("-inf")
        tokens.append(int(logits.argmax()))
        if tokens[-1] == 2:
            break
        embeddings = model.get_input_embeddings()(torch.tensor([tokens[-1:]]))
        position = position[:, -1:] + 1
    return tokens


@torch.no_grad()
def test_vision_and_projector_equal(pair: tuple[Any, Any, str]) -> None:
    theirs, ours, _ = pair
    tiles = networks.inputs(((3, 8),))["pixel_values"]
    expected = theirs.model.vision_tower(tiles).last_hidden_state
    assert (ours.vision_model(tiles).last_hidden_state - expected).abs().max() <= TOLERANCE
    projected = torch.stack(list(theirs.model.get_image_features(tiles).pooler_output)).view(3, 4, 64)
    assert projected.std() > 0.1
    assert (ours.encode_images(tiles) - projected).abs().max() <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("tiles,text", [(3, 12), (1, 6)])
def test_logits_equal(pair: tuple[Any, Any, str], tiles: int, text: int) -> None:
    theirs, ours, _ = pair
    batch = networks.inputs(((tiles, text),))
    expected = fresh(theirs)(**batch).logits
    assert expected.std() > 0.5
    assert (ours(**batch) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_padding_changes_no_logit(pair: tuple[Any, Any, str]) -> None:
    _, ours, _ = pair
    tiles = (2, 1)
    batch = networks.inputs(((2, 14), (1, 5)))
    logits = ours(**batch)
    for row in range(2):
        alone = networks.single(batch, row, tiles)
        expected = ours(**alone)[0]
        assert (logits[row, -expected.shape[0] :] - expected).abs().max() <= TOLERANCE


def test_greedy_tokens_equal_alone_and_in_a_batch(pair: tuple[Any, Any, str]) -> None:
    """Rows of very unlike length, two of which cross the original length of the long ropes while decoding."""
    theirs, ours, _ = pair
    tiles = (2, 1, 3)
    batch = networks.inputs(((2, 9), (1, 5), (3, 20)))
    expected = [greedy_by_hand(theirs, networks.single(batch, row, tiles), 12) for row in range(3)]
    together = ours.generate(**batch, max_new_tokens=12)
    for row in range(3):
        alone = ours.generate(**networks.single(batch, row, tiles), max_new_tokens=12)
        assert alone[0].tolist() == expected[row]
        assert together[row].tolist()[: len(expected[row])] == expected[row]


def test_released_layout_gives_the_same_model(pair: tuple[Any, Any, str], tmp_path: Path) -> None:
    _, ours, family = pair
    mini_internvl.save_checkpoint(ours, tmp_path)
    again = mini_internvl.load(tmp_path)
    batch = networks.inputs(((2, 9),))
    assert torch.equal(again(**batch), ours(**batch))
    assert again.config.family == family.split("-")[0]


def test_beams_equal_transformers(pair: tuple[Any, Any, str]) -> None:
    theirs, ours, family = pair
    if "-" in family:
        pytest.skip("transformers' rope state differs from ours beyond the original length")
    batch = networks.inputs(((2, 9),))
    expected = theirs.generate(
        **batch,
        max_new_tokens=6,
        num_beams=3,
        do_sample=False,
        suppress_tokens=[networks.IMAGE_TOKEN],
        eos_token_id=2,
        pad_token_id=2,
    )
    got = ours.generate(**batch, settings=GenerationSettings(max_new_tokens=6, num_beams=3))
    assert got.tolist() == expected[:, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_tied_embeddings(family: str, tmp_path: Path) -> None:
    theirs = networks.save_native(family, tmp_path / "native", tied=True)
    ours = mini_internvl.load(tmp_path / "native")
    assert ours.language_model.lm_head.weight is ours.language_model.model.embed_tokens.weight
    batch = networks.inputs(((1, 6),))
    with torch.no_grad():
        assert (ours(**batch) - theirs(**batch).logits).abs().max() <= TOLERANCE
    mini_internvl.save_checkpoint(ours, tmp_path / "released")
    assert torch.equal(mini_internvl.load(tmp_path / "released")(**batch), ours(**batch))


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_network_is_trainable(family: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path)
    network = mini_internvl.read_network(tmp_path, mini_internvl.MiniInternVL).train()
    network.vision_model.gradient_checkpointing = True
    network(**networks.inputs(((2, 6), (1, 4)))).pow(2).mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
