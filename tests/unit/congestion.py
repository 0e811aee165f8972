"""What the tests of congestion controllers share: a controller that is told of acknowledgements and losses by hand."""

from __future__ import annotations

MS = 1_000_000
SECOND = 1000 * MS
PACKET = 1200
INITIAL, LEAST = 10 * PACKET, 2 * PACKET


def ack(cc, now, n=PACKET, *, sent=None, rtt=50 * MS, smoothed=50 * MS, in_flight=None, app_limited=False):
    """Acknowledge bytes that were sent at `sent`, by default a round trip ago, with the window full, or not in use."""
    sent = now - rtt if sent is None else sent
    before = in_flight if in_flight is not None else n if app_limited else max(n, cc.window)
    told = cc.ack(
        before, now_ns=now, acked_bytes=n, newest_sent_ns=sent, rtt_ns=rtt, min_rtt_ns=rtt, smoothed_rtt_ns=smoothed,
        in_flight=before - n,
    )  # fmt: skip
    assert told == app_limited


def lose(cc, now, newest_sent, *, is_persistent=False):
    cc.loss(now_ns=now, newest_sent_ns=newest_sent, is_persistent=is_persistent)


def grow(cc, window, *, now=SECOND):
    """Let slow start reach a window, within one moment."""
    ack(cc, now, window - cc.window, rtt=0)
    assert cc.window == window and cc.threshold == 2**64 - 1
