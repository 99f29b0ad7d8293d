"""Only this machine's own names open a connection to a leaderboard that listens here alone."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from evalkit_leaderboard.serving import own_hosts, served


def status(address: str, host: str) -> int:
    """HTTP status of a websocket handshake under a Host."""
    place = urlsplit(address)
    assert place.hostname and place.port
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        lines = [
            "GET /_stcore/stream HTTP/1.1",
            f"Host: {host}:{place.port}",
            f"Origin: http://{host}:{place.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(connection.recv(1024).split()[1])


@pytest.mark.slow
def test_a_foreign_name_opens_no_connection(tmp_path: Path) -> None:
    with served([tmp_path], tmp_path) as address:
        assert status(address, "127.0.0.1") == status(address, "localhost") == 101
        assert status(address, "evil.example") == status(address, "127.0.0.1.evil.example") == 403


def test_who_listens_on_a_network_is_not_bound_to_names() -> None:
    assert own_hosts("0.0.0.0") == [] and {"localhost", "127.0.0.1"} <= set(own_hosts("127.0.0.1"))
