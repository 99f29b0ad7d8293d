"""AI2D (Kembhavi et al. 2016): multiple choice about science diagrams, in VLMEvalKit's selection.

`paper` is InternVL's script, which asks for equality with the letter; `vlmevalkit` reads the answer by rules.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from evalkit.contracts import Response, Sample
from evalkit.errors import DataError
from evalkit.metrics.multiple_choice import Options, vlmevalkit_choice
from evalkit.task import DataFile, DataSource, HubSource
from evalkit_tasks.base import INTERNVL_IS_PAPER, drawn
from evalkit_tasks.general.choices import (
    ChoiceTask,
    ReadChoice,
    options_of,
    question_lines,
    vlmevalkit_prompt,
)
from evalkit_tasks.general.rows import Row, literal_list, parquet_files, parquet_rows, tsv_rows, unique
from evalkit_tasks.general.settings import (
    LETTER_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    Settings,
    lacking,
)

_FILE = "AI2D_TEST.tsv"
_SOURCE = "https://opencompass.openxlab.space/utils/VLMEval/AI2D_TEST.tsv, or hub lmms-lab/ai2d"
_LICENCE = "CC BY-SA 4.0 (AI2)"
_LEADING_LETTER = re.compile(r"\s*([A-Z])\.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class AI2D(ChoiceTask):
    """AI2D."""

    name = "ai2d"
    title = "AI2D"
    about = "Science diagrams, multiple choice"
    settings: ClassVar = {
        "paper": Settings("{question}", 10, 6),
        "vlmevalkit": Settings("{question}", VLMEVALKIT_TOKENS, 6, VLMEVALKIT_TILES),
        "lmms-eval": Settings("{question}", 16, 6),
    }
    protocols = (*settings, "internvl")
    same_scorer = INTERNVL_IS_PAPER
    judged = ("vlmevalkit",)
    data_source = DataSource(
        files={"test": (DataFile(_FILE, _SOURCE, _LICENCE),)},
        hub={"test": HubSource("lmms-lab/ai2d", split="test")},
        sizes={"test": 3088},
        draw=drawn(name),
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; VLMEvalKit's TSV or the hub's Parquet files (ids are then rows from 0)."""
        if (path := root / _FILE).exists():
            rows = tsv_rows(path, ("index", "question", "answer", "A", "B", "C", "D"))
            for identity, row in unique(rows, "index"):
                yield self._sample(identity, row, options_of(row), row.text("answer").strip())
        elif parquet := parquet_files(root, "test"):
            for number, row in enumerate(parquet_rows(parquet, ("question", "options", "answer", "image"))):
                texts = literal_list(row.cells["options"], row.where)
                options = dict(zip(string.ascii_uppercase, texts, strict=False))
                answer = row.name("answer")
                if answer.isdecimal() and int(answer) < len(options):
                    answer = string.ascii_uppercase[int(answer)]
                yield self._sample(str(number), row, options, answer)
        else:
            raise lacking(self, root, (_FILE,))

    def filtered(self, text: str) -> str:
        """lmms-eval's filter: a capital and a full stop at the start stand for the answer."""
        found = _LEADING_LETTER.match(text) if self.protocol == "lmms-eval" else None
        return found[1] if found else text

    def parse(self, sample: Sample, response: Response) -> ReadChoice:
        """The letter that the answer gives."""
        text, options = response.text, sample.data["options"]
        if self.rules == "vlmevalkit":
            return ReadChoice(text, vlmevalkit_choice(text, options))
        lenient = self.rules == "lmms-eval"
        prediction = text.lower().translate(_NO_PUNCTUATION) if lenient else text.strip().lower()
        rule = next((letter for letter in options if letter.lower() == prediction), None)
        return ReadChoice(prediction, rule)

    @property
    def wording(self) -> Sequence[str]:
        """The prompt of an example question."""
        return (self._prompt("q", "h", {"A": "a", "B": "b"}),)

    def _sample(self, identity: str, row: Row, options: Options, answer: str) -> Sample:
        if answer not in options:
            raise DataError(f"{row.where}: answer {answer!r} is none of the options {', '.join(options)}")
        question = row.text("question")
        data = {"options": dict(options), "question": question}
        prompt = self._prompt(question, row.text("hint"), options)
        return Sample(identity, (prompt,), row.images[:1], answer, row.cluster, {}, data)

    def _prompt(self, question: str, hint: str, options: Options) -> str:
        if self.rules == "vlmevalkit":
            return vlmevalkit_prompt(question, hint, options)
        return f"{question_lines(question, '', options)}\n{LETTER_ANSWER}"
