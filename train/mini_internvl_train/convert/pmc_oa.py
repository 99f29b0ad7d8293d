"""PMC-OA (paper, Table 8), and any table of figures and captions: describe the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.errors import DataError
from evalkit.files import fields, read_csv, read_jsonl, text_of
from mini_internvl_train.convert.lines import IMAGE, Converted, Line, line
from mini_internvl_train.convert.published_lines import find, image_folder

QUESTION = f"{IMAGE}\nDescribe the image."
IMAGES = ("caption_T060_filtered_top4_sep_v0_subfigures", "images", "figures")
FIGURE, CAPTION = ("image", "figure", "Figure_path"), ("caption", "Caption")


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set: `train.csv` or `<split>.jsonl` with figure and caption, or `pmc_oa.jsonl`."""
    for path in find(root, (f"{split}.csv", f"{split}.jsonl", "pmc_oa.jsonl", "captions.csv"), "pmc-oa"):
        yield Converted("pmc_oa", image_folder(root, IMAGES), _lines(path))


def _lines(path: Path) -> Iterator[Line]:
    for number, (figure, caption) in enumerate(_rows(path)):
        if not figure.strip() or not caption.strip():
            raise DataError(f"{path}: row {number}: needs figure and caption")
        yield line(str(number), QUESTION, caption.strip(), (figure.strip(),))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".jsonl":
        for number, item in enumerate(read_jsonl(path)):
            where = f"{path}: item {number}"
            row = fields(item, (), where)
            names = (_known(row, FIGURE, where), _known(row, CAPTION, where))
            yield text_of(row, names[0], where), text_of(row, names[1], where)
        return
    for number, row in enumerate(read_csv(path, ())):
        where = f"{path}: row {number}"
        yield row[_known(row, FIGURE, where)], row[_known(row, CAPTION, where)]


def _known(row: Mapping[str, object], names: tuple[str, ...], where: str) -> str:
    found = [name for name in names if name in row]
    if len(found) != 1:
        raise DataError(f"{where}: needs one of {', '.join(names)}")
    return found[0]
