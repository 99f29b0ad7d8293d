"""Which image formats are decoded, and that damaged ones are errors of their image alone."""

from __future__ import annotations

import io
import pickle
import wave
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import mini_internvl
from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.data import decoding
from evalkit.data.decoding import decode
from evalkit.data.images import VideoFrame
from evalkit.engines.base import LoadModel
from evalkit.errors import ImageError
from evalkit.pipeline.job import make_job
from evalkit.pipeline.options import RunOptions, model_options
from evalkit_leaderboard.serving import command
from mini_internvl.images import open_image
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.sample_images import video_frames

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


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The limit as it was, afterwards."""
    monkeypatch.setattr(decoding, "_max_pixels", decoding.MAX_PIXELS)
    yield


def huge(kind: str, width: int = 10_000) -> bytes:
    """A white image of 10,000 lines with one bit a pixel."""
    file = io.BytesIO()
    Image.new("1", (width, 10_000), 1).save(file, kind)
    return file.getvalue()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("door", "error"), DOORS)
def test_remote_sensing_scenes_are_read_without_a_word_of_pillow(
    kind: str, door: Callable[[bytes], Image.Image], error: type[Exception]
) -> None:
    assert door(huge(kind)).size == (10_000, 10_000)  # above Pillow's own limit of 89 million


@pytest.mark.parametrize(("door", "error"), DOORS)
def test_what_is_above_the_limit_says_how_to_raise_it(
    door: Callable[[bytes], Image.Image], error: type[Exception]
) -> None:
    header = bytearray(encoded("PNG"))
    header[16:24] = (20_000).to_bytes(4, "big") + (15_001).to_bytes(4, "big")
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(error, match="20000 x 15001 are 300,020,000 pixels, the limit is 300,000,000: raise"):
        door(bytes(header))


def test_the_limit_is_set_by_whoever_opens(limit: None) -> None:
    decoding.set_max_pixels(95)
    with pytest.raises(ImageError, match=r"here\.png: 12 x 8 are 96 pixels, .* with --max-pixels 96"):
        decode(encoded("PNG"), "here.png")
    decoding.set_max_pixels(96)
    assert decode(encoded("PNG"), "here.png").size == (12, 8)
    with pytest.raises(mini_internvl.ImageError, match="raise max_pixels"):
        open_image(encoded("PNG"), max_pixels=95)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(("door", "error"), DOORS)
def test_a_long_text_in_a_png_file_is_no_reason_to_refuse_it(
    door: Callable[[bytes], Image.Image], error: type[Exception], compressed: bool
) -> None:
    info, file = PngInfo(), io.BytesIO()
    for number in range(70):
        info.add_text(f"note {number}", "x" * 1_100_000, zip=compressed)
    Image.new("RGB", (12, 8), "red").save(file, "PNG", pnginfo=info)
    assert door(file.getvalue()).getpixel((0, 0)) == (255, 0, 0)


def test_a_video_without_a_stream_of_images_is_named(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "sound.mp4"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
    with pytest.raises(ImageError, match=r"sound\.mp4: holds no video stream"):
        VideoFrame(str(path), 0, 4).open()
    with pytest.raises(TrainingDataError, match=r"sound\.mp4 holds no video stream"):
        video_frames(str(path), None, 4, "set.jsonl: line 1")


def write_video(path: Path, frames: int) -> None:
    """Frames that are ever lighter."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for place in range(frames):
            shown = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * place, np.uint8), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])  # a file of Matroska does not tell its frames
@pytest.mark.parametrize(
    ("frames", "of", "shown"),
    [
        (20, 8, [1, 3, 6, 8, 11, 13, 16, 18]),
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
        (1, 2, [0, 0]),
    ],
)
def test_the_middle_frame_of_each_part_of_a_video(
    tmp_path: Path, name: str, frames: int, of: int, shown: list[int]
) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / name, frames)
    for place, wanted in enumerate(shown):
        frame = VideoFrame(str(tmp_path / name), place, of).open()
        assert frame.size == (64, 48)
        assert np.asarray(frame).mean() == pytest.approx(10 * wanted, abs=3)


def test_a_job_and_each_worker_set_the_limit(limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions("a", split="miniature", limit=1, max_pixels=1000)
    (sample,) = make_job("chartqa", options).samples
    with pytest.raises(ImageError, match="the limit is 1,000"):
        sample.images[0].open()
    decoding.set_max_pixels(decoding.MAX_PIXELS)
    monkeypatch.setattr(registry, "model", lambda spec, options: sample.images[0].open())
    with pytest.raises(ImageError, match="the limit is 1,000"):
        pickle.loads(pickle.dumps(LoadModel("a", model_options(options))))(0)


def test_data_check_and_the_leaderboard_have_the_limit(
    limit: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert invoke(["data", "check", "chartqa", "--split", "miniature", "--max-pixels", "1000"]) == 3
    assert "raise it with --max-pixels" in capsys.readouterr().out
    assert command([tmp_path], tmp_path, "127.0.0.1", 8501, 1000)[-2:] == ["--max-pixels", "1000"]


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


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("door", "error"), DOORS)
def test_a_jpeg_file_too_short_for_its_pixels_is_refused(
    door: Callable[[bytes], object], error: type[Exception], progressive: bool
) -> None:
    file = io.BytesIO()
    Image.new("L", (4000, 1000), 128).save(file, "JPEG", progressive=progressive)
    assert door(file.getvalue())
    data = bytearray(file.getvalue())
    place = data.find(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    assert data[place : place + 2] == (1000).to_bytes(2, "big")
    data[place : place + 2] = (60_000).to_bytes(2, "big")
    with pytest.raises(error, match="4000 x 60000 pixels cannot be in"):
        door(bytes(data))
