"""Stanford's Penn Treebank lexer, run without Java: its finite automaton, and what it does with a match.

CoreNLP 3.4.1 compiled its lexer with JFlex: tables of a deterministic automaton, and a short action for each
rule. The tables are read at run time from the jar that pycocoevalcap brings, so every token boundary is the
jar's own. The lexer class is known by its digest: no other jar's tables are trusted.

The rules are numbered as in the generated lexer, under the options that pycocoevalcap uses: brackets,
quotes, dashes, currencies and fractions are spelled as in the Penn Treebank, slashes are not escaped, British
spelling stays, characters that belong to no token are dropped.
"""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

_SOFT_HYPHEN = "\u00ad"
#: Latin, Greek, Cyrillic; Vietnamese; arrows and other symbols without the circled letters; full-width Latin.
_CERTAIN = re.compile(
    "[\0-\u012f\u0131-\u03a2\u03a4-\u052f\u1ea0-\u1ef9\u2190-\u24b5\u24ea-\u2bff\uff21-\uff3a]+"
)


class UncertainTokenError(Exception):
    """A token whose lower case may differ between Java's and Python's Unicode tables."""


def lower_case(token: str) -> str:
    """Java's lower case of a token.

    Java and Python follow the same Unicode rules but not the same version of its tables; what both are
    certain of is in `_CERTAIN` and, beyond it, the characters that Unicode 3.2 already knew to have no case.
    Capital sigma and dotted capital I, whose lower case is not one letter for one, are never certain.

    Raises:
        UncertainTokenError: a character is not among these.
    """
    if not token.isascii() and not _CERTAIN.fullmatch(token):
        for character in token:
            if not _CERTAIN.match(character) and (
                character.lower() != character or unicodedata.ucd_3_2_0.category(character) in ("Cn", "Cs")
            ):
                raise UncertainTokenError(f"lower case of {character!a}")
    return token.lower()


def _keep(text: str) -> str:
    return text


def without_soft_hyphens(text: str) -> str:
    """The text without soft hyphens; a hyphen where nothing else was."""
    return text.replace(_SOFT_HYPHEN, "") or "-" if _SOFT_HYPHEN in text else text


def _dashes(text: str) -> str:
    return "--" if 3 <= len(text) <= 4 else text


def _fractions(text: str) -> str:
    for sign, spelled in (("¼", "1/4"), ("½", "1/2"), ("¾", "3/4"), ("⅓", "1/3"), ("⅔", "2/3")):
        text = text.replace(sign, spelled)
    return text


def _currency(text: str) -> str:
    return re.sub("[\u0080¤₠€]", "$", text.replace("¢", "cents").replace("£", "#"))


def _ampersand(text: str) -> str:
    return re.sub("(?i:&amp;)", "&", text)


def _parentheses(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


def _hard_spaces(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _phone(text: str) -> str:
    return _parentheses(_hard_spaces(text))


def _quotes(text: str, single: str, double: str) -> str:
    text = text.replace("&apos;", "'").replace("'", single)
    text = text.replace('"', double).replace("&quot;", double)
    text = re.sub("[\u0091‘‛‹]", "`", text)
    text = re.sub("[\u0092’›]", "'", text)
    text = re.sub("[\u0093“«]", "``", text)
    return re.sub("[\u0094”»]", "''", text)


def left_quotes(text: str) -> str:
    """Quotation marks that open, in LaTeX's spelling."""
    return _quotes(text, "`", "``")


def _right_quotes(text: str) -> str:
    return _quotes(text, "'", "''")


def _always(token: str) -> Callable[[str], str]:
    return lambda _: token


_Rewrite = Callable[[str], str]
#: Rule number to (characters given back after the match, rewriting of what is left).
PLAIN: Final[Mapping[int, tuple[int, _Rewrite]]] = {
    2: (0, _always("<")),
    3: (0, _keep),
    4: (0, _dashes),
    6: (0, without_soft_hyphens),
    8: (0, _right_quotes),
    9: (0, _keep),
    10: (0, _always(">")),
    11: (0, _always("--")),
    12: (0, without_soft_hyphens),
    13: (0, _always("...")),
    14: (0, _fractions),
    15: (0, _currency),
    16: (0, _always("-RCB-")),
    17: (0, _always("-LRB-")),
    18: (0, _always("-RRB-")),
    19: (0, _keep),
    20: (0, _always("-LCB-")),
    21: (0, _always("-RSB-")),
    22: (0, _always("-LSB-")),
    25: (1, _keep),
    26: (1, left_quotes),
    27: (0, _hard_spaces),
    28: (0, _parentheses),
    29: (0, without_soft_hyphens),
    31: (0, _keep),
    32: (1, without_soft_hyphens),
    34: (1, _parentheses),
    36: (1, _right_quotes),
    37: (0, _ampersand),
    38: (0, _hard_spaces),
    39: (0, _hard_spaces),
    42: (2, _keep),
    45: (0, _keep),
    46: (1, without_soft_hyphens),
    48: (2, _keep),
    50: (3, _keep),
    51: (1, _ampersand),
    52: (0, _keep),
    53: (4, _keep),
    54: (0, _phone),
}
#: Characters dropped: untokenisable ones, white space, a byte order mark or the like.
DROPPED: Final = frozenset((1, 7, 23))
#: Rules with a look-ahead of any length: entry states of the token's and of the look-ahead's automata.
LOOKAHEAD: Final[Mapping[int, tuple[int, int]]] = {
    24: (13, 14),
    30: (3, 4),
    40: (5, 6),
    41: (16, 17),
    43: (15, 14),
    44: (9, 10),
    47: (7, 8),
    49: (11, 12),
}
NEWLINE: Final = 5
#: An abbreviation that ends a sentence; its full stop is a token of its own besides.
SENTENCE_END: Final = 33
#: A quotation mark, of which the rule has matched what follows too.
OPENING_QUOTE: Final = 35

_CLASS_FILE: Final = "edu/stanford/nlp/process/PTBLexer.class"
_CLASS_SHA256: Final = "715fdfb3652cc6796f90f28442378a0c71c92b5909f1fc934f698497987b6dd0"
#: Constant pool indices of the packed tables in that class file.
_ACTIONS, _ROWS, _TRANSITIONS, _ATTRIBUTES, _CHARACTER_CLASSES = 1, 5, (8, *range(10, 18)), 18, 243
_CLASSES: Final = 125
_START: Final = 2
_ACCEPTS, _ENDS = 1, 8

_LINE_SPACES = " \t\n\x0b\x0c\r\x85"
_BEYOND = re.compile("[\U00010000-\U0010ffff]")


class UnknownLexerError(Exception):
    """The jar holds another lexer than the one whose tables are known."""


def _constants(data: bytes) -> dict[int, bytes]:
    """String constants of a class file by constant pool index (JVM specification, 4.4)."""
    (count,) = struct.unpack_from(">H", data, 8)
    texts: dict[int, bytes] = {}
    references: dict[int, int] = {}
    position, index = 10, 1
    while index < count:
        tag = data[position]
        if tag == 1:
            (length,) = struct.unpack_from(">H", data, position + 1)
            texts[index] = data[position + 3 : position + 3 + length]
            position += 3 + length
        elif tag in (7, 8):
            if tag == 8:
                (references[index],) = struct.unpack_from(">H", data, position + 1)
            position += 3
        elif tag in (5, 6):
            position += 9
            index += 1
        else:
            position += 5
        index += 1
    return {index: texts[reference] for index, reference in references.items()}


def _units(constant: bytes) -> npt.NDArray[np.int64]:
    """UTF-16 units of a string constant in the class file's modified UTF-8."""
    text = constant.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").astype(np.int64)


def _run_lengths(*constants: bytes) -> npt.NDArray[np.int64]:
    pairs = np.concatenate([_units(constant) for constant in constants]).reshape(-1, 2)
    return np.repeat(pairs[:, 1], pairs[:, 0])


class _Rows(dict[int, list[int]]):
    """Next state by character class, for each state; a row is unpacked when it is first needed."""

    def __init__(self, offsets: npt.NDArray[np.int64], transitions: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self._offsets, self._transitions = offsets, transitions

    def __missing__(self, state: int) -> list[int]:
        offset = int(self._offsets[state])
        row: list[int] = self._transitions[offset : offset + _CLASSES].tolist()
        self[state] = row
        return row


class Automaton:
    """The lexer's automaton and actions.

    Texts are strings of UTF-16 units (`utf16_units`), as the lexer sees them, with newlines between lines.
    """

    def __init__(self, jar: Path) -> None:
        """Read the tables.

        Raises:
            UnknownLexerError: the jar cannot be read or holds another lexer.
        """
        try:
            with zipfile.ZipFile(jar) as archive:
                data = archive.read(_CLASS_FILE)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UnknownLexerError(str(error)) from error
        if hashlib.sha256(data).hexdigest() != _CLASS_SHA256:
            raise UnknownLexerError(f"{jar}: not the lexer of CoreNLP 3.4.1")
        constants = _constants(data)
        high_low = _units(constants[_ROWS]).reshape(-1, 2)
        transitions = _run_lengths(*(constants[index] for index in _TRANSITIONS)) - 1
        self._rows = _Rows((high_low[:, 0] << 16) | high_low[:, 1], transitions)
        self._actions: list[int] = _run_lengths(constants[_ACTIONS]).tolist()
        self._attributes: list[int] = _run_lengths(constants[_ATTRIBUTES]).tolist()
        self._classes = _run_lengths(constants[_CHARACTER_CLASSES]).astype(np.uint8)
        self._first_classes: bytes = self._classes[:256].tobytes()
        #: Classes that a run of white space swallows after its first space.
        spaces = self._rows[self._rows[_START][self._classes[32]]]
        self._swallowed = frozenset(index for index, state in enumerate(spaces) if state >= 0)

    def classes(self, text: str) -> bytes:
        """Character class of each UTF-16 unit."""
        if text.isascii():
            return text.encode("ascii").translate(self._first_classes)
        units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
        classes: bytes = self._classes[units].tobytes()
        return classes

    def starts_with_space(self, classes: bytes) -> bool:
        """Whether white space before it would swallow the first character."""
        return bool(classes) and classes[0] in self._swallowed

    def token(self, text: str, classes: bytes, start: int) -> tuple[str | None, int, int]:
        r"""Scan one token.

        Returns:
            the token in lower case ("\n" for a newline, None for dropped characters); where the next one
            starts; how many characters of the text were looked at (one more than there are if its end was).

        Raises:
            UncertainTokenError: see there.
        """
        rows, attributes = self._rows, self._attributes
        state, accepted, end = _START, -1, start
        position, size = start, len(text)
        while True:
            if position == size:
                position += 1
                break
            state = rows[state][classes[position]]
            position += 1
            if state < 0:
                break
            attribute = attributes[state]
            if attribute & _ACCEPTS:
                accepted, end = state, position
                if attribute & _ENDS:
                    break
        if accepted < 0:
            raise UncertainTokenError(f"no rule for {text[start : start + 20]!r}")
        token, end = self._act(self._actions[accepted], text, classes, start, end)
        return token, end, position

    def _act(self, action: int, text: str, classes: bytes, start: int, end: int) -> tuple[str | None, int]:
        if action in PLAIN:
            back, rewrite = PLAIN[action]
            end -= back
            return lower_case(rewrite(text[start:end])), end
        if action in DROPPED:
            return None, end
        if action == NEWLINE:
            return "\n", end
        if action == SENTENCE_END:
            return lower_case(text[start:end]), end - 1
        if action == OPENING_QUOTE:
            return lower_case(left_quotes(text[start : start + 1])), start + 1
        return self._look_ahead(action, text, classes, start, end)

    def _look_ahead(
        self, action: int, text: str, classes: bytes, start: int, end: int
    ) -> tuple[str | None, int]:
        end = self._token_end(*LOOKAHEAD[action], classes, start, end)
        if action in (44, 47):
            end = start + len(text[start:end].rstrip(_LINE_SPACES))
        if action == 47 and end - start == 2:
            end -= 1
            return lower_case(text[start:end]), end
        token = text[start:end]
        if action in (47, 49):
            end -= 1
        if action in (30, 40):
            token = without_soft_hyphens(token)
        return lower_case(token), end

    def _token_end(self, forward: int, backward: int, classes: bytes, start: int, end: int) -> int:
        """End of the token in a match of token and look-ahead: the last split that suits both automata."""
        rows, attributes = self._rows, self._attributes
        ends = set()
        state = forward
        for position in range(start, end + 1):
            if attributes[state] & _ACCEPTS:
                ends.add(position)
            if position == end:
                break
            state = rows[state][classes[position]]
            if state < 0:
                break
        state, position = backward, end
        while position not in ends or not attributes[state] & _ACCEPTS:
            position -= 1
            if position < start or (state := rows[state][classes[position]]) < 0:
                raise UncertainTokenError("no end for a token with look-ahead")
        return position


def utf16_units(text: str) -> str:
    """The text with each character beyond U+FFFF as its two surrogates."""
    if text.isascii() or not _BEYOND.search(text):
        return text
    return _BEYOND.sub(_surrogates, text)


def _surrogates(match: re.Match[str]) -> str:
    high, low = struct.unpack("<HH", match[0].encode("utf-16-le"))
    return chr(high) + chr(low)
