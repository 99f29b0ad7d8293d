"""One deadline for a whole exchange: looking up, connecting, the headers and the body of the reply."""

from __future__ import annotations

import time
from typing import Any

_LATE = "the reply came too slowly"


def bound(client: Any, seconds: float) -> None:
    """Give each connection of an `httpx2` client so long, from its beginning to its last byte.

    The library's own time-outs are for single reads, which a trickle of bytes never exceeds. A connection is
    used for one exchange (`Connection: close`).
    """
    for transport in (client._transport, *client._mounts.values()):
        if (pool := getattr(transport, "_pool", None)) is not None:
            pool._network_backend = _Backend(pool._network_backend, seconds)


class _Backend:
    """Opens streams that end at a deadline."""

    def __init__(self, backend: Any, seconds: float) -> None:
        self._backend = backend
        self._seconds = seconds

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Stream:
        end = time.monotonic() + self._seconds
        return _Stream(self._backend.connect_tcp(*args, **kwargs), end)

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> _Stream:
        end = time.monotonic() + self._seconds
        return _Stream(self._backend.connect_unix_socket(*args, **kwargs), end)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream:
    """A stream whose every wait ends at the deadline."""

    def __init__(self, stream: Any, end: float) -> None:
        self._stream = stream
        self._end = end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            content: bytes = self._stream.read(max_bytes, self._left(timeout))
            return content
        except Exception:
            if time.monotonic() < self._end:
                raise
        raise TimeoutError(_LATE)  # outside of the handler: no other cause is shown

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> _Stream:
        return _Stream(self._stream.start_tls(*args, timeout=self._left(timeout), **kwargs), self._end)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(_LATE)
        return left if timeout is None else min(left, timeout)
