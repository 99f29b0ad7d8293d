"""How long an accelerator waits for images: decoding, tiling and uint8 hand-over in threads ahead of it.

    python benchmarks/feeding.py [--images N] [--max-tiles N]

The images are 1600x900 JPEG files. The accelerator is a clock: it is busy for so many milliseconds a
image, which leaves the CPU to the threads, as a GPU does. A line for each speed says which share of the
whole time it waited, beside the share if every image were made when it is asked for.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from evalkit.batch_config import BATCHING
from evalkit.contracts import ImagePolicy, Message, Request
from evalkit.data.images import ImageBytes
from evalkit_models.image_prefetcher import ImagePrefetcher

BUSY = (0, 50, 100, 200, 400)


def images(count: int) -> list[ImageBytes]:
    """Smooth noise, whose JPEG files are about as large as photos."""
    drawn = np.random.default_rng(0)
    found = []
    for number in range(count):
        small = drawn.integers(0, 256, (180, 320, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((1600, 900), Image.Resampling.BICUBIC)
        data = io.BytesIO()
        image.save(data, "JPEG", quality=90)
        found.append(ImageBytes(data.getvalue(), f"{number}.jpg"))
    return found


def make(request: Request) -> Any:
    """Tiles of a request's images, as the adapter makes them."""
    from mini_internvl.images import open_image, tile_images

    tiles, _ = tile_images(
        [open_image(image.open()) for image in request.images], max_tiles=request.image_policy.max_tiles
    )
    return tiles


def feed(requests: Sequence[Request], busy: float) -> tuple[float, float]:
    """Seconds in all, and of those waiting, with a device that takes `busy` seconds an image."""
    prefetcher: ImagePrefetcher[Any] = ImagePrefetcher(make)
    started = time.perf_counter()
    for batch in prefetcher.batches(requests, 1):
        time.sleep(busy * len(batch))
    seconds = time.perf_counter() - started
    prefetcher.close()
    return seconds, prefetcher.waited


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--max-tiles", type=int, default=12)
    arguments = parser.parse_args()
    policy = ImagePolicy(max_tiles=arguments.max_tiles)
    requests = [
        Request(str(place), (Message("user", "?"),), (image,), image_policy=policy)
        for place, image in enumerate(images(arguments.images))
    ]
    make(requests[0])
    started = time.perf_counter()
    sizes = [len(make(request)) for request in requests[:16]]
    alone = (time.perf_counter() - started) / len(sizes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(
        f"{len(requests)} images, {sizes[0]} tiles each; {1000 * alone:.0f} ms to make one; "
        f"{os.cpu_count()} cores\n"
    )
    for milliseconds in BUSY:
        seconds, waited = feed(requests, milliseconds / 1000)
        one_by_one = alone / (alone + milliseconds / 1000)
        sys.stdout.write(
            f"busy {milliseconds:>4} ms an image: {len(requests) / seconds:6.1f} images/s, idle "
            f"{waited / seconds:6.1%} of the time ({one_by_one:.1%} if each were made when asked for)\n"
        )
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    ahead = BATCHING.image_sets_ahead
    sys.stdout.write(f"peak memory above one image at a time: {peak:.0f} MB, {ahead} images ahead\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
