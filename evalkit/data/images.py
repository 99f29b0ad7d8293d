"""Lazy handles of images: where the pixels are, not the pixels.

A handle is small, immutable and pickles; `open()` decodes, in whichever worker needs it. Tasks may define
their own handle (DriveLM's six stitched views) by following `ImageHandle`.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.contracts import ImageHandle
from evalkit.data.decoding import check_size, decode
from evalkit.errors import ImageError
from evalkit.installation import install_command

if TYPE_CHECKING:
    from PIL.Image import Image

MISSING = "missing"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: image missing: put it there or check the data root") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        cause = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{path}: image cannot be read ({cause})") from None


@lru_cache(maxsize=1 << 16)  # images of a large benchmark, in any order
def _file_digest(path: str, size: int, modified_ns: int) -> str:
    return contents_digest([path])[:32]


def contents_digest(paths: Iterable[str | Path]) -> str:
    """SHA-256 (64 digits) over the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 (32 digits) of a file, remembered by size and change time; `missing` if unreadable."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path takes longer than the look)
        return _file_digest(str(path), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return MISSING


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file of its own."""

    path: str

    def encoded(self) -> bytes:
        """The file's bytes. Raises ImageError where it cannot be read."""
        return _read(self.path)

    def open(self) -> Image:
        """See `ImageHandle.open`."""
        return decode(self.encoded(), self.path)

    def digest(self) -> str:
        """See `ImageHandle.digest`."""
        return file_digest(self.path)

    def identity(self) -> str:
        """The path."""
        return self.path

    def paths(self) -> tuple[str, ...]:
        """The one file."""
        return (self.path,)


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An encoded image in memory (a Parquet cell); `name` is what errors call it."""

    data: bytes
    name: str

    def open(self) -> Image:
        """See `ImageHandle.open`."""
        return decode(self.data, self.name)

    def digest(self) -> str:
        """See `ImageHandle.digest`."""
        return hashlib.sha256(self.data).hexdigest()[:32]

    def identity(self) -> str:
        """The content hash."""
        return self.digest()

    def paths(self) -> tuple[str, ...]:
        """No file."""
        return ()


@dataclass(frozen=True, slots=True)
class TableImage:
    """A base64 image in one cell of a TSV file, read from its record's byte range when needed.

    Attributes:
        offset, length: byte range of the whole record (it may span lines where fields are quoted).
        column: position of the cell in the record.
    """

    path: str
    offset: int
    length: int
    column: int

    def cell(self) -> str:
        """The cell's text.

        Raises:
            ImageError: the record cannot be read or is shorter.
        """
        where = f"{self.path} at byte {self.offset}"
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                record = file.read(self.length).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ImageError(f"{where}: record cannot be read ({error})") from None
        csv.field_size_limit(1 << 30)
        try:
            return next(csv.reader(io.StringIO(record, newline=""), delimiter="\t"))[self.column]
        except (IndexError, StopIteration, csv.Error):
            raise ImageError(f"{where}: no column {self.column + 1}: the table has changed") from None

    def encoded(self) -> bytes:
        """The image file's bytes.

        Raises:
            ImageError: the record changed or holds no base64 there.
        """
        try:
            return base64.b64decode(self.cell(), validate=False)
        except (binascii.Error, ValueError) as error:
            raise ImageError(
                f"{self.path} at byte {self.offset}: no base64 image in column {self.column + 1} ({error})"
            ) from None

    def open(self) -> Image:
        """See `ImageHandle.open`."""
        return decode(self.encoded(), f"{self.path} at byte {self.offset}")

    def digest(self) -> str:
        """See `ImageHandle.digest`."""
        try:
            return hashlib.sha256(self.encoded()).hexdigest()[:32]
        except ImageError:
            return MISSING

    def identity(self) -> str:
        """File and record."""
        return f"{self.path}@{self.offset}"

    def paths(self) -> tuple[str, ...]:
        """The table."""
        return (self.path,)


@dataclass(frozen=True, slots=True)
class DoubledImage:
    """Another image as RGB, doubled in width and height (bilinear)."""

    image: ImageHandle

    def open(self) -> Image:
        """See `ImageHandle.open`."""
        from PIL import Image

        plain = self.image.open().convert("RGB")
        return plain.resize((plain.width * 2, plain.height * 2), Image.Resampling.BILINEAR)

    def digest(self) -> str:
        """See `ImageHandle.digest`."""
        content = self.image.digest()
        return content if content == MISSING else f"{content}x2"

    def identity(self) -> str:
        """The image's, and what is done to it."""
        return f"{self.image.identity()}x2"

    def paths(self) -> tuple[str, ...]:
        """The image's."""
        return self.image.paths()


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video file: the middle of the `position`-th of `of` equal parts (extra `video`)."""

    path: str
    position: int
    of: int

    def open(self) -> Image:
        """See `ImageHandle.open`."""
        return _frame(self.path, self.position, self.of)

    def digest(self) -> str:
        """See `ImageHandle.digest`."""
        content = file_digest(self.path)
        return content if content == MISSING else f"{content}#{self.position}/{self.of}"

    def identity(self) -> str:
        """File and position."""
        return f"{self.path}#{self.position}/{self.of}"

    def paths(self) -> tuple[str, ...]:
        """The video."""
        return (self.path,)


def _frame(path: str, position: int, of: int) -> Image:
    """The middle frame of the `position`-th (from 0) of `of` equal parts of a video.

    Raises:
        ImageError: the file is missing or holds no such frame, or PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise ImageError(f"{path}: video needs PyAV: {install_command('video')}") from None
    if not Path(path).is_file():
        raise ImageError(f"{path}: video missing: put it there or check the data root")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ImageError(f"{path}: holds no video stream: replace the file")
            stream = container.streams.video[0]
            check_size(stream.width, stream.height, path)
            total = stream.frames or sum(1 for _ in container.decode(stream))
            wanted = min(total - 1, int(total * (position + 0.5) / of))
            container.seek(0)
            for index, shown in enumerate(container.decode(stream)):
                if index == wanted:
                    decoded: Image = shown.to_image()
                    return decoded
    except ImageError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ImageError(f"{path}: video cannot be decoded ({error}): replace the file") from None
    raise ImageError(f"{path}: video ends before frame {position + 1} of {of}: replace the file")
