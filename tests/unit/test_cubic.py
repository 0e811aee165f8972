"""CUBIC beside the formulas of RFC 9438, and the end of slow start by RFC 9406."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._core.probe_cc import Controller
from tests.models import cubic
from tests.unit.congestion import INITIAL, LEAST, MS, PACKET, SECOND, ack, grow, lose


@pytest.fixture
def cc():
    return Controller(PACKET)


# --- the curve ---

Steps = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), min_size=1, max_size=120)


@given(window=st.integers(4, 3000), earlier=st.integers(4, 4000), rtt_ms=st.integers(1, 800), steps=Steps)
def test_window_follows_the_formulas(window, earlier, rtt_ms, steps):
    """`steps` are milliseconds that pass, and packets that are then acknowledged."""
    cc, model, now = Controller(PACKET), None, SECOND
    grow(cc, earlier * PACKET) if earlier > 10 else None
    w_max = 0.0
    if earlier > 10 and window < earlier:  # two events, the second one at a smaller window: fast convergence
        w_max = earlier
        lose(cc, now, now - 1)
    before = cc.window / PACKET
    now += 1
    lose(cc, now, now)
    model = cubic.Cubic(before, w_max)
    if model.window < 2:
        return
    for pass_ms, packets in steps:
        now += pass_ms * MS + 1
        ack(cc, now, packets * PACKET, sent=now, rtt=0, smoothed=rtt_ms * MS)
        model.ack(now / SECOND, packets, rtt_ms / 1000)
        # each step of the core rounds to a byte
        assert cc.window / PACKET == pytest.approx(model.window, rel=1e-3, abs=len(steps) / PACKET)


def test_curve_is_back_at_the_old_window_after_k_seconds_and_grows_faster_then(cc):
    grow(cc, 1000 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND)
    k = cubic.Cubic(1000.0).k()
    at = {}
    rtt = 200 * MS
    for i in range(int(2 * k * SECOND / rtt)):
        now = 2 * SECOND + 1 + i * rtt
        at[now] = cc.window / PACKET
        ack(cc, now, cc.window, rtt=rtt, smoothed=rtt, sent=now)
    times = list(at)
    near = min(times, key=lambda now: abs(now - 2 * SECOND - k * SECOND))
    assert at[near] == pytest.approx(1000, rel=0.02)
    first, middle, last = at[times[5]] - at[times[0]], at[times[times.index(near) + 2]] - at[near], at[times[-1]] - at[times[-6]]
    assert first > 5 * middle and last > 5 * middle


def test_window_grows_a_packet_each_round_trip_once_it_is_past_the_old_one(cc):
    """RFC 9438, 4.3: where the curve is slower than Reno, and the window of the last event is reached again."""
    grow(cc, 20 * PACKET)
    lose(cc, 2 * SECOND, 2 * SECOND)
    windows = []
    for i in range(60):  # round trips of a millisecond: the curve hardly moves
        windows.append(cc.window / PACKET)
        ack(cc, 2 * SECOND + 1 + i * MS, cc.window, rtt=MS, smoothed=MS, sent=2 * SECOND + 1 + i * MS)
    before = [b - a for a, b in pairwise(windows) if b < 20]
    after = [b - a for a, b in pairwise(windows) if a > 20]
    assert before == pytest.approx([cubic.ALPHA] * len(before), abs=0.01) and len(before) > 5
    assert after == pytest.approx([1.0] * len(after), abs=0.01) and len(after) > 5


def test_time_in_which_the_window_was_not_used_does_not_count(cc):
    other = Controller(PACKET)
    for c in (cc, other):
        grow(c, 1000 * PACKET)
        lose(c, 2 * SECOND, 2 * SECOND)
        ack(c, 3 * SECOND)
    pause = 10 * SECOND
    for i in range(101):
        ack(other, 3 * SECOND + i * pause // 100, PACKET, app_limited=True)
    assert other.window == cc.window
    for i in range(1, 20):
        ack(cc, 3 * SECOND + i * 100 * MS, 100 * PACKET)
        ack(other, 3 * SECOND + pause + i * 100 * MS, 100 * PACKET)
        assert abs(other.window - cc.window) <= i


def test_window_that_is_not_used_does_not_grow_in_slow_start(cc):
    ack(cc, SECOND, 2 * PACKET, app_limited=True)
    assert cc.window == INITIAL


# --- HyStart++ ---


class Rounds:
    """Slow start, round by round: all of a window is sent at once and acknowledged packet by packet."""

    def __init__(self, cc):
        self.cc, self.now = cc, SECOND

    def run(self, rtt_ns, samples=8):
        """Return by how much the window has grown, as a share of it."""
        before, sent = self.cc.window, self.now
        self.now += rtt_ns
        for i in range(samples):
            ack(self.cc, self.now + i, before // samples, sent=sent, rtt=rtt_ns, smoothed=rtt_ns)
        self.now += samples
        return self.cc.window / before - 1


@pytest.fixture
def rounds(cc):
    return Rounds(cc)


def test_steady_round_trips_double_the_window_for_ever(rounds):
    assert [round(rounds.run(50 * MS), 2) for _ in range(8)] == [1.0] * 8
    assert not rounds.cc.is_conservative


@pytest.mark.parametrize(
    ("rtt", "threshold"),
    [
        (MS // 10, MS),  # in a machine, less than the RFC has
        (MS - 1, MS),
        (MS, 4 * MS),
        (10 * MS, 4 * MS),
        (48 * MS, 6 * MS),
        (128 * MS, 16 * MS),
        (600 * MS, 16 * MS),
    ],
)
def test_slow_start_is_conservative_once_the_round_trip_has_grown_by_an_eighth_within_bounds(rtt, threshold):
    for growth, is_conservative in ((threshold - 1, False), (threshold, True)):
        rounds = Rounds(Controller(PACKET))
        rounds.run(rtt)
        rounds.run(rtt)
        rounds.run(rtt + growth)
        assert rounds.cc.is_conservative == is_conservative


def test_too_few_samples_decide_nothing(rounds):
    rounds.run(50 * MS)
    rounds.run(90 * MS, samples=7)
    assert not rounds.cc.is_conservative


def test_the_least_sample_of_a_round_counts(rounds):
    rounds.run(50 * MS)
    sent, rounds.now = rounds.now, rounds.now + 90 * MS
    for i, rtt in enumerate([90, 90, 90, 51, 90, 90, 90, 90, 90]):
        ack(rounds.cc, rounds.now + i, PACKET, sent=sent, rtt=rtt * MS)
    assert not rounds.cc.is_conservative


def test_conservative_slow_start_grows_by_a_quarter_and_ends_after_five_rounds(rounds):
    rounds.run(50 * MS)
    rounds.run(80 * MS)
    assert rounds.cc.is_conservative
    for _ in range(4):
        assert rounds.run(80 * MS) == pytest.approx(0.25, abs=0.01)
        assert rounds.cc.threshold == 2**64 - 1
    rounds.run(80 * MS)
    assert rounds.cc.window >= rounds.cc.threshold


def test_slow_start_goes_on_if_the_round_trip_shrinks_again(rounds):
    rounds.run(50 * MS)
    rounds.run(80 * MS)
    rounds.run(80 * MS)
    rounds.run(60 * MS)
    assert not rounds.cc.is_conservative and rounds.cc.threshold == 2**64 - 1
    assert rounds.run(60 * MS) == pytest.approx(1.0, abs=0.01)


def test_slow_start_after_persistent_congestion_knows_nothing_of_the_first_one(rounds):
    cc = rounds.cc
    rounds.run(50 * MS)
    for _ in range(8):
        rounds.run(80 * MS)
    assert cc.window >= cc.threshold
    lose(cc, rounds.now, rounds.now, is_persistent=True)
    rounds.now += 1
    assert cc.window == LEAST and not cc.is_conservative
    assert [rounds.run(80 * MS) for _ in range(3)] == pytest.approx([1.0] * 3, abs=0.01)
