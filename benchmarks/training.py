"""Training: packed against unpacked, the head at labels against the full head, the real 1B, and a peer.

python benchmarks/training.py              # ratios, on a small network of the real architecture
python benchmarks/training.py --real-1b    # shapes of the 1B, random weights, bf16; minutes, 17 GB (lora: 3)
python benchmarks/training.py --peer small # beside transformers' Trainer; 1b: widths of the 1B in four layers
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl import MiniInternVL, MiniInternVLConfig, VisionConfig
from mini_internvl_train.batches import Batch, collate
from mini_internvl_train.encoding import IGNORED, Encoded
from mini_internvl_train.log import peak_memory
from mini_internvl_train.optimizer import make_optimizer
from mini_internvl_train.packing import Bounds, Length, plan_packs, sample_weight
from mini_internvl_train.plan import UTILISATION, Memory, MicroStep, estimate_memory, operations, rate_of
from mini_internvl_train.precision import emulated, store_frozen_layers
from mini_internvl_train.recipe import Data, Recipe
from mini_internvl_train.start import prepare
from mini_internvl_train.step import TrainingStep

IMAGE_TOKEN = 500


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real-1b", action="store_true", help="optimizer steps at the 1B's shapes")
    parser.add_argument("--trainable", default="full", choices=("full", "frozen_vit", "lora", "projector"))
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of --real-1b")
    parser.add_argument("--peer", choices=("small", "1b"), help="beside transformers' Trainer; full or lora")
    parser.add_argument("--order", default="group_by_length", choices=("group_by_length", "random"),
                        help="of the samples of --peer; random is the Trainer's default")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="of --peer")
    chosen = parser.parse_args(arguments)
    if chosen.peer:
        beside_trainer(chosen.peer, chosen.trainable, chosen.order, chosen.rounds)
    elif chosen.real_1b:
        real_1b(chosen.trainable, chosen.steps)
    else:
        packing_ratio()
        head_ratio()


def beside_trainer(network: str, trainable: str, order: str, rounds: int) -> None:
    """The same training by `evalkit train` and by transformers' Trainer."""
    from training_peer import compare

    if network == "small":
        compare(_config(vocabulary=2000), trainable, order, samples=160, batch=8, most=6, rounds=rounds)
    else:
        compare(_cut(_real_config(), layers=4), trainable, order, samples=16, batch=4, most=2, rounds=rounds)


class FullHeadStep(TrainingStep):
    """The same loss with the language head at every position."""

    def loss(self, hidden: Tensor, batch: Batch, denominator: float) -> Tensor:
        """See `TrainingStep.loss`."""
        head: Any = self.network.language_model
        logits = head.lm_head(hidden[:, :-1]).float()
        targets = batch.labels[:, 1:].reshape(-1)
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), targets, reduction="none", ignore_index=IGNORED
        )
        return (losses * batch.weights[:, 1:].reshape(-1)).sum() / denominator


def packing_ratio() -> None:
    """The same samples as padded rows of one sample each, and as packs; forward and backward."""
    network = _network(_config(vocabulary=2000))
    samples = _samples(network, 64)
    unpacked = [collate([[s] for s in samples[i : i + 8]], _tiles(network, samples[i : i + 8]), "square", 0)
                for i in range(0, len(samples), 8)]  # fmt: skip
    lengths = [Length(len(s.input_ids), sum(s.tile_counts)) for s in samples]
    packs = plan_packs(lengths, range(len(samples)), Bounds(max_tokens=512, max_tiles=99))
    rows = [[samples[i] for i in pack] for pack in packs]
    packed = [collate([row], _tiles(network, row), "square", 0) for row in rows]
    total = sum(sample_weight(s.trained, "square") for s in samples)
    one, other = _median(network, unpacked, total), _median(network, packed, total)
    real = sum(length.tokens for length in lengths)
    shown = {"unpacked": unpacked, "packed": packed}
    for (name, batches), seconds in zip(shown.items(), (one, other), strict=True):
        filled = real / sum(batch.input_ids.numel() for batch in batches)
        print(f"{name:<9} {seconds:7.2f} s of processors, {filled:4.0%} of all places are real tokens")
    print(f"packed / unpacked: {one / other:.2f} times the speed")


def head_ratio() -> None:
    """The language head at labelled positions alone, and at every position; forward and backward."""
    network = _network(_config(vocabulary=151_655))
    samples = _samples(network, 8)
    batch = collate([samples], _tiles(network, samples), "square", 0)
    total = sum(sample_weight(s.trained, "square") for s in samples)
    times = {
        name: _median(network, [batch], total, step)
        for name, step in (("full head", FullHeadStep), ("at labels", TrainingStep))
    }
    labelled = int((batch.labels != IGNORED).sum())
    positions = batch.input_ids.numel()
    width = 151_655 * 4 / 1e6
    print(
        f"full head {times['full head']:7.2f} s, logits of {positions} positions: {positions * width:.0f} MB"
    )
    print(f"at labels {times['at labels']:7.2f} s, logits of {labelled} positions: {labelled * width:.0f} MB")
    print(f"at labels / full head: {times['full head'] / times['at labels']:.2f} times the speed")


def real_1b(trainable: Any, steps: int) -> None:
    """Optimizer steps at the shapes of Mini-InternVL-1B (InternViT-300M, Qwen2-0.5B), random weights."""
    libraries = peak_memory() or 0
    network = _network(_real_config(), dtype=torch.bfloat16)
    recipe = _recipe(trainable)
    prepare(network, recipe)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    slow = emulated("bf16", torch.device("cpu"))
    if slow:
        print("this CPU has no bfloat16 matrix instructions; products are taken in float32")
        store_frozen_layers(network, torch.bfloat16)
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if type(module) is nn.Linear or not isinstance(module, nn.Linear) or name == "bias":
                    parameter.data = parameter.data.float()
    samples = _samples(network, 1, tiles=1)
    batch = collate([samples], _tiles(network, samples), "square", 0)
    tokens = batch.input_ids.numel()
    trained = sum(s.trained for s in samples)
    memory = estimate_memory(network, recipe, MicroStep(tokens, len(samples), trained))
    rate, source = rate_of(recipe)
    expected = operations(network, recipe, tokens, len(samples), trained, tokens**2) / (rate * UTILISATION)
    print(f"{trainable}: {sum(p.numel() for p in network.parameters()):,} parameters, {tokens} tokens a step")
    print(
        f"expected {expected:.1f} s a step, at {UTILISATION:.0%} of {rate:.3g} operations a second ({source})"
    )
    step = TrainingStep(network).train()
    optimizer = make_optimizer(step, recipe.optimizer)
    total = sum(sample_weight(s.trained, "square") for s in samples)
    for number in range(1, steps + 1):
        began, worked = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not slow):
            loss = step(batch, total)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in step.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds, work = time.perf_counter() - began, time.process_time() - worked
        print(
            f"step {number}: loss {loss.item():.3f}, {seconds:.1f} s, {work:.1f} s of processors", flush=True
        )
    print(_beside(memory, libraries, peak_memory() or 0))


def _beside(expected: Memory, libraries: int, peak: int) -> str:
    return (
        f"expected {expected.total / 1e9:.2f} GB (weights {expected.weights / 1e9:.2f}, gradients "
        f"{expected.gradients / 1e9:.2f}, AdamW {expected.optimizer / 1e9:.2f}, activations "
        f"{expected.activations / 1e9:.2f}); measured peak {(peak - libraries) / 1e9:.2f} GB, "
        f"without {libraries / 1e9:.2f} GB of libraries"
    )


def _config(vocabulary: int) -> MiniInternVLConfig:
    llm = {
        "model_type": "qwen2", "vocab_size": vocabulary, "hidden_size": 192, "intermediate_size": 512,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    }  # fmt: skip
    vision = VisionConfig(128, 512, 2, 4, patch_size=14, image_size=112)
    return MiniInternVLConfig(vision=vision, llm=llm)


def _real_config() -> MiniInternVLConfig:
    llm = {
        "model_type": "qwen2", "vocab_size": 151_655, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    }  # fmt: skip
    return MiniInternVLConfig(vision=VisionConfig(), llm=llm)


def _cut(config: MiniInternVLConfig, layers: int) -> MiniInternVLConfig:
    """The same widths in fewer layers of encoder and language model."""
    vision = replace(config.vision, num_hidden_layers=layers)
    return replace(config, vision=vision, llm={**config.llm, "num_hidden_layers": layers})


def _network(config: MiniInternVLConfig, dtype: torch.dtype = torch.float32) -> MiniInternVL:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        network = MiniInternVL(config)
    finally:
        torch.set_default_dtype(before)
    network.image_token_id = IMAGE_TOKEN
    return network.train()


def _recipe(trainable: Any) -> Recipe:
    return Recipe("bench", "", "", Data(""), trainable=trainable, precision="bf16", drop_path=0.0)


def _samples(network: MiniInternVL, count: int, tiles: int = 0) -> list[Encoded]:
    """Questions as VQA has them: one to three tiles, 20 to 120 words, answers of 2 to 12 tokens."""
    rng = random.Random(0)
    samples = []
    for _ in range(count):
        shown = tiles or rng.choice((1, 1, 1, 3))
        image_tokens = [IMAGE_TOKEN] * (shown * network.config.num_image_token)
        question = [rng.randrange(10, 490) for _ in range(rng.randint(20, 120))]
        answer = [rng.randrange(10, 490) for _ in range(rng.randint(2, 12))]
        ids = (*image_tokens, *question, *answer)
        labels = (*([IGNORED] * (len(ids) - len(answer))), *answer)
        samples.append(Encoded(ids, labels, (shown,)))
    return samples


def _tiles(network: MiniInternVL, samples: Sequence[Encoded]) -> Tensor:
    size = network.config.image_size
    return torch.randint(0, 256, (sum(sum(s.tile_counts) for s in samples), 3, size, size), dtype=torch.uint8)


def _median(
    network: MiniInternVL, batches: Sequence[Batch], total: float, kind: type[TrainingStep] = TrainingStep
) -> float:
    step = kind(network)
    times = []
    for _ in range(4):
        began = time.process_time()  # what else the machine does is not counted
        for batch in batches:
            step(batch, total).backward()
        network.zero_grad()
        times.append(time.process_time() - began)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
