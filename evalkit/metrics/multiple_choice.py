"""Which option an answer means, by the rules of each scorer; precision and recall of several letters.

Options are given as letter to text, in letter order. No rule ever guesses: what it cannot resolve is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set

from evalkit.metrics.words import word_lists

Options = Mapping[str, str]

#: What VLMEvalKit's rules answer for a refusal: no option has this letter.
NONE_OF_THEM = "Z"

_API_FAILURE = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_BETWEEN_LETTERS = str.maketrans(dict.fromkeys(".,;:!?()[]{}*#/&+|'\"-", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
#: What may surround a letter for lmms-eval, in the order it tries.
_DECORATIONS = (
    ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
    (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip


def internvl_choice(text: str, options: Options) -> str:
    """InternVL's reduction of an answer before it is submitted; the text itself where nothing fits.

    One character is kept whatever it is; a first character that is an option's letter stands for the answer
    (so "Answer: B" is A); else the first option whose text occurs in the answer, case and all. An empty
    answer stays empty (InternVL's script stops with an error there).
    """
    text = text.strip()
    if len(text) <= 1:
        return text
    if text[0] in options:
        return text[0]
    return next((letter for letter, option in options.items() if option in text), text)


def vlmevalkit_choice(text: str, options: Options) -> str | None:
    """VLMEvalKit's rules: an option's letter, `NONE_OF_THEM` for a refusal, None where unresolved."""
    return _vlmevalkit_letter(text, options) or _option_text(text, options, limit=2)


def _vlmevalkit_letter(text: str, options: Options) -> str | None:
    if _API_FAILURE in text:
        return None
    if any(refusal in text for refusal in _REFUSALS):
        return NONE_OF_THEM
    plain = text.translate(_PUNCTUATION)
    present = _present(plain, [*options, NONE_OF_THEM])
    letters = [letter for letter in options if letter in present]
    if len(letters) == 1 and _words_from(plain, letters[0]) <= 4:
        return letters[0]
    if not letters and NONE_OF_THEM in present:
        return NONE_OF_THEM
    found = _ANSWER_IS.search(text)
    return found[1].upper() if found and found[1].upper() in options else None


def _present(text: str, words: Iterable[str]) -> set[str]:
    """Which of `words` occur in `text` between white space."""
    wanted, found = set(words), set[str]()
    for piece in word_lists(text):
        found |= wanted.intersection(piece)
        if len(found) == len(wanted):
            break
    return found


def _words_from(text: str, word: str) -> int:
    """Words from the first occurrence of `word` to the end, itself included; 5 stands for more."""
    first = re.search(rf"(?<!\S){re.escape(word)}(?!\S)", text)
    return len(text[first.start() :].split(None, 4)) if first else 5


def _option_text(text: str, options: Options, limit: int | None) -> str | None:
    """The only option whose text occurs in the answer without case; none in answers beyond `limit` times
    all options' length."""
    text = text.lower()
    if limit is not None and len(text) > limit * sum(len(option) for option in options.values()):
        return None
    matches = [letter for letter, option in options.items() if option.lower() in text]
    return matches[0] if len(matches) == 1 else None


def lmms_choice(text: str, options: Options) -> str | None:
    """lmms-eval's rules: A to E as a word, plain or decorated, then the options' texts A to D.

    A missing option among A to D is the text "nan", as in its data set, and may match like any other. A bare
    A in more than three words is taken for an article.
    """
    text = text.strip()
    return _lmms_letter(text) or _option_text(text, {c: options.get(c, "nan") for c in "ABCD"}, limit=None)


def _lmms_letter(text: str) -> str | None:
    if _API_FAILURE in text:
        return None
    forms = [("", ""), *_DECORATIONS]
    present = _present(text, (before + letter + after for before, after in forms for letter in "ABCDE"))
    for before, after in forms:
        letters = [letter for letter in "ABCDE" if before + letter + after in present]
        if len(letters) != 1:
            continue
        if (before, after) == ("", "") and letters == ["A"] and len(text.split(None, 3)) > 3:
            continue
        return letters[0]
    return None


def first_capital(text: str, choices: Sequence[str], prefixes: Sequence[str]) -> str:
    """MME-RealWorld's rule: the first capital A to E anywhere once `prefixes` are deleted.

    Without a capital, the first of `choices` (each "(X) text") that contains the answer without case; so an
    empty answer is A. More than ten words without a capital, or nothing found, give "".
    """
    text = text.strip()
    for prefix in prefixes:
        text = text.replace(prefix, "")
    if capital := re.search("[ABCDE]", text):
        return capital[0]
    if len(text.split(None, 10)) > 10:
        return ""
    lowered = text.lower()
    return next((choice[1] for choice in choices if lowered in choice.lower()), "")


def chosen_letters(text: str, letters: Set[str]) -> frozenset[str]:
    """Letters that an answer names: words made of distinct option letters (`A, C`, `AC`, `A and C`)."""
    chosen: set[str] = set()
    for words in word_lists(text.translate(_BETWEEN_LETTERS)):
        for word in words:
            if len(word) <= len(letters) and set(word) <= letters and len(set(word)) == len(word):
                chosen.update(word)
    return frozenset(chosen)


def precision_recall(chosen: Set[str], right: Set[str]) -> tuple[float, float]:
    """|chosen & right| / |chosen| and / |right|; both 0 where nothing was chosen."""
    if not chosen:
        return 0.0, 0.0
    hits = len(chosen & right)
    return hits / len(chosen), hits / len(right)
