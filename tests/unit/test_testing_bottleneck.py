"""interpeer.testing's bottlenecks: CoDel, policers, schedules, and queues that several pairs of hosts share."""

import itertools

import pytest

from interpeer import Endpoint
from interpeer.testing import Link, Packet, SimClock, SimNet, Wire

A, B = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
PAYLOAD = 972  # with IP and UDP: 1000 bytes


class Track:
    """A wire by itself, and what came out of it when."""

    def __init__(self, **settings):
        self.clock = SimClock()
        self.arrived, self.dropped = [], []
        self.wire = Wire(self.clock, Link(**settings), "seed", lambda packet, what: self.dropped.append((self.clock.now_s, what)))

    def send(self, count, *, gap_s=0.0, ecn=0):
        for _ in range(count):
            self.wire.carry(Packet.of(bytes(PAYLOAD), A, B, ecn=ecn), lambda p: self.arrived.append((self.clock.now_s, p)))
            self.clock.advance_s(gap_s)
        return self


def test_a_policer_lets_a_burst_through_and_then_its_rate_without_delay():
    track = Track(policer_bit_per_s=8e6, policer_burst_bytes=5000).send(10)
    assert len(track.arrived) == 5
    assert track.dropped == [(0, "policed")] * 5
    track.clock.advance_s(0.0025)  # two more packets, and half of one
    track.send(4)
    assert len(track.arrived) == 7
    assert track.wire.stats.policed == 7


def test_a_policer_passes_its_rate_of_a_faster_flow():
    track = Track(policer_bit_per_s=4e6).send(10_000, gap_s=0.001)  # 8 Mbit/s for ten seconds
    assert len(track.arrived) * 8000 / 10 == pytest.approx(4e6, rel=0.01)


def test_codel_leaves_a_short_queue_alone():
    track = Track(rate_bit_per_s=8e6, codel_target_s=0.005)
    for _ in range(200):
        track.send(4)  # waits for three milliseconds at most
        track.clock.advance_s(0.004)
    assert track.dropped == []


def test_codel_drops_at_a_growing_pace_while_the_queue_stands():
    track = Track(rate_bit_per_s=8e6, codel_target_s=0.005).send(1500, gap_s=0.0009)  # a little more than it takes
    times = [time for time, what in track.dropped if what == "codel"]
    assert track.wire.stats.codel == len(times) > 4
    assert times[0] > 0.1  # not before the delay has stood for an interval
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(later < earlier + 0.002 for earlier, later in itertools.pairwise(gaps))
    assert gaps[0] == pytest.approx(0.1, rel=0.1)
    assert gaps[1] == pytest.approx(0.1 / 2**0.5, rel=0.1)


def test_codel_marks_what_may_be_marked():
    track = Track(rate_bit_per_s=8e6, codel_target_s=0.005).send(1500, gap_s=0.0009, ecn=2)
    assert track.dropped == []
    track.clock.advance_s(10)
    assert sum(packet.ecn == 3 for _, packet in track.arrived) == track.wire.stats.marked > 4


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"policer_bit_per_s": 0}, "is not up"),
        ({"policer_bit_per_s": 1e6, "policer_burst_bytes": 1000}, "at least mtu_bytes"),
        ({"codel_target_s": -1}, "not negative"),
        ({"codel_target_s": 0.005, "codel_interval_s": 0}, "more than 0"),
    ],
)
def test_impossible_settings_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        Link(**settings)


def is_up_by_second(wire, clock, seconds):
    found = []
    for _ in range(seconds):
        found.append("+" if wire.link.is_up else "-")
        clock.advance_s(1)
    return "".join(found)


def test_a_schedule_repeats_until_it_is_stopped():
    track = Track()
    stop = track.wire.schedule([(5, {"is_up": False}), (7, {"is_up": True})], every_s=7)
    track.clock.advance_s(0.5)
    assert is_up_by_second(track.wire, track.clock, 15) == "+++++--+++++--+"
    stop()
    assert is_up_by_second(track.wire, track.clock, 10) == "+" * 10
    assert track.clock.next_ns is None


def test_a_schedule_without_repetition_ends_by_itself():
    track = Track()
    track.wire.schedule([(2, Link(delay_s=2)), (1, {"delay_s": 1})])  # in the order of their times
    assert [(track.clock.advance_s(1), track.wire.link.delay_s)[1] for _ in range(3)] == [1, 2, 2]
    assert track.clock.next_ns is None


def test_a_trace_of_rates_is_a_schedule():
    track = Track(rate_bit_per_s=8e6)
    track.wire.schedule([(second, {"rate_bit_per_s": rate}) for second, rate in enumerate((8e6, 2e6, 4e6))])
    track.send(3001, gap_s=0.001)
    track.clock.advance_s(100)
    assert sum(time <= 1.0005 for time, _ in track.arrived) == pytest.approx(1000, abs=1)


@pytest.mark.parametrize("steps", [[(8, {"is_up": False})], [(-1, {"is_up": False})]])
def test_a_schedule_whose_times_do_not_fit_is_refused(steps):
    with pytest.raises(ValueError, match="from 0 to every_s"):
        Track().wire.schedule(steps, every_s=7)


def test_a_schedule_with_impossible_settings_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="share"):
        Track().wire.schedule([(1, {"loss": 2})])
    with pytest.raises(TypeError):
        Track().wire.schedule([(1, {"speed": 2})])
    with pytest.raises(ValueError, match="more than 0"):
        Track().wire.schedule([(0, {"loss": 0})], every_s=0)


def test_pairs_of_hosts_share_one_queue():
    clock = SimClock()
    net = SimNet(clock=clock)
    a, b, c, d = (net.host() for _ in range(4))
    shared = net.bottleneck(Link(rate_bit_per_s=8e6), [a, b], [c, d])
    arrived = []
    for source, target in ((a, c), (b, d)) * 2:
        net.wire(source, target).carry(Packet.of(bytes(PAYLOAD), A, B), lambda p: arrived.append(round(clock.now_s * 1e3)))
    clock.advance_s(1)
    assert arrived == [1, 2, 3, 4]
    assert shared.stats.packets == 4
    assert net.wire(c, a) is not shared


def test_a_host_cannot_be_on_both_sides_of_a_bottleneck():
    net = SimNet(clock=SimClock())
    a, b = net.host(), net.host()
    with pytest.raises(ValueError, match="itself"):
        net.bottleneck(Link(), [a, b], [b])
