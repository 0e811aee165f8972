"""Measure a NAT from both sides, as RFC 5780 does, and punch a hole through two: plain UDP, and every socket in this process.

That nothing arrives cannot be seen by waiting for it. So after what may be dropped comes a fence, which may not. Links without
delay are queues of a processor, in which each packet moves one hop at a time: on one processor (`on_one_processor`) nothing of
MAX_HOPS hops is still on its way when FENCES packets, one after the other, have gone the shortest way there is."""

import contextlib
import itertools
import os
import select
import socket
import time
from dataclasses import dataclass

from interpeer.testing import Dependence

PORTS = 3478, 3479
SAMPLES = 48  # of a symmetric NAT's ports: drawn from all, the chance that they fit into 512 is below 1e-98
PATIENCE_S = 10  # for a packet that must come
MAX_HOPS = 7  # a host, two routers, the public network, two routers, a host
FENCES = -(-MAX_HOPS // 3)
_FENCE, _DATA = b"fence", b"data"


@contextlib.contextmanager
def on_one_processor():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Servers:
    """Two public hosts with two ports each, and a third host that is not asked anything."""

    def __init__(self, lab):
        self.sockets = {}
        self.numbers = itertools.count()
        hosts = lab.host("s1"), lab.host("s2")
        for i, host in enumerate(hosts):
            for j, port in enumerate(PORTS):
                self.sockets[i, j] = bound(host, port)

    def close(self):
        for each in self.sockets.values():
            each.close()

    def address(self, at):
        return self.sockets[at].getsockname()

    def seen(self, sender, at=(0, 0)):
        """Let a socket send to a server; return its endpoint as the server sees it."""
        tag = b"?%d" % next(self.numbers)
        sender.sendto(tag, self.address(at))
        while True:
            data, source = _receive(self.sockets[at])
            if data == tag:
                return source

    def passes(self, sender):
        """Tell whether a packet to the first server comes there."""
        sender.sendto(_DATA, self.address((0, 0)))
        return _DATA in (
            data for data, _source in self._until_fence(self.sockets[0, 0], self.sockets[1, 0], self.address((0, 0)))
        )

    def arriving(self, receiver, outside):
        """Return what has come to a socket whose outside endpoint towards the first server is this one."""
        return self._until_fence(receiver, self.sockets[0, 0], outside)

    def _until_fence(self, receiver, fencer, address):
        came = []
        for _ in range(FENCES):
            fencer.sendto(_FENCE, address)
            while (packet := _receive(receiver))[0] != _FENCE:
                came.append(packet)
        return came


@dataclass
class Measured:
    """What was measured, in the words of NatBehaviour."""

    mapping: Dependence
    filtering: Dependence
    preserves_port: bool
    step: int | None
    span: int
    """From the smallest to the largest outside port of many."""
    hairpin: bool


def bound(host, port=0):
    opened = host.socket()
    opened.setblocking(False)
    opened.bind((host.address, port))
    return opened


def _receive(receiver):
    if not select.select([receiver], [], [], PATIENCE_S)[0]:
        raise TimeoutError("a packet that must arrive has not")
    return receiver.recvfrom(64)


def passes_udp(host, servers):
    with bound(host) as sender:
        return servers.passes(sender)


def open_tcp_ports(host, server, ports):
    """Return those of the ports to which a connection comes about; that to the last one must: then the others had their time."""
    with contextlib.ExitStack() as stack:
        callers = {}
        for port in ports:
            listener, caller = (stack.enter_context(each.socket(kind=socket.SOCK_STREAM)) for each in (server, host))
            listener.bind((server.address, port))
            listener.listen()
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect((server.address, port))
            callers[port] = caller
        if not select.select([], [caller], [], PATIENCE_S)[1]:
            raise TimeoutError("a connection that must come about has not")
        connected = select.select([], list(callers.values()), [], 0)[1]
        return {port for port, caller in callers.items() if caller in connected and not _error(caller)}


def _error(caller):
    return caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def measure(host, servers):
    with contextlib.ExitStack() as stack:
        first, second, *others = (stack.enter_context(bound(host)) for _ in range(2 + SAMPLES))
        mapping = _mapping(first, host, servers)
        filtering = _filtering(second, servers)
        ports = [servers.seen(each)[1] for each in others]
        steps = {after - before for before, after in itertools.pairwise(ports)}
        return Measured(
            mapping=mapping,
            filtering=filtering,
            preserves_port=ports == [each.getsockname()[1] for each in others],
            step=steps.pop() if len(steps) == 1 else None,
            span=max(ports) - min(ports) + 1,
            hairpin=_hairpin(host, servers),
        )


def _mapping(sender, host, servers):
    one, same_address, other_address = (servers.seen(sender, at) for at in ((0, 0), (0, 1), (1, 0)))
    if one[0] == host.address:
        return Dependence.NONE
    if one != same_address:
        return Dependence.ADDRESS_AND_PORT_DEPENDENT
    return Dependence.ADDRESS_DEPENDENT if one != other_address else Dependence.ENDPOINT_INDEPENDENT


def _filtering(receiver, servers):
    unasked = b"before"
    servers.sockets[1, 1].sendto(unasked, receiver.getsockname())
    outside = servers.seen(receiver)
    for at, server in servers.sockets.items():
        server.sendto(f"{at}".encode(), outside)
    came = {data for data, _source in servers.arriving(receiver, outside)}
    assert b"(0, 0)" in came, "the server that was asked cannot answer"
    if unasked in came:
        return Dependence.NONE
    if b"(1, 0)" in came:
        return Dependence.ENDPOINT_INDEPENDENT
    return Dependence.ADDRESS_DEPENDENT if b"(0, 1)" in came else Dependence.ADDRESS_AND_PORT_DEPENDENT


def _hairpin(host, servers):
    with bound(host) as one, bound(host) as other:
        one_outside, other_outside = servers.seen(one), servers.seen(other)
        if one_outside[0] == host.address:
            return False
        for _ in range(2):  # the first may only open the way for the second
            one.sendto(_DATA, other_outside)
            other.sendto(_DATA, one_outside)
        came = servers.arriving(one, one_outside)
        return (_DATA, other_outside) in came


def lifetime_s(host, servers):
    """Return how long what came from outside still arrived after one packet had left, though it came all the time."""
    with bound(host) as receiver:
        began = time.monotonic()
        outside = servers.seen(receiver)
        while select.select([receiver], [], [], 0.1)[0] or time.monotonic() - began < 0.5:
            with contextlib.suppress(BlockingIOError):
                while True:
                    receiver.recvfrom(64)
            servers.sockets[0, 0].sendto(_DATA, outside)
        return time.monotonic() - began


class Puncher:
    """One end of a punch: sends to where the other is said to be, and answers wherever that one's packets come from."""

    def __init__(self, host, servers, low_ttl=None):
        self.socket = bound(host)
        self.servers = servers
        self.low_ttl = low_ttl
        """That of its first packets: they open its own NAT and die before the other's. None: it sends none such."""
        self.outside = servers.seen(self.socket) if servers.passes(self.socket) else None
        self.heard = False
        self.peers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, ttl=64):
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        for peer in self.peers:
            self.socket.sendto(b"punch heard" if self.heard else b"punch", peer)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)

    def receive(self):
        """Return whether the other says that it has heard this one."""
        is_heard = False
        for data, source in self.servers.arriving(self.socket, self.outside):
            if data.startswith(b"punch"):
                self.heard = True
                is_heard |= data == b"punch heard"
                self.peers = [source]  # that is where it is, whatever was said
        return is_heard


def punch(a, b, *, rounds=4):
    """Let two ends that know each other's outside endpoint send by turns; tell whether both have been heard."""
    if a.outside is None or b.outside is None:
        return False
    a.peers, b.peers = [b.outside], [a.outside]
    for end in (a, b):
        if end.low_ttl is not None:
            end.send(end.low_ttl)
    heard = set()
    for _ in range(rounds):
        for end in (a, b):
            end.send()
            heard |= {other for other in (a, b) if other.receive()}
    return heard == {a, b}
