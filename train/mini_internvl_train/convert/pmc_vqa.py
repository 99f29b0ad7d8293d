"""PMC-VQA (paper, Table 8): multiple choice on figures of medical articles, in the evaluation's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evalkit.errors import DataError
from evalkit.files import JsonRow, read_csv
from evalkit_tasks.general.choices import vlmevalkit_prompt
from mini_internvl_train.convert.lines import IMAGE, Converted, Line, line
from mini_internvl_train.convert.published_lines import find, image_folder

LETTERS = "ABCD"
IMAGES = ("images", "figures", "images_2")
_LEAD = re.compile(r"^\s*([A-D])\s*[:.]\s*")


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set a table: `train.csv` of the first version, `train_2.csv` of the second."""
    for path in find(root, (f"{split}*.csv",), "pmc-vqa"):
        yield Converted(f"pmc_vqa_{path.stem}", image_folder(root, IMAGES), _lines(path))


def _lines(path: Path) -> Iterator[Line]:
    columns = ("Figure_path", "Question", *(f"Choice {letter}" for letter in LETTERS))
    for number, row in enumerate(read_csv(path, columns)):
        options = {letter: _LEAD.sub("", row[f"Choice {letter}"]).strip() for letter in LETTERS}
        question = vlmevalkit_prompt(row["Question"].strip(), "", options)
        yield line(str(number), f"{IMAGE}\n{question}", _letter(row, options), (row["Figure_path"],))


def _letter(row: JsonRow, options: dict[str, str]) -> str:
    """The right letter: as it is labelled, or that of the option which is the answer."""
    said = str(row.get("Answer_label") or row.get("Answer") or "")
    lead = _LEAD.match(said)
    text = said.strip() if lead is None else lead.group(1)
    right = [letter for letter, option in options.items() if text in (letter, option)]
    if len(right) != 1:
        raise DataError(f"{row.where}: the answer {said!r} is not one of the choices")
    return right[0]
