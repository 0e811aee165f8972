"""The sending side of a channel: what goes into a frame, what becomes of it, and what the peer is told was given up."""

from itertools import permutations

import pytest

from interpeer._core.probe_channel import Courier

RESEND, ORDERED = 1, 2
RELIABLE, UNORDERED, ONCE = RESEND | ORDERED, RESEND, ORDERED
HEADER = 8
OPEN, FINISHING, DONE, RESETTING = range(4)  # of the sending side
MS = 1_000_000


def message(number, data, flags=RELIABLE):
    return (len(data) | (0 if flags & ORDERED else 1 << 31)).to_bytes(4, "big") + (number % 2**32).to_bytes(4, "big") + data


def drain(courier, left=1200, **room):
    """Return every piece that may go now."""
    return list(iter(lambda: courier.piece(left, **room), None))


# --- what goes into a frame ---


@pytest.mark.parametrize("flags", [RELIABLE, UNORDERED, ONCE, 0])
def test_a_message_is_its_header_and_its_bytes_and_an_empty_one_is_its_header(flags):
    courier = Courier(flags=flags)
    courier.send(b"")
    courier.send(b"one")
    ((offset, wire, within, data, fin),) = drain(courier)
    assert (offset, wire, within, fin) == (0, 0, 0, False)
    assert data == message(0, b"", flags) + message(1, b"one", flags)


@pytest.mark.parametrize(("left", "whole"), [(20, 1), (59, 2), (60, 3), (61, 3), (1200, 3)])
def test_as_many_whole_messages_as_fit_share_a_frame_and_it_may_be_exactly_full(left, whole):
    courier = Courier(flags=ONCE)
    for _ in range(3):
        courier.send(bytes(12))
    assert len(courier.piece(left)[3]) == 20 * whole


@pytest.mark.parametrize("left", range(HEADER))
def test_no_frame_ends_inside_of_a_header(left):
    courier = Courier()
    courier.send(bytes(100))
    assert courier.piece(left) is None
    assert len(courier.piece(HEADER)[3]) == HEADER and courier.unsent == 100


def test_a_message_that_was_begun_goes_on_alone():
    courier = Courier()
    for _ in range(2):
        courier.send(bytes(100))
    pieces = [courier.piece(60)[:3], courier.piece(1200)[:3], courier.piece(1200)[:3]]
    assert pieces == [(0, 0, 0), (60, 60, 60), (108, 108, 0)]
    assert courier.piece() is None and courier.unsent == 0


@pytest.mark.parametrize("flags", [UNORDERED, ONCE, 0])
def test_one_that_may_be_given_up_is_cut_only_if_it_is_larger_than_a_packet(flags):
    courier = Courier(flags=flags)
    courier.send(bytes(92))
    assert courier.piece(99, most=100) is None
    assert len(courier.piece(100, most=100)[3]) == 100
    courier.send(bytes(93))
    assert [len(courier.piece(100, most=100)[3]), len(courier.piece(100, most=100)[3])] == [100, 1]


@pytest.mark.parametrize("limit", [HEADER, 50, 108, 109])
def test_the_channels_limit_may_be_exactly_used_up(limit):
    courier = Courier(send_limit=limit)
    courier.send(bytes(100))
    assert sum(len(data) for _, _, _, data, _ in drain(courier)) == min(limit, 108) == courier.wire_sent
    courier.raise_send_limit(108)
    assert sum(len(data) for _, _, _, data, _ in drain(courier)) == 108 - min(limit, 108)


@pytest.mark.parametrize(("credit", "may_begin", "sent"), [(107, False, 0), (108, False, 108), (107, True, 107), (7, True, 0)])
def test_a_message_for_which_the_connection_has_no_room_is_begun_only_by_permission(credit, may_begin, sent):
    courier = Courier()
    courier.send(bytes(100))
    piece = courier.piece(credit=credit, may_begin=may_begin)
    assert (len(piece[3]) if piece else 0) == sent


@pytest.mark.parametrize("first", [2**32 - 2, 2**33 - 2, 2**62])
def test_of_a_number_the_lower_half_is_told(first):
    courier = Courier()
    courier.number_from(first)
    for _ in range(4):
        courier.send(b"x")
    assert courier.piece()[3] == b"".join(message(first + n, b"x") for n in range(4))


def test_the_end_goes_with_the_last_message_or_alone():
    courier = Courier()
    courier.send(b"last")
    courier.finish()
    assert courier.piece()[3:] == (message(0, b"last"), True)
    assert courier.piece() is None
    courier = Courier()
    courier.send(b"last")
    courier.piece()
    courier.finish()
    assert courier.piece() == (12, 12, 0, b"", True)


# --- what becomes of it ---


def test_what_is_remembered_is_forgotten_in_order_while_more_comes():
    """The ring of messages grows and turns; every one has its own number and bytes."""
    courier, said, at = Courier(), [], 0
    for n in range(300):
        courier.send(b"%d" % n)
        if n % 3 == 2:
            said += drain(courier)
        if n % 7 == 6:
            while at < len(said) - 1:
                courier.acked(said[at][0], len(said[at][3]))
                at += 1
            assert courier.unsettled <= 12
    said += drain(courier)
    assert b"".join(data for _, _, _, data, _ in said) == b"".join(message(n, b"%d" % n) for n in range(300))
    for offset, _, _, data, _ in said[at:]:
        courier.acked(offset, len(data))
    assert courier.unsettled == 0 and courier.pools.live == (0, 0)


def test_lost_pieces_are_sent_again_as_they_were_and_what_was_acknowledged_is_not():
    courier = Courier()
    courier.send(bytes(range(100)))
    courier.send(b"next")
    first, second, third, fourth = (courier.piece(40) for _ in range(4))
    for offset, _, _, data, _ in (second, third):
        assert courier.lost(offset, len(data)) == 0
        courier.lost(offset, len(data))  # and once more, by another packet
    courier.acked(third[0], len(third[3]))  # it had only been slow
    again = drain(courier, 40)
    assert (40, 40, 40, second[3], False) in again
    assert all(piece[0] < third[0] or piece[0] >= third[0] + len(third[3]) for piece in again if piece[3])
    for offset, _, _, data, _ in (first, second, fourth):
        courier.acked(offset, len(data))
        courier.acked(offset, len(data))
    assert courier.unsettled == 0 and courier.lost(first[0], 40) == 0


def test_messages_that_were_skipped_between_do_not_share_a_frame_when_they_are_repeated():
    """They do not follow each other on the wire as in the buffer."""
    courier = Courier(flags=RELIABLE)
    courier.send(b"a")
    courier.set(RELIABLE, 5000)
    courier.send(b"late")
    courier.set(RELIABLE)
    courier.send(b"b")
    courier.count_deadlines(0)
    assert courier.piece(9)[3] == message(0, b"a")
    assert courier.expire(5 * MS) == 1
    assert courier.piece() == (21, 9, 0, message(2, b"b"), False)
    courier.lost(0, 9)
    courier.lost(21, 9)
    assert [piece[:3] for piece in drain(courier)] == [(0, 0, 0), (21, 9, 0)]


# --- giving up ---


def test_one_that_is_sent_once_is_given_up_when_it_is_lost_but_not_when_it_may_be():
    courier = Courier(flags=ONCE)
    for data in (b"a", b"b"):
        courier.send(data)
        courier.piece(9)
    assert courier.lost(0, 9, is_lost=False) == 0 and courier.next_dropped() is None
    assert courier.lost(0, 9) == 1 and courier.lost(0, 9) == 0
    assert courier.next_dropped() == (0, 0, 9, 0, 1) and courier.next_dropped() is None
    courier.acked(9, 9)
    assert courier.unsettled == 2, "the peer has still to be told"
    courier.dropped_acked(0, 0, 9)
    courier.dropped_acked(0, 0, 9)
    assert courier.unsettled == 0 and courier.counters["dropped"] == 1


def test_one_that_was_acknowledged_meanwhile_is_not_given_up():
    courier = Courier(flags=ONCE)
    courier.send(b"a")
    courier.send(b"b")
    courier.piece()
    courier.acked(9, 9)
    assert courier.lost(0, 18) == 1
    assert courier.next_dropped() == (0, 0, 9, 0, 1) and courier.counters["dropped"] == 1


@pytest.mark.parametrize(("now_ns", "late"), [(5 * MS - 1, 0), (5 * MS, 1), (10**18, 1)])
def test_a_deadline_has_passed_when_it_is_reached(now_ns, late):
    courier = Courier(deadline_us=5000)
    courier.send(b"x")
    assert courier.expire(10**18) == 0, "it does not count yet"
    assert courier.count_deadlines(0) and courier.due_ns == 5 * MS
    assert courier.expire(now_ns) == late and courier.due_ns == (0 if late else 5 * MS)
    assert (courier.piece() is None) == bool(late)


def test_the_earliest_of_several_deadlines_is_due_next_whatever_their_order():
    courier = Courier()
    for deadline_us in (30_000, 10_000, 0, 20_000):
        courier.set(RELIABLE, deadline_us)
        courier.send(b"x")
    assert courier.count_deadlines(0)
    due = []
    while courier.due_ns:
        due.append(courier.due_ns)
        assert courier.expire(courier.due_ns) == 1
    assert due == [10 * MS, 20 * MS, 30 * MS] and courier.counters["late"] == 3
    assert [courier.next_dropped(), courier.next_dropped()] == [(0, 0, 0, 0, 2), (0, 0, 0, 3, 1)]


def test_what_was_never_begun_takes_no_room_and_is_told_together():
    courier = Courier(deadline_us=1000)
    for _ in range(3):
        courier.send(bytes(100))
    courier.set(RELIABLE)
    courier.send(b"kept")
    courier.count_deadlines(0)
    assert courier.expire(MS) == 3
    assert courier.next_dropped() == (0, 0, 0, 0, 3)
    assert courier.piece()[1:4] == (0, 0, message(3, b"kept"))
    courier.dropped_lost(0, 3, was_begun=False)
    assert courier.next_dropped() == (0, 0, 0, 0, 3)
    courier.dropped_acked(0, 3)
    assert courier.unsettled == 1


@pytest.mark.parametrize("credit", [0, 7, 8, 91, 92, 93, 1000])
def test_the_rest_of_one_that_was_begun_is_passed_over_as_far_as_the_limit_goes(credit):
    """Pieces of less than a header are neither told nor left."""
    courier = Courier(deadline_us=1000)
    courier.send(bytes(192))
    courier.set(RELIABLE)
    courier.send(b"next")
    courier.count_deadlines(0)
    assert len(courier.piece(100)[3]) == 100 and courier.unsent == 100
    assert courier.expire(MS) == 1 and courier.piece() is None
    passed = courier.pass_over(credit)
    assert passed == (0 if credit < 8 else 100 if credit >= 100 else min(credit, 92))
    told = [courier.next_dropped()]
    assert told == [(0, 0, 100 + passed, 0, int(passed == 100))]
    if passed < 100:
        assert courier.next_dropped() is None and courier.pass_over(1000) == 100 - passed
        assert courier.next_dropped() == (100 + passed, 100 + passed, 100 - passed, 0, 1)
    assert courier.pass_over(1000) is None and courier.piece()[1:3] == (200, 0)


def test_a_lost_telling_of_pieces_is_repeated_from_the_first_that_was_lost():
    courier = Courier(deadline_us=1000)
    courier.send(bytes(192))
    courier.count_deadlines(0)
    courier.piece(100)
    courier.expire(MS)
    assert courier.next_dropped() == (0, 0, 100, 0, 0)
    courier.pass_over(50)
    assert courier.next_dropped() == (100, 100, 50, 0, 0)
    courier.dropped_lost(0, 100, was_begun=True)
    assert courier.next_dropped() == (100, 100, 50, 0, 0)
    courier.pass_over(50)
    assert courier.next_dropped() == (150, 150, 50, 0, 1)
    for within, size in ((0, 100), (100, 50), (150, 50)):
        assert courier.unsettled == 1
        courier.dropped_acked(0, within, size)
    assert courier.unsettled == 0


def told_in_pieces() -> tuple[Courier, list[tuple[int, int]]]:
    """Give a message of 200 bytes up that is told in four; return where each begins, and its size."""
    courier = Courier(flags=ONCE)
    courier.send(bytes(192))
    courier.send(b"next")
    courier.piece(50, most=50)
    courier.lost(0, 50)
    told = [courier.next_dropped()]
    while courier.pass_over(50):
        told.append(courier.next_dropped())
    assert told == [(0, 0, 50, 0, 0), (50, 50, 50, 0, 0), (100, 100, 50, 0, 0), (150, 150, 50, 0, 1)]
    return courier, [piece[1:3] for piece in told]


def test_pieces_that_are_known_twice_do_not_settle_what_is_known_of_none():
    """A frame goes more than once when a probe repeats it, or a copy, and each may be acknowledged."""
    courier, (first, *others, last) = told_in_pieces()
    courier.dropped_lost(0, 0, was_begun=True)
    assert courier.next_dropped() == (0, 0, 200, 0, 1)
    for _ in range(9):
        for piece in (first, *others):
            courier.dropped_acked(0, *piece)
    assert courier.unsettled == 2, "the peer has still to be told of the last piece"
    courier.dropped_lost(0, 150, was_begun=True)
    assert courier.next_dropped() == (150, 150, 50, 0, 1) and courier.next_dropped() is None
    courier.dropped_acked(0, *last)
    assert courier.unsettled == 1


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_message_is_settled_when_all_of_its_pieces_are_known_in_whatever_order(order):
    courier, pieces = told_in_pieces()
    for i in order:
        assert courier.unsettled == 2
        courier.dropped_acked(0, *pieces[i])
    assert courier.unsettled == 1


def test_a_piece_that_is_known_is_not_told_again():
    courier, pieces = told_in_pieces()
    courier.dropped_acked(0, *pieces[1])
    courier.dropped_lost(0, 50, was_begun=True)
    assert courier.next_dropped() == (100, 100, 100, 0, 1)
    courier.dropped_acked(0, *pieces[3])
    courier.dropped_lost(0, 150, was_begun=True)
    assert courier.next_dropped() is None, "it had been told twice, and one has come"
    courier.dropped_lost(0, 0, was_begun=True)
    courier.dropped_acked(0, *pieces[0])
    courier.dropped_acked(0, *pieces[2])
    assert courier.unsettled == 1 and courier.next_dropped() is None, "it was to be told once more, and is known now"


def test_the_side_is_done_when_everything_is_acknowledged_and_the_peer_knows_what_was_given_up():
    courier = Courier(flags=ONCE)
    courier.send(b"a")
    courier.finish()
    assert courier.piece()[4] and courier.states[0] == FINISHING
    assert courier.lost(0, 9, fin=True) == 1
    assert courier.piece() == (9, 9, 0, b"", True)
    courier.acked(9, 0, fin=True)
    assert courier.states[0] == FINISHING
    courier.next_dropped()
    courier.dropped_acked(0, 0, 9)
    assert courier.states[0] == DONE


def test_a_reset_settles_everything_at_once():
    courier = Courier(flags=ONCE, deadline_us=1000)
    for _ in range(20):
        courier.send(bytes(1000))
    courier.count_deadlines(0)
    courier.piece()
    courier.lost(0, 1008)
    courier.reset(7)
    assert courier.states[0] == RESETTING and courier.unsettled == 0 and courier.due_ns == 0
    assert courier.piece() is None and courier.next_dropped() is None and courier.expire(10**18) == 0
    courier.acked(0, 1008)
    courier.dropped_acked(0, 0, 1008)
    assert courier.lost(0, 1008) == 0 and courier.pools.live == (0, 0)
