"""Near misses: wrong answers that equal the truth but for their form (case, a final full stop, markup ...).

The official score stays what it is. A near miss is flagged, so that a reader sees that a model knows the
answer and writes it in a form that the benchmark's rule does not accept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from evalkit.contracts import Record, Sample
from evalkit.metrics.base import Mean, Metric

#: Flag of a record, and key of its `data` that holds the kind.
NEAR_MISS: Final = "near_miss"
#: A graded score this near to 1 is full (DriveLM's F1 never reaches 1).
_FULL = 1 - 1e-6

#: Scores that say whether an answer is right: each group's first present one counts, all groups must be full.
ExactScores = Sequence[Sequence[str]]


def exact_scores(metrics: Sequence[Metric]) -> ExactScores:
    """By default: the first 0/1 score that a record has, and every graded mean whose full score is 1."""
    binary, graded = dict[str, None](), dict[str, None]()
    for metric in _flat(metrics):
        if isinstance(metric, Mean) and metric.higher_is_better and metric.bounds == (0.0, metric.scale):
            (binary if metric.binary else graded).setdefault(metric.score)
    return [list(binary)] * bool(binary) + [[name] for name in graded if name not in binary]


def _flat(metrics: Sequence[Metric]) -> Iterator[Metric]:
    for metric in metrics:
        yield metric
        yield from _flat(getattr(metric, "parts", ()))


def is_wrong(scores: Mapping[str, float], names: ExactScores) -> bool | None:
    """Whether an answer is short of the full score; None where no score says so."""
    deciding = [next((name for name in group if name in scores), None) for group in names]
    found = [scores[name] for name in deciding if name is not None]
    return any(value < _FULL for value in found) if found else None


def better(before: Record, after: Record, names: ExactScores, equal: bool) -> bool:
    """Whether the form of an answer cost it something: in another form it is right or has a smaller error.

    Args:
        equal: the other form is an accepted answer itself, so that any gain counts (a graded reference).
    """
    if is_wrong(after.scores, names) is False:
        return True
    nearer = [name for name in before.scores if name.endswith("_error")]
    if any(after.scores.get(name, before.scores[name]) < before.scores[name] for name in nearer):
        return True
    decisive = {name for group in names for name in group} & set(before.scores)
    return equal and any(after.scores.get(name, 0.0) > before.scores[name] for name in decisive)


# What may differ ------------------------------------------------------------------------------------------

_LEAD = re.compile(
    r"\s*(?:(?:the|my|so|final|correct|best|right|short)\s+){0,4}answer(?:\s+is)?\s*[:\uff1a-]?\s+"
    r"|\s*answer(?:\s+is)?\s*[:\uff1a]\s*|\s*(?:the\s+)?option\s+|\s*\u7b54\u6848(?:\u662f)?[:\uff1a]?\s*",
    re.IGNORECASE,
)
_TAGS = re.compile(r"</?(?:answer|b|i|u|em|strong|code|p|span|br|mark)\s*/?>", re.IGNORECASE)
_WRAPPED = re.compile(
    r"(?s)\s*(?:```\w*\n?(.*?)\n?```|`+(.*?)`+|\$+(.*?)\$+|\\boxed\{(.*)\}|\\text\{(.*)\}|#+\s+(.*)"
    r"|\*([^*]+)\*|_([^_]+)_)\s*"
)
_QUOTES = (
    '""',
    "''",
    "\u201c\u201d",
    "\u2018\u2019",
    "\u00ab\u00bb",
    "\u300c\u300d",
    "\u300e\u300f",
    "\u201e\u201c",
)
_END = ".\u3002,;:!?\u2026\uff0e\uff0c\uff1b\uff1a\uff01\uff1f"
_INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff]")
_MINUS = re.compile("[\u2212\u2013\uff0d](?=[0-9.\uff10-\uff19])")
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if code != 0xFF0D} | {0x3000: 0x20}
_THINKING = ("think", "thinking", "analysis", "reasoning")


def _without_thinking(text: str) -> str:
    """What stands behind the last block of reasoning."""
    if "</" not in text:
        return text
    ends = [text.rfind(tag) + len(tag) for name in _THINKING if (tag := f"</{name}>") in text]
    rest = text[max(ends) :] if ends else text
    return rest.strip() if ends else text


def _without_lead(text: str) -> str:
    found = _LEAD.match(text)
    return text[found.end() :] if found else text


def _without_markup(text: str) -> str:
    text = _TAGS.sub("", text.replace("**", "").replace("__", ""))
    found = _WRAPPED.fullmatch(text)
    return next((part for part in found.groups() if part is not None), text) if found else text


def _without_quotes(text: str) -> str:
    inner = text.strip()
    for pair in _QUOTES:
        if len(inner) > 2 and inner[0] == pair[0] and inner[-1] == pair[1]:
            return inner[1:-1]
    return text


#: What is taken off, in the order in which it is tried; the names are the kinds.
STEPS: Mapping[str, Callable[[str], str]] = {
    "white space": lambda text: " ".join(_INVISIBLE.sub("", text).split()),
    "case": str.casefold,
    "final full stop": lambda text: text[:-1] if text[-1:] in (".", "\u3002") else text,
    "final punctuation": lambda text: text.rstrip(_END),
    "quotes": _without_quotes,
    "markup": _without_markup,
    "think block": _without_thinking,
    "lead-in": _without_lead,
    "full-width characters": lambda text: text.translate(_WIDE),
    "minus sign": lambda text: _MINUS.sub("-", text),
}
_ROUNDS = 4


def _tidy(text: str, names: Sequence[str]) -> str:
    """The text after the named steps, again and again until nothing changes; from the outside in."""
    for _ in range(_ROUNDS):
        before = text
        for name in reversed(names):
            text = STEPS[name](text)
        if text == before:
            break
    return text


def kind(text: str, truth: str) -> tuple[str, ...]:
    """The fewest steps that make an answer equal to a truth; empty where none do, or it is equal as it is."""
    if text == truth:
        return ()
    for name in STEPS:
        if text.strip() and _same(text, truth, (name,)):
            return (name,)
    names = tuple(STEPS)
    if not _same(text, truth, names):
        return ()
    for name in reversed(names):
        fewer = tuple(other for other in names if other != name)
        if _same(text, truth, fewer):
            names = fewer
    return names


def _same(text: str, truth: str, names: Sequence[str]) -> bool:
    plain = _tidy(text, names)
    return bool(plain.strip()) and plain == _tidy(truth, names)


def truths(sample: Sample) -> list[str]:
    """Every acceptable answer as text: references, letters, numbers; empty where the target is not text."""
    found = [*_texts(sample.target), *_texts(sample.data.get("answers")), *_texts(sample.data.get("answer"))]
    return list(dict.fromkeys(found))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [str(value), f"{value:g}"]
    if isinstance(value, Mapping):
        return _texts(next(iter(value.values()))) if len(value) == 1 else []
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item for item in value if item]
    return []


#: Words and numbers with nothing around them: no step but `case` changes such a text.
_PLAIN = re.compile(
    r"(?!.*(?:answer|option))[a-z0-9%/()+&-]+(?:[ .,:'][a-z0-9%/()+&-]+)*", re.IGNORECASE | re.ASCII
)


class OtherForm(NamedTuple):
    """An answer in another form: its text, what differs, and whether it is an accepted answer itself."""

    text: str
    kinds: tuple[str, ...]
    equal: bool


def corrected(text: str, sample: Sample) -> OtherForm | None:
    """An answer as the rule would accept it, if its form is the reason.

    A truth that it equals but for its form; else the answer without what surrounds it, which the task's own
    rule may read as right (a number within the tolerance, another spelling that it knows).
    """
    known = truths(sample)
    if text in known:
        return None
    if _PLAIN.fullmatch(text) and all(map(_PLAIN.fullmatch, known)):  # most answers, many times as fast
        folded = text.casefold()
        same = next((truth for truth in known if truth.casefold() == folded), None)
        return None if same is None else OtherForm(same, ("case",), equal=True)
    for truth in known:
        if kinds := kind(text, truth):
            return OtherForm(truth, kinds, equal=True)
    names = tuple(name for name in STEPS if name != "case")
    plain = _tidy(text, names)
    if not plain or plain == text:
        return None
    for name in reversed(names):
        fewer = tuple(other for other in names if other != name)
        if _tidy(text, fewer) == plain:
            names = fewer
    return OtherForm(plain, names, equal=False)
