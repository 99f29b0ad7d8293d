"""What the Stanford lexer does with the text that one of its rules has matched.

The rules are those of CoreNLP 3.4.1, numbered as in its generated lexer, under the options that
pycocoevalcap uses: brackets, quotes, dashes, currencies and fractions are spelled as in the Penn Treebank,
slashes are not escaped, British spelling stays, characters that belong to no token are dropped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

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
