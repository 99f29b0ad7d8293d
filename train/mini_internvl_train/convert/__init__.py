"""Official training files of benchmarks to InternVL's conversation JSONL and meta JSON.

Questions are asked in the words of evalkit's own tasks, so that a model is trained on what it will be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from evalkit.doors import reading
from evalkit.errors import DataError
from mini_internvl_train.convert.lines import Converted, Written, write

Converter = Callable[[Path, str, Path], Iterable[Converted]]
"""`(data root, split, folder for new images)` to data sets."""

#: Name to the module that holds `convert`, and the split it takes if none is named.
CONVERTERS: dict[str, tuple[str, str]] = {
    "drivelm": ("drivelm", "train"),
    "bdd-x": ("bdd_x", "train"),
    "rsvqa-lr": ("rsvqa", "train"),
    "rsvqa-hr": ("rsvqa_hr", "train"),
    "dior-rsvg": ("dior_rsvg", "train"),
    "gmai-mmbench": ("gmai_mmbench", "val"),
    "geochat": ("geochat", "train"),
    "fit-rs": ("fit_rs", "train"),
    "pmc-vqa": ("pmc_vqa", "train"),
    "pmc-oa": ("pmc_oa", "train"),
    "general": ("general", "train"),
    "classification": ("classification", "train"),
}
ALIASES = {"rsvqa": "rsvqa-lr"}

__all__ = ["ALIASES", "CONVERTERS", "Converted", "Written", "convert", "write"]


def convert(name: str, root: Path, output: Path, split: str | None = None, repeat: int = 1) -> list[Written]:
    """Converts one benchmark.

    Args:
        name: of `CONVERTERS`.
        root: folder of the official files.
        output: folder of the new files: `<set>.jsonl`, `meta.json`, and images that had to be made.
        split: of the official files.
        repeat: how often an epoch sees each sample, as meta.json says it.

    Raises:
        KeyError: unknown name. DataError: files missing or malformed.
    """
    module, default = CONVERTERS[ALIASES.get(name, name)]
    converter: Converter = import_module(f"{__name__}.{module}").convert
    with reading(root, DataError, "not the official files"):
        return write(output, converter(root, split or default, output / "pictures"), repeat)
