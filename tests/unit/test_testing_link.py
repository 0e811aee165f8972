"""interpeer.testing's links: each setting does what it says, in the share that it says."""

import itertools

import pytest

from interpeer import Endpoint
from interpeer.testing import Link, Packet, SimClock, SimNet, Wire

A, B = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
PAYLOAD = 972  # with IP and UDP: 1000 bytes


class Track:
    """A wire by itself, and what came out of it when."""

    def __init__(self, seed=1, **settings):
        self.clock = SimClock()
        self.arrived, self.dropped = [], []
        self.wire = Wire(self.clock, Link(**settings), f"seed {seed}", lambda packet, what: self.dropped.append(what))

    def send(self, count=1, payload=PAYLOAD, ecn=0, gap_s=0.0):
        for _ in range(count):
            data = len(self.arrived).to_bytes(2, "big") + bytes(payload - 2)
            self.wire.carry(Packet.of(data, A, B, ecn=ecn), self._arrive)
            self.clock.advance_s(gap_s)
        return self

    def _arrive(self, packet):
        self.arrived.append((round(self.clock.now_s * 1e6), packet))

    def wait(self):
        self.clock.advance_s(1000)
        return self

    @property
    def times_us(self):
        return [time for time, _ in self.arrived]


def test_a_perfect_link_delivers_at_once():
    assert Track().send(3).wait().times_us == [0, 0, 0]


def test_delay_is_added():
    assert Track(delay_s=0.25).send(2).wait().times_us == [250_000, 250_000]


def test_rate_spreads_packets_by_their_size_with_headers():
    track = Track(rate_bit_per_s=8e6).send(3).wait()
    assert track.times_us == [1000, 2000, 3000]


def test_a_full_queue_drops_the_last_ones_by_packets():
    track = Track(rate_bit_per_s=8e6, queue_packets=2).send(5).wait()
    assert track.times_us == [1000, 2000, 3000]  # one on its way out and two that wait
    assert track.dropped == ["queue full"] * 2
    assert track.wire.stats.queue_full == 2
    assert track.wire.stats.max_queue_bytes == 2000


def test_a_full_queue_drops_by_bytes_and_takes_more_when_it_has_emptied():
    track = Track(rate_bit_per_s=8e6, queue_bytes=1500).send(3)
    assert len(track.dropped) == 1
    track.wait().send(2).wait()
    assert len(track.dropped) == 1


def test_packets_that_wait_behind_the_mark_are_marked_if_they_may_be():
    track = Track(rate_bit_per_s=8e6, ecn_mark_bytes=1000).send(3, ecn=2).send(1, ecn=0).wait()
    assert [packet.ecn for _, packet in track.arrived] == [2, 2, 2, 0]
    track = Track(rate_bit_per_s=8e6, ecn_mark_bytes=1000).send(4, ecn=2).wait()
    assert [packet.ecn for _, packet in track.arrived] == [2, 2, 2, 3]
    assert track.wire.stats.marked == 1


def test_bleaching_clears_the_ecn_field():
    assert [packet.ecn for _, packet in Track(bleaches_ecn=True).send(1, ecn=2).wait().arrived] == [0]


def test_larger_packets_than_the_mtu_are_dropped():
    track = Track(mtu_bytes=1000).send(1, payload=972).send(1, payload=973).wait()
    assert len(track.arrived) == 1
    assert track.dropped == ["too large"]


def test_a_direction_that_is_down_lets_nothing_through():
    track = Track(is_up=False).send(2).wait()
    assert track.dropped == ["down", "down"]
    assert track.wire.stats.down == 2


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_that_is_said_is_lost(share):
    track = Track(loss=share).send(20_000).wait()
    assert len(track.dropped) / 20_000 == pytest.approx(share, rel=0.2)
    assert track.wire.stats.lost == len(track.dropped)


@pytest.mark.parametrize("mean", [1, 2, 8])
def test_runs_of_losses_have_the_mean_length_and_the_share_stays(mean):
    track = Track(loss=0.1, loss_run_packets=mean)
    fates = []
    for _ in range(40_000):
        before = len(track.dropped)
        track.send()
        fates.append("x" if len(track.dropped) > before else ".")
    runs = [run for run in "".join(fates).split(".") if run]
    assert sum(map(len, runs)) / len(runs) == pytest.approx(mean, rel=0.15)
    assert len(track.dropped) / 40_000 == pytest.approx(0.1, rel=0.2)


def test_runs_of_losses_end_at_their_limit():
    track = Track(loss=0.9, loss_run_limit=3)
    fates = []
    for _ in range(1000):
        before = len(track.dropped)
        track.send()
        fates.append("x" if len(track.dropped) > before else ".")
    assert max(map(len, "".join(fates).split("."))) == 3


def test_jitter_spreads_packets_and_keeps_their_order():
    track = Track(delay_s=0.1, jitter_s=0.05)
    for number in range(1000):
        track.wire.carry(Packet.of(number.to_bytes(2, "big"), A, B), track._arrive)
        track.clock.advance_s(0.001)
    track.wait()
    order = [int.from_bytes(packet.data, "big") for _, packet in track.arrived]
    delays = [time - number * 1000 for number, (time, _) in enumerate(track.arrived)]
    assert order == sorted(order)
    assert min(delays) >= 100_000
    assert max(delays) <= 150_000
    assert max(delays) - min(delays) > 20_000


def test_reordered_packets_are_overtaken():
    track = Track(reorder=0.1, reorder_s=0.005)
    for number in range(2000):
        track.wire.carry(Packet.of(number.to_bytes(2, "big"), A, B), track._arrive)
        track.clock.advance_s(0.001)
    track.wait()
    order = [int.from_bytes(packet.data, "big") for _, packet in track.arrived]
    assert sorted(order) == list(range(2000))
    assert sum(a > b for a, b in itertools.pairwise(order)) == pytest.approx(200, rel=0.3)


def test_duplicates_arrive_twice_and_say_so():
    track = Track(duplicate=0.25).send(4000).wait()
    assert len(track.arrived) - 4000 == track.wire.stats.duplicated == pytest.approx(1000, rel=0.2)
    assert sum(packet.notes == "duplicate" for _, packet in track.arrived) == track.wire.stats.duplicated


def test_corruption_flips_one_to_three_bits():
    track = Track(corrupt=0.5).send(1000).wait()
    flipped = [int.from_bytes(packet.data[2:], "big").bit_count() for _, packet in track.arrived]
    assert max(flipped) <= 3
    assert sum(packet.notes == "corrupted" for _, packet in track.arrived) == pytest.approx(500, rel=0.2)


def test_settings_change_now_or_later():
    track = Track()
    track.wire.set(delay_s=0.5)
    track.wire.set(after_s=2, is_up=False)
    track.send().wait().send()
    assert track.times_us == [500_000]
    assert track.dropped == ["down"]


def test_a_setting_that_cannot_be_is_refused_when_it_is_made():
    with pytest.raises(TypeError):
        Track().wire.set(after_s=5, speed=3)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        Track().wire.set(after_s=5, loss=2)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"loss": 1.5}, "share"),
        ({"delay_s": -1}, "negative"),
        ({"queue_bytes": -1}, "negative"),
        ({"rate_bit_per_s": 0}, "is not up"),
        ({"loss_run_packets": 0.5}, "at least 1"),
        ({"loss": 1, "loss_run_packets": 2}, "is_up"),
        ({"mtu_bytes": 20}, "at least 68"),
    ],
)
def test_impossible_settings_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        Link(**settings)


def test_the_seed_of_a_wire_decides_what_it_does():
    def fates(seed):
        track = Track(seed, loss=0.3, corrupt=0.2, jitter_s=0.01, reorder=0.1, reorder_s=0.1).send(200, gap_s=0.001).wait()
        return [(time, packet.data) for time, packet in track.arrived]

    assert fates(1) == fates(1) != fates(2)


def test_two_wires_of_one_net_do_not_share_their_chance():
    net = SimNet(Link(loss=0.5), seed=3, clock=SimClock())
    a, b, c = net.host("a"), net.host("b"), net.host("c")
    dropped = []
    for wire in (net.wire(a, b), net.wire(a, c)):
        for _ in range(64):
            wire.carry(Packet.of(bytes(10), A, B), lambda packet: None)
        dropped.append(wire.stats.lost)
    assert dropped[0] == net.wire(a, b).stats.lost > 0
