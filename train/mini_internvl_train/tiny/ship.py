"""The finished model as the package holds it."""

from __future__ import annotations

import shutil
from pathlib import Path


def ship(checkpoint: Path, folder: Path) -> None:
    """Copies a checkpoint with its weights in float16."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(checkpoint.iterdir()):
        if path.name != "model.safetensors":
            shutil.copyfile(path, folder / path.name)
    weights = load_file(checkpoint / "model.safetensors")
    halves = {name: weight.to(torch.float16) for name, weight in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
