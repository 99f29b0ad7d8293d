"""The miniature of BDD-X: `test.json`, conversations of four turns over the frames of a clip."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit_tasks.miniatures import clips, questions
from evalkit_tasks.miniatures.drawing import generator

CLIPS = 70


def draw(folder: Path) -> None:
    """Writes 70 clips of four frames each."""
    rng = generator("bdd-x", 0)
    listing = []
    for number in range(CLIPS):
        clip = clips.clip(rng, training=False)
        frames = []
        for index, view in enumerate(clip.views()):
            path = Path("frames") / str(number) / f"{index}.jpg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            view.image.save(folder / path, quality=95)
            frames.append(path.as_posix())
        turns = []
        for asked in questions.about_clip(clip):
            turns.append({"from": "human", "value": asked.text})
            turns.append({"from": "gpt", "value": asked.answer})
        listing.append({"id": str(number), "image": frames, "conversations": turns})
    (folder / "test.json").write_text(json.dumps(listing), encoding="utf-8")
