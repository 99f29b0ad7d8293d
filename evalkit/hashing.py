"""Short hashes that stand for texts where the texts themselves would take much memory."""

from __future__ import annotations

import hashlib


def short_hash(text: str) -> int:
    """64 bits: two of a million texts are taken for one with a chance of one in forty million."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
