"""Every number by which the network batches its work, with the measurement that chose it.

Measured on two cores without half-precision instructions (docs/performance.md). No number changes an answer
in float32.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkBatchConfig:
    """How prompts are encoded, prefilled and decoded together.

    Attributes:
        tiles_on_gpu: tiles encoded in one pass: beyond this a pass only takes more memory.
        encoder_bytes_on_cpu: of a pass's largest activation. Above 32 MiB the C library maps and unmaps
            memory for each, which costs up to a third of the time.
        prefill_tokens: whole prompts are prefilled together until a pass has this many tokens. More make it
            no faster, and a prompt alone needs no padding and no mask, with which attention computes what
            lies ahead as well.
        tree_tokens_on_cpu, tree_tokens_on_gpu: tokens of a prefix tree: enough for products at full speed,
            few enough that attention between unrelated sequences costs little.
        sequences_on_cpu, sequences_on_gpu: sequences decoded together. Larger batches gain nothing: the time
            of a step then grows linearly.
        join_below: new sequences join when no more than this share of the batch is left: prefilling few at a
            time is slow.
        leave_below: finished sequences leave when no more than this share is still going: moving the rest of
            the keys and values must pay.
        steps_between_checks: decoding steps on an accelerator between two checks for finished sequences; a
            check waits for the device. On a CPU every step is checked.
        cache_growth: columns by which the buffer of keys and values grows when it is full.
        memory_share: of the free memory, for the keys and values of a batch; the rest is for activations.
    """

    tiles_on_gpu: int = 16
    encoder_bytes_on_cpu: int = 24 << 20
    prefill_tokens: int = 512
    tree_tokens_on_cpu: int = 256
    tree_tokens_on_gpu: int = 2048
    sequences_on_cpu: int = 128
    sequences_on_gpu: int = 512
    join_below: float = 0.5
    leave_below: float = 0.75
    steps_between_checks: int = 8
    cache_growth: int = 64
    memory_share: float = 0.5

    def sequences(self, device: str) -> int:
        """Sequences decoded together on a kind of device (`cpu`, `cuda`)."""
        return self.sequences_on_cpu if device == "cpu" else self.sequences_on_gpu

    def tree_tokens(self, device: str) -> int:
        """Tokens of a prefix tree on a kind of device."""
        return self.tree_tokens_on_cpu if device == "cpu" else self.tree_tokens_on_gpu

    def to_json(self) -> dict[str, float]:
        """Field names to values."""
        return dataclasses.asdict(self)


NETWORK_BATCHING = NetworkBatchConfig()
"""The numbers in use where none are given."""
