"""Channels of a peer that says what it may not, or in an order that no honest one would: chapter 16 from the bad side."""

from itertools import permutations

import pytest

from interpeer._core.channel_handle import END
from tests.spec import reference as ref
from tests.spec.channels import of_kind, opened, taken
from tests.spec.peer import Node, Peer
from tests.spec.reference import FINAL_SIZE, FLOW_CONTROL, GAPS, channel_frame, dropped, message, messages
from tests.spec.test_frames import connected

STOP = 9


@pytest.mark.spec("CH-7", "CH-20")
def test_what_is_dropped_behind_the_end_ends_the_connection():
    peer = connected()
    opened(peer, messages(0, message(0, b"abc"), fin=True))
    peer.send(dropped(0, 11, 0, 8, 1))
    assert peer.closed_with() == FINAL_SIZE


@pytest.mark.spec("CH-7")
def test_a_reset_with_another_size_ends_the_connection():
    peer = connected()
    opened(peer, messages(0, message(0, b"abc"), fin=True))
    peer.send(ref.numbers(ref.CHANNEL_RESET, 0, 1, 12))
    assert peer.closed_with() == FINAL_SIZE


@pytest.mark.spec("CH-21", "CH-29")
@pytest.mark.parametrize("limits", [{"connection_window": 2000}, {"stream_window": 2000}], ids=["connection", "channel"])
def test_what_is_dropped_counts_against_the_limits(limits):
    peer = Peer(Node(**limits)).call()
    opened(peer, dropped(0, 0, 0, 2000, 0))
    assert peer.handle.is_open
    peer.send(dropped(0, 2000, 0, 2100, 1))
    assert peer.closed_with() == FLOW_CONTROL


@pytest.mark.spec("CH-7", "CH-21")
def test_what_comes_for_a_channel_that_is_not_read_any_more_is_credited_at_once():
    peer = Peer(Node(connection_window=2000)).call()
    channel = opened(peer, messages(0, message(0, bytes(100))[:50]))
    channel.stop(STOP)
    peer.exchange()
    peer.send(messages(0, message(0, bytes(100))[50:], 50, 50), dropped(0, 108, 0, 1200, 1))
    assert [frame.value for frame in of_kind(ref.F_MAX_DATA, peer.exchange())] == [1308 + 2000]
    assert taken(channel) == [] and channel.stats()["waiting_bytes"] == 0


@pytest.mark.spec("CH-20", "CH-21", "CH-23")
@pytest.mark.parametrize("head_comes", ["before", "after", "in two pieces", "never"])
def test_the_end_of_a_message_may_be_dropped_before_anything_is_known_of_its_head(head_comes):
    """Packets overtake each other: reading waited for ever when the head came between the two DROPPED frames."""
    peer = Peer(Node(connection_window=240)).call()
    whole = message(0, bytes(100))
    channel = opened(peer, messages(0, whole[:50])) if head_comes == "before" else opened(peer)
    peer.send(dropped(0, 50, 50, 58, 0), messages(0, message(1, b"next"), 108))
    if head_comes == "after":
        peer.send(messages(0, whole[:50]))
    elif head_comes == "in two pieces":
        peer.send(messages(0, whole[:30]))
        peer.send(messages(0, whole[30:50], 30, 30))
    elif head_comes == "never":
        peer.send(dropped(0, 0, 0, 50, 0, 0))
    assert taken(channel) == [b"next"] and channel.dropped()[1:] == (1, ((0, 1),))
    peer.send(dropped(0, 0, 0, 50, 0, 0))
    assert [frame.value for frame in of_kind(ref.F_MAX_DATA, peer.exchange())] == [120 + 240], "what is gone is credited once"


@pytest.mark.spec("CH-20", "CH-21")
def test_a_piece_may_be_told_again_with_more_behind_it():
    peer = connected()
    channel = opened(peer, dropped(0, 0, 0, 20, 0, 0))
    peer.send(dropped(0, 10, 10, 98, 0, 1), messages(0, message(1, b"next"), 108))
    assert taken(channel) == [b"next"] and channel.dropped()[1] == 1


@pytest.mark.spec("CH-20", "CH-21", "CH-39")
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("order", list(permutations([(0, 3000), (0, 9000), (3000, 9000), (6000, 12_008), (9000, 12_008)])))
def test_pieces_that_are_told_again_come_in_any_order_and_overlap(order, is_late):
    """What was told keeps no memory: a header of one piece within another was lost, and reading went on at nothing, for ever."""
    peer = connected()
    channel = opened(peer)
    late = messages(0, message(0, b"late"))
    peer.send(*([] if is_late else [late]))
    for start, end in order:
        peer.send(dropped(0, 12 + start, start, end - start, 1, int(end == 12_008)))
    peer.send(messages(0, message(2, b"next"), 12_020), *([late] if is_late else []))
    assert channel.recv_many(9, True) == [(0, b"late"), (2, b"next")] and taken(channel) == []
    assert channel.dropped() == (0, 1, ((1, 2),)) and channel.stats()["waiting_bytes"] == 0


@pytest.mark.spec("CH-37")
def test_the_end_of_a_message_that_has_come_whole_may_be_dropped():
    peer = connected()
    channel = opened(peer, messages(0, message(1, b"x" * 92, ordered=False), 12))
    peer.send(dropped(0, 62, 50, 50, 1))
    assert taken(channel) == [b"x" * 92]
    peer.send(messages(0, message(0, b"late")))
    assert taken(channel) == [b"late"] and channel.dropped()[1] == 0


@pytest.mark.spec("CH-13")
def test_a_message_that_reaches_into_another_one_that_is_dropped_is_read_once():
    peer = connected()
    channel = opened(peer, dropped(0, 9, 0, 20_000, 1), messages(0, message(0, bytes(5000))[:9]))
    got = 0
    while some := channel.recv_many(100, True):
        got += len(some)
        assert got < 20_000


@pytest.mark.spec("CH-21")
@pytest.mark.parametrize("last", ["message", "dropped"])
def test_a_channel_ends_when_the_last_thing_missing_is_dropped(last):
    peer = connected()
    channel = opened(peer)
    if last == "message":
        peer.send(messages(0, message(1, b"z"), 11, fin=True), dropped(0, 0, 0, 11, 0))
        assert taken(channel) == [b"z"]
    else:
        peer.send(messages(0, b"", 11, fin=True), dropped(0, 0, 0, 11, 0))
        assert taken(channel) == []
    assert channel.reading() == END


@pytest.mark.spec("CH-21")
def test_dropped_pieces_with_gaps_between_them_end_the_connection():
    peer = connected()
    opened(peer)
    for first in range(0, 13_000, 40):
        if not peer.handle.is_open:
            break
        peer.send(*(dropped(0, 40 * n + 20, 0, 8, n) for n in range(first, first + 40)))
    assert peer.closed_with() == GAPS


@pytest.mark.spec("CH-23")
def test_more_holes_than_are_remembered_are_still_counted():
    peer = connected()
    channel = opened(peer)
    for first in range(0, 2000, 100):
        peer.send(*(dropped(0, 0, 0, 0, 2 * n, 1) for n in range(first, first + 100)))
    ours, theirs, ranges = channel.dropped()
    assert (ours, theirs) == (0, 2000) and ranges[-1] == (3998, 3999) and len(ranges) < 100


@pytest.mark.spec("CH-21", "CH-13")
def test_a_message_inside_of_another_one_that_is_dropped_is_not_found_any_more():
    peer = connected()
    channel = opened(peer, messages(0, message(7, b"inside", ordered=False), 20))
    peer.send(dropped(0, 0, 0, 108, 0), messages(0, message(1, b"next"), 108))
    assert taken(channel) == [b"next"]


@pytest.mark.spec("CH-15")
def test_unordered_messages_keep_their_order_while_more_of_them_wait():
    peer = connected()
    channel = opened(peer)
    frames = [messages(0, message(n, b"%02d" % n, ordered=False), 10 * n) for n in range(1, 40)]
    peer.send(*frames[:8])
    got = channel.recv_many(5, False)
    peer.send(*frames[8:])
    assert got + taken(channel) == [b"%02d" % n for n in range(1, 40)]


@pytest.mark.spec("CH-20", "FE-16")
def test_messages_that_were_never_sent_are_empty_to_repairs():
    """However many of them there are: the decoder's window moves on by no more steps than it has places."""
    peer = connected()
    channel = opened(peer, channel_frame(0, 1, 0, fec=(2, 1)))
    peer.send(dropped(0, 0, 0, 0, 0, 3), dropped(0, 0, 0, 0, 3, 2**40), messages(0, message(2**40 + 3, b"on", ordered=False)))
    assert taken(channel) == [b"on"] and channel.dropped()[1] == 2**40 + 3
