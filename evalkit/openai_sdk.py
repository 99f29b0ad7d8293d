"""The `openai` package as a run may use it: no redirections, no retries of its own, replies within bounds.

It reads `OPENAI_ORG_ID`, `OPENAI_CUSTOM_HEADERS` and others from the environment and would send them to any
server. So the headers of each request are replaced by ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from evalkit import deadlines
from evalkit.errors import ServerError
from evalkit.installation import install_command

_LONGEST_REPLY, _LONGEST_REFUSAL = 1 << 22, 2048
#: Headers that the transport sets for each request.
_OF_THE_TRANSPORT = frozenset(("host", "content-length", "content-type"))


def sdk_client(
    base: str, timeout: float, headers: Mapping[str, str], query: Mapping[str, str] | None = None
) -> Any:
    """The SDK without what a run must not have: retries of its own, redirections, replies without bounds.

    Args:
        headers: sent with each request; the key is among them. The SDK is not told it, and cannot log it.
        query: of each address.

    Raises:
        ServerError: the package is not installed.
    """
    try:
        import httpx2
        import openai
    except ImportError:
        raise ServerError(f"this needs the package openai: {install_command('api')}") from None

    class Bounded(httpx2.SyncByteStream):
        """The start of a refusal, or a whole reply that is neither too long nor too slow."""

        def __init__(self, response: httpx2.Response) -> None:
            assert isinstance(response.stream, httpx2.SyncByteStream)
            self._stream, self._refused = response.stream, not response.is_success

        def __iter__(self) -> Iterator[bytes]:
            return _bounded(iter(self._stream), time.monotonic() + timeout, self._refused)

        def close(self) -> None:
            self._stream.close()

    def bound(response: httpx2.Response) -> None:
        response.headers.pop("Content-Encoding", None)  # not asked for, and not unpacked
        response.stream = Bounded(response)

    def address(request: httpx2.Request) -> None:
        for name in set(request.headers) - _OF_THE_TRANSPORT:
            del request.headers[name]
        request.headers.update(headers)

    for name in ("httpx2", "httpcore2"):  # they log addresses and headers
        logging.getLogger(name).setLevel(logging.WARNING)
    http_client = openai.DefaultHttpxClient(
        follow_redirects=False,  # another server must not get the key
        timeout=timeout,
        event_hooks={"request": [address], "response": [bound]},
    )
    # no cookie is kept: a damaged one would make every later request fail
    http_client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    deadlines.bound(http_client, timeout)
    return openai.OpenAI(
        api_key="none",
        base_url=base,
        max_retries=0,
        timeout=timeout,
        default_query=query or None,
        http_client=http_client,
    )


def _bounded(blocks: Iterator[bytes], end: float, refused: bool) -> Iterator[bytes]:
    """Blocks of a body until the time `end`; the time-out of the socket alone would let a trickle go on.

    Args:
        refused: only the first bytes are of use, and no trouble with them matters.

    Raises:
        TimeoutError: the body is too long or too slow.
    """
    length = 0
    with contextlib.suppress(Exception) if refused else contextlib.nullcontext():
        for block in blocks:
            yield block
            length += len(block)
            if refused and (length >= _LONGEST_REFUSAL or time.monotonic() > end):
                return
            if time.monotonic() > end:
                raise TimeoutError("the reply came too slowly")
            if length > _LONGEST_REPLY:
                raise TimeoutError(f"a reply of more than {_LONGEST_REPLY} bytes")


def root(error: BaseException) -> BaseException:
    """What the network said, below what the libraries made of it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def network_error(reason: BaseException, address: str) -> str:
    """What the network said as a line, with the fix for certificates, and the proxy where one is set."""
    said = f"{type(reason).__name__}: {reason}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        said = f"its certificate is not trusted: {reason.verify_message or reason}{_certificate_fix(reason)}"
    proxy = proxy_of(address)
    return (
        f"{said} (through the proxy {proxy[1]} that {proxy[0]} names; NO_PROXY={proxy[2]} leaves it out)"
        if proxy
        else said
    )


def _certificate_fix(reason: ssl.SSLCertVerificationError) -> str:
    """OpenSSL's codes: 62 to 64 another name or address, 9 and 10 not yet or no longer valid."""
    if reason.verify_code in (62, 63, 64):
        return "; use the name that the certificate is for"
    if reason.verify_code in (9, 10):
        return "; renew it, or set this machine's clock"
    given = os.environ.get("SSL_CERT_FILE")
    return (
        f"; SSL_CERT_FILE={given} does not hold the authority that signed it"
        if given
        else "; set SSL_CERT_FILE=ca.pem to the certificate of the authority that signed it"
    )


def proxy_of(address: str) -> tuple[str, str, str] | None:
    """Variable and address (without password) of the proxy to a server, and the server's host."""
    parts = urllib.parse.urlsplit(address)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    name = parts.scheme if parts.scheme in proxies else "all"
    if name not in proxies or urllib.request.proxy_bypass(host):
        return None
    proxy = proxies[name].rpartition("@")
    scheme = proxy[0].partition("://")[0] + "://" if proxy[1] and "://" in proxy[0] else ""
    variable = next(
        (v for v in (f"{name}_proxy", f"{name.upper()}_PROXY") if os.environ.get(v)), f"{name}_proxy"
    )
    return variable, scheme + proxy[2], host
