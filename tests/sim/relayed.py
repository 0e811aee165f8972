"""Peers that cannot reach each other, and hosts in between that relay: what tests of relaying share."""

from __future__ import annotations

import asyncio

import interpeer
from interpeer._connection import Connection
from interpeer._core import connection_handle, control, legs, path_handle
from interpeer.testing import Link, SimNet

NEAR = Link(delay_s=0.01, rate_bit_per_s=20e6, queue_packets=60)
FAST = 1e12
BURST = 1 << 20
LEG = bytes([1, 0, 0, 0, 0, 0, 0, 1])
"""What the address of every leg begins with."""


def core_of(node):
    return node._engines[0]


class Relayed:
    """Alice and Bob behind firewalls that let nothing of each other through, and relays that both are connected to.

    `a_leg` and `b_leg` are the ids on the first relay; other relays have theirs in `legs`."""

    def __init__(self, net, hosts, nodes):
        self.net = net
        self.alice, self.bob, *self.relay_hosts = hosts
        self.a, self.b, *self.relays = nodes
        self.is_direct_open = False
        self.legs: list[tuple[int, int]] = []
        self.carriers: list[tuple[Connection, Connection]] = []  # of Alice and Bob, to each relay
        self.at_relays: list[tuple[Connection, Connection]] = []  # the other ends
        net.intercept(self._firewall)

    def _firewall(self, packet):
        ends = packet.source.host, packet.target.host
        is_direct = not any(host in relay.addresses for relay in self.relay_hosts for host in ends)
        return () if is_direct and not self.is_direct_open else None

    def draw(self):
        """Return an id for a leg, as the nodes draw them."""
        return int.from_bytes(self.alice.random_bytes(8), "big") | 1 << 63

    async def meet(self, number=0, *, bytes_per_s=FAST, burst=BURST):
        """Connect both to a relay and have it join a leg of each; return the addresses of Bob and Alice over it."""
        relay = self.relays[number]
        ours, theirs = [], []
        for node in (self.a, self.b):
            accepting = asyncio.create_task(relay.accept())
            ours.append(await node.connect(relay.address))
            theirs.append(await accepting)
        pair = self.draw(), self.draw()
        legs.join(theirs[0]._handle, pair[0], theirs[1]._handle, pair[1], bytes_per_s, burst)
        self.legs.append(pair)
        self.carriers.append((ours[0], ours[1]))
        self.at_relays.append((theirs[0], theirs[1]))
        return legs.add(ours[0]._handle, pair[0]), legs.add(ours[1]._handle, pair[1])

    async def call(self, at):
        """Have Alice call Bob at these addresses alone, whatever they are; return both ends."""
        accepting = asyncio.create_task(self.b.accept())
        handle = control.connect(core_of(self.a), bytes(self.b.id), list(at), b"interpeer/1")
        connection = Connection(self.a, handle, "interpeer/1")
        self.a._connections[handle] = connection
        await connection._waiters.wait(connection_handle.EVENT_OPEN, lambda: handle.want(connection_handle.EVENT_OPEN))
        assert handle.is_open
        return connection, await accepting

    async def connect(self, number=0, **rate):
        """Return both ends of a connection through a relay."""
        there, _ = await self.meet(number, **rate)
        return await self.call([there])

    def pairs(self, number=0):
        return legs.pairs(core_of(self.relays[number]))


async def open_path(connection, remote):
    """Open a path to an address of the core, as soon as the peer has given out an id for it; return the path's id."""
    if not remote[0].startswith(LEG):
        connection._node._driver.can_reach(interpeer.Endpoint.from_core(remote))  # the network is told whom the application calls
    while True:
        result, path = path_handle.open_path(connection._handle, remote, bytes(16))
        if result == path_handle.OPENED:
            return path
        assert result in (path_handle.NO_ID, path_handle.NOT_NOW), result
        await connection._until(connection_handle.EVENT_IDS)


def way(connection):
    """Return the figures of the path that is preferred."""
    return next(path for path in path_handle.paths(connection._handle) if path["is_preferred"])


def is_relayed(connection):
    return way(connection)["remote"][0].startswith(LEG)


async def with_relays(program, count=1, link=NEAR, **settings):
    net = SimNet(link)
    hosts = [net.host(name) for name in ("alice", "bob", *(f"relay{n}" for n in range(count)))]
    config = interpeer.Config(**settings)
    async with hosts[0].node(config=config) as a, hosts[1].node(config=config) as b:
        relays = [await host.node(config=config).__aenter__() for host in hosts[2:]]
        try:
            await program(Relayed(net, hosts, [a, b, *relays]))
        finally:
            for relay in relays:
                await relay.close()
