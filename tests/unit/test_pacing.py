"""Pacing: what may be sent at once, and when more may (RFC 9002, 7.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._core.probe_cc import Controller
from tests.unit.congestion import INITIAL, MS, PACKET, SECOND, grow, lose


@pytest.fixture
def cc():
    return Controller(PACKET)


def rate_of(window, rtt, *, is_slow_start):
    """Return bytes a second (docs/spec, RC-33)."""
    return (2.0 if is_slow_start else 1.25) * window * SECOND / rtt


def test_nothing_is_paced_before_there_is_a_round_trip(cc):
    assert cc.pacing_rate(0) == 0
    for _ in range(50):
        assert cc.release_ns(SECOND, 0) == 0
        cc.spend(PACKET)


def test_rate_is_twice_the_window_in_slow_start_and_a_quarter_more_after_it(cc):
    assert cc.pacing_rate(50 * MS) == pytest.approx(rate_of(INITIAL, 50 * MS, is_slow_start=True))
    lose(cc, SECOND, SECOND)
    assert cc.pacing_rate(50 * MS) == pytest.approx(rate_of(7 * PACKET, 50 * MS, is_slow_start=False))


@pytest.mark.row("C10")
@given(
    window=st.integers(10, 500),
    rtt=st.integers(MS, SECOND),
    is_slow_start=st.booleans(),
    gaps=st.lists(st.integers(0, 3 * MS) | st.integers(0, 2000) | st.just(5 * SECOND), max_size=60),
)
def test_no_span_of_time_has_more_than_a_burst_and_what_the_rate_gives(window, rtt, is_slow_start, gaps):
    """A sender that takes all it may have, and looks again at any time."""
    cc, now, sent = Controller(PACKET), SECOND, []
    if window > 10:
        grow(cc, window * PACKET)
    if not is_slow_start:
        lose(cc, SECOND, SECOND)
    rate = rate_of(cc.window, rtt, is_slow_start=is_slow_start)
    burst = max(10 * PACKET, rate / 1000)
    for gap in gaps:
        now += gap
        count = 0
        while cc.release_ns(now, rtt) == 0:
            cc.spend(PACKET)
            count += 1
        sent.append((now, count * PACKET))
    for i, (start, _) in enumerate(sent):
        total = 0
        for end, n in sent[i:]:
            total += n
            assert total <= burst + rate * (end - start) / SECOND + 1


@given(window=st.integers(10, 500), rtt=st.integers(MS, SECOND))
def test_a_sender_that_wakes_when_told_gets_the_whole_rate_in_quanta(window, rtt):
    cc, now, total = Controller(PACKET), SECOND, 0
    if window > 10:
        grow(cc, window * PACKET)
    rate = cc.pacing_rate(rtt)
    quantum = max(2 * PACKET, rate / 2000)
    start = None
    for _ in range(200):
        count = 0
        while (release := cc.release_ns(now, rtt)) == 0:
            cc.spend(PACKET)
            count += 1
        if start is not None:
            assert count >= int(quantum / PACKET)
            total += count * PACKET
        start = now if start is None else start
        last, now = now, release
        assert last < now <= last + SECOND * (quantum + PACKET) / rate + 2
    assert total == pytest.approx(rate * (last - start) / SECOND, abs=quantum + PACKET)
