"""The miniature of TextVQA: `TextVQA_0.5.1_val.json` and `train_images/`."""

from __future__ import annotations

import json
import random
from pathlib import Path

from evalkit_tasks.miniatures import pages
from evalkit_tasks.miniatures.drawing import COLOURS, SIDE, Pen, generator, pale

SIGNS = 24
WORDS = tuple(word for words in pages.WORDS.values() for word in words)


def draw(folder: Path) -> None:
    """Writes 24 coloured signs with a word, each read by ten people of whom some misread it."""
    rng = generator("textvqa", 0)
    images = folder / "train_images"
    images.mkdir(parents=True, exist_ok=True)
    data = []
    for number in range(SIGNS):
        word, colour = rng.choice(WORDS), rng.choice(sorted(COLOURS))
        pen = Pen((SIDE, SIDE), pale(rng))
        pen.rectangle((8, 32, 120, 96), COLOURS[colour])
        pen.rectangle((14, 38, 114, 90), (250, 250, 250))
        pen.text((22, 46), word, 28, (20, 20, 20))
        name = f"{number:016x}"
        pen.image.save(images / f"{name}.jpg", quality=95)
        data.append(
            {
                "question": "What is written on the sign?",
                "image_id": name,
                "image_width": SIDE,
                "image_height": SIDE,
                "question_id": 34602 + number,
                "answers": _people(word.lower(), rng),
                "set_name": "val",
            }
        )
    listing = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data}
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps(listing), encoding="utf-8")


def _people(word: str, rng: random.Random) -> list[str]:
    """Ten answers: most are the word, one to three are something else."""
    others = rng.sample(["unanswerable", word[:-1], f"{word} sign"], rng.randint(1, 3))
    answers = [word] * (10 - len(others)) + others
    rng.shuffle(answers)
    return answers
