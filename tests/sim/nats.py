"""Probes of NATs in simulated time: what RFC 5780 measures, and a plain hole punch. Without an event loop, step by step."""

from __future__ import annotations

from interpeer.testing import Dependence, Host, Link, SimClock, SimNet
from interpeer.testing._port import Port

NONE, EI, AD, APD = Dependence
PUBLIC_4 = b"\0" * 10 + b"\xff\xff" + bytes(4), 0, 0
EVERY_S = 0.05
PROBE = b"\x45\x01" + bytes(62)
"""What a node may send to anybody: a probe, which is answered as a question is."""


class Socket:
    """A socket of a host: it remembers who sent what."""

    def __init__(self, host: Host, port: int = 0, family_of=PUBLIC_4) -> None:
        self.host = host
        self.heard: list[tuple[bytes, tuple[bytes, int, int]]] = []
        self._port = Port(host, self._received, family_of=family_of, port=port)
        self.endpoint = self._port.endpoint

    def _received(self, packet) -> None:
        self.heard.append((packet.data, packet.core_source))
        self.on_packet(packet.data, packet.core_source)

    def on_packet(self, data, source) -> None:
        pass

    def send(self, data, target, ttl=64) -> None:
        self._port.send(data, target, ttl=ttl)

    def hears(self, *, within_s=1.0) -> bool:
        """Let time pass, and tell whether anything new was heard."""
        before = len(self.heard)
        self.host.net.clock.advance_s(within_s)
        return len(self.heard) > before

    def close(self) -> None:
        self._port.close()


class Reflector(Socket):
    """A port of a server: it tells each sender where it is seen, and sends from here to whoever is named."""

    def on_packet(self, data, source) -> None:
        if data in (b"where", PROBE):
            address, port, _ = source
            self.send(address + port.to_bytes(2, "big"), source)


class Servers:
    """Two servers with two ports each, as RFC 5780 wants."""

    def __init__(self, net: SimNet) -> None:
        self.net = net
        hosts = [net.host(f"stun{number}", f"20.0.0.{10 + number}", f"2a00::{10 + number}") for number in (0, 1)]
        self.first, self.same_address, self.other, self.other_port = (
            Reflector(host, port) for host in hosts for port in (3478, 3479)
        )
        six = bytes(16), 0, 0
        self.first_6, self.other_6 = (Reflector(host, 3478, family_of=six) for host in hosts)

    def see(self, socket: Socket, server: Reflector | None = None):
        """Return where a server sees a socket; None: nothing came back."""
        server = server or self.first
        before = len(socket.heard)
        socket.send(b"where", server.endpoint)
        self.net.clock.advance_s(0.5)
        answers = [data for data, source in socket.heard[before:] if source == server.endpoint]
        return (answers[0][:16], int.from_bytes(answers[0][16:], "big"), 0) if answers else None

    def mapping(self, host: Host) -> Dependence | None:
        """Measure the mapping behaviour; None: no answer at all."""
        socket = Socket(host)
        first, same, other = (self.see(socket, server) for server in (self.first, self.same_address, self.other))
        if first is None:
            return None
        if first == socket.endpoint:
            return NONE
        assert first != socket.endpoint
        if first == same:
            return EI if first == other else AD
        return APD

    def filtering(self, host: Host) -> Dependence | None:
        """Measure the filtering behaviour; NONE: a socket that has sent nothing is reached."""
        silent = Socket(host)
        self.first.send(b"stranger", silent.endpoint)
        if silent.hears():
            return NONE
        socket = Socket(host)
        seen = self.see(socket)
        if seen is None:
            return None
        for server, dependence in ((self.other_port, EI), (self.same_address, AD)):
            server.send(b"unasked", seen)
            if socket.hears():
                return dependence
        return APD

    def hairpins(self, host: Host) -> bool:
        """Tell whether two sockets of a host reach each other by their outside endpoints, if both send."""
        one, two = Socket(host), Socket(host)
        seen_one, seen_two = self.see(one), self.see(two)
        before = len(one.heard)
        one.send(b"hairpin", seen_two)
        two.send(b"hairpin", seen_one)
        self.net.clock.advance_s(0.5)
        return any(data == b"hairpin" and source[0] == seen_two[0] for data, source in one.heard[before:])


class Puncher(Socket):
    """One end of a plain punch: sends to where a server sees the peer, and to wherever the peer's packets come from."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.targets = []
        self.has_answer = False

    def on_packet(self, data, source) -> None:
        if data in (b"syn", b"ack") and source not in self.targets:
            self.targets.append(source)
        self.has_answer = self.has_answer or data == b"ack"

    def step(self, ttl=64) -> None:
        is_heard = any(data in (b"syn", b"ack") for data, _ in self.heard)
        for target in self.targets:
            self.send(b"ack" if is_heard else b"syn", target, ttl)


def punch(servers: Servers, one: Host, two: Host, *, late_s=0.0, low_ttl=None, seconds=3.0) -> bool:
    """Punch between two hosts; tell whether both got an answer. `two` is late; for a second packets have a low TTL, if any."""
    ends = [Puncher(one), Puncher(two)]
    seen = [servers.see(end) for end in ends]
    if None in seen:
        return False
    ends[0].targets, ends[1].targets = [seen[1]], [seen[0]]
    elapsed_s = 0.0
    while elapsed_s < seconds and not all(end.has_answer for end in ends):
        for end, begins_s in zip(ends, (0.0, late_s), strict=True):
            if elapsed_s >= begins_s:
                end.step(low_ttl if low_ttl and elapsed_s < 1 + late_s else 64)
        servers.net.clock.advance_s(EVERY_S)
        elapsed_s += EVERY_S
    has_worked = all(end.has_answer for end in ends)
    for end in ends:
        end.close()
    return has_worked


def make_net(seed: int, link: Link | None = None) -> tuple[SimNet, Servers]:
    net = SimNet(link or Link(delay_s=0.02), seed=seed, clock=SimClock())
    return net, Servers(net)
