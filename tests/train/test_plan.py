"""The plan of a training: its operations are those that torch counts, its sizes are readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import make_recipe
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from mini_internvl_train.fine_tuning import train
from mini_internvl_train.plan import _bytes, _hours, measured_rate, plan_of

_ATEN = torch.ops.aten


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)  # type: ignore[no-any-return]


def attention_backward(above: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of the five products that torch counts, one makes the scores again; a plan has the other four."""
    found = sdpa_backward_flop_count(above, query, key, value)
    return found * 4 // 5  # type: ignore[no-any-return]


#: The kernels of a CPU, which torch's counter does not know.
KERNELS = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("trainable", ["full", "projector", "frozen_vit"])
def test_operations_are_those_that_torch_counts(tmp_path: Path, trainable: str, checkpointing: bool) -> None:
    """Of an epoch in one step; sums and norms, which are no products, are left out there."""
    recipe = make_recipe(
        tmp_path,
        trainable=trainable,
        gradient_checkpointing=checkpointing,
        drop_path=0.0,
        packing__enabled=False,
        steps__max_steps=1,
        steps__packs_per_step=12,
    )
    planned = plan_of(recipe).operations
    counter = FlopCounterMode(display=False, custom_mapping=KERNELS)
    with counter:
        train(recipe, say=lambda line: None, quiet=True)
    counted = sum(counter.get_flop_counts()["TrainingStep"].values())
    assert 1.0 <= planned / counted <= 1.09


def test_sizes_and_times_are_readable() -> None:
    assert [_bytes(value) for value in (2_000, 3_400_000, 999_999_999, 1_000_000_000)] == [
        *("2 kB", "3.40 MB", "1000.00 MB", "1.00 GB")
    ]
    assert [_hours(value) for value in (0.5, 0.999, 1, 30.26)] == [
        *("30.0 minutes", "59.9 minutes", "1.0 hours", "30.3 hours")
    ]


def test_the_rate_is_of_products_that_were_made() -> None:
    """Products of one thread: some thousand million a second, and no million million."""
    assert 1e8 < measured_rate("float32", torch.device("cpu"), seconds=0.05) < 1e13
