"""MMBench (Liu et al. 2023), English and Chinese: multiple choice asked in every rotation of its options.

`paper` reduces each answer as InternVL's script does and scores the reduced texts by VLMEvalKit's rules, as
the official server did; `vlmevalkit` and `lmms-eval` read the raw answers by their own rules, and a judge may
resolve the rest. The answers of test are not public everywhere: `export` writes the server's file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evalkit.contracts import Generation, Record, Request, Response, Sample
from evalkit.errors import DataError
from evalkit.metrics.base import Metric
from evalkit.metrics.circular import ROTATION, CircularScore, Rotation, circular_metrics, score_rotations
from evalkit.metrics.multiple_choice import Options, internvl_choice, lmms_choice, vlmevalkit_choice
from evalkit.task import (
    MINIATURE,
    DataFile,
    DataSource,
    HubSource,
    JudgeQuestion,
    ParsedAnswer,
    Submission,
    record,
)
from evalkit.task_parts import find
from evalkit_tasks.base import drawn
from evalkit_tasks.general.choices import (
    LETTER_ANSWER_CN,
    ReadChoice,
    choice_of,
    judge_letter,
    options_of,
    question_lines,
    tags_of,
    vlmevalkit_prompt,
)
from evalkit_tasks.general.rows import Row, parquet_files, parquet_rows, tsv_rows, unique
from evalkit_tasks.general.settings import (
    LETTER_ANSWER,
    LMMS_TOKENS,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    ProtocolTask,
    Settings,
    answered,
    lacking,
)

_FILES: Mapping[str, tuple[str, ...]] = {
    "dev-en": ("mmbench_dev_20230712.tsv", "mmbench_dev_en_20231003.tsv", "MMBench_DEV_EN.tsv"),
    "dev-cn": ("mmbench_dev_cn_20231003.tsv", "MMBench_DEV_CN.tsv"),
    "test-en": ("mmbench_test_en_20231003.tsv", "MMBench_TEST_EN.tsv"),
    "test-cn": ("mmbench_test_cn_20231003.tsv", "MMBench_TEST_CN.tsv"),
}
_SOURCE = (
    "https://download.openmmlab.com/mmclassification/datasets/mmbench/ or "
    "https://opencompass.openxlab.space/utils/VLMEval/ (MMBench_*.tsv)"
)
_LICENCE = "Apache-2.0 (images: many sources)"
_ROWS: Mapping[str, int] = {
    "mmbench_dev_20230712.tsv": 4377,
    "mmbench_dev_en_20231003.tsv": 4329,
    "mmbench_dev_cn_20231003.tsv": 4329,
    "mmbench_test_en_20231003.tsv": 6666,
    "mmbench_test_cn_20231003.tsv": 6666,
    "MMBench_DEV_EN.tsv": 4329,
    "MMBench_DEV_CN.tsv": 4329,
    "MMBench_TEST_EN.tsv": 6666,
    "MMBench_TEST_CN.tsv": 6666,
}
_HUB_ROWS = {"dev-en": 4329, "dev-cn": 4329, "test-en": 6666, "test-cn": 6666}
_COLUMNS = ("index", "question", "A", "B", "C", "D")
_LMMS_HEADER = "There are several options:"
_LMMS_ANSWER_CN = "请直接使用所提供的选项字母作为答案回答。"
_LMMS_TOKENS_CN = 256
_GROUPS = ("l2-category", "category")


def _names(split: str) -> tuple[str, ...]:
    newer = f"MMBench_{split.upper().replace('-', '_')}_V11.tsv"
    return *_FILES[split], newer


class _Tables(DataSource):
    """MMBench's tables, of which there are several revisions."""

    def published_size(self, split: str, root: Path) -> int | None:
        """Rows, circular copies included, of the revisions whose size is known; the Hub's is of 2023-10."""
        if split not in _FILES:
            return None
        path = find(root, _names(split))
        return _HUB_ROWS[split] if path is None else _ROWS.get(path.name)


def _export(records: Sequence[Record], path: Path) -> None:
    """Write the server's xlsx: index, question, options, prediction, and answer and split where known."""
    from evalkit_tasks.general.submission import write_xlsx

    rows = [{**_exported(item), "prediction": item.prediction} for item in answered(records)]
    write_xlsx(path, _export_columns(rows), rows)


class MMBench(ProtocolTask):
    """MMBench."""

    name = "mmbench"
    title = "MMBench"
    about = "Abilities by multiple choice, choices rotated"
    splits = ("dev-en", "dev-cn", "test-en", "test-cn")
    settings: ClassVar = {
        "paper": Settings("{question}", 100, 6),
        "vlmevalkit": Settings("{question}", VLMEVALKIT_TOKENS, 6, VLMEVALKIT_TILES),
        "lmms-eval": Settings("{question}", LMMS_TOKENS, 6),
    }
    protocols = tuple(settings)
    group_by = _GROUPS
    data_source = _Tables(
        files={
            split: (DataFile(_names(split)[0], _SOURCE, _LICENCE, alternatives=_names(split)[1:]),)
            for split in _FILES
        },
        hub={split: HubSource("lmms-lab/MMBench", split[-2:], split[:-3]) for split in _FILES},
        draw=drawn(name),
    )
    submission = Submission("mmbench.xlsx", _export)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; the TSV of InternVL or VLMEvalKit, or the hub's Parquet files."""
        split = self.splits[0] if split == MINIATURE else split
        for identity, row in unique(self._rows(split, root), "index"):
            if not identity.isdecimal():
                raise DataError(
                    f"{row.where}: index {identity!r} is not a whole number: not the official file"
                )
            options, index = options_of(row), int(identity)
            if not options:
                raise DataError(f"{row.where}: no options: not the official file")
            hint = "" if row.text("hint") == "nan" and ".parquet" in row.where else row.text("hint")
            chinese = split.endswith("cn")
            data: dict[str, Any] = {"index": index, "options": options, "question": row.text("question")}
            if row.text("split"):
                data["split"] = row.text("split")
            yield Sample(
                identity,
                (self._prompt(data["question"], hint, options, chinese),),
                row.images[:1],
                _target(row),
                str(index % ROTATION),
                tags_of(row, {name: name for name in _GROUPS}),
                data,
            )

    def request(self, sample: Sample) -> Request:
        """See `Task.request`; lmms-eval's Chinese tasks have a limit of their own."""
        request = super().request(sample)
        if self.protocol == "lmms-eval" and sample.turns[-1].endswith(_LMMS_ANSWER_CN):
            return dataclasses.replace(request, generation=Generation(max_new_tokens=_LMMS_TOKENS_CN))
        return request

    def parse(self, sample: Sample, response: Response) -> ReadChoice:
        """The letter that the answer gives by the protocol's rules."""
        text, options = response.text, sample.data["options"]
        if self.protocol == "lmms-eval":
            return ReadChoice(text.strip(), lmms_choice(text, options))
        prediction = internvl_choice(text, options) if self.protocol == "paper" else text
        return ReadChoice(prediction, vlmevalkit_choice(prediction, options))

    def judge_questions(self, answers: Sequence[ParsedAnswer]) -> Mapping[str, JudgeQuestion]:
        """Asks for rows that the rules left open and that can still change a value; `paper` has no judge."""
        if self.protocol == "paper":
            return {}
        return {
            answer.sample.id: judge_letter(answer.sample.data, answer.parsed.prediction)
            for answer, (_, score) in self._scored(answers)
            if answer.parsed.rule is None and score is not None and score.decisive
        }

    def score_all(self, answers: Sequence[ParsedAnswer]) -> list[Record]:
        """Circular and vanilla scores, on the base rows; rows without a target get none."""
        return [_record(answer, choice, score) for answer, (choice, score) in self._scored(answers)]

    @property
    def exact_scores(self) -> Sequence[Sequence[str]]:
        """Each row alone, whatever its rotations."""
        return [["right"]]

    def metrics(self) -> Sequence[Metric]:
        """Circular (all rotations right) and vanilla (the base row right) accuracy."""
        return circular_metrics()

    @property
    def wording(self) -> Sequence[str]:
        """Both languages' prompts of an example question."""
        hints = ("h", "") if self.protocol == "lmms-eval" else ("h",)
        options = {"A": "a", "B": "b"}
        return [self._prompt("q", hint, options, chinese) for hint in hints for chinese in (False, True)]

    def _rows(self, split: str, root: Path) -> Iterator[Row]:
        if (path := find(root, _names(split))) is not None:
            yield from tsv_rows(path, _COLUMNS)
        elif parquet := parquet_files(root, *split.split("-")):
            yield from parquet_rows(parquet, _COLUMNS)
        else:
            raise lacking(self, root, _names(split))

    def _prompt(self, question: str, hint: str, options: Options, chinese: bool) -> str:
        if self.protocol == "paper":
            instruction = LETTER_ANSWER_CN if chinese else LETTER_ANSWER
            return f"{question_lines(question, hint, options)}\n{instruction}"
        if self.protocol == "vlmevalkit":
            return vlmevalkit_prompt(question, hint, options)
        shown = "\n".join(f"{k}. {text}" for k, text in options.items() if k in "ABCDE" and text != "nan")
        hint = hint or "nan"  # as its data set writes a missing one; only the English task leaves it out
        parts = ([hint] if chinese or hint != "nan" else []) + [question, f"{_LMMS_HEADER}\n{shown}"]
        return f"{' '.join(parts)}\n\n{_LMMS_ANSWER_CN if chinese else LETTER_ANSWER}"

    def _scored(
        self, answers: Sequence[ParsedAnswer]
    ) -> Iterator[tuple[ParsedAnswer, tuple[str | None, CircularScore | None]]]:
        """Each answer with its letter and its score; None where it has no target."""
        infer = lmms_choice if self.protocol == "lmms-eval" else vlmevalkit_choice
        choices = [choice_of(answer, infer) for answer in answers]
        scores = iter(
            score_rotations(
                [
                    Rotation(answer.sample.data["index"], choice, answer.sample.target)
                    for answer, choice in zip(answers, choices, strict=True)
                    if answer.sample.target is not None
                ]
            )
        )
        for answer, choice in zip(answers, choices, strict=True):
            yield answer, (choice, None if answer.sample.target is None else next(scores))


def _record(answer: ParsedAnswer, choice: str | None, score: CircularScore | None) -> Record:
    sample, (prediction, rule) = answer.sample, answer.parsed
    data = {**sample.data, "rule": rule}
    if score is not None:
        data |= {"choice": choice, "open": rule is None and score.decisive}
    return record(
        sample,
        answer.response,
        prediction=prediction,
        scores=score.scores if score is not None else {},
        unparsed=rule is None,
        data=data | answer.judge_data(),
    )


def _target(row: Row) -> str | None:
    """The right letter; None where the column is absent or empty (test), or the hub's "nan"."""
    answer = row.text("answer").strip()
    return None if answer in ("", "nan") else answer


def _exported(item: Record) -> dict[str, Any]:
    """A record's submission cells but the prediction."""
    cells = {"index": item.data["index"], "question": item.data["question"], **item.data["options"]}
    if item.target is not None:
        cells["answer"] = item.target
    return cells | ({"split": item.data["split"]} if "split" in item.data else {})


def _export_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As InternVL writes them: the prediction stands seventh, behind A to D."""
    present = set[str]().union(*rows)
    letters = sorted({*"ABCD"} | {name for name in present if len(name) == 1})
    head = ["index", "question", *letters[:4], "prediction", *letters[4:]]
    return head + [name for name in ("answer", "split") if name in present]
