"""Opening and tiling pictures."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mini_internvl import decoding
from mini_internvl.errors import ImageError
from mini_internvl.images import choose_grid, open_image, tile_image, tile_images
from mini_internvl.model import normalise


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    """A picture no two pixels of which are alike in a row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 3 % 256, y * 5 % 256, (x + y) % 256], -1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(source: bytes) -> tuple[int, ...]:
    """The first pixel as opened."""
    image = open_image(source)
    assert image.mode == "RGB"
    found = image.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


def test_grids_equal_the_released_code(shared_dir: Path) -> None:
    records = json.loads((shared_dir / "oracle" / "tiling.json").read_text(encoding="utf-8"))["records"]
    assert len(records) == 560
    for r in records:
        grid = choose_grid(
            r["width"], r["height"], min_tiles=r["min_num"], max_tiles=r["max_num"], tile_size=r["image_size"]
        )
        assert grid == (r["grid_cols"], r["grid_rows"]), r


def test_pixels_equal_the_released_code(shared_dir: Path) -> None:
    """Bit for bit, for the photographs of the oracle that the shared folder holds."""
    reference = json.loads((shared_dir / "oracle" / "preprocess.json").read_text(encoding="utf-8"))
    if reference["_versions"]["pillow"].split(".")[0] != Image.__version__.split(".")[0]:
        pytest.skip(f"hashes are of Pillow {reference['_versions']['pillow']}")
    photographs = {
        hashlib.sha256(image.tobytes()).hexdigest(): image
        for path in sorted(shared_dir.glob("**/*"))
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.stat().st_size < 2_000_000
        for image in [open_image(path)]
        if image.size in ((640, 427), (512, 512))
    }
    found = 0
    for name, digest in reference["_source_sha256_rgb"].items():
        if digest not in photographs:
            continue
        for suffix, tiles in (("dyn12", 12), ("single", 1)):
            expected = reference[f"{name}_{suffix}"]
            cut = tile_image(photographs[digest], max_tiles=tiles)
            assert list(cut.shape) == expected["shape"]
            hashes = [hashlib.sha256(t.permute(1, 2, 0).numpy().tobytes()).hexdigest() for t in cut]
            assert hashes == expected["uint8_sha256_per_tile"]
            floats = hashlib.sha256(normalise(cut).numpy().tobytes()).hexdigest()
            assert floats == expected["sha256_float32"]
            found += 1
    if not found:
        pytest.skip("none of the oracle's photographs is in the shared folder")


@pytest.mark.parametrize(
    "size,most,grid",
    [
        ((448, 448), 12, (1, 1)),
        ((1600, 900), 12, (4, 2)),
        ((2688, 896), 12, (6, 2)),
        ((640, 480), 12, (4, 3)),
        ((1600, 900), 40, (7, 4)),
        ((800, 800), 12, (2, 2)),
        ((512, 512), 12, (1, 1)),
        ((1, 1000), 12, (1, 12)),
    ],
)
def test_grids_by_hand(size: tuple[int, int], most: int, grid: tuple[int, int]) -> None:
    assert choose_grid(*size, max_tiles=most) == grid


def test_tiles_are_cut_row_by_row_with_the_whole_last() -> None:
    image = gradient(200, 100)
    tiles = tile_image(image, tile_size=32, grid=(3, 2))
    assert tiles.shape == (7, 3, 32, 32) and tiles.dtype == torch.uint8
    resized = image.resize((96, 64))
    for place, tile in enumerate(tiles[:6]):
        x, y = place % 3 * 32, place // 3 * 32
        assert np.array_equal(tile.permute(1, 2, 0), np.asarray(resized.crop((x, y, x + 32, y + 32))))
    assert np.array_equal(tiles[6].permute(1, 2, 0), np.asarray(image.resize((32, 32))))
    assert len(tile_image(image, tile_size=32, grid=(3, 2), thumbnail=False)) == 6
    assert len(tile_image(image, tile_size=32, max_tiles=1)) == 1


def test_several_pictures_and_a_bound_on_all() -> None:
    tiles, counts = tile_images([gradient(640, 480)] * 3, tile_size=16, total_tiles=12)
    assert counts == [5, 5, 5]  # a 2x2 grid and the thumbnail of each
    assert tiles is not None and len(tiles) == 15
    assert tile_images([]) == (None, [])


@pytest.mark.parametrize("bounds", [(0, 1), (3, 2), (1, 41)])
def test_impossible_bounds(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 <= min <= max <= 40"):
        tile_image(gradient(), min_tiles=bounds[0], max_tiles=bounds[1])


def test_forty_tiles() -> None:
    assert len(tile_image(gradient(400, 250), tile_size=8, min_tiles=40, max_tiles=40)) == 41


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 40))
def test_grid_stays_within_its_bounds(width: int, height: int, most: int) -> None:
    columns, rows = choose_grid(width, height, max_tiles=most)
    assert 1 <= columns * rows <= most


def test_normalisation_on_the_device_equals_the_transform() -> None:
    tiles = tile_image(gradient(), tile_size=32, max_tiles=2)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    pixels = tiles.numpy().astype(np.float32) / np.float32(255)
    expected = (pixels - mean[:, None, None]) / std[:, None, None]
    assert np.array_equal(normalise(tiles).numpy(), expected)
    floats = torch.rand(1, 3, 4, 4)
    assert normalise(floats) is floats


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (20, 10), "red")
    image.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    opened = open_image(encoded(image, exif=exif))
    assert opened.size == (10, 20)
    assert opened.getpixel((9, 0)) == (0, 0, 255)


def test_transparency_is_laid_on_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 255)))) == (255, 0, 0)
    assert pixel(encoded(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert pixel(encoded(palette)) == (10, 20, 30)
    assert pixel(encoded(palette, transparency=0)) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)


def test_greyscale_of_any_depth() -> None:
    assert pixel(encoded(Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    deep = Image.fromarray(np.full((2, 2), 257 * 100, np.uint16))
    assert deep.mode == "I;16"
    assert pixel(encoded(deep)) == (100, 100, 100)
    assert pixel(encoded(deep, "TIFF")) == (100, 100, 100)
    for dark, shown in ((100, 0), (255, 1), (1000, 4)):  # its range is 16 bits however dark it is
        image = Image.fromarray(np.full((2, 2), dark, np.uint16))
        assert pixel(encoded(image)) == (shown, shown, shown)
    white = Image.fromarray(np.full((2, 2), 65535, np.uint16))
    assert pixel(encoded(white)) == (255, 255, 255)
    assert pixel(encoded(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF")) == (128, 128, 128)
    assert pixel(encoded(Image.fromarray(np.full((2, 2), 40, np.int32)), "TIFF")) == (40, 40, 40)


def test_cmyk_jpeg() -> None:
    red = pixel(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red[0] > 230 and red[1] < 40 and red[2] < 40


def test_a_palette_is_converted_before_resizing() -> None:
    image = gradient().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    tiles = tile_image(open_image(image), tile_size=24, max_tiles=1)
    expected = np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BICUBIC))
    assert np.array_equal(tiles[0].permute(1, 2, 0), expected)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert pixel(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == (255, 0, 0)


def test_twelve_bits_in_sixteen_are_scaled_by_their_own_range() -> None:
    """As a radiologist's viewer shows them; what uses more bits, and an even image, keeps the full range."""
    scan = Image.fromarray(np.array([[1000, 2000], [3000, 1500]], np.uint16))
    for data in (encoded(scan), encoded(scan, "TIFF")):
        assert np.asarray(open_image(data))[..., 0].tolist() == [[0, 128], [255, 64]]
    hounsfield = Image.fromarray(np.array([[-1024, 0], [3071, 0]], np.int32))  # computed tomography
    assert np.asarray(open_image(encoded(hounsfield, "TIFF")))[..., 0].tolist() == [[0, 64], [255, 64]]
    deep = Image.fromarray(np.array([[0, 4096], [257, 514]], np.uint16))
    assert np.asarray(open_image(encoded(deep)))[..., 0].tolist() == [[0, 16], [1, 2]]


@pytest.mark.parametrize("mode", ["F", "I", "I;16", "RGBA", "LA"])
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = np.random.default_rng(1)
    kinds = {"F": np.float32, "I": np.int32, "I;16": np.uint16}
    image = (
        Image.fromarray((numbers.random((37, 23)) * 5000).astype(kinds[mode]))
        if mode in kinds
        else Image.fromarray(numbers.integers(0, 256, (37, 23, len(mode)), np.uint8), mode)
    )
    assert image.mode == mode
    whole = np.asarray(open_image(image))
    monkeypatch.setattr(decoding, "_STRIP", 23 * 5)
    assert np.array_equal(np.asarray(open_image(image)), whole)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_named(kind: str, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    path = tmp_path / "broken"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="broken: cannot be read as an image"):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"text\.png: cannot be read"):
        open_image(path)
    with pytest.raises(ImageError, match="no such image"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(content)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_bytes_raise_only_our_error(noise: bytes, at: int) -> None:
    data = encoded(gradient(16, 16))
    damaged = data[:at] + noise + data[at + len(noise) :]
    with contextlib.suppress(ImageError):
        assert open_image(damaged).mode == "RGB"
