"""GMAI-MMBench (Chen et al., NeurIPS 2024): multiple-choice questions on medical images, some with several
right answers.

Scored as VLMEvalKit scores it: each row alone (never circular), answers read by rules. VLMEvalKit has no
code for several right answers, so precision and recall of those rows are a reconstruction from published
values (see docs/tasks.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import ClassVar

from evalkit.contracts import Record, Response, Sample
from evalkit.errors import DataError
from evalkit.metrics.base import Accuracy, Mean, Metric, Select
from evalkit.metrics.multiple_choice import chosen_letters, precision_recall, vlmevalkit_choice
from evalkit.task import DataFile, DataSource, HubSource, Submission, record
from evalkit_tasks.base import drawn
from evalkit_tasks.general.choices import options_of, tags_of, vlmevalkit_prompt
from evalkit_tasks.general.rows import Row, tsv_rows, unique
from evalkit_tasks.general.settings import (
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    VLMEVALKIT_TOKENS_2024,
    ProtocolTask,
    Settings,
    answered,
)
from evalkit_tasks.general.submission import write_xlsx

VALIDATION = "GMAI-MMBench_VAL.tsv"
TEST_PARTS = tuple(f"GMAI_mm_bench_TEST_part_{part}.tsv" for part in range(1, 12))
LETTERS = ascii_uppercase[:5]
GRANULARITY = "perceptual granularity"
GROUPS = ("clinical vqa task", "department", GRANULARITY)
#: Columns of Table 9 by the word that names the granularity; the first word found decides, since a mask or
#: a box lies in an image.
COLUMNS = {"contour": "seg_c", "mask": "seg_m", "box": "det_2d", "image": "cls_2d"}
_VALIDATION_SOURCE = (
    "huggingface.co/datasets/VLMEval/GMAI-MMBench (9.34 GB, md5 254bd581627866f1c499d3d6b4422324)"
)
_TEST_SOURCE = "huggingface.co/datasets/OpenGVLab/GMAI-MMBench (gated)"
LICENCE = "see the data set's card; images of 284 source data sets"


def _export(records: Sequence[Record], path: Path) -> None:
    """Write VLMEvalKit's prediction table (xlsx), which the authors score when it is mailed to them."""
    columns = ("index", "question", *LETTERS, *GROUPS, "prediction")
    rows = (
        {"index": item.id, **item.data["options"], **item.tags, "prediction": item.text}
        | {"question": item.data["question"]}
        for item in answered(records)
    )
    write_xlsx(path, columns, rows)


class GmaiMmbench(ProtocolTask):
    """Table 9; the values rest on single-answer rows but mcls_2d_acc and mcls_2d_recall."""

    name = "gmai-mmbench"
    title = "GMAI-MMBench"
    about = "Medical images, multiple choice"
    splits = ("val", "test")
    settings: ClassVar = {
        "paper": Settings("{question}", VLMEVALKIT_TOKENS_2024, 6),
        "vlmevalkit": Settings("{question}", VLMEVALKIT_TOKENS, 6, VLMEVALKIT_TILES),
    }
    protocols = tuple(settings)
    same_scorer: ClassVar = {"vlmevalkit": "paper"}
    group_by = GROUPS
    headline = "overall"
    data_source = DataSource(
        files={
            "val": (DataFile(VALIDATION, _VALIDATION_SOURCE, LICENCE),),
            "test": [DataFile(part, _TEST_SOURCE, LICENCE) for part in TEST_PARTS],
        },
        # The tables as published; 9 GB for val.
        hub={
            "val": HubSource("VLMEval/GMAI-MMBench", split="val", files=(VALIDATION,)),
            "test": HubSource("OpenGVLab/GMAI-MMBench", split="test", files=TEST_PARTS),
        },
        sizes={"val": 4550},
        draw=drawn(name),
    )
    submission = Submission("gmai-mmbench.xlsx", _export)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`."""
        public = split != "test"
        names = TEST_PARTS if split == "test" else (VALIDATION,)
        rows = (row for name in names for row in _rows(root / name, public))
        for index, row in unique(rows, "index"):
            yield _sample(index, row, public)

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        options, target = sample.data["options"], sample.target
        if target is not None and len(target) > 1:
            chosen = chosen_letters(response.text, frozenset(LETTERS))
            precision, recall = precision_recall(chosen, frozenset(target))
            scores = {"precision": precision, "recall": recall}
            prediction = "".join(sorted(chosen)) or None
        else:
            prediction = vlmevalkit_choice(response.text, options)
            scores = {} if target is None else {"accuracy": float(prediction == target)}
        return record(
            sample,
            response,
            prediction=prediction,
            scores=scores,
            unparsed=prediction is None,
            data={"question": sample.data["question"], "options": options},
        )

    def impossible_key(self, sample: Sample) -> str | None:
        """See `Task.impossible_key`; an answer may be several letters, each once."""
        options, target = sample.data["options"], sample.target
        if target is None or (set(target) <= set(options) and len(set(target)) == len(target)):
            return None
        return f"answer {target!r} is none of the options {', '.join(options)}"

    def metrics(self) -> Sequence[Metric]:
        """The columns of Table 9, then all single-answer rows."""
        return [
            *(
                Accuracy(name, "accuracy", select=_of(name))
                for name in ("seg_c", "seg_m", "cls_2d", "det_2d")
            ),
            Mean("mcls_2d_acc", "precision"),
            Mean("mcls_2d_recall", "recall"),
            *self.group_metrics(),
        ]

    def group_metrics(self) -> Sequence[Metric]:
        """Groups report accuracy alone, as VLMEvalKit does."""
        return [Accuracy("overall", "accuracy")]

    @property
    def wording(self) -> Sequence[str]:
        """The prompt of an example question."""
        return (vlmevalkit_prompt("q", "", {"A": "a", "B": "b"}),)


def _of(column: str) -> Select:
    return lambda r: _column(r.tags.get(GRANULARITY, "")) == column


def _column(granularity: str) -> str | None:
    """The published strings are unknown: the granularity's word may be anywhere in the cell, in any case."""
    words = granularity.lower()
    return next((column for word, column in COLUMNS.items() if word in words), None)


def _rows(path: Path, public: bool) -> Iterator[Row]:
    needed = ("index", "question", *"ABCD", *GROUPS, *(("answer",) if public else ()))
    for row in tsv_rows(path, ()):
        if absent := [name for name in needed if name not in row.cells]:
            raise DataError(
                f"{path}: column {absent[0]!r} missing (found {', '.join(row.cells)}): not the official file"
            )
        yield row


def _sample(index: str, row: Row, public: bool) -> Sample:
    options = options_of(row)
    answer = "".join(re.split(r"[\s,;]+", row.text("answer"))) if public else None
    if answer is not None and not (answer and set(answer) <= set(LETTERS)):
        raise DataError(f"{row.where}: answer {answer!r} is not a letter of A to E: not the official file")
    question = row.text("question")
    data = {"options": options, "question": question}
    prompt = vlmevalkit_prompt(question, "", options)
    return Sample(
        index, (prompt,), row.images, answer, row.cluster, tags_of(row, {name: name for name in GROUPS}), data
    )
