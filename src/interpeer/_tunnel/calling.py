"""Calling by tunnel: a while after UDP, as nobody needs it whose UDP works (in the manner of RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from interpeer import errors
from interpeer._address import CoreEndpoint, Endpoint
from interpeer._core import control
from interpeer._identity import PeerId
from interpeer._tunnel import tls, websocket
from interpeer._tunnel.carrier import Carrier
from interpeer._tunnel.proxy import ProxyCall, proxy_for

if TYPE_CHECKING:
    from interpeer._connection import Connection
    from interpeer._tunnel import Tunnels

DELAY_S = 0.3
"""How long UDP alone has the chance to be answered: more than a round trip almost anywhere."""
BETWEEN_S = 0.25
"""Between the calls to two addresses of a peer (RFC 8305, 5)."""
MAX_CALLED = 4
"""Tunnels that one call opens."""
FAILURES = (OSError, errors.LocalError, ImportError, ValueError)
"""Why a tunnel cannot be opened: a TimeoutError is an OSError, and so is an SSLError; ImportError: there is nobody to speak
WebSocket; ValueError: the environment names a proxy that makes no sense, or the host has a name that cannot be."""


@final
class Offer:
    """Have tunnels for a call."""

    def __init__(self, book: Tunnels, peer_id: PeerId, endpoints: list[Endpoint], udp: list[CoreEndpoint]) -> None:
        self._book = book
        self.peer_id = peer_id
        self.failures: list[str] = []
        """Why a tunnel did not help: a line for each that was tried."""
        self._all = endpoints
        self._endpoints = endpoints[:MAX_CALLED]
        self._udp = udp
        self._opened: list[CoreEndpoint] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._connection: Connection | None = None

    async def first(self) -> list[CoreEndpoint]:
        """Open one before the call begins, since there is no other way; return it, or nothing where none can be opened."""
        while self._endpoints and not self._opened:
            await self._open(self._endpoints.pop(0))
        return self._opened

    def begin(self, connection: Connection) -> None:
        """A call is under way: open tunnels soon, unless UDP is answered before."""
        self._connection = connection
        delay_s = 0.0 if self._book.udp_is_blocked else DELAY_S
        if self._endpoints and not self._opened:
            self._tasks.append(asyncio.get_running_loop().create_task(self._open_all(delay_s)))

    async def _open_all(self, delay_s: float) -> None:
        for endpoint in self._endpoints:
            await asyncio.sleep(delay_s)
            delay_s = BETWEEN_S
            self._tasks.append(asyncio.get_running_loop().create_task(self._open(endpoint)))

    async def _open(self, endpoint: Endpoint) -> None:
        try:
            way = await self._book.open(endpoint)
        except FAILURES as error:
            self.failures.append(f"{endpoint}: {describe(error)}")
            return
        self._opened.append(way)
        if self._connection is not None:
            control.add_candidate(self._connection._handle, way)

    def keep(self, connection: Connection) -> None:
        """The call has come to something: learn from it, and look after the connection if it has tunnels to use."""
        is_tunnelled = self._book.find(connection._handle.remote) is not None
        if is_tunnelled or self._udp:
            self._book.udp_is_blocked = is_tunnelled and bool(self._udp)
        if self._all:
            self._book.keep(connection, self._all, self._udp)

    def close(self) -> None:
        """Try no more."""
        for task in self._tasks:
            task.cancel()


async def open_stream(carrier: Carrier, endpoint: Endpoint, *, is_simulated: bool) -> None:
    """Connect a carrier, through a proxy if the environment says so. Raises OSError."""
    if endpoint.transport in ("ws", "wss") and not websocket.is_available():
        raise ImportError(websocket.MISSING)
    loop = asyncio.get_running_loop()
    context = tls.caller_context(endpoint.transport) if endpoint.transport in tls.ALPN and not is_simulated else None
    proxy = None if is_simulated else proxy_for(endpoint.host)
    if proxy is None:
        name = None if context is None else endpoint.host
        await loop.create_connection(lambda: carrier, endpoint.host, endpoint.port, ssl=context, server_hostname=name)
        return
    transport, call = await loop.create_connection(
        lambda: ProxyCall(proxy, endpoint.host, endpoint.port), proxy.hostname or "", proxy.port or 80
    )
    try:
        await call.answered
        secured: asyncio.BaseTransport | None = transport
        if context is not None:
            secured = await loop.start_tls(transport, carrier, context, server_hostname=endpoint.host)
        else:
            transport.set_protocol(carrier)
        assert secured is not None
        carrier.connection_made(secured)
    except BaseException:
        transport.abort()
        raise


def describe(error: BaseException) -> str:
    """Say in a line why a tunnel could not be opened."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
