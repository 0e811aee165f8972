"""A network of hosts in one process, in simulated time, with every fault that a real one has."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, TextIO, final

from interpeer.testing._clock import SimClock
from interpeer.testing._errors import SimulationError
from interpeer.testing._link import Link, Wire
from interpeer.testing._loop import SimLoop
from interpeer.testing._machine import Host
from interpeer.testing._natkind import NatBehaviour, NatKind
from interpeer.testing._packet import Fate, Packet, is_loopback
from interpeer.testing._realm import Node, Realm
from interpeer.testing._router import CARRIER, HOME, ISP_BOX, Router

Interceptor = Callable[[Packet], Iterable[Packet] | None]


def _running_loop() -> SimLoop:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if not isinstance(loop, SimLoop):
        raise SimulationError("a SimNet is made inside interpeer.testing.run, or is given a clock: SimNet(clock=SimClock())")
    return loop


@final
class SimNet:
    """Join hosts by links, in simulated time.

    link: what every direction between two hosts is like, unless `link` or `wire` says otherwise; perfect without it.
    seed: where the chance of links and keys comes from; that of the run without it.
    clock: None inside `run`; without an event loop, a clock of your own.

    >>> from interpeer.testing import run
    >>> async def main():
    ...     net = SimNet(Link(delay_s=0.05))
    ...     async with net.host("alice").node() as a, net.host("bob").node() as b:
    ...         async with a.connect(b.address):
    ...             return net.clock.now_s  # a round trip
    >>> run(main(), seed=1)
    0.1
    """

    def __init__(self, link: Link | None = None, *, seed: int | None = None, clock: SimClock | None = None) -> None:
        if clock is None:
            loop = _running_loop()
            clock, seed = loop.clock, loop.seed if seed is None else seed
        self.clock = clock
        self.seed = 0 if seed is None else seed
        self.counters: Counter[str] = Counter()
        """How many packets met which fate, of those in `Fate.what`."""
        self._default = link if link is not None else Link()
        self._hosts: dict[str, Host] = {}
        self._routers: dict[str, Router] = {}
        self.public = Realm(self, self._default)
        """The network that is everybody's: here are the hosts without a router, and the outsides of routers."""
        self._outside = itertools.count(1)  # addresses of what `Host.rebind` puts there
        self._sites = itertools.count(1)  # networks of routers
        self._groups: dict[Host, int] = {}
        self._interceptors: list[Interceptor] = []
        self._observers: list[Callable[[Fate], object]] = []
        self._digest = hashlib.blake2b(digest_size=16)

    # --- what there is ---

    def host(
        self,
        name: str | None = None,
        *addresses: str,
        nat: NatKind | Router | None = None,
        up: Link | None = None,
        down: Link | None = None,
    ) -> Host:
        """Add a host; without addresses it gets one of each family, in a network of its own, or those that are due behind `nat`.

        nat: the router that it is behind, which may have other hosts, or the kind of one of its own (then it has IPv4 alone).
        up, down: its own access to the network, before and behind the links to other hosts. Raises ValueError."""
        number = len(self._hosts) + 1
        name = f"host{number}" if name is None else name
        if name in self._hosts:
            raise ValueError(f"there is a host {name!r} already")
        if isinstance(nat, NatKind):
            nat = None if nat is NatKind.PUBLIC else self.router(f"{name}.gw", nat)
        if not addresses and nat is None:
            addresses = (f"11.{number >> 8 & 255}.{number & 255}.1", f"2000:0:{number & 0xFFFF:x}::1")
        wires = self._make_access(name, up, down)
        host = Host(self, name, self.realm_of(nat), addresses or self.lease(nat), *wires)
        self._hosts[name] = host
        return host

    def router(
        self,
        name: str | None = None,
        kind: NatKind | NatBehaviour = NatKind.PORT,
        *,
        behind: Router | None = None,
        lan: str | None = None,
        ipv4: bool = True,
        ipv6: str = "off",
        is_refreshed_inward: bool = False,
        link: Link | None = None,
        up: Link | None = None,
        down: Link | None = None,
    ) -> Router:
        """Add a router for hosts to be behind: `net.host("a", nat=router)`.

        behind: the router that it is behind itself, as at a carrier. Without it those kinds that have one behind them get it:
        one more for each of NatKind.DOUBLE, the same for all of NatKind.CGN. lan: the inside network; every home's is
        192.168.1.0/24. ipv4, ipv6: which families it has; for IPv6 it is a firewall, "fw", lets all through, "open", or has
        none, "off". is_refreshed_inward: what comes in keeps mappings alive, too. link: of the wires inside, perfect without.
        up, down: its access to the network outside. Raises ValueError."""
        name = f"router{len(self._routers) + 1}" if name is None else name
        if name in self._routers:
            raise ValueError(f"there is a router {name!r} already")
        behaviour = kind.behaviour if isinstance(kind, NatKind) else kind
        if behaviour.carrier is not None:
            if behind is None:
                behind = self._carrier(name, kind, behaviour, ipv6)
            behaviour = behaviour.replace(carrier=None, hairpin=False)
        wires = self._make_access(name, up, down)
        router = Router(
            self, name, behaviour, behind=behind, lan=lan or HOME, ipv4=ipv4, ipv6=ipv6,
            is_refreshed_inward=is_refreshed_inward, link=link or Link(), up=wires[0], down=wires[1],
        )  # fmt: skip
        self._routers[name] = router
        return router

    def _carrier(self, name: str, kind: NatKind | NatBehaviour, behaviour: NatBehaviour, ipv6: str) -> Router:
        """Return what is behind a router whose kind says that something is."""
        assert behaviour.carrier is not None
        outer, ipv6 = behaviour.carrier.behaviour, "off" if ipv6 == "off" else "open"
        if kind not in (NatKind.CGN, NatKind.CGN_HAIRPIN):
            return self.router(f"{name}.isp", outer.replace(hairpin=behaviour.hairpin), lan=ISP_BOX, ipv6=ipv6)
        shared = self._routers.get(str(kind))
        if shared is None:
            shared = self.router(str(kind), outer.replace(hairpin=behaviour.hairpin), lan=CARRIER, ipv6="open")
        return shared

    def _make_access(self, name: str, up: Link | None, down: Link | None) -> list[Wire | None]:
        return [self.make_wire(link, f"{name} {side}") if link else None for link, side in ((up, "up"), (down, "down"))]

    def realm_of(self, place: Router | None) -> Realm:
        """Return the network behind a router, or the public one."""
        return self.public if place is None else place.inside

    def lease(self, place: Router | None) -> tuple[str, ...]:
        """Return addresses for a host there."""
        if place is not None:
            return tuple(place.lease())
        site = self.next_site()
        return f"15.{site >> 8 & 255}.{site & 255}.1", f"2000:3:{site & 0xFFFF:x}::1"

    def next_site(self) -> int:
        """Return the number of a network that nobody has yet."""
        return next(self._sites)

    def next_outside(self) -> int:
        """Return the number of an address that nobody has yet."""
        return next(self._outside)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, in the order in which they were made."""
        return tuple(self._hosts.values())

    @property
    def routers(self) -> tuple[Router, ...]:
        """All routers, in the order in which they were made."""
        return tuple(self._routers.values())

    def wire(self, a: Host, b: Host) -> Wire:
        """Return the direction from `a` to `b`, to be changed with `set` and looked at in `stats`.

        It is the one in the innermost network that both are in: for hosts behind different routers that between those."""
        realm, node_a, node_b = self._between(a, b)
        return realm.wire(node_a, node_b)

    def _between(self, a: Host, b: Host) -> tuple[Realm, Node, Node]:
        if a is b:
            raise ValueError("a host reaches itself without a link")
        nodes = dict(reversed(tuple(a.ways_out())))
        return next((realm, nodes[realm], node) for realm, node in b.ways_out() if realm in nodes)

    def link(self, a: Host, b: Host, link: Link | None = None, *, back: Link | None = None, **changes: Any) -> None:
        """Set both directions between two hosts; `back`, if given, is that from `b` to `a`."""
        self.wire(a, b).set(link, **changes)
        self.wire(b, a).set(back or link, **changes)

    def bottleneck(self, link: Link, sources: Iterable[Host], targets: Iterable[Host]) -> Wire:
        """Let everything from any of some hosts to any of others go through one wire, with one queue, and return it.

        What the hosts' links do besides is theirs: a longer way for one of them is its own `up`. Raises ValueError.

        >>> net = SimNet(clock=SimClock())
        >>> a, b, c, d = (net.host() for _ in range(4))
        >>> shared = net.bottleneck(Link(rate_bit_per_s=10e6, queue_packets=25), [a, b], [c, d])
        >>> net.wire(a, d) is net.wire(b, c) is shared
        True
        """
        pairs = [self._between(source, target) for source in sources for target in targets]
        shared = self.make_wire(link, f"bottleneck {', '.join(f'{a.name} to {b.name}' for _, a, b in pairs)}")
        for realm, a, b in pairs:
            realm.share(shared, a, b)
        return shared

    def make_wire(self, link: Link, name: str) -> Wire:
        """Return a wire whose losses are told as this network's."""
        return Wire(self.clock, link, f"{self.seed} wire {name}", self._end)

    def partition(self, *groups: Iterable[Host]) -> None:
        """Let nothing through between these groups; hosts in none of them are one more group. Undone by `heal`."""
        self._groups = {host: number for number, group in enumerate(groups, 1) for host in group}

    def _parts(self, sender: Host | None, target: Node) -> bool:
        if not self._groups or sender is None or isinstance(target, Router):
            return False  # who is behind a router is known behind it
        return self._groups.get(sender, 0) != self._groups.get(target, 0)

    def heal(self) -> None:
        """Undo `partition`."""
        self._groups = {}

    # --- packets by hand ---

    def intercept(self, interceptor: Interceptor) -> Callable[[], None]:
        """Show every packet to a function before it goes on its way; return a function that ends this.

        It returns None to let the packet go, or what is to go in its place: nothing, copies, the packet and others."""
        self._interceptors.append(interceptor)
        return lambda: self._interceptors.remove(interceptor)

    @contextmanager
    def intercepting(self, interceptor: Interceptor) -> Generator[None]:
        """Intercept for a while: `with net.intercepting(...)`."""
        stop = self.intercept(interceptor)
        try:
            yield
        finally:
            stop()

    def inject(self, packet: Packet) -> None:
        """Put a packet on the doorstep of its target, after its `delay_s`; no link and no interceptor touches it."""
        packet.sent_ns = self.clock.now_ns
        packet.sender = packet.realm = packet.carrier = None
        self.clock.at(self.clock.now_ns + round(packet.delay_s * 1e9), self._arrive, packet)

    # --- what happened ---

    def observe(self, observer: Callable[[Fate], object]) -> None:
        """Tell a function of every packet's fate, as it is settled: `net.observe(fates.append)`."""
        self._observers.append(observer)

    def trace_to(self, file: TextIO) -> None:
        """Write a line for every packet's fate from now on."""
        self.observe(lambda fate: file.write(f"{fate}\n"))

    def digest(self) -> str:
        """Return a hash over every packet until now, its bytes, times, addresses and fate: equal for equal runs."""
        return self._digest.copy().hexdigest()

    # --- on the way ---

    def send(self, packet: Packet) -> None:
        """Take a packet that a node sends."""
        packets: Iterable[Packet] = (packet,)
        for interceptor in tuple(self._interceptors):
            packets = [other for one in packets for other in self._intercepted(interceptor, one)]
        for one in packets:
            if one.delay_s > 0:
                self.clock.at(self.clock.now_ns + round(one.delay_s * 1e9), self._leave, one)
            else:
                self._leave(one)

    def _intercepted(self, interceptor: Interceptor, packet: Packet) -> Iterable[Packet]:
        others = interceptor(packet)
        if others is None:
            return (packet,)
        others = tuple(others)
        if not any(other is packet for other in others):
            self._end(packet, "intercepted")
        return others

    def _leave(self, packet: Packet) -> None:
        sender = packet.sender
        if sender is None or is_loopback(packet.core_target[0]) or sender.has(packet.core_target[0]):
            self._arrive(packet)
            return
        interface = sender.interface_with(packet.core_source[0])
        packet.realm, packet.carrier = interface.realm, sender
        if not sender.is_plugged_in:
            self._end(packet, "unplugged")
        elif sender.is_suspended:
            self._end(packet, "suspended")
        elif not interface.is_up:
            self._end(packet, "interface down")
        else:
            cross = self._spread if packet.is_to_group else self._cross
            if sender.up is not None:
                sender.up.carry(packet, cross)
            else:
                cross(packet)

    def _spread(self, packet: Packet) -> None:
        """Let a packet go to all on the sender's switch; hosts of the public network have none."""
        sender, realm = packet.sender, packet.realm
        assert sender is not None and realm is not None
        if packet.is_looped_back:
            self._arrive_for_all(sender, packet.copy())
        hosts = dict.fromkeys(node for node in realm.nodes.values() if isinstance(node, Host) and node is not sender)
        for host in hosts if realm is not self.public else ():
            arrive = functools.partial(self._arrive_for_all, host)
            if self._parts(sender, host):
                self._end(packet.copy(), "partitioned")
            elif host.down is not None:
                realm.wire(sender, host).carry(packet.copy(), functools.partial(host.down.carry, arrived=arrive))
            else:
                realm.wire(sender, host).carry(packet.copy(), arrive)

    def _arrive_for_all(self, host: Host, packet: Packet) -> None:
        what = host.deafness(packet.realm)
        listeners = host.group_listeners(packet.core_target) if what is None else []
        self._end(packet, what or ("delivered" if listeners else "nobody there"))
        for listener in listeners:
            listener.receive(packet)

    def _cross(self, packet: Packet) -> None:
        """Let a packet cross the network that its carrier has put it into: to who has the address there, or to the way out."""
        sender, node, realm = packet.sender, packet.carrier, packet.realm
        assert sender is not None and node is not None and realm is not None
        if node is sender and sender.nat is not None:
            sender.nat.outward(packet)
        target = realm.nodes.get(packet.core_target[0])
        if target is None:
            if realm.gateway is None:
                self._end(packet, "nobody there")
            else:
                self._pass_outward(packet, realm.gateway)
        elif self._parts(sender, target):
            self._end(packet, "partitioned")
        elif target is node:
            self._arrive(packet)
        elif realm is not self.public or self._hop(packet):
            realm.wire(node, target).carry(packet, self._come_down)

    def _hop(self, packet: Packet) -> bool:
        """Let a packet pass a router, if it may."""
        if packet.ttl <= 1:
            self._end(packet, "ttl expired")
            return False
        packet.ttl -= 1
        return True

    def _pass_outward(self, packet: Packet, router: Router) -> None:
        if router.has_outside(packet.core_target[0]):
            reason = router.turn_back(packet)
            if reason is not None:
                self._end(packet, reason)
            else:
                self._pass_inside(packet, router)
            return
        if not self._hop(packet):
            return
        reason = router.outward(packet)
        packet.realm, packet.carrier = router.realm, router
        if reason is not None:
            self._end(packet, reason)
        elif router.up is not None:
            router.up.carry(packet, self._cross)
        else:
            self._cross(packet)

    def _come_down(self, packet: Packet) -> None:
        """Let a packet that has crossed a network go down to who has the address there."""
        assert packet.realm is not None
        target = packet.realm.nodes.get(packet.core_target[0])
        if isinstance(target, Router):
            if target.down is not None and target.realm is packet.realm:
                target.down.carry(packet, self._arrive)
            else:
                self._arrive(packet)
        elif target is not None and target.nat is not None and not target.nat.inward(packet):
            self._end(packet, "not mapped")
        elif target is not None and target.down is not None:
            target.down.carry(packet, self._arrive)
        else:
            self._arrive(packet)

    def _pass_inside(self, packet: Packet, router: Router) -> None:
        """Let a packet that a router has let in go on behind it."""
        if not self._hop(packet):
            return
        packet.realm, packet.carrier = router.inside, router
        target = router.inside.nodes.get(packet.core_target[0])
        if target is not None and self._parts(packet.sender, target):
            self._end(packet, "partitioned")
        else:
            self._come_down(packet)

    def _arrive(self, packet: Packet) -> None:
        target: Node | None
        if is_loopback(packet.core_target[0]) or (packet.realm is None and packet.sender is not None):
            target = packet.sender
        else:
            target = (packet.realm or self.public).nodes.get(packet.core_target[0])
        if isinstance(target, Router):
            self._arrive_at_router(packet, target)
            return
        receive = target.receiver(packet) if target is not None else None
        if target is None or receive is None:
            self._end(packet, "nobody there")
        elif not target.is_plugged_in and target is not packet.sender:
            self._end(packet, "unplugged")
        elif target.is_suspended:
            self._end(packet, "suspended")
        elif not target.interface_with(packet.core_target[0]).is_up:
            self._end(packet, "interface down")
        else:
            self._end(packet, "delivered")
            receive(packet)

    def _arrive_at_router(self, packet: Packet, router: Router) -> None:
        reason = router.inward(packet) if packet.realm is not router.inside else "nobody there"
        if reason is not None:
            self._end(packet, reason)
        else:
            self._pass_inside(packet, router)

    def _end(self, packet: Packet, what: str) -> None:
        """Settle a packet's fate: count it, tell it, and let the digest have it."""
        self.counters[what] += 1
        now_ns = self.clock.now_ns
        head = f"{packet.sent_ns} {now_ns} {packet.core_source} {packet.core_target} {packet.ecn} {what} {packet.notes}\n"
        self._digest.update(head.encode())
        self._digest.update(packet.data)
        if self._observers:
            start_ns = self.clock.start_ns
            fate = Fate(
                (now_ns - start_ns) / 1e9, (packet.sent_ns - start_ns) / 1e9, packet.source, packet.target, len(packet.data),
                packet.kind, what, packet.notes,
            )  # fmt: skip
            for observer in self._observers:
                observer(fate)
