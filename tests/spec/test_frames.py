"""Chapter 6 of the specification: frames, right and wrong."""

import pytest

from tests.spec import reference as ref
from tests.spec.peer import BY_ERROR, BY_PEER, BY_PEER_ERROR, CLOSING, DRAINING, MS, SECOND, Node, Peer
from tests.spec.reference import FRAME_ENCODING, PROTOCOL_ERROR
from tests.spec.test_packets import dropped

HUGE = 2**62 - 1


def connected(**limits):
    return Peer(Node(**limits)).call()


def only_acknowledged(frame):
    """Send a frame, and see that it does nothing but elicit an acknowledgement."""
    peer = connected()
    peer.node.wait(100 * MS)  # and it owes no acknowledgement
    before = peer.handle.stats()
    peer.send(frame)
    changed = {name for name, value in peer.handle.stats().items() if value != before[name]}
    assert changed - {"key_age_ns"} == {"packets_received", "bytes_received"} and peer.node.events() == []
    (answer,) = peer.frames(peer.node.wait(100 * MS))
    assert answer.kind == ref.ACK and answer.ranges == ((0, 1),)
    assert peer.node.wait(20 * SECOND) == []


# --- encoding ---


@pytest.mark.spec("FR-2")
def test_numbers_are_written_in_the_shortest_form():
    # the reader of these tests refuses any other
    peer = connected(stream_window=1 << 20)
    seen = set()
    for size in (1, 62, 63, 64, 65, 1000, 20_000, 70_000):
        stream = peer.handle.open_stream()
        stream.write(bytes(size))
        stream.reset(HUGE) if size == 65 else stream.finish()
        stream.stop(2**30 - 1)
        peer.handle.send_datagram(bytes(min(size, 1000)))
        seen |= {(frame.kind, ref.varint(frame.offset)[0] >> 6) for frame in peer.exchange()}
    assert {(ref.STREAM, 0), (ref.STREAM, 1), (ref.STREAM, 2)} <= seen
    assert {ref.RESET_STREAM, ref.STOP_SENDING, ref.DATAGRAM_LEN} <= {kind for kind, _ in seen}


@pytest.mark.spec("FR-3")
@pytest.mark.row("P9")
@pytest.mark.parametrize(
    "frame",
    [
        ref.varint(ref.PING, 2), ref.varint(ref.F_MAX_DATA, 8) + b"\5",
        b"\x10" + ref.varint(63, 2), b"\x10" + ref.varint(16383, 4),
        b"\x10" + ref.varint(2**30 - 1, 8), b"\x0a" + ref.varint(0, 2) + b"\0", b"\x17" + ref.varint(1, 4) + b"a",
        ref.varint(0x40, 4) + b"\0", ref.ack(0)[:2] + ref.varint(0, 2) + ref.ack(0)[3:],
    ],
    ids=lambda frame: frame.hex(),
)  # fmt: skip
def test_a_number_that_is_longer_than_needed_ends_the_connection(frame):
    peer = connected()
    peer.send(frame)
    assert peer.closed_with() == FRAME_ENCODING


WHOLE = [
    ref.ack(0), ref.ack(9, 1, (1, 1), (0, 0)), ref.ack(0, ecn=(0, 0, 1)), ref.reset_stream(0, 300, 5), ref.stop_sending(0, 300),
    ref.close(300, b"reason"), ref.close(300, b"reason", app=True), ref.stream(0, b"data"), ref.stream(0, b"data", 300, fin=True),
    ref.stream(1000, length=False), ref.max_data(300), ref.max_stream_data(0, 300), ref.max_streams(300), ref.datagram(b"data"),
    ref.ignorable(0x40, b"data"), ref.ignorable(2**40, b"data"),
]  # fmt: skip


@pytest.mark.spec("FR-5")
@pytest.mark.row("P9")
@pytest.mark.parametrize("frame", WHOLE, ids=lambda frame: frame.hex())
def test_a_frame_that_is_cut_ends_the_connection(frame):
    for n in range(1, len(frame)):
        peer = connected()
        peer.send(ref.ping(), frame[:n])
        assert peer.closed_with() == FRAME_ENCODING, n


@pytest.mark.spec("FR-5")
@pytest.mark.row("P9")
@pytest.mark.parametrize("kind", [ref.DATAGRAM_LEN, 0x40, ref.CLOSE, ref.STREAM | ref.LEN])
def test_a_size_beyond_the_packet_ends_the_connection(kind):
    before = {ref.CLOSE: b"\0", ref.STREAM | ref.LEN: b"\0"}.get(kind, b"")
    for size in (5, 1000, 2**32, HUGE):
        peer = connected()
        peer.send(ref.varint(kind) + before + ref.varint(size) + b"data")
        assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("FR-6")
@pytest.mark.row("P8")
@pytest.mark.parametrize("kind", [0x13, 0x14, 0x15, *range(0x26, 0x2C), *range(0x30, 0x40)])
def test_an_unknown_frame_ends_the_connection(kind):
    peer = connected()
    peer.send(ref.ping(), bytes([kind, 0, 0, 0]))
    assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("FR-7", "FR-11")
@pytest.mark.row("P8")
@pytest.mark.parametrize("kind", [0x40, 0x41, 0x3FFF, 0x4000, HUGE])
def test_an_unknown_frame_that_may_be_ignored_is_skipped_and_acknowledged(kind):
    for data in (b"", b"\x3f\x3f\x3f", bytes(1000)):
        peer = connected()
        peer.send(ref.ignorable(kind, data), ref.datagram(b"behind it"))
        assert peer.handle.recv_datagram() == b"behind it"
        only_acknowledged(ref.ignorable(kind, data))


@pytest.mark.spec("FR-8")
@pytest.mark.parametrize("end", [ref.close(1), b"\x3f", ref.max_stream_data(1, 5)], ids=["close", "encoding", "rule"])
def test_frames_behind_the_end_of_a_connection_are_not_acted_on(end):
    peer = connected()
    peer.send(ref.datagram(b"before"), end, ref.datagram(b"behind"), ref.stream(0, b"behind"))
    assert peer.handle.state in (CLOSING, DRAINING)
    assert peer.handle.recv_datagrams(9) == [b"before"] and peer.handle.accept_stream() is None


@pytest.mark.spec("FR-10")
@pytest.mark.parametrize("amount", [1, 2, 1000])
def test_padding_has_no_effect(amount):
    peer = connected()
    peer.exchange()
    before = peer.handle.stats()
    peer.send(bytes(amount))
    assert peer.node.wait(100 * MS) == []
    changed = {name for name, value in peer.handle.stats().items() if value != before[name]}
    assert changed - {"key_age_ns"} == {"packets_received", "bytes_received"}
    peer.send(bytes(amount), ref.datagram(b"a"), bytes(amount), ref.datagram(b"b"), bytes(amount))
    assert peer.handle.recv_datagrams(9) == [b"a", b"b"]


@pytest.mark.spec("FR-11")
def test_a_ping_has_no_effect_but_an_acknowledgement():
    only_acknowledged(ref.ping())


# --- ACK ---


def with_packets(n=5, **limits):
    """Return a peer whose node has sent so many packets, each with a byte of one stream."""
    peer = connected(**limits)
    peer.stream = peer.handle.open_stream()
    for _ in range(n):
        peer.stream.write(b".")
        peer.frames()
    assert len(peer.received) == n
    return peer


@pytest.mark.spec("FR-13")
@pytest.mark.row("C2")
@pytest.mark.parametrize(
    "frame",
    [
        ref.ack(4, 5), ref.ack(0, HUGE), ref.ack(4, 0, (3, 0)), ref.ack(4, 0, (2, 1)), ref.ack(4, 1, (0, 0), (0, 0)),
        ref.ack(4, 0, (HUGE, 0)), ref.ack(4, 0, (0, HUGE)), ref.ack(4, 0, (HUGE, HUGE)),
    ],
    ids=lambda frame: frame.hex(),
)  # fmt: skip
def test_ranges_below_zero_end_the_connection(frame):
    peer = with_packets()
    peer.send(frame)
    assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("FR-14")
@pytest.mark.row("C2")
def test_more_than_64_ranges_end_the_connection():
    for ranges, is_right in ((64, True), (65, False), (10_000, False)):
        peer = with_packets(200)
        peer.send(ref.ack(199, 0, *[(0, 0)] * (ranges - 1)) if ranges < 200 else ref.numbers(ref.ACK, 0, 199, 0, ranges, 0))
        if is_right:
            assert peer.handle.is_open
        else:
            assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("FR-15")
@pytest.mark.parametrize("path", [1, 2**32, HUGE])
def test_an_ack_of_another_path_ends_the_connection(path):
    peer = with_packets()
    peer.send(ref.ack(2, path=path))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.spec("FR-16")
@pytest.mark.row("C1")
@pytest.mark.parametrize("largest", [5, 6, 1000, HUGE])
def test_an_ack_of_what_was_never_sent_ends_the_connection(largest):
    peer = with_packets()
    peer.send(ref.ack(4, 4))
    assert peer.handle.is_open
    peer.send(ref.ack(largest))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.spec("FR-17")
@pytest.mark.row("C1", "C6")
@pytest.mark.parametrize("is_alone", [True, False])
def test_an_ack_of_a_number_left_out_ends_the_connection(is_alone):
    peer = with_packets(30, skip_every=2)
    skipped = max(set(range(max(peer.received))) - peer.received)
    peer.acknowledge(*[n for n in peer.received if n < skipped])
    assert peer.handle.is_open
    peer.acknowledge(*([skipped] if is_alone else range(skipped - 1, max(peer.received) + 1)))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.spec("FR-18")
def test_an_ack_that_comes_again_changes_nothing():
    peer = with_packets(20)
    peer.node.now_ns += 20 * MS
    peer.send(ref.ack(9, 9))
    peer.node.wait(0)
    before = peer.handle.stats()
    peer.node.now_ns += 100 * MS
    for frame in (ref.ack(9, 9), ref.ack(3, 3), ref.ack(9, 0, (2, 1)), ref.ack(0, delay_us=HUGE)):
        peer.send(frame)
    after = peer.handle.stats()
    changed = {name for name in after if after[name] != before[name]}
    assert changed - {"key_age_ns"} == {"packets_received", "bytes_received"}


# --- CLOSE ---


@pytest.mark.spec("FR-20")
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 100_000])
def test_a_long_reason_is_cut(size):
    peer = connected()
    peer.handle.close(HUGE, b"r" * size)
    (frame,) = peer.told()
    assert (frame.kind, frame.value, frame.data) == (ref.CLOSE_APP, HUGE, b"r" * min(size, 256))


@pytest.mark.spec("FR-21", "ER-2")
@pytest.mark.parametrize(("app", "by"), [(True, BY_PEER), (False, BY_PEER_ERROR)])
@pytest.mark.parametrize("code", [0, 7, 0x0B, 0xFFFF, HUGE])
def test_code_and_reason_of_a_close_are_told(app, by, code):
    for reason in (b"", b"because", b"r" * 256, b"r" * 1000):
        peer = connected()
        peer.send(ref.close(code, reason, app=app))
        assert peer.handle.closed() == (by, code, app, reason[:256])


# --- limits ---


@pytest.mark.spec("FR-22")
def test_limits_never_fall():
    peer = Peer(Node()).call(MAX_DATA=1000, MAX_STREAM_DATA=1000, MAX_STREAMS=2)
    streams = [peer.handle.open_stream() for _ in range(2)]
    for lower in (ref.max_data(0), ref.max_data(999), ref.max_stream_data(1, 500), ref.max_streams(1), ref.max_streams(0)):
        peer.send(lower)
    assert peer.handle.stats()["data_limit"] == 1000
    streams[0].write(bytes(600))
    assert sum(len(frame.data) for frame in peer.told()) == 600
    # a frame that was overtaken by a later one
    peer.send(ref.max_data(2000), ref.max_stream_data(1, 1500), ref.max_streams(3))
    peer.send(ref.max_data(1500), ref.max_stream_data(1, 1200), ref.max_streams(2))
    streams[0].write(bytes(5000))
    assert sum(len(frame.data) for frame in peer.told(peer.node.wait(20 * MS))) == 900
    assert peer.handle.open_stream() and not peer.handle.open_stream()


@pytest.mark.spec("FR-24")
@pytest.mark.row("S5")
def test_a_stream_past_the_greatest_number_ends_the_connection():
    for data, offset in ((b"a", HUGE), (b"ab", HUGE - 1), (bytes(1000), HUGE - 500)):
        peer = connected()
        peer.send(ref.stream(0, data, offset))
        assert peer.closed_with() == FRAME_ENCODING
    peer = connected()
    peer.send(ref.stream(0, b"a", HUGE - 1))
    assert peer.closed_with() == 3, "it can be read, and passes the flow control limit"


def test_a_stream_frame_may_leave_out_offset_and_size():
    peer = connected()
    peer.send(ref.ping(), ref.stream(0, b"to the end", length=False))
    peer.send(ref.stream(0, b" of the packet", 10, length=False, fin=True))
    stream = peer.handle.accept_stream()
    assert stream.read(100) == b"to the end of the packet" and stream.is_at_end


@pytest.mark.row("P16", "S8")
def test_a_packet_full_of_frames_is_answered_once():
    peer = connected()
    peer.send(*[ref.ping()] * 500, *[ref.max_data(1)] * 100, *[ref.datagram(b"")] * 50)
    assert len(peer.node.wait(50 * MS)) == 1 and len(peer.handle.recv_datagrams(100)) == 50


def test_nothing_wrong_in_a_packet_that_is_not_authentic_ends_a_connection():
    peer = Peer(Node()).call()
    packet = bytearray(peer.packet(b"\x3f\x3f\x3f"))
    packet[-1] ^= 1
    assert dropped(peer.node, "dropped_forged", bytes(packet))
    assert peer.handle.is_open and peer.handle.closed() is None
    peer.send(b"\x3f")
    assert peer.handle.closed()[0] == BY_ERROR
