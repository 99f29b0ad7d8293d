"""The miniature of OCRBench: `OCRBench.tsv` with words, numbers, page entries and short formulas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.miniatures import pages, questions
from evalkit_tasks.miniatures.drawing import SIDE, Pen, generator
from evalkit_tasks.miniatures.tables import encoded, write_table

PAGES = 16
HEADER = ("index", "image", "question", "answer", "category")
FORMULA = (
    "Please write out the expression of the formula in the image using LaTeX format.",
    "Handwritten Mathematical Expression Recognition",
)


def draw(folder: Path) -> None:
    """Writes 16 pages with a question each, and 8 formulas."""
    write_table(folder / "OCRBench.tsv", HEADER, _rows())


def _rows() -> Iterator[tuple[object, ...]]:
    rng = generator("ocrbench", 0)
    for index in range(PAGES):
        page = pages.page(rng, training=False)
        asked = rng.choice(questions.about_page(page))
        kind = "Digit String Recognition" if asked.answer.isdigit() else "Key Information Extraction"
        yield (index, encoded(page.view().image), asked.text, str([asked.answer]), kind)
    for index in range(PAGES, PAGES + PAGES // 2):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        pen = Pen((SIDE, SIDE), (245, 245, 245))
        pen.text((12, 44), f"{a} + {b} = {a + b}", 26, (30, 30, 90))
        answers = [f"{a} + {b} = {a + b}\n", f"{a}+{b}={a + b}"]
        yield (index, encoded(pen.image), FORMULA[0], str(answers), FORMULA[1])
