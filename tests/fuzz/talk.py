"""A production engine with one open connection, and a peer that holds its keys: what targets that speak to an engine share.

Whatever the peer says is sealed with the true keys and goes the way of any packet: a fuzzer that makes up plaintexts reaches
everything behind the AEAD, as it would with a cipher that does nothing, but in the code that is shipped, and what it finds is
found again by the tests, without a build of its own.

The handshake is recorded once for each role and played to each engine: keys and numbers are the same every time, since the
clock and the random bytes are the test's own.
"""

from __future__ import annotations

import functools
import gc

from interpeer._core import control
from interpeer._core.channel_handle import ChannelHandle
from interpeer._core.connection_handle import ConnectionHandle
from interpeer._core.probe_fec import Encoder
from interpeer._core.probe_rekey import Machine
from interpeer._core.stream_handle import StreamHandle
from tests.fuzz.source import Source
from tests.models import wire
from tests.spec import reference as ref
from tests.spec.peer import DELAY_NS, ELSEWHERE, NODES, PEER_AT, SECOND, Endpoint, Node, Peer, endpoint

PLACES = (PEER_AT, ELSEWHERE, endpoint("203.0.113.77", 7007))
MAX_PATHS = 8  # ids of paths that a peer speaks of sensibly
MAX_STEPS = 200
SYMBOL_BYTES = 1118
SECONDS_OF_USE = 2  # until fresh keys are due


def make_node() -> Node:
    node = Node(
        max_streams=6, max_channels=6, stream_window=4096, connection_window=16384, datagram_queue_bytes=4096,
        send_buffer_bytes=65536, max_message=1 << 16, rekey_ns=SECONDS_OF_USE * SECOND, max_packet_bytes=9000,
    )  # fmt: skip
    NODES.clear()  # it is kept for tests, and there are many here
    return node


@functools.cache
def recorded(is_initiator: bool) -> tuple[bytes, bytes, Peer]:
    """Return init and response of a handshake with a peer in this role, and the peer with its keys."""
    node = make_node()
    peer = Peer(node)
    if is_initiator:
        init = peer.init(parameters=peer.parameters(MAX_PATHS=4))
        (response,) = node.answers(init)
        peer.read_response(response)
    else:
        handle = node.connect(peer)
        (sent,) = node.say()
        init = sent.data
        response = peer.answer(init, parameters=peer.parameters(PROTOCOL=None, CONNECTION_ID=peer.cid, MAX_PATHS=4))
        handle.close(0, b"")
    del peer.node  # each talk has a node of its own: this one is not to outlive the test that came first
    return init, response, peer


class Talk:
    """Both ends of the connection: the node's by its handles, the peer's by its keys."""

    def __init__(self, *, is_initiator: bool = True) -> None:
        """Open the connection; `is_initiator` tells of the peer."""
        init, response, peer = recorded(is_initiator)
        self.node = make_node()
        self.is_initiator = is_initiator
        self.node_key = self.node.identity.public
        self.machine = Machine(
            peer.identity.seed, is_initiator, *peer.handshake.secrets(), interval_ns=0, now_ns=self.node.now_ns
        )
        self.ids = {0: int.from_bytes(peer.remote_cid)}  # of each path the last that the node has told
        self.own_ids = {peer.cid: 0}  # the path of each that the peer has told
        self.sequences = [1] + [0] * (MAX_PATHS - 1)
        self.retired: set[tuple[int, int]] = set()  # path and number of ids that the node has given up
        self.counters = [0] * MAX_PATHS
        self.numbers: list[list[int]] = [[] for _ in range(MAX_PATHS)]  # of what the node has said on each path
        self.asked: dict[int, bytes] = {}  # the challenge on each path that is not answered yet
        self.streams: list[StreamHandle] = []
        self.channels: list[ChannelHandle] = []
        self.sent: dict[int, tuple[int, int, Encoder]] = {}  # of each channel the peer's offset, number and repairs
        self.handle: ConnectionHandle
        if is_initiator:
            assert self.node.answers(init) == [response]
            self.node.now_ns += 2 * DELAY_NS
            self.send(wire.write_frame(("ping",)))
            self.handle = self.node.incoming()
        else:
            self.handle = self.node.connect(peer)
            assert [sent.data for sent in self.node.say()] == [init]
            self.node.now_ns += 2 * DELAY_NS
            self.node.hear(response)
            self.pass_time(0)
            self.node.events()

    # --- the peer ---

    def send(self, *frames: bytes, path: int = 0, at: Endpoint = PEER_AT) -> None:
        """Say this as the peer, and hear what the node says to it."""
        packet = self.machine.protect(b"".join(frames)[:1400], self.ids[path], path, self.counters[path])
        self.counters[path] += 1
        self.node.hear(packet, source=at)
        self.pass_time(0)

    def pass_time(self, ns: int) -> None:
        """Hear what the node says meanwhile, and answer what needs an answer for keys and ids to go on."""
        answers: list[bytes] = []
        for sent in self.node.wait(ns):
            path = self.own_ids.get(sent.data[:8])
            opened = None if path is None else self.machine.unprotect(sent.data, path)
            if path is None or opened is None:
                continue
            payload, number, is_update = opened
            if is_update:
                self.machine.follow(self.node.now_ns)
            self.numbers[path].append(number)
            frames, is_complete = wire.read_frames(payload)
            assert is_complete and frames, "a peer could not read this"
            for frame in frames:
                answers += self.take(frame, path)
        for answer in answers:
            self.send(answer)

    def take(self, frame: tuple, path: int) -> list[bytes]:
        """Take a frame as the peer; return what it says to that."""
        match frame:
            case "new_connection_id", p, _, cid, _ if 0 < p < MAX_PATHS:
                self.ids[p] = int.from_bytes(cid)
            case "retire_connection_id", p, sequence if p < MAX_PATHS and (p, sequence) not in self.retired:
                self.retired.add((p, sequence))
                return [self.new_id(p)]
            case "path_challenge", data:
                self.asked[path] = data
            case "rekey", epoch, message if self.machine.handle_init(epoch, message, self.node.now_ns) == 0:
                if self.machine.state["state"] == "asked":
                    self.machine.answer(self.node_key, bytes([7]) * 32, self.node.now_ns)
                return [answer] if (answer := self.machine.write()) else []
            case "rekey_answer", epoch, message:
                self.machine.handle_answer(epoch, message, self.node.now_ns)
        return []

    def new_id(self, path: int) -> bytes:
        """Make an id of the peer's for a path; return the frame that tells it."""
        sequence = self.sequences[path]
        self.sequences[path] += 1
        cid = bytes([0x80, path, sequence]) + b"fuzz!"
        self.own_ids[cid] = path
        return ref.new_connection_id(path, sequence, cid)

    def message(self, channel: int, data: bytes, *, is_lost: bool = False, ordered: bool = True) -> None:
        """Say the next message of a channel, or have it lost; a repair can bring it then."""
        offset, number, encoder = self.sent.get(channel) or (0, 0, Encoder(32, SYMBOL_BYTES))
        message = ref.message(number, data, ordered=ordered)
        encoder.add(offset.to_bytes(8) + message if len(data) <= 1100 else b"")
        self.sent[channel] = offset + len(message), number + 1, encoder
        if not is_lost:
            self.send(ref.messages(channel, message, offset))

    def repair(self, channel: int) -> None:
        """Say what makes up for one lost message."""
        if (known := self.sent.get(channel)) and (body := known[2].repair()) is not None:
            self.send(wire.write_frame(("repair", channel, body)))

    def acknowledge_all(self) -> None:
        for path, numbers in enumerate(self.numbers):
            if numbers:
                self.send(wire.write_frame(("ack", path, 0, [(min(numbers), max(numbers))], None)))

    def end(self) -> None:
        """Let the peer be silent for ever, and the application forget everything; nothing of it may be left."""
        self.streams.clear()
        self.channels.clear()
        del self.handle
        self.node.wait(600 * SECOND)
        if any(control.live_objects(self.node.engine).values()):  # an error that was caught may have kept a handle in a cycle
            gc.collect()
            self.node.wait(600 * SECOND)
        left = {name: count for name, count in control.live_objects(self.node.engine).items() if count}
        assert not left, f"left behind: {left}"

    # --- what steps choose from ---

    @property
    def cid(self) -> int:
        return self.ids[0]

    def stream(self, source: Source) -> StreamHandle | None:
        return self.streams[source.byte(len(self.streams))] if self.streams else None

    def channel(self, source: Source) -> ChannelHandle | None:
        return self.channels[source.byte(len(self.channels))] if self.channels else None
