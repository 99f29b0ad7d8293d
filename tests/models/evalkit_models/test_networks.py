"""Networks between evalkit and a server: certificates of an own authority, forward proxies."""

from __future__ import annotations

import http.server
import json
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import completion
from served_bench import Bench, open_bench

from evalkit.openai_sdk import proxy_of
from evalkit_models.served import KEY_VARIABLE


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    unset = (KEY_VARIABLE, "SSL_CERT_FILE", "no_proxy", "NO_PROXY", "http_proxy", "https_proxy")
    with open_bench(tmp_path, capsys, monkeypatch, unset) as one:
        yield one


class _Secure(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._say({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say({"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]})

    def _say(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["127.0.0.1", "another.example"])
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """Address of a TLS server, the name in its certificate, and the certificate of its authority."""
    trustme = pytest.importorskip("trustme", reason="needs trustme (extra dev)")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(request.param).configure_cert(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Secure)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    yield f"https://127.0.0.1:{server.server_port}/v1", request.param, tmp_path / "ca.pem"
    server.shutdown()
    server.server_close()


def test_an_authority_of_ones_own(
    secure: tuple[str, str, Path], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, name, certificate = secure
    assert bench.run("--limit", "1", url=url) == 3
    assert "certificate is not trusted" in bench.err and "set SSL_CERT_FILE=ca.pem" in bench.err
    assert "start the server" not in bench.err
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    if name == "127.0.0.1":
        assert bench.run("--limit", "1", url=url) == 0, bench.err
    else:
        assert bench.run("--limit", "1", url=url) == 3
        assert "use the name that the certificate is for" in bench.err


def test_the_wrong_authority_is_named(
    secure: tuple[str, str, Path], bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import trustme

    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    assert bench.run("--limit", "1", url=secure[0]) == 3
    assert "other.pem does not hold the authority that signed it" in bench.err


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """The proxy sets what signals do to its process, and leaves it so."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("kept_signals")
def test_a_real_forward_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("proxy", reason="needs proxy.py (extra dev)")
    import proxy

    arguments = ["--port", "0", "--hostname", "127.0.0.1", "--num-workers", "1", "--num-acceptors", "1"]
    with proxy.Proxy([*arguments, "--log-level", "ERROR"]) as running:
        where = f"127.0.0.1:{running.flags.port}"
        monkeypatch.setenv("http_proxy", f"http://me:proxy-word@{where}")
        assert bench.run("--limit", "2") == 0
        assert any("proxy.py" in headers.get("Via", "") for headers in bench.server.headers)
        assert "proxy-word" not in bench.everything()
        bench.server.behave = lambda body, attempt: None  # the connection is dropped
        assert bench.run("--limit", "2", "--no-resume", "--gen", "attempts=1") == 4
    assert bench.run("--limit", "2", "--no-resume") == 3  # nobody listens there any more
    assert f"through the proxy http://{where} that http_proxy names" in bench.err
    assert "NO_PROXY=127.0.0.1" in bench.err and "proxy-word" not in bench.everything()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bench.server.behave = lambda body, attempt: completion("Yes")
    assert bench.run("--limit", "2", "--no-resume") == 0


def test_which_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    assert proxy_of("https://api.example/v1") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://me:word@gate:8080")
    assert proxy_of("https://api.example/v1") == ("HTTPS_PROXY", "http://gate:8080", "api.example")
    assert proxy_of("http://api.example/v1") is None
    monkeypatch.setenv("no_proxy", ".example")
    assert proxy_of("https://api.example/v1") is None
