"""Where peers can call by tunnel: accepting, with a cap for each address, before anything is read (docs/spec, chapter 26)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import ssl
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from interpeer._address import Endpoint
from interpeer._config import parse_tunnel
from interpeer._tunnel import tls, websocket
from interpeer._tunnel.carrier import Carrier

if TYPE_CHECKING:
    from interpeer._tunnel import Tunnels

logger = logging.getLogger("interpeer")

MAX_OF_AN_ADDRESS = 16
"""Tunnels from one address, or one /64: a household behind one NAT, and no more for somebody who opens them to keep us busy."""
MAX_INCOMING = 192
"""... from all: the rest of a node's tunnels is for its own calls."""
HANDSHAKE_S = 10.0
"""How long TLS may take, and whatever comes before the first connection of a peer."""
BACKLOG = 64
RETRY_S = 0.1
"""After an accept that failed, since the process has no descriptor left."""


def voice_of(host: str) -> str:
    """Return what counts as one caller: an IPv4 address, or an IPv6 /64."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


@final
class Listener:
    """Accept tunnels at one address."""

    def __init__(self, book: Tunnels, text: str, certificate: Path | str | None) -> None:
        self.transport, self.host, self.port, self.path = parse_tunnel(text)
        self._book = book
        self._is_simulated = book.is_simulated
        self._server: asyncio.AbstractServer | None = None
        self._task: asyncio.Task[None] | None = None
        self._welcoming: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None
        if self.transport in ("ws", "wss") and not websocket.is_available():
            raise ValueError(f"{text}: {websocket.MISSING}")
        if self.transport in tls.ALPN and not self._is_simulated:
            self._tls = tls.server_context(self.transport, certificate)

    async def open(self) -> None:
        """Begin to listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._is_simulated:
            self._server = await loop.create_server(self._make_simulated, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
            return
        is_ipv6 = ":" in self.host
        listening = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            if os.name == "posix":  # elsewhere it lets somebody else take the port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_ipv6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((self.host, self.port))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise OSError(
                error.errno, f"cannot listen for tunnels at {self.transport}://{self.host}:{self.port}: {error}"
            ) from None
        self.port = listening.getsockname()[1]
        self._task = loop.create_task(self._accept(listening))

    def _make_simulated(self) -> Carrier:
        return self._book.make_carrier(self.transport, None, self.path)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    sock, at = await loop.sock_accept(listening)
                except ConnectionAbortedError:
                    continue  # who has called is gone already; systems other than Linux tell so
                except OSError as error:
                    logger.warning("no tunnel can be accepted: %s", error)
                    await asyncio.sleep(RETRY_S)
                    continue
                if not self._book.callers.enter(at[0]):
                    sock.close()
                    continue
                task = loop.create_task(self._welcome(sock, at))
                self._welcoming.add(task)
                task.add_done_callback(self._welcoming.discard)

    async def _welcome(self, sock: socket.socket, at: tuple[Any, ...]) -> None:
        """Make a tunnel of a connection, unless TLS comes to nothing."""
        loop = asyncio.get_running_loop()
        carrier = self._book.make_carrier(self.transport, None, self.path)
        carrier.caller, carrier.counted = at[:2], at[0]
        limit = {"ssl_handshake_timeout": HANDSHAKE_S} if self._tls is not None else {}
        try:
            await loop.connect_accepted_socket(lambda: carrier, sock, ssl=self._tls, **limit)
        except (OSError, TimeoutError) as error:
            logger.debug("%s has called by %s in vain: %s", at[0], self.transport, error)
            self._book.lose(carrier)
            sock.close()
        except BaseException:
            self._book.lose(carrier)
            sock.close()
            raise

    def endpoints(self, own: tuple[Endpoint, ...]) -> list[Endpoint]:
        """Return where it can be called, given what the node's own addresses are."""
        hosts = [self.host]
        if self.host in ("::", "0.0.0.0"):
            hosts = [one.host for one in own if (":" in one.host) == (":" in self.host)]
        return [Endpoint(host, self.port, self.transport, self.path) for host in dict.fromkeys(hosts)]

    def close(self) -> None:
        """Listen no more."""
        for task in (self._task, *self._welcoming):
            if task is not None:
                task.cancel()
        if self._server is not None:
            self._server.close()

    async def wait_closed(self) -> None:
        """Wait until nothing runs any more."""
        tasks = [task for task in (self._task, *self._welcoming) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)


@final
class Callers:
    """Count who has called us, so that nobody takes every place."""

    def __init__(self) -> None:
        self._voices: Counter[str] = Counter()

    def enter(self, host: str) -> bool:
        """Count one of this address; return whether there is a place for it."""
        voice = voice_of(host)
        if self._voices.total() >= MAX_INCOMING or self._voices[voice] >= MAX_OF_AN_ADDRESS:
            return False
        self._voices[voice] += 1
        return True

    def leave(self, host: str) -> None:
        """Count it no more."""
        self._voices[voice_of(host)] -= 1
        self._voices += Counter()  # forgets those that are zero
