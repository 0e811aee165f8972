"""PCP and NAT-PMP over a socket that is connected to the gateway: what others send does not come through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

from interpeer._portmap.answers import Answer, Kind, Wish
from interpeer._portmap.dialects import Dialect
from interpeer._portmap.gateway import Gateway
from interpeer._portmap.machine import RETRIES_S

PROBE_RETRIES_S = (0.25, 0.5, 1.0)
"""Between probes; after the last one nobody is there."""


class Absent(Exception):
    """Say why a protocol is of no use here."""


@final
class Datagrams(asyncio.DatagramProtocol):
    """One of the two protocols at one gateway."""

    retries_s = RETRIES_S

    def __init__(self, dialect: Dialect, gateway: Gateway) -> None:
        self.name = dialect.name
        self.epoch = dialect.epoch
        self.on_answer: Callable[[Answer], None] | None = None
        self.ignored = 0
        self._dialect = dialect
        self._gateway = gateway
        self._transport: asyncio.DatagramTransport | None = None
        self._heard: asyncio.Future[Answer] | None = None

    async def probe(self) -> None:
        """See whether the gateway speaks it. Raises Absent."""
        loop = asyncio.get_running_loop()
        local, remote = (self._gateway.own_host, 0), (self._gateway.host, self._gateway.port)
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=local, remote_addr=remote)
        except OSError as error:
            raise Absent(f"no way to the gateway: {error.strerror or error}") from None
        self._heard = loop.create_future()
        for wait_s in PROBE_RETRIES_S:
            self._send(self._dialect.probe())
            await asyncio.wait([self._heard], timeout=wait_s)
            if self._heard.done():
                break
        else:
            raise Absent("no answer")
        answer = self._heard.result()
        if answer.kind is Kind.REFUSED:
            raise Absent(answer.reason)

    def send(self, wish: Wish) -> None:
        """Ask; the answer comes by `on_answer`, if it comes."""
        for request in self._dialect.requests(wish):
            self._send(request)

    def handle_announcement(self, data: bytes) -> None:
        """Take what the gateway has said to everybody."""
        self._take(data)

    def leave(self) -> None:
        """Close: a deletion that was asked for has been sent."""
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- asyncio's callbacks ---

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self._gateway.is_at(addr):
            self.ignored += 1
        else:
            self._take(data)

    def error_received(self, exc: Exception) -> None:
        """Take the news that nobody listens there."""
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(Answer(Kind.REFUSED, reason="nobody listens there"))

    def _send(self, request: bytes) -> None:
        assert self._transport is not None
        with suppress(OSError):  # some loops raise what others tell error_received: the way is gone, and may come back
            self._transport.sendto(request)

    def _take(self, data: bytes) -> None:
        answer = self._dialect.parse(data)
        if answer is None:
            self.ignored += 1
        elif self._heard is not None and not self._heard.done():
            if answer.epoch_s is not None:
                self.epoch.has_kept(answer.epoch_s, asyncio.get_running_loop().time())
            self._heard.set_result(answer)
        elif self.on_answer is not None:
            self.on_answer(answer)
