"""Which image formats are decoded, and that damaged ones are errors of their image alone."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

import mini_internvl
from evalkit.data.images import decode
from evalkit.errors import ImageError
from mini_internvl.images import open_image

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
DOORS: tuple[tuple[Callable[[bytes], object], type[Exception]], ...] = (
    (lambda data: decode(data, "here.png"), ImageError),
    (open_image, mini_internvl.ImageError),
)


def encoded(kind: str) -> bytes:
    """A small image in a format."""
    file = io.BytesIO()
    Image.new("RGB", (12, 8), "red").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize(("door", "error"), DOORS)
def test_the_formats_of_benchmarks_are_read(
    kind: str, door: Callable[[bytes], Image.Image], error: type[Exception]
) -> None:
    assert door(encoded(kind)).size == (12, 8)


@pytest.mark.parametrize("data", [EPS, encoded("DDS"), encoded("SPIDER"), encoded("AVIF")[:90], b""])
@pytest.mark.parametrize(("door", "error"), DOORS)
def test_other_formats_are_refused_without_their_decoder(
    data: bytes, door: Callable[[bytes], object], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.check_call", started)
    with pytest.raises(error):
        door(data)
