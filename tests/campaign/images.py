"""Hostile images: damaged files of every format that is read, and of some that are not."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from typing import Any

from PIL import Image

from campaign.mutations import difference, mutate_bytes
from campaign.trial import Trial, Verdict, ask, judge, told
from evalkit.data.decoding import FORMATS, decode
from mini_internvl.images import open_image

#: Formats whose decoders must never be reached.
FOREIGN = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
}


def encoded() -> dict[str, bytes]:
    """A small image in each format, with modes and options that real files have."""
    rng = random.Random(0)
    picture = Image.frombytes("RGB", (37, 23), rng.randbytes(37 * 23 * 3))
    grey16 = Image.new("I;16", (16, 9), 300)
    found: dict[str, bytes] = {}

    def save(name: str, image: Image.Image, format: str, **options: Any) -> None:
        file = io.BytesIO()
        image.save(file, format, **options)
        found[name] = file.getvalue()

    for name in FORMATS:
        save(name, picture, name)
    save("JPEG progressive", picture, "JPEG", progressive=True, exif=b"Exif\0\0" + _orientation())
    save("PNG palette", picture.quantize(16), "PNG")
    save("PNG 16 bit", grey16, "PNG")
    save("PNG alpha", picture.convert("RGBA"), "PNG")
    save("TIFF deflate", picture, "TIFF", compression="tiff_deflate")
    save("TIFF lzw", picture, "TIFF", compression="tiff_lzw")
    save("TIFF float", picture.convert("F"), "TIFF")
    save("WEBP lossless", picture, "WEBP", lossless=True)
    for name in ("AVIF", "DDS", "ICO", "TGA", "PCX", "SGI", "JPEG2000"):
        if name in Image.SAVE:
            save(name, picture, name)
    return {**found, **FOREIGN}


def _orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


def read(data: bytes, door: str = "evalkit") -> tuple[Any, ...]:
    """Size, mode and a hash of the pixels, by the harness' or by the model's own way in."""
    image = decode(data, "picture.png") if door == "evalkit" else open_image(data)
    return image.size, image.mode, hashlib.sha256(image.tobytes()).hexdigest()[:16]


class Images(Trial):
    """A damaged image is an error of its sample, or has other pixels; a cut one is never taken for whole."""

    name = "images"
    share = 3.0
    seconds = 10.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = encoded()
        self.base = {name: ask(lambda data=data: read(data)).value for name, data in self.files.items()}
        assert all(self.base[name] is not None for name in FORMATS)
        assert all(self.base[name] is None for name in FOREIGN)

    def once(self, rng: random.Random) -> Verdict:
        """Decode one."""
        name = rng.choice(list(self.files))
        good = self.files[name]
        data = mutate_bytes(good, rng, self.files[rng.choice(list(self.files))])
        door = rng.choice(("evalkit", "model"))
        said = ask(lambda: read(data, door))
        base = self.base[name]
        if said.value is not None and said.value[0][0] * said.value[0][1] > 10**6:
            return Verdict("silent", f"{name}: {said.value[0]} pixels out of {len(data)} bytes")
        # equal pixels prove that nothing of what is asked was touched
        verdict = judge(said, base, touched=lambda: False, file="picture.png" if door == "evalkit" else "")
        return told(verdict, lambda: f"{name}, {door}: {difference(good, data)}")


class CutImages(Trial):
    """The first part of a file, as a broken download leaves it, is refused unless no pixel is missing."""

    name = "images: cut short"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = {name: data for name, data in encoded().items() if name.split()[0] in FORMATS}
        self.base = {name: read(data) for name, data in self.files.items()}

    def once(self, rng: random.Random) -> Verdict:
        """Decode a beginning."""
        name = rng.choice(list(self.files))
        data = self.files[name][: rng.randrange(len(self.files[name]))]
        said = ask(lambda: read(data))
        if said.raw is None and said.refusal is None and said.value != self.base[name]:
            return Verdict("silent", f"{name}: {len(data)} of {len(self.files[name])} bytes are decoded")
        return told(judge(said, self.base[name], touched=lambda: False), lambda: name)


TRIALS = (Images, CutImages)
