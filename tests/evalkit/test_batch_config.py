"""Batching numbers: each is documented, and those of the device and the model's size are chosen."""

from __future__ import annotations

import dataclasses

import pytest

from evalkit.batch_config import BatchConfig
from mini_internvl import NetworkBatchConfig


@pytest.mark.parametrize("config", [BatchConfig, NetworkBatchConfig])
def test_every_number_is_documented(config: type) -> None:
    documented = str(config.__doc__)
    for field in dataclasses.fields(config):
        assert field.name in documented, field.name
        assert field.default is not dataclasses.MISSING
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config(), dataclasses.fields(config)[0].name, 1)


@pytest.mark.parametrize(
    ("device", "parameters", "conversations"),
    [
        ("cpu", 50_000_000, 128),
        ("cuda", 10_000_000, 128),
        ("cpu", 50_000_001, 8),
        ("cuda", 2_000_000_000, 64),
    ],
)
def test_conversations_of_a_batch(device: str, parameters: int, conversations: int) -> None:
    assert BatchConfig().conversations(device, parameters) == conversations


def test_sequences_and_tree_tokens_go_by_the_device() -> None:
    config = NetworkBatchConfig()
    assert (config.sequences("cpu"), config.sequences("cuda")) == (128, 512)
    assert (config.tree_tokens("cpu"), config.tree_tokens("cuda")) == (256, 2048)
