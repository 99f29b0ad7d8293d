"""A device, networks of published widths with random weights on it, and how its time is taken."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "models")]

ROUNDS = 3
NEW = 16
WIDTHS = {
    "1b": ("qwen2", 896, 4864, 24, 14, 2, 151_655),
    "2b": ("internlm2", 2048, 8192, 24, 16, 8, 92_553),
    "4b": ("phi3", 3072, 8192, 32, 32, 32, 32_020),
    "qwen3-0.6b": ("qwen3", 1024, 3072, 28, 16, 8, 151_936),
}
"""Family, hidden, intermediate, layers, heads, key heads, vocabulary."""

Row = dict[str, Any]


class Place:
    """The device and the size of the networks.

    Args:
        device: cuda, or cpu for a dry run. tiny: narrow networks of two layers.
    """

    def __init__(self, device: str, tiny: bool) -> None:
        import torch

        self.device = device
        self.tiny = tiny
        self.half = torch.bfloat16 if device == "cuda" else torch.float32

    def network(self, size: str, dtype: Any = None) -> Any:
        """A network of random weights, on the device."""
        import torch

        from mini_internvl import ChatModel, MiniInternVLConfig, VisionConfig

        family, hidden, inner, layers, heads, key_heads, words = WIDTHS[size]
        if self.tiny:
            hidden, inner, layers, heads, key_heads, words = 64, 128, 2, 4, 2, 600
        llm = {
            "model_type": family, "vocab_size": words, "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads,
            "max_position_embeddings": 32768, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
            **({"head_dim": 16 if self.tiny else 128} if family == "qwen3" else {}),
        }  # fmt: skip
        vision = VisionConfig(32, 64, 2, 2, patch_size=14, image_size=56) if self.tiny else VisionConfig()
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype or self.half)
        try:
            with torch.device(self.device):
                network = ChatModel(MiniInternVLConfig(vision=vision, llm=llm))
        finally:
            torch.set_default_dtype(before)
        network.image_token_id = words - 1
        return network.eval().requires_grad_(False)

    def seconds(self, work: Callable[..., object], *arguments: Any, rounds: int = ROUNDS) -> float:
        """The best of some goes after one to warm up, with the device's queue empty before and after."""
        found = []
        for turn in range(rounds + 1):
            self.wait()
            started = time.perf_counter()
            work(*arguments)
            self.wait()
            if turn:
                found.append(time.perf_counter() - started)
        return min(found)

    def wait(self) -> None:
        """Until the device has done what was asked."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()


def row(work: str, value: float | None, unit: str, against: str = "", ratio: float | None = None) -> Row:
    """One line of the table."""
    return {"work": work, "value": value, "unit": unit, "against": against, "ratio": ratio}


def answers(network: Any, rows: Sequence[Any], new: int = NEW, share: bool = True) -> list[list[int]]:
    """Greedy tokens of each row, as an evaluation makes them."""
    from mini_internvl import GenerationSettings
    from mini_internvl.batching import BatchRunner
    from mini_internvl.generation import TokenRules

    runner = BatchRunner(network)
    runner.share = share
    rules = TokenRules(forbidden=(network.image_token_id,))
    return [list(found.tokens) for found in runner.run(rows, GenerationSettings(max_new_tokens=new), rules)]


def shaped(network: Any, shape: str, questions: int | None = None) -> list[Any]:
    """Questions of one of throughput.py's shapes."""
    import throughput

    chosen = throughput.SHAPES[shape]
    if questions is not None:
        chosen = dataclasses.replace(chosen, questions=questions)
    return throughput.questions(network, chosen)
