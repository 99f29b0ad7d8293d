"""The stitched image of six camera views: order, sizes, names, and its cache."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from evalkit.contracts import ImageHandle
from evalkit.data.images import MISSING
from evalkit.errors import ImageError
from evalkit_tasks.driving.drivelm_scene import LABELS, StitchedViews, stitch

ORDER = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
needs_font = pytest.mark.skipif(
    not FONT.exists() or not features.check("raqm"), reason="DejaVuSans-Bold or libraqm is not installed"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "drivelm-stitched"


@pytest.fixture
def views(tmp_path: Path) -> dict[str, str]:
    """A plain view of its own grey for each camera."""
    paths = {}
    for number, camera in enumerate(ORDER):
        paths[camera] = str(tmp_path / f"{camera}.png")
        Image.new("RGB", (1600, 900), (20 + 40 * number,) * 3).save(paths[camera])
    return paths


def test_views_stand_in_two_rows_of_three_whatever_their_order_in_the_file(views: dict[str, str]) -> None:
    handle = StitchedViews.of(dict(reversed(views.items())))
    assert isinstance(handle, ImageHandle)
    image = handle.open()
    assert (image.size, image.mode) == ((2688, 896), "RGB")
    for number in range(6):
        column, row = number % 3, number // 3
        pixel = image.getpixel((column * 896 + 800, row * 448 + 400))
        assert np.abs(np.array(pixel) - (20 + 40 * number)).max() <= 2
    assert handle.paths() == tuple(views[camera] for camera in ORDER)
    assert pickle.loads(pickle.dumps(handle)) == handle


def test_names_are_drawn_in_magenta_at_the_upper_left(views: dict[str, str]) -> None:
    pixels = np.asarray(StitchedViews.of(views).open(), dtype=int)
    for number in range(6):
        column, row = number % 3, number // 3
        view = pixels[row * 448 : row * 448 + 448, column * 896 : column * 896 + 896]
        magenta = np.argwhere((view[..., 0] > 200) & (view[..., 1] < 90) & (view[..., 2] > 200))
        assert len(magenta) > 100
        assert magenta[:, 0].max() < 60 and magenta[:, 1].max() < 560


@needs_font
def test_names_are_those_of_the_font_pixel_for_pixel() -> None:
    font = ImageFont.truetype(str(FONT), 50)
    generator = np.random.default_rng(0)
    sheet = Image.open(LABELS)
    height = sheet.height // 6
    for number, camera in enumerate(ORDER):
        drawn = Image.fromarray(generator.integers(0, 256, (448, 896, 3), dtype=np.uint8))
        pasted = drawn.copy()
        ImageDraw.Draw(drawn).text((0, 0), camera, fill=(255, 0, 255), font=font)
        mask = sheet.crop((0, number * height, sheet.width, (number + 1) * height))
        pasted.paste((255, 0, 255), (0, 0), mask)
        assert pasted.tobytes() == drawn.tobytes()


@needs_font
def test_a_real_frame_is_the_one_of_the_stitching_script(shared_dir: Path) -> None:
    folder = shared_dir / "data/drivelm/nuscenes/samples"
    files = {camera: str(min((folder / camera).glob("*.jpg"))) for camera in ORDER}
    font = ImageFont.truetype(str(FONT), 50)
    canvas = Image.new("RGB", (2688, 896))
    for number, camera in enumerate(ORDER):
        view = Image.open(files[camera]).convert("RGB").resize((896, 448))
        ImageDraw.Draw(view).text((0, 0), camera, fill=(255, 0, 255), font=font)
        canvas.paste(view, ((number % 3) * 896, (number // 3) * 448))
    encoded = io.BytesIO()
    canvas.save(encoded, "JPEG")
    assert Image.open(encoded).tobytes() == StitchedViews.of(files).open().tobytes()


def test_the_cache_makes_no_difference(
    views: dict[str, str], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handle = StitchedViews.of(views)
    first = handle.open().tobytes()
    (kept,) = cache.rglob("*.jpg")
    assert kept.read_bytes() == stitch(handle.views)
    assert handle.open().tobytes() == first
    kept.write_bytes(kept.read_bytes()[:5000])
    with caplog.at_level(logging.WARNING):
        assert handle.open().tobytes() == first
    assert "broken in the cache" in caplog.text
    assert kept.read_bytes() == stitch(handle.views)
    kept.unlink()
    assert handle.open().tobytes() == first
    assert list(cache.rglob("*.tmp")) == []


def test_a_cache_that_cannot_be_written_is_said_once(
    views: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("EVALKIT_CACHE", str(blocked))
    handle = StitchedViews.of(views)
    assert handle.open().size == handle.open().size == (2688, 896)
    assert caplog.text.count("cannot be cached") == 1


def test_content_hash_follows_the_views_and_decodes_nothing(views: dict[str, str]) -> None:
    handle = StitchedViews.of(views)
    before = handle.digest()
    assert StitchedViews.of(views).digest() == before and len(before) == 32
    Path(views["CAM_BACK"]).write_bytes(b"not an image")
    assert handle.digest() not in (before, MISSING)
    Path(views["CAM_BACK"]).unlink()
    assert handle.digest() == MISSING
    assert handle.identity() == StitchedViews.of(views).identity()


def test_a_missing_or_broken_view_is_named(views: dict[str, str]) -> None:
    Path(views["CAM_BACK"]).write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"CAM_BACK\.png"):
        StitchedViews.of(views).open()
    Path(views["CAM_FRONT"]).unlink()
    with pytest.raises(ImageError, match=r"CAM_FRONT\.png: image missing"):
        StitchedViews.of(views).open()
