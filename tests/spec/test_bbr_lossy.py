"""The variant of BBR for paths that lose packets: which losses it takes for congestion, and which it does not."""

from types import SimpleNamespace

import pytest

from tests.models.pipe import BBR, BBR_LOSSY, CRUISE, CUBIC, DOWN, MS, PACKET, SECOND, UP, Pipe
from tests.spec.test_bbr import NO_BOUND, until


@pytest.mark.parametrize(("loss", "least"), [(0.0, 0.93), (0.01, 0.9), (0.02, 0.88), (0.05, 0.8), (0.1, 0.6)])
def test_random_losses_cost_little_more_than_themselves(loss, least):
    pipe = Pipe(BBR_LOSSY, loss=loss, seed=7)
    pipe.run(10 * SECOND)
    assert pipe.goodput > least


def test_it_delivers_many_times_as_much_as_the_others_where_a_twentieth_is_lost():
    goodput = {}
    for kind in (CUBIC, BBR, BBR_LOSSY):
        pipe = Pipe(kind, loss=0.05)
        pipe.run(10 * SECOND)
        goodput[kind] = pipe.goodput
    assert goodput[BBR_LOSSY] > 5 * goodput[BBR] and goodput[BBR_LOSSY] > 8 * goodput[CUBIC]


@pytest.mark.spec("CC-20")
def test_losses_without_a_queue_lower_no_bound():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=4)
    until(pipe, CRUISE)
    pipe.run(200 * MS)
    pipe.loss = 0.03
    pipe.run(SECOND // 2)
    assert pipe.lost and pipe.cc.bbr["bw_lo"] == 0 and pipe.cc.bbr["inflight_lo"] == NO_BOUND


@pytest.mark.spec("CC-21")
def test_losses_with_a_queue_lower_the_bounds():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=0.5)
    until(pipe, CRUISE)
    pipe.rate *= 0.7  # somebody else takes the rest: the queue fills, and overflows
    pipe.run(SECOND // 2)
    assert pipe.dropped and 0 < pipe.cc.bbr["bw_lo"] < 0.9 * max(pipe.cc.bbr["max_bw"])


@pytest.mark.spec("CC-21")
def test_a_loss_while_a_probes_queue_drains_lowers_nothing_when_the_round_ends_after_that():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=4)
    until(pipe, UP)
    until(pipe, DOWN)
    while pipe.smoothed_ns > 1.3 * pipe.min_ns:
        pipe.run(MS)
    chances = iter([0.0])
    pipe.random, pipe.loss = SimpleNamespace(random=lambda: next(chances, 1.0)), 0.5  # the next packet, and no other
    while not pipe.lost:
        pipe.run(MS)
    lost_at = pipe.delivered
    pipe.rate *= 1.2  # the rest of the queue drains within less than a round
    until(pipe, CRUISE)
    assert pipe.cc.bbr["is_queued"] and pipe.delivered - lost_at < pipe.bdp
    pipe.run(SECOND // 2)
    assert pipe.cc.bbr["bw_lo"] == 0 and pipe.cc.bbr["inflight_lo"] == NO_BOUND


@pytest.mark.spec("CC-22")
def test_losses_of_a_fifth_are_congestion_whatever_the_round_trip_says():
    """A policer drops without a queue."""
    pipe = Pipe(BBR_LOSSY)
    until(pipe, CRUISE)
    pipe.loss = 0.4
    pipe.run(300 * MS)
    assert 0 < pipe.cc.bbr["bw_lo"] < 0.8 * max(pipe.cc.bbr["max_bw"])


def test_the_share_that_is_lost_without_a_queue_is_learnt():
    pipe = Pipe(BBR_LOSSY, loss=0.05, seed=3)
    pipe.run(8 * SECOND)
    assert pipe.cc.bbr["loss_floor"] == pytest.approx(0.05, abs=0.02)
    pipe.loss = 0.0
    pipe.run(8 * SECOND)
    assert pipe.cc.bbr["loss_floor"] < 0.01


@pytest.mark.spec("CC-23")
def test_a_full_queue_teaches_nothing_of_it():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=0.3)
    pipe.run(8 * SECOND)
    assert pipe.dropped and pipe.cc.bbr["loss_floor"] < 0.005


@pytest.mark.spec("CC-23")
def test_what_is_lost_while_packets_wait_teaches_nothing_of_it_either():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=4)
    until(pipe, CRUISE)
    pipe.rtt_ns = round(pipe.rtt_ns * 1.5)  # a queue of others, as far as round trips tell
    pipe.loss = 0.1
    pipe.run(3 * SECOND)
    assert pipe.lost > 64 and pipe.cc.bbr["loss_floor"] < 0.005


def test_round_trips_near_the_least_one_spare_it_the_look_for_it():
    pipe = Pipe(BBR_LOSSY, mbit=50)
    pipe.run(12 * SECOND)
    assert 6 not in {state for _, state in pipe.states}


def test_a_queue_that_stays_has_it_look_for_the_least_round_trip():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=4)
    until(pipe, CRUISE)
    pipe.rtt_ns += 5 * MS
    pipe.run(6 * SECOND)
    assert 6 in {state for _, state in pipe.states}


@pytest.mark.spec("CC-24")
def test_the_older_rate_is_forgotten_by_the_end_of_that_probe_and_not_a_cycle_later():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=0.3)
    until(pipe, CRUISE)
    pipe.rate /= 2
    until(pipe, UP)
    assert max(pipe.cc.bbr["max_bw"]) > 1.5 * pipe.rate
    until(pipe, DOWN)
    assert max(pipe.cc.bbr["max_bw"]) < 1.2 * pipe.rate


@pytest.mark.spec("CC-24")
def test_a_probe_that_overflows_a_queue_ends_the_belief_in_an_older_rate():
    pipe = Pipe(BBR_LOSSY, buffer_bdp=0.3)
    until(pipe, CRUISE)
    pipe.rate /= 2
    pipe.run(5 * SECOND)
    assert pipe.cc.bbr["bw"] == pytest.approx(pipe.rate, rel=0.1)
    assert pipe.in_flight < 1.5 * pipe.rate * pipe.rtt_ns / SECOND + 4 * PACKET
