"""Lessons of the embedded model: drawn pictures with questions as the benchmarks' protocols ask them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from evalkit_tasks.driving.drivelm import TAG_SENTENCE
from evalkit_tasks.driving.drivelm_coordinates import encode_tags
from evalkit_tasks.miniatures import cameras, charts, clips, pages, questions, scenes, tiles
from evalkit_tasks.miniatures.drawing import COLOURS, SHAPES, View

LETTER = "\nAnswer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."


@dataclass(frozen=True, slots=True)
class Ask:
    """A question in the protocol's wording; `kind` is what accuracies are listed by."""

    kind: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Lesson:
    """Pictures (one tile each), the user's text before the question, and questions apart from each other.

    `opening` holds `<image>` marks; `tiles` says how many tiles stand at each.
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
        asks.append(Ask(f"mmbench/{asked.kind}", text, asked.options["ABCD".index(asked.answer)]))
    return Lesson((scene.view(),), "<image>\n", (1,), tuple(asks))


def chartqa(rng: Random, training: bool) -> Lesson:
    """Values, extremes and counts."""
    chart = charts.chart(rng, training)
    asks = [
        Ask(f"chartqa/{_last(a.text)}", f"{a.text} {SHORT}", a.answer)
        for a in questions.about_chart(chart, rng)
    ]
    if training:
        asks += [
            Ask("chartqa/value", f"What is the value of the {colour} bar? {SHORT}", str(value))
            for colour, value in chart.bars
            if colour not in asks[0].text
        ]
    return Lesson((chart.view(),), "<image>\n", (1,), tuple(asks))


def _last(text: str) -> str:
    return next((word for word in ("value", "highest", "lowest") if word in text), "count")


def docvqa(rng: Random, training: bool) -> Lesson:
    """Entries of a page."""
    page = pages.page(rng, training)
    asks = tuple(
        Ask(f"docvqa/{'number' if a.answer.isdigit() else 'word'}", f"{a.text} {SHORT}", a.answer)
        for a in questions.about_page(page)
    )
    return Lesson((page.view(),), "<image>\n", (1,), asks)


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
        asks.append(Ask("dior/box", f"Detect <ref>{query}</ref>", answer))
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
        asks.append(Ask(kind, f"{encode_tags(text)} {TAG_SENTENCE}", encode_tags(answer)))
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
        asks.append(Ask("look/color", f"What is the color of the {thing.shape}?", thing.colour))
        asks.append(Ask("look/shape", f"What is the shape of the {thing.colour} object?", thing.shape))
        if thing.place:
            asks.append(Ask("look/place", f"Where is the {thing.shape}?", thing.place))
            asks.append(Ask("look/place", f"Where is the {thing.colour} object?", thing.place))
    return Lesson((scene.view(),), "<image>\n", (1,), tuple(rng.sample(asks, min(len(asks), 9))))


def look_around(rng: Random, training: bool) -> Lesson:
    """The same about six cameras: what is where, how it moves, and its tag."""
    frame = cameras.frame(rng, training)
    asks = []
    for number, o in enumerate(frame.objects, 1):
        name = f"{o.colour} {o.kind}"
        place = cameras.whereabouts(o.camera)
        asks.append(Ask("around/place", f"Where is the {name}?", place))
        asks.append(Ask("around/thing", f"What is {place}?", name))
        asks.append(Ask("around/tag", f"Tag the {name}.", encode_tags(o.tag(number))))
        if o.status:
            asks.append(Ask("around/status", f"What is the moving status of the {name}?", o.status))
    return Lesson(tuple(frame.views()), "<image>\n", (13,), tuple(asks))


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
