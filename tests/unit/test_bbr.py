"""BBR's machine: every state with every input, and what each state does to a path."""

from itertools import pairwise

import pytest

from interpeer._core.probe_cc import Controller
from tests.models.pipe import (
    BBR, BBR_LOSSY, CRUISE, DOWN, DRAIN, MS, PACKET, PROBE_RTT, REFILL, SECOND, STARTUP, UP, Pipe)  # fmt: skip

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


def test_half_the_rate_is_found_within_two_cycles():
    pipe = Pipe(BBR, buffer_bdp=4)
    until(pipe, CRUISE)
    pipe.rate /= 2
    pipe.run(9 * SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(pipe.rate, rel=0.05)


def test_probes_are_two_to_three_seconds_apart():
    pipe = Pipe(BBR, mbit=50)
    pipe.run(20 * SECOND)
    waits, since = [], 0
    for (_, before), (at, state) in pairwise(pipe.states):
        if state in (DOWN, CRUISE) and before != DOWN:
            since = at
        elif state == REFILL:
            waits.append((at - since) / SECOND)
    assert len(waits) >= 4 and all(1.9 < wait < 3.1 for wait in waits), waits


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


def test_recovery_sends_a_packet_for_each_that_has_left_and_ends_with_the_window_of_before():
    pipe = Pipe(BBR)
    until(pipe, CRUISE)
    before, in_flight = pipe.cc.window, pipe.in_flight
    pipe.cc.loss(now_ns=pipe.now, newest_sent_ns=pipe.now, in_flight=in_flight, delivered=pipe.delivered)
    assert pipe.cc.window == in_flight + PACKET < before
    pipe.run(3 * pipe.rtt_ns)
    assert pipe.cc.window >= before


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


@pytest.mark.parametrize("kind", [BBR, BBR_LOSSY])
def test_marks_count_like_losses_for_both_variants(kind):
    pipe = Pipe(kind, buffer_bdp=4, mark=lambda queued: queued > 20 * PACKET)
    pipe.run(10 * SECOND)
    assert pipe.dropped == 0 and pipe.goodput > 0.8
    assert pipe.cc.bbr["inflight_hi"] < 1.6 * pipe.bdp


def test_startup_ends_by_losses_in_many_places():
    pipe = Pipe(BBR, loss=0.1)
    pipe.run(SECOND)
    assert pipe.cc.bbr["is_full_bw_reached"] and pipe.cc.bbr["inflight_hi"] < NO_BOUND
