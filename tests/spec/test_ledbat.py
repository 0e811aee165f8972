"""LEDBAT++ beside its rules, written out in Python (draft-irtf-iccrg-ledbat-plus-plus)."""

import math

import pytest

from interpeer._core.probe_cc import Controller
from tests.models.pipe import LEDBAT, Pipe
from tests.unit.congestion import LEAST, MS, PACKET, SECOND, ack, lose

START, STEADY, SLOWDOWN, RETURN = range(4)
TARGET = 60 * MS


@pytest.fixture
def cc():
    return Controller(PACKET, LEDBAT)


def gain(base_ns):
    return 1 / min(16, math.ceil(2 * TARGET / base_ns))


def phase(cc):
    return cc.ledbat["phase"]


def rounds(cc, now, n, rtt, base=None):
    """Acknowledge a window in each of `n` round trips, packet by packet; return when that is."""
    for _ in range(n):
        now += rtt
        for _ in range(cc.window // PACKET):
            ack(cc, now, PACKET, rtt=rtt, smoothed=rtt)
    return now


def steady(cc, base):
    """Return the time at which slow start has ended because packets waited, and four samples of no wait have come."""
    now = rounds(cc, SECOND, 3, base)
    while phase(cc) == START:
        now = rounds(cc, now, 1, base + 50 * MS)
    return now


@pytest.mark.spec("CC-25")
@pytest.mark.parametrize("base", [5 * MS, 30 * MS, 60 * MS, 200 * MS])
def test_slow_start_is_slower_where_the_target_is_many_round_trips(cc, base):
    now = rounds(cc, SECOND, 1, base)
    before = cc.window
    rounds(cc, now, 1, base)
    share = gain(base + 1000)  # samples are rounded up to a microsecond
    assert cc.window - before == pytest.approx(share * (before // PACKET * PACKET), rel=0.15)


@pytest.mark.spec("CC-26")
def test_slow_start_ends_when_packets_wait_for_three_quarters_of_the_target(cc):
    now = rounds(cc, SECOND, 2, 100 * MS)
    now = rounds(cc, now, 1, 144 * MS)
    assert phase(cc) == START
    rounds(cc, now, 1, 146 * MS)
    assert phase(cc) == STEADY


@pytest.mark.spec("CC-27")
def test_it_grows_by_a_share_of_a_packet_a_round_trip_while_packets_wait_less_than_the_target(cc):
    base = 100 * MS
    now = steady(cc, base)
    cc_before = cc.window
    rounds(cc, now, 1, base + 40 * MS)
    assert cc.window - cc_before == pytest.approx(gain(base) * PACKET, rel=0.2)


@pytest.mark.spec("CC-27")
@pytest.mark.parametrize(("wait", "left"), [(66, 0.9), (78, 0.74), (120, 0.606), (500, 0.606)])
def test_it_shrinks_as_far_as_packets_wait_beyond_the_target_and_by_half_at_most(cc, wait, left):
    base = 100 * MS
    now = steady(cc, base)
    before = cc.window
    for _ in range(before // PACKET):  # one round trip, in which every packet waits
        ack(cc, now + 1, PACKET, rtt=base + wait * MS, smoothed=base + wait * MS)
    assert cc.window / before == pytest.approx(left, abs=0.06)  # halving packet by packet is exp(-1/2)


@pytest.mark.spec("CC-28")
def test_a_loss_halves_the_window(cc):
    steady(cc, 100 * MS)
    before = cc.window
    lose(cc, 100 * SECOND, 100 * SECOND)
    assert cc.window == before // 2


@pytest.mark.spec("CC-29", "CC-30")
def test_a_slowdown_comes_after_two_round_trips_lasts_two_and_leads_back(cc):
    base = 100 * MS
    now = steady(cc, base)
    before = cc.window
    now += 301 * MS
    ack(cc, now, PACKET, rtt=base, smoothed=base)
    assert phase(cc) == SLOWDOWN and cc.window == LEAST and cc.threshold >= before
    began = now
    ack(cc, now + 199 * MS, PACKET, rtt=base, smoothed=base)
    assert phase(cc) == SLOWDOWN and cc.window == LEAST
    now += 200 * MS
    ack(cc, now, PACKET, rtt=base, smoothed=base)
    assert phase(cc) == RETURN
    while phase(cc) == RETURN:
        now = rounds(cc, now, 1, base)
    assert cc.window >= before
    # the next one is due when nine times as long has passed as this one took
    assert cc.ledbat["slowdown_ns"] - now == pytest.approx(9 * (now - began), abs=1)


def test_the_least_round_trip_of_ten_minutes_counts(cc):
    now = SECOND
    for minute in range(12):
        ack(cc, now + minute * 60 * SECOND, PACKET, rtt=(40 + minute) * MS, smoothed=50 * MS)
    samples = [us for us in cc.ledbat["base_us"] if us]
    assert min(samples) == 42_001 and len(samples) == 10


def test_a_loss_in_slow_start_ends_it(cc):
    now = rounds(cc, SECOND, 2, 50 * MS)
    lose(cc, now, now)
    assert phase(cc) == STEADY and cc.threshold == cc.window and cc.ledbat["slowdown_ns"] > now


def test_an_outage_leads_through_slow_start_back_to_where_it_was(cc):
    now = steady(cc, 100 * MS)
    lose(cc, now, now, is_persistent=True)
    assert phase(cc) == RETURN and cc.window == LEAST and cc.threshold > LEAST


def test_it_fills_a_path_and_keeps_the_queue_near_its_target():
    pipe, waits = Pipe(LEDBAT, mbit=10, rtt_ns=40 * MS, buffer_bdp=10), []
    pipe.run(5 * SECOND)
    pipe.note = lambda: waits.append(pipe.smoothed_ns - pipe.min_ns)
    delivered = pipe.delivered
    pipe.run(15 * SECOND)
    assert (pipe.delivered - delivered) / (15 * pipe.rate) > 0.8
    assert sorted(waits)[len(waits) * 95 // 100] < 1.3 * TARGET and pipe.dropped == 0
