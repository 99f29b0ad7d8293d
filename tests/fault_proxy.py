"""A proxy in front of a real server that drops, delays, refuses and talks nonsense, by a fixed plan."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import threading
import time
from urllib.parse import urlsplit

from http_server import LocalServer, body_of

#: What is done to requests, in turn, before the same request is let through at its next attempt.
PLAN = ("pass", "drop", "429", "pass", "500", "nonsense", "late drop", "empty", "delay", "pass", "torn")


class FaultProxy:
    """Forwards to `target`; the first attempt at each request meets what the plan has next.

    Attributes:
        url: to be given in place of the target's. done: how often each part of the plan was carried out.
        delay: seconds of a delay.
    """

    def __init__(self, target: str, delay: float) -> None:
        self.done: dict[str, int] = dict.fromkeys(PLAN, 0)
        self.delay = delay
        self._target = urlsplit(target)
        self._seen: set[bytes] = set()
        self._turn = 0
        self._lock = threading.Lock()
        self._server = LocalServer(self._handle)
        self.url = f"{self._server.origin}{self._target.path}"

    def close(self) -> None:
        """End the proxy; the target goes on."""
        self._server.close()

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        trouble = self._next(hashlib.sha256(body).digest()) if body else "pass"
        with contextlib.suppress(OSError):  # the client has given up
            self._carry_out(trouble, request, body)

    def _next(self, digest: bytes) -> str:
        with self._lock:
            if digest in self._seen:
                return "pass"
            self._seen.add(digest)
            trouble = PLAN[self._turn % len(PLAN)]
            self._turn += 1
            self.done[trouble] += 1
            return trouble

    def _carry_out(self, trouble: str, request: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        if trouble == "delay":
            time.sleep(self.delay)
        if trouble in ("pass", "delay"):
            self._send(request, *self._forward(request, body))
        elif trouble == "late drop":  # after the work is done
            self._forward(request, body)
        elif trouble == "torn":
            status, content = self._forward(request, body)
            self._send(request, status, content[: len(content) // 2], len(content))
        elif trouble in ("429", "500"):
            self._send(request, int(trouble), b'{"error": "not now"}')
        elif trouble == "nonsense":
            self._send(request, 200, b"<html>Welcome to the gateway</html>")
        elif trouble == "empty":
            self._send(request, 200, b'{"choices": []}')
        request.close_connection = True

    def _forward(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(str(self._target.netloc), timeout=300)
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(request.command, request.path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def _send(
        self,
        request: http.server.BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        length: int | None = None,
    ) -> None:
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        if status == 429:
            request.send_header("Retry-After", "0.2")
        request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        request.wfile.write(content)
