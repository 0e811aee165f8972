"""The driver of a node on a simulated host: the same engine, with the network's packets and the clock's time."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from interpeer import _host
from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint, is_virtual
from interpeer._core import control, engine
from interpeer._driver import Driver, EventsCallback, bind_all
from interpeer._sockets import ExtraSocket, OnDatagram
from interpeer.testing._audit import Audit
from interpeer.testing._errors import SimulationError
from interpeer.testing._extra import SimSockets
from interpeer.testing._packet import DEFAULT_TTL, Packet, is_ipv4, is_loopback
from interpeer.testing._port import Port

if TYPE_CHECKING:
    from interpeer.testing._machine import Host

MAX_TURNS_AT_ONCE = 10_000
"""Turns of an engine while the clock stands: more are an engine that never has enough."""
_WILDCARDS = (bytes(16), IPV4_MAPPED + bytes(4))


@final
class SimDriver(Driver):
    """Give an engine its turns: when packets have come, when its timer is due, when a verb asks for it.

    Whatever happens to it at one moment shares a turn, as on the event loop."""

    def __init__(self, core: engine.Engine, host: Host, on_events: EventsCallback, number: int) -> None:
        self._core = core
        self._exchange = control.Exchange(core)
        self._host = host
        self._clock = host.net.clock
        self._on_events = on_events
        self._random = random.Random(f"{host.net.seed} entropy {host.name} {number}")
        self._sockets: list[CoreEndpoint] = []
        self.bound = ()
        self._inbox: list[tuple[bytes, CoreEndpoint, int, bytes]] = []
        self._turn_is_due = False
        self._turn_ns = 0  # when the last turn was
        self._turns_at_once = 0
        self._alarm_ns = 0  # the earliest call of the clock that is still to come; 0: none
        self._received = self._sent = 0
        self._is_open = False
        self._extra = SimSockets(host, take=self._take, hear=self._hear, send=self._send_from)
        self.audit = Audit(f"node {number} on {host.name}")
        self.endpoints = ()

    # --- sockets ---

    async def open(self, listen: Iterable[str]) -> None:
        self.bind(listen)

    def bind(self, listen: Iterable[str]) -> None:
        """Bind to addresses of the host. Raises OSError as a system would, and ValueError."""
        self.bound = tuple(bind_all(tuple(listen), self._bind, self._unbind))
        self.learn_addresses()
        self._is_open = True
        self._core.on_kick = self.kick

    def _bind(self, wanted: CoreEndpoint) -> int:
        address, port, _ = wanted
        if address not in _WILDCARDS and not is_loopback(address) and not self._host.has(address):
            raise OSError(errno.EADDRNOTAVAIL, "not an address of this host")
        bound = self._host.bind(address, port, self)
        self._sockets.append(bound)
        return bound[1]

    def _unbind(self) -> None:
        for bound in self._sockets:
            self._host.unbind(bound)
        self._sockets = []

    def learn_addresses(self) -> None:
        """Tell where the node can be reached, now that the host's addresses are known, or have changed."""
        with _host.on(self._host):
            super().learn_addresses()

    def can_reach(self, endpoint: Endpoint) -> bool:
        target = endpoint.to_core()
        self.audit.called(target)  # the node asks this of every address that its application calls
        return self._source_for(target) is not None

    def _source_for(self, target: CoreEndpoint, local: bytes = bytes(16)) -> CoreEndpoint | None:
        """Return where a packet to a target comes from; None: no socket can send it.

        It leaves from `local`, or, if the host does not have that address (any more), from wherever the host sends it."""
        is_near = is_loopback(target[0])
        for bound, port, _ in self._sockets:
            if is_ipv4((bound, port, 0)) != is_ipv4(target):
                continue
            own = bound if bound not in _WILDCARDS else target[0] if is_near else self._host.packed_like(target)
            if bound in _WILDCARDS and not is_near and self._host.has(local):
                own = local
            if own is not None and is_loopback(own) == is_near:
                return own, port, 0
        return None

    # --- extra sockets ---

    def open_sockets(self, count: int, is_ipv6: bool, on_datagram: OnDatagram) -> list[ExtraSocket]:
        if not any(is_ipv4(bound) is not is_ipv6 for bound in self._sockets):
            raise ValueError(f"the node has no IPv{6 if is_ipv6 else 4} socket that others could stand beside")
        return self._extra.open(count, is_ipv6, on_datagram)

    @property
    def can_adopt(self) -> bool:
        return self._is_open and self._extra.has_room

    def release_socket(self, local: bytes) -> None:
        self._extra.release(local)

    def _hear(self, packet: Packet) -> None:
        self._received += 1
        self.audit.received(packet)

    # --- turns ---

    def receive(self, packet: Packet) -> None:
        """Take a packet, for the turn that follows."""
        self._take(packet, packet.core_target[0])

    def _take(self, packet: Packet, local: bytes) -> None:
        self._hear(packet)
        self._inbox.append((packet.data, packet.core_source, packet.ecn, local))
        self.kick()

    def kick(self) -> None:
        if not self._turn_is_due and self._is_open:
            self._turn_is_due = True
            self._clock.at(self._clock.now_ns, self._turn)

    def flush(self) -> None:
        if self._is_open:
            self._turn()

    def resume(self) -> None:
        """Take the turn that is due since the host was suspended."""
        self.kick()

    def _turn(self) -> None:
        self._turn_is_due = False
        if not self._is_open or self._host.is_suspended:
            return
        now_ns = self._clock.now_ns
        self._turns_at_once = self._turns_at_once + 1 if now_ns == self._turn_ns else 0
        self._turn_ns = now_ns
        if self._turns_at_once > MAX_TURNS_AT_ONCE:
            self._is_open = False
            raise SimulationError(f"the engine of {self.audit.name} asks for a turn again and again while the clock stands")
        exchange, missing = self._exchange, control.entropy_missing(self._core)
        if missing > control.ENTROPY // 2:
            control.add_entropy(self._core, self._random.randbytes(missing))
        if self._inbox:
            arrived, self._inbox = self._inbox, []
            exchange.receive(arrived, now_ns)
        exchange.handle_timeout(now_ns)
        for data, target, ecn, local, ttl in exchange.transmit_from(now_ns):
            self._send(data, target, ecn, local, ttl)
        if exchange.has_events:
            self._on_events(control.events(self._core))
        self._set_alarm()

    def _send(self, data: bytes, target: CoreEndpoint, ecn: int, local: bytes, ttl: int) -> None:
        if is_virtual(local):
            extra = self._extra.adopted(local)
            if extra is not None:
                self._send_from(extra, data, target, ecn, ttl)
            return
        source = self._source_for(target, local)
        if source is not None:  # else the system would refuse it: the network is unreachable
            self._send_packet(data, source, target, ecn, ttl)

    def _send_from(self, extra: Port, data: bytes, target: CoreEndpoint, ecn: int, ttl: int) -> None:
        self._send_packet(data, extra.source_for(target), target, ecn, ttl)

    def _send_packet(self, data: bytes, source: CoreEndpoint, target: CoreEndpoint, ecn: int, ttl: int) -> None:
        self._sent += 1
        origin = data, source
        packet = Packet(data, source, target, ecn, 0.0, self._clock.now_ns, origin, self._host, ttl=ttl or DEFAULT_TTL)
        self.audit.sent(packet)
        self._host.net.send(packet)

    def _set_alarm(self) -> None:
        """See that there is a turn at the engine's deadline; a later call of the clock that is not needed does no harm."""
        deadline_ns = self._exchange.poll_timeout()
        if deadline_ns and self._is_open and (not self._alarm_ns or deadline_ns < self._alarm_ns):
            self._alarm_ns = max(deadline_ns, self._clock.now_ns)
            self._clock.at(self._alarm_ns, self._ring, self._alarm_ns)

    def _ring(self, alarm_ns: int) -> None:
        if alarm_ns != self._alarm_ns:
            return  # an earlier one has taken its place
        self._alarm_ns = 0
        if self._is_open:
            self._turn()

    def counters(self) -> dict[str, int]:
        return {"received_packets": self._received, "sent_packets": self._sent}

    def close(self) -> None:
        self._is_open = False
        self._core.on_kick = None
        self._inbox = []
        self._extra.close()
        self._unbind()
