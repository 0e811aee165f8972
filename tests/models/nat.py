"""A small network for the tests of discovery: one host behind one NAT whose every behaviour is a word, and servers outside.

It runs on any event loop, best on a simulated one. It is the tests' own, so that it does not share mistakes with the
simulator that is shipped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from tests.models import stun as model
from tests.models.stun import CoreEndpoint, endpoint

OUTSIDE, OUTSIDE_6 = "20.0.9.9", "2001:db9:9::9"
INSIDE, INSIDE_6 = "192.168.1.10", "2001:db9:9:1::10"
DELAY_S = 0.01
EI, AD, APD = "endpoint-independent", "address-dependent", "address-and-port-dependent"
PROBE = 0x45

Answer = Callable[[bytes, CoreEndpoint], list[tuple[bytes, CoreEndpoint, CoreEndpoint]]]
"""Of a server, to data from a source: data, the server's own address that it leaves from, and where it goes."""


class Nat:
    """mapping, filtering: EI, AD, APD; a mapping "none" is a host without a NAT. ports: "same", "random", (low, high), a step."""

    def __init__(self, mapping=EI, filtering=APD, *, ports="same", lifetime_s=60.0, hairpin=False, seed=1):
        self.mapping, self.filtering, self.ports = mapping, filtering, ports
        self.lifetime_s, self.hairpin = lifetime_s, hairpin
        self.random = random.Random(seed)
        self.last_port = 40_000
        self.table: dict[tuple, tuple[CoreEndpoint, CoreEndpoint]] = {}  # key -> inside, outside
        self.used: dict[CoreEndpoint, float] = {}  # of each outside address, when a packet left last
        self.sent_to: dict[CoreEndpoint, set[CoreEndpoint]] = {}

    def out(self, inside: CoreEndpoint, remote: CoreEndpoint, now_s: float) -> CoreEndpoint:
        """Return the address outside that a packet comes from."""
        key = (inside, *{EI: (), AD: (remote[0],), APD: remote, "none": ()}[self.mapping])
        if key not in self.table or self.is_dead(self.table[key][1], now_s):
            host = endpoint(OUTSIDE if inside[0].startswith(bytes(10) + b"\xff\xff") else OUTSIDE_6, 1)[0]
            outside = inside if self.mapping == "none" else (host, self.new_port(inside[1]), 0)
            self.table[key] = inside, outside
            self.sent_to[outside] = set()
        outside = self.table[key][1]
        self.used[outside] = now_s
        self.sent_to[outside].add(remote)
        return outside

    def new_port(self, inside: int) -> int:
        taken = {outside[1] for _, outside in self.table.values()}
        while True:
            if self.ports == "same":
                port = inside if inside not in taken else self.random.randrange(1024, 65_536)
            elif self.ports == "random":
                port = self.random.randrange(1024, 65_536)
            elif isinstance(self.ports, tuple):
                port = self.random.randint(*self.ports)
            else:
                port = self.last_port = self.last_port + self.ports
            if port not in taken:
                return port

    def is_dead(self, outside: CoreEndpoint, now_s: float) -> bool:
        return self.mapping != "none" and now_s - self.used[outside] > self.lifetime_s

    def into(self, outside: CoreEndpoint, remote: CoreEndpoint, now_s: float) -> CoreEndpoint | None:
        """Return where inside a packet goes, None: nowhere."""
        for inside, mapped in self.table.values():
            if mapped[:2] == outside[:2] and not self.is_dead(mapped, now_s):
                known = self.sent_to[mapped]
                let_in = {
                    EI: True,
                    AD: remote[0] in {one[0] for one in known},
                    APD: remote[:2] in {one[:2] for one in known},
                }
                if let_in[self.filtering]:
                    return inside
        return None


class Net:
    """The host's sockets, the NAT, and whoever is outside: it is the hooks of discovery, too."""

    def __init__(self, nat: Nat | None = None, *, lose=lambda data: False):
        self.nat = Nat() if nat is None else nat
        self.lose = lose
        self.loop = asyncio.get_running_loop()
        self.random = random.Random(7)
        self.sockets: dict[CoreEndpoint, HostSocket] = {}
        self.servers: dict[CoreEndpoint, Answer] = {}
        self.sent: list[tuple[bytes, CoreEndpoint]] = []
        self.expected: set[bytes] = set()
        self.next_port = 51_001
        self.most_sockets = 100

    # --- hooks ---

    def now_ns(self) -> int:
        return round(self.loop.time() * 1e9)

    def random_bytes(self, n: int) -> bytes:
        return self.random.randbytes(n)

    def open_main(self, on_datagram, is_ipv6):
        return self.open_socket(on_datagram, is_ipv6)

    def open_socket(self, on_datagram, is_ipv6):
        if len(self.sockets) >= self.most_sockets:
            raise OSError("too many open files")  # as a node's driver has it: with no number
        inside = endpoint(INSIDE_6 if is_ipv6 else INSIDE, self.next_port)
        self.next_port += 7 + self.random.randrange(100)
        self.sockets[inside] = HostSocket(self, inside, on_datagram)
        return self.sockets[inside]

    def expect(self, token: bytes) -> None:
        self.expected.add(token)

    def unexpect(self, token: bytes) -> None:
        self.expected.discard(token)

    # --- packets ---

    def leave(self, data: bytes, inside: CoreEndpoint, remote: CoreEndpoint) -> None:
        self.sent.append((data, remote))
        source = self.nat.out(inside, remote, self.loop.time())
        if self.lose(data):
            return
        if remote in self.servers:
            self.loop.call_later(DELAY_S, self.serve, data, source, remote)
        elif self.nat.hairpin or self.nat.mapping == "none":
            self.enter(data, source, remote)

    def serve(self, data: bytes, source: CoreEndpoint, remote: CoreEndpoint) -> None:
        for answer, leaves_from, to in self.servers[remote](data, source):
            self.loop.call_later(DELAY_S, self.enter, answer, leaves_from, to)

    def enter(self, data: bytes, source: CoreEndpoint, outside: CoreEndpoint) -> None:
        inside = self.nat.into(outside, source, self.loop.time())
        if inside in self.sockets:
            self.sockets[inside].on_datagram(self.sockets[inside], data, source)

    # --- who is outside ---

    def add_server(
        self, host: str, port: int = 3478, *, other: tuple[str, int] | None = None, says=None, mute=()
    ) -> CoreEndpoint:
        """Add a STUN server; with an `other` address and port it is one of RFC 5780. `says(mapped)` is what a liar says;
        what is asked of it with the change flags in `mute` it does not answer."""
        own = endpoint(host, port)
        if other is not None:
            places = [endpoint(h, p) for h in (host, other[0]) for p in (port, other[1])]
        else:
            places = [own]

        def answer(at: CoreEndpoint):
            def serve(data: bytes, source: CoreEndpoint):
                attributes = dict(model.read(data)[1])
                flags = int.from_bytes(attributes.get(model.CHANGE_REQUEST, bytes(4)))
                if flags in mute:
                    return []
                if flags and other is None:
                    listed = (model.UNKNOWN_ATTRIBUTES, bytes([0, model.CHANGE_REQUEST]))
                    return [(model.message(model.ERROR, data[8:20], model.error_code(420), listed), at, source)]
                leaves_from = at
                if flags:
                    opposite = places[3]
                    leaves_from = (opposite[0] if flags & 4 else at[0], opposite[1] if flags & 2 else at[1], 0)
                mapped = source if says is None else says(source)
                extra = [] if other is None else [(model.OTHER_ADDRESS, model.address(places[3]))]
                port = int.from_bytes(attributes.get(model.RESPONSE_PORT, bytes(2))[:2]) or source[1]
                reply = model.message(model.SUCCESS, data[8:20], model.xor_mapped(mapped, data[8:20]), *extra)
                return [(reply, leaves_from, (source[0], port, 0))]

            return serve

        for place in places:
            self.servers[place] = answer(place)
        return own


class HostSocket:
    def __init__(self, net: Net, inside: CoreEndpoint, on_datagram):
        self.net, self.inside, self.on_datagram = net, inside, on_datagram

    @property
    def port(self) -> int:
        return self.inside[1]

    def send(self, data: bytes, remote: CoreEndpoint, ttl: int = 0) -> None:
        self.net.leave(data, self.inside, remote)

    def close(self) -> None:
        del self.net.sockets[self.inside]


class PeerProber:
    """Peers that send probes when they are asked; `lies` promise them and send none, `refuses` promise none."""

    def __init__(self, net: Net, *, lies=False, refuses=False, from_primary=False):
        self.net, self.lies, self.refuses, self.from_primary = net, lies, refuses, from_primary
        self.asked: list[tuple[str, int]] = []

    async def probe(self, server, how, token, port, delay_s=0.0):
        self.asked.append((how, port))
        if self.refuses:
            return False
        if not self.lies:
            at = server.endpoint
            source = {"same port": at, "other port": (at[0], at[1] + 1, 0), "other peer": endpoint("20.0.77.7", 999)}[how]
            data = bytes([PROBE, 1]) + token + bytes(54)
            outside = endpoint(OUTSIDE, port)
            if self.net.nat.mapping == "none":
                outside = endpoint(INSIDE, port)
            self.net.loop.call_later(delay_s + DELAY_S, self.net.enter, data, at if self.from_primary else source, outside)
        return True
