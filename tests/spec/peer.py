"""Two sides for the tests of the specification: an engine under test, and a peer that is made by hand against it.

`Node` is the production engine, stepped by hand on a clock of its own: what it hears and says are datagrams. `Peer` speaks
to it through the independent implementation in reference.py, and so can say anything, right or wrong.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from interpeer import Config
from interpeer._core import control
from interpeer._core.connection_handle import ConnectionHandle
from interpeer._core.engine import Engine
from interpeer._core.stream_handle import StreamHandle
from tests.spec import reference as ref
from tests.spec.reference import Frame, Handshake, Identity, Opened, PacketKeys

MS = 1_000_000
SECOND = 1000 * MS
START_NS = 1000 * SECOND
DELAY_NS = 10 * MS  # between a packet and its answer; 20 ms are a round trip

Endpoint = tuple[bytes, int, int]


def endpoint(host: str, port: int) -> Endpoint:
    """Return an IPv4 address as the core takes it."""
    return bytes(10) + b"\xff\xff" + bytes(map(int, host.split("."))), port, 0


NODE_AT, PEER_AT, ELSEWHERE = endpoint("192.0.2.1", 1001), endpoint("198.51.100.7", 2002), endpoint("203.0.113.9", 3003)
PROTOCOL = b"test/1"
SUITE_NAMES = control.SUITE_NAMES

DIALING, OPEN, CLOSING, DRAINING, CLOSED = range(5)  # ConnectionHandle.state
LOCALLY, BY_PEER, BY_ERROR, BY_PEER_ERROR, BY_RESET, BY_SILENCE, BY_REFUSAL, BY_VERSION, UNREACHABLE = range(1, 10)
"""ConnectionHandle.closed()[0]"""


@dataclass(frozen=True)
class Sent:
    """A datagram that a node has sent."""

    data: bytes
    to: Endpoint
    ecn: int
    at_ns: int
    local: bytes = bytes(16)


class Node:
    """An engine under test. Random bytes come from `seed`, or from `entropy` where a test must know them."""

    def __init__(
        self,
        seed: bytes = bytes([1]) * 32,
        *,
        network: bytes = b"",
        protocols: tuple[bytes, ...] = (PROTOCOL,),
        suites: tuple[str, ...] = ("chacha20-poly1305",),
        is_stored: bool = True,
        backlog: int = 64,
        entropy: bytes | None = None,
        **limits: int,
    ) -> None:
        self.identity = Identity(seed)
        self.network = network
        self.now_ns = START_NS
        self.engine = Engine()
        defaults = Config().core_limits() | {"skip_every": 0, "keep_alive_ns": 0}
        unknown = limits.keys() - defaults.keys()
        assert not unknown, f"no such limits: {unknown}"
        # probes of the path's MTU go only where a test is about them
        defaults["max_packet_bytes"] = limits.get("packet_bytes", defaults["packet_bytes"])
        control.configure(self.engine, seed, network, is_stored, list(protocols), list(suites), backlog, defaults | limits)
        self.exchange = control.Exchange(self.engine)
        self.random = random.Random(seed)
        self.has_own_entropy = entropy is None
        if entropy is not None:
            control.add_entropy(self.engine, entropy)
        NODES.append(self)

    def feed(self) -> None:
        if self.has_own_entropy:
            control.add_entropy(self.engine, self.random.randbytes(control.entropy_missing(self.engine)))

    def hear(self, *datagrams: bytes, source: Endpoint = PEER_AT, ecn: int = 0, at: Endpoint | None = None) -> None:
        """Receive datagrams, at that address of the node's, if the system says which."""
        self.feed()
        local = bytes(16) if at is None else at[0]
        self.exchange.receive([(data, source, ecn, local) for data in datagrams], self.now_ns)

    def say(self, *, refuses: Callable[[bytes, int], bool] | None = None) -> list[Sent]:
        """Return everything that may go out now, but for what the interface takes not for its size."""
        self.feed()
        said = self.exchange.transmit_from(self.now_ns, refuses)
        return [Sent(data, to, ecn, self.now_ns, local) for data, to, ecn, local, _ in said]

    def answers(self, *datagrams: bytes, source: Endpoint = PEER_AT) -> list[bytes]:
        """Hear datagrams and return what is said at once."""
        self.hear(*datagrams, source=source)
        return [sent.data for sent in self.say()]

    def wait(self, ns: int) -> list[Sent]:
        """Let time pass, doing what is due when it is due; return everything that was said."""
        end_ns = self.now_ns + ns
        said = self.say()
        while True:
            deadline = self.exchange.poll_timeout()
            if deadline == 0 or deadline > end_ns:
                break
            self.now_ns = max(self.now_ns, deadline)
            self.exchange.handle_timeout(self.now_ns)
            said += self.say()
        self.now_ns = end_ns
        return said

    def events(self) -> list[tuple[Any, ...]]:
        return control.events(self.engine)

    def incoming(self) -> ConnectionHandle:
        """Return the one connection that a peer has opened since the last look."""
        (handle,) = (event[1] for event in self.events() if event[0] == control.INCOMING)
        handle.take()
        return handle

    def counters(self) -> dict[str, int]:
        return control.counters(self.engine)

    def counter(self, name: str) -> int:
        return self.counters()[name]

    def connect(self, peer: Peer, *addresses: Endpoint, protocol: bytes = PROTOCOL) -> ConnectionHandle:
        return control.connect(self.engine, peer.identity.id, list(addresses) or [peer.at], protocol)


NODES: list[Node] = []
"""Every node that the present test has made: the fixture that looks for leaks empties it."""


class Peer:
    """The other side of one connection."""

    def __init__(
        self, node: Node, seed: bytes = bytes([2]) * 32, *, at: Endpoint = PEER_AT, suite: int = ref.CHACHA20_POLY1305
    ) -> None:
        self.node, self.identity, self.at, self.suite = node, Identity(seed), at, suite
        self.random = random.Random(seed)
        self.cid = b"\x80" + self.random.randbytes(7)
        self.remote_cid = b""
        self.counters: Counter[int] = Counter()
        self.received_on: defaultdict[int, set[int]] = defaultdict(set)
        self.own_cids = {self.cid: 0}  # the path of each id that the node may use
        self.path_cids: dict[int, dict[int, bytes]] = {}  # of each path the node's ids by number
        self.remote_parameters: dict[int, bytes] = {}
        self.handle: ConnectionHandle
        self.stream: StreamHandle | None = None  # one that a test keeps open

    @property
    def counter(self) -> int:
        """The counter of the next packet on path 0."""
        return self.counters[0]

    @counter.setter
    def counter(self, value: int) -> None:
        self.counters[0] = value

    @property
    def received(self) -> set[int]:
        """The counters of the node's packets on path 0."""
        return self.received_on[0]

    # --- handshake ---

    def parameters(self, **changes: int | bytes | None) -> bytes:
        """Return what this peer says about itself; `changes` are named like the constants of reference.py."""
        values: dict[str, int | bytes | None] = {
            "SUITE_LIST": bytes([self.suite]), "PROTOCOL": PROTOCOL, "MAX_DATA": 1 << 40, "MAX_STREAM_DATA": 1 << 40,
            "MAX_STREAMS": 100, "MAX_DATAGRAM": 65_000, "IDLE_TIMEOUT": 30_000, "MAX_ACK_DELAY": 5000,
            "MAX_UDP_PAYLOAD": 65_507, "RECEIVE_BUFFER": 1 << 20, "MAX_PATHS": 1,
            "MAX_CHANNELS": 100, "RESET_TOKEN": ref.reset_token(self.identity.seed, self.cid),
        }  # fmt: skip
        values |= changes
        return b"".join(ref.parameter(getattr(ref, name), value) for name, value in values.items() if value is not None)

    def init(
        self,
        *,
        parameters: bytes | None = None,
        claim: bytes | None = None,
        version: int = ref.VERSION,
        cookie: bytes | None = None,
        network: bytes | None = None,
        ephemeral: bytes | None = None,
    ) -> bytes:
        """Write a first message; `claim` is another identity than ours to put into it."""
        network = self.node.network if network is None else network
        head = ref.header(ref.INIT, self.cid, version)
        responder = self.node.identity.public
        self.handshake = Handshake(self.identity, ephemeral or self.random.randbytes(32), head, network, responder)
        payload = (claim or self.identity.id) + (self.parameters() if parameters is None else parameters)
        room = ref.INIT_BYTES - 10 - 32 - 48 - 16 - 32
        if len(payload) < room - 2:
            payload += ref.parameter(ref.PADDING, bytes(room - len(payload) - 3))
        self.body = head + self.handshake.write(payload)
        message = ref.with_macs(self.body, responder, network, cookie)
        self.mac1 = message[1168:1184]
        return message

    def with_cookie(self, cookie: bytes) -> bytes:
        """Return the last init with another cookie."""
        return ref.with_macs(self.body, self.node.identity.public, self.node.network, cookie)

    def read_response(self, response: bytes) -> dict[int, bytes]:
        """Open a response to the last init and take its keys; return the parameters."""
        assert response[:10] == ref.header(ref.RESPONSE, self.cid)
        payload = self.handshake.read(response[10:])
        assert payload[:32] == self.node.identity.id
        self.remote_parameters = found = ref.read_parameters(payload[32:])
        if ref.REFUSAL not in found:
            self.remote_cid = found[ref.CONNECTION_ID]
            (self.suite,) = found[ref.SUITE_LIST]
            self.take_keys()
        return found

    def take_keys(self) -> None:
        send, receive = self.handshake.secrets()
        self.send_keys, self.receive_keys = PacketKeys(self.suite, send), PacketKeys(self.suite, receive)

    def call(self, **changes: int | bytes | None) -> Self:
        """Open a connection to the node."""
        (response,) = self.node.answers(self.init(parameters=self.parameters(**changes)), source=self.at)
        self.read_response(response)
        self.node.now_ns += 2 * DELAY_NS
        self.send(ref.ping())
        self.handle = self.node.incoming()
        self.frames()
        return self

    def answer(self, init: bytes, *, claim: bytes | None = None, parameters: bytes | None = None) -> bytes:
        """Write the response to the node's init."""
        head = init[:10]
        self.remote_cid = init[2:10]
        self.handshake = Handshake(self.identity, self.random.randbytes(32), head, self.node.network)
        payload = self.handshake.read(init[10:1168])
        self.remote_identity, self.remote_static = payload[:32], self.handshake.remote_static
        self.remote_parameters = ref.read_parameters(payload[32:])
        if parameters is None:
            parameters = self.parameters(PROTOCOL=None, CONNECTION_ID=self.cid)
        response = ref.header(ref.RESPONSE, self.remote_cid) + self.handshake.write((claim or self.identity.id) + parameters)
        self.take_keys()
        return response

    def be_called(self, **changes: int | bytes | None) -> Self:
        """Let the node open a connection to this peer."""
        self.handle = self.node.connect(self)
        (init,) = self.node.say()
        self.node.now_ns += 2 * DELAY_NS
        own = self.parameters(**{"PROTOCOL": None, "CONNECTION_ID": self.cid} | changes)
        self.node.hear(self.answer(init.data, parameters=own), source=self.at)
        self.node.events()
        self.frames()
        self.node.now_ns += 2 * DELAY_NS
        self.acknowledge()
        return self

    # --- packets ---

    def packet(
        self, *frames: bytes, counter: int | None = None, epoch: int = 0, flags: int = 0, path: int = 0, cid: bytes | None = None
    ) -> bytes:
        if counter is None:
            counter = self.counters[path]
            self.counters[path] += 1
        if cid is None:
            cid = self.remote_cid if path == 0 else self.path_cids[path][max(self.path_cids[path])]
        return self.send_keys.seal(b"".join(frames), cid, counter, epoch=epoch, flags=flags, path=path)

    def send(
        self, *frames: bytes, source: Endpoint | None = None, ecn: int = 0, at: Endpoint | None = None, **where: Any
    ) -> None:
        self.node.hear(self.packet(*frames, **where), source=source or self.at, ecn=ecn, at=at)

    def open(self, data: bytes) -> Opened:
        """Open a packet, and learn the connection ids that it tells."""
        path = self.own_cids[data[:8]]
        opened = self.receive_keys.open(data, path)
        self.received_on[path].add(opened.counter)
        for frame in ref.read_frames(opened.payload):
            if frame.kind == ref.NEW_CONNECTION_ID:
                self.path_cids.setdefault(frame.path, {})[frame.id] = frame.data[:8]
        return opened

    def new_cid(self, path: int, sequence: int, token: bytes = bytes(16)) -> bytes:
        """Make an id of ours for a path; return the frame that tells it."""
        cid = b"\x80" + self.random.randbytes(7)
        self.own_cids[cid] = path
        return ref.new_connection_id(path, sequence, cid, token)

    def packets(self, said: list[Sent] | None = None) -> list[Opened]:
        """Open what the node says now, or what it has said, to this peer."""
        return [self.open(sent.data) for sent in (self.node.say() if said is None else said)]

    def frames(self, said: list[Sent] | None = None) -> list[Frame]:
        """Return the frames in what the node says now, or has said; ACK frames included."""
        return [frame for opened in self.packets(said) for frame in ref.read_frames(opened.payload)]

    def told(self, said: list[Sent] | None = None) -> list[Frame]:
        """Return the frames that say something: neither acknowledgements nor probes without content."""
        return [frame for frame in self.frames(said) if frame.kind not in (ref.ACK, ref.ACK_ECN, ref.PING)]

    def acknowledge(self, *numbers: int, delay_us: int = 0, ecn: tuple[int, int, int] | None = None, **where: Any) -> None:
        """Acknowledge these packets of path 0, or every one that was opened."""
        self.send(ack_of(numbers or self.received, delay_us=delay_us, ecn=ecn), **where)

    def acknowledge_all(self, **where: Any) -> None:
        """Acknowledge every packet that was opened on any path."""
        self.send(*(ack_of(numbers, path=path) for path, numbers in self.received_on.items() if numbers), **where)

    def exchange(self, ns: int = 20 * SECOND) -> list[Frame]:
        """Acknowledge a round trip later whatever the node says, until it is quiet; return its frames."""
        frames: list[Frame] = []
        end_ns = self.node.now_ns + ns
        while (said := self.node.wait(2 * DELAY_NS)) and self.node.now_ns < end_ns:
            new = self.frames(said)
            frames += [frame for frame in new if frame.kind not in (ref.ACK, ref.ACK_ECN)]
            if any(frame.kind not in (ref.ACK, ref.ACK_ECN) for frame in new):
                self.acknowledge()
        return frames

    def closed_with(self) -> int:
        """Return the code of the CLOSE frame that the node sends now, alone in its packet."""
        (packet,) = self.packets()
        (frame,) = ref.read_frames(packet.payload)
        assert frame.kind == ref.CLOSE and self.handle.state in (CLOSING, DRAINING)
        return frame.value


def ack_of(numbers: Any, *, delay_us: int = 0, ecn: tuple[int, int, int] | None = None, path: int = 0) -> bytes:
    """Write an ACK frame for a set of packet numbers; the newest 64 ranges of them."""
    ranges: list[list[int]] = []
    for n in sorted(numbers, reverse=True):
        if ranges and n == ranges[-1][0] - 1:
            ranges[-1][0] = n
        else:
            ranges.append([n, n])
    ranges = ranges[:64]
    gaps = [(above[0] - low_high[1] - 2, low_high[1] - low_high[0]) for above, low_high in itertools.pairwise(ranges)]
    return ref.ack(ranges[0][1], ranges[0][1] - ranges[0][0], *gaps, delay_us=delay_us, ecn=ecn, path=path)


# --- parts of a handshake ---


def called(peer: Peer) -> tuple[ConnectionHandle, bytes]:
    """Let the node call the peer; return the handle and the init."""
    handle = peer.node.connect(peer)
    (init,) = peer.node.say()
    assert init.to == peer.at and init.ecn == 0
    return handle, init.data


def stranger(node: Node, i: int) -> Peer:
    """Return a peer from a network of its own."""
    return Peer(node, i.to_bytes(32, "big"), at=endpoint(f"10.{i >> 8}.{i & 255}.1", 5000))


def answered(peer: Peer, *, with_cookie: bool = True) -> bytes:
    """Get a response, showing a cookie if one is asked for."""
    (answer,) = peer.node.answers(peer.init(), source=peer.at)
    if answer[0] == ref.COOKIE and with_cookie:
        cookie = ref.open_reply(answer, peer.mac1, peer.node.identity.public, peer.node.network)
        (answer,) = peer.node.answers(peer.with_cookie(cookie), source=peer.at)
    peer.read_response(answer)
    return answer


def refusal(peer: Peer, answers: list[bytes]) -> tuple[int, bytes]:
    """Open the one answer, which is a refusal and nothing else; return its code and reason."""
    (response,) = answers
    found = peer.read_response(response)
    assert list(found) == [ref.REFUSAL]
    reader = ref.Reader(found[ref.REFUSAL])
    return reader.varint(), reader.data
