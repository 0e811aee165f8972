"""Loss detection: what counts as acknowledged, as lost, as persistent congestion, and when to probe (RFC 9002)."""

import pytest

from interpeer._core.probe_transport import Recoverer
from tests.models import wire

MS = 1_000_000
MAX_DELAY = 25 * MS


@pytest.fixture
def recovery():
    return Recoverer()


def send(recovery, count=1, *, at=0, every=0, n=1000, elicits=True):
    """Send packets; return their numbers."""
    return [recovery.send(at + i * every, n, elicits) for i in range(count)]


def ack(recovery, *ranges, at, delay_us=0):
    """Acknowledge ranges (low, high), the highest first."""
    return recovery.ack(wire.write_ack(0, delay_us, list(ranges), None), at, MAX_DELAY)


# --- acknowledgements ---


def test_owner_is_told_the_fate_of_each_packet_once(recovery):
    send(recovery, 10)
    assert ack(recovery, (5, 5), (0, 2), at=10 * MS)["acked_packets"] == 4
    assert sorted(recovery.fates) == [("acked", n) for n in (0, 1, 2, 5)]
    ack(recovery, (9, 9), (0, 5), at=10 * MS)
    assert sorted(recovery.fates) == [("acked", n) for n in (0, 1, 2, 3, 4, 5, 9)] + [("lost", 6)]
    recovery.free()
    assert sorted(recovery.fates)[-3:] == [("lost", n) for n in (6, 7, 8)]
    assert recovery.state["bytes_in_flight"] == recovery.state["eliciting_in_flight"] == 0


def test_bytes_in_flight_are_those_of_packets_that_ask_for_an_acknowledgement(recovery):
    send(recovery, 3, n=100)
    send(recovery, 2, n=40, elicits=False)
    assert recovery.state["bytes_in_flight"] == 300
    outcome = ack(recovery, (0, 4), at=MS)
    assert (outcome["acked_bytes"], outcome["acked_packets"]) == (300, 3)
    assert recovery.state["bytes_in_flight"] == 0


@pytest.mark.row("C1")
@pytest.mark.parametrize("high", [3, 4, 2**62 - 1])
def test_acknowledgement_of_what_was_never_sent_is_a_violation(recovery, high):
    send(recovery, 3)
    assert ack(recovery, (2, high), at=MS) is None
    assert recovery.fates == []


@pytest.mark.row("C1", "C6")
def test_acknowledgement_of_a_number_left_out_is_a_violation(recovery):
    send(recovery, 2)
    assert recovery.skip() == 2
    send(recovery, 2)
    assert ack(recovery, (4, 4), (0, 1), at=MS) is not None
    assert ack(recovery, (3, 4), (0, 1), at=MS) is not None
    other = Recoverer()
    send(other, 2)
    other.skip()
    send(other, 2)
    assert ack(other, (0, 4), at=MS) is None


@pytest.mark.row("C1", "C6")
def test_lie_about_a_number_left_out_is_found_while_it_is_the_newest(recovery):
    send(recovery, 1)
    recovery.skip()
    assert ack(recovery, (0, 0), at=MS) is not None
    assert ack(recovery, (1, 1), at=2 * MS) is None


def test_repeated_and_old_acknowledgements_change_nothing(recovery):
    send(recovery, 10, every=MS)
    ack(recovery, (0, 6), at=50 * MS)
    before = recovery.state, recovery.rtt
    for ranges in (((0, 6),), ((0, 3),), ((5, 5), (1, 1))):
        outcome = ack(recovery, *ranges, at=90 * MS)
        assert not outcome["acked_packets"] and not outcome["has_rtt"] and not outcome["largest_moved"]
    assert (recovery.state, recovery.rtt) == before


# --- round trips ---


def test_first_sample_sets_everything(recovery):
    send(recovery)
    ack(recovery, (0, 0), at=80 * MS, delay_us=20_000)
    assert recovery.rtt == (80 * MS, 80 * MS, 40 * MS, 80 * MS)


def test_later_samples_are_smoothed_and_the_peers_delay_is_taken_off(recovery):
    send(recovery)
    ack(recovery, (0, 0), at=80 * MS)
    send(recovery, at=100 * MS)
    ack(recovery, (0, 1), at=220 * MS, delay_us=16_000)  # 120, of which 104 on the way
    assert recovery.rtt == (120 * MS, 83 * MS, 36 * MS, 80 * MS)


def test_peer_that_exaggerates_its_delay_is_not_believed(recovery):
    send(recovery)
    ack(recovery, (0, 0), at=80 * MS)
    send(recovery, at=100 * MS)
    ack(recovery, (0, 1), at=300 * MS, delay_us=2**50)  # 200, less the 25 that were promised
    assert recovery.rtt[1] == (7 * 80 * MS + 175 * MS) // 8
    send(recovery, at=400 * MS)
    ack(recovery, (0, 2), at=490 * MS, delay_us=24_000)  # less would be below the least ever
    assert recovery.rtt[1] == (7 * ((7 * 80 + 175) * MS // 8) + 90 * MS) // 8


def test_only_the_largest_number_gives_a_sample(recovery):
    send(recovery, 3, every=10 * MS)
    assert ack(recovery, (2, 2), at=100 * MS)["has_rtt"]
    assert not ack(recovery, (0, 2), at=200 * MS)["has_rtt"]
    assert recovery.rtt[0] == 80 * MS


def test_bare_acknowledgement_sent_last_does_not_cost_the_sample(recovery):
    """RFC 9002, 5.1: the largest number is newly acknowledged, and one of those acknowledged asked for it."""
    send(recovery)
    send(recovery, at=10 * MS, elicits=False)
    outcome = ack(recovery, (0, 1), at=60 * MS)
    assert outcome["has_rtt"] and recovery.rtt[0] == 50 * MS
    send(recovery, at=100 * MS, elicits=False)
    assert not ack(recovery, (0, 2), at=200 * MS)["has_rtt"]  # nothing here asked for it


def test_round_trip_of_the_handshake_is_the_first_sample(recovery):
    assert recovery.pto_ns(0) == 999 * MS
    recovery.seed_rtt(40 * MS)
    assert recovery.rtt == (40 * MS, 40 * MS, 20 * MS, 40 * MS)
    assert recovery.pto_ns(MAX_DELAY) == 40 * MS + 80 * MS + MAX_DELAY


# --- losses ---


def test_three_later_packets_prove_a_loss(recovery):
    send(recovery, 5)
    assert ack(recovery, (2, 2), at=MS)["lost_packets"] == 0
    outcome = ack(recovery, (3, 3), at=MS)
    assert outcome["lost_packets"] == 1 and outcome["lost_bytes"] == 1000 and ("lost", 0) in recovery.fates
    assert recovery.state["bytes_in_flight"] == 2000


def test_nine_eighths_of_a_round_trip_prove_a_loss(recovery):
    send(recovery, 2, at=1000 * MS)
    assert ack(recovery, (1, 1), at=1080 * MS)["lost_packets"] == 0
    assert recovery.deadline(MAX_DELAY) == recovery.state["loss_time_ns"] == 1090 * MS
    assert recovery.timeout(1090 * MS - 1)["lost_packets"] == 0 and recovery.state["pto_count"] == 0
    assert recovery.timeout(1090 * MS)["lost_packets"] == 1 and recovery.fates[-1] == ("lost", 0)
    assert recovery.deadline(MAX_DELAY) == 0


def test_short_round_trips_leave_a_millisecond_for_reordering(recovery):
    send(recovery, 2, at=MS)
    ack(recovery, (1, 1), at=MS + 1000)
    assert recovery.state["loss_time_ns"] == 2 * MS


def test_lost_packets_are_told_with_the_times_they_were_sent(recovery):
    send(recovery, 8, at=MS, every=1000)
    outcome = ack(recovery, (7, 7), at=20 * MS)
    assert outcome["lost_packets"] == 5 and outcome["newest_lost_sent_ns"] == MS + 4000
    assert outcome["newest_acked_sent_ns"] == MS + 7000


def test_acknowledgement_of_a_lost_packet_is_ignored(recovery):
    send(recovery, 5)
    ack(recovery, (4, 4), at=MS)
    assert ("lost", 0) in recovery.fates
    assert ack(recovery, (4, 4), (0, 1), at=2 * MS)["acked_packets"] == 0
    assert ("acked", 0) not in recovery.fates


# --- persistent congestion (RFC 9002, 7.6) ---


def settled(recovery):
    """Take a round trip of 100 ms as the first sample, at 100 ms; return the duration that makes congestion persistent."""
    send(recovery)
    ack(recovery, (0, 0), at=100 * MS)
    return 3 * (recovery.rtt[1] + 4 * recovery.rtt[2] + MAX_DELAY)


@pytest.mark.row("C8")
def test_losses_far_apart_with_nothing_acknowledged_between_are_persistent_congestion(recovery):
    settled(recovery)
    start = 200 * MS
    send(recovery, 2, at=start)
    send(recovery, at=start + 500 * MS)
    send(recovery, at=start + 1500 * MS)
    send(recovery, at=start + 3000 * MS)
    outcome = ack(recovery, (5, 5), at=start + 3100 * MS)
    assert outcome["lost_packets"] == 4 and outcome["is_persistent"]


@pytest.mark.row("C10")
def test_losses_close_together_are_not_persistent_congestion(recovery):
    duration = settled(recovery)
    start = 200 * MS
    # the sample of this acknowledgement moves the duration; the greatest that it can become bounds the test
    send(recovery, 2, at=start)
    send(recovery, at=start + duration // 2)
    send(recovery, at=start + 3000 * MS)
    outcome = ack(recovery, (4, 4), at=start + 3100 * MS)
    assert outcome["lost_packets"] == 3 and not outcome["is_persistent"]


@pytest.mark.row("C10")
def test_packet_acknowledged_between_the_losses_disproves_persistent_congestion(recovery):
    settled(recovery)
    start = 200 * MS
    send(recovery, 2, at=start)
    send(recovery, at=start + 1000 * MS)
    send(recovery, 2, at=start + 2000 * MS)
    send(recovery, at=start + 3000 * MS)
    outcome = ack(recovery, (6, 6), (3, 3), at=start + 3100 * MS)
    assert outcome["lost_packets"] == 4 and not outcome["is_persistent"]


def test_duration_of_persistent_congestion_counts_the_peers_delay(recovery):
    """Three probe time-outs, each with the delay that the peer may take."""
    settled(recovery)
    start, round_trip = 200 * MS, 100 * MS
    smoothed, variance = round_trip, 50 * MS
    variance = (3 * variance) // 4
    duration = 3 * (smoothed + 4 * variance + MAX_DELAY)
    for span, is_persistent in ((duration, False), (duration + 1, True)):
        other = Recoverer()
        settled(other)
        send(other, at=start)
        send(other, at=start + span)
        send(other, 3, at=start + span + MS)
        outcome = ack(other, (5, 5), at=start + span + MS + round_trip)
        assert outcome["lost_packets"] == 2 and outcome["is_persistent"] == is_persistent


def test_packets_sent_before_the_first_sample_prove_no_persistent_congestion(recovery):
    send(recovery, at=0)
    send(recovery, at=20_000 * MS)
    send(recovery, 3, at=20_001 * MS)
    outcome = ack(recovery, (4, 4), at=20_100 * MS)
    assert outcome["lost_packets"] == 2 and not outcome["is_persistent"]


# --- probes ---


@pytest.mark.row("C8")
def test_probe_timeout_doubles_up_to_two_seconds(recovery):
    send(recovery)
    ack(recovery, (0, 0), at=100 * MS)
    send(recovery, at=1000 * MS)
    pto = 100 * MS + 200 * MS + MAX_DELAY
    for count, wait in enumerate((pto, 2 * pto, 4 * pto, 2000 * MS, 2000 * MS)):
        assert recovery.state["pto_count"] == count
        assert recovery.deadline(MAX_DELAY) == 1000 * MS + wait
        recovery.timeout(recovery.deadline(MAX_DELAY))
    for _ in range(100):
        recovery.timeout(10_000 * MS)
    assert recovery.deadline(MAX_DELAY) == 3000 * MS
    ack(recovery, (0, 1), at=11_000 * MS)
    assert recovery.state["pto_count"] == 0


def test_probe_timeout_of_a_slow_path_is_longer_than_the_cap(recovery):
    send(recovery)
    ack(recovery, (0, 0), at=1500 * MS)
    send(recovery, at=2000 * MS)
    pto = recovery.pto_ns(0)
    assert pto > 2000 * MS
    for _ in range(3):
        assert recovery.deadline(0) == 2000 * MS + pto
        recovery.timeout(20_000 * MS)


def test_nothing_is_due_while_nothing_waits(recovery):
    assert recovery.deadline(MAX_DELAY) == 0
    send(recovery, 3, elicits=False)
    assert recovery.deadline(MAX_DELAY) == 0 and recovery.oldest_sent_ns() is None
    send(recovery, at=7)
    assert recovery.deadline(0) == 7 + 999 * MS and recovery.oldest_sent_ns() == 7


# --- memory ---


def test_only_receiving_keeps_no_records(recovery):
    send(recovery, 100_000, elicits=False)
    assert recovery.kept[0] == 0 and recovery.kept[1] <= 16


def test_idle_path_gives_its_memory_back(recovery):
    send(recovery, 5000)
    assert recovery.kept == (5000, 8192)
    ack(recovery, (0, 4999), at=MS)
    assert recovery.kept[0] == 0 and recovery.kept[1] <= 16
    assert send(recovery) == [5000]
    assert ack(recovery, (0, 5000), at=MS)["acked_packets"] == 1
