"""The network against stored outputs of the released code, for every folder of the oracle."""

from __future__ import annotations

from pathlib import Path

import conftest
import pytest
import torch
from safetensors.torch import load_file

import mini_internvl
from mini_internvl.model import pixel_unshuffle

TOLERANCE = 1e-5
IMAGE_TOKEN = 500


def _folders() -> list[Path]:
    shared = conftest.find_shared()
    return sorted(p.parent for p in shared.glob("oracle/*/model.safetensors")) if shared else []


class Oracle:
    """A folder of the oracle with our model of it."""

    def __init__(self, folder: Path) -> None:
        self.model = mini_internvl.load(folder, image_token_id=IMAGE_TOKEN, device="cpu")
        self.inputs = load_file(folder / "inputs.safetensors")
        self.outputs = load_file(folder / "outputs.safetensors")
        self.tiles = self.inputs["pixel_values"]

    def close(self, got: torch.Tensor, name: str) -> bool:
        """Whether an output is within the tolerance of the stored one."""
        return bool((got - self.outputs[name]).abs().max() <= TOLERANCE)


@pytest.fixture(scope="module", params=_folders() or [None], ids=lambda p: p.name if p else "absent")
def oracle(request: pytest.FixtureRequest) -> Oracle:
    """One folder of the oracle."""
    if request.param is None:
        pytest.skip("no oracle (set EVALKIT_SHARED to a folder that has one)")
    return Oracle(request.param)


def test_encoder(oracle: Oracle) -> None:
    output = oracle.model.vision_model(oracle.tiles, output_hidden_states=True)
    assert oracle.close(output.last_hidden_state, "vit_last_hidden")
    assert output.hidden_states is not None
    assert oracle.close(output.hidden_states[0], "vit_hidden_0_embeddings")
    assert oracle.close(output.hidden_states[1], "vit_hidden_1")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_pixel_unshuffle(oracle: Oracle, version: str) -> None:
    patches = oracle.outputs["vit_last_hidden"][:, 1:].unflatten(1, (4, 4))
    assert torch.equal(pixel_unshuffle(patches, 0.5, version), oracle.outputs[f"pixel_shuffle_{version}"])


def test_projector(oracle: Oracle) -> None:
    assert oracle.close(oracle.model.encode_images(oracle.tiles), "mlp1_out")


def test_logits(oracle: Oracle) -> None:
    ids, mask = oracle.inputs["input_ids"], oracle.inputs["attention_mask"]
    logits = oracle.model(input_ids=ids, attention_mask=mask, pixel_values=oracle.tiles)
    assert oracle.close(logits, "logits")


def test_greedy(oracle: Oracle) -> None:
    expected = oracle.outputs["greedy_tokens"]
    tokens = oracle.model.generate(
        input_ids=oracle.inputs["input_ids"],
        attention_mask=oracle.inputs["attention_mask"],
        pixel_values=oracle.tiles,
        max_new_tokens=expected.shape[1],
    )
    assert torch.equal(tokens, expected)


def test_greedy_of_a_padded_batch(oracle: Oracle) -> None:
    expected = oracle.outputs["batch_greedy_tokens"]
    tokens = oracle.model.generate(
        input_ids=oracle.inputs["batch_input_ids"],
        attention_mask=oracle.inputs["batch_attention_mask"],
        pixel_values=oracle.tiles,
        max_new_tokens=expected.shape[1],
    )
    assert torch.equal(tokens, expected)


def test_text_alone(oracle: Oracle) -> None:
    assert oracle.close(oracle.model(input_ids=oracle.inputs["text_input_ids"]), "text_logits")
