"""Lessons for the embedded model: drawn images with questions as the benchmarks' protocols ask them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from evalkit_tasks.driving.drivelm import TAG_SENTENCE
from evalkit_tasks.driving.drivelm_coordinates import encode_tags
from evalkit_tasks.miniatures import cameras, charts, clips, pages, questions, scenes, tiles
from evalkit_tasks.miniatures.drawing import COLOURS, SHAPES, SIDE, Box, View

LETTER = "\nAnswer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."


@dataclass(frozen=True, slots=True)
class Ask:
    """A question in the protocol's wording.

    Attributes:
        kind: what accuracies are listed by.
        about: view and box (pixels) of the one thing that the answer is read from, where it is one.
        names: words of the question that name it.
    """

    kind: str
    text: str
    answer: str
    about: tuple[int, Box] | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lesson:
    """Images (one tile each), the user's text before the question, and separate questions.

    `opening` holds `<image>` marks; `tiles` gives the number of tiles of each.
    """

    views: tuple[View, ...]
    opening: str
    tiles: tuple[int, ...]
    asks: tuple[Ask, ...]


def mmbench(rng: Random, training: bool) -> Lesson:
    """Choices. The answer is the option's text, which the protocol reduces to its letter."""
    scene = scenes.quartered(rng, training)
    asks = []
    for asked in questions.about_scene(scene, rng):
        text = f"{asked.text}{_listed(asked.options)}{LETTER}"
        answer = asked.options["ABCD".index(asked.answer)]
        things = [t for t in scene.things if {t.shape, t.colour} & set(asked.text.rstrip("?").split())]
        seen = ((0, things[0].box), (things[0].shape, things[0].colour)) if things else (None, ())
        asks.append(Ask(f"mmbench/{asked.kind}", text, answer, *seen))
    return Lesson((scene.view(),), "<image>\n", (1,), tuple(asks))


def chartqa(rng: Random, training: bool) -> Lesson:
    """Values, extremes and counts."""
    chart = charts.chart(rng, training)
    view = chart.view()
    bars = {region.labels["colour"]: (0, region.box) for region in view.regions}
    asks = []
    for asked in questions.about_chart(chart, rng):
        names = tuple(colour for colour in bars if colour in asked.text)
        seen = (bars[names[0]], names) if names else (None, ())
        asks.append(Ask(f"chartqa/{_last(asked.text)}", f"{asked.text} {SHORT}", asked.answer, *seen))
    if training:
        for colour, value in chart.bars:
            if colour not in asks[0].text:
                text = f"What is the value of the {colour} bar? {SHORT}"
                asks.append(Ask("chartqa/value", text, str(value), bars[colour], (colour,)))
    return Lesson((view,), "<image>\n", (1,), tuple(asks))


def _last(text: str) -> str:
    return next((word for word in ("value", "highest", "lowest") if word in text), "count")


def docvqa(rng: Random, training: bool) -> Lesson:
    """Entries of a page."""
    page = pages.page(rng, training)
    view = page.view()
    asks = []
    for asked, region in zip(questions.about_page(page), view.regions, strict=True):
        kind = "docvqa/number" if asked.answer.isdigit() else "docvqa/word"
        names = (region.labels["label"].lower(),)
        asks.append(Ask(kind, f"{asked.text} {SHORT}", asked.answer, (0, region.box), names))
    return Lesson((view,), "<image>\n", (1,), tuple(asks))


def rsvqa_lr(rng: Random, training: bool) -> Lesson:
    """Area, presence, comparison, count."""
    tile = tiles.tile(rng, training)
    drawn = questions.about_tile(tile, rng)
    if training:
        drawn += questions.about_tile(tile, rng)[1:]
    asks = tuple(Ask(f"rsvqa/{a.kind}", f"{a.text}\n{SHORT}", a.answer) for a in drawn)
    return Lesson((tile.view(),), "<image>\n", (1,), asks)


def dior_rsvg(rng: Random, training: bool) -> Lesson:
    """Boxes."""
    scene = scenes.overhead(rng, training)
    asks = []
    for expression, box in questions.about_overhead(scene):
        query = expression.lower()
        answer = questions.box_answer(query, box)
        names = tuple(query.split()[1:])
        asks.append(Ask("dior/box", f"Detect <ref>{query}</ref>", answer, (0, box), names))
    return Lesson((scene.view(),), "<image>\n", (1,), tuple(asks))


def bdd_x(rng: Random, training: bool) -> Lesson:
    """The four questions about a clip."""
    clip = clips.clip(rng, training)
    opening = "".join(f"Frame{i}: <image>\n" for i in range(1, clips.FRAMES + 1))
    asks = tuple(Ask(f"bddx/{a.kind}", a.text, a.answer) for a in questions.about_clip(clip))
    return Lesson(tuple(clip.views()), opening, (1,) * clips.FRAMES, asks)


def drivelm(rng: Random, training: bool) -> Lesson:
    """The graph's questions about six cameras."""
    frame = cameras.frame(rng, training)
    asks = []
    for part, tag, text, answer in questions.about_frame(frame):
        kind = f"drivelm/{part}-{tag}"
        about = next((_tile(o) for i, o in enumerate(frame.objects, 1) if o.tag(i) in text), None)
        asks.append(Ask(kind, f"{encode_tags(text)} {TAG_SENTENCE}", encode_tags(answer), about))
    if training:
        asks = rng.sample(asks, 4)
    return Lesson(tuple(frame.views()), "<image>\n", (13,), tuple(asks))


def repeat(rng: Random, training: bool) -> Lesson:
    """Text alone: say words again, from which attention to equal words comes soonest."""
    words = (*COLOURS, *SHAPES, *scenes.PLACES, "1", "2", "3", "4")
    asks = []
    for _ in range(3):
        line = " ".join(rng.choice(words) for _ in range(rng.randint(4, 10)))
        asks.append(Ask("repeat", f"Repeat: {line}", line))
    return Lesson((), "", (), tuple(asks))


def look(rng: Random, training: bool) -> Lesson:
    """Short questions about every thing of a scene: many lookups in few tokens, no benchmark's wording."""
    scene = rng.choice((scenes.quartered, scenes.overhead))(rng, training)
    asks = []
    for thing in scene.things:
        forms = [
            ("color", f"What is the color of the {thing.shape}?", thing.colour),
            ("shape", f"What is the shape of the {thing.colour} object?", thing.shape),
        ]
        if thing.place:
            forms.append(("place", f"Where is the {thing.shape}?", thing.place))
            forms.append(("place", f"Where is the {thing.colour} object?", thing.place))
        names = (thing.shape, thing.colour)
        asks += [Ask(f"look/{kind}", text, answer, (0, thing.box), names) for kind, text, answer in forms]
    return Lesson((scene.view(),), "<image>\n", (1,), tuple(rng.sample(asks, min(len(asks), 9))))


def look_around(rng: Random, training: bool) -> Lesson:
    """The same about six cameras: what is where, how it moves, and its tag."""
    frame = cameras.frame(rng, training)
    asks = []
    for number, o in enumerate(frame.objects, 1):
        name = f"{o.colour} {o.kind}"
        place = cameras.whereabouts(o.camera)
        seen = (_tile(o), (o.colour, o.kind))
        asks.append(Ask("around/place", f"Where is the {name}?", place, *seen))
        asks.append(Ask("around/thing", f"What is {place}?", name, *seen))
        asks.append(Ask("around/tag", f"Tag the {name}.", encode_tags(o.tag(number)), *seen))
        if o.status:
            text = f"What is the moving status of the {name}?"
            asks.append(Ask("around/status", text, o.status, *seen))
    return Lesson(tuple(frame.views()), "<image>\n", (13,), tuple(asks))


def _tile(o: cameras.Object) -> tuple[int, Box]:
    """The tile of the stitched image in which an object lies, and its box there."""
    x1, y1, x2, y2 = o.units()
    half = int(x1 >= SIDE)
    row, column = divmod(cameras.CAMERAS.index(o.camera), 3)
    return row * 6 + column * 2 + half, (x1 - half * SIDE, y1, x2 - half * SIDE, y2)


def _listed(texts: Sequence[str], gap: str = "\n") -> str:
    return "".join(f"{gap}{letter}. {text}" for letter, text in zip("ABCD", texts, strict=True))


LESSONS: Mapping[str, Callable[[Random, bool], Lesson]] = {
    "mmbench": mmbench,
    "chartqa": chartqa,
    "docvqa": docvqa,
    "rsvqa-lr": rsvqa_lr,
    "dior-rsvg": dior_rsvg,
    "bdd-x": bdd_x,
    "drivelm": drivelm,
    "repeat": repeat,
    "look": look,
    "look-around": look_around,
}
