"""A small world of NATs in simulated time, in which two punching machines run against each other.

Plain and deterministic: a seed decides ports, losses and background flows. It models what punching depends on: how mappings are
made (RFC 4787), who is let in, which port is next, hops to live, one-way delays, loss, flows of others, and the plain Linux
router that remembers a packet from outside which came too early, and then gives the port it came to nobody.
"""

from __future__ import annotations

import heapq
import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from interpeer._core.natfacts import NatFacts
from interpeer._core.punch import Punch
from interpeer._core.spray_budget import SprayBudget

MS = 1_000_000
SECOND = 1000 * MS
At = tuple[str, int]
EI, AD, APD = "endpoint-independent", "address-dependent", "address-and-port-dependent"
PORT = 4433
TTL = 64


def core(at: At) -> tuple[bytes, int, int]:
    address = ipaddress.ip_address(at[0])
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed, at[1], 0


def plain(at: tuple[bytes, int, int]) -> At:
    address = ipaddress.IPv6Address(at[0])
    return str(address.ipv4_mapped or address), at[1]


class World:
    """A clock, what is to happen, and the networks."""

    def __init__(self, seed: int, *, delay_s: float = 0.0, loss: float = 0.0) -> None:
        self.random, self.now, self.delay_ns, self.loss = random.Random(seed), SECOND, int(delay_s * SECOND), loss
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.internet = Lan(self, None)
        self.sent: dict[str, int] = {}

    def at(self, when: int, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, what))

    def run(self, until: int, is_done: Callable[[], bool] = lambda: False) -> None:
        while self._queue and self._queue[0][0] <= until and not is_done():
            self.now, _, what = heapq.heappop(self._queue)
            what()


class Lan:
    """Addresses that reach each other, and the way out; the Internet is the one without a way out."""

    def __init__(self, world: World, gateway: Nat | None) -> None:
        self.world, self.gateway, self.members = world, gateway, dict[str, Nat | Host]()

    def send(self, data: bytes, source: At, to: At, ttl: int) -> None:
        if to[0] in self.members:
            is_far = self.gateway is None
            if is_far and ttl <= 1:  # the Internet is a router, too
                return
            if is_far and self.world.random.random() < self.world.loss:
                return
            delay = 2 * self.world.delay_ns if is_far else MS // 5
            member = self.members[to[0]]
            self.world.at(self.world.now + delay, lambda: member.arrive(data, source, to, ttl - is_far))
        elif self.gateway is not None and ttl > 1:
            self.gateway.leave(data, source, to, ttl - 1)


@dataclass
class Nat:
    """Translate between a network inside and one outside; `mapping` "none" filters only."""

    outside: Lan
    address: str
    mapping: str = EI
    filtering: str = APD
    allocation: str = "preserved"
    block: tuple[int, int] = (1024, 65535)
    step: int = 1
    flows_per_s: float = 0.0
    hairpin: bool = False
    answers_back: bool = False
    """Whether an answer leaves by the port that its cause came in by."""
    is_linux: bool = False
    is_blocked: bool = False
    inside: Lan = field(init=False)

    def __post_init__(self) -> None:
        self.world = self.outside.world
        self.inside = Lan(self.world, self)
        self.outside.members[self.address] = self
        self.ports: dict[tuple[object, ...], int] = {}
        self.owners: dict[int, At] = {}
        self.flows: dict[tuple[int, At], At] = {}
        self.sent_to: dict[int, set[At]] = {}
        self.spoilt: set[tuple[At, int]] = set()
        self.next_port = self.world.random.randrange(2000, 60000)
        self.counted = self.world.now

    def leave(self, data: bytes, source: At, to: At, ttl: int) -> None:
        if self.is_blocked:
            return
        if self.mapping == "none":
            port = source[1]
            self.owners[port], translated = source, source
        else:
            port = self.port_for(source, to)
            translated = (self.address, port)
        self.sent_to.setdefault(port, set()).add(to)
        if to[0] == self.address:
            if self.hairpin:
                self.arrive(data, translated, to, ttl)
        else:
            self.outside.send(data, translated, to, ttl)

    def arrive(self, data: bytes, source: At, to: At, ttl: int) -> None:
        port = to[1]
        peers = self.sent_to.get(port, set())
        if port not in self.owners or (self.is_linux and source not in peers):
            self.spoilt.add((source, port))
            return
        owner = self.flows.get((port, source), self.owners[port])
        is_let_in = {EI: True, AD: source[0] in {host for host, _ in peers}, APD: source in peers}[self.filtering]
        if self.answers_back:
            self.ports.setdefault((owner, *source), port)
        if is_let_in and ttl > 1 and not self.is_blocked:
            self.inside.send(data, source, owner, ttl - 1)

    def port_for(self, source: At, to: At) -> int:
        by = {EI: (), AD: (to[0],), APD: to}[self.mapping]
        if self.is_linux:
            by = to if (to, source[1]) in self.spoilt else ()
        key = (source, *by)
        if key not in self.ports:
            port = self.ports[key] = self.new_port(source[1], to, avoid=self.is_linux and bool(by))
            self.owners.setdefault(port, source)
            self.flows[port, to] = source
        return self.ports[key]

    def new_port(self, wanted: int, to: At, *, avoid: bool) -> int:
        if self.allocation == "preserved" and wanted not in self.owners and not avoid:
            return wanted
        if self.allocation == "sequential":
            elapsed, self.counted = self.world.now - self.counted, self.world.now
            others = sum(self.world.random.random() < self.flows_per_s / 1000 for _ in range(elapsed // MS))
            self.next_port = 1024 + (self.next_port + self.step * (1 + others) - 1024) % 64512
            return self.next_port
        is_block = self.allocation == "block"  # used up soon: one port serves several destinations
        low, high = self.block if is_block else (1024, 65535)
        while (port := self.world.random.randint(low, high)) in self.owners and (not is_block or (port, to) in self.flows):
            pass
        return port


class Host:
    """A machine with one socket, and more when it needs them."""

    def __init__(self, lan: Lan, address: str) -> None:
        self.lan, self.address, self.world = lan, address, lan.world
        lan.members[address] = self
        self.on_datagram: Callable[[bytes, At, int], None] = lambda data, source, port: None

    def send(self, data: bytes, port: int, to: At, ttl: int = 0) -> None:
        self.lan.send(data, (self.address, port), to, ttl or TTL)

    def arrive(self, data: bytes, source: At, to: At, ttl: int) -> None:
        self.on_datagram(data, source, to[1])


SYMMETRIC = {"mapping": APD, "allocation": "random"}
KINDS: dict[str, dict[str, object]] = {
    "firewall": {"mapping": "none"},
    "fullcone": {"filtering": EI},
    "addr": {"filtering": AD},
    "port": {},
    "port-random": {"allocation": "random"},
    "symmetric": SYMMETRIC,
    "symmetric-block": {**SYMMETRIC, "allocation": "block", "block": (30208, 30719)},
    "symmetric-seq": {**SYMMETRIC, "allocation": "sequential"},
    "symmetric-ad": {"mapping": AD, "allocation": "random"},
    "symmetric-ei": {**SYMMETRIC, "filtering": EI, "answers_back": True},
    "linux": {"is_linux": True},
    "udpblock": {"is_blocked": True},
}
ALL_KINDS = ("public", *KINDS, "double")


class Side:
    """A host behind its NATs, and its machine with what drives it: sockets, signals, a timer."""

    def __init__(self, world: World, kind: str, number: int, *, flows_per_s: float = 0.0, hop: Nat | None = None) -> None:
        self.world, self.kind, self.name = world, kind, "ab"[number]
        lan, self.nat = (hop.inside if hop else world.internet), None
        own = f"20.0.{number + 1}.1"
        inner = f"192.168.{number + 1}.10"
        if kind == "double":
            lan = Nat(lan, own).inside
            own, inner = f"100.64.{number}.9", "192.168.1.10"
        settings = KINDS.get("port" if kind == "double" else kind)
        if settings is not None:
            own = f"100.64.{number}.9" if hop else own
            self.nat = Nat(lan, own, flows_per_s=flows_per_s, **settings)  # type: ignore[arg-type]
            lan = self.nat.inside
            own = own if self.nat.mapping == "none" else inner
        self.host = Host(lan, own)
        self.host.on_datagram = self.receive
        self.ports = [PORT]
        self.punch: Punch | None = None
        self.found: tuple[object, ...] | None = None
        self.found_ns = 0
        self.failed: list[str] | None = None
        self.opened = 0
        self.probes = 0
        self.observed: list[At] = []
        self.sends_from: list[tuple[int, At, int, int]] = []

    def observe(self, observers: list[Host]) -> None:
        """Learn the own address from observers, one after the other."""
        for observer in observers:
            observer.on_datagram = lambda data, source, port: self.observed.append(source)
            self.host.send(b"who am I", PORT, (observer.address, 3478))
            self.world.run(self.world.now + SECOND // 10 + 2 * self.world.delay_ns)
        self.observed_ns = self.world.now

    def facts(self) -> NatFacts:
        nat = self.nat
        if nat is None:
            return NatFacts("none", "none")
        if nat.is_blocked:
            return NatFacts(is_udp_blocked=True)
        more: dict[str, object] = {}
        if nat.allocation == "sequential":
            age = (self.world.now - self.observed_ns) // MS
            more = {"step": nat.step, "last_port": self.observed[-1][1], "age_ms": age}
        elif nat.allocation == "block":
            more = {"block": nat.block}
        filtering = APD if nat.is_linux else nat.filtering
        return NatFacts(nat.mapping, filtering, nat.allocation, **more)  # type: ignore[arg-type]

    def make(self, is_controlling: bool, **settings: object) -> None:
        draw = self.world.random.randbytes
        self.token, self.key = draw(8), draw(32)
        settings.setdefault("budget", SprayBudget())
        self.punch = Punch(self.token, self.key, is_controlling, self.facts(), draw(32), **settings)  # type: ignore[arg-type]

    def meet(self, other: Side) -> None:
        """Take the other's candidates."""
        assert self.punch
        self.punch.set_peer(other.token, other.key, other.facts(), self.world.now)
        if other.observed:
            self.punch.add_remote(core(other.observed[-1]), "reflexive", True)
        if other.host.address != (other.observed[-1][0] if other.observed else ""):
            self.punch.add_remote(core((other.host.address, PORT)), "host")

    def start(self, rtt_ns: int, delay_ns: int = 0) -> None:
        assert self.punch
        self.punch.start(self.world.now, rtt_ns, delay_ns)
        self.turn()

    def peer_opened(self) -> None:
        assert self.punch
        self.punch.peer_opened(self.world.now)
        self.turn()

    def receive(self, data: bytes, source: At, port: int) -> None:
        if self.punch and port in self.ports:
            self.punch.handle_datagram(data, core(source), self.ports.index(port), self.world.now)
            self.turn()

    def turn(self) -> None:
        assert self.punch
        now = self.world.now
        self.punch.handle_timeout(now)
        for data, remote, socket, ttl in self.punch.poll_transmit(now):
            assert len(data) == 64
            self.probes += 1
            self.sends_from.append((now, plain(remote), socket, ttl))
            self.host.send(data, self.ports[socket], plain(remote), ttl)
        for event in self.punch.poll_events():
            self.handle(event)
        due = self.punch.poll_timeout()
        if due:
            due = max(due, now + MS // 10)
            self.world.at(due, lambda: self.turn() if self.punch and self.punch.poll_timeout() <= self.world.now else None)

    def handle(self, event: tuple[object, ...]) -> None:
        assert self.punch
        match event:
            case ("sockets", int(count)):
                self.opened = count
                self.ports += [self.world.random.randrange(10000, 60000) for _ in range(count)]
                self.world.at(self.world.now + 5 * MS, self.sockets_opened)
            case ("found", *_):
                self.found, self.found_ns = event, self.world.now
            case ("failed", list(reasons)):
                self.failed = reasons

    def sockets_opened(self) -> None:
        assert self.punch
        self.punch.sockets_opened(self.opened, self.world.now)
        self.turn()


@dataclass
class Outcome:
    """What became of one attempt."""

    a: Side
    b: Side
    began_ns: int

    @property
    def is_direct(self) -> bool:
        return self.a.found is not None and self.b.found is not None

    @property
    def seconds(self) -> float:
        """How long it took both sides."""
        return (max(self.a.found_ns, self.b.found_ns) - self.began_ns) / SECOND


def attempt(
    kinds: tuple[str, str],
    seed: int,
    *,
    delay_s: float = 0.015,
    loss: float = 0.0,
    flows_per_s: float = 20.0,
    late_s: float = 0.0,
    seconds: float = 12.0,
    carrier: Nat | None = None,
    world: World | None = None,
    **settings: object,
) -> Outcome:
    """Let two machines look for each other: one starts and asks the other, which starts `late_s` after that came, and says so.

    `delay_s` is that of each side's link, one way. What they tell each other takes a round trip before anything begins."""
    world = world or World(seed, delay_s=delay_s, loss=0.0)
    observers = [Host(world.internet, f"20.0.9.{n}") for n in (1, 2)]
    a, b = (Side(world, kind, n, flows_per_s=flows_per_s, hop=carrier) for n, kind in enumerate(kinds))
    for side in (a, b):
        side.observe(observers)
    rtt = 4 * world.delay_ns
    world.loss = loss
    a.make(True, **settings)
    b.make(False, **settings)
    world.run(world.now + rtt)
    a.meet(b)
    b.meet(a)
    began = world.now
    a.start(rtt)
    world.at(began + rtt // 2 + int(late_s * SECOND), lambda: b.start(rtt))
    world.at(began + rtt + int(late_s * SECOND), a.peer_opened)
    world.run(began + int(seconds * SECOND), lambda: all(side.found or side.failed for side in (a, b)))
    return Outcome(a, b, began)
