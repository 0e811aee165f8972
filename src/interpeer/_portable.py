"""The driver for event loops that cannot watch sockets (Windows' Proactor loop): one task receives for each socket.

The engine sees the same batches as from the pump; what is missing is what only system calls give: GSO, GRO, ECN, and the
address that a datagram came to.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import final

from interpeer._address import CoreEndpoint, Endpoint
from interpeer._core import control, engine
from interpeer._driver import Driver, EventsCallback, bind_all, disabled_words

BUFFER_BYTES = 4 << 20
BATCH = 64
"""Datagrams taken before the engine gets its turn."""
MAX_DATAGRAM = 65_535


@final
class PortableDriver(Driver):
    """Receive with `sock_recvfrom`, send with plain `sendto`, and count both."""

    def __init__(self, core: engine.Engine, on_events: EventsCallback, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._exchange = control.Exchange(core)
        self._on_events = on_events
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False
        self._received = self._sent = self._failed = 0
        self.endpoints = ()
        self.bound = ()

    async def open(self, listen: Iterable[str]) -> None:
        self.bound = tuple(bind_all(tuple(listen), self._bind, self._close_sockets))
        self.learn_addresses()
        held = min(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in self._sockets)
        control.set_receive_buffer(self._core, held // 4)  # the kernel counts its own overhead, and each packet is alone
        self._is_open = True
        self._core.on_kick = self.kick
        self._tasks = [self._loop.create_task(self._receive(sock)) for sock in self._sockets]

    def _bind(self, endpoint: CoreEndpoint) -> int:
        packed, port, scope = endpoint
        is_ipv4 = packed.startswith(b"\0" * 10 + b"\xff\xff")
        if not is_ipv4 and "ipv6" in disabled_words().split(","):
            raise OSError(errno.EAFNOSUPPORT, "IPv6 is disabled")
        sock = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self._sockets.append(sock)
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if is_ipv4:
            sock.bind((socket.inet_ntop(socket.AF_INET, packed[12:]), port))
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((socket.inet_ntop(socket.AF_INET6, packed), port, 0, scope))
        bound_port: int = sock.getsockname()[1]
        return bound_port

    async def _receive(self, sock: socket.socket) -> None:
        while self._is_open:
            try:
                data, source = await self._loop.sock_recvfrom(sock, MAX_DATAGRAM)
            except OSError:
                # what ICMP says about an earlier datagram comes out here; recovery sees to that datagram
                await asyncio.sleep(0)
                continue
            batch = [(data, _packed(source), 0)]
            while len(batch) < BATCH:
                try:
                    data, source = sock.recvfrom(MAX_DATAGRAM)
                except OSError:
                    break
                batch.append((data, _packed(source), 0))
            self._received += len(batch)
            self._exchange.receive(batch, time.monotonic_ns())
            self.flush()

    def kick(self) -> None:
        if threading.get_ident() != self._thread_id:
            self._loop.call_soon_threadsafe(self.flush)
        elif self._soon is None and self._is_open:
            self._soon = self._loop.call_soon(self._turn_soon)

    def _turn_soon(self) -> None:
        self._soon = None
        self.flush()

    def flush(self) -> None:
        if not self._is_open:
            return
        now_ns = time.monotonic_ns()
        missing = control.entropy_missing(self._core)
        if missing > control.ENTROPY // 2:
            control.add_entropy(self._core, os.urandom(missing))
        self._exchange.handle_timeout(now_ns)
        for data, target, _, _, ttl in self._exchange.transmit_from(now_ns):
            self._send(data, target, ttl)
        if self._exchange.has_events:
            self._on_events(control.events(self._core))
        self._set_timer()

    def _send(self, data: bytes, target: CoreEndpoint, ttl: int) -> None:
        """Send one packet; what the socket does not take now is lost, as in a full queue."""
        packed, port, scope = target
        is_ipv4 = packed.startswith(b"\0" * 10 + b"\xff\xff")
        family = socket.AF_INET if is_ipv4 else socket.AF_INET6
        for sock in self._sockets:
            if sock.family == family:
                host = socket.inet_ntop(family, packed[12:] if is_ipv4 else packed)
                try:
                    with _time_to_live(sock, ttl):
                        sock.sendto(data, (host, port) if is_ipv4 else (host, port, 0, scope))
                    self._sent += 1
                except OSError:
                    self._failed += 1
                return

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_ns = self._exchange.poll_timeout()
        if deadline_ns and self._is_open:
            delay_s = max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
            self._timer = self._loop.call_later(delay_s, self._timer_is_due)

    def _timer_is_due(self) -> None:
        self._timer = None
        self.flush()

    def can_reach(self, endpoint: Endpoint) -> bool:
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return any(sock.family == family for sock in self._sockets)

    def counters(self) -> dict[str, int]:
        return {
            "received_packets": self._received,
            "sent_packets": self._sent,
            "unreachable": self._failed,
            "without_reader": self._received,
        }

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def close(self) -> None:
        self._is_open = False
        self._core.on_kick = None
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        for task in self._tasks:
            task.cancel()
        self._close_sockets()


@contextmanager
def _time_to_live(sock: socket.socket, ttl: int) -> Generator[None]:
    """Set a socket's time to live around one datagram; 0: leave it as it is."""
    if not ttl:
        yield
        return
    is_ipv4 = sock.family == socket.AF_INET
    option = (socket.IPPROTO_IP, socket.IP_TTL) if is_ipv4 else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    before = sock.getsockopt(*option)
    sock.setsockopt(*option, ttl)
    try:
        yield
    finally:
        sock.setsockopt(*option, before)


def _packed(source: tuple[str, int] | tuple[str, int, int, int]) -> CoreEndpoint:
    """Return the core's form of an address that a socket gives."""
    if len(source) == 2:
        return b"\0" * 10 + b"\xff\xff" + socket.inet_pton(socket.AF_INET, source[0]), source[1], 0
    return socket.inet_pton(socket.AF_INET6, source[0].partition("%")[0]), source[1], source[3]
