"""Questions about the drawn worlds, worded as each benchmark words its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from evalkit_tasks.miniatures import cameras, charts, clips, pages, scenes, tiles
from evalkit_tasks.miniatures.drawing import COLOURS, SHAPES, SIDE, Box

_Choice = TypeVar("_Choice")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a benchmark with its answer.

    Attributes:
        kind: what it asks for (`color`, `presence` ...), as the benchmark's own field names it.
        text: the question as stored in the benchmark's file.
        answer: the answer as stored.
        options: texts of A, B, C, D where the benchmark stores them apart.
    """

    kind: str
    text: str
    answer: str
    options: tuple[str, ...] = ()


def about_scene(scene: scenes.Scene, rng: random.Random) -> list[Asked]:
    """MMBench: four kinds of questions, each with four options in drawn order; the answer is the letter."""
    thing = rng.choice(scene.things)
    other = rng.choice(scene.things)
    counts = ("1", "2", "3", "4")
    asked = [
        ("color", f"What is the color of the {thing.shape}?", thing.colour, tuple(COLOURS)),
        ("shape", f"What is the shape of the {other.colour} object?", other.shape, SHAPES),
        ("count", "How many objects are in the picture?", str(len(scene.things)), counts),
    ]
    placed = rng.choice(scene.things)
    asked.append(("place", f"Where is the {placed.shape}?", placed.place, scenes.PLACES))
    return [_choice(kind, text, right, known, rng) for kind, text, right, known in asked]


def _choice(kind: str, text: str, right: str, known: Sequence[str], rng: random.Random) -> Asked:
    options = [right, *rng.sample([option for option in known if option != right], 3)]
    rng.shuffle(options)
    return Asked(kind, text, "ABCD"[options.index(right)], tuple(options))


def about_chart(chart: charts.Chart, rng: random.Random) -> list[Asked]:
    """ChartQA: the first is of the `augmented` kind (a value), the others of the `human` kind."""
    colour, value = rng.choice(chart.bars)
    return [
        Asked("augmented", f"What is the value of the {colour} bar?", str(value)),
        Asked("human", "Which color is the highest bar?", max(chart.bars, key=lambda bar: bar[1])[0]),
        Asked("human", "Which color is the lowest bar?", min(chart.bars, key=lambda bar: bar[1])[0]),
        Asked("human", "How many bars are there?", str(len(chart.bars))),
    ]


def about_page(page: pages.Page) -> list[Asked]:
    """DocVQA: every entry of the page."""
    return [Asked(label, pages.QUESTIONS[label], value) for _, label, value in page.entries]


def about_tile(tile: tiles.Tile, rng: random.Random) -> list[Asked]:
    """RSVQA: area, presence, comparison and count; yes and no are equally likely."""
    name = _balanced(
        rng, [n for n in tiles.NAMES if tile.count(n)], [n for n in tiles.NAMES if not tile.count(n)]
    )
    single = tiles.NAMES[name][0]
    form = rng.choice(
        (f"Is a {single} present?", f"Is there a {single}?", f"Is a {single} present in the image?")
    )
    pairs = [(a, b) for a in tiles.NAMES for b in tiles.NAMES if a != b]
    more = [(a, b) for a, b in pairs if tile.count(a) > tile.count(b)]
    a, b = _balanced(rng, more, [pair for pair in pairs if pair not in more])
    counted = rng.choice(("building", "water", "forest"))
    return [
        Asked("rural_urban", "Is it a rural or an urban area", tile.area),
        Asked("presence", form, _yes(tile.count(name) > 0)),
        Asked(
            "comp",
            f"Are there more {tiles.NAMES[a][1]} than {tiles.NAMES[b][1]}?",
            _yes(tile.count(a) > tile.count(b)),
        ),
        Asked("count", f"What is the number of {tiles.NAMES[counted][1]}?", str(tile.count(counted))),
    ]


def _balanced(rng: random.Random, yes: Sequence[_Choice], no: Sequence[_Choice]) -> _Choice:
    """One of either kind with equal chance, where there are both."""
    return rng.choice((yes if rng.random() < 0.5 else no) or yes or no)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def about_overhead(scene: scenes.Scene) -> list[tuple[str, Box]]:
    """DIOR-RSVG: an expression and a box in pixels for each thing."""
    return [(f"A {thing.colour} {thing.shape}", thing.box) for thing in scene.things]


def box_answer(expression: str, box: Box) -> str:
    """A grounding answer in thousandths of the image."""
    corners = ", ".join(str(round(1000 * value / SIDE)) for value in box)
    return f"<ref>{expression}</ref><box>[[{corners}]]</box>"


def about_clip(clip: clips.Clip) -> list[Asked]:
    """BDD-X: the four turns."""
    return [
        Asked("description", "What is the action of ego car?", clip.action),
        Asked("justification", "Why does the ego car doing this?", clip.justification),
        Asked("speed", "Predict the speed of the ego car in the next frame.", f"{clip.speed}"),
        Asked("angle", "Predict the turning angle of the ego car in the next frame.", f"{clip.angle}"),
    ]


SELECT = "Please select the correct answer from the following options:"


def about_frame(frame: cameras.Frame) -> list[tuple[str, int, str, str]]:
    """DriveLM: (part of the graph, tag, question, answer), in the benchmark's order and wording."""
    first, last = frame.objects[0], frame.objects[-1]
    c1, cn = first.tag(1), last.tag(len(frame.objects))
    status, letter = _letters(first.status, cameras.STATUSES)
    behaviour, chosen = _letters(frame.behaviour, tuple(cameras.BEHAVIOURS.values()))
    return [
        ("perception", 2, _IMPORTANT, frame.detection),
        ("perception", 0, f"What is the moving status of object {c1}? {SELECT} {status}", letter),
        ("prediction", 3, _NOTICE, frame.attention),
        (
            *("prediction", 0, f"Is {cn} a traffic sign or a road barrier?"),
            "Yes." if last.kind == "barrier" else "No.",
        ),
        ("planning", 1, f"What actions could the ego vehicle take based on {c1}? {_WHY}", frame.plan),
        (
            "planning",
            1,
            f"What actions taken by the ego vehicle can lead to a collision with {c1}?",
            frame.danger,
        ),
        ("planning", 1, "In this scenario, what are safe actions to take for the ego vehicle?", frame.safe),
        ("behavior", 0, f"Predict the behavior of the ego vehicle. {SELECT} {behaviour}", chosen),
    ]


_IMPORTANT = (
    "What are the important objects in the current scene? Those objects will be considered for the future "
    "reasoning and driving decision."
)
_NOTICE = (
    "What object should the ego vehicle notice first when the ego vehicle is getting to the next possible "
    "location? What is the state of the object that is first noticed by the ego vehicle and what action "
    "should the ego vehicle take?"
)
_WHY = "Why take this action and what's the probability?"


def _letters(right: str, known: Sequence[str]) -> tuple[str, str]:
    """Options always in one order, which keeps the choice easy, and the right one's letter."""
    listed = " ".join(f"{letter}. {option}" for letter, option in zip("ABCD", known, strict=True))
    return listed, "ABCD"[known.index(right)]
