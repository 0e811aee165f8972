"""The receiving side of a channel: messages in whatever order and pieces they come, and those that do not come."""

import itertools
import random

import pytest

from interpeer._core.probe_channel import Courier

FRAME_ENCODING, FLOW_CONTROL, FINAL_SIZE, PROTOCOL, GAPS, MESSAGE_SIZE = 2, 3, 6, 7, 10, 12
SIZE_KNOWN, COMPLETE, READ = 1, 2, 3  # of the receiving side
MAX_DROPPED_RANGES = 1000


def message(number, data, *, ordered=True, bits=0):
    return (len(data) | (not ordered) << 31 | bits << 29).to_bytes(4, "big") + (number % 2**32).to_bytes(4, "big") + data


def laid_out(messages):
    """Return where each message begins."""
    return list(itertools.accumulate(map(len, messages), initial=0))


def taken(courier):
    return [(number, data) for number, data, _ in iter(courier.take, None)]


# --- order ---


@pytest.mark.parametrize("ordered", [True, False])
def test_messages_come_once_each_in_any_order_of_arrival(ordered):
    sizes = [0, 1, 8, 3, 0, 700, 12]
    messages = [message(n, bytes([n]) * size, ordered=ordered) for n, size in enumerate(sizes)]
    starts = laid_out(messages)
    whole = [(n, bytes([n]) * size) for n, size in enumerate(sizes)]
    for order in itertools.islice(itertools.permutations(range(7)), 0, 5040, 97):
        courier, got, so_far = Courier(), [], set()
        for n in order:
            assert courier.messages(starts[n], messages[n])[0] == 0
            assert courier.messages(starts[n], messages[n]) == (0, 0), "a duplicate uses no credit"
            so_far.add(n)
            found = taken(courier)
            got += found
            in_front = next((n for n in range(7) if n not in so_far), 7)
            expected = set(range(in_front)) if ordered else so_far
            assert {number for number, _ in got} == expected
        assert (got if ordered else sorted(got)) == whole and courier.take() is None
        assert sum(map(len, messages)) == starts[-1]
        for n in order:  # everything again, after it was read
            assert courier.messages(starts[n], messages[n]) == (0, 0)
        assert courier.take() is None and courier.counters["messages_received"] == 7


@pytest.mark.parametrize("count", [1, 8, 9, 100, 1000])
def test_unordered_messages_wait_in_the_order_in_which_they_were_whole_and_their_queue_turns(count):
    courier, order = Courier(), list(range(1, count + 1))
    random.Random(count).shuffle(order)
    got = []
    for i, n in enumerate(order):  # number 0 never comes, so nothing is read past
        assert courier.messages(9 * n, message(n, bytes([n % 256]), ordered=False)) == (
            0,
            max(0, 9 * (n + 1) - highest(order[:i])),
        )
        if i % 3 == 2:
            got.append(courier.take()[0])
    got += [number for number, _ in taken(courier)]
    assert got == order
    assert courier.messages(0, message(0, b"0", ordered=False)) == (0, 0)
    number, _, freed = courier.take()
    assert (number, freed) == (0, 9 * (count + 1)), "with the first, all that were read before it are passed"


def highest(numbers):
    return 9 * (max(numbers) + 1) if numbers else 0


def test_a_message_comes_in_pieces_out_of_order_and_overlapping():
    whole = message(0, bytes(range(200)), ordered=False)
    courier = Courier()
    for at, end in ((150, 208), (60, 160), (8, 61), (100, 208)):
        assert courier.messages(at, whole[at:end], within=at)[0] == 0 and courier.take() is None
    assert courier.messages(0, whole[:8]) == (0, 0)
    assert taken(courier) == [(0, bytes(range(200)))]


def test_of_two_contents_for_the_same_bytes_the_first_stays():
    courier = Courier()
    courier.messages(4 + 8, b"first", within=12)
    courier.messages(0, message(0, b"?...other"))
    assert taken(courier) == [(0, b"?...first")]


def test_how_far_a_message_reaches_is_known_from_its_header():
    courier = Courier()
    courier.messages(0, message(0, bytes(5000))[:8])
    assert courier.expected == 5008 and courier.take() is None


@pytest.mark.parametrize("last", [2**32 - 1, 2**33 - 1, 2**40 + 5])
def test_the_upper_half_of_a_number_is_that_of_the_nearest(last):
    courier = Courier()
    courier.last_number(last)
    numbers = [last + 1, last - 1000, last + 2**31 - 2000]
    for number in numbers:
        courier.messages(courier_at(numbers, number), message(number, b"x"))
    assert [number for number, _ in taken(courier)] == numbers


def courier_at(numbers, number):
    return 9 * numbers.index(number)


# --- limits ---


@pytest.mark.parametrize(("size", "code"), [(992, 0), (993, FLOW_CONTROL)])
def test_the_window_may_be_exactly_full(size, code):
    courier = Courier(window=1000)
    whole = message(0, bytes(size))
    assert courier.messages(0, whole)[0] == code
    assert taken(courier) == ([] if code else [(0, bytes(size))])


@pytest.mark.parametrize(("credit", "code"), [(100, 0), (99, FLOW_CONTROL)])
def test_the_connections_credit_may_be_exactly_used_up(credit, code):
    courier = Courier()
    assert courier.messages(0, message(0, bytes(92)), credit=credit) == (code, 0 if code else 100)
    courier = Courier()
    assert courier.dropped(0, 0, 100, 0, credit=credit)[:2] == (code, 0 if code else 100)


@pytest.mark.parametrize(("size", "code"), [(100, 0), (101, MESSAGE_SIZE), (2**29 - 1, MESSAGE_SIZE)])
def test_the_largest_message_is_known_by_any_header_in_a_frame(size, code):
    header = (size | 1 << 31).to_bytes(4, "big") + bytes(4)
    assert Courier().messages(0, header, max_message=100)[0] == code
    assert Courier().messages(0, message(0, b"small") + header, max_message=100)[0] == code


@pytest.mark.parametrize("cut", range(1, 8))
def test_no_frame_ends_inside_of_a_header(cut):
    assert Courier().messages(0, message(0, b"whole") + message(1, b"")[:cut])[0] == FRAME_ENCODING
    assert Courier().messages(0, message(0, b"")[:cut])[0] == FRAME_ENCODING


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_two_bits_that_are_our_own_are_not_the_peers_to_set(bits):
    assert Courier().messages(0, message(0, b"x", bits=bits))[0] == FRAME_ENCODING
    assert Courier().messages(0, message(0, b"") + message(1, b"x", bits=bits))[0] == FRAME_ENCODING


@pytest.mark.parametrize(("more", "code"), [(0, 0), (1, PROTOCOL)])
def test_a_frame_that_goes_on_with_a_message_ends_with_it_at_the_latest(more, code):
    courier = Courier()
    courier.messages(0, message(0, bytes(100))[:50])
    assert courier.messages(50, bytes(58 + more), within=50)[0] == code


def test_gaps_are_bounded():
    courier, code, n = Courier(), 0, 0
    while code == 0:
        n += 1
        code, _ = courier.messages(20 * n, message(n, b"x", ordered=False))
    assert code == GAPS and 1000 <= n <= 1002


def test_messages_that_lie_inside_of_each_other_are_delivered_at_most_once_and_nothing_is_read_twice():
    """No honest peer sends them. Reading passes over what waits in the queue and is behind it."""
    courier = Courier()
    outer = message(0, message(1, bytes(10), ordered=False) + bytes(20))
    assert courier.messages(8, outer[8:26]) == (0, 26)  # as if it were a message of its own
    assert courier.messages(0, outer)[0] == 0
    found = taken(courier)
    assert len(found) == len(set(found)) <= 2 and courier.take() is None
    assert courier.messages(len(outer), message(2, b"next"))[0] == 0
    assert taken(courier) == [(2, b"next")]


# --- what the peer has given up ---


def test_reading_goes_on_behind_what_does_not_come():
    courier = Courier()
    courier.messages(13 + 9, message(2, b"c"))
    assert courier.take() is None
    assert courier.dropped(0, 0, 13, 0) == (0, 0, 13)
    assert courier.dropped(13, 0, 9, 1) == (0, 0, 9)
    assert taken(courier) == [(2, b"c")]
    assert courier.gone == [(0, 2)] and courier.counters["peer_dropped"] == 2


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("had", [0, 8, 30, 60, 99])
def test_one_is_told_in_pieces_in_any_order(order, had):
    courier = Courier()
    if had:
        courier.messages(0, message(0, bytes(92))[:had])
    pieces = [(0, 0, 40, 0, 0), (40, 40, 30, 0, 0), (70, 70, 30, 0, 1)]
    courier.messages(100, message(1, b"next"))
    freed = sum(courier.dropped(*pieces[i])[2] for i in order)
    assert freed == 100 and taken(courier) == [(1, b"next")]
    assert courier.gone == [(0, 1)] and courier.counters["peer_dropped"] == 1
    for piece in pieces:
        assert courier.dropped(*piece) == (0, 0, 0)
    assert courier.counters["peer_dropped"] == 1


def test_one_that_is_whole_is_kept_whether_it_was_read_or_not():
    courier = Courier()
    courier.messages(9, message(1, b"b", ordered=False))
    assert courier.dropped(9, 0, 9, 1) == (0, 0, 0)
    assert taken(courier) == [(1, b"b")]
    assert courier.dropped(9, 0, 9, 1) == (0, 0, 0) and courier.gone == [] and courier.take() is None


def test_each_number_counts_once_however_the_ranges_that_are_told_overlap():
    courier, known = Courier(), set()
    chance = random.Random(5)
    for _ in range(300):
        number, count = chance.randrange(500), chance.randrange(1, 30)
        assert courier.dropped(0, 0, 0, number, count) == (0, 0, 0)
        known |= set(range(number, number + count))
        assert courier.counters["peer_dropped"] == len(known)
    assert sum(end - start for start, end in courier.gone) == len(known)


def test_of_too_many_ranges_the_lowest_are_forgotten():
    courier = Courier()
    for n in range(MAX_DROPPED_RANGES + 5):
        courier.dropped(0, 0, 0, 2 * n, 1)
    assert len(courier.gone) == MAX_DROPPED_RANGES and courier.gone[0] == (10, 11)
    assert courier.counters["peer_dropped"] == MAX_DROPPED_RANGES + 5


@pytest.mark.parametrize("count", [1, 2**32, 2**62 - 1])
def test_a_number_that_nobody_can_have_reached_is_counted_and_costs_nothing(count):
    courier = Courier()
    assert courier.dropped(0, 0, 0, 0, count) == (0, 0, 0)
    assert courier.gone == [(0, count)] and courier.counters["peer_dropped"] == count


@pytest.mark.parametrize(("size", "code"), [(1000, 0), (1001, FLOW_CONTROL)])
def test_what_was_given_up_fills_the_window_as_if_it_had_come(size, code):
    courier = Courier(window=1000)
    assert courier.dropped(0, 0, size, 0) == (code, 0 if code else size, 0 if code else size)


def test_nothing_is_given_up_behind_the_end():
    courier = Courier()
    courier.messages(0, message(0, b"last"), fin=True)
    assert courier.dropped(12, 0, 8, 1)[0] == FINAL_SIZE
    assert courier.dropped(0, 0, 12, 0) == (0, 0, 0) and taken(courier) == [(0, b"last")]
    assert courier.states[1] == READ


def test_a_side_whose_last_message_is_given_up_is_over():
    courier = Courier()
    courier.messages(0, message(0, b"a"))
    courier.messages(21, b"", fin=True)
    assert courier.states[1] == SIZE_KNOWN
    assert courier.dropped(9, 0, 12, 1) == (0, 0, 0), "there is one to be read before"
    assert courier.states[1] == COMPLETE
    number, _, freed = courier.take()
    assert (number, freed) == (0, 21) and courier.states[1] == READ
