"""A chat completions endpoint for tests: it fails, stalls, talks nonsense and answers."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any

from http_server import LocalServer, body_of

#: What the server does with one request: (status, body), bytes to send raw, or None to drop the connection.
Answer = tuple[int, object] | bytes | None


def completion(
    text: object, finish: object = "stop", usage: object = None, **more: object
) -> tuple[int, object]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    return 200, {"choices": [choice], "usage": usage}


class Server:
    """A chat completions endpoint that answers by `behave(body, attempt at this question)`."""

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, Any], int], Answer] = lambda body, attempt: completion("50")
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.extra: dict[str, str] = {}
        self.path = ""
        self.listed: list[str] | tuple[int, object] | None = []
        self.together = self.most_together = 0
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server = LocalServer(self._handle)
        self.url = f"{self._server.origin}/v1"

    def _list(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.headers.append(dict(request.headers))
        if isinstance(self.listed, list):
            self._answer(request, (200, {"data": [{"id": name} for name in self.listed]}))
        else:
            self._answer(request, self.listed)

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if request.command == "GET" and request.path.endswith("/models"):
            self._list(request)
            return
        raw = body_of(request)
        body = json.loads(raw) if raw else {}
        with self._lock:
            self.path = request.path
            self.headers.append(dict(request.headers))
            self.bodies.append(body)
            asked = json.dumps(body, sort_keys=True)
            self._seen[asked] = attempt = self._seen.get(asked, 0) + 1
            self.together += 1
            self.most_together = max(self.most_together, self.together)
        try:
            self._answer(request, self.behave(body, attempt))
        except OSError:
            pass
        finally:
            with self._lock:
                self.together -= 1

    def _answer(self, request: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer is None:
            request.close_connection = True
            request.connection.close()
        elif isinstance(answer, bytes):
            request.wfile.write(answer)
        else:
            status, content = answer
            encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
            request.send_response(status)
            for name, value in self.extra.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(encoded)))
            request.end_headers()
            request.wfile.write(encoded)

    def close(self) -> None:
        self._server.close()
