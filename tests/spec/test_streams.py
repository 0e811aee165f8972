"""Chapter 7 of the specification: streams and flow control."""

import itertools
import random

import pytest

from tests.spec import reference as ref
from tests.spec.peer import MS, SECOND, Node, Peer, endpoint
from tests.spec.reference import FINAL_SIZE, FLOW_CONTROL, GAPS, STREAM_LIMIT, STREAM_STATE
from tests.spec.test_frames import connected

HUGE = 2**62 - 1


def accepted(peer):
    """Return all streams that the peer has opened and the application has not taken yet."""
    return list(iter(peer.handle.accept_stream, None))


def data_of(frames, stream_id):
    """Put the data of a stream's frames together, which must agree with each other; return them and whether the end is there."""
    data, end = {}, None
    for frame in frames:
        if frame.kind == ref.STREAM and frame.id == stream_id:
            for i, byte in enumerate(frame.data, frame.offset):
                assert data.setdefault(i, byte) == byte
            if frame.fin:
                assert end in (None, frame.offset + len(frame.data))
                end = frame.offset + len(frame.data)
    assert sorted(data) == list(range(len(data)))
    return bytes(data[i] for i in range(len(data))), end == len(data)


# --- opening ---


@pytest.mark.spec("ST-2", "ST-4")
@pytest.mark.parametrize(("role", "first"), [("call", 1), ("be_called", 0)])
def test_streams_are_opened_in_order_and_announced_at_once(role, first):
    peer = getattr(Peer(Node()), role)()
    streams = []
    for n in range(5):
        stream = peer.handle.open_stream()
        streams.append(stream)
        if n % 2:
            stream.write(b"data")
        (frame,) = peer.told()
        assert (frame.kind, frame.id, frame.offset, frame.fin) == (ref.STREAM, first + 2 * n, 0, False)
        assert stream.id == frame.id and frame.data == (b"data" if n % 2 else b"")


@pytest.mark.spec("ST-4")
def test_a_stream_whose_data_may_not_go_yet_is_announced_without_them():
    peer = Peer(Node()).call(MAX_DATA=10)
    first = peer.handle.open_stream()
    first.write(bytes(100))
    assert sum(len(frame.data) for frame in peer.exchange()) == 10
    stream = peer.handle.open_stream()
    stream.write(b"are you there?")
    (frame,) = peer.told()
    assert (frame.kind, frame.id, frame.data) == (ref.STREAM, stream.id, b"")
    peer.send(ref.max_data(1000))
    assert b"are you there?" in [frame.data for frame in peer.exchange()]


@pytest.mark.spec("ST-4")
def test_a_lost_announcement_is_repeated():
    peer = connected()
    stream = peer.handle.open_stream()
    peer.node.say()
    again = peer.told(peer.node.wait(SECOND))
    assert again and {(frame.kind, frame.id, frame.data) for frame in again} == {(ref.STREAM, stream.id, b"")}


@pytest.mark.spec("ST-3")
@pytest.mark.parametrize(
    "frame",
    [ref.stream(12), ref.stream(12, b"data"), ref.max_stream_data(12, 5), ref.reset_stream(12, 1, 0), ref.stop_sending(12, 1)],
    ids=lambda frame: frame.hex(),
)  # fmt: skip
def test_a_frame_for_a_new_stream_opens_all_up_to_it(frame):
    peer = connected()
    peer.send(frame)
    assert [stream.id for stream in accepted(peer)] == [0, 2, 4, 6, 8, 10, 12]
    peer.send(ref.stream(6, b"late"), ref.stream(14))
    assert [stream.id for stream in accepted(peer)] == [14]


@pytest.mark.spec("ST-5")
@pytest.mark.parametrize(
    "frame", [ref.stream(3), ref.max_stream_data(3, 5), ref.reset_stream(3, 1, 0), ref.stop_sending(3, 1), ref.stream(HUGE)],
    ids=lambda frame: frame.hex(),
)  # fmt: skip
def test_a_frame_for_our_stream_that_is_not_open_ends_the_connection(frame):
    peer = connected()
    peer.handle.open_stream()  # 1
    peer.told()
    peer.send(ref.stream(1))
    assert peer.handle.is_open
    peer.send(frame)
    assert peer.closed_with() == STREAM_STATE


@pytest.mark.spec("ST-6")
def test_frames_for_a_stream_that_is_forgotten_are_ignored():
    peer = connected()
    peer.send(ref.stream(0, b"all", fin=True))
    (stream,) = accepted(peer)
    stream.read(10)
    stream.finish()
    peer.exchange()
    del stream
    peer.node.say()
    assert peer.handle.stats()["streams"] == 0
    peer.send(ref.stream(0, b"all", fin=True), ref.reset_stream(0, 1, 3), ref.stop_sending(0, 1), ref.max_stream_data(0, HUGE))
    assert peer.handle.is_open and accepted(peer) == [] and peer.handle.stats()["streams"] == 0
    assert peer.told(peer.node.wait(SECOND)) == []


# --- sending ---


@pytest.mark.spec("ST-8", "ST-9")
@pytest.mark.parametrize("size", [0, 1, 1000, 5000])
@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_a_side_is_told_with_its_last_byte_or_behind_it(size, late):
    peer = connected()
    stream = peer.handle.open_stream()
    stream.write(bytes(size))
    frames = peer.exchange() if late else []
    stream.finish()
    assert stream.is_finished and not stream.is_acked and stream.write(b"more") == 0
    frames += peer.exchange()
    assert data_of(frames, stream.id) == (bytes(size), True)
    fins = [frame for frame in frames if frame.fin]
    assert len(fins) == 1 and fins[0].offset + len(fins[0].data) == size
    assert stream.is_acked
    stream.reset(5)  # it is too late
    assert peer.exchange() == [] and stream.is_acked


@pytest.mark.spec("ST-8", "ST-10", "ST-11")
@pytest.mark.parametrize("finish", [False, True])
def test_a_side_that_is_given_up_is_reset_and_sends_nothing_more(finish):
    peer = connected()
    stream = peer.handle.open_stream()
    stream.write(bytes(100_000))
    if finish:
        stream.finish()
    sent = max(frame.offset + len(frame.data) for frame in peer.told())
    assert 0 < sent < 100_000
    lost = peer.received.copy()
    stream.reset(77)
    stream.reset(78)
    # what was sent is lost, and time goes by
    frames = peer.told(peer.node.wait(3 * SECOND))
    assert {(frame.kind, frame.id, frame.value, frame.offset) for frame in frames} == {(ref.RESET_STREAM, stream.id, 77, sent)}
    peer.acknowledge(*peer.received - lost)
    assert peer.told(peer.node.wait(3 * SECOND)) == []
    assert stream.write(b"more") == 0 and not stream.is_finished


@pytest.mark.spec("ST-12")
@pytest.mark.row("S12")
def test_stop_sending_makes_the_sender_give_up_with_the_same_code():
    peer = connected()
    for finish in (False, True):
        stream = peer.handle.open_stream()
        stream.write(bytes(1000))
        if finish:
            stream.finish()
        peer.told()
        peer.send(ref.stop_sending(stream.id, 99))
        (frame,) = peer.told()
        assert (frame.kind, frame.id, frame.value, frame.offset) == (ref.RESET_STREAM, stream.id, 99, 1000)
        assert stream.stop_code == 99 and not stream.can_write
    # everything is acknowledged: there is nothing to give up
    stream = peer.handle.open_stream()
    stream.finish()
    peer.exchange()
    peer.send(ref.stop_sending(stream.id, 99))
    assert peer.told(peer.node.wait(SECOND)) == [] and stream.is_acked


# --- receiving ---


@pytest.mark.spec("ST-14", "ST-15")
@pytest.mark.row("S3")
def test_bytes_are_delivered_in_order_and_once_however_they_come(seed):
    choose = random.Random(seed)
    data = choose.randbytes(20_000)
    cuts = sorted({0, len(data), *choose.sample(range(len(data)), 60)})
    pieces = [(cut, data[cut:end], end == len(data)) for cut, end in itertools.pairwise(cuts)]
    # pieces that overlap, and pieces that come twice
    for _ in range(60):
        start = choose.randrange(len(data))
        end = min(len(data), start + choose.randrange(1, 1000))
        pieces.append((start, data[start:end], False))
    choose.shuffle(pieces)
    peer = connected()
    peer.send(ref.stream(0))
    (stream,) = accepted(peer)
    read = b""
    for offset, piece, fin in pieces:
        peer.send(ref.stream(0, piece[:1000], offset), *[ref.stream(0, piece[1000:], offset + 1000)] * (len(piece) > 1000))
        if fin:
            peer.send(ref.stream(0, b"", offset + len(piece), fin=True))
        if choose.random() < 0.3:
            read += stream.read(choose.randrange(1, 2000)) or b""
        assert read == data[: len(read)]
    while not stream.is_at_end:
        read += stream.read(777)
    assert read == data and stream.read(1) is None


@pytest.mark.spec("ST-16")
@pytest.mark.row("S3")
def test_of_overlapping_bytes_the_first_stay():
    peer = connected()
    peer.send(ref.stream(0, b"BBBB", 4))
    peer.send(ref.stream(0, b"xxxxxxxxxxxx", 2), ref.stream(0, b"yyyyyyyyyyyyyyyy"))
    peer.send(ref.stream(0, b"zzzz"))
    (stream,) = accepted(peer)
    assert stream.read(100) == b"yyxxBBBBxxxxxxyy"


@pytest.mark.spec("ST-17", "ST-18")
@pytest.mark.row("S4")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ref.stream(0, b"12345", fin=True), ref.stream(0, b"1234", fin=True)),
        (ref.stream(0, b"12345", fin=True), ref.stream(0, b"6", 5, fin=True)),
        (ref.stream(0, b"12345", fin=True), ref.reset_stream(0, 1, 4)),
        (ref.stream(0, b"12345", fin=True), ref.reset_stream(0, 1, 6)),
        (ref.stream(0, b"", 5, fin=True), ref.stream(0, b"", 6, fin=True)),
        (ref.reset_stream(0, 1, 5), ref.reset_stream(0, 1, 6)),
        (ref.reset_stream(0, 1, 5), ref.stream(0, b"", 4, fin=True)),
        (ref.stream(0, b"12345", fin=True), ref.stream(0, b"6", 5)),
        (ref.stream(0, b"", 5, fin=True), ref.stream(0, b"56", 4)),
        (ref.stream(0, b"123456"), ref.stream(0, b"12345", fin=True)),
        (ref.stream(0, b"6", 5), ref.reset_stream(0, 1, 5)),
        (ref.reset_stream(0, 1, 5), ref.stream(0, b"6", 5)),
    ],
    ids=str,
)
def test_two_final_sizes_end_the_connection(first, second):
    peer = connected()
    peer.send(first)
    assert peer.handle.is_open
    peer.send(second)
    assert peer.closed_with() == FINAL_SIZE


@pytest.mark.spec("ST-19")
@pytest.mark.row("S2")
def test_pieces_with_gaps_are_bounded():
    peer = connected()
    gaps = [ref.stream(0, b".", 1 + 2 * i) for i in range(1001)]
    for i in range(0, 1000, 100):
        peer.send(*gaps[i : i + 100])
    assert peer.handle.is_open
    peer.send(gaps[1000])
    assert peer.closed_with() == GAPS
    # filling a gap takes nothing
    peer = connected()
    for i in range(0, 1000, 100):
        peer.send(*gaps[i : i + 100])
    peer.send(*[ref.stream(0, b".", 2 * i) for i in range(100)])
    peer.send(gaps[1000])
    assert peer.handle.is_open


def test_an_application_that_reads_no_more_tells_the_peer():
    peer = connected()
    peer.send(ref.stream(0, b"1"), ref.stream(2, b"all", fin=True))
    first, second = accepted(peer)
    first.stop(55)
    second.stop(56)  # its end is known, so there is nothing to stop
    (frame,) = peer.told()
    assert (frame.kind, frame.id, frame.value) == (ref.STOP_SENDING, 0, 55)


@pytest.mark.spec("ST-21")
def test_data_for_a_side_that_is_not_read_are_dropped_and_count_as_consumed():
    peer = connected(connection_window=100_000, stream_window=100_000, max_connection_window=100_000)
    peer.send(ref.stream(0, bytes(1000)))
    (stream,) = accepted(peer)
    stream.stop(1)
    peer.told()
    allowed = []
    for i in range(1, 120):
        peer.send(ref.stream(0, bytes(1000), 1000 * i))
        allowed += [frame.value for frame in peer.told(peer.node.wait(20 * MS)) if frame.kind == ref.F_MAX_DATA]
        assert stream.bytes_readable == 0
        if peer.handle.state != 1:
            break
    # the stream's own limit stays where it is, and that of the connection has moved on
    assert peer.handle.closed()[1] == FLOW_CONTROL and i == 100
    assert allowed and allowed[-1] >= 150_000


@pytest.mark.spec("ST-22")
def test_a_reset_does_not_take_away_what_is_complete():
    peer = connected()
    peer.send(ref.stream(0, b"complete", fin=True), ref.stream(2, b"incomplete"))
    peer.send(ref.reset_stream(0, 1, 8), ref.reset_stream(2, 7, 20))
    complete, incomplete = accepted(peer)
    assert complete.read(100) == b"complete" and complete.is_at_end and complete.reset_code is None
    assert incomplete.read(100) is None and incomplete.reset_code == 7


# --- flow control ---


@pytest.mark.spec("ST-24")
@pytest.mark.row("S9")
def test_a_sender_stops_at_the_limit_of_the_stream():
    peer = Peer(Node()).call(MAX_STREAM_DATA=5000)
    streams = [peer.handle.open_stream() for _ in range(2)]
    for stream in streams:
        stream.write(bytes(20_000))
    frames = peer.exchange()
    assert [len(data_of(frames, stream.id)[0]) for stream in streams] == [5000, 5000]
    peer.send(ref.max_stream_data(streams[0].id, 7001))
    frames += peer.exchange()
    assert [len(data_of(frames, stream.id)[0]) for stream in streams] == [7001, 5000]
    assert peer.node.wait(10 * SECOND) == []


@pytest.mark.spec("ST-25")
def test_a_sender_stops_at_the_limit_of_the_connection():
    peer = Peer(Node()).call(MAX_DATA=9000, MAX_STREAM_DATA=50_000)
    streams = [peer.handle.open_stream() for _ in range(3)]
    for stream in streams:
        stream.write(bytes(20_000))
    frames = peer.exchange()
    assert sum(len(data_of(frames, stream.id)[0]) for stream in streams) == 9000
    peer.send(ref.max_data(10_001))
    frames += peer.exchange()
    assert sum(len(data_of(frames, stream.id)[0]) for stream in streams) == 10_001


@pytest.mark.spec("ST-26", "ST-28")
@pytest.mark.row("S1")
@pytest.mark.parametrize("limit", [100, 16_384])
def test_data_past_the_limit_of_their_stream_end_the_connection(limit):
    window = {"stream_window": limit, "connection_window": 10**6}
    for right, wrong in (
        (ref.stream(0, b"a", limit - 1), ref.stream(0, b"a", limit)),
        (ref.stream(0, b"", limit, fin=True), ref.stream(0, b"", limit + 1, fin=True)),
        (ref.reset_stream(0, 1, limit), ref.reset_stream(0, 1, limit + 1)),
    ):
        peer = connected(**window)
        peer.send(right)
        assert peer.handle.is_open
        peer = connected(**window)
        peer.send(wrong)
        assert peer.closed_with() == FLOW_CONTROL


@pytest.mark.spec("ST-27", "ST-28", "ST-29")
@pytest.mark.row("S1")
def test_data_past_the_limit_of_the_connection_end_it_and_repeated_ones_do_not_count():
    window = {"stream_window": 1000, "connection_window": 2500}
    for last, wrong in (
        (ref.stream(4, b"a", 499), ref.stream(4, b"a", 500)),
        (ref.reset_stream(4, 1, 500), ref.reset_stream(4, 1, 501)),
        (ref.stream(4, b"", 500, fin=True), ref.stream(6, b"a", 500)),
    ):
        peer = connected(**window)
        for _ in range(3):
            peer.send(ref.stream(0, bytes(900), 100), ref.stream(2, bytes(100), 900), ref.stream(0, bytes(50)))
        peer.send(last, ref.stream(2, bytes(900)))
        assert peer.handle.is_open and peer.handle.stats()["data_received"] == 2500
        peer = connected(**window)
        peer.send(ref.stream(0, bytes(900), 100), ref.stream(2, bytes(100), 900))
        peer.send(wrong)
        assert peer.closed_with() == FLOW_CONTROL


def limits_told(peer):
    """Return the limits that the node tells in a second."""
    frames = peer.told(peer.node.wait(SECOND))
    peer.acknowledge()
    return {(frame.kind, frame.id): frame.value for frame in frames}


@pytest.mark.spec("ST-30", "ST-31", "ST-32")
@pytest.mark.row("S6")
def test_limits_are_raised_by_what_is_consumed_in_steps_of_half_a_window():
    peer = connected(stream_window=8000, connection_window=10_000, max_stream_window=8000, max_connection_window=10_000)
    peer.send(ref.stream(0, bytes(1000)), ref.stream(0, b"beyond a gap", 7900))
    (stream,) = accepted(peer)
    assert limits_told(peer) == {}, "nothing is consumed, whatever came"
    for i in range(1, 8):
        peer.send(ref.stream(0, bytes(1000 if i < 7 else 900), 1000 * i))
    assert limits_told(peer) == {}
    assert len(stream.read(3999)) == 3999
    assert limits_told(peer) == {}, "less than half of the window"
    assert len(stream.read(1)) == 1
    assert limits_told(peer) == {(ref.F_MAX_STREAM_DATA, 0): 4000 + 8000}
    assert len(stream.read(1000)) == 1000
    assert limits_told(peer) == {(ref.F_MAX_DATA, 0): 5000 + 10_000}
    assert len(stream.read(2912)) == 2912
    assert limits_told(peer) == {}
    assert peer.handle.stats()["data_allowed"] == 15_000


@pytest.mark.spec("ST-31")
def test_no_limit_is_raised_for_a_stream_whose_end_is_known():
    peer = connected(stream_window=1000)
    peer.send(ref.stream(0, bytes(900), fin=True))
    (stream,) = accepted(peer)
    assert len(stream.read(900)) == 900 and limits_told(peer) == {}


def test_a_window_doubles_while_the_reader_keeps_up():
    peer = connected(stream_window=2000, max_stream_window=16_000, connection_window=10**6)
    peer.send(ref.stream(0))
    (stream,) = accepted(peer)
    sent, windows = 0, [2000]
    for _ in range(6):
        for _ in range(0, windows[-1] // 2, 500):
            peer.send(ref.stream(0, bytes(500), sent))
            sent += 500
        stream.read(windows[-1])
        (frame,) = peer.told(peer.node.wait(20 * MS))
        windows.append(frame.value - sent)
        peer.acknowledge()
    assert windows == [2000, 2000, 4000, 8000, 16_000, 16_000, 16_000]


def eager(peer, steps):
    """Send as much as is allowed, have it read at once, and so on; return what was allowed beyond it at last."""
    sent = peer.handle.stats()["data_received"]
    for _ in range(steps):
        allowed = peer.handle.stats()["data_allowed"]
        while sent < allowed:
            size = min(1000, allowed - sent)
            peer.send(ref.stream(0, bytes(size), sent))
            sent += size
        peer.stream = peer.stream or accepted(peer)[0]
        assert len(peer.stream.read(sent)) > 0, "nobody is left without a window"
        peer.told([said for said in peer.node.wait(10 * MS) if said.to == peer.at])
        peer.acknowledge()
    return peer.handle.stats()["data_allowed"] - sent


@pytest.mark.spec("ST-39")
def test_peers_together_are_allowed_no_more_than_the_node_has_room_for():
    limits = {"stream_window": 10**6, "connection_window": 10_000, "max_connection_window": 40_000, "max_memory": 70_000}
    first = connected(**limits)
    first.node.say()
    second = Peer(first.node, bytes([3]) * 32, at=endpoint("192.0.2.3", 3)).call()
    assert eager(first, 6) == 40_000, "alone it grows as far as it may"
    assert eager(second, 6) == 30_000, "and the other as far as there is room"
    first.node.say()
    third = Peer(first.node, bytes([4]) * 32, at=endpoint("192.0.2.4", 4)).call()
    assert eager(third, 6) == 10_000, "but everybody has a first window"
    second.send(ref.close(0))
    del second.stream, second.handle
    first.node.wait(5 * SECOND)  # until nothing of it can be on its way any more
    assert eager(third, 6) == 30_000, "what one gives back is another's"


@pytest.mark.spec("ST-33")
def test_bytes_of_a_reset_stream_are_consumed_up_to_its_final_size():
    peer = connected(stream_window=10_000, connection_window=20_000, max_connection_window=20_000)
    for i in range(40):
        peer.send(ref.stream(2 * i, bytes(500), 300), ref.reset_stream(2 * i, 1, 4000))
        assert peer.handle.is_open, f"the connection's limit has not moved after stream {i}"
        peer.told(peer.node.wait(10 * MS))
        peer.acknowledge()
    assert peer.handle.stats()["data_received"] == 160_000


# --- numbers of streams ---


@pytest.mark.spec("ST-35")
def test_no_more_streams_are_opened_than_the_peer_allows():
    peer = Peer(Node()).call(MAX_STREAMS=3)
    streams = [peer.handle.open_stream() for _ in range(5)]
    assert [stream is not None for stream in streams] == [True] * 3 + [False] * 2
    for stream in streams[:3]:
        stream.finish()
    peer.send(*[ref.stream(stream.id, fin=True) for stream in streams[:3]])
    peer.exchange()
    assert peer.handle.open_stream() is None, "that they are over is no permission"
    peer.send(ref.max_streams(4))
    assert peer.handle.open_stream().id == 7 and peer.handle.open_stream() is None


@pytest.mark.spec("ST-36")
@pytest.mark.row("S6")
@pytest.mark.parametrize("stream_id", [20, 22, 2**32, HUGE - 1])
def test_a_stream_beyond_the_limit_ends_the_connection(stream_id):
    for frame in (
        ref.stream(stream_id), ref.max_stream_data(stream_id, 1),
        ref.reset_stream(stream_id, 1, 0), ref.stop_sending(stream_id, 1),
    ):  # fmt: skip
        peer = connected(max_streams=10)
        peer.send(ref.stream(18))
        assert len(accepted(peer)) == 10
        peer.send(frame)
        assert peer.closed_with() == STREAM_LIMIT and accepted(peer) == []


@pytest.mark.spec("ST-37", "ST-38")
@pytest.mark.row("S7")
def test_the_limit_of_streams_rises_as_streams_are_over_and_let_go_of():
    peer = connected(max_streams=10)
    peer.send(ref.stream(18))
    streams = accepted(peer)
    peer.send(*[ref.stream(2 * i, fin=True) for i in range(10)])
    for stream in streams:
        stream.finish()
        stream.read(1)
    assert all(frame.kind == ref.STREAM for frame in peer.exchange()), "the application holds all of them"
    del stream, streams[:4]
    assert peer.exchange() == [], "less than half"
    del streams[:1]
    (frame,) = peer.exchange()
    assert (frame.kind, frame.value) == (ref.F_MAX_STREAMS, 15)
    peer.send(ref.stream(28))
    assert len(accepted(peer)) == 5 and peer.handle.is_open
    peer.send(ref.stream(30))
    assert peer.closed_with() == STREAM_LIMIT
