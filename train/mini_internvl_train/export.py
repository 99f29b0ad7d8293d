"""A trained checkpoint in the layout that another program opens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mini_internvl_train.checkpoints import published
from mini_internvl_train.errors import ResumeError, TrainingError

Layout = Literal["hf", "released"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: of the new checkpoint. files: its weight files.
    """

    folder: Path
    files: list[str]


def export(checkpoint: Path, output: Path, layout: Layout) -> Exported:
    """Writes a checkpoint in transformers' native layout (`hf`) or in the released one.

    Weights keep their stored type. Everything is written beside `output` first and then takes its place.

    Args:
        checkpoint: folder of a whole model, in either layout.
        output: folder of the new one; must not exist.
        layout: `hf` is what `AutoModelForImageTextToText` and servers open without the checkpoint's code.

    Raises:
        ResumeError: the checkpoint is an adapter.
        TrainingError: `output` exists.
        MiniInternVLError: the checkpoint cannot be read, or has no equal in the other layout.
    """
    import mini_internvl
    from mini_internvl.adapters import is_adapter
    from mini_internvl.chat_template import ChatTemplate, named_prompt
    from mini_internvl.checkpoint import read_config
    from mini_internvl.native import write_native
    from mini_internvl.weights import WeightReader, weight_files

    if is_adapter(checkpoint):
        raise ResumeError(
            f"{checkpoint}: is an adapter; merge it first: evalkit train merge {checkpoint}, then export the "
            "merged folder"
        )
    if output.exists():
        raise TrainingError(f"{output}: exists already; give another folder with -o, or remove it")
    _, native = read_config(checkpoint)
    if native == (layout == "hf"):
        raise TrainingError(f"{checkpoint}: is in the layout {layout!r} already")
    stored = WeightReader(weight_files(checkpoint)).stored_dtype()
    network = mini_internvl.load(checkpoint, dtype=stored, device="cpu")
    if layout == "released" and isinstance(network.template, ChatTemplate):
        named = named_prompt(network.template)
        if named is None:
            raise TrainingError(
                f"{checkpoint}: its chat template writes what no template of the released layout does"
            )
        network.config = replace(network.config, template=named[0].name, system_message=named[1])
    with published(output) as temporary:
        if layout == "hf":
            files = write_native(network, temporary)
        else:
            files = mini_internvl.save_checkpoint(network, temporary, tokenizer_from=checkpoint)
    return Exported(output, [path.name for path in files])
