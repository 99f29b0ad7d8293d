"""What a training leaves in place of weights: pickles and shards, refused with the way to convert them.

Reading a pickle can run code that is hidden in it, so none is read, and no script of a checkpoint is run.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from mini_internvl.errors import CheckpointError

_PICKLES = ("[!.]*.bin", "[!.]*.pt", "[!.]*.pth", "[!.]*.ckpt")
_CONVERT = (
    'python -c "import glob, torch, safetensors.torch as s; [s.save_file({k: v.clone().contiguous() for k, v '
    "in torch.load(f, map_location='cpu', weights_only=True).items()}, f.rsplit('.', 1)[0] + '.safetensors') "
    "for f in glob.glob('%s')]\""
)


def refuse_unreadable(folder: Path) -> None:
    """Refuses a folder without weights that holds them in another form.

    Raises:
        CheckpointError: names what it holds and the command that converts it.
    """
    state = _deepspeed(folder)
    if state is not None:
        raise CheckpointError(
            f"{folder}: {state.name} is DeepSpeed's state, not weights, and pickled. If you trust it, "
            f"convert it once, where deepspeed is installed: {deepspeed_command(folder)}"
        )
    shards = _distributed(folder)
    if shards is not None:
        raise CheckpointError(
            f"{folder}: holds shards of FSDP ({shards.name}), not weights, with a pickled index. If you "
            f"trust it, convert it once: accelerate merge-weights {_quoted(shards)} {_quoted(folder)}"
        )
    pickles = sorted(path for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder}: {pickles[0].name} is refused, since reading a pickle can run code hidden in it. "
            f"If you trust it, convert it once, in that folder: {_CONVERT % ('*' + pickles[0].suffix)}"
        )


def deepspeed_command(folder: Path) -> str:
    """The command that makes safetensors of DeepSpeed's state, by the package's own script."""
    where = _quoted(folder)
    return f"python -m deepspeed.utils.zero_to_fp32 {where} {where} --safe_serialization"


def _deepspeed(folder: Path) -> Path | None:
    """A sign of DeepSpeed's state in a folder."""
    for pattern in ("global_step*", "*_states.pt", "zero_to_fp32.py"):
        for path in sorted(folder.glob(pattern)):
            return path
    return None


def _distributed(folder: Path) -> Path | None:
    """The folder of torch's distributed checkpoint: this one, or one in it."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in (folder, *inner):
        if (path / ".metadata").is_file() or any(path.glob("*.distcp")):
            return path
    return None


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
