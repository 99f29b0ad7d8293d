"""Data as script files: a page that is opened from the disk may load scripts, but may not fetch."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from evalkit.contracts import Json

DATA = "data"


class Writer:
    """Writes the files of an export, and takes away those of an earlier one.

    Attributes:
        bytes: of the texts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0
        self._written: set[Path] = set()

    def script(self, name: str, content: Json) -> None:
        """`data/NAME.js`, which hands its content to the page."""
        self.text(f"{DATA}/{name}.js", f"evalkitPut({packed(name)}, {packed(content)});\n")

    def text(self, name: str, content: str) -> None:
        """A text file."""
        encoded = content.encode("utf-8", "backslashreplace")
        self.file(name, encoded)
        self.bytes += len(encoded)

    def file(self, name: str, content: bytes) -> None:
        """Any file; one that was written already stays."""
        path = self.folder / name
        if path in self._written:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._written.add(path)

    def sweep(self, folders: Collection[str]) -> None:
        """Delete what an earlier export left in these folders of its own."""
        for folder in folders:
            for path in (self.folder / folder).glob("*"):
                if path not in self._written:
                    path.unlink()


def packed(content: Json) -> str:
    """JSON in ASCII, which every script may hold whatever the texts are."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
