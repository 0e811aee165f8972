"""Congestion control: what is common to every controller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._core.probe_cc import Controller
from tests.unit.congestion import INITIAL, LEAST, MS, PACKET, SECOND, ack, grow, lose


@pytest.fixture
def cc():
    return Controller(PACKET)


# --- congestion events ---


def test_window_starts_with_ten_packets_and_grows_by_what_is_acknowledged(cc):
    assert (cc.window, cc.threshold, cc.events) == (INITIAL, 2**64 - 1, 0)
    ack(cc, 100 * MS, 3333)
    assert cc.window == INITIAL + 3333


def test_losses_of_packets_that_were_on_their_way_together_count_once(cc):
    grow(cc, 100 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND - 10)
    assert (cc.window, cc.threshold, cc.events) == (70 * PACKET, 70 * PACKET, 1)
    lose(cc, 2 * SECOND + 5, 2 * SECOND - 1)
    lose(cc, 2 * SECOND + 5, 2 * SECOND)
    assert (cc.window, cc.events) == (70 * PACKET, 1)
    lose(cc, 2 * SECOND + 9, 2 * SECOND + 1)
    assert cc.window == pytest.approx(49 * PACKET, abs=1) and cc.events == 2


def test_acknowledgement_of_what_was_sent_before_the_event_does_not_let_the_window_grow(cc):
    grow(cc, 100 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND - 10)
    ack(cc, 3 * SECOND, 50 * PACKET, sent=2 * SECOND)
    assert cc.window == 70 * PACKET
    ack(cc, 3 * SECOND, 50 * PACKET, sent=2 * SECOND + 1)
    assert cc.window > 70 * PACKET


@pytest.mark.row("C5")
@given(st.integers(0, 3), st.lists(st.tuples(st.integers(1, SECOND), st.booleans()), max_size=60))
def test_no_number_of_events_takes_the_window_below_two_packets(kind, events):
    cc, now = Controller(PACKET, kind), SECOND
    for gap, is_persistent in events:
        now += gap
        lose(cc, now, now - 1, is_persistent=is_persistent)
        assert LEAST <= cc.window <= INITIAL


def test_persistent_congestion_starts_again_from_two_packets_in_slow_start(cc):
    grow(cc, 100 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND - 10, is_persistent=True)
    assert (cc.window, cc.threshold) == (LEAST, 70 * PACKET)
    ack(cc, 3 * SECOND, LEAST)
    assert cc.window == 2 * LEAST


def test_after_persistent_congestion_the_curve_starts_flat_at_the_threshold(cc):
    """RFC 9438, 4.8: K is 0, and W_max the window at the start of congestion avoidance."""
    grow(cc, 1000 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND - 10, is_persistent=True)
    ack(cc, 3 * SECOND, 698 * PACKET, rtt=0)
    assert cc.window == cc.threshold == 700 * PACKET
    for i in range(20):
        ack(cc, 4 * SECOND + i * 50 * MS, 700 * PACKET, rtt=0)
    assert 710 * PACKET < cc.window < 712 * PACKET  # Reno's growth, of half a packet each round trip


# --- the window's use ---


@pytest.mark.parametrize(("in_flight", "is_used"), [(5, False), (6, True), (7, True), (10, True)])
def test_a_window_is_in_use_when_half_of_it_is_in_flight_in_slow_start(cc, in_flight, is_used):
    grow(cc, 12 * PACKET)
    ack(cc, 2 * SECOND, PACKET, in_flight=in_flight * PACKET, app_limited=not is_used)


@pytest.mark.parametrize(("in_flight", "is_used"), [(79, False), (80, True), (100, True)])
def test_a_window_is_in_use_when_four_fifths_are_in_flight_after_it(cc, in_flight, is_used):
    grow(cc, 100 * PACKET)
    grow(cc, 143 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND)
    assert cc.window // PACKET == 100
    ack(cc, 3 * SECOND, PACKET, in_flight=in_flight * PACKET + 100, app_limited=not is_used)


def test_a_window_with_room_for_less_than_a_burst_is_in_use(cc):
    for _ in range(8):
        lose(cc, 2 * SECOND + 2 * cc.events, 2 * SECOND + 2 * cc.events)
    assert cc.window == LEAST
    ack(cc, 3 * SECOND, PACKET, in_flight=PACKET)
