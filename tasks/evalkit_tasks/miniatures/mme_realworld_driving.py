"""The miniature of MME-RealWorld on driving: `MME_RealWorld.json` and `AutonomousDriving/`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalkit_tasks.miniatures import cameras
from evalkit_tasks.miniatures.drawing import generator

FRAMES = 12
_ABSENT = "The image does not feature the object."


def draw(folder: Path) -> None:
    """Writes 12 frames with two questions of perception and one of reasoning each."""
    rng = generator("mme-realworld-driving", 0)
    (folder / "AutonomousDriving").mkdir(parents=True, exist_ok=True)
    items: list[dict[str, object]] = []
    for number in range(FRAMES):
        frame = cameras.frame(rng, training=False)
        shown = frame.objects[0]
        name = f"AutonomousDriving/drawn_{number:04d}.jpg"
        frame.camera(shown.camera, (cameras.WIDTH, cameras.HEIGHT)).image.save(folder / name, quality=90)
        for task, category, text, choices, letter in _asked(shown, rng):
            items.append(
                {
                    "Question_id": f"{task}/Autonomous_Driving/{category}/{len(items):04d}",
                    "Question Type": "Multiple Choice",
                    "Image": name,
                    "Text": text,
                    "Answer choices": choices,
                    "Ground truth": letter,
                    "Task": task,
                    "Subtask": "Autonomous_Driving",
                    "Category": category,
                }
            )
    (folder / "MME_RealWorld.json").write_text(json.dumps(items), encoding="utf-8")


def _asked(shown: cameras.Object, rng: random.Random) -> Iterator[tuple[str, str, str, list[str], str]]:
    colours = ("red", "green", "blue", "yellow", "black")
    moves = tuple(action for _, action in cameras.STATES.values())
    right = cameras.STATES[shown.status][1]
    asked = (
        ("Perception", "Objects_Identify", "What is in the image?", shown.kind, (*cameras.KINDS, "bus")),
        ("Perception", "Attribute_Visual", f"What is the color of the {shown.kind}?", shown.colour, colours),
        ("Reasoning", "Intention", "What should the ego vehicle do?", right, (*moves, "turn around")),
    )
    for task, category, text, answer, known in asked:
        yield (task, category, text, *_choices(answer, known, rng))


def _choices(right: str, known: Sequence[str], rng: random.Random) -> tuple[list[str], str]:
    """Four choices and the fifth that says the object is absent; the letter of the right one."""
    others = [option for option in dict.fromkeys(known) if option != right]
    options = rng.sample([right, *rng.sample(others, 3)], 4)
    listed = [f"({letter}) {text}" for letter, text in zip("ABCDE", [*options, _ABSENT], strict=True)]
    return listed, "ABCD"[options.index(right)]
