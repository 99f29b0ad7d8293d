"""The door for images: which formats are decoded, how large an image may be, and what a damaged one does.

`--max-pixels` is a limit of the whole process. It is set from the option before an image is opened: by
`make_job`, by `LoadModel` in each worker process and Ray actor, by `evalkit data check` and the leaderboard.

What refuses a damaged file stands a second time in `mini_internvl/decoding.py`: neither package may import
the other, as each is used without it. tests/test_layers.py holds both to the same text.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from evalkit.contracts import MAX_PIXELS
from evalkit.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Formats that are decoded; others may start programs (EPS runs Ghostscript) or have fragile decoders.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

#: Chunks of a PNG file that hold no pixels: Pillow refuses an image for the length of one.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_EXIF_ORIENTATION = 0x0112

#: Pixels that a byte of a JPEG file can hold: each block of 8 x 8 takes at least a bit.
_MOST_OF_JPEG = 512

#: Above this Pillow's own limit would warn.
_LARGE = 80_000_000

_max_pixels = MAX_PIXELS
_one_at_a_time = threading.Lock()


def set_max_pixels(pixels: int) -> None:
    """Set the limit of this process."""
    global _max_pixels
    _max_pixels = pixels


def check_size(width: int, height: int, where: str) -> None:
    """Raises ImageError where an image has more pixels than the limit."""
    if width * height > _max_pixels:
        raise ImageError(
            f"{where}: {width} x {height} are {width * height:,} pixels, the limit is {_max_pixels:,}: raise "
            f"it with --max-pixels {width * height}, or scale the image down"
        )


def decode(data: bytes, where: str) -> Image:
    """Decode an encoded image fully, upright by its EXIF orientation.

    Raises:
        ImageError: not an image, truncated, or of more pixels than the limit.
    """
    from PIL import UnidentifiedImageError

    try:
        try:
            return _decoded(data, where)
        except ValueError as error:
            if "MAX_TEXT" not in str(error):
                raise
            return _decoded(_without_text(data), where)
    except ImageError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ImageError(f"{where}: not an image that can be read ({known}): replace the file") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImageError(f"{where}: cannot be decoded ({cause}): replace the file") from error


def _decoded(data: bytes, where: str) -> Image:
    from PIL import Image, ImageOps

    with _limit_off():
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    with opened:
        check_size(*opened.size, where)
        _check_whole(opened, len(data))
        with _limit_off() if opened.width * opened.height > _LARGE else contextlib.nullcontext():
            opened.load()
        turned = opened.getexif().get(_EXIF_ORIENTATION, 1) != 1  # transposing always copies
        return ImageOps.exif_transpose(opened) if turned else opened


def _check_whole(image: Image, size: int) -> None:
    """Refuses a file whose parts do not cover the image: Pillow leaves the rest black without a word."""
    if image.format == "JPEG" and image.width * image.height > _MOST_OF_JPEG * size:
        raise ValueError(f"{image.width} x {image.height} pixels cannot be in {size} bytes")
    tiles: Any = getattr(image, "tile", ())
    parts = [box for _, box, *_ in tiles or () if box is not None]
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in parts)
    if parts and covered < image.width * image.height:
        raise ValueError(f"holds {covered} of {image.width * image.height} pixels")


@contextlib.contextmanager
def _limit_off() -> Iterator[None]:
    """Pillow's own limit, the same for a whole process, warns and refuses; large images come one by one."""
    from PIL import Image

    with _one_at_a_time:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _without_text(data: bytes) -> bytes:
    """A PNG file without the chunks that hold no pixels."""
    kept, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
