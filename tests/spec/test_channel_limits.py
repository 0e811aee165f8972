"""Chapter 16 of the specification: how much channels send and keep, and what is given up."""

import pytest

from tests.spec import reference as ref
from tests.spec.channels import ONCE, RELIABLE, UNORDERED, lose, of_kind, opened, taken
from tests.spec.peer import MS, SECOND, Node, Peer
from tests.spec.reference import (
    MESSAGE_LOST,
    dropped,
    message,
    messages,
)
from tests.spec.test_frames import connected

# --- room ---


@pytest.mark.parametrize("size", [100, 4000, 5000, 9000, 100_000])
def test_who_is_told_that_there_is_room_has_it_for_a_message_of_any_size(size):
    """Otherwise it would ask again and again, and nothing else would run meanwhile."""
    peer = Peer(Node(send_buffer_bytes=10_000, max_send_buffer_bytes=10_000)).call(MAX_STREAM_DATA=0)
    channel = peer.handle.open_channel(RELIABLE)
    peer.exchange()
    sent = limit = refused = 0
    while sent < 10:
        if channel.send(bytes(size)) == 0:
            sent += 1
            assert channel.stats()["queued_bytes"] <= max(10_000, 5_000 + 8 + size)
            continue
        refused += 1
        assert not channel.want_writable(), "it was refused, so there is nothing to be told"
        while not channel.want_writable():
            limit += 900  # a few bytes go at a time, so that some still wait when there is room
            peer.send(ref.numbers(ref.CHANNEL_MAX_DATA, channel.id, limit))
            peer.exchange(SECOND)
        assert channel.send(bytes(size)) == 0
        sent += 1
    assert (refused > 0) == (size > 1000)


# --- giving up ---


@pytest.mark.spec("CH-17", "CH-20", "CH-16")
@pytest.mark.parametrize("size", [10, 5000])
def test_what_is_not_repeated_is_given_up_when_it_is_lost(size):
    peer = connected()
    channel = peer.handle.open_channel(ONCE)
    peer.exchange()
    channel.send(bytes(size))
    lose(peer)
    told = peer.exchange()
    assert of_kind(ref.MESSAGES, told) == []
    (frame,) = of_kind(ref.DROPPED, told)
    assert (frame.id, frame.offset, frame.within, frame.size, frame.value, frame.count) == (channel.id, 0, 0, size + 8, 0, 1)
    assert channel.dropped()[0] == 1 and channel.stats()["queued"] == 0
    channel.send(b"next")
    (frame,) = of_kind(ref.MESSAGES, peer.exchange())
    assert (frame.offset, frame.data) == (size + 8, message(1, b"next"))


@pytest.mark.spec("CH-17")
def test_a_probe_gives_nothing_up():
    peer = connected()
    channel = peer.handle.open_channel(ONCE)
    peer.exchange()
    channel.send(b"patience")
    peer.node.say()
    told = peer.told(peer.node.wait(3 * SECOND))
    assert of_kind(ref.DROPPED, told) == [] and channel.dropped()[0] == 0


@pytest.mark.spec("CH-20")
def test_a_lost_dropped_frame_is_repeated():
    peer = connected()
    channel = peer.handle.open_channel((3, 3, 10_000, 0, 0))
    peer.exchange()
    channel.send(b"late")
    peer.node.say()
    first = of_kind(ref.DROPPED, peer.told(peer.node.wait(15 * MS)))
    lose(peer)
    again = of_kind(ref.DROPPED, peer.exchange())
    assert first and again and {(frame.value, frame.size) for frame in first + again} == {(0, 12)}


@pytest.mark.spec("CH-7", "CH-20", "CH-39")
def test_the_acknowledgements_of_a_piece_that_was_told_twice_settle_no_other_piece():
    """The one that tells of the rest is lost; the receiver waited for that for ever when it was not told again."""
    peer = Peer(Node()).call(MAX_DATA=1000)
    channel = peer.handle.open_channel((3, 3, 50_000, 0, 0))
    channel.send(bytes(2000))
    channel.finish()
    peer.packets()
    peer.acknowledge()
    first = dropped_by(peer, 60 * MS)
    probes = dropped_by(peer, 90 * MS)
    assert probes and {piece for _, piece in first + probes} == {(0, 1000, 0)}
    peer.send(ref.max_data(10_000))
    ((_, rest),) = dropped_by(peer, 0)
    peer.acknowledge(*(counter for counter, _ in first + probes))
    assert rest == (1000, 1008, 1) and not channel.has_acked()
    lose(peer)
    assert not channel.has_acked() and [piece for _, piece in dropped_by(peer, 0)] == [rest]
    peer.acknowledge()
    peer.exchange()
    assert channel.has_acked() and channel.stats()["queued"] == 0


@pytest.mark.spec("CH-20", "CH-36")
def test_the_rest_of_what_was_given_up_is_told_in_a_packet_that_has_nothing_else_to_say():
    """Limits let it while the window was full, and the acknowledgement of that went by itself: then nothing was told."""
    for n in range(1, 100):
        peer = Peer(Node()).call(MAX_DATA=1000)
        channel = peer.handle.open_channel((3, 3, 50_000, 0, 0))
        channel.send(bytes(2000))
        peer.packets()
        peer.acknowledge()
        assert [piece for _, piece in dropped_by(peer, 60 * MS)] == [(0, 1000, 0)]
        peer.acknowledge()
        for _ in range(n):
            peer.handle.send_datagram(bytes(1000))
        peer.packets()
        peer.send(ref.max_data(10_000))
        peer.send(ref.ping())
        if not dropped_by(peer, 0):
            break
    peer.acknowledge()
    assert [piece for _, piece in dropped_by(peer, 20 * MS)] == [(1000, 1008, 1)] and n > 1
    peer.acknowledge()
    assert channel.stats()["queued"] == 0


def dropped_by(peer, ns):
    """Let time pass, and return the counters of packets, and what the DROPPED frame in each tells of which bytes."""
    return [
        (packet.counter, (frame.within, frame.size, frame.count))
        for packet in peer.packets(peer.node.wait(ns))
        for frame in of_kind(ref.DROPPED, ref.read_frames(packet.payload))
    ]


@pytest.mark.spec("CH-18", "CH-19", "CH-20")
def test_what_is_late_is_given_up_and_takes_no_room_if_it_was_not_begun():
    peer = Peer(Node()).call(MAX_DATA=1000)
    channel = peer.handle.open_channel((3, 3, 50_000, 0, 0))
    channel.send(bytes(500))
    channel.send(bytes(1000))  # more than the connection lets go: it is begun all the same, as the only one
    channel.send(b"never begun")
    sent = of_kind(ref.MESSAGES, peer.told())
    peer.acknowledge()
    assert sum(len(frame.data) for frame in sent) == 1000
    told = peer.told(peer.node.wait(60 * MS))
    peer.acknowledge()
    pieces = of_kind(ref.DROPPED, told)
    assert [(frame.value, frame.offset, frame.size, frame.count) for frame in pieces] == [(1, 508, 492, 0), (2, 0, 0, 1)]
    assert of_kind(ref.MESSAGES, told) == [] and channel.stats()["late"] == 2
    peer.send(ref.max_data(10_000))
    (rest,) = of_kind(ref.DROPPED, peer.exchange())
    assert (rest.value, rest.offset, rest.within, rest.size, rest.count) == (1, 1000, 492, 516, 1)
    channel.set(RELIABLE)
    channel.send(b"next")
    (frame,) = of_kind(ref.MESSAGES, peer.exchange())
    assert (frame.offset, frame.data) == (1516, message(3, b"next"))


@pytest.mark.spec("CH-21", "CH-23", "CH-14")
def test_nothing_is_waited_for_that_was_given_up():
    peer = connected()
    channel = opened(peer, messages(0, message(2, b"behind"), 108))
    assert taken(channel) == []
    peer.send(dropped(0, 0, 0, 50, 0, 0), dropped(0, 50, 50, 58, 0), dropped(0, 0, 0, 0, 1))
    peer.send(dropped(0, 0, 0, 108, 0), dropped(0, 0, 0, 0, 1))
    assert channel.recv_many(9, True) == [(2, b"behind")]
    assert channel.dropped() == (0, 2, ((0, 2),)) and channel.stats()["waiting_bytes"] == 0


@pytest.mark.spec("CH-23")
def test_each_message_given_up_counts_once_however_it_is_told():
    peer = connected()
    channel = opened(peer)
    peer.send(dropped(0, 0, 0, 0, 5, 3), dropped(0, 0, 0, 0, 4, 3), dropped(0, 0, 0, 0, 1, 9), dropped(0, 0, 0, 0, 20, 2))
    assert channel.dropped() == (0, 11, ((1, 10), (20, 22)))


@pytest.mark.spec("CH-22")
@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("had", [0, 8, 15, 19])
def test_what_comes_of_a_message_after_it_was_given_up_is_ignored(is_ordered, had):
    """However much of it there was, and whether all of it comes or the part that was missing."""
    peer = connected()
    channel = opened(peer)
    late = message(0, b"never whole.", ordered=is_ordered)
    first = [messages(0, late[:had])] if had else []
    peer.send(*first, dropped(0, 0, 0, 20, 0), messages(0, late), messages(0, late[8:], 8, 8))
    assert taken(channel) == [] and channel.dropped() == (0, 1, ((0, 1),))
    peer.send(messages(0, message(1, b"next", ordered=is_ordered), 20))
    assert channel.recv_many(9, True) == [(1, b"next")] and channel.stats()["waiting_bytes"] == 0


@pytest.mark.spec("CH-37", "CH-13")
@pytest.mark.parametrize("is_ordered", [True, False])
def test_what_was_whole_before_it_was_given_up_is_delivered(is_ordered):
    peer = connected()
    channel = opened(peer)
    peer.send(messages(0, message(1, b"whole", ordered=is_ordered), 20), dropped(0, 20, 0, 13, 1), dropped(0, 0, 0, 20, 0))
    assert channel.recv_many(9, True) == [(1, b"whole")] and channel.dropped() == (0, 1, ((0, 1),))
    peer.send(dropped(0, 20, 0, 13, 1))  # nor is it one of those that were given up when it has been read
    assert taken(channel) == [] and channel.dropped() == (0, 1, ((0, 1),))


@pytest.mark.spec("CH-21", "CH-29")
def test_what_was_given_up_counts_against_the_limits():
    peer = Peer(Node(stream_window=1000, connection_window=2000)).call()
    opened(peer)
    peer.send(dropped(0, 0, 0, 1000, 0))
    assert peer.handle.is_open and peer.handle.stats()["data_received"] == 1000
    peer.exchange()
    peer.send(dropped(0, 1000, 0, 2001, 1))
    assert peer.closed_with() == ref.FLOW_CONTROL


@pytest.mark.spec("CH-25")
def test_the_first_loss_closes_a_channel_that_is_to_close_then():
    peer = connected()
    channel = peer.handle.open_channel((4, 3, 0, 0, 0))
    peer.exchange()
    channel.send(b"precious")
    lose(peer)
    frames = peer.exchange()
    (reset,), (stop,) = of_kind(ref.CHANNEL_RESET, frames), of_kind(ref.CHANNEL_STOP, frames)
    assert reset.value == stop.value == channel.own_reset_code == MESSAGE_LOST and channel.send(b"more") < 0


# --- flow control ---


@pytest.mark.spec("CH-30", "CH-29")
def test_what_is_read_out_of_order_is_consumed_with_what_is_before_it():
    peer = Peer(Node(stream_window=1000, connection_window=1000)).call()
    channel = opened(peer, messages(0, message(1, bytes(600), ordered=False), 200))
    assert len(taken(channel)) == 1
    assert of_kind(ref.CHANNEL_MAX_DATA, peer.exchange()) == []
    peer.send(messages(0, message(0, bytes(192))))
    assert len(taken(channel)) == 1
    assert {frame.kind: frame.value for frame in peer.exchange()} == {ref.CHANNEL_MAX_DATA: 1808, ref.F_MAX_DATA: 1808}


@pytest.mark.spec("CH-31")
def test_a_message_larger_than_the_windows_is_let_in_whole():
    peer = Peer(Node(stream_window=1000, connection_window=1000, max_connection_window=100_000)).call()
    whole = message(0, bytes(range(200)) * 250)
    channel = opened(peer)
    peer.send(messages(0, whole[:500]))
    limits = {frame.kind: frame.value for frame in peer.exchange()}
    assert limits[ref.CHANNEL_MAX_DATA] >= len(whole) and limits[ref.F_MAX_DATA] >= len(whole)
    for at in range(500, len(whole), 1000):
        peer.send(messages(0, whole[at : at + 1000], at, at))
    assert taken(channel) == [whole[8:]]


@pytest.mark.spec("CH-33")
def test_of_messages_that_are_larger_than_the_limit_one_is_finished_before_the_next():
    """Though channels take turns and, when the limit is raised, there is room."""
    peer = Peer(Node()).call(MAX_DATA=10_000)
    channels = [peer.handle.open_channel(UNORDERED) for _ in range(3)]
    for channel in channels:
        channel.send(bytes(60_000))
    (begun,) = {frame.id for frame in of_kind(ref.MESSAGES, peer.exchange())}
    peer.send(ref.max_data(65_000))
    frames = of_kind(ref.MESSAGES, peer.exchange())
    assert sum(len(frame.data) for frame in frames if frame.id == begun) == 50_008
    order = [frame.id == begun for frame in frames]
    assert order == sorted(order, reverse=True) and len({frame.id for frame in frames}) == 2


@pytest.mark.spec("CH-33")
def test_of_messages_that_are_larger_than_the_limit_one_is_begun():
    peer = Peer(Node()).call(MAX_DATA=10_000, MAX_STREAM_DATA=12_000)
    channels = [peer.handle.open_channel(UNORDERED) for _ in range(3)]
    for channel in channels:
        channel.send(bytes(20_000))
    begun = {frame.id for frame in of_kind(ref.MESSAGES, peer.exchange())}
    assert len(begun) == 1
    peer.send(ref.max_data(25_000))
    frames = of_kind(ref.MESSAGES, peer.exchange())
    assert {frame.id for frame in frames} == begun and sum(len(frame.data) for frame in frames) == 2000
    peer.send(ref.numbers(ref.CHANNEL_MAX_DATA, *begun, 1 << 20))
    frames = of_kind(ref.MESSAGES, peer.exchange())
    assert sum(len(frame.data) for frame in frames if frame.id in begun) == 8008
    assert len({frame.id for frame in frames}) == 2, "now another one has its turn"


@pytest.mark.spec("CH-38", "CH-33")
@pytest.mark.parametrize("what", ["stream", "small messages", "large message"])
def test_the_rest_of_a_message_that_was_begun_has_its_share_of_the_limit(what):
    peer = Peer(Node()).call(MAX_DATA=10_000, MAX_STREAM_DATA=1000)
    channel = peer.handle.open_channel(RELIABLE)
    channel.send(bytes(8000))
    begun = sum(len(frame.data) for frame in of_kind(ref.MESSAGES, peer.exchange()))
    assert begun == 1000, "as far as the channel's own limit goes"
    if what == "stream":
        other = peer.handle.open_stream()
        other.write(bytes(20_000))
        peer.send(ref.max_stream_data(other.id, 1 << 20))
    else:
        other = peer.handle.open_channel(UNORDERED)
        for _ in range(100 if what == "small messages" else 1):
            other.send(bytes(192 if what == "small messages" else 20_000))
        peer.send(ref.numbers(ref.CHANNEL_MAX_DATA, other.id, 1 << 20))
    others = [frame for frame in peer.exchange() if frame.kind in (ref.STREAM, ref.MESSAGES)]
    assert sum(len(frame.data) for frame in others) == 10_000 - 8008
    assert {frame.id for frame in others} == {other.id}
    peer.send(ref.numbers(ref.CHANNEL_MAX_DATA, channel.id, 1 << 20))
    assert sum(len(frame.data) for frame in of_kind(ref.MESSAGES, peer.exchange()) if frame.id == channel.id) == 7008
    assert peer.handle.stats()["data_sent"] == 10_000
