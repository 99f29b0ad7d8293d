"""The general sets of the paper's Table 3, in the layout in which InternVL publishes them.

`opensource/*.jsonl` are InternVL's lines already, so they are named where they lie and not written again:
`meta.json` alone is made. Sets whose file is not there, or holds another number of lines, are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import DataError
from mini_internvl_train.convert.lines import Converted


@dataclass(frozen=True, slots=True)
class GeneralSet:
    """One published set: its file below `opensource`, its images below `data`, its number of samples."""

    name: str
    images: str
    samples: int


SETS = (
    GeneralSet("sharegpt4v_instruct_gpt4-vision_cap100k", "", 102_025),
    GeneralSet("llava_instruct_150k_zh", "coco", 157_712),
    GeneralSet("sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k", "", 665_058),
    GeneralSet("dvqa_train_200k", "dvqa", 200_000),
    GeneralSet("chartqa_train_18k", "chartqa", 18_317),
    GeneralSet("ai2d_train_12k", "ai2d", 12_413),
    GeneralSet("docvqa_train_10k", "docvqa", 10_211),
    GeneralSet("geoqa+", "geoqa+", 72_318),
    GeneralSet("synthdog_en", "synthdog-en", 29_765),
)


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """Every set whose file is there.

    Raises:
        DataError: none is.
    """
    base = root / "playground" if (root / "playground").is_dir() else root
    files = {found: base / "opensource" / f"{found.name}.jsonl" for found in SETS}
    there = [found for found, path in files.items() if path.is_file()]
    absent = [found.name for found in SETS if found not in there]
    if not there:
        raise DataError(f"general: {root} holds none of opensource/{', '.join(absent)} (.jsonl)")
    for found in there:
        notes = [f"published with {found.samples:,} samples"]
        if found == there[-1] and absent:
            notes.append(f"not there: {', '.join(absent)}")
        images = base / "data" / found.images
        yield Converted(found.name, images, (), notes=notes, annotation=files[found])
