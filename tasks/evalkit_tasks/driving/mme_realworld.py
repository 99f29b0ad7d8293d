"""MME-RealWorld (Zhang et al. 2024), the questions on autonomous driving: five choices about large images.

`paper` is InternVL's script, whose English prompt carries the Chinese header and thirteen spaces by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from evalkit.contracts import ImageHandle, Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, id_of, text_of, texts_of
from evalkit.metrics.base import Accuracy, Metric
from evalkit.metrics.multiple_choice import first_capital
from evalkit.task import DataFile, DataSource, record
from evalkit.task_parts import find
from evalkit_tasks.base import INTERNVL_IS_PAPER, drawn
from evalkit_tasks.general.rows import Row, listed_items, literal_list, tsv_rows
from evalkit_tasks.general.settings import (
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    ImageFiles,
    ProtocolTask,
    Settings,
    each_once,
    lacking,
)

SUBTASK = "Autonomous_Driving"
_JSON = ("MME_RealWorld.json", "MME-RealWorld/MME_RealWorld.json", "MME_RealWorld_AD.json")
_TSV = ("MME-RealWorld.tsv", "MME_RealWorld.tsv")
_SOURCE = "hub yifanzhang114/MME-RealWorld (split archives), or MME-RealWorld-Base64 (VLMEvalKit's TSV)"
_LICENCE = "academic research only, no redistribution"

_FIELDS = ("Question_id", "Image", "Text", "Answer choices", "Ground truth", "Subtask", "Task", "Category")

_ASK = "Select the best answer to the above multiple-choice question based on the image. "
_RESPOND = "Respond with only the letter (A, B, C, D, or E) of the correct option."
_ENGLISH = "{question} The choices are listed below:\n{choices}\n"

_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)
#: Missing commas in the published lists join neighbouring prefixes into one that never occurs.
_INTERNVL_PREFIXES = (*_PREFIXES[:4], _PREFIXES[4] + _PREFIXES[5], *_PREFIXES[6:])
_OFFICIAL_PREFIXES = (*_INTERNVL_PREFIXES[:5], _PREFIXES[6] + _PREFIXES[7])
#: VLMEvalKit reads what stands in the first such tags, in capitals.
_ANSWER_TAG = re.compile("<answer>(.*?)</answer>", re.DOTALL)
_BARE = tuple(f"({letter})" for letter in "ABCDE")


class MMERealWorldDriving(ProtocolTask):
    """MME-RealWorld, autonomous driving."""

    name = "mme-realworld-driving"
    title = "MME-RealWorld (autonomous driving)"
    about = "Driving scenes, very large images, multiple choice"
    settings: ClassVar = {
        "paper": Settings(
            f"{{question}}选项如下所示:\n{{choices}}\n{_ASK}{' ' * 12}{_RESPOND} \nThe best answer is:",
            100,
            12,
        ),
        "official": Settings(f"{_ENGLISH}{_ASK}{_RESPOND} \nThe best answer is:", 100, 12),
        "vlmevalkit": Settings(
            f"{_ENGLISH}{_ASK}{_RESPOND} \nThe best answer is:", VLMEVALKIT_TOKENS, 12, VLMEVALKIT_TILES
        ),
        "lmms-eval": Settings(f"{_ENGLISH}{_ASK}{_RESPOND}\nThe best answer is: ", 16, 6),
    }
    protocols = (*settings, "internvl")
    same_scorer = INTERNVL_IS_PAPER
    group_by = ("Category",)
    headline = "average"
    data_source = DataSource(
        files={
            "test": (
                DataFile(_JSON[0], _SOURCE, _LICENCE, alternatives=(*_JSON[1:], *_TSV)),
                DataFile("AutonomousDriving/", _SOURCE, _LICENCE, alternatives=("data/", "images/", *_TSV)),
            )
        },
        draw=drawn(name),
    )

    def __init__(self, protocol: str | None = None) -> None:
        """See `Task`."""
        super().__init__(protocol)
        self._wording, self.template = self.template, "{question}"

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; the official list, or VLMEvalKit's TSV. Other subtasks are skipped."""
        found = False
        for sample in each_once(self._samples(root), root):
            found = True
            yield sample
        if not found:
            raise DataError(f"{self.name}: {root} holds no question of the subtask {SUBTASK}")

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`; an answer in which no letter is found is wrong."""
        prefixes = {"paper": _INTERNVL_PREFIXES, "official": _OFFICIAL_PREFIXES}.get(self.rules, _PREFIXES)
        choices = sample.data["choices"] if self.rules in ("paper", "official") else _BARE
        text = response.text
        if self.protocol == "vlmevalkit" and (tagged := _ANSWER_TAG.search(text)):
            text = tagged[1].strip().upper()
        letter = first_capital(text, choices, prefixes)
        scores = {"accuracy": float(letter == sample.target)}
        return record(sample, response, prediction=letter, scores=scores, unparsed=not letter)

    def impossible_key(self, sample: Sample) -> str | None:
        """See `Task.impossible_key`; choices are texts that begin with their letter."""
        letters = [str(choice).strip("( ")[:1] for choice in sample.data["choices"]]
        if sample.target in letters:
            return None
        return f"answer {sample.target[:40]!r} is none of the options {', '.join(letters)}"

    def metrics(self) -> Sequence[Metric]:
        """Columns of Table 5; the average is over all questions alike."""
        tasks = [
            Accuracy(name.lower(), "accuracy", select=partial(_of_task, name))
            for name in ("Perception", "Reasoning")
        ]
        return *tasks, Accuracy("average", "accuracy")

    @property
    def wording(self) -> Sequence[str]:
        """The wording around question and choices."""
        return (self._wording,)

    def _samples(self, root: Path) -> Iterator[Sample]:
        if (path := find(root, _JSON)) is not None:
            yield from self._from_list(path, root)
        elif (path := find(root, _TSV)) is not None:
            for row in tsv_rows(path, ("index", "question", "answer", "category", "l2-category")):
                yield from self._from_row(row)
        else:
            raise lacking(self, root, (*_JSON, *_TSV))

    def _from_list(self, path: Path, root: Path) -> Iterator[Sample]:
        files = ImageFiles(root)
        for item, where in listed_items(path):
            found = _unified(item, where)
            if found["Subtask"] != SUBTASK:
                continue
            if str(found.get("Question Type", "Multiple Choice")).lower() != "multiple choice":
                raise DataError(f"{where}: question type {found['Question Type']!r} is not known")
            if not isinstance(found["Answer choices"], list) or not found["Answer choices"]:
                raise DataError(f"{where}: field 'Answer choices' is not a list: not the official file")
            name = text_of(found, "Image", where)
            image = files.find(name, f"data/{name}", f"images/{name}", f"MME-RealWorld/{name}")
            choices = texts_of(found, "Answer choices", where)
            identity = id_of(found, "Question_id", where)
            question, answer = (text_of(found, key, where) for key in ("Text", "Ground truth"))
            tags = {key: text_of(found, key, where) for key in ("Task", "Category")}
            yield self._sample(identity, question, answer, choices, tags, image, name)

    def _from_row(self, row: Row) -> Iterator[Sample]:
        task, _, subtask = row.text("category").partition("/")
        if subtask != SUBTASK:
            return
        letters = [letter for letter in "ABCDE" if row.text(letter)]
        choices = [f"({letter}) {row.text(letter)}" for letter in letters]
        if not choices:
            choices = literal_list(row.text("multi-choice options"), row.where)
            if len(choices) == 1:  # VLMEvalKit's own TSV holds header and choices in one text
                choices = choices[0].split("\n")[1:]
        tags = {"Task": task, "Category": row.text("l2-category")}
        index, question, answer = row.name("index"), row.text("question"), row.text("answer").strip()
        yield self._sample(index, question, answer, choices, tags, row.images[0], row.cluster)

    def _sample(
        self,
        identity: str,
        question: str,
        answer: str,
        choices: list[str],
        tags: Mapping[str, str],
        image: ImageHandle,
        cluster: str,
    ) -> Sample:
        text = self._wording.format(question=question, choices="\n".join(choices))
        return Sample(identity, (text,), (image,), answer, cluster, tags, {"choices": choices})


def _of_task(task: str, item: Record) -> bool:
    return item.tags["Task"].lower() == task.lower()


def _unified(item: Any, where: str) -> Mapping[str, Any]:
    """The item with its keys spelled as in `_FIELDS`; the files' spelling is unsteady in case."""
    spelled = {name.lower(): name for name in (*_FIELDS, "Question Type")}
    if isinstance(item, Mapping):
        item = {spelled.get(str(key).lower(), str(key)): value for key, value in item.items()}
    return fields(item, _FIELDS, where)
