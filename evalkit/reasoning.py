"""Reasoning in answers: the text in think tags is separated from the answer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evalkit.contracts import Response

#: `strip`: the reasoning is stored, not scored. `keep`: all is scored. `auto`: as the protocol does.
ReasoningMode = Literal["auto", "strip", "keep"]
Tags = Sequence[tuple[str, str]]

#: What lmms-eval strips by default (75571cf, `--reasoning_tags`).
LMMS_TAGS: Tags = (("<think>", "</think>"), ("<analysis>", "</analysis>"))
#: What `--reasoning strip` takes out besides: the spellings of other reasoning models.
TAGS: Tags = (
    *LMMS_TAGS,
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("◁think▷", "◁/think▷"),
)
#: Keys of `Record.data`: the reasoning that was not scored; what was cut, where it was the reasoning.
REASONING, CUT = "reasoning", "cut"


@dataclass(frozen=True, slots=True)
class SplitAnswer:
    """An answer without its reasoning.

    Attributes:
        answer: what is left, without outer white space where reasoning was taken out.
        reasoning: what was taken out, without its tags; empty where there was none.
        unfinished: whether an opening tag has no closing one: the budget was used up while thinking.
    """

    answer: str
    reasoning: str = ""
    unfinished: bool = False


def split_reasoning(text: str, tags: Tags = TAGS, open_end: bool = True) -> SplitAnswer:
    """Take the reasoning out of an answer, as lmms-eval's `strip_reasoning_tags` does (75571cf).

    Blocks between an opening and a closing tag go, and everything before a closing tag that has no opening
    one (chat templates may write the opening tag themselves). Tags are case-sensitive.

    Args:
        open_end: whether an opening tag without a closing one begins reasoning too; lmms-eval leaves it.
    """
    removed: list[str] = []
    unfinished = False
    for opening, closing in tags:
        while (start := text.find(opening)) >= 0 and (end := text.find(closing, start)) >= 0:
            removed.append(text[start + len(opening) : end])
            text = text[:start] + text[end + len(closing) :]
        if opening in text:
            unfinished = True
            if open_end:
                text, _, rest = text.partition(opening)
                removed.append(rest)
        if closing in text and opening not in text:
            before, _, text = text.rpartition(closing)
            removed.append(before)
    if not removed:
        return SplitAnswer(text, unfinished=unfinished)
    return SplitAnswer(text.strip(), "\n".join(part.strip() for part in removed).strip(), unfinished)


#: Tags begin with one of these; looking for them first is many times as fast.
_BRACKETS = frozenset(tag[0] for pair in TAGS for tag in pair)
_ANY_TAG = re.compile("|".join(re.escape(tag) for pair in TAGS for tag in pair))


def holds_reasoning(text: str) -> bool:
    """Whether an answer has a think tag."""
    return any(bracket in text for bracket in _BRACKETS) and _ANY_TAG.search(text) is not None


def opened_by(prompt: str) -> str:
    """The opening tag that a prompt ends with: a chat template may write it, and answers then lack it."""
    text = prompt.rstrip()
    return next((opening for opening, _ in TAGS if text.endswith(opening)), "")


def cut_while_thinking(response: Response) -> bool:
    """Whether the budget was used up by reasoning, before there was an answer."""
    if response.error is not None or response.finish != "length":
        return False
    split = split_reasoning(response.text)
    return not split.answer.strip() and bool(split.reasoning or response.reasoning or split.unfinished)


def decoded_with_tags(
    tokens: Sequence[int], tags: Mapping[int, str], decode: Callable[[Sequence[int]], str]
) -> str:
    """The text of tokens, with the think tags among them that `decode` leaves out as special tokens.

    Args:
        tags: texts of such tokens by id.
    """
    parts, start = list[str](), 0
    for place, token in enumerate(tokens):
        if token in tags:
            parts += [decode(tokens[start:place]), tags[token]]
            start = place + 1
    return "".join([*parts, decode(tokens[start:])]) if parts else decode(tokens)


def unusual_mode(mode: ReasoningMode, stripped_by_protocol: bool) -> str | None:
    """The mode, where it differs from the protocol's default."""
    return mode if mode == ("keep" if stripped_by_protocol else "strip") else None


def as_scored(response: Response, mode: ReasoningMode, stripped_by_protocol: bool) -> Response:
    """The response as the scorer gets it: its text the answer alone, what was taken out in `reasoning`.

    A budget used up while thinking ends the answer as `length`, which flags the record `truncated`. Where the
    protocol does not strip, unfinished thinking is scored as it is, as by the other harnesses.

    Args:
        stripped_by_protocol: the protocol is lmms-eval's, which also strips outer white space.
    """
    keep = mode == "keep" or (mode == "auto" and not stripped_by_protocol)
    if response.error is not None or (keep and not holds_reasoning(response.text)):
        return response
    tags, open_end = (LMMS_TAGS, False) if stripped_by_protocol else (TAGS, True)
    split = split_reasoning(response.text, tags, open_end)
    if keep:
        return dataclasses.replace(response, finish="length") if split.unfinished else response
    return dataclasses.replace(
        response,
        text=split.answer.strip() if stripped_by_protocol else split.answer,
        finish="length" if split.unfinished else response.finish,
        reasoning="\n".join(filter(None, (response.reasoning, split.reasoning))),
    )
