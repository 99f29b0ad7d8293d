"""Images to tiles: opening anything as RGB, dynamic tiling, normalisation left to the device.

Tiling is that of InternVL 1.5 (arXiv 2404.16821, section 3.3), bit-equal to the reference's under the same
Pillow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mini_internvl.decoding import MAX_PIXELS, decode, first_line, upright_rgb
from mini_internvl.errors import ImageError

if TYPE_CHECKING:
    import torch

MAX_TILES = 40
"""Most tiles of one image's grid (InternVL 1.5 at inference)."""

Source = str | Path | bytes | Image.Image
"""A path, an encoded image, or an image already open."""


def open_image(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Any image as upright 8-bit RGB.

    EXIF orientation is applied; transparency is laid on white; 16-bit and floating greyscale is scaled to 8
    bits; palette, 1-bit, greyscale and CMYK are converted before any resizing. An animation gives its first
    frame. 16-bit greyscale that holds 12 bits (radiology) is scaled by its own range.

    Args:
        max_pixels: a file of more pixels is refused; an image that is open already is taken as it is.

    Raises:
        ImageError: missing, not an image, truncated, or too large.
    """
    if isinstance(source, Image.Image):
        try:
            return upright_rgb(source)
        except Exception as error:
            raise ImageError(f"the image given: cannot be read as an image ({first_line(error)})") from error
    return upright_rgb(decode(source, max_pixels))


def choose_grid(
    width: int, height: int, *, min_tiles: int = 1, max_tiles: int = 12, tile_size: int = 448
) -> tuple[int, int]:
    """Columns and rows of the grid whose shape is nearest to the image's.

    On a tie the later, larger grid wins where the image covers more than half of it.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        min_tiles: fewest tiles.
        max_tiles: most tiles.
        tile_size: side of a tile in pixels.
    """
    shape = width / height
    best, best_difference = (1, 1), float("inf")
    for columns, rows in _grids(min_tiles, max_tiles):
        difference = abs(shape - columns / rows)
        if difference < best_difference:
            best, best_difference = (columns, rows), difference
        elif difference == best_difference and width * height > 0.5 * tile_size**2 * columns * rows:
            best = (columns, rows)
    return best


def tile_image(
    image: Image.Image,
    *,
    tile_size: int = 448,
    min_tiles: int = 1,
    max_tiles: int = 12,
    thumbnail: bool = True,
    grid: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Cuts an RGB image into tiles.

    The whole image is resized to the grid, its aspect not kept, and cut row by row; a view of the whole
    follows where there is more than one tile.

    Args:
        image: RGB, as `open_image` returns it.
        tile_size: side of a tile in pixels.
        min_tiles: fewest tiles, the thumbnail not counted.
        max_tiles: most tiles, the thumbnail not counted; at most `MAX_TILES`.
        thumbnail: whether the view of the whole is added.
        grid: exact (columns, rows) in place of the dynamic choice.

    Returns:
        uint8 `[tiles, 3, tile_size, tile_size]`; the network normalises it on its own device.

    Raises:
        ValueError: the bounds are not 1 <= min_tiles <= max_tiles <= 40, or the grid is empty or larger.
    """
    if not 1 <= min_tiles <= max_tiles <= MAX_TILES:
        raise ValueError(f"tiles from {min_tiles} to {max_tiles}: must be 1 <= min <= max <= {MAX_TILES}")
    if grid is not None and not (min(grid) >= 1 and grid[0] * grid[1] <= MAX_TILES):
        raise ValueError(f"grid {grid[0]}x{grid[1]}: must have 1 to {MAX_TILES} tiles")
    columns, rows = grid or choose_grid(
        *image.size, min_tiles=min_tiles, max_tiles=max_tiles, tile_size=tile_size
    )
    resized = image.resize((columns * tile_size, rows * tile_size), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized).reshape(rows, tile_size, columns, tile_size, 3)
    tiles = pixels.transpose(0, 2, 4, 1, 3).reshape(-1, 3, tile_size, tile_size)
    if thumbnail and len(tiles) > 1:
        whole = image.resize((tile_size, tile_size), Image.Resampling.BICUBIC)
        tiles = np.concatenate([tiles, np.asarray(whole).transpose(2, 0, 1)[None]])
    import torch

    return torch.from_numpy(np.ascontiguousarray(tiles))


def tile_images(
    images: Iterable[Image.Image],
    *,
    tile_size: int = 448,
    min_tiles: int = 1,
    max_tiles: int = 12,
    thumbnail: bool = True,
    grid: tuple[int, int] | None = None,
    total_tiles: int | None = None,
) -> tuple[torch.Tensor | None, list[int]]:
    """Tiles of several images in one tensor.

    Args:
        images: RGB images, in the order of their `<image>` marks.
        tile_size, min_tiles, max_tiles, thumbnail, grid: as for `tile_image`, for each image.
        total_tiles: lowers `max_tiles` so that all grids together stay within it (VLMEvalKit divides 64 so).

    Returns:
        uint8 `[tiles, 3, tile_size, tile_size]`, or None without images; and each image's tile count.
    """
    import torch

    opened = list(images)
    if not opened:
        return None, []
    if total_tiles is not None:
        max_tiles = max(1, min(max_tiles, total_tiles // len(opened)))
        min_tiles = min(min_tiles, max_tiles)
    tiles = [
        tile_image(
            image,
            tile_size=tile_size,
            min_tiles=min_tiles,
            max_tiles=max_tiles,
            thumbnail=thumbnail,
            grid=grid,
        )
        for image in opened
    ]
    return torch.cat(tiles), [len(part) for part in tiles]


@lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int) -> Sequence[tuple[int, int]]:
    # the reference's expression: the order of grids of equal area is that of this set, and it breaks ties
    ratios = {
        (i, j)
        for n in range(min_tiles, max_tiles + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if min_tiles <= i * j <= max_tiles
    }
    return sorted(ratios, key=lambda ratio: ratio[0] * ratio[1])
