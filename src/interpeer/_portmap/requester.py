"""HTTP to the gateway and nobody else, for async-upnp-client: what a description or a reply may cost is bounded here.

This module imports aiohttp and async-upnp-client, which are installed with interpeer[upnp]; `igd` imports it when it is needed.
"""

from __future__ import annotations

from typing import final

import aiohttp
from async_upnp_client.client import UpnpRequester
from async_upnp_client.const import HttpRequest, HttpResponse
from async_upnp_client.exceptions import UpnpCommunicationError, UpnpConnectionTimeoutError

from interpeer._portmap.igd import check_url, plain

MAX_BODY_BYTES = 256 << 10
"""Of one reply. The largest description of a router that we know has 30 KB."""
MAX_REQUESTS = 64
"""To one gateway between two mappings: a description may name any number of services, and each is fetched."""
REQUEST_S = 3.0


@final
class GatewayRequester(UpnpRequester):
    """Ask one host over plain HTTP: no other host, no redirects, no compression, no proxies, no cookies."""

    def __init__(self, host: str, own_host: str) -> None:
        self._host = host
        self._own_host = own_host
        self.requests_left = MAX_REQUESTS

    async def async_http_request(self, http_request: HttpRequest) -> HttpResponse:
        """Do one request. Raises UpnpCommunicationError, also for what is refused here."""
        try:
            check_url(http_request.url, self._host)
        except ValueError as error:
            raise UpnpCommunicationError(str(error)) from None
        if self.requests_left == 0:
            raise UpnpCommunicationError(f"it wants more than {MAX_REQUESTS} requests")
        self.requests_left -= 1
        headers = {**http_request.headers, "Accept-Encoding": "identity"}
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(local_addr=(self._own_host, 0), force_close=True),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=REQUEST_S),
                    auto_decompress=False,
                ) as session,
                session.request(
                    http_request.method, http_request.url, headers=headers, data=http_request.body, allow_redirects=False
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_chunked(16 << 10):
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise UpnpCommunicationError(f"it sends more than {MAX_BODY_BYTES} bytes")
                text = body.decode("utf-8", "replace")
                if "<!DOCTYPE" in text:  # nobody's device has one; the library would refuse the entities in it, too
                    raise UpnpCommunicationError("it sends a DOCTYPE, which may declare entities")
                return HttpResponse(response.status, dict(response.headers), text)
        except TimeoutError as error:
            raise UpnpConnectionTimeoutError(f"no reply within {REQUEST_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpnpCommunicationError(plain(str(error))) from error
