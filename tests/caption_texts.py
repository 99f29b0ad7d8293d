"""Captions for the tests: everything that a tokeniser may trip over, and ordinary prose."""

from __future__ import annotations

import random


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(" "))


#: Contractions, abbreviations, numbers, dates, tags, addresses, quotes, dashes, symbols, scripts, controls.
PIECES = _split(
    "a the The car's can't cannot gonna Gonna wanna gotta lemme gimme doesn't 'tis 'Twas o'clock "
    "I'm we'll they've d'ye ma'am y'all ol' 'em rock'n'roll more'n doN'T CAN'T IT'S 'RE N'T 'd "
    "'ll 'm 's n't it’s don’t ’tis it´s it`s O'Reilly d'Artagnan U.S. U.S.A. Mr. Mrs. Dr. St. "
    "No. no. Inc. Corp. Ltd. Co. e.g. i.e. etc. vs. cf. al. a.m. p.m. Jan. Sept. sept. Mon. "
    "Ph.D. Jr. Gen. Calif. L.A. D.C. A. B. I. C. c. k. ky. bldg. Ft. ft. in. pp. p.45 Fig. Nos. "
    "No.5 3.5m 10:30 10:30am 1,000 1,000.50 -5.2 +3 1/2 3/4 5 12 1 2.0.1 2012-03-04 03/04/2012 "
    "555-1234 (650) 650-555-1234 +1 $5 US$5 £3 €4 €5 ¥5 ¢ ₤ ₠ ¤ 50% #1 #tag @user '90s 1990s "
    "20th 1st v1.2 192.168.0.1 5'10\" foo@bar.com http://www.x.com/a?b=c&d=e www.google.com "
    "x.com bar.org <c1,CAM_BACK,1088.3,497.5> <c2,CAM_FRONT_LEFT,12.0,3.0> <c1, "
    "<box>[[1,2,3,4]]</box> <a href='x'> <a href=\"y z\"> <b> </b> <br/> <!-- --> <?xml ?> <k "
    "k=' '> &amp; &AMP; &lt; &gt; &quot; &apos; &nbsp; & AT&T R&D \"hi\" 'hi' ``x'' “q” ‘q’ «x» "
    "„x ‹x› ' '' ` `` ´ – — ― - -- --- ---- ----- … ... .... .. . ! ? !! ?! ; : , ( ) [ ] { } \\ "
    "/ * ** _ __ ~ ^ | = == => -> <- :) :-) ;-) :( :D =D <3 ^_^ (-: =d -LRB- -lrb- *NL* a/b "
    "and/or w/o 1/2/3 A/C red/green km/h 60mph m² A-B well-known e-mail co-op pre- anti-x "
    "non-U.S. C++ C# .NET Node.js file.txt /usr/bin/x C:\\x\\y é naïve Über ß İ Σ ΣΑΣ ÀÉ Ω Ж 中文 "
    "汽车。 مرحبا हिन्दी 한국 日本 Việt ﬁ Ａ Ⓐ ǅ 😀 👍🏽 🇨🇳 ✅ ❌ \xad a\xadb \xa0 x\xa0y \u200b \ufeff "
    "\u2009 \u3000 \x00 \x01 \x1f \x7f \x80 \x91x\x92 \x93x\x94 ½ 1½ ¼ ⅓ 2⅔ × ° ± ². ſ.h \t \n "
    "\r \r\n \x0b \x0c \x85 \u2028"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SIGNS = "'\"`.,;:!?-_()[]{}<>/\\*&%$#@^~|=+ \t’‘“”–—…\u00a0\u00ad<<..''"
_PROSE = _split(
    "the ego vehicle car truck is are going ahead turning left right slowly because a pedestrian "
    "crosses road at traffic light red green and stops moving forward lane changes keeps speed "
    "should not accelerate it's 5 m/s"
)


def wild_caption(rng: random.Random) -> str:
    """A caption no person would write."""
    kind = rng.random()
    if kind < 0.02:
        return ""
    if kind < 0.5:
        return " ".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 12)))
    if kind < 0.65:
        joints = ("", " ", "", ".", ",", "'")
        return "".join(rng.choice(PIECES) + rng.choice(joints) for _ in range(rng.randrange(1, 12)))
    if kind < 0.85:
        alphabet = "abcdefUST19 .,'-/ &<>=:()" + _SIGNS
        return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 25)))
    return "".join(_character(rng) for _ in range(rng.randrange(1, 30)))


def _character(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(_LETTERS)
    if kind < 0.8:
        return rng.choice(_SIGNS)
    if kind < 0.9:
        return chr(rng.randrange(0x80, 0x530))
    if kind < 0.97:
        return chr(rng.choice((rng.randrange(0x530, 0xD800), rng.randrange(0xE000, 0x10000))))
    return chr(rng.randrange(0x10000, 0x1FFFF)) if kind < 0.99 else chr(rng.randrange(32))


def prose_caption(rng: random.Random) -> str:
    """A caption as models write them."""
    words = [rng.choice(_PROSE) for _ in range(rng.randrange(3, 20))]
    return " ".join(words).capitalize() + rng.choice((".", "", ".", "!"))


def noisy_copy(rng: random.Random, caption: str) -> str:
    """The caption with some words lost and some replaced."""
    words = [word if rng.random() < 0.85 else rng.choice(_PROSE) for word in caption.split(" ")]
    return " ".join(word for word in words if rng.random() < 0.9)
