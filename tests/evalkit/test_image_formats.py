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


@pytest.mark.parametrize(("read", "error"), DOORS, ids=["evalkit", "model"])
def test_a_file_with_fewer_rows_than_it_says_is_refused(
    read: Callable[[bytes], object], error: type[Exception]
) -> None:
    """Pillow leaves the rows that no strip holds black."""
    file = io.BytesIO()
    Image.new("F", (37, 23), 7.0).save(file, "TIFF")
    data = file.getvalue()
    for order in ("little", "big"):
        height = (257).to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order)  # type: ignore[arg-type]
        if (place := data.find(height)) >= 0:
            data = data[: place + 8] + (2300).to_bytes(4, order) + data[place + 12 :]  # type: ignore[arg-type]
            break
    with pytest.raises(error, match="holds 851 of 85100 pixels"):
        read(data)
