"""The networks of a laboratory: the public one, and those behind a router or on a switch."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, Final, final

from interpeer.testing.natlab._namespace import LabError, Namespace, make, tell
from interpeer.testing.natlab._rules import IN, Ipv6
from interpeer.testing.natlab._wire import Wires

if TYPE_CHECKING:
    from interpeer.testing.natlab._machine import Machine, Router

# The public network's addresses are global in Python's eyes, unlike those for documentation: programs may ask.
GATEWAY_4: Final = "20.0.0.1"
GATEWAY_6: Final = "fe80::1"
MAX_SITES: Final = 250  # each has a /16 of its own: programs that want distinct prefixes shall find them
_FIRST_HOST: Final = 10
_FORWARDING_S: Final = 5.0
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_BASICS: Final[dict[str, int | str]] = {
    "ipv4__conf__all__rp_filter": 0,
    "ipv4__conf__default__rp_filter": 0,
    "ipv4__icmp_ratelimit": 0,
    "ipv4__ping_group_range": "0 2147483647",
    "ipv6__conf__default__accept_dad": 0,  # addresses are there at once
    "ipv6__conf__default__accept_ra": 0,
}
FORWARDS: Final = {
    "ipv4__ip_forward": 1,
    "ipv6__conf__all__forwarding": 1,
    "ipv4__conf__all__send_redirects": 0,
    "ipv4__conf__default__send_redirects": 0,
}
_BRIDGES: Final = {
    "bridge__bridge-nf-call-iptables": 0,
    "bridge__bridge-nf-call-ip6tables": 0,
}  # NAT sees a packet once


@dataclass(slots=True)
class Shared:
    """What all parts of one laboratory share."""

    prefix: str
    chance: random.Random
    wires: Wires
    ports: Iterator[int] = field(default_factory=itertools.count)
    sites: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    processes: list[subprocess.Popen[Any]] = field(default_factory=list[subprocess.Popen[Any]])

    def space(self, name: str, **parameters: int | str) -> Namespace:
        """Make a namespace. Raises ValueError for a name that is none."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"a name is of small letters, digits and hyphens, begins with a letter and is short: not {name!r}")
        space = make(self.prefix + name)
        space.sysctl(**(_BASICS | parameters))
        return space


@dataclass(frozen=True, slots=True)
class Lease:
    """What a network gives to whom it takes in: addresses, the length of their prefix, and gateways."""

    address: str | None = None
    length: int = 0
    gateway: str | None = None
    address6: str | None = None
    length6: int = 0
    gateway6: str | None = None


class Network(ABC):
    """What routers and hosts can be in."""

    name: str
    space: Namespace

    @property
    @abstractmethod
    def has_ipv6(self) -> bool:
        """Whether machines can have IPv6 here."""

    @abstractmethod
    def _admit(self, machine: Machine) -> Lease:
        """Connect the far end of a machine's link, and give the machine its addresses."""

    @abstractmethod
    def _route6(self, prefix: str, via: Machine) -> None:
        """Let packets to an IPv6 prefix go to a machine, from everywhere."""

    @abstractmethod
    def _forget(self, machine: Machine) -> None:
        """Note that a machine has left: its link is about to go."""


@final
class Internet(Network):
    """The public network: one router, which has a link of its own to each site. Between two sites lie two hops."""

    def __init__(self, shared: Shared) -> None:
        self.name = "internet"
        self.space = shared.space(self.name, **FORWARDS)
        self.space.ip(f"address add {GATEWAY_4}/32 dev lo")

    @property
    def has_ipv6(self) -> bool:
        """Whether machines can have IPv6 here: always."""
        return True

    def _admit(self, machine: Machine) -> Lease:
        lines = [f"link set {machine.port} up{machine.mtu}", f"route flush dev {machine.port}"]
        lease = Lease()
        if machine.has_ipv4:
            lease = Lease(f"20.{machine.site}.{machine.renumbered}.2", 32, GATEWAY_4)
            lines.append(f"route replace {lease.address}/32 dev {machine.port}")
        if machine.ipv6 is not Ipv6.OFF:
            address6 = f"2a00:{machine.site:x}:{machine.renumbered:x}::2"
            lease = Lease(lease.address, lease.length, lease.gateway, address6, 128, GATEWAY_6)
            lines += [
                f"route flush root 2a00::/16 dev {machine.port}",
                f"address replace {GATEWAY_6}/64 dev {machine.port} nodad",
                f"route replace {address6}/128 dev {machine.port}",
            ]
        self.space.ip(*lines)
        return lease

    def _route6(self, prefix: str, via: Machine) -> None:
        self.space.ip(f"route replace {prefix} via {via.address6} dev {via.port}")

    def _forget(self, machine: Machine) -> None:
        pass  # its routes go with the link


@final
class Lan(Network):
    """A network on one switch, behind a router or with no way out. Made by `Lab.switch`, and by each router for itself."""

    def __init__(self, name: str, space: Namespace, inside: str, router: Router | None = None) -> None:
        self.name = name
        self.space = space
        self.router = router
        """What leads out of it, if anything does."""
        self.inside = IPv4Network(inside)
        """Its IPv4 addresses: the first is the router's."""
        self._numbers: dict[tuple[str, int], int] = {}  # who comes back gets the same address, unless it has been renumbered
        self.members: list[Machine] = []
        space.sysctl(**_BRIDGES)
        gateway = [f"address add {self.inside[1]}/{self.inside.prefixlen} dev {IN}"] if router else []
        space.ip(f"link add {IN} type bridge forward_delay 0 mcast_snooping 0", f"link set {IN} up", *gateway)

    @property
    def has_ipv6(self) -> bool:
        """Whether machines can have IPv6 here: where the router has it, and of the link alone without a router."""
        return self.router is None or self.router.ipv6 is not Ipv6.OFF

    def _admit(self, machine: Machine) -> Lease:
        if machine not in self.members:
            self.members.append(machine)
        self.space.ip(f"link set {machine.port} up master {IN}{machine.mtu}")
        number = self._numbers.setdefault((machine.name, machine.renumbered), _FIRST_HOST + len(self._numbers))
        lease = Lease()
        if machine.has_ipv4:
            gateway = str(self.inside[1]) if self.router else None
            lease = Lease(str(self.inside[number]), self.inside.prefixlen, gateway)
        if self.router and self.router.prefix6 and machine.ipv6 is not Ipv6.OFF:
            prefix6 = self.router.prefix6
            lease = Lease(lease.address, lease.length, lease.gateway, f"{prefix6}{number:x}", 64, f"{prefix6}1")
        return lease

    def _await_forwarding(self, machine: Machine) -> None:
        """A bridge forwards nothing to a new port until the kernel has got round to it."""
        deadline = time.monotonic() + _FORWARDING_S
        while not self._forwards(machine.port):
            if time.monotonic() > deadline:
                raise LabError(f"the bridge of {self.name} does not forward to {machine.name}")

    def _forwards(self, port: str) -> bool:
        (told,) = json.loads(tell(["ip", "-n", self.space.name, "-details", "-json", "link", "show", "dev", port]))
        return bool(told["linkinfo"]["info_slave_data"]["state"] == "forwarding")

    def _forget(self, machine: Machine) -> None:
        self.members.remove(machine)

    def _route6(self, prefix: str, via: Machine) -> None:
        if self.router is None:
            raise ValueError(f"behind the switch {self.name} are hosts, not routers")
        self.space.ip(f"route replace {prefix} via {via.address6} dev {IN}")
        self.router.outside._route6(prefix, self.router)
