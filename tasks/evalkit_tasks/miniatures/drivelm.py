"""The miniature of DriveLM: `test_eval.json` (questions, answers, tags) and six cameras a frame."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit_tasks.miniatures import cameras, questions
from evalkit_tasks.miniatures.drawing import generator

FRAMES = 40


def draw(folder: Path) -> None:
    """Writes 40 frames of eight questions, one frame a scene, images 1600x900."""
    rng = generator("drivelm", 0)
    scenes: dict[str, object] = {}
    for number in range(FRAMES):
        frame = cameras.frame(rng, training=False)
        scene, key = f"{number:032x}", f"{FRAMES + number:032x}"
        paths = {}
        for name in cameras.CAMERAS:
            path = Path("nuscenes") / "samples" / name / f"drawn__{name}__{number:04d}.jpg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            frame.camera(name, (cameras.WIDTH, cameras.HEIGHT)).image.save(folder / path, quality=85)
            paths[name] = f"../{path.as_posix()}"
        graph: dict[str, list[dict[str, object]]] = {
            part: [] for part in ("perception", "prediction", "planning", "behavior")
        }
        for part, tag, text, answer in questions.about_frame(frame):
            links = dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer"))
            graph[part].append({"Q": text, "A": answer, **links, "tag": [tag]})
        scenes[scene] = {"key_frames": {key: {"QA": graph, "image_paths": paths}}}
    (folder / "test_eval.json").write_text(json.dumps(scenes), encoding="utf-8")
