"""A machine in a simulated network: its interfaces and addresses, its ports, its programs."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import itertools
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, final

from interpeer import _host
from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint
from interpeer._config import Config
from interpeer._core import engine
from interpeer._driver import Driver, EventsCallback
from interpeer._node import Node
from interpeer.testing._driver import SimDriver
from interpeer.testing._nat import Nat, addresses_like
from interpeer.testing._packet import Packet, is_ipv4, to_endpoint
from interpeer.testing._port import Listener
from interpeer.testing._realm import Node as NetNode
from interpeer.testing._realm import Realm
from interpeer.testing._streams import TcpStack
from interpeer.testing._udp import DatagramTransport

if TYPE_CHECKING:
    from interpeer.testing._link import Wire
    from interpeer.testing._net import SimNet
    from interpeer.testing._router import Router

FIRST_PORT = 49_152
_BROADCAST = IPV4_MAPPED + b"\xff" * 4

_P = ParamSpec("_P")
_T = TypeVar("_T")


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
@dataclass(slots=True)
class NetworkInterface:
    """Be where a host is in a network."""

    name: str
    realm: Realm
    packed: list[bytes] = field(default_factory=list[bytes])
    """Its addresses of 16 bytes, at most one of each family."""
    is_up: bool = True
    is_multicast: bool = True


@final
class Host:
    """Be a machine in a simulated network: an address for each family, ports, and nodes that use them.

    Made by `SimNet.host`.

    >>> from interpeer.testing import SimNet, run
    >>> async def main():
    ...     host = SimNet().host("alice", "192.0.2.1")
    ...     before, _ = host.addresses, host.move("198.51.100.1")
    ...     return before, host.addresses
    >>> run(main())
    (('192.0.2.1',), ('198.51.100.1',))
    """

    node = _MadeHere(Node)
    """Make a node on this host; the arguments are those of `interpeer.Node`."""

    def __init__(
        self, net: SimNet, name: str, realm: Realm, addresses: Iterable[str], up: Wire | None, down: Wire | None
    ) -> None:
        self.net = net
        self.name = name
        self.is_plugged_in = True
        self.is_suspended = False
        self.up = up
        """What all its packets go through first, if anything."""
        self.down = down
        """What all packets to it come through last, if anything."""
        self.nat: Nat | None = None
        self.network_interfaces = [NetworkInterface("eth0", realm)]
        """Where it is; the first is the one that it uses when others would do as well."""
        self._watchers: list[Callable[[], object]] = []
        self._tells_watchers = False
        self.tcp = TcpStack(self)
        """The connections of its programs by TCP."""
        self._sockets: dict[tuple[bytes, int], list[Listener]] = {}
        self._shared: set[tuple[bytes, int]] = set()
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
        return tuple(_host_of(packed) for packed in self.packed_addresses)

    @property
    def router(self) -> Router | None:
        """The router that its first interface is behind; None: it is in the public network."""
        return self.network_interfaces[0].realm.gateway

    def move(self, *addresses: str) -> None:
        """Have other addresses from now on, at most one of each family; nodes keep their ports.

        Packets to the old ones find nobody. Raises ValueError for an address that another host has."""
        self._readdress(self.network_interfaces[0], self.network_interfaces[0].realm, addresses)

    def move_to(self, place: Router | None, *addresses: str, interface: str | None = None) -> None:
        """Roam: be behind another router, or for None in the public network, from now on; nodes keep their ports.

        Without addresses it gets those that are due there. interface: which one moves, the first if None. Raises ValueError,
        and KeyError for an interface there is not.

        >>> from interpeer.testing import NatKind, SimClock, SimNet
        >>> net = SimNet(clock=SimClock())
        >>> phone = net.host("phone", nat=NatKind.PORT)
        >>> phone.move_to(net.router("cafe", NatKind.SYMMETRIC, lan="10.0.0.0/24"))
        >>> phone.addresses
        ('10.0.0.10',)
        """
        moving = self.network_interfaces[0] if interface is None else self._interface(interface)
        self._readdress(moving, self.net.realm_of(place), addresses or self.net.lease(place))

    def add_interface(self, name: str, place: Router | None = None, *addresses: str) -> None:
        """Be in another network as well. Raises ValueError.

        Packets leave where their target is near, else by the first interface that is up and has an address of the family."""
        if any(one.name == name for one in self.network_interfaces):
            raise ValueError(f"{self.name} has an interface {name!r} already")
        added = NetworkInterface(name, self.net.realm_of(place))
        self.network_interfaces.append(added)
        try:
            self._readdress(added, added.realm, addresses or self.net.lease(place))
        except ValueError:
            self.network_interfaces.remove(added)
            raise

    def set_interface(self, name: str, *, is_up: bool) -> None:
        """Switch an interface on or off: its addresses stay, and nothing comes or goes. Raises KeyError."""
        self._interface(name).is_up = is_up
        self._have_changed()

    def _interface(self, name: str) -> NetworkInterface:
        for one in self.network_interfaces:
            if one.name == name:
                return one
        raise KeyError(f"{self.name} has no interface {name!r}")

    def _readdress(self, interface: NetworkInterface, realm: Realm, addresses: Iterable[str]) -> None:
        packed = [Endpoint(address, 1).to_core()[0] for address in addresses]
        if len({is_ipv4((address, 0, 0)) for address in packed}) != len(packed):
            raise ValueError(f"an interface has at most one address of each family, not {', '.join(addresses)}")
        if realm is interface.realm:
            realm.claim(self, interface.packed, packed)
        else:
            realm.claim(self, (), packed)
            if interface is self.network_interfaces[0] and self.nat is not None:  # what `rebind` has put there stays behind
                interface.realm.claim(self, self.nat.addresses, ())
                self.nat = None
            interface.realm.claim(self, interface.packed, ())
            interface.realm = realm
        interface.packed = packed
        self._have_changed()

    def interfaces(self) -> list[tuple[str, str, int, bool, bool]]:
        """Return (name, address, length of the prefix, whether it is up, whether it has multicast) of each address."""
        return [
            (
                one.name,
                _host_of(packed),
                24 if is_ipv4((packed, 0, 0)) else 64,
                one.is_up and self.is_plugged_in,
                one.is_multicast,
            )
            for one in self.network_interfaces
            for packed in one.packed
        ]

    def watch_interfaces(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function, in the context of now, whenever `interfaces` has changed; return what ends this."""
        context = contextvars.copy_context()

        def tell() -> None:
            context.run(callback)

        self._watchers.append(tell)
        return lambda: self._watchers.remove(tell) if tell in self._watchers else None

    def _have_changed(self) -> None:
        for listener in self._listeners():
            listener.learn_addresses()
        if self._watchers and not self._tells_watchers:
            self._tells_watchers = True  # once, however much changes at one moment
            self.net.clock.at(self.net.clock.now_ns, self._tell_watchers)

    def _tell_watchers(self) -> None:
        self._tells_watchers = False
        for tell in tuple(self._watchers):
            tell()

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
            before, first = self.nat.addresses, self.network_interfaces[0]
            after = addresses_like(first.packed, self.net.next_outside()) if address else before
            first.realm.claim(self, before, after)
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
        self._have_changed()

    def plug_in(self) -> None:
        """Undo `unplug`."""
        self.is_plugged_in = True
        self._have_changed()

    def suspend(self) -> None:
        """Put the machine to sleep: no timer of its nodes fires, and packets to it are lost, while the clocks of all go on.

        Its programs are not stopped: what they ask of a node is done when the machine wakes up."""
        self.is_suspended = True

    def resume(self) -> None:
        """Undo `suspend`: what was due meanwhile is due now."""
        if self.is_suspended:
            self.is_suspended = False
            for listener in self._listeners():
                listener.resume()
            self.tcp.resume()

    def has(self, address: bytes) -> bool:
        """Tell whether an address, of 16 bytes, is the host's."""
        return any(address in one.packed for one in self.network_interfaces)

    @property
    def packed_addresses(self) -> tuple[bytes, ...]:
        """Its addresses of 16 bytes."""
        return tuple(packed for one in self.network_interfaces for packed in one.packed)

    def packed_like(self, endpoint: CoreEndpoint) -> bytes | None:
        """Return the address of the same family from which it sends to an endpoint."""
        found: bytes | None = None
        for one in self.network_interfaces:
            for packed in one.packed:
                if one.is_up and is_ipv4((packed, 0, 0)) == is_ipv4(endpoint):
                    if endpoint[0] in one.realm.nodes and one.realm.gateway is not None:
                        return packed
                    found = found or packed
        return found

    def interface_with(self, address: bytes) -> NetworkInterface:
        """Return the interface that has an address, or else the first."""
        return next((one for one in self.network_interfaces if address in one.packed), self.network_interfaces[0])

    def deafness(self, realm: Realm | None) -> str | None:
        """Return why nothing from a network reaches it; None: it does."""
        if not self.is_plugged_in:
            return "unplugged"
        if self.is_suspended:
            return "suspended"
        return None if any(one.is_up and one.realm is realm for one in self.network_interfaces) else "interface down"

    def ways_out(self) -> Iterator[tuple[Realm, NetNode]]:
        """Go through all networks that its packets cross, with who puts them there: itself, or a router."""
        for one in self.network_interfaces:
            realm: Realm = one.realm
            node: NetNode = self
            yield realm, node
            while realm.gateway is not None:
                node = realm.gateway
                realm = node.realm
                yield realm, node

    def _listeners(self) -> Iterable[Listener]:
        return dict.fromkeys(listener for listeners in self._sockets.values() for listener in listeners)

    def bind(self, address: bytes, port: int, listener: Listener, *, is_shared: bool = False) -> CoreEndpoint:
        """Give somebody a port, any for 0; one that all its users share may have several. Raises OSError."""
        while not port:
            if (address, self._next_port) not in self._sockets:
                port = self._next_port
            self._next_port += 1
        where = address, port
        if where in self._sockets and not (is_shared and where in self._shared):
            raise OSError(errno.EADDRINUSE, "another node has this port")
        if is_shared:
            self._shared.add(where)
        self._sockets.setdefault(where, []).append(listener)
        return address, port, 0

    def unbind(self, bound: CoreEndpoint, listener: Listener | None = None) -> None:
        """Take a port back, from one of those who share it."""
        listeners = self._sockets[bound[:2]]
        listeners.remove(listener or listeners[0])
        if not listeners:
            del self._sockets[bound[:2]]
            self._shared.discard(bound[:2])

    def receiver(self, packet: Packet) -> Callable[[Packet], None] | None:
        """Return what takes a packet, of several who share a port the last one; None: nobody."""
        if packet.is_tcp:
            return self.tcp.receive
        address, port, _ = packet.core_target
        wildcard = IPV4_MAPPED + bytes(4) if is_ipv4(packet.core_target) else bytes(16)
        listeners = self._sockets.get((address, port)) or self._sockets.get((wildcard, port))
        return listeners[-1].receive if listeners else None

    def group_listeners(self, target: CoreEndpoint) -> list[DatagramTransport]:
        """Return who gets what is sent to a group, or to everybody."""
        return [one for one in self._listeners() if isinstance(one, DatagramTransport) and one.takes_for_all(target)]

    def is_broadcast(self, address: bytes) -> bool:
        """Tell whether an address is everybody's on one of the switches that it is at."""
        if address == _BROADCAST:
            return True
        return address[-1] == 255 and any(
            packed[:15] == address[:15]
            for one in self.network_interfaces
            for packed in one.packed
            if one.realm.gateway is not None and is_ipv4((packed, 0, 0))
        )


def _host_of(packed: bytes) -> str:
    return to_endpoint((packed, 1, 0)).host
