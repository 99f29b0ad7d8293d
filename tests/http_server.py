"""An HTTP server of the tests' own, in a thread of this process."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable

Handle = Callable[[http.server.BaseHTTPRequestHandler], None]


class LocalServer:
    """Hands every GET and POST to `handle`, each in its own thread.

    Attributes:
        origin: `http://` and the address that it listens at.
    """

    def __init__(self, handle: Handle) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                handle(self)

            def do_GET(self) -> None:
                handle(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def body_of(request: http.server.BaseHTTPRequestHandler) -> bytes:
    """What was sent."""
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))
