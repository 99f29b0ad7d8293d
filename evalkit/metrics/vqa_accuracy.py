"""VQA accuracy over ten human answers, with the answer processing of the VQA and TextVQA evaluators.

An answer scores the mean, over the ten ways of leaving one human out, of min(1, others who agree / 3).
Sources: GT-Vision-Lab/VQA (Antol et al. 2015) and the TextVQA evaluator of MMF and LLaVA (m4c).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from evalkit.metrics.words import word_lists

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {"none": "0"} | {word: str(value) for value, word in enumerate(_WORDS)}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
#: A period that no digit follows. The published pattern meant to spare one after a digit too: misspelt.
_PERIOD = re.compile(r"\.(?!\d)")
#: VLMEvalKit's is spelt right.
_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
#: The published code passes a flag where `re.sub` takes a count, so only this many periods go.
_PERIODS = int(re.UNICODE)

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """Spelling with one apostrophe left out, to the full spelling."""
    table = {"somebody'd": "somebodyd"}  # the published table's own slip
    for word in _CONTRACTED.split():
        table |= {word[:i] + word[i + 1 :]: word for i, mark in enumerate(word) if mark == "'"}
    return table


_CONTRACTIONS = _contractions()


def vqa_process(text: str) -> str:
    """Answer processing of VLMEvalKit: punctuation, digits, articles, contractions."""
    return _processed(text, _LONE_PERIOD)


def textvqa_process(text: str) -> str:
    """Answer processing of the TextVQA evaluator: commas, question marks and 's apart, then as VQA's."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _processed(text.strip(), _PERIOD)


def _processed(text: str, period: re.Pattern[str]) -> str:
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return _digits_and_articles(_strip_punctuation(text, period))


def _strip_punctuation(text: str, period: re.Pattern[str]) -> str:
    """Marks beside a space (or all, where a number has commas) vanish; others become spaces."""
    commas = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        out = out.replace(mark, "" if commas or mark + " " in text or " " + mark in text else " ")
    return period.sub("", out, count=_PERIODS)


def _digits_and_articles(text: str) -> str:
    return " ".join(filter(None, (_processed_words(words) for words in word_lists(text.lower()))))


def _processed_words(words: Sequence[str]) -> str:
    digits = (_NUMBERS.get(word, word) for word in words)
    return " ".join(_CONTRACTIONS.get(word, word) for word in digits if word not in _ARTICLES)


@lru_cache(maxsize=65536)
def _textvqa_reference(text: str) -> str:
    return textvqa_process(text)


@lru_cache(maxsize=65536)
def _vqa_reference(text: str) -> str:
    return vqa_process(text)


def textvqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """VQA accuracy after `textvqa_process`, as InternVL (m4c), lmms-eval and the TextVQA challenge score."""
    return _agreement(textvqa_process(prediction), [_textvqa_reference(text) for text in references])


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """VQA accuracy after `vqa_process`, as VLMEvalKit scores TextVQA."""
    return _agreement(vqa_process(prediction), [_vqa_reference(text) for text in references])


def _agreement(answer: str, references: Sequence[str]) -> float:
    """Mean over left-out references of min(1, agreeing others / 3)."""
    agreeing = references.count(answer)
    others = [agreeing - (reference == answer) for reference in references]
    return sum(min(1.0, count / 3) for count in others) / len(references)
