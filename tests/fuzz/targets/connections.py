"""A production engine with one open connection: the peer's frames and the application's calls, in the order of the input.

The handshake is recorded once and played to each engine: keys and numbers are the same every time, since the clock and the
random bytes are the test's own.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable

from interpeer._core import control
from interpeer._core.connection_handle import ConnectionHandle
from interpeer._core.probe_wire import Opener, Sealer
from interpeer._core.stream_handle import StreamHandle
from interpeer.errors import DatagramTooLarge
from tests.fuzz.source import Source
from tests.models import wire
from tests.spec.peer import DELAY_NS, ELSEWHERE, NODES, PEER_AT, SECOND, Endpoint, Node, Peer

MAX_STEPS = 200


def feed(data: bytes) -> None:
    source = Source(data)
    talk = Talk()
    for _ in range(MAX_STEPS):
        if not source:
            break
        STEPS[source.byte(len(STEPS))](talk, source)
    node = talk.node
    del talk
    node.wait(600 * SECOND)
    left = {name: count for name, count in control.live_objects(node.engine).items() if count}
    if left:  # an error that was caught may have kept a handle in a cycle
        gc.collect()
        node.wait(600 * SECOND)
        left = {name: count for name, count in control.live_objects(node.engine).items() if count}
    assert not left, f"left behind: {left}"


def make_node() -> Node:
    node = Node(max_streams=6, stream_window=4096, connection_window=16384, datagram_queue_bytes=4096, send_buffer_bytes=65536)
    NODES.clear()  # it is kept for tests, and there are many here
    return node


@functools.cache
def recorded() -> tuple[bytes, bytes, bytes, bytes, int, int]:
    """Return init, response, both secrets, the id that the node takes for its own, and the peer's suite."""
    node = make_node()
    peer = Peer(node)
    init = peer.init(parameters=peer.parameters(MAX_PATHS=4))
    (response,) = node.answers(init)
    peer.read_response(response)
    return init, response, *peer.handshake.secrets(), int.from_bytes(peer.remote_cid), peer.suite


class Talk:
    """Both ends of the connection: the node's by its handle, the peer's by its keys."""

    def __init__(self) -> None:
        init, response, send, receive, cid, suite = recorded()
        self.ids = {0: cid}  # of each path the last that the node has told
        self.node = make_node()
        self.sealer, self.opener = Sealer(suite, send), Opener(suite, receive)
        self.numbers: list[int] = []  # of what the node has said
        self.counters = [0] * 8
        self.streams: list[StreamHandle] = []
        assert self.node.answers(init) == [response]
        self.node.now_ns += 2 * DELAY_NS
        self.send(wire.write_frame(("ping",)))
        self.handle: ConnectionHandle = self.node.incoming()

    @property
    def cid(self) -> int:
        return self.ids[0]

    def send(self, *frames: bytes, path: int = 0, at: Endpoint = PEER_AT) -> None:
        """Say this as the peer, and hear what the node says to it."""
        packet = self.sealer.protect(b"".join(frames)[:1400], self.ids[path], path, self.counters[path])
        self.node.hear(packet, source=at)
        self.counters[path] += 1
        self.pass_time(0)

    def pass_time(self, ns: int) -> None:
        for sent in self.node.wait(ns):
            opened = self.opener.unprotect(sent.data, 0)
            if isinstance(opened, tuple):
                payload, number, is_update = opened
                if is_update:
                    self.opener.update()
                for frame in wire.read_frames(payload)[0]:
                    if frame[0] == "new_connection_id" and 0 < frame[1] < len(self.counters):
                        self.ids[frame[1]] = int.from_bytes(frame[3])
                self.numbers.append(number)

    def stream(self, source: Source) -> StreamHandle | None:
        return self.streams[source.byte(len(self.streams))] if self.streams else None


# --- the peer ---


def say_stream(talk: Talk, source: Source) -> None:
    stream, offset, fin = source.byte(16), source.byte() * source.byte(32), source.byte(4) == 0
    talk.send(wire.write_frame(("stream", stream, offset, bytes(source.number(1300)), fin)))


def say_frame(talk: Talk, source: Source) -> None:
    """Say something about a stream, or about all."""
    stream, value = source.byte(16), source.number()
    frames = (
        ("reset_stream", stream, source.byte(), value), ("stop_sending", stream, value), ("max_data", value),
        ("max_stream_data", stream, value), ("max_streams", value), ("datagram", bytes(value % 1300)),
        ("rekey", value & 3, bytes([stream]) * 96), ("rekey_answer", value & 3, bytes([stream]) * 48),
    )  # fmt: skip
    talk.send(wire.write_frame(frames[source.byte(len(frames))]))


def say_path(talk: Talk, source: Source) -> None:
    """Say something about paths, on one of them, from one address or another."""
    path, sequence, eight = source.byte(6), source.byte(4), source.byte(4)
    frames = (
        ("new_connection_id", path, sequence, bytes([0x80, path, sequence]) + bytes(5), bytes([eight]) * 16),
        ("retire_connection_id", path, sequence), ("path_abandon", path, 0), ("path_status", path, sequence, eight),
        ("path_challenge", bytes([eight]) * 8), ("path_response", bytes([eight]) * 8), ("ping",),
        ("ack", path, 0, [(0, eight)], None),
    )  # fmt: skip
    ids = sorted(talk.ids)
    frame = wire.write_frame(frames[source.byte(len(frames))])
    talk.send(frame, bytes(source.byte()), path=ids[source.byte(len(ids))], at=(PEER_AT, ELSEWHERE)[source.byte(2)])


def say_payload(talk: Talk, source: Source) -> None:
    talk.send(source.piece())


def acknowledge(talk: Talk, source: Source) -> None:
    """Acknowledge what was said, or some of it, or more."""
    kind = source.byte()
    if not talk.numbers:
        return
    high = max(talk.numbers) + (kind >> 6)
    low = min(talk.numbers) if kind & 1 else high - min(high, kind >> 1 & 31)
    talk.send(wire.write_frame(("ack", 0, 0, [(low, max(low, high))], None)))


def say_noise(talk: Talk, source: Source) -> None:
    """Say something unsealed, from the peer's address or another one."""
    kind = source.byte()
    data = talk.cid.to_bytes(8) * (kind & 1) + source.piece()
    talk.node.hear(data, source=ELSEWHERE if kind & 2 else PEER_AT)
    talk.pass_time(0)


# --- the application ---


def open_stream(talk: Talk, source: Source) -> None:
    if (stream := talk.handle.open_stream()) is not None:
        talk.streams.append(stream)


def accept_stream(talk: Talk, source: Source) -> None:
    if (stream := talk.handle.accept_stream()) is not None:
        talk.streams.append(stream)


def write(talk: Talk, source: Source) -> None:
    if stream := talk.stream(source):
        data = bytes(source.number(20_000))
        assert stream.write(data) <= len(data)
        talk.pass_time(0)


def lend(talk: Talk, source: Source) -> None:
    """Lend a buffer; take it back soon, or with the stream."""
    if stream := talk.stream(source):
        try:
            stream.lend(bytes(source.number(40_000)))
        except RuntimeError:
            stream.return_loan()
        talk.pass_time(0)


def read(talk: Talk, source: Source) -> None:
    if stream := talk.stream(source):
        had, most = stream.bytes_readable, source.number(10_000)
        found = stream.read(most) if source.byte(2) else bytes(stream.readinto(bytearray(most)))
        assert len(found or b"") == min(had, most)
        talk.pass_time(0)


def post(talk: Talk, source: Source) -> None:
    """Receive into a buffer, until the next time."""
    if stream := talk.stream(source):
        if stream.has_post:
            stream.unpost()
        else:
            stream.post(bytearray(source.number(5000)), 0, source.byte())


def end(talk: Talk, source: Source) -> None:
    """Finish, reset or stop a stream, tell it that its reset is known, or let go of it."""
    if stream := talk.stream(source):
        match source.byte(5):
            case 0:
                stream.finish()
            case 1:
                stream.reset(source.number())
            case 2:
                stream.stop(source.number())
            case 3:
                stream.told()
            case 4:
                talk.streams.remove(stream)
        del stream
        talk.pass_time(0)


def send_datagrams(talk: Talk, source: Source) -> None:
    try:
        talk.handle.send_datagrams([bytes(source.number(1500)) for _ in range(source.byte(8))])
    except DatagramTooLarge:
        pass
    talk.pass_time(0)


def receive_datagrams(talk: Talk, source: Source) -> None:
    assert len(talk.handle.recv_datagrams(source.byte())) < 256


def want(talk: Talk, source: Source) -> None:
    talk.handle.want(source.byte())
    if stream := talk.stream(source):
        stream.want_readable()
        stream.want_writable()
        stream.want_acked(source.number())
    talk.node.events()


def pass_time(talk: Talk, source: Source) -> None:
    talk.pass_time(source.number(1 << 34))


def close(talk: Talk, source: Source) -> None:
    if source.byte(8) == 0:
        talk.handle.close(source.number(), source.take(source.byte()))
        talk.pass_time(0)


STEPS: tuple[Callable[[Talk, Source], None], ...] = (
    say_stream, say_stream, say_frame, say_payload, acknowledge, acknowledge, say_noise, open_stream, accept_stream, write,
    lend, read, read, post, end, end, send_datagrams, receive_datagrams, want, pass_time, close, say_path,
)  # fmt: skip
"""What a byte of the input does."""
