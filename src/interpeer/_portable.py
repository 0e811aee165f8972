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
from collections.abc import Iterable
from typing import final

from interpeer import errors
from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint, is_virtual
from interpeer._core import control, engine, pump
from interpeer._driver import Driver, EventsCallback, bind_all, disabled_words
from interpeer._sockets import ExtraSocket, ExtraSockets, LoopSocket, OnDatagram, packed, plain, time_to_live

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
        self._hosts: list[str] = []
        self._extra = ExtraSockets(loop, is_watched=False)
        self._adopted: dict[bytes, tuple[socket.socket, asyncio.Task[None]]] = {}  # by their virtual addresses
        self._received = self._sent = self._failed = 0
        self.endpoints = ()
        self.bound = ()

    async def open(self, listen: Iterable[str]) -> None:
        self.bound = tuple(bind_all(tuple(listen), self._bind, self._close_sockets))
        self.learn_addresses()
        self._hosts = [host for host, _ in self.bound]
        held = min(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in self._sockets)
        control.set_receive_buffer(self._core, held // 4)  # the kernel counts its own overhead, and each packet is alone
        self._is_open = True
        self._core.on_kick = self.kick
        self._tasks = [self._loop.create_task(self._receive(sock, bytes(16))) for sock in self._sockets]

    def _bind(self, endpoint: CoreEndpoint) -> int:
        is_ipv4 = endpoint[0].startswith(IPV4_MAPPED)
        if not is_ipv4 and "ipv6" in disabled_words().split(","):
            raise OSError(errno.EAFNOSUPPORT, "IPv6 is disabled")
        sock = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self._sockets.append(sock)
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if not is_ipv4:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(plain(endpoint))
        bound_port: int = sock.getsockname()[1]
        return bound_port

    async def _receive(self, sock: socket.socket, local: bytes) -> None:
        while self._is_open:
            try:
                data, source = await self._loop.sock_recvfrom(sock, MAX_DATAGRAM)
            except OSError:
                # what ICMP says about an earlier datagram comes out here; recovery sees to that datagram
                await asyncio.sleep(0)
                continue
            batch = [(data, packed(source), 0, local)]
            while len(batch) < BATCH:
                try:
                    data, source = sock.recvfrom(MAX_DATAGRAM)
                except OSError:
                    break
                batch.append((data, packed(source), 0, local))
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
        for data, target, _, local, ttl in self._exchange.transmit_from(now_ns):
            self._send(data, target, local, ttl)
        if self._exchange.has_events:
            self._on_events(control.events(self._core))
        self._set_timer()

    def _send(self, data: bytes, target: CoreEndpoint, local: bytes, ttl: int) -> None:
        """Send one packet; what the socket does not take now is lost, as in a full queue, and so is what has none."""
        family = socket.AF_INET if target[0].startswith(IPV4_MAPPED) else socket.AF_INET6
        if is_virtual(local):
            sockets = [self._adopted[local][0]] if local in self._adopted else []
        else:
            sockets = self._sockets
        for sock in sockets:
            if sock.family == family:
                try:
                    with time_to_live(sock, ttl):
                        sock.sendto(data, plain(target))
                    self._sent += 1
                except OSError:
                    self._failed += 1
                return

    # --- extra sockets ---

    def open_sockets(self, count: int, is_ipv6: bool, on_datagram: OnDatagram) -> list[ExtraSocket]:
        return self._extra.open(count, self._hosts, is_ipv6, on_datagram, self._adopt)

    @property
    def can_adopt(self) -> bool:
        return self._is_open and len(self._adopted) < pump.MOST_ADOPTED

    def _adopt(self, extra: LoopSocket) -> bytes:
        if not self.can_adopt:
            raise errors.LocalError(f"{pump.MOST_ADOPTED} sockets are adopted already, or the node is closed")
        local, sock = self._extra.next_local(), extra.detach()
        self._adopted[local] = sock, self._loop.create_task(self._receive(sock, local))
        return local

    def release_socket(self, local: bytes) -> None:
        if local in self._adopted:
            sock, task = self._adopted.pop(local)
            task.cancel()
            sock.close()

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
        self._extra.close()
        for local in list(self._adopted):
            self.release_socket(local)
        self._is_open = False
        self._core.on_kick = None
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        for task in self._tasks:
            task.cancel()
        self._close_sockets()
