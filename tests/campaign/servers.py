"""Servers of the campaign: a judge in a process of its own, and one that answers whatever it is told."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

from http_server import LocalServer, body_of


class JudgeProcess:
    """A judge whose reply depends on the question alone; it writes a byte for each request."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.write_bytes(b"")
        reader, writer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            self._serve(writer)
        os.close(writer)
        with os.fdopen(reader) as file:
            self.url = f"{file.readline().strip()}/v1"

    def _serve(self, writer: int) -> None:
        with contextlib.suppress(BaseException):
            server = LocalServer(self._handle)
            os.write(writer, f"{server.origin}\n".encode())
            while os.getppid() != 1:
                time.sleep(0.2)
        os._exit(0)

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(body_of(request))
        question = json.dumps(body["messages"]).encode()
        with self.log.open("ab") as file:
            file.write(b".")
        time.sleep(0.01)
        text = str(int(hashlib.sha256(question).hexdigest()[:4], 16) % 100)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        content = json.dumps({"choices": [choice]}).encode()
        with contextlib.suppress(OSError):
            request.send_response(200)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)

    def asked(self) -> int:
        """Requests so far."""
        return self.log.stat().st_size

    def reset(self) -> None:
        """Count from zero."""
        self.log.write_bytes(b"")

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


class RawServer:
    """Answers every request with the same bytes, in one thread of this process.

    Attributes:
        url: of its API. reply: the bytes. pause: seconds before each of them, where it is not 0.
    """

    def __init__(self) -> None:
        self.reply = b""
        self.pause = 0.0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(5)
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        said = b""
        while b"\r\n\r\n" not in said:
            if not (block := connection.recv(65536)):
                return
            said += block
        head, _, body = said.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        left = int(length[1]) - len(body) if length else 0
        while left > 0 and (block := connection.recv(65536)):
            left -= len(block)
        if not self.pause:
            connection.sendall(self.reply)
            return
        for place in range(len(self.reply)):
            connection.sendall(self.reply[place : place + 1])
            time.sleep(self.pause)

    def close(self) -> None:
        """End it."""
        self._socket.close()
