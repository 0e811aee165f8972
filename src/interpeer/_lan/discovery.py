"""Finding the nodes of one's network on the same links (docs/spec, chapter 27)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, final

from interpeer import _host
from interpeer._address import Endpoint
from interpeer._identity import PeerId, to_base32
from interpeer._interfaces import Change, Interface, interfaces
from interpeer._lan import beacon as wire
from interpeer._lan.beacon import Beacon
from interpeer._lan.links import HOPS, Links, Source, links_of
from interpeer._lan.mdns import Mdns, NameTaken
from interpeer._lan.neighbours import Neighbour, Neighbours
from interpeer._lan.pace import MAX_OPENED_PER_S, Allowance, AnswerGaps, Schedule

ROUNDS_REMEMBERED = 4
"""Hellos to which an answer may still come."""

_logger = logging.getLogger("interpeer")
OnPeer = Callable[[PeerId, tuple[Endpoint, ...]], None]


@final
class LanDiscovery:
    """Tell the links who is here, and find out who else is.

    `bound`: host and port of the node's sockets, as its driver has them. `on_peer` is called with a neighbour's id and all its
    endpoints whenever one of them is new: a hint that anybody who knows the network's name can have made up.
    Start and close it on the event loop, on the node's host; let it hear of changes by `on_change`."""

    def __init__(
        self,
        node_id: PeerId,
        network: str,
        bound: Iterable[tuple[str, int]],
        on_peer: OnPeer,
        *,
        with_beacons: bool = True,
        with_mdns: bool = True,
    ) -> None:
        if not network:
            raise ValueError("a network has a name")
        self._node_id = node_id
        self._key = wire.network_key(network)
        self._ports = _ports(bound)
        self._on_peer = on_peer
        self._with_beacons = with_beacons
        self._with_mdns = with_mdns
        self._run = _host.random_bytes(wire.RUN_BYTES)
        self._neighbours = Neighbours()
        self._schedule = Schedule()
        self._answers = AnswerGaps()
        self._opened = Allowance(MAX_OPENED_PER_S)
        self._counters = Counter[str]()
        self._echoes: list[bytes] = []
        self._interfaces: tuple[Interface, ...] = ()
        self._links: Links | None = None
        self._mdns: Mdns | None = None
        self._due: asyncio.TimerHandle | None = None
        self._changing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self.notes: tuple[str, ...] = ()
        """Which way of discovery does not work here, and why."""

    # --- lifetime ---

    async def start(self) -> None:
        """Begin. A way that does not work is noted, and does not hinder the others."""
        self._loop = asyncio.get_running_loop()
        self._interfaces = links_of(interfaces())
        if not any(self._ports):
            self.notes = ("the node listens on this machine alone",)
            return
        if self._with_beacons:
            self._links = Links(self._loop, self._on_datagram)
            await self._try("beacons", self._links.open(self._interfaces))
            if self._interfaces and not any(_reaches_all(interface) for interface in self._interfaces):
                self.notes += ("beacons: the system tells of no interface with multicast or broadcast",)
            self._say_at(self._schedule.restart(self._loop.time()))
        if self._with_mdns and _host.current.get() is None:
            await self._try("mDNS", self._open_mdns())

    async def _open_mdns(self) -> None:
        """Have a record; under another name if somebody says that it has the first, which is malice: it was drawn at random."""
        for is_last in (False, True):
            name, record = to_base32(_host.random_bytes(10)), self._sealed(wire.RECORD)
            self._mdns = Mdns(name, record, self._ports[0] or self._ports[1], self._on_record)
            try:
                await self._mdns.open(self._interfaces)
            except NameTaken:
                if is_last:
                    raise
            else:
                return

    async def _try(self, what: str, opening: Coroutine[Any, Any, None]) -> None:
        try:
            await opening
        except ImportError:
            self.notes += (f"{what}: the package zeroconf is not installed (pip install interpeer[lan])",)
        except Exception as error:  # whatever a library makes of what neighbours say, and of interfaces that go
            self.notes += (f"{what}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}",)

    async def close(self) -> None:
        """End it. Harmless when closed."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._links is not None:
            self._links.close()
            self._links = None
        mdns, self._mdns = self._mdns, None
        try:
            if self._changing is not None:
                self._changing.cancel()
                await asyncio.gather(self._changing, return_exceptions=True)
        finally:  # whoever waits for it may be cancelled
            if mdns is not None:
                await mdns.close()

    # --- what is known ---

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The nodes that were heard of lately."""
        return self._neighbours.all(self._loop.time())

    def counters(self) -> dict[str, int]:
        """Return how often what has happened: beacons said, answered, and dropped by cause."""
        failed = 0 if self._links is None else self._links.failed
        return {**self._counters, "refused": self._neighbours.refused, "failed": failed}

    # --- saying ---

    def on_change(self, change: Change) -> None:
        """Hear that the interfaces have changed, or that the machine has slept: say hello again, at once."""
        self._interfaces = links_of(change.interfaces)
        if self._links is not None:
            self._links.use(self._interfaces)
            self._say_at(self._schedule.restart(self._loop.time()))
        if self._mdns is not None and (self._changing is None or self._changing.done()):
            self._changing = self._loop.create_task(self._follow(self._mdns))

    async def _follow(self, mdns: Mdns) -> None:
        """Move the record to where the interfaces are now; what changes meanwhile is followed, too."""
        followed: tuple[Interface, ...] | None = None
        while followed != self._interfaces:
            followed = self._interfaces
            await self._try("mDNS", mdns.use(followed))

    def _say_at(self, when_s: float) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = self._loop.call_at(when_s, self._say)

    def _say(self) -> None:
        self._due = None
        if self._links is None:
            return
        data = self._sealed(wire.HELLO)
        self._echoes = [*self._echoes[1 - ROUNDS_REMEMBERED :], wire.echo_of(data)]
        self._say_at(self._schedule.said(self._loop.time(), _host.random_bytes(1)[0] / 255))
        self._links.say(data)
        self._counters["said"] += 1

    def _sealed(self, kind: int, echo: bytes = bytes(wire.ECHO_BYTES)) -> bytes:
        ours = Beacon(kind, self._node_id, *self._ports, self._run, echo)
        return wire.write_beacon(ours, self._key, _host.random_bytes(24))

    # --- hearing ---

    def _on_datagram(self, data: bytes, source: Source) -> None:
        """Take what has come to one of the sockets; whoever sent it."""
        beacon = self._open(data, source)
        if beacon is None:
            return
        if beacon.kind == wire.HELLO:
            self._answer(data, source)
        elif beacon.kind != wire.ANSWER or beacon.echo not in self._echoes:
            self._counters["dropped_unasked"] += 1
            return
        self._found(beacon, (source.host,))

    def _open(self, data: bytes, source: Source) -> Beacon | None:
        if len(data) != wire.BEACON_BYTES:
            self._counters["dropped_size"] += 1
        elif not self._is_near(source):
            self._counters["dropped_far"] += 1
        elif not self._opened.take(self._loop.time()):
            self._counters["dropped_rate"] += 1
        elif (beacon := wire.parse_beacon(data, self._key)) is None:
            self._counters["dropped_foreign"] += 1
        elif beacon.run != self._run and beacon.peer_id != self._node_id:
            return beacon
        return None

    def _is_near(self, source: Source) -> bool:
        """Tell whether a datagram has passed no router: by its hops, or, where the system does not tell them, by its source."""
        if source.hops is not None:
            return source.hops == HOPS
        return self._is_on_link(source.host)

    def _is_on_link(self, host: str) -> bool:
        ip = ipaddress.ip_address(host.partition("%")[0])
        return any(interface.is_on_link(ip) for interface in self._interfaces)

    def _answer(self, data: bytes, to: Source) -> None:
        """Say to one who says hello that we are here, no more often than is good."""
        if self._links is not None and self._answers.take((to.host, to.port), self._loop.time()):
            self._links.answer(self._sealed(wire.ANSWER, wire.echo_of(data)), to)
            self._counters["answered"] += 1

    def _on_record(self, data: bytes, hosts: tuple[str, ...]) -> None:
        """Take what mDNS has brought."""
        if not self._opened.take(self._loop.time()):
            self._counters["dropped_rate"] += 1
            return
        beacon = wire.parse_beacon(data, self._key)
        if beacon is None or beacon.kind != wire.RECORD:
            self._counters["dropped_foreign"] += 1
        elif beacon.run != self._run and beacon.peer_id != self._node_id:
            self._found(beacon, tuple(host for host in hosts if self._is_on_link(host) and not _lacks_scope(host)))

    def _found(self, beacon: Beacon, hosts: Iterable[str]) -> None:
        places = [
            Endpoint(host, port)
            for host in hosts
            if (port := beacon.port_ipv6 if ":" in host else beacon.port_ipv4) and (":" not in host or self._ports[1])
        ]
        neighbour = self._neighbours.hear(beacon.peer_id, places, self._loop.time()) if places else None
        if neighbour is not None:
            self._counters["found"] += 1
            self._on_peer(neighbour.peer_id, neighbour.endpoints)


def _ports(bound: Iterable[tuple[str, int]]) -> tuple[int, int]:
    """Return the ports at which neighbours can call, for IPv4 and for IPv6; 0 where they cannot."""
    found = {4: 0, 6: 0}
    for host, port in bound:
        ip = ipaddress.ip_address(host)
        if not ip.is_loopback:
            found[ip.version] = found[ip.version] or port
    return found[4], found[6]


def _lacks_scope(host: str) -> bool:
    """Tell whether it is an address that several links may have, and does not say on which it is."""
    return ":" in host and "%" not in host and ipaddress.ip_address(host).is_link_local


def _reaches_all(interface: Interface) -> bool:
    """Tell whether there is a way to say something to all on a link at once."""
    return interface.is_multicast or any(address.broadcast is not None for address in interface.addresses)
