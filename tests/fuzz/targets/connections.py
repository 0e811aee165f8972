"""Streams, datagrams and paths of a connection: the peer's frames and the application's calls, in the order of the input."""

from __future__ import annotations

from collections.abc import Callable

from interpeer.errors import DatagramTooLarge
from tests.fuzz.source import Source
from tests.fuzz.talk import MAX_STEPS, Talk
from tests.models import wire
from tests.spec.peer import ELSEWHERE, PEER_AT


def feed(data: bytes) -> None:
    source = Source(data)
    talk = Talk()
    for _ in range(MAX_STEPS):
        if not source:
            break
        STEPS[source.byte(len(STEPS))](talk, source)
    talk.end()


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
    numbers = talk.numbers[0]
    if not numbers:
        return
    high = max(numbers) + (kind >> 6)
    low = min(numbers) if kind & 1 else high - min(high, kind >> 1 & 31)
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
