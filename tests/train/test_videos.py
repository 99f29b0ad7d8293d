"""Videos: how many frames are shown, and what is found before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import make_recipe

from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.plan import plan_data
from mini_internvl_train.sample_images import _nearest, sample_tiles
from mini_internvl_train.samples import TrainingSet
from mini_internvl_train.start import load_start


def video(path: Path, frames: int) -> None:
    """One second of frames that are ever lighter."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=frames)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for place in range(frames):
            shown = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * place, np.uint8), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


def clips_of(folder: Path, entry: dict[str, Any], line: dict[str, Any], **settings: Any) -> TrainingSet:
    recipe = make_recipe(folder, samples=1, **settings)
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "red"}]
    (folder / "data/colours.jsonl").write_text(json.dumps({"conversations": turns, **line}) + "\n")
    meta = {"colours": {"root": "pictures", "annotation": "colours.jsonl", **entry}}
    (folder / "data/colours.json").write_text(json.dumps(meta))
    return plan_data(recipe, load_start(recipe))[0]


def test_frames_of_a_video_are_a_setting(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "data/pictures").mkdir(parents=True)
    video(tmp_path / "data/pictures/a.mp4", 20)
    line = {"video": "a.mp4"}
    for entry, settings, frames in (({}, {}, 8), ({}, {"data__frames": 3}, 3), ({"frames": 2}, {}, 2)):
        data = clips_of(tmp_path, entry, line, **settings)
        sample = data.sample(0)
        assert data.lengths[0].tiles == frames == len(sample.grids)
        assert f"Frame{frames}: <image>" in sample.conversation.turns[0].text
        assert f"Frame{frames + 1}" not in sample.conversation.turns[0].text
    recipe = make_recipe(tmp_path, samples=1)
    tiles = sample_tiles(sample.conversation, sample.grids, load_start(recipe).tiling, lambda image: image)
    lightness = [float(tile.float().mean()) for tile in tiles]
    assert lightness == pytest.approx([50, 150], abs=4)  # the middles of two halves


def test_frames_of_a_clip_are_nearest_to_the_middles_of_its_parts() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert _nearest(times, (2.0, 6.0), 2) == [3, 5]
    assert _nearest(times, (2.0, 6.0), 1) == [4]
    assert _nearest(times[:3], (0.0, 8.0), 2) == [2, 2]
    assert _nearest(times, None, 2) == [2, 6] and _nearest([], (0.0, 1.0), 2) == []


@pytest.mark.parametrize(
    ("entry", "line", "settings", "message"),
    [
        ({"frames": 0}, {}, {}, r"frames 0 is not a number from 1 to 128"),
        ({"augment": "no"}, {}, {}, "neither true nor false"),
        ({}, {"video": "no.mp4"}, {}, r"colours\.jsonl:1: video .*no\.mp4 missing"),
        ({}, {"video": "bad.mp4"}, {}, r"colours\.jsonl:1: video .*bad\.mp4 cannot be decoded"),
        ({}, {"video": "a.mp4", "clip": [5, 6]}, {}, r"a\.mp4 has no frame within the clip"),
        ({}, {"video": "a.mp4"}, {"data__max_pixels": 100}, r"64 x 48 pixels, more than 100"),
        ({"frames": 128}, {"video": "a.mp4"}, {}, "lower frames or raise max_tokens"),
    ],
)
def test_bad_videos_and_entries_are_found_before_the_first_step(
    entry: dict[str, Any], line: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    (tmp_path / "data/pictures").mkdir(parents=True)
    video(tmp_path / "data/pictures/a.mp4", 4)
    (tmp_path / "data/pictures/bad.mp4").write_bytes(b"no video")
    with pytest.raises(TrainingDataError, match=message):
        clips_of(tmp_path, entry, line or {"video": "a.mp4"}, **settings)
