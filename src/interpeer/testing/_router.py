"""A router between the hosts of a home, or of a carrier's customers, and the rest: NAT for IPv4, a firewall for IPv6."""

from __future__ import annotations

import ipaddress
import itertools
import random
from typing import TYPE_CHECKING, Any, Final, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint
from interpeer.testing._natkind import Dependence, NatBehaviour, NatKind
from interpeer.testing._packet import Packet, is_ipv4, to_endpoint
from interpeer.testing._realm import Realm
from interpeer.testing._translation import Translator

if TYPE_CHECKING:
    from interpeer.testing._link import Link, Wire
    from interpeer.testing._machine import Host
    from interpeer.testing._net import SimNet

HOME: Final = "192.168.1.0/24"
"""The inside of every home, unless it is told another: addresses mean something behind their own router only."""
ISP_BOX: Final = "192.168.0.0/24"
CARRIER: Final = "100.64.0.0/10"
FIRST_HOST: Final = 10
TCP_LIFETIME_S: Final = 7440.0
"""How long an idle connection is remembered (RFC 5382, REQ-5)."""
_IPV6 = ("off", "fw", "open")


@final
class Router:
    """Be the way out for hosts inside, with a behaviour of `NatKind`'s. Made by `SimNet.router`, or by a host's `nat=`.

    What stands outside sees its `address`; inside it is the `gateway`. Everything can change while it runs.

    >>> from interpeer.testing import NatKind, SimClock, SimNet
    >>> net = SimNet(clock=SimClock())
    >>> home = net.router("home", NatKind.PORT)
    >>> laptop, phone = net.host("laptop", nat=home), net.host("phone", nat=home)
    >>> phone.addresses, home.gateway
    (('192.168.1.11',), '192.168.1.1')
    """

    def __init__(
        self,
        net: SimNet,
        name: str,
        kind: NatKind | NatBehaviour,
        *,
        behind: Router | None,
        lan: str,
        ipv4: bool,
        ipv6: str,
        is_refreshed_inward: bool,
        link: Link,
        up: Wire | None,
        down: Wire | None,
    ) -> None:
        if ipv6 not in _IPV6:
            raise ValueError(f"ipv6 is {', '.join(map(repr, _IPV6))}, not {ipv6!r}")
        self.net = net
        self.name = name
        self.behind = behind
        """The router through which it goes out; None: it is in the public network."""
        self.up = up
        """What all that leaves goes through, if anything."""
        self.down = down
        """What all that comes in goes through first, if anything."""
        self.realm: Realm = net.public if behind is None else behind.inside
        self.inside: Realm = Realm(net, link, self)
        self.is_refreshed_inward = is_refreshed_inward
        """Whether packets that come in keep what they use alive, as those that go out do."""
        self._random = random.Random(f"{net.seed} router {name}")
        self._background: float = 0.0
        self._outside: list[bytes] = []
        self._ipv6 = ipv6
        self._set(_behaviour(kind))
        self._lan: ipaddress.IPv4Network | None = self._choose_lan(lan) if ipv4 else None
        self._prefix_6 = f"2000:2:{net.next_site():x}::" if ipv6 != "off" else None
        self._numbers_6 = itertools.count(FIRST_HOST)
        if self._lan is not None:
            self.inside.nodes[_packed(self._lan[1])] = self
            self.renumber()

    def __repr__(self) -> str:
        return f"<Router {self.name} at {self.address}>"

    def _choose_lan(self, lan: str) -> ipaddress.IPv4Network:
        if not self.behaviour.translates:  # its hosts have public addresses
            site = self.net.next_site()
            lan = f"14.{site >> 8 & 255}.{site & 255}.0/24"
        network = ipaddress.IPv4Network(lan)
        if self.behind is not None and self.behind._lan is None:
            raise ValueError(f"{self.name} cannot have IPv4 behind {self.behind.name}, which has none")
        outer = self.behind._lan if self.behind is not None else None
        if outer is not None and outer.overlaps(network):
            raise ValueError(f"inside {self.name} is {network}, which is in {outer}, where it is itself: give it another lan")
        return network

    # --- addresses ---

    @property
    def behaviour(self) -> NatBehaviour:
        """What it does now."""
        return self._behaviour

    @property
    def address(self) -> str | None:
        """Its IPv4 address outside; None: it has none."""
        return to_endpoint((self._outside[0], 1, 0)).host if self._outside else None

    @property
    def gateway(self) -> str | None:
        """Its IPv4 address inside."""
        return None if self._lan is None else str(self._lan[1])

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that are right behind it."""
        return tuple(host for host in self.net.hosts if any(one.realm is self.inside for one in host.network_interfaces))

    def lease(self) -> list[str]:
        """Return addresses for a host inside that nobody has, one of each family that there is. Raises ValueError."""
        leased: list[str] = []
        if self._lan is not None:
            hosts = itertools.islice(self._lan.hosts(), FIRST_HOST - 1, None)
            free = next((host for host in hosts if _packed(host) not in self.inside.nodes), None)
            if free is None:
                raise ValueError(f"{self.name} has no address left in {self._lan}: give it a larger lan")
            leased.append(str(free))
        if self._prefix_6 is not None:
            leased.append(f"{self._prefix_6}{next(self._numbers_6):x}")
        return leased

    def routes(self, address: bytes) -> bool:
        """Tell whether an address inside is known outside as well: what is not translated, and not kept in."""
        if is_ipv4((address, 0, 0)):
            return not self._behaviour.translates
        return self._ipv6 != "off"

    def has_outside(self, address: bytes) -> bool:
        """Tell whether an address is its own, outside."""
        return address in self._outside

    def renumber(self) -> None:
        """Get another IPv4 address outside, and forget everything."""
        if self.behind is not None:
            host = self.behind.lease()[0]
        else:
            site = self.net.next_site()
            host = f"13.{site >> 8 & 255}.{site & 255}.1"
        after = [_packed(ipaddress.IPv4Address(host))]
        self.realm.claim(self, self._outside, after)
        self._outside = after
        self._make_tables()

    # --- behaviour ---

    def set(self, kind: NatKind | NatBehaviour | None = None, **changes: Any) -> None:
        """Behave otherwise from now on, and forget everything. Raises ValueError, and TypeError for what there is not.

        >>> from interpeer.testing import NatKind, SimClock, SimNet
        >>> router = SimNet(clock=SimClock()).router("home", NatKind.PORT)
        >>> router.set(NatKind.SYMMETRIC, lifetime_s=20)
        >>> router.behaviour.lifetime_s
        20
        """
        behaviour = (self._behaviour if kind is None else _behaviour(kind)).replace(**changes)
        if behaviour.translates != self._behaviour.translates:
            raise ValueError("a NAT does not become a firewall: the addresses of the hosts inside would be wrong")
        if behaviour.carrier is not None:
            behaviour = behaviour.replace(carrier=None, hairpin=False)
        self._set(behaviour)

    def _set(self, behaviour: NatBehaviour) -> None:
        self._behaviour = behaviour
        self._make_tables()

    def _make_tables(self) -> None:
        behaviour, outside = self._behaviour, self._outside[0] if self._outside else bytes(16)
        tcp = behaviour.replace(
            filtering=behaviour.filtering if behaviour.filtering is Dependence.NONE else Dependence.ADDRESS_AND_PORT_DEPENDENT,
            lifetime_s=TCP_LIFETIME_S, reply_lifetime_s=None, tracks_strangers=False,
        )  # fmt: skip
        six = NatBehaviour(
            mapping=Dependence.NONE, lifetime_s=behaviour.lifetime_s, reply_lifetime_s=behaviour.reply_lifetime_s,
            filtering=Dependence.NONE if self._ipv6 == "open" else Dependence.ADDRESS_AND_PORT_DEPENDENT,
        )  # fmt: skip
        tables = {(False, True): behaviour, (True, True): tcp, (False, False): six, (True, False): six}
        tables[True, False] = six.replace(lifetime_s=TCP_LIFETIME_S, reply_lifetime_s=None)
        self._tables = {
            key: Translator(one, outside, self._random, is_refreshed_inward=self.is_refreshed_inward)
            for key, one in tables.items()
        }
        self.background(self._background)

    def flush(self) -> None:
        """Forget every mapping and everything that the filter let in, as at a reboot."""
        for table in self._tables.values():
            table.flush()

    def background(self, flows_per_s: float) -> None:
        """Have other hosts inside open so many UDP mappings a second, at random times, from now on; 0 ends it.

        They take ports, and make a NAT with sequential allocation go on. They cost nothing: no packet is sent for them."""
        if flows_per_s < 0:
            raise ValueError(f"flows_per_s is not negative: {flows_per_s}")
        self._background = flows_per_s
        self._udp.let_others_flow(flows_per_s, self.net.clock.now_ns)

    @property
    def _udp(self) -> Translator:
        return self._tables[False, True]

    @property
    def ports(self) -> tuple[int, int]:
        """The first and the last of the outside ports that it gives out by chance or in sequence: its block."""
        return self._udp.ports

    @property
    def mappings(self) -> int:
        """How many UDP mappings are alive, those of other flows included."""
        return self._udp.live_mappings(self.net.clock.now_ns)

    # --- packets ---

    def outward(self, packet: Packet) -> str | None:
        """Let a packet from inside out, or say why not."""
        reason = self._blocks(packet, packet.core_target)
        if reason is not None:
            return reason
        outer = self._table(packet).outward(packet.core_source, packet.core_target, self.net.clock.now_ns)
        if outer is None:
            return "no port left"
        if outer is not packet.core_source:
            packet.translate(source=to_endpoint(outer))
        return None

    def inward(self, packet: Packet) -> str | None:
        """Let a packet from outside in, or say why not."""
        reason = self._blocks(packet, packet.core_source)
        if reason is not None:
            return reason
        inner = self._table(packet).inward(packet.core_target, packet.core_source, self.net.clock.now_ns)
        if isinstance(inner, str):
            return inner
        if inner is not packet.core_target:
            packet.translate(target=to_endpoint(inner))
        return None

    def turn_back(self, packet: Packet) -> str | None:
        """Turn back a packet from inside to an outside port of this very router, or say why not."""
        return (self.outward(packet) or self.inward(packet)) if self._behaviour.hairpin else "not turned back"

    def _table(self, packet: Packet) -> Translator:
        return self._tables[packet.is_tcp, is_ipv4(packet.core_target)]

    def _blocks(self, packet: Packet, remote: CoreEndpoint) -> str | None:
        if not packet.is_tcp:
            return None if self._behaviour.udp else "blocked"
        ports = self._behaviour.tcp_ports
        return None if ports is None or remote[1] in ports else "blocked"


def _behaviour(kind: NatKind | NatBehaviour) -> NatBehaviour:
    return kind.behaviour if isinstance(kind, NatKind) else kind


def _packed(address: ipaddress.IPv4Address) -> bytes:
    return IPV4_MAPPED + address.packed
