"""What multiple-choice benchmarks share: options of a row, InternVL's prompts, the judge's question."""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence

from evalkit.contracts import Record
from evalkit.metrics.circular import Infer, choice_of
from evalkit.metrics.multiple_choice import NONE_OF_THEM, Options
from evalkit.task import JudgeQuestion
from evalkit_tasks.general.rows import Row
from evalkit_tasks.general.settings import LETTER_ANSWER

LETTER_ANSWER_CN = "请直接回答选项字母。"
_DIRECT, _DIRECT_CN = "Answer the question directly.", "请直接回答问题。"
_CHINESE = re.compile("[\u4e00-\u9fff]")

_JUDGE = (
    "You match a free answer to the options of a multiple-choice question. Reply with the letter of the "
    f"option that means the same as the answer, or {NONE_OF_THEM} if it means none of them. "
    "Reply with one letter only."
)


def options_of(row: Row) -> dict[str, str]:
    """Options by letter, A to Z; only an empty cell is a missing one.

    The hub's copies write a missing option as the text "nan" (or null), so there it is missing too.
    """
    nan_is_missing = ".parquet" in row.where
    found = {letter: row.text(letter) for letter in string.ascii_uppercase}
    return {k: text for k, text in found.items() if text and not (nan_is_missing and text == "nan")}


def question_lines(question: str, hint: str, options: Options) -> str:
    """Hint, question, and a line `X. text` for each option, as InternVL lays them out."""
    lines = [hint, question] if hint else [question]
    return "\n".join([*lines, *(f"{letter}. {text}" for letter, text in options.items())])


def vlmevalkit_prompt(question: str, hint: str, options: Options) -> str:
    """The lines and an instruction, whose language follows the Chinese characters found in them."""
    lines = question_lines(question, hint, options)
    chinese = _CHINESE.search(lines) is not None
    if options:
        return f"{lines}\n{LETTER_ANSWER_CN if chinese else LETTER_ANSWER}"
    return f"{lines}\n{_DIRECT_CN if chinese else _DIRECT}"


def judge_letter(question: str, options: Options, answer: str) -> JudgeQuestion:
    """Asks a judge which option an answer means. The wording is ours, not a scorer's."""
    lines = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return JudgeQuestion(_JUDGE, f"Question: {question}\nOptions:\n{lines}\nAnswer: {answer}\nLetter:")


def tags_of(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """Tags by name from the columns that are not empty."""
    return {tag: row.text(column) for tag, column in columns.items() if row.text(column)}


def relate_choices(records: Sequence[Record], infer: Infer) -> list[Record]:
    """Score `accuracy` of each answered row with a target, a judge's reply resolving what rules did not.

    Reads and sets `data` as `evalkit.metrics.circular.relate_circular` does. Idempotent.
    """
    return [
        record if record.failed or record.target is None else _scored(record, choice_of(record, infer))
        for record in records
    ]


def _scored(record: Record, choice: str | None) -> Record:
    scores = {"accuracy": float(choice == record.target)}
    return dataclasses.replace(record, scores=scores, data={**record.data, "choice": choice})
