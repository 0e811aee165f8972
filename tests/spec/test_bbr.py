"""BBR's machine: every state with every input, and what each state does to a path."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._core.probe_cc import Controller
from interpeer._core.probe_transport import Recoverer
from tests.models import wire
from tests.models.pipe import (
    BBR,  # fmt: skip
    BBR_LOSSY,
    CRUISE,
    DOWN,
    DRAIN,
    MS,
    PACKET,
    PROBE_RTT,
    REFILL,
    SECOND,
    STARTUP,
    UP,
    Pipe,
)

STATES = (STARTUP, DRAIN, DOWN, CRUISE, REFILL, UP, PROBE_RTT)
FULL, DRAINED, PROBE_DUE, REFILLED, PROBED, RTT_STALE, RTT_SEEN, RTT_SEEN_EARLY = range(8)
TABLE = {
    (STARTUP, FULL): DRAIN,
    (DRAIN, DRAINED): DOWN,
    (DOWN, DRAINED): CRUISE,
    (DOWN, PROBE_DUE): REFILL,
    (CRUISE, PROBE_DUE): REFILL,
    (REFILL, REFILLED): UP,
    (UP, PROBED): DOWN,
    **{(state, RTT_STALE): PROBE_RTT for state in STATES if state != PROBE_RTT},
    (PROBE_RTT, RTT_SEEN): CRUISE,
    (PROBE_RTT, RTT_SEEN_EARLY): STARTUP,
}
NO_BOUND = 2**64 - 1


@pytest.mark.spec("CC-5")
@pytest.mark.parametrize("event", range(8))
@pytest.mark.parametrize("state", STATES)
def test_the_machine_moves_as_the_table_has_it_and_no_other_way(state, event):
    following = TABLE.get((state, event))
    assert Controller(PACKET, BBR).input(state, event) == ((-1, state) if following is None else (0, following))


def in_order(pipe, *, of=STATES):
    return [state for _, state in pipe.states if state in of]


def until(pipe, state, most_ns=10 * SECOND):
    """Run until BBR is in a state."""
    end = pipe.now + most_ns
    while pipe.cc.bbr["state"] != state:
        pipe.run(MS)
        assert pipe.now < end, f"it has been in {in_order(pipe)}"


@pytest.mark.parametrize("kind", [BBR, BBR_LOSSY])
def test_it_finds_the_rate_and_the_round_trip_of_a_path(kind):
    pipe = Pipe(kind, mbit=20, rtt_ns=40 * MS)
    pipe.run(SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(pipe.rate, rel=0.02)
    assert pipe.cc.bbr["min_rtt_ns"] == pytest.approx(pipe.rtt_ns, rel=0.02)
    assert in_order(pipe)[:4] in ([STARTUP, DRAIN, DOWN, CRUISE], [STARTUP, DRAIN, CRUISE])
    assert pipe.in_flight == pytest.approx(pipe.bdp, rel=0.1), "no queue is left"


def test_a_probe_goes_through_refill_and_up_and_finds_twice_the_rate():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    pipe.rate *= 2
    pipe.run(12 * SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(pipe.rate, rel=0.03)
    probes = in_order(pipe, of=(REFILL, UP))
    assert len(probes) >= 4 and probes[:4] == [REFILL, UP, REFILL, UP]


@pytest.mark.spec("CC-10")
def test_half_the_rate_is_found_within_two_cycles():
    pipe = Pipe(BBR, buffer_bdp=4)
    until(pipe, CRUISE)
    pipe.rate /= 2
    pipe.run(9 * SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(pipe.rate, rel=0.05)


@pytest.mark.spec("CC-15")
@pytest.mark.parametrize("rtt_ns", [40 * MS, 100 * MS])
def test_probes_are_two_to_three_seconds_apart(rtt_ns):
    """Over a short path 63 rounds may end the wait, over a long one the time does."""
    pipe = Pipe(BBR, mbit=50, rtt_ns=rtt_ns)
    pipe.run(20 * SECOND)
    waits, since = [], 0
    for (_, before), (at, state) in pairwise(pipe.states):
        if state in (DOWN, CRUISE) and before != DOWN:
            since = at
        elif state == REFILL:
            waits.append((at - since) / SECOND)
    assert len(waits) >= 4 and all(1.9 < wait < 3.1 for wait in waits), waits


@pytest.mark.spec("CC-16")
def test_the_least_round_trip_is_looked_for_when_none_was_seen_for_five_seconds():
    pipe = Pipe(BBR)
    until(pipe, PROBE_RTT)
    assert 4.9 < (pipe.now - SECOND) / SECOND < 5.6
    bdp = pipe.bdp
    began = pipe.now
    pipe.run(150 * MS)
    assert pipe.cc.bbr["state"] == PROBE_RTT and pipe.in_flight <= bdp * 0.55 and pipe.cc.wants_app_limited
    pipe.run(200 * MS)
    assert pipe.cc.bbr["state"] == CRUISE and not pipe.cc.wants_app_limited
    assert pipe.cc.window > 1.5 * bdp, "the window of before is back"
    assert pipe.states[-1][0] - began > 200 * MS


def test_a_longer_path_is_believed_after_ten_seconds():
    pipe = Pipe(BBR, rtt_ns=20 * MS)
    until(pipe, CRUISE)
    pipe.rtt_ns = 50 * MS
    pipe.run(12 * SECOND)
    assert pipe.cc.bbr["min_rtt_ns"] == pytest.approx(50 * MS, rel=0.05)


@pytest.mark.spec("CC-4")
def test_a_sender_that_has_little_to_send_keeps_what_it_knows():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    before = pipe.cc.bbr["bw"]
    pipe.app_rate = pipe.rate / 10
    pipe.run(8 * SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(before, rel=0.02)


def test_a_sender_that_starts_with_little_to_send_stays_in_startup():
    pipe = Pipe(BBR)
    pipe.app_rate = pipe.rate / 10
    pipe.run(4 * SECOND)
    assert pipe.cc.bbr["state"] == STARTUP
    pipe.app_rate = None
    pipe.run(SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(pipe.rate, rel=0.03)


@pytest.mark.spec("CC-19")
def test_after_idleness_it_sends_at_the_rate_of_before_and_not_faster():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    pipe.app_rate, pipe.app_bytes = 1e-6, 0.0
    pipe.run(SECOND)
    assert pipe.in_flight == 0
    until(pipe, CRUISE)
    pipe.cc.sent(pipe.now, PACKET, 0, True)
    assert pipe.cc.pacing_rate(pipe.smoothed_ns) == pytest.approx(0.99 * pipe.cc.bbr["bw"])
    assert pipe.cc.bbr["is_idle_restart"]


def test_an_outage_leaves_the_model_and_takes_the_window():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    before = pipe.cc.bbr["bw"]
    pipe.cc.loss(now_ns=pipe.now, newest_sent_ns=pipe.now, delivered=pipe.delivered, is_persistent=True)
    assert pipe.cc.window == 2 * PACKET and pipe.cc.bbr["bw"] == before


@pytest.mark.spec("CC-18")
def test_recovery_sends_a_packet_for_each_that_has_left_and_ends_with_the_window_of_before():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    before, in_flight = pipe.cc.window, pipe.in_flight
    pipe.cc.loss(now_ns=pipe.now, newest_sent_ns=pipe.now, in_flight=in_flight, delivered=pipe.delivered)
    assert pipe.cc.window == in_flight + PACKET < before
    pipe.run(3 * pipe.rtt_ns)
    assert pipe.cc.window >= before


@pytest.mark.spec("CC-11", "CC-12")
def test_losses_while_cruising_lower_the_bounds_until_the_next_probe():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    pipe.loss = 0.01
    pipe.run(SECOND)
    bbr = pipe.cc.bbr
    assert 0 < bbr["bw_lo"] < 0.97 * max(bbr["max_bw"]) and bbr["bw"] == bbr["bw_lo"]
    assert bbr["inflight_lo"] < NO_BOUND
    pipe.loss = 0.0
    until(pipe, REFILL)
    assert pipe.cc.bbr["bw_lo"] == 0 and pipe.cc.bbr["inflight_lo"] == NO_BOUND


@pytest.mark.spec("CC-13", "CC-14")
def test_a_probe_that_loses_much_bounds_what_is_in_flight_and_leaves_headroom():
    pipe = Pipe(BBR, buffer_bdp=0.1)
    pipe.run(8 * SECOND)
    bound = pipe.cc.bbr["inflight_hi"]
    assert 0.7 * pipe.bdp <= bound < 1.3 * pipe.bdp
    until(pipe, CRUISE)
    pipe.run(5 * MS)
    assert pipe.cc.window <= 0.85 * pipe.cc.bbr["inflight_hi"] + 1
    assert pipe.dropped / pipe.next < 0.02


def test_the_bound_is_raised_again_packet_by_packet_when_there_is_more_room():
    pipe = Pipe(BBR, buffer_bdp=0.1)
    pipe.run(6 * SECOND)
    bound = pipe.cc.bbr["inflight_hi"]
    pipe.rate, pipe.buffer = 2 * pipe.rate, 4 * pipe.bdp
    pipe.run(15 * SECOND)
    assert pipe.cc.bbr["inflight_hi"] > 1.2 * bound


@pytest.mark.spec("CC-17")
@pytest.mark.parametrize("kind", [BBR, BBR_LOSSY])
def test_marks_count_like_losses_for_both_variants(kind):
    pipe = Pipe(kind, buffer_bdp=4, mark=lambda queued: queued > 20 * PACKET)
    pipe.run(10 * SECOND)
    assert pipe.dropped == 0 and pipe.goodput > 0.8
    assert pipe.cc.bbr["inflight_hi"] < 1.6 * pipe.bdp


@pytest.mark.spec("CC-9")
def test_startup_ends_by_losses_in_many_places():
    pipe = Pipe(BBR, loss=0.1)
    while pipe.cc.bbr["state"] == STARTUP:
        pipe.run(MS)
    assert pipe.cc.bbr["full_bw_rounds"] < 3 and pipe.cc.bbr["inflight_hi"] < 2 * pipe.bdp


@pytest.mark.spec("CC-8")
def test_startup_ends_after_three_rounds_without_growth_by_a_quarter():
    cc, now, delivered = Controller(PACKET, BBR), SECOND, 0
    states = []
    for rate in (1e6, 2e6, 2.4e6, 2.4e6, 3.1e6, 3.2e6, 3.3e6, 3.4e6):
        now += 50 * MS
        delivered += 50 * PACKET
        cc.ack(
            90 * PACKET, now_ns=now, acked_bytes=50 * PACKET, newest_sent_ns=now - 50 * MS, rtt_ns=50 * MS, min_rtt_ns=50 * MS,
            smoothed_rtt_ns=50 * MS, in_flight=10**9, rate=rate, delivered=delivered, prior_delivered=delivered - 50 * PACKET,
            prior_in_flight=90 * PACKET,
        )  # fmt: skip
        states.append(cc.bbr["state"])
    assert states == [STARTUP] * 7 + [DRAIN]


GAINS = {STARTUP: 2.77, DRAIN: 0.5, DOWN: 0.9, CRUISE: 1.0, REFILL: 1.0, UP: 1.25, PROBE_RTT: 1.0}


@pytest.mark.spec("CC-6", "CC-7")
def test_rate_and_window_follow_from_what_is_known_in_every_state():
    pipe, seen = Pipe(BBR, mbit=50, buffer_bdp=4), set()

    def note():
        bbr = pipe.cc.bbr
        seen.add(bbr["state"])
        if bbr["is_full_bw_reached"]:
            assert pipe.cc.pacing_rate(1) == pytest.approx(GAINS[bbr["state"]] * 0.99 * bbr["bw"])
        gain = {UP: 2.25, PROBE_RTT: 0.5}.get(bbr["state"], 2.0)
        most = gain * bbr["bw"] * bbr["min_rtt_ns"] / SECOND
        if bbr["state"] != PROBE_RTT:
            most += max(bbr["extra_acked"]) + 3 * bbr["bw"] / 2000 + 2 * PACKET
        if bbr["is_full_bw_reached"]:
            assert pipe.cc.window <= most + 4 * PACKET

    pipe.note = note
    pipe.run(6 * SECOND)
    assert seen == set(GAINS)


@pytest.mark.spec("CC-2")
@pytest.mark.row("C10")
@pytest.mark.parametrize("mbit", [20, 1000])
def test_no_more_than_ten_packets_follow_a_pause_at_once(mbit):
    pipe = Pipe(BBR, mbit=mbit, rtt_ns=5 * MS)
    pipe.run(100 * MS)
    pipe.now += 5 * SECOND
    count = 0
    while pipe.cc.release_ns(pipe.now, pipe.smoothed_ns) == 0:
        pipe.cc.spend(PACKET)
        count += 1
    assert 9 <= count <= 10


@pytest.mark.spec("CC-3")
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30), st.integers(1, 5), st.integers(0, 4)), min_size=3, max_size=60))
def test_the_rate_is_that_of_the_longer_span(steps):
    """The core's books beside those of the chapter: packets are sent, and acknowledged, in groups and with pauses."""
    recovery, now, sent, total, acked = Recoverer(), SECOND, {}, 0, 0
    first = last = now
    for pause_ms, wait_ms, count, left in steps:
        now += pause_ms * MS
        for _ in range(count):
            if acked == len(sent):
                first = last = now
            number = recovery.send(now, PACKET, True)
            sent[number] = (now, total, last, first)
        now += wait_ms * MS
        newest = number - left
        if newest < acked:
            continue
        outcome = recovery.ack(wire.write_ack(0, 0, [(0, newest)], None), now, 0)
        acked, total = newest + 1, total + (newest + 1 - acked) * PACKET
        at, before, last_then, first_then = sent[newest]
        span = max(at - first_then, now - last_then)
        first, last = at, now
        assert outcome["prior_delivered"] == before
        assert outcome["rate"] == pytest.approx((total - before) * SECOND / span, rel=1e-4)
