"""Aliases, for one release, for task classes written before tasks named a DataSource, Overlay and Submission.

Such a class has methods `data_files`, `hub`, `published_size`, `draw_miniature`, `references`, `regions`,
`export`, `relate` or `judge_question`, or attributes `sizes` or `export_name`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.answers import ParsedAnswer, failed_record
from evalkit.contracts import Record
from evalkit.task_parts import DataFile, DataSource, HubSource, JudgeQuestion, Overlay, Submission

_OF_SOURCE = frozenset({"data_files", "hub", "published_size", "draw_miniature", "sizes"})
_OF_SCORE = frozenset({"relate", "judge_question"})


def adopt(kind: Any) -> None:
    """Give a task class that defines earlier methods today's attributes and methods, which call them."""
    own = vars(kind).keys()
    if own & _OF_SOURCE:
        kind.data_source = property(lambda task: _source(task, super(kind, task).data_source))
    if "references" in own:
        kind.published_rows = property(lambda task: task.references())
    if "regions" in own:
        kind.overlay = property(lambda task: Overlay(task.regions))
    if "export" in own:
        kind.submission = property(_submission)
    if own & _OF_SCORE:
        kind.judge_questions, kind.score_all = _judge_questions, _score_all


def scores_failures(task: object) -> bool:
    """Whether `score_all` also takes samples without an answer, as `relate` did."""
    return getattr(type(task), "score_all", None) is _score_all


@dataclass(frozen=True, kw_only=True)
class _EarlierSource(DataSource):
    task: Any
    inherited: DataSource

    def files_of(self, split: str) -> Sequence[DataFile]:
        found: Sequence[DataFile] = getattr(self.task, "data_files", self.inherited.files_of)(split)
        return found

    def hub_of(self, split: str) -> HubSource | None:
        found: HubSource | None = getattr(self.task, "hub", self.inherited.hub_of)(split)
        return found

    def published_size(self, split: str, root: Path) -> int | None:
        inherited = super().published_size if hasattr(self.task, "sizes") else self.inherited.published_size
        found: int | None = getattr(self.task, "published_size", inherited)(split, root)
        return found


def _source(task: Any, inherited: DataSource) -> DataSource:
    return _EarlierSource(
        sizes=getattr(task, "sizes", inherited.sizes),
        draw=getattr(task, "draw_miniature", inherited.draw),
        task=task,
        inherited=inherited,
    )


def _submission(task: Any) -> Submission:
    return Submission(getattr(task, "export_name", "submission.json"), task.export)


def _related(task: Any, answers: Sequence[ParsedAnswer]) -> list[Record]:
    records = [
        failed_record(answer.sample, answer.response)
        if answer.response.error is not None
        else task.score(answer.sample, answer.response)
        for answer in answers
    ]
    records = [
        dataclasses.replace(record, data={**record.data, **answer.judge_data()})
        for record, answer in zip(records, answers, strict=True)
    ]
    return list(task.relate(records)) if hasattr(task, "relate") else records


def _judge_questions(task: Any, answers: Sequence[ParsedAnswer]) -> Mapping[str, JudgeQuestion]:
    if not hasattr(task, "judge_question"):
        return {}
    asked = {r.id: task.judge_question(r) for r in _related(task, answers) if not r.failed}
    return {name: question for name, question in asked.items() if question is not None}


def _score_all(task: Any, answers: Sequence[ParsedAnswer]) -> list[Record]:
    return _related(task, answers)
