"""MathVista (Lu et al. 2023), testmini: mathematics in images, with options, numbers or lists as answers.

The paper's value is VLMEvalKit's, where a judge model extracts the answers that rules do not resolve. While
such answers wait for a judge, `accuracy` is null; `accuracy_rules`, which counts them wrong, is always given.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evalkit.contracts import ImageHandle, Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, read_json, text_of
from evalkit.metrics.base import Accuracy, Metric
from evalkit.metrics.multiple_choice import vlmevalkit_choice
from evalkit.task import DataFile, DataSource, HubSource, JudgeQuestion, ParsedAnswer, record
from evalkit.task_parts import find
from evalkit_tasks.base import drawn
from evalkit_tasks.general.rows import literal_list, parquet_files, parquet_rows, tsv_rows
from evalkit_tasks.general.settings import (
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    VLMEVALKIT_TOKENS_2024,
    ImageFiles,
    ProtocolTask,
    Settings,
    each_once,
    lacking,
)

_TSV = "MathVista_MINI.tsv"
_JSON = ("data/testmini.json", "testmini.json")
_SOURCE = (
    "https://github.com/lupantech/MathVista (data/testmini.json, images.zip), hub AI4Math/MathVista, "
    "or https://opencompass.openxlab.space/utils/VLMEval/MathVista_MINI.tsv"
)
_LICENCE = "CC BY-SA 4.0 (images: their authors')"
_FIELDS = ("question", "answer", "question_type", "answer_type")
_HINTS: Mapping[tuple[str, str], str] = {
    ("integer", ""): "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    ("float", "1"): "requiring a floating-point number with one decimal place and provide the final value, "
    "e.g., 1.2, 1.3, 1.4, at the end.",
    ("float", "2"): "requiring a floating-point number with two decimal places and provide the final value, "
    "e.g., 1.23, 1.34, 1.45, at the end.",
    ("list", ""): "requiring a Python list as an answer and provide the final list, "
    "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}
_CHOICE_HINT = "and provide the correct option letter, e.g., A, B, C, D, at the end."

_JUDGE = (
    "You extract the final answer from a reply to a question. Give only the answer: the option letter for a "
    "question with choices, a plain number (no unit, no separators) where a number is asked, a Python list "
    "where a list is asked. If the reply gives no answer, say None."
)


#: Kinds of answers, and how those that are numbers are read.
_KINDS = ("text", "integer", "float", "list")
_NUMBERS: Mapping[str, type[int] | type[float]] = {"integer": int, "float": float}


class MathVista(ProtocolTask):
    """MathVista."""

    name = "mathvista"
    title = "MathVista"
    about = "Mathematics about images and charts"
    splits = ("testmini",)
    settings: ClassVar = {
        "paper": Settings("{question}", VLMEVALKIT_TOKENS_2024, 6),
        "vlmevalkit": Settings("{question}", VLMEVALKIT_TOKENS, 6, VLMEVALKIT_TILES),
    }
    protocols = tuple(settings)
    same_scorer: ClassVar = {"vlmevalkit": "paper"}
    group_by = ("task",)
    data_source = DataSource(
        files={
            "testmini": (
                DataFile(_JSON[0], _SOURCE, _LICENCE, alternatives=(*_JSON[1:], _TSV)),
                DataFile("images/", _SOURCE, _LICENCE, alternatives=("data/images/", _TSV)),
            )
        },
        hub={"testmini": HubSource("AI4Math/MathVista", split="testmini")},
        sizes={"testmini": 1000},
        draw=drawn(name),
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; the official JSON, VLMEvalKit's TSV or the hub's Parquet files."""
        return each_once(self._samples(root), root)

    def parse(self, sample: Sample, response: Response) -> bool | None:
        """Whether the answer is right; None where rules cannot read it."""
        return _right(response.text, sample.data)

    def judge_questions(self, answers: Sequence[ParsedAnswer]) -> Mapping[str, JudgeQuestion]:
        """Asks to extract the answer where rules found none."""
        return {answer.sample.id: _question(answer) for answer in answers if answer.parsed is None}

    def score_all(self, answers: Sequence[ParsedAnswer]) -> list[Record]:
        """What rules find right, and what is right with the judge's extractions."""
        return [_record(answer) for answer in answers]

    def metrics(self) -> Sequence[Metric]:
        """Accuracy as the paper's, which needs a judge, and what rules alone find right."""
        return _JudgedAccuracy("accuracy"), Accuracy("accuracy_rules")

    def impossible_key(self, sample: Sample) -> str | None:
        """A number that is none; see `Task.impossible_key`."""
        number = _NUMBERS.get(sample.data["kind"])
        if sample.data["options"] or number is None:
            return super().impossible_key(sample)
        try:
            number(sample.data["answer"])
        except ValueError:
            return f"answer {str(sample.target)[:40]!r} is no {sample.data['kind']}"
        return None

    @property
    def wording(self) -> Sequence[str]:
        """Queries of example questions of every kind."""
        kinds = (("integer", None), ("float", 1), ("float", 2), ("list", None))
        items = [{"question": "q", "answer_type": kind, "precision": digits} for kind, digits in kinds]
        return [_query(item, {}) for item in items] + [_query({**items[0], "unit": "u"}, {"A": "a"})]

    def _samples(self, root: Path) -> Iterator[Sample]:
        if (path := find(root, _JSON)) is not None:
            items = read_json(path)
            if not isinstance(items, dict):
                raise DataError(f"{path}: expected an object by question: not the official file")
            files = ImageFiles(root)
            for identity, item in items.items():
                where = f"{path} question {identity}"
                found = fields(item, (*_FIELDS, "image"), where)
                name = text_of(found, "image", where)
                yield _sample(str(identity), found, files.find(name, f"data/{name}"), name, where)
        elif (path := root / _TSV).exists():
            for row in tsv_rows(path, ("index", *_FIELDS)):
                cells = {**row.cells, "query": row.cells["question"]}  # its question is the whole query
                yield _sample(row.name("index"), cells, row.images[0], row.cluster, row.where)
        elif parquet := parquet_files(root, "testmini"):
            for row in parquet_rows(parquet, ("pid", *_FIELDS)):
                yield _sample(row.name("pid"), row.cells, row.images[0], row.cluster, row.where)
        else:
            raise lacking(self, root, (*_JSON, _TSV))


class _JudgedAccuracy(Accuracy):
    """Accuracy that is null while answers wait for a judge."""

    def reason(self, records: Sequence[Record]) -> str | None:
        """Says how many answers need a judge."""
        answered = [item for item in records if not item.failed]
        if waiting := sum("accuracy" not in item.scores for item in answered):
            return f"{waiting} of {len(answered)} answers need a judge (--judge); see accuracy_rules"
        return super().reason(records)


def _sample(identity: str, item: Mapping[str, Any], image: ImageHandle, cluster: str, where: str) -> Sample:
    options = _options(item, where)
    answer, kind = text_of(item, "answer", where), text_of(item, "answer_type", where)
    if options and answer not in options.values() and answer not in options:
        raise DataError(f"{where}: answer {answer[:40]!r} is none of the choices")
    if kind not in _KINDS:
        raise DataError(f"{where}: answer_type {kind[:40]!r} is none of {', '.join(_KINDS)}")
    letter = next((k for k, text in options.items() if text == answer), answer)
    query = text_of(item, "query", where) if item.get("query") else ""
    query = query or _query({**item, "question": text_of(item, "question", where)}, options)
    metadata = item.get("metadata")
    task = str((metadata if isinstance(metadata, Mapping) else item).get("task") or "")
    data = {"options": options, "answer": letter if options else answer, "kind": kind, "query": query}
    return Sample(identity, (query,), (image,), answer, cluster, {"task": task} if task else {}, data)


def _options(item: Mapping[str, Any], where: str) -> dict[str, str]:
    """Choices by letter; none for free-form questions."""
    kind = text_of(item, "question_type", where)
    if kind == "free_form":
        return {}
    if kind != "multi_choice":
        raise DataError(f"{where}: question_type {kind[:40]!r} is neither multi_choice nor free_form")
    choices = item.get("choices")
    texts = literal_list(choices, where) if choices else []
    if not texts:
        raise DataError(f"{where}: no choices: not the official file")
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def _query(item: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """The official query: hint, question with its unit, choices."""
    precision = str(item.get("precision") or "").partition(".")[0]
    hint = _CHOICE_HINT if options else _HINTS.get((str(item["answer_type"]), precision))
    hint = hint or _HINTS.get((str(item["answer_type"]), ""))
    unit = f" (Unit: {item['unit']})" if item.get("unit") else ""
    lines = [f"Hint: Please answer the question {hint}"] if hint else []
    lines.append(f"Question: {item['question']}{unit}")
    if options:
        lines += ["Choices:", *(f"({letter}) {text}" for letter, text in options.items())]
    return "\n".join(lines)


def _right(text: str, data: Mapping[str, Any]) -> bool | None:
    """Whether an answer, or what a judge extracted of it, is right; None where rules cannot read it.

    Options by VLMEvalKit's rules; numbers where the text is one for Python's `int` or `float` (VLMEvalKit
    asks its judge even about those that are wrong). A list is never right: VLMEvalKit compares the answer
    with a value that it never sets.
    """
    if data["options"]:
        letter = vlmevalkit_choice(text, data["options"])
        return None if letter is None else bool(letter == data["answer"])
    number = _NUMBERS.get(data["kind"])
    if number is None:
        return False
    try:
        return bool(number(text) == number(data["answer"]))
    except ValueError:
        return None


def _question(answer: ParsedAnswer) -> JudgeQuestion:
    user = f"{answer.sample.data['query']}\n\nReply: {answer.response.text}\n\nFinal answer:"
    return JudgeQuestion(_JUDGE, user, max_tokens=128)


def _record(answer: ParsedAnswer) -> Record:
    sample, text = answer.sample, answer.response.text
    right: bool | None = answer.parsed
    scores = {"accuracy_rules": float(right is True)}
    if isinstance(answer.reply, str):
        scores["accuracy"] = float(_right(answer.reply, sample.data) is True)
    elif right is not None:
        scores["accuracy"] = float(right)
    data = {**sample.data, **answer.judge_data()}
    return record(sample, answer.response, prediction=text, scores=scores, unparsed=right is None, data=data)
