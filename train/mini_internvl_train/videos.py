"""Frames of a training video: the middles of equal parts of the file, or of a clip in it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mini_internvl_train.errors import TrainingDataError, TrainingError

if TYPE_CHECKING:
    from PIL.Image import Image


def check_decoder(where: str) -> None:
    """Raises TrainingError where PyAV is not installed: no fault of the sample, so never skipped."""
    if find_spec("av") is None:
        raise TrainingError(f"{where}: video needs PyAV: pip install 'evalkit[video]'")


def video_frames(path: str, clip: tuple[float, float] | None, count: int, where: str) -> list[Image]:
    """`count` frames in one pass over the file.

    Args:
        path: of the video.
        clip: first and last second; None takes the whole file.
        count: parts of equal length, of each the frame in its middle.
        where: file and line of the sample, for messages.

    Raises:
        TrainingDataError: the file is missing, cannot be decoded or is shorter than the clip.
        TrainingError: PyAV is not installed.
    """
    check_decoder(where)
    import av

    if not Path(path).is_file():
        raise TrainingDataError(f"{where}: video {path} missing")
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            times = [float(frame.time or 0.0) for frame in container.decode(stream)]
            wanted = _nearest(times, clip, count)
            container.seek(0)
            found = {
                index: frame.to_image()
                for index, frame in enumerate(container.decode(stream))
                if index in set(wanted)
            }
    except (av.FFmpegError, IndexError, OSError) as error:
        raise TrainingDataError(f"{where}: video {path} cannot be decoded ({error})") from None
    if not times or (clip is not None and clip[0] > times[-1]):
        raise TrainingDataError(f"{where}: video {path} has no frame within the clip {clip}")
    return [found[index] for index in wanted]


def _nearest(times: list[float], clip: tuple[float, float] | None, count: int) -> list[int]:
    """Indices of the frames nearest to the middles of `count` equal parts."""
    if clip is None:
        return [int(len(times) * (part + 0.5) / count) for part in range(count)]
    start, end = clip
    middles = [start + (end - start) * (part + 0.5) / count for part in range(count)]
    return [min(range(len(times)), key=lambda i: abs(times[i] - middle)) for middle in middles if times]
