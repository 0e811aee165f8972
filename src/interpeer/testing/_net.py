"""A network of hosts in one process, in simulated time, with every fault that a real one has."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import hashlib
import ipaddress
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TextIO, TypeVar, final

from interpeer import _host
from interpeer._address import CoreEndpoint, Endpoint
from interpeer._config import Config
from interpeer._core import engine
from interpeer._driver import Driver, EventsCallback
from interpeer._node import Node
from interpeer.testing._clock import SimClock
from interpeer.testing._driver import SimDriver, is_loopback
from interpeer.testing._errors import SimulationError
from interpeer.testing._link import Link, Wire
from interpeer.testing._loop import SimLoop
from interpeer.testing._nat import Nat, addresses_like
from interpeer.testing._packet import Fate, Packet, is_ipv4, to_endpoint
from interpeer.testing._port import Listener

FIRST_PORT = 49_152
_MAPPED = b"\0" * 10 + b"\xff\xff"

_P = ParamSpec("_P")
_T = TypeVar("_T")
Interceptor = Callable[[Packet], Iterable[Packet] | None]


def _running_loop() -> SimLoop:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if not isinstance(loop, SimLoop):
        raise SimulationError("a SimNet is made inside interpeer.testing.run, or is given a clock: SimNet(clock=SimClock())")
    return loop


class _MadeHere(Generic[_P, _T]):
    """Something that, called as an attribute of a host, is made on that host."""

    def __init__(self, make: Callable[_P, _T]) -> None:
        self._make = make

    def __get__(self, host: Host, owner: type[Host]) -> Callable[_P, _T]:
        def make(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with _host.on(host):
                return self._make(*args, **kwargs)

        return make


@final
class Host:
    """Be a machine in a simulated network: an address for each family, ports, and nodes that use them.

    Made by `SimNet.host`.

    >>> from interpeer.testing import run
    >>> async def main():
    ...     host = SimNet().host("alice", "192.0.2.1")
    ...     before, _ = host.addresses, host.move("198.51.100.1")
    ...     return before, host.addresses
    >>> run(main())
    (('192.0.2.1',), ('198.51.100.1',))
    """

    node = _MadeHere(Node)
    """Make a node on this host; the arguments are those of `interpeer.Node`."""

    def __init__(self, net: SimNet, name: str, addresses: Iterable[str], up: Wire | None, down: Wire | None) -> None:
        self.net = net
        self.name = name
        self.is_plugged_in = True
        self.is_suspended = False
        self.up = up
        """What all its packets go through first, if anything."""
        self.down = down
        """What all packets to it come through last, if anything."""
        self._packed: list[bytes] = []
        self.nat: Nat | None = None
        self._sockets: dict[tuple[bytes, int], Listener] = {}
        self._next_port = FIRST_PORT
        self._numbers = itertools.count(1)
        self._random = random.Random(f"{net.seed} host {name}")
        self._programs: set[asyncio.Task[Any]] = set()
        self.move(*addresses)

    def __repr__(self) -> str:
        return f"<Host {self.name} at {', '.join(self.addresses)}>"

    # --- programs and nodes ---

    def start(self, program: Coroutine[Any, Any, _T], *, name: str | None = None) -> asyncio.Task[_T]:
        """Start a program on this host: every node that it makes, or that its tasks make, is on this host."""
        context = contextvars.copy_context()
        context.run(_host.current.set, self)
        task = asyncio.get_running_loop().create_task(program, name=name or self.name, context=context)
        self._programs.add(task)
        task.add_done_callback(self._programs.discard)
        return task

    def random_bytes(self, n: int) -> bytes:
        """Return bytes that depend on the seed and on what was asked before."""
        return self._random.randbytes(n)

    def make_driver(
        self, core: engine.Engine, config: Config, on_events: EventsCallback, loop: asyncio.AbstractEventLoop
    ) -> Driver:
        """Return what drives an engine on this host; nodes ask for it."""
        return self.attach(core, on_events)

    def attach(self, core: engine.Engine, on_events: EventsCallback) -> SimDriver:
        """Return a driver for an engine that has no node."""
        return SimDriver(core, self, on_events, next(self._numbers))

    # --- being reachable ---

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses."""
        return tuple(to_endpoint((packed, 1, 0)).host for packed in self._packed)

    def move(self, *addresses: str) -> None:
        """Have other addresses from now on, at most one of each family; nodes keep their ports.

        Packets to the old ones find nobody. Raises ValueError for an address that another host has."""
        packed = [Endpoint(address, 1).to_core()[0] for address in addresses]
        if len({is_ipv4((address, 0, 0)) for address in packed}) != len(packed):
            raise ValueError(f"a host has at most one address of each family, not {', '.join(addresses)}")
        self.net._register(self, self._packed, packed)
        self._packed = packed
        for listener in set(self._sockets.values()):
            listener.learn_addresses()

    def rebind(self, *, address: bool = False, after_s: float = 0.0, every_s: float | None = None) -> Callable[[], None]:
        """Have a NAT in front of this host forget its ports, now or later, once or again and again; return what ends this.

        From then on the host's packets come from other ports, with `address=True` from another address, too, and what is
        sent to the old ones finds nobody, packets on their way to the NAT included. Nothing on the host notices. The NAT
        stands between the links to other hosts and the host's own access, its `up` and `down`. Raises ValueError."""
        if every_s is not None and every_s <= 0:
            raise ValueError(f"every_s is more than 0, not {every_s}")
        clock, is_over = self.net.clock, False

        def rebind() -> None:
            if is_over:
                return
            if self.nat is None:
                self.nat = Nat()
            before = self.nat.addresses
            after = addresses_like(self._packed, next(self.net._outside)) if address else before
            self.net._register(self, before, after)
            self.nat.rebind(after)
            if every_s is not None:
                clock.at(clock.now_ns + round(every_s * 1e9), rebind)

        def stop() -> None:
            nonlocal is_over
            is_over = True

        if after_s > 0:
            clock.at(clock.now_ns + round(after_s * 1e9), rebind)
        else:
            rebind()
        return stop

    def unplug(self) -> None:
        """Pull the plug: nothing goes out, and nothing comes in, that is on its way included. The host itself works on."""
        self.is_plugged_in = False

    def plug_in(self) -> None:
        """Undo `unplug`."""
        self.is_plugged_in = True

    def suspend(self) -> None:
        """Put the machine to sleep: no timer of its nodes fires, and packets to it are lost, while the clocks of all go on.

        Its programs are not stopped: what they ask of a node is done when the machine wakes up."""
        self.is_suspended = True

    def resume(self) -> None:
        """Undo `suspend`: what was due meanwhile is due now."""
        if self.is_suspended:
            self.is_suspended = False
            for listener in dict.fromkeys(self._sockets.values()):
                listener.resume()

    def has(self, address: bytes) -> bool:
        """Tell whether an address, of 16 bytes, is the host's."""
        return address in self._packed

    @property
    def packed_addresses(self) -> tuple[bytes, ...]:
        """Its addresses of 16 bytes."""
        return tuple(self._packed)

    def packed_like(self, endpoint: CoreEndpoint) -> bytes | None:
        """Return the host's address of the same family."""
        return next((packed for packed in self._packed if is_ipv4((packed, 0, 0)) == is_ipv4(endpoint)), None)

    def bind(self, address: bytes, port: int, listener: Listener) -> CoreEndpoint:
        """Give somebody a port, any for 0. Raises OSError."""
        while not port:
            if (address, self._next_port) not in self._sockets:
                port = self._next_port
            self._next_port += 1
        if (address, port) in self._sockets:
            raise OSError(errno.EADDRINUSE, "another node has this port")
        self._sockets[address, port] = listener
        return address, port, 0

    def unbind(self, bound: CoreEndpoint) -> None:
        """Take a port back."""
        del self._sockets[bound[0], bound[1]]

    def listener(self, target: CoreEndpoint) -> Listener | None:
        """Return who gets what is sent there; None: nobody."""
        address, port, _ = target
        wildcard = _MAPPED + bytes(4) if is_ipv4(target) else bytes(16)
        return self._sockets.get((address, port)) or self._sockets.get((wildcard, port))


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
        self._by_address: dict[bytes, Host] = {}
        self._wires: dict[tuple[Host, Host], Wire] = {}
        self._outside = itertools.count(1)  # addresses of NATs
        self._groups: dict[Host, int] = {}
        self._interceptors: list[Interceptor] = []
        self._observers: list[Callable[[Fate], object]] = []
        self._digest = hashlib.blake2b(digest_size=16)

    # --- what there is ---

    def host(self, name: str | None = None, *addresses: str, up: Link | None = None, down: Link | None = None) -> Host:
        """Add a host; without addresses it gets one of each family, in a network of its own.

        up, down: its own access to the network, before and behind the links to other hosts. Raises ValueError."""
        number = len(self._hosts) + 1
        name = f"host{number}" if name is None else name
        if name in self._hosts:
            raise ValueError(f"there is a host {name!r} already")
        if not addresses:
            addresses = (f"11.{number >> 8 & 255}.{number & 255}.1", f"2000:0:{number & 0xFFFF:x}::1")
        wires = [self._make_wire(link, f"{name} {side}") if link else None for link, side in ((up, "up"), (down, "down"))]
        host = self._hosts[name] = Host(self, name, addresses, *wires)
        return host

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, in the order in which they were made."""
        return tuple(self._hosts.values())

    def _register(self, host: Host, before: list[bytes], after: list[bytes]) -> None:
        for address in after:
            other = self._by_address.get(address, host)
            if other is not host or is_loopback(address) or ipaddress.ip_address(address).is_unspecified:
                raise ValueError(f"{to_endpoint((address, 1, 0)).host} cannot be an address of {host.name}")
        for address in before:
            del self._by_address[address]
        self._by_address.update(dict.fromkeys(after, host))

    def wire(self, a: Host, b: Host) -> Wire:
        """Return the direction from `a` to `b`, to be changed with `set` and looked at in `stats`."""
        if a is b:
            raise ValueError("a host reaches itself without a link")
        wire = self._wires.get((a, b))
        if wire is None:
            wire = self._wires[a, b] = self._make_wire(self._default, f"{a.name} to {b.name}")
        return wire

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
        pairs = [(source, target) for source in sources for target in targets]
        if any(source is target for source, target in pairs):
            raise ValueError("a host reaches itself without a link")
        shared = self._make_wire(link, f"bottleneck {', '.join(f'{a.name} to {b.name}' for a, b in pairs)}")
        self._wires.update(dict.fromkeys(pairs, shared))
        return shared

    def _make_wire(self, link: Link, name: str) -> Wire:
        return Wire(self.clock, link, f"{self.seed} wire {name}", self._end)

    def partition(self, *groups: Iterable[Host]) -> None:
        """Let nothing through between these groups; hosts in none of them are one more group. Undone by `heal`."""
        self._groups = {host: number for number, group in enumerate(groups, 1) for host in group}

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
        packet.sender = None
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
        elif not sender.is_plugged_in:
            self._end(packet, "unplugged")
        elif sender.is_suspended:
            self._end(packet, "suspended")
        elif sender.up is not None:
            sender.up.carry(packet, self._cross)
        else:
            self._cross(packet)

    def _cross(self, packet: Packet) -> None:
        sender = packet.sender
        assert sender is not None
        if sender.nat is not None:
            sender.nat.outward(packet)
        target = self._by_address.get(packet.core_target[0])
        if target is None:
            self._end(packet, "nobody there")
        elif self._groups and self._groups.get(sender, 0) != self._groups.get(target, 0):
            self._end(packet, "partitioned")
        elif target is sender:
            self._arrive(packet)
        else:
            self.wire(sender, target).carry(packet, self._come_down)

    def _come_down(self, packet: Packet) -> None:
        target = self._by_address.get(packet.core_target[0])
        if target is not None and target.nat is not None and not target.nat.inward(packet):
            self._end(packet, "not mapped")
        elif target is not None and target.down is not None:
            target.down.carry(packet, self._arrive)
        else:
            self._arrive(packet)

    def _arrive(self, packet: Packet) -> None:
        if is_loopback(packet.core_target[0]):
            target = packet.sender
        else:
            target = self._by_address.get(packet.core_target[0])
        listener = target.listener(packet.core_target) if target is not None else None
        if target is None or listener is None:
            self._end(packet, "nobody there")
        elif not target.is_plugged_in and target is not packet.sender:
            self._end(packet, "unplugged")
        elif target.is_suspended:
            self._end(packet, "suspended")
        else:
            self._end(packet, "delivered")
            listener.receive(packet)

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
