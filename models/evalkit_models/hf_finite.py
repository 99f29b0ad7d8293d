"""Where numbers that are not finite began in a model of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Words in a module's name by part; what has none of them is the language model.
_PARTS = {
    "projector": ("projector", "connector", "merger", "aligner", "mlp1", "resampler", "perceiver"),
    "vision encoder": ("vision", "visual", "image", "vit", "siglip"),
}


def where_it_began(model: Any, inputs: Mapping[str, Any]) -> str:
    """The part of the network, and the module, whose output is the first that is not finite.

    Args:
        inputs: of the model, without what generation adds; one pass is made over them.
    """
    import torch

    found: list[str] = []

    def look(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            if not found and not all(bool(torch.isfinite(part).all()) for part in _tensors(output)):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with torch.inference_mode():
            model(**inputs)
    except Exception:  # damaged numbers may break what comes after them
        pass
    finally:
        for handle in handles:
            handle.remove()
    return f"{part_of(found[0])} ({found[0]})" if found else "language model"


def part_of(module: str) -> str:
    """The part of the network that a module belongs to, by its name."""
    name = module.lower()
    return next((part for part, words in _PARTS.items() if any(w in name for w in words)), "language model")


def _tensors(output: Any) -> list[Any]:
    import torch

    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in _tensors(part)]
    return []
