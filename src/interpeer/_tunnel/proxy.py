"""Getting out through an HTTP proxy that lets CONNECT pass (RFC 9110, 9.3.6), as the environment names it (HTTPS_PROXY)."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
import urllib.request
from typing import cast, final

MAX_ANSWER_BYTES = 8192
"""Of a proxy's answer; a larger one is not read."""


def proxy_for(host: str) -> urllib.parse.SplitResult | None:
    """Return the proxy that connections to a host are to take; None: none."""
    named = urllib.request.getproxies().get("https")
    if not named or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
    return proxy if proxy.scheme == "http" and proxy.hostname else None


@final
class ProxyCall(asyncio.Protocol):
    """Ask a proxy for a connection; `answered` ends when there is one, with ConnectionRefusedError when there is not."""

    def __init__(self, proxy: urllib.parse.SplitResult, host: str, port: int) -> None:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if proxy.username is not None:
            words = urllib.parse.unquote(f"{proxy.username}:{proxy.password or ''}").encode()
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(words).decode()}")
        self._request = "\r\n".join((*lines, "", "")).encode()
        self._answer = b""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are not derived from it
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.answered.done():
            return
        self._answer += data
        head, end, _ = self._answer.partition(b"\r\n\r\n")
        if end:
            words = head.split(b"\r\n")[0].split(b" ", 2)
            if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1][:1] == b"2" and len(words[1]) == 3:
                self.answered.set_result(None)
            else:
                self._refuse(
                    f"the proxy says {words[1][:3].decode(errors='replace') if len(words) > 1 else 'nothing that is HTTP'}"
                )
        elif len(self._answer) > MAX_ANSWER_BYTES:
            self._refuse("the proxy's answer has no end")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self._refuse("the proxy has closed the connection")

    def _refuse(self, why: str) -> None:
        self.answered.set_exception(ConnectionRefusedError(why))
        self.answered.exception()  # whoever waits may be gone
