"""Every number by which evalkit groups, hands out and batches requests, and why it has this value.

The numbers of the network itself (tokens of a prefill, sequences decoded together, share of the memory) are
in `mini_internvl.batch_config`, since that package is used without evalkit. `evalkit run --dry-run` prints
both. No number changes an answer. `--batch-size N` overrides `*conversations*` and `served_requests`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How requests travel from the plan to a model.

    Attributes:
        window: requests handed to a model at once; a group is never torn to meet it. Two of RSVQA's images or
            20 of DriveLM's frames, so that the images of the next group are decoded while one is answered.
        largest_group: requests of one group; a larger one is torn. Bounds what a model holds at once; the
            largest group of a published benchmark (RSVQA-HR) has about 100.
        device_chunk: requests handed to a process of `--devices` at once; the last group goes beyond it.
        ray_chunk: the same for a Ray worker, where a message costs more.
        chunks_ahead: chunks that a worker holds, so that it need not wait for the next one.
        groups_kept: smallest groups of the run that are kept for the end, for each worker: the last
            worker is then busy for a short time only (benchmarks/scale_simulation.py).
        image_sets_ahead: image sets that are decoded, or being decoded, ahead of the model. Measured with 9
            tiles a set: 247 MB, with 29 tiles 970 MB; the model then waits 0.6 to 4.3% of its time, without
            any set ahead 18 to 64% (benchmarks/feeding.py).
        requests_per_image_set: requests about one image set that are answered together; more are answered in
            parts, so that answers are stored in between.
        image_threads: threads that decode and tile, at most one a core. Pillow and NumPy release Python's
            lock; two cores make 22 images of 9 tiles a second (benchmarks/feeding.py).
        conversations_on_gpu, conversations_on_cpu: conversations after which a batch is answered and stored.
            Eight of DriveLM's questions take a 1B on two cores 88 s (11 s each); a GPU reads its weights once
            for 64.
        conversations_of_small_model: the same for a model of at most `small_model` parameters, for which the
            Python work of a step outweighs its products: a step of the embedded model takes 3 ms whatever
            the batch (benchmarks/throughput.py --model tiny).
        small_model: parameters.
        hf_conversations_on_gpu, hf_conversations_on_cpu: the same for `hf:` models, whose prompts are padded
            to the longest and whose images are encoded again for each.
        served_requests: requests under way at a server at the same time.
    """

    window: int = 256
    largest_group: int = 2048
    device_chunk: int = 32
    ray_chunk: int = 64
    chunks_ahead: int = 2
    groups_kept: int = 4
    image_sets_ahead: int = 32
    requests_per_image_set: int = 256
    image_threads: int = 16
    conversations_on_gpu: int = 64
    conversations_on_cpu: int = 8
    conversations_of_small_model: int = 128
    small_model: int = 50_000_000
    hf_conversations_on_gpu: int = 16
    hf_conversations_on_cpu: int = 8
    served_requests: int = 8

    def conversations(self, device: str, parameters: int) -> int:
        """Conversations after which a batch is answered, on a kind of device (`cpu`, `cuda`)."""
        if parameters <= self.small_model:
            return self.conversations_of_small_model
        return self.conversations_on_cpu if device == "cpu" else self.conversations_on_gpu

    def to_json(self) -> dict[str, float]:
        """Field names to values."""
        return dataclasses.asdict(self)


#: The numbers in use.
BATCHING = BatchConfig()


@runtime_checkable
class BatchAware(Protocol):
    """A model family that batches by numbers of its own and tells them without loading weights."""

    def batching(self) -> Mapping[str, float]:
        """Names to values."""
        ...
