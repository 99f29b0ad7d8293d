"""The six camera views of a DriveLM frame as the one image that Mini-InternVL sees.

Each view is resized to 896x448 (bicubic), its camera's name drawn at the upper left corner in magenta
(DejaVuSans-Bold, 50 points), and the views are set in two rows of three: 2688x896. The image is then
encoded as JPEG with Pillow's default settings, as InternVL's stitching script saves it, and what the model
sees is the decoded JPEG (docs/tasks.md, DriveLM).

The names come from drivelm_labels.png, six coverage masks rendered once from that font, so that the pixels
depend neither on installed fonts nor on the version of FreeType.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.data.decoding import decode
from evalkit.data.images import MISSING, ImageFile, file_digest
from evalkit.data.locate import cache_folder
from evalkit.errors import ImageError
from evalkit_tasks.driving.drivelm_coordinates import CAMERAS, STITCHED_SIZE, VIEW_SIZE

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

LABELS = Path(__file__).with_name("drivelm_labels.png")
LABEL_COLOUR = (255, 0, 255)
#: Names how the image is made; part of every content hash, so raise it when a pixel changes.
RECIPE = "stitched-2688x896 bicubic DejaVuSans-Bold-50 jpeg-75 1"


@dataclass(frozen=True, slots=True)
class StitchedViews:
    """Handle of a frame's stitched image.

    Stitched images are cached under `<cache>/drivelm-stitched` by content. A file that is missing, broken or
    from another machine costs time, nothing else.

    Attributes:
        views: the six files in the order of `CAMERAS`.
    """

    views: tuple[str, ...]

    @classmethod
    def of(cls, paths: Mapping[str, str]) -> StitchedViews:
        """The handle from camera names and files, in whatever order.

        Raises:
            KeyError: a camera is missing.
        """
        return cls(tuple(paths[camera] for camera in CAMERAS))

    def open(self) -> Image:
        """The stitched image, RGB, 2688x896.

        Raises:
            ImageError: a view is missing or broken, naming its file.
        """
        digest = self.digest()
        if digest == MISSING:
            return decode(stitch(self.views), "the stitched views")
        kept = cache_folder() / "drivelm-stitched" / digest[:2] / f"{digest}-{_encoder()}.jpg"
        return _kept_image(kept) or decode(_keep(stitch(self.views), kept), str(kept))

    def digest(self) -> str:
        """Hash over the views' contents and the recipe; nothing is decoded."""
        contents = [file_digest(view) for view in self.views]
        if MISSING in contents:
            return MISSING
        return hashlib.sha256("\n".join([RECIPE, *contents]).encode()).hexdigest()[:32]

    def identity(self) -> str:
        """The views' paths."""
        return "\n".join(self.views)

    def paths(self) -> tuple[str, ...]:
        """The six files."""
        return self.views


def stitch(views: tuple[str, ...]) -> bytes:
    """The stitched image of six files (order of `CAMERAS`) as JPEG.

    Raises:
        ImageError: a file is missing or broken.
    """
    from PIL import Image

    canvas = Image.new("RGB", STITCHED_SIZE)
    for path, label, (column, row) in zip(views, _labels(), CAMERAS.values(), strict=True):
        # Image.resize's default; named, because it is part of the protocol.
        view = ImageFile(path).open().convert("RGB").resize(VIEW_SIZE, Image.Resampling.BICUBIC)
        view.paste(LABEL_COLOUR, (0, 0), label)
        canvas.paste(view, (column * VIEW_SIZE[0], row * VIEW_SIZE[1]))
    encoded = io.BytesIO()
    canvas.save(encoded, "JPEG")
    return encoded.getvalue()


@lru_cache(maxsize=1)
def _labels() -> tuple[Image, ...]:
    sheet = decode(LABELS.read_bytes(), str(LABELS))
    height = sheet.height // len(CAMERAS)
    rows = range(len(CAMERAS))
    return tuple(sheet.crop((0, row * height, sheet.width, (row + 1) * height)) for row in rows)


@lru_cache(maxsize=1)
def _encoder() -> str:
    """Digits that name the JPEG encoder: two versions may encode an image in different bytes."""
    import PIL
    from PIL import features

    versions = f"{PIL.__version__} {features.version('libjpeg_turbo') or features.version('jpg')}"
    return hashlib.sha256(versions.encode()).hexdigest()[:8]


def _kept_image(path: Path) -> Image | None:
    """The cached image, or None where it is missing or incomplete."""
    try:
        image = decode(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ImageError) as error:
        log.warning("%s: broken in the cache (%s); stitched again", path, error)
        return None
    return image if image.size == STITCHED_SIZE else None


def _keep(encoded: bytes, path: Path) -> bytes:
    """Write a stitched image into the cache atomically; returns it unchanged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(encoded)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        _warn_unwritable(path.parents[1], error.strerror or str(error))
    return encoded


@lru_cache(maxsize=8)
def _warn_unwritable(folder: Path, cause: str) -> None:
    """Warn once for each folder and cause."""
    log.warning("%s: stitched images cannot be cached (%s); each is stitched when needed", folder, cause)
