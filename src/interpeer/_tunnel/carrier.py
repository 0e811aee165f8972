"""One tunnel: a byte stream that carries packets as frames of two bytes of length and the packet (docs/spec, chapter 26).

The core makes and cuts the frames; here is a stream's end, of TCP or of TLS. A WebSocket carries the same stream.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from interpeer._address import CoreEndpoint, Endpoint
from interpeer._core import tunnels

if TYPE_CHECKING:
    from interpeer._tunnel import Tunnels

logger = logging.getLogger("interpeer")

WRITE_BUFFER_BYTES = 128 * 1024
"""Waiting in the transport before the core is told to keep the rest: enough for the kernel to have always something to send."""
UNSENT_BYTES = 128 * 1024
"""... and in the kernel, beyond what is on its way: what waits there only delays what comes after it."""
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Carrier(asyncio.Protocol):
    """Be one end of a tunnel, over TCP or TLS."""

    def __init__(self, book: Tunnels, transport: str, remote: Endpoint | None = None) -> None:
        self._book = book
        self.kind = transport
        """"tcp", "tls", "ws" or "wss"."""
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.is_caller = remote is not None
        self.remote = remote
        """The other end; of one that has called us, where it calls from."""
        self.caller: tuple[str, int] | None = None
        """Of one that was accepted: where it calls from. A socket that was reset meanwhile tells that no more."""
        self.counted: str | None = None
        """Under which address it is counted among those that have called us."""
        self.number = 0
        """In the virtual address that stands for it; 0: not ready."""
        self.opened_s = 0.0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def endpoint(self) -> CoreEndpoint:
        """What stands for it in the core."""
        return tunnels.endpoint(self.number)

    # --- asyncio's protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = self._transport = cast("asyncio.Transport", transport)  # uvloop's have no base in common with asyncio's
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        _limit_unsent(transport)
        if self._book.begin(self, self.caller or transport.get_extra_info("peername")):
            self._begin()
        else:
            transport.abort()

    def _begin(self) -> None:
        """The stream is there: packets may flow."""
        self._made_ready()

    def _made_ready(self) -> None:
        if not self._book.add(self):
            self.fail("there is no room for another tunnel")
        elif not self.ready.done():
            self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Hand over the whole frames of what has come."""
        if not self.number:
            return
        stream = self._rest + data if self._rest else data
        try:
            used = tunnels.receive(self._book.core, self.number, stream)
        except ValueError as error:
            self.fail(str(error))
            return
        self._rest = stream[used:]

    def write(self, frames: bytes) -> None:
        """Send frames."""
        assert self._transport is not None
        self._transport.write(frames)

    def pause_writing(self) -> None:
        self._book.hold(self, True)

    def resume_writing(self) -> None:
        self._book.hold(self, False)

    def eof_received(self) -> bool:
        return False  # half a tunnel is none: the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("the tunnel was closed before it was ready"))
            self.ready.exception()  # nobody may wait for it
        if not self.lost.done():
            self.lost.set_result(None)
        self._book.lose(self)

    # --- the end ---

    def fail(self, why: str) -> None:
        """Close a stream that makes no sense."""
        logger.info("the tunnel with %s is closed: %s", self.remote, why)
        self.abort()

    def close(self) -> None:
        """Close, once what was written has gone."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what is on its way is lost, as packets may be."""
        if self._transport is not None:
            self._transport.abort()


def _limit_unsent(transport: asyncio.Transport) -> None:
    """Keep short what waits in the kernel, where it lets us; by a copy, since uvloop's sockets take no options."""
    sock = transport.get_extra_info("socket")
    if isinstance(_TCP_NOTSENT_LOWAT, int) and sock is not None and sock.fileno() >= 0:
        with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as copy:
            copy.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
