"""What multiple-choice benchmarks share: options of a row, prompts, the judge's question, scoring."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, Metric
from evalkit.metrics.multiple_choice import NONE_OF_THEM, Options, vlmevalkit_choice
from evalkit.task import JudgeQuestion, ParsedAnswer, record
from evalkit_tasks.general.rows import Row
from evalkit_tasks.general.settings import LETTER_ANSWER, ProtocolTask

#: Reads a letter out of a text, None where it cannot.
Infer = Callable[[str, Options], str | None]

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


def judge_letter(data: Mapping[str, Any], answer: str) -> JudgeQuestion:
    """Asks a judge which option an answer means. The wording is ours, not a scorer's.

    `data` is the sample's, with `question` and `options`.
    """
    lines = "\n".join(f"{letter}. {text}" for letter, text in data["options"].items())
    question = f"Question: {data['question']}\nOptions:\n{lines}\nAnswer: {answer}\nLetter:"
    return JudgeQuestion(_JUDGE, question)


def tags_of(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """Tags by name from the columns that are not empty."""
    return {tag: row.text(column) for tag, column in columns.items() if row.text(column)}


class ReadChoice(NamedTuple):
    """What the rules make of an answer: the prediction as recorded, and the letter (None: left open)."""

    prediction: str | None
    rule: str | None


def choice_of(answer: ParsedAnswer, infer: Infer) -> str | None:
    """The letter by the rules, else by the judge's reply (read by `infer`), else None; never a guess."""
    rule: str | None = answer.parsed.rule
    if rule is not None or not isinstance(answer.reply, str):
        return rule
    return infer(answer.reply, answer.sample.data["options"])


class ChoiceTask(ProtocolTask):
    """Multiple choice, each row scored alone; `parse` gives a `ReadChoice`.

    Attributes:
        judged: protocols in which a judge resolves what the rules leave open.
    """

    judged: ClassVar[tuple[str, ...]] = ()

    def judge_questions(self, answers: Sequence[ParsedAnswer]) -> Mapping[str, JudgeQuestion]:
        """Asks about what the rules leave open."""
        if self.protocol not in self.judged:
            return {}
        return {
            answer.sample.id: judge_letter(answer.sample.data, answer.response.text)
            for answer in answers
            if answer.parsed.rule is None
        }

    def score_all(self, answers: Sequence[ParsedAnswer]) -> list[Record]:
        """1 for the right letter."""
        return [choice_record(answer, choice_of(answer, vlmevalkit_choice)) for answer in answers]

    def metrics(self) -> Sequence[Metric]:
        """Share of right answers."""
        return (Accuracy("accuracy"),)


def choice_record(answer: ParsedAnswer, choice: str | None) -> Record:
    """The record of an answer that comes down to the letter `choice`."""
    sample, (prediction, rule) = answer.sample, answer.parsed
    return record(
        sample,
        answer.response,
        prediction=prediction,
        scores={"accuracy": float(choice == sample.target)},
        unparsed=rule is None,
        data={**sample.data, "rule": rule, "choice": choice, **answer.judge_data()},
    )
