"""Where an address means one place (an address realm, RFC 2663): the public network, and the inside of each router."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, final

from interpeer.testing._link import Link, Wire
from interpeer.testing._packet import is_loopback, to_endpoint

if TYPE_CHECKING:
    from interpeer.testing._machine import Host
    from interpeer.testing._net import SimNet
    from interpeer.testing._router import Router

Node: TypeAlias = "Host | Router"
"""What has addresses."""


@final
class Realm:
    """Know who has which address, and the wires between those who have one.

    gateway: the router through which all other addresses are reached; None: this is the public network."""

    def __init__(self, net: SimNet, link: Link, gateway: Router | None = None) -> None:
        self.nodes: dict[bytes, Node] = {}
        self.gateway = gateway
        self._net = net
        self._link = link
        self._wires: dict[tuple[Node, Node], Wire] = {}

    def wire(self, a: Node, b: Node) -> Wire:
        """Return the direction from `a` to `b`."""
        wire = self._wires.get((a, b))
        if wire is None:
            wire = self._wires[a, b] = self._net.make_wire(self._link, f"{a.name} to {b.name}")
        return wire

    def share(self, wire: Wire, a: Node, b: Node) -> None:
        """Let the direction from `a` to `b` be a wire that others use as well."""
        self._wires[a, b] = wire

    def claim(self, node: Node, before: Iterable[bytes], after: Iterable[bytes]) -> None:
        """Give a node addresses in place of others, and have the routers on the way out route to them what they do not
        translate. Raises ValueError."""
        before, after = tuple(before), tuple(after)
        self._check(node, after)
        for address in before:
            del self.nodes[address]
        self.nodes.update(dict.fromkeys(after, node))
        gateway = self.gateway
        if gateway is not None:
            gateway.realm.claim(gateway, filter(gateway.routes, before), filter(gateway.routes, after))

    def _check(self, node: Node, addresses: tuple[bytes, ...]) -> None:
        for address in addresses:
            other = self.nodes.get(address, node)
            if other is not node or is_loopback(address) or ipaddress.ip_address(address).is_unspecified:
                raise ValueError(f"{to_endpoint((address, 1, 0)).host} cannot be an address of {node.name}")
        if self.gateway is not None:
            self.gateway.realm._check(self.gateway, tuple(filter(self.gateway.routes, addresses)))
