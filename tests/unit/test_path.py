"""What a path owes in acknowledgements, which ranges they have, and what ECN counts are believed (docs/spec, chapter 9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._core.probe_transport import Acknowledger
from interpeer._core.probe_wire import parse
from tests.models import wire

MS = 1_000_000
DELAY = 5 * MS
MAX_RANGES = 64
LARGEST = 2**56 - 1  # packet number
NOTHING, AT_ONCE = (0, False, 0), True


@pytest.fixture
def path():
    return Acknowledger()


def acknowledge(path, space=1200, now=1):
    """Return the ACK frame's path, delay, ranges and ECN counts, or None."""
    frames, is_complete = parse(path.write_ack(space, now))
    assert is_complete
    if not frames:
        return None
    ((name, *fields),) = frames
    assert name == "ack"
    return tuple(fields)


def ranges_of(numbers):
    """Return the ranges (low, high) that numbers consist of, the highest first."""
    found = []
    for number in sorted(numbers, reverse=True):
        if found and found[-1][0] == number + 1:
            found[-1][0] = number
        else:
            found.append([number, number])
    return [tuple(r) for r in found]


# --- when ---


def test_one_packet_is_acknowledged_within_the_delay_and_two_at_once(path):
    assert path.owed == NOTHING
    path.got(0, now_ns=7)
    assert path.owed == (1, False, 7 + DELAY)
    path.got(1, now_ns=9)
    assert path.owed == (2, AT_ONCE, 7 + DELAY)
    assert acknowledge(path) is not None and path.owed == NOTHING


def test_packets_that_do_not_elicit_are_reported_but_owe_nothing(path):
    for number in range(10):
        path.got(number, eliciting=False)
    path.got(20, eliciting=False, ecn=3)
    assert path.owed == NOTHING
    assert acknowledge(path)[2] == [(20, 20), (0, 9)]


@pytest.mark.parametrize("numbers", [[0, 2], [1, 0], [5, 3], [LARGEST, 0]])
def test_packet_out_of_order_is_acknowledged_at_once(path, numbers):
    first, second = numbers
    path.got(first)
    acknowledge(path)
    path.got(second)
    assert path.owed[:2] == (1, AT_ONCE)


def test_a_gap_that_is_not_closed_does_not_hurry_what_follows_in_order(path):
    for number in (0, 2):
        path.got(number)
    acknowledge(path)
    path.got(3, now_ns=5)
    assert path.owed == (1, False, 5 + DELAY)


def test_ce_mark_is_reported_at_once(path):
    path.got(0, ecn=2)
    assert not path.owed[1]
    acknowledge(path)
    path.got(1, ecn=3)
    assert path.owed[1]


def test_delay_is_counted_from_the_arrival_of_the_largest(path):
    path.got(5, now_ns=10 * MS)
    path.got(3, now_ns=12 * MS)
    assert acknowledge(path, now=15 * MS)[1] == 5000
    path.got(6, now_ns=20 * MS)
    assert acknowledge(path, now=20 * MS + 1999)[1] == 1


# --- which ---


@given(
    numbers=st.lists(st.integers(0, 300) | st.integers(0, LARGEST), min_size=1, max_size=150, unique=True),
    space=st.integers(0, 1300),
    path_id=st.sampled_from([0, 63, 2**32 - 1]),
    counts=st.tuples(*[st.integers(0, 2**62 - 1)] * 3),
)
def test_acknowledgement_has_the_newest_ranges_that_fit(numbers, space, path_id, counts):
    path, kept = Acknowledger(path_id), set()
    for number in numbers:
        path.got(number)
        kept.add(number)
        for low, high in ranges_of(kept)[MAX_RANGES:]:
            kept -= set(range(low, high + 1))
    path.ecn_received = counts
    expected = ranges_of(kept)
    assert path.ranges == [(low, high + 1) for low, high in reversed(expected)]
    frame = acknowledge(path, space)
    if frame is None:
        assert space < 64 and path.owed[0] == len(numbers)
        return
    written, _, ranges, ecn = frame
    assert written == path_id and ecn == (counts if any(counts) else None)
    assert ranges == expected[: len(ranges)]
    assert len(ranges) == len(expected) or len(ranges) >= (space - 64) // 16


@pytest.mark.row("C4")
def test_with_too_many_gaps_the_oldest_range_is_forgotten_and_the_frame_still_fits(path):
    for number in range(0, 20_000, 2):
        path.got(number)
    assert len(path.ranges) == MAX_RANGES
    assert acknowledge(path)[2] == [(n, n) for n in range(19_998, 19_998 - 2 * MAX_RANGES, -2)]


@pytest.mark.row("C4")
def test_number_below_all_ranges_pushes_out_only_the_oldest(path):
    for number in range(1000, 1000 + 2 * MAX_RANGES, 2):
        path.got(number)
    path.got(7)
    assert len(path.ranges) <= MAX_RANGES and path.ranges[-1] == (998 + 2 * MAX_RANGES, 999 + 2 * MAX_RANGES)
    assert acknowledge(path)[2][0] == (998 + 2 * MAX_RANGES,) * 2


def test_what_the_peer_knows_to_be_acknowledged_is_not_reported_again(path):
    for number in (0, 1, 2, 5, 6, 9):
        path.got(number)
    path.ack_acked(6)
    assert acknowledge(path)[2] == [(9, 9), (6, 6)]
    path.ack_acked(6)
    assert path.ranges == [(6, 7), (9, 10)]


@pytest.mark.parametrize("largest", [10, 11, 1000])
def test_the_newest_range_is_kept_in_any_case(path, largest):
    for number in (0, 1, 5, 8, 9):
        path.got(number)
    path.ack_acked(largest)
    assert path.ranges == [(8, 10)]
    path.got(10, now_ns=1)
    assert acknowledge(path)[2] == [(8, 10)]


def test_acknowledged_acknowledgement_before_any_packet_changes_nothing(path):
    path.ack_acked(7)
    assert path.ranges == [] and acknowledge(path) is None


# --- ECN ---


def test_marks_are_counted_by_kind(path):
    for number, ecn in enumerate([2, 2, 2, 1, 3, 0, 0, 2]):
        path.got(number, ecn=ecn)
    assert path.ecn_received == (4, 1, 1)
    assert acknowledge(path)[3] == (4, 1, 1)


def test_without_marks_the_frame_has_no_counts(path):
    path.got(0)
    assert acknowledge(path)[3] is None


def check(path, ecn, newly_acked):
    """Give the path counts (None: a frame without them); return whether they tell of congestion."""
    return path.check_ecn(wire.write_ack(0, 0, [(0, 0)], ecn), newly_acked)


def test_counts_that_fit_make_the_path_capable_and_ce_tells_of_congestion_once(path):
    path.ecn_sent = 20
    assert not check(path, (5, 0, 0), 5) and path.ecn_state == "capable"
    assert check(path, (8, 0, 2), 5)
    assert not check(path, (13, 0, 2), 5)
    assert check(path, (13, 0, 7), 5) and path.ecn_state == "capable"


@pytest.mark.row("C5")
@pytest.mark.parametrize(
    ("ecn", "newly_acked"),
    [
        (None, 1),  # cleared
        ((0, 0, 0), 1),
        ((10, 0, 0), 1),  # one is missing
        ((10, 1, 0), 1),  # one has become ECT(1), which we never send
        ((11, 1, 0), 1),
        ((21, 0, 0), 1),  # more than were sent
        ((10, 0, 11), 1),
        ((12, 0, 1), 1),  # CE has fallen
        ((4, 0, 0), 1),  # all have
    ],
)
def test_counts_that_cannot_be_end_the_use_of_ecn_and_slow_nobody_down(path, ecn, newly_acked):
    path.ecn_sent = 20
    assert check(path, (8, 0, 2), 10)
    assert not check(path, ecn, newly_acked) and path.ecn_state == "failed"
    assert not check(path, (10, 0, 10), 10) and path.ecn_state == "failed"


@pytest.mark.row("C5")
def test_all_marks_forged_to_ce_are_believed_up_to_what_was_sent(path):
    path.ecn_sent = 10
    assert check(path, (0, 0, 10), 10) and path.ecn_state == "capable"


def test_acknowledgement_of_nothing_new_is_not_judged(path):
    path.ecn_sent = 20
    assert not check(path, (2**62 - 1, 5, 2**62 - 1), 0)
    assert path.ecn_state == "testing"


@pytest.mark.row("C5")
@given(st.tuples(*[st.integers(0, 2**62 - 1)] * 3), st.integers(1, 20))
def test_no_counts_pass_that_exceed_what_was_sent(ecn, newly_acked):
    path = Acknowledger()
    path.ecn_sent = 20
    check(path, ecn, newly_acked)
    is_true = ecn[1] == 0 and newly_acked <= ecn[0] + ecn[2] <= 20
    assert path.ecn_state == ("capable" if is_true else "failed")
