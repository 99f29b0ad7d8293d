"""MMMU (Yue et al. 2023), validation: college questions with images, by options or open.

The paper's values come from the OpenCompass board, which scores as VLMEvalKit does: an open question becomes
a choice between its answer and "Other Answers". `official` is the benchmark's own parser, without its random
draw.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from evalkit.contracts import Response, Sample
from evalkit.data.images import DoubledImage
from evalkit.errors import DataError
from evalkit.metrics.multiple_choice import Options, vlmevalkit_choice
from evalkit.metrics.open_answer import mmmu_choice, mmmu_open_match
from evalkit.task import DataFile, DataSource, HubSource
from evalkit_tasks.base import drawn
from evalkit_tasks.general.choices import (
    ChoiceTask,
    ReadChoice,
    options_of,
    question_lines,
    tags_of,
    vlmevalkit_prompt,
)
from evalkit_tasks.general.rows import Row, literal_list, parquet_files, parquet_rows, tsv_rows, unique
from evalkit_tasks.general.settings import (
    LETTER_ANSWER,
    SHORT_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    VLMEVALKIT_TOKENS_2024,
    Settings,
    lacking,
)

_FILE = "MMMU_DEV_VAL.tsv"
_SOURCE = "https://opencompass.openxlab.space/utils/VLMEval/MMMU_DEV_VAL.tsv, or hub lmms-lab/MMMU"
_LICENCE = "Apache-2.0 (images: many sources)"
_VALIDATION = ("validation", "val", "")
_OTHERS = ("dev", "test")
_OTHER = "Other Answers"
_GROUPS = ("l2-category", "category")


class MMMU(ChoiceTask):
    """MMMU."""

    name = "mmmu"
    title = "MMMU"
    about = "College subjects, multiple choice and open"
    splits = ("val",)
    settings: ClassVar = {
        "paper": Settings("{question}", VLMEVALKIT_TOKENS_2024, 12),
        "vlmevalkit": Settings("{question}", VLMEVALKIT_TOKENS, 12, VLMEVALKIT_TILES),
        "official": Settings("{question}", 100, 6),
    }
    protocols = tuple(settings)
    group_by = _GROUPS
    judged = ("paper", "vlmevalkit")
    data_source = DataSource(
        files={"val": (DataFile(_FILE, _SOURCE, _LICENCE),)},
        hub={"val": HubSource("lmms-lab/MMMU", split="validation")},
        sizes={"val": 900},
        draw=drawn(name),
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; VLMEvalKit's TSV (without its dev rows) or the hub's Parquet files."""
        if (path := root / _FILE).exists():
            rows = tsv_rows(path, ("index", "question", "answer", "A", "B", "C", "D"))
            for identity, row in unique(rows, "index"):
                if (part := row.text("split")) in _VALIDATION:
                    yield self._sample(identity, row, options_of(row))
                elif part not in _OTHERS:
                    raise DataError(f"{row.where}: split {part!r} is none of dev, validation, test")
        elif parquet := parquet_files(root, "validation"):
            rows_of = parquet_rows(parquet, ("id", "question", "options", "answer"))
            for identity, row in unique(rows_of, "id"):
                texts = literal_list(row.cells.get("options") or "[]", row.where)
                yield self._sample(identity, row, dict(zip(string.ascii_uppercase, texts, strict=False)))
        else:
            raise lacking(self, root, (_FILE,))

    def parse(self, sample: Sample, response: Response) -> ReadChoice:
        """The letter that the answer gives; for an open question A (right) or B."""
        text, options, data = response.text, sample.data["options"], sample.data
        if self.protocol != "official":
            rule = vlmevalkit_choice(text, options)
        elif data["open"]:
            rule = "A" if mmmu_open_match(text, data["answers"]) else "B"
        else:
            rule = mmmu_choice(text, options)
        return ReadChoice(rule, rule)

    @property
    def wording(self) -> Sequence[str]:
        """Prompts of example questions: with options, open, of two images."""
        options = {"A": "a", "B": "b"}
        return [self._prompt("q", "", *case) for case in ((options, 1), ({}, 1), (options, 2))]

    def _sample(self, identity: str, row: Row, options: Options) -> Sample:
        question, answer = row.text("question"), row.text("answer").strip()
        if not answer:
            raise DataError(f"{row.where}: no answer: not the official file")
        prompt = self._prompt(question, row.text("hint"), options, len(row.images))
        data = {"question": question, "options": dict(options), "open": not options}
        if not options:
            data |= {"options": {"A": answer, "B": _OTHER}, "answers": literal_list(answer, row.where)}
        target = answer if answer in options else self._open_target(answer)
        if options and answer not in options:
            raise DataError(f"{row.where}: answer {answer!r} is none of the options {', '.join(options)}")
        tags = tags_of(row, {name: name for name in _GROUPS})
        images = row.images
        if self.protocol == "vlmevalkit" and images:
            images = (DoubledImage(images[0]), *images[1:])
        return Sample(identity, (prompt,), images, target, row.cluster, tags, data)

    def _open_target(self, answer: str) -> str:
        """The right letter of an open question; VLMEvalKit takes an answer of one capital for a letter."""
        return answer if self.protocol == "vlmevalkit" and answer in tuple(string.ascii_uppercase) else "A"

    def _prompt(self, question: str, hint: str, options: Options, images: int) -> str:
        if self.protocol == "official":
            lines = question_lines(question.strip(), "", {k: text.strip() for k, text in options.items()})
            return f"{lines}\n{LETTER_ANSWER if options else SHORT_ANSWER}"
        prompt = vlmevalkit_prompt(question, hint, options)
        if images < 2:
            return prompt
        named = "\n".join(f"Image-{i}: <image>" for i in range(1, images + 1))
        if self.protocol == "vlmevalkit":  # has removed the images' names behind the prompt since
            return f"{named}\n{prompt}"
        return f"{named}\n{prompt}{''.join(f'<Image-{i}>' for i in range(1, images + 1))}"
