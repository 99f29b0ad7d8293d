"""Pictures that travel with their requests, for workers that do not see the data root (`--ship-data`)."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.contracts import ImageHandle, Request
from evalkit.data.images import ImageBytes, ImageFile, TableImage, decode
from evalkit.errors import ImageError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Modes that PNG keeps as they are.
_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True, slots=True)
class ShippedImage:
    """An encoded picture under the names of the handle that it was read from.

    Attributes:
        data: the encoded picture; empty where it could not be read, for the reason in `fault`.
        content: the handle's digest. name: its identity. places: its files, on the machine it came from.
    """

    data: bytes
    content: str
    name: str
    places: tuple[str, ...]
    fault: str = ""

    def open(self) -> Image:
        """See `evalkit.data.images.ImageHandle.open`."""
        if self.fault:
            raise ImageError(self.fault)
        return decode(self.data, self.name)

    def digest(self) -> str:
        """See `evalkit.data.images.ImageHandle.digest`."""
        return self.content

    def identity(self) -> str:
        """See `evalkit.data.images.ImageHandle.identity`."""
        return self.name

    def paths(self) -> tuple[str, ...]:
        """See `evalkit.data.images.ImageHandle.paths`."""
        return self.places


class Shipper:
    """Packs pictures, each once for all requests of a parcel."""

    def __init__(self) -> None:
        self._packed: dict[str, ShippedImage] = {}

    def pack(self, request: Request) -> Request:
        """The request with its pictures inside.

        Raises:
            UsageError: pixels that no lossless file holds.
        """
        if not request.images:
            return request
        return dataclasses.replace(request, images=tuple(map(self._picture, request.images)))

    def _picture(self, handle: ImageHandle) -> ShippedImage:
        name = handle.identity()
        if name not in self._packed:
            try:
                data, fault = _encoded(handle), ""
            except ImageError as error:
                data, fault = b"", str(error)
            self._packed[name] = ShippedImage(data, handle.digest(), name, handle.paths(), fault)
        return self._packed[name]


def _encoded(handle: ImageHandle) -> bytes:
    """The file's own bytes where there are such, otherwise the decoded pixels as PNG."""
    if isinstance(handle, ImageBytes):
        return handle.data
    if isinstance(handle, (ImageFile, TableImage)):
        return handle.encoded()
    picture = handle.open()
    if picture.mode not in _PNG:
        raise UsageError(
            f"--ship-data: {handle.identity()} has pixels of mode {picture.mode}, which cannot be sent "
            "without loss; put the data where all machines see it"
        )
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
