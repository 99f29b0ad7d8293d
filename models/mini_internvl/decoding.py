"""Image files to pixels: which formats are decoded, how large an image may be, and greyscale of any depth.

What refuses a damaged file is that of `evalkit/data/decoding.py`, which says why it stands twice.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from mini_internvl.errors import ImageError

#: Formats that are decoded; others may start programs (EPS runs Ghostscript) or have fragile decoders.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

MAX_PIXELS = 300_000_000
"""Most pixels of an image file unless told otherwise; decoding takes about 9 bytes a pixel."""

#: Chunks of a PNG file that hold no pixels: Pillow refuses an image for the length of one.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
#: Pixels that a byte of a JPEG file can hold: each block of 8 x 8 takes at least a bit.
_MOST_OF_JPEG = 512
#: Above this Pillow's own limit would warn.
_LARGE = 80_000_000
#: Pixels that are converted at a time, so that a large image is not in memory in wide numbers.
_STRIP = 1 << 22
_TWELVE_BITS = 4095

_one_at_a_time = threading.Lock()


def decode(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image file, decoded fully, in the mode that it has.

    Raises:
        ImageError: missing, not an image, truncated, or of more than `max_pixels` pixels.
    """
    where = "the image given" if isinstance(source, bytes) else str(source)
    with _named(where):
        try:
            return _loaded(source, where, max_pixels)
        except ValueError as error:
            if "MAX_TEXT" not in str(error):
                raise
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            return _loaded(_without_text(data), where, max_pixels)


def image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height of an image file, from its header alone. Raises ImageError as `decode`."""
    with _named(str(path)), _opened(path, str(path), max_pixels) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{where}: no such image") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ImageError(f"{where}: cannot be read as an image ({first_line(error)})") from error


def _opened(source: str | Path | bytes, where: str, max_pixels: int) -> Image.Image:
    with _limit_off():
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    pixels = image.width * image.height
    if pixels > max_pixels:
        image.close()
        raise ImageError(
            f"{where}: {image.width} x {image.height} are {pixels:,} pixels, the limit is {max_pixels:,}: "
            "raise max_pixels, or scale the image down"
        )
    return image


def _loaded(source: str | Path | bytes, where: str, max_pixels: int) -> Image.Image:
    with _opened(source, where, max_pixels) as image:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        _check_whole(image, size)
        with _limit_off() if image.width * image.height > _LARGE else contextlib.nullcontext():
            image.load()
        return image


def _check_whole(image: Image.Image, size: int) -> None:
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


# Modes to RGB -------------------------------------------------------------------------------------------


def upright_rgb(image: Image.Image) -> Image.Image:
    """An open image as upright RGB; itself where it is that already."""
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1  # transposing always copies
    return _to_rgb(ImageOps.exif_transpose(image) if turned else image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        low, scale = _window(image)
        return _in_strips(image, lambda strip: _wide_to_rgb(strip, low, scale))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _in_strips(image, _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_strips(image: Image.Image, make: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The image as RGB, some rows at a time."""
    strips = list(_strips(image))
    if len(strips) == 1:
        return make(image)
    whole = Image.new("RGB", image.size)
    for box in strips:
        whole.paste(make(image.crop(box)), box)
    return whole


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(1, _STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _wide_to_rgb(image: Image.Image, low: float, scale: float) -> Image.Image:
    values = np.clip(np.rint((_values(image) - low) * scale), 0, 255).astype(np.uint8)
    return Image.fromarray(values).convert("RGB")


def _values(image: Image.Image) -> NDArray[Any]:
    return np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _window(image: Image.Image) -> tuple[float, float]:
    """What is black, and the grey levels for one step above it.

    16-bit greyscale is scaled by its full range; where no value exceeds 12 bits, as in radiology, by the
    range of its own values, as a viewer does. Floats reach from 0 to 1, or to 255 where they exceed 1.
    """
    lows, peaks = [], []
    for box in _strips(image):
        values = _values(image.crop(box))
        lows.append(float(values.min(initial=np.inf)))
        peaks.append(float(values.max(initial=0.0)))
    low, peak = min(lows, default=0.0), max(peaks, default=0.0)
    if image.mode == "F":
        return 0.0, 255.0 if peak <= 1.0 else 1.0 if peak <= 255.0 else 255.0 / peak
    wide = image.mode.startswith("I;16")
    if (wide or peak > 255.0) and low < peak <= _TWELVE_BITS:
        return low, 255.0 / (peak - low)
    if wide or 255.0 < peak <= 65535.0:
        return 0.0, 1 / 257
    return 0.0, 1.0 if peak <= 255.0 else 255.0 / peak
