"""Chapter 16 of the specification: channels."""

import random

import pytest

from tests.spec import reference as ref
from tests.spec.channels import ONCE, RELIABLE, UNORDERED, accepted, lose, of_kind, opened, taken
from tests.spec.peer import MS, SECOND, Node, Peer
from tests.spec.reference import (
    FRAME_ENCODING,
    MESSAGE_SIZE,
    ORDERED,
    PROTOCOL_ERROR,
    RESEND,
    STREAM_LIMIT,
    STREAM_STATE,
    channel_frame,
    dropped,
    message,
    messages,
)
from tests.spec.test_frames import connected

# --- numbers and states ---


@pytest.mark.spec("CH-2", "CH-3", "CH-1", "CH-26")
@pytest.mark.parametrize(("role", "first"), [("call", 1), ("be_called", 0)])
def test_channels_are_opened_in_order_and_announced_at_once(role, first):
    peer = getattr(Peer(Node()), role)()
    channels = []
    for n in range(3):
        channels.append(peer.handle.open_channel((5, n, 700, 0, 0)))
        (frame,) = peer.told()
        assert (frame.kind, frame.id, frame.value, frame.capabilities) == (ref.CHANNEL, first + 2 * n, 0, (5, n, 700, 0, 0))
    stream = peer.handle.open_stream()
    assert [channel.id for channel in channels] == [first, first + 2, first + 4] and stream.id == first


@pytest.mark.spec("CH-3")
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_lost_announcement_is_repeated_even_for_a_channel_that_is_over(is_reset):
    peer = connected()
    channel = peer.handle.open_channel(RELIABLE)
    peer.node.say()
    if is_reset:
        channel.reset(1)
        channel.stop(1)
        peer.send(ref.numbers(ref.CHANNEL_RESET, channel.id, 1, 0))
    del channel
    again = of_kind(ref.CHANNEL, peer.told(peer.node.wait(SECOND)))
    assert again and {frame.id for frame in again} == {1}


@pytest.mark.spec("CH-3")
def test_an_announcement_is_repeated_as_soon_as_it_is_known_to_be_lost():
    peer = connected()
    channel = peer.handle.open_channel(RELIABLE)
    lose(peer)
    assert [frame.id for frame in of_kind(ref.CHANNEL, peer.told())] == [channel.id]


@pytest.mark.spec("CH-4", "CH-2")
def test_a_channel_is_handed_over_when_it_is_known_and_in_order():
    peer = connected()
    peer.send(channel_frame(4))
    assert accepted(peer) == []
    peer.send(messages(0, message(0, b"early")))
    assert accepted(peer) == []
    peer.send(channel_frame(0))
    (first,) = accepted(peer)
    assert first.id == 0 and taken(first) == [b"early"]
    peer.send(channel_frame(2))
    assert [channel.id for channel in accepted(peer)] == [2, 4]


@pytest.mark.spec("CH-5")
@pytest.mark.parametrize(
    ("frame", "code"),
    [(channel_frame(6), STREAM_LIMIT), (messages(2**60, b""), STREAM_LIMIT), (channel_frame(1), STREAM_STATE),
     (ref.numbers(ref.CHANNEL_STOP, 3, 1), STREAM_STATE)],
    ids=["beyond", "far beyond", "ours", "ours stopped"],
)  # fmt: skip
def test_a_frame_for_a_channel_that_cannot_be_ends_the_connection(frame, code):
    peer = Peer(Node(max_channels=3)).call()
    peer.send(channel_frame(4))
    assert peer.handle.is_open
    peer.send(frame)
    assert peer.closed_with() == code


@pytest.mark.spec("CH-5")
def test_no_more_channels_are_opened_than_the_peer_allows():
    peer = Peer(Node()).call(MAX_CHANNELS=2)
    channels = [peer.handle.open_channel(RELIABLE) for _ in range(3)]
    assert channels[1] is not None and channels[2] is None
    peer.send(ref.numbers(ref.F_MAX_CHANNELS, 3))
    assert peer.handle.open_channel(RELIABLE).id == 5


@pytest.mark.spec("CH-6")
def test_the_limit_of_channels_is_raised_when_half_are_over():
    peer = Peer(Node(max_channels=4)).call()
    peer.send(*(channel_frame(2 * n) for n in range(4)))
    channels = accepted(peer)
    peer.exchange()
    for n in range(2):
        peer.send(messages(2 * n, b"", fin=True))
        channels[n].finish()
        peer.exchange()
    assert of_kind(ref.F_MAX_CHANNELS, peer.exchange()) == []
    del channels[:2]
    (frame,) = of_kind(ref.F_MAX_CHANNELS, peer.exchange())
    assert frame.value == 6


@pytest.mark.spec("CH-7")
def test_a_channel_ends_as_a_stream_does():
    peer = connected()
    channel = peer.handle.open_channel(RELIABLE)
    assert channel.send(b"last") == 0
    channel.finish()
    (frame,) = of_kind(ref.MESSAGES, peer.exchange())
    assert frame.fin and frame.data == message(0, b"last") and channel.has_acked()
    peer.send(ref.numbers(ref.CHANNEL_RESET, channel.id, 7, 0))
    assert channel.reading() == 2 and channel.reset_code == 7
    other = peer.handle.open_channel(RELIABLE)
    peer.exchange()
    peer.send(ref.numbers(ref.CHANNEL_STOP, other.id, 9))
    (frame,) = of_kind(ref.CHANNEL_RESET, peer.exchange())
    assert (frame.id, frame.value, frame.offset) == (other.id, 9, 0) and other.stop_code == 9


@pytest.mark.spec("CH-7")
def test_nothing_is_sent_beyond_a_channels_limit_until_it_is_raised():
    peer = Peer(Node()).call(MAX_STREAM_DATA=100)
    channel = peer.handle.open_channel(RELIABLE)
    channel.send(bytes(200))
    assert sum(len(frame.data) for frame in of_kind(ref.MESSAGES, peer.exchange())) == 100
    peer.send(ref.numbers(ref.CHANNEL_MAX_DATA, channel.id, 1000))
    assert sum(len(frame.data) for frame in of_kind(ref.MESSAGES, peer.exchange())) == 108


# --- messages ---


@pytest.mark.spec("CH-8", "CH-9")
@pytest.mark.parametrize("capabilities", [RELIABLE, UNORDERED, ONCE, (0, 3, 0, 0, 0)])
def test_messages_are_written_behind_headers_and_frames_never_cut_one(capabilities):
    peer = connected()
    chance = random.Random(1)
    sent = [chance.randbytes(size) for size in (0, 5, 3000, 0, 1100, 1, 40, 1170, 12_000, 7)]
    channel = peer.handle.open_channel(capabilities)
    for each in sent:
        assert channel.send(each) == 0
    stream = b"".join(message(n, each, ordered=bool(capabilities[0] & ORDERED)) for n, each in enumerate(sent))
    starts = [0]
    for each in sent:
        starts.append(starts[-1] + 8 + len(each))
    got = bytearray(len(stream))
    for frame in of_kind(ref.MESSAGES, peer.exchange()):
        end = frame.offset + len(frame.data)
        got[frame.offset : end] = frame.data
        begin = max(start for start in starts if start <= frame.offset)
        assert frame.within == frame.offset - begin and not 0 < frame.within < 8
        assert not any(start < end < start + 8 for start in starts)
        if frame.within:
            assert end <= min(start for start in starts if start > begin)
    assert got == stream


@pytest.mark.spec("CH-16")
def test_what_may_be_lost_is_not_cut_if_it_fits_in_a_packet():
    peer = connected()
    channel = peer.handle.open_channel(ONCE)
    for _ in range(20):
        channel.send(bytes(700))
    frames = of_kind(ref.MESSAGES, peer.exchange())
    assert len(frames) == 20 and {len(frame.data) for frame in frames} == {708}


@pytest.mark.spec("CH-10", "CH-26", "CH-24")
@pytest.mark.parametrize(
    "frame",
    [
        messages(0, bytes(7)), messages(0, message(0, b"one") + bytes(3)), messages(0, b"x", 8, 4), messages(0, b"x", 8, 9),
        messages(0, b"\x40" + bytes(7)), messages(0, b"\x20" + bytes(7)), messages(0, message(0, b"") + b"\x40" + bytes(7)),
        channel_frame(0, flags=8), channel_frame(0, priority=8), channel_frame(0, fec=(65, 1)), channel_frame(0, fec=(1, 65)),
        dropped(0, 0, 0, 0, 5, 0), dropped(0, 1, 0, 0, 5), dropped(0, 8, 8, 0, 5), dropped(0, 0, 0, 7, 5),
        dropped(0, 0, 0, 8, 5, 2), dropped(0, 16, 7, 8, 5), dropped(0, 8, 9, 8, 5),
    ],
    ids=lambda frame: frame.hex(),
)  # fmt: skip
def test_a_frame_that_cannot_be_ends_the_connection(frame):
    peer = connected()
    opened(peer)
    peer.send(frame)
    assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("CH-11")
def test_a_message_that_is_too_large_ends_the_connection():
    peer = Peer(Node(max_message=1000)).call(MAX_MESSAGE=500)
    channel = opened(peer)
    assert channel.send(bytes(501)) < 0 and channel.send(bytes(500)) == 0
    peer.send(messages(0, message(0, bytes(1000))))
    assert len(taken(channel)) == 1 and peer.handle.is_open
    peer.send(messages(0, message(1, bytes(1001))[:8], 1008))
    peer.node.now_ns += MS
    assert [frame.value for frame in peer.frames() if frame.kind == ref.CLOSE] == [MESSAGE_SIZE]


@pytest.mark.spec("CH-12")
def test_a_part_that_reaches_behind_its_message_ends_the_connection():
    peer = connected()
    opened(peer, messages(0, message(0, bytes(100))[:50]))
    peer.send(messages(0, bytes(58), 50, 50))
    assert peer.handle.is_open
    peer.send(messages(0, bytes(59), 50, 50))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.spec("CH-13")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_messages_are_delivered_once_whatever_comes_twice_or_in_another_order(ordered, seed):
    peer = connected()
    chance = random.Random(seed)
    channel = opened(peer)
    sent = [chance.randbytes(chance.choice((0, 1, 30, 200))) for _ in range(30)]
    frames, at = [], 0
    for n, each in enumerate(sent):
        whole = message(n, each, ordered=ordered)
        cut = len(whole) if len(whole) < 20 else chance.randrange(8, len(whole))
        frames.append(messages(0, whole[:cut], at))
        if cut < len(whole):
            frames.append(messages(0, whole[cut:], at + cut, cut))
        at += len(whole)
    frames += frames
    chance.shuffle(frames)
    got = []
    for frame in frames:
        peer.send(frame)
        got += channel.recv_many(100, True)
    assert sorted(got) == list(enumerate(sent)) and (not ordered or got == sorted(got))


@pytest.mark.spec("CH-13")
def test_a_message_that_comes_again_before_it_is_taken_is_delivered_once():
    peer = connected()
    frame = messages(0, message(1, b"it", ordered=False), 20)
    channel = opened(peer, frame)
    peer.send(frame, frame)
    assert channel.recv_many(9, True) == [(1, b"it")]


@pytest.mark.spec("CH-13")
def test_bytes_that_came_first_stay():
    peer = connected()
    channel = opened(peer, messages(0, message(0, b"first")[:10]))
    peer.send(messages(0, message(0, b"other")), messages(0, b"rst", 10, 10))
    assert taken(channel) == [b"fiher"]


@pytest.mark.spec("CH-14", "CH-15")
def test_ordered_messages_wait_for_all_before_them_and_others_for_nothing():
    peer = connected()
    whole = [message(0, b"a"), message(1, b"b", ordered=False), message(2, b"c"), message(3, b"d", ordered=False)]
    channel = opened(peer)
    at = [0, 9, 18, 27]
    peer.send(messages(0, whole[3], at[3]))
    assert taken(channel) == [b"d"]
    peer.send(messages(0, whole[2], at[2]), messages(0, whole[1], at[1]))
    assert taken(channel) == [b"b"]
    peer.send(messages(0, whole[0]))
    assert channel.recv_many(9, True) == [(0, b"a"), (2, b"c")]
    assert channel.stats()["waiting_bytes"] == 0


# --- capabilities ---


@pytest.mark.spec("CH-27", "CH-28")
def test_capabilities_change_while_a_channel_is_open():
    peer = connected()
    channel = opened(peer)
    assert channel.capabilities == RELIABLE
    peer.send(channel_frame(0, 2, flags=1), channel_frame(0, 1, flags=7), channel_frame(0, 2, flags=5))
    assert channel.peer_capabilities == (1, 3, 0, 0, 0) == channel.capabilities
    channel.set((2, 0, 9, 0, 0))
    (frame,) = peer.told()
    assert (frame.kind, frame.id, frame.value, frame.capabilities) == (ref.CHANNEL, 0, 1, (2, 0, 9, 0, 0))
    peer.send(channel_frame(0, 3, flags=0))
    assert channel.capabilities == (2, 0, 9, 0, 0) and channel.peer_capabilities == (0, 3, 0, 0, 0)


# --- priority ---


@pytest.mark.spec("CH-34")
def test_the_most_urgent_goes_first():
    peer = connected()
    order = [3, 0, 7, 5, 1]
    channels = {peer.handle.open_channel((3, urgency, 0, 0, 0)).id: urgency for urgency in order}
    handles = [peer.handle.open_channel((3, urgency, 0, 0, 0)) for urgency in order]
    peer.exchange()
    for handle in handles:
        handle.send(bytes(6000))
    stream = peer.handle.open_stream()
    stream.priority = 6
    stream.write(bytes(6000))
    classes = []
    for frame in peer.exchange():
        if frame.kind == ref.MESSAGES:
            classes.append(order[(frame.id - handles[0].id) // 2])
        elif frame.kind == ref.STREAM and frame.offset:
            classes.append(6)
    assert channels and classes == sorted(classes) and set(classes) == {*order, 6}


@pytest.mark.spec("CH-35")
def test_channels_of_one_class_take_turns():
    peer = connected()
    channels = [peer.handle.open_channel(UNORDERED) for _ in range(4)]
    peer.exchange()
    for channel in channels:
        channel.send(bytes(200_000))
    got = []
    frames = [frame.id for frame in of_kind(ref.MESSAGES, peer.exchange())]
    for id_ in frames:
        if not got or got[-1] != id_:
            got.append(id_)
    assert len(got) > 12 and set(got[:4]) == {channel.id for channel in channels}


@pytest.mark.spec("CH-36")
def test_what_others_wait_for_goes_before_urgent_data():
    peer = Peer(Node(stream_window=1000)).call()
    peer.send(ref.stream(0, bytes(900)))
    stream = peer.handle.accept_stream()
    stream.priority = 7
    urgent = peer.handle.open_channel((3, 0, 0, 0, 0))
    peer.exchange()
    urgent.send(bytes(100_000))
    stream.read(900)
    kinds = [frame.kind for frame in peer.frames() if frame.kind in (ref.MESSAGES, ref.F_MAX_STREAM_DATA)]
    assert kinds[0] == ref.F_MAX_STREAM_DATA and ref.MESSAGES in kinds


@pytest.mark.spec("CH-23")
def test_a_message_that_was_delivered_does_not_count_as_given_up():
    peer = connected()
    channel = opened(peer)
    peer.send(messages(0, message(1, b"here", ordered=False), 12))
    assert taken(channel) == [b"here"]
    peer.send(dropped(0, 12, 0, 12, 1))
    assert channel.dropped()[1] == 0
    peer.send(messages(0, message(0, b"late", ordered=False), 0))
    assert taken(channel) == [b"late"] and peer.handle.is_open


@pytest.mark.spec("CH-28")
def test_capabilities_hold_for_messages_sent_from_then_on():
    peer = connected()
    channel = peer.handle.open_channel(RELIABLE)
    channel.send(b"ordered")
    channel.set(UNORDERED)
    channel.send(b"not")
    data = b"".join(frame.data for frame in of_kind(ref.MESSAGES, peer.exchange()))
    assert data == message(0, b"ordered") + message(1, b"not", ordered=False)
    assert RESEND | ORDERED == 3
