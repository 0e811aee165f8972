"""Loss recovery beside the slow model of RFC 9002."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interpeer._core.probe_transport import Recoverer
from tests.models import recovery, wire

MS = 1_000_000
MAX_DELAY = 25 * MS

times = st.integers(0, 1000) | st.sampled_from([MS // 10, MS, 10 * MS, 40 * MS, 100 * MS, 700 * MS, 5000 * MS])


def ranges_of(numbers):
    """Return the ranges (low, high) that numbers consist of, the highest first."""
    found = []
    for number in sorted(numbers, reverse=True):
        if found and found[-1][0] == number + 1:
            found[-1][0] = number
        else:
            found.append([number, number])
    return [tuple(r) for r in found[:64]]


class RecoveryBesideTheModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.core, self.model, self.now = Recoverer(), recovery.Recovery(), MS
        self.acked, self.lost = set(), set()

    @rule(by=times)
    def pass_time(self, by):
        self.now += by

    @rule(count=st.integers(1, 12), size=st.integers(30, 1500), elicits=st.sampled_from([True, True, False]), every=times)
    def send(self, count, size, elicits, every):
        for _ in range(count):
            assert self.core.send(self.now, size, elicits) == self.model.send(self.now, size, elicits)
            self.now += every

    @rule()
    def skip(self):
        assert self.core.skip() == self.model.skip()

    def compare(self, ours, model):
        self.acked |= {packet.number for packet in model.acked}
        self.lost |= {packet.number for packet in model.lost}
        assert ours["acked_packets"] == len(model.acked) and ours["acked_bytes"] == sum(p.size for p in model.acked)
        assert ours["lost_packets"] == len(model.lost) and ours["lost_bytes"] == sum(p.size for p in model.lost)
        assert (ours["has_rtt"], ours["is_persistent"]) == (model.has_rtt, model.is_persistent)
        if model.acked:
            assert ours["newest_acked_sent_ns"] == model.acked[-1].time
        if model.lost:
            assert ours["newest_lost_sent_ns"] == model.lost[-1].time

    @precondition(lambda self: any(self.model.packets))
    @rule(
        data=st.data(), delay_us=st.integers(0, 1000) | st.sampled_from([24_000, 25_000, 10**6, 2**50]), is_newest=st.booleans()
    )
    def acknowledge(self, data, delay_us, is_newest):
        sent = [packet.number for packet in self.model.packets[-60:] if packet is not None]
        if not sent:
            return
        numbers = data.draw(st.sets(st.sampled_from(sent), min_size=1))
        if is_newest:
            numbers |= set(sent[: data.draw(st.integers(0, len(sent)))])
        ranges = ranges_of(numbers)
        before = self.model.largest_acked
        ours = self.core.ack(wire.write_ack(0, delay_us, ranges, None), self.now, MAX_DELAY)
        model = self.model.handle_ack(ranges, delay_us * 1000, self.now, MAX_DELAY)
        self.compare(ours, model)
        assert ours["largest_moved"] == (self.model.largest_acked > before)

    @rule(early=st.booleans())
    def fire(self, early):
        deadline = self.model.deadline(MAX_DELAY)
        if deadline > self.now:
            if early:
                return
            self.now = deadline
        if deadline:
            self.compare(self.core.timeout(self.now, MAX_DELAY), self.model.handle_timeout(self.now, MAX_DELAY))

    @invariant()
    def same(self):
        assert sorted(self.core.fates) == sorted([("acked", n) for n in self.acked] + [("lost", n) for n in self.lost])
        state = self.core.state
        assert state["bytes_in_flight"] == self.model.in_flight
        assert state["eliciting_in_flight"] == len(self.model.waiting)
        assert (state["loss_time_ns"], state["pto_count"]) == (self.model.loss_time, self.model.pto_count)
        assert state["largest_acked"] % 2**64 == self.model.largest_acked % 2**64
        assert self.core.rtt == (self.model.latest, self.model.smoothed, self.model.variance, self.model.least)
        assert self.core.deadline(MAX_DELAY) == self.model.deadline(MAX_DELAY)
        assert self.core.pto_ns(MAX_DELAY) == self.model.pto(MAX_DELAY)
        oldest = min((packet.time for packet in self.model.waiting.values()), default=None)
        assert self.core.oldest_sent_ns() == oldest


TestRecovery = RecoveryBesideTheModel.TestCase
