"""Frames of video files, decoded by PyAV (extra `video`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image


def frame(path: str, position: int, of: int) -> Image:
    """The middle frame of the `position`-th (from 0) of `of` equal parts of a video.

    Raises:
        ImageError: the file is missing or holds no such frame, or PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise ImageError(f"{path}: video needs PyAV: pip install 'evalkit[video]'") from None
    if not Path(path).is_file():
        raise ImageError(f"{path}: video missing: put it there or check the data root")
    from PIL import Image as pillow

    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            total = stream.frames or sum(1 for _ in container.decode(stream))
            wanted = min(total - 1, int(total * (position + 0.5) / of))
            container.seek(0)
            for index, picture in enumerate(container.decode(stream)):
                if index == wanted:
                    decoded = picture.to_image()
                    assert isinstance(decoded, pillow.Image)
                    return decoded
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ImageError(f"{path}: video cannot be decoded ({error}): replace the file") from None
    raise ImageError(f"{path}: video ends before frame {position + 1} of {of}: replace the file")
