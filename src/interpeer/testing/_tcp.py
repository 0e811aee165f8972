"""A TCP sender and receiver without sockets and clock: enough of CUBIC (RFC 9438) to be a fair yardstick on a shared link.

There are: slow start from ten segments (RFC 6928), CUBIC's window with its Reno-friendly region and fast convergence,
selective acknowledgements with the loss recovery of RFC 6675, a retransmission time-out with back-off (RFC 6298, at
least 200 ms as in Linux), timestamps, and acknowledgements of every second segment. There are not: HyStart, pacing, ECN,
RACK and tail loss probes, proportional rate reduction, F-RTO, a receive window, and the connection's set-up and end. So it
overshoots at the end of slow start as older systems do; that what was sent again is lost shows in later segments that arrive.

Data are counted in segments of `MSS_BYTES`, and their content is zeros.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import final

MSS_BYTES = 1448
IP_AND_TCP_BYTES = 52  # with the timestamps option
INITIAL_WINDOW = 10
MIN_RTO_NS = 200_000_000
MAX_RTO_NS = 60_000_000_000
INITIAL_RTO_NS = 1_000_000_000
DELAYED_ACK_NS = 40_000_000
DUPLICATES = 3
BETA = 0.7
C = 0.4
ALPHA = 3 * (1 - BETA) / (1 + BETA)
_UDP_AND_IP_BYTES = 28  # what a datagram brings by itself
DATA = struct.Struct("!IQ")  # the segment's number, when it was sent
ACK = struct.Struct("!IQB")  # the next one expected, the timestamp echoed, how many ranges follow
RANGE = struct.Struct("!II")
RANGE_BYTES = RANGE.size
_PADDING = bytes(MSS_BYTES + IP_AND_TCP_BYTES - _UDP_AND_IP_BYTES - DATA.size)
_MAX_RANGES = 3

_SENT, _LOST, _AGAIN, _SACKED = range(4)  # what became of a segment: on its way, to be sent again, sent again, has arrived


@final
class TcpSender:
    """Say which segments go out when. `segments`: how many there are; None: without end."""

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments
        self._window = float(INITIAL_WINDOW)
        self._threshold = float("inf")
        self._una = 0  # the oldest segment not acknowledged
        self._fate: deque[int] = deque()  # of those from it to the newest sent
        self._in_flight = 0
        self._highest_sacked = -1
        self._first_unjudged = 0  # below it, segments that have not arrived are known to be lost
        self._lost = 0
        self._again: dict[int, int] = {}  # segments sent again, and the newest one then: what overtakes both shows a loss
        self._recovery_ends: int | None = None  # at this number; None: nothing is being repaired
        self._smoothed_ns = self._variance_ns = 0.0
        self._repairs_at_once = False  # the first lost segment goes whatever is in flight (RFC 6675, 5)
        self._rto_ns = INITIAL_RTO_NS
        self._rto_at_ns: int | None = None
        self._cubic = _Cubic()
        self.retransmissions = 0
        self.timeouts = 0

    def allow(self, segments: int) -> None:
        """Let so many segments go out in all; they may become more."""
        self._segments = segments

    @property
    def window(self) -> float:
        """The congestion window in segments."""
        return self._window

    @property
    def acked_segments(self) -> int:
        return self._una

    @property
    def is_done(self) -> bool:
        return self._segments is not None and self._una >= self._segments

    def poll_timeout(self) -> int | None:
        """Return when `handle_timeout` wants to be called."""
        return self._rto_at_ns

    def poll_transmit(self, now_ns: int) -> list[bytes]:
        """Return what goes out now, as the payloads of datagrams of the size that the segments have."""
        out: list[bytes] = []
        while self._in_flight < int(self._window) or self._repairs_at_once:
            self._repairs_at_once = False
            number = self._next()
            if number is None:
                break
            out.append(DATA.pack(number, now_ns) + _PADDING)
            self._in_flight += 1
        if out and self._rto_at_ns is None:
            self._rto_at_ns = now_ns + self._rto_ns
        return out

    def _next(self) -> int | None:
        """Choose a lost segment, or else a new one."""
        if self._lost:
            index = self._fate.index(_LOST)
            self._fate[index] = _AGAIN
            self._again[self._una + index] = self._una + len(self._fate)
            self._lost -= 1
            self.retransmissions += 1
            return self._una + index
        number = self._una + len(self._fate)
        if self._segments is not None and number >= self._segments:
            return None
        self._fate.append(_SENT)
        return number

    def handle_ack(self, data: bytes, now_ns: int) -> None:
        """Take an acknowledgement."""
        expected, echo_ns, count = ACK.unpack_from(data)
        newly = advanced = self._advance(expected)
        for number in range(count):
            first, end = RANGE.unpack_from(data, ACK.size + number * RANGE.size)
            newly += self._sack(first, end)
        if not newly:
            return
        if echo_ns:
            self._measure(now_ns - echo_ns)
        if advanced:
            self._rto_at_ns = now_ns + self._rto_ns if self._fate else None
        if self._judge() and self._recovery_ends is None:
            self._recovery_ends = self._una + len(self._fate)
            self._threshold = self._window = self._cubic.reduce(self._window)
            self._repairs_at_once = True
        if self._recovery_ends is not None and self._una >= self._recovery_ends:
            self._recovery_ends = None
        if self._recovery_ends is None and advanced:
            self._grow(newly, now_ns)

    def _advance(self, expected: int) -> int:
        newly = 0
        while self._una < expected and self._fate:
            newly += self._settle(self._una, self._fate.popleft())
            self._una += 1
        self._first_unjudged = max(self._first_unjudged, self._una)
        return newly

    def _sack(self, first: int, end: int) -> int:
        newly = 0
        for index in range(max(0, first - self._una), min(end - self._una, len(self._fate))):
            newly += self._settle(self._una + index, self._fate[index])
            self._fate[index] = _SACKED
        self._highest_sacked = max(self._highest_sacked, end - 1)
        return newly

    def _settle(self, number: int, fate: int) -> int:
        """Count a segment that has arrived; return 1 if that is news."""
        if fate in (_SENT, _AGAIN):
            self._in_flight -= 1
            self._again.pop(number, None)
        elif fate == _LOST:
            self._lost -= 1
        return fate != _SACKED

    def _judge(self) -> bool:
        """Hold for lost what has not arrived although three later ones have; return whether there are any."""
        until = min(self._highest_sacked - DUPLICATES + 1, self._una + len(self._fate))
        has_any = False
        for number in range(self._first_unjudged, until):
            if self._fate[number - self._una] == _SENT:
                self._lose(number - self._una)
                has_any = True
        self._first_unjudged = max(self._first_unjudged, until)
        for number, newest in list(self._again.items()):
            if self._highest_sacked < newest + DUPLICATES:
                break  # those after it were sent later
            del self._again[number]
            self._lose(number - self._una)
        return has_any

    def _lose(self, index: int) -> None:
        self._fate[index] = _LOST
        self._in_flight -= 1
        self._lost += 1

    def _grow(self, acked: int, now_ns: int) -> None:
        if self._in_flight + acked < int(self._window) - 1:
            return  # it was not what held the sender back
        if self._window < self._threshold:
            self._window += acked
        else:
            self._window = self._cubic.grow(self._window, acked, now_ns, self._smoothed_ns)

    def _measure(self, sample_ns: int) -> None:
        if self._smoothed_ns == 0:
            self._smoothed_ns, self._variance_ns = float(sample_ns), sample_ns / 2
        else:
            self._variance_ns += (abs(self._smoothed_ns - sample_ns) - self._variance_ns) / 4
            self._smoothed_ns += (sample_ns - self._smoothed_ns) / 8
        self._rto_ns = round(min(max(self._smoothed_ns + 4 * self._variance_ns, MIN_RTO_NS), MAX_RTO_NS))

    def handle_timeout(self, now_ns: int) -> None:
        """Hold everything for lost, if the time has come."""
        if self._rto_at_ns is None or now_ns < self._rto_at_ns:
            return
        self.timeouts += 1
        self._threshold = self._cubic.reduce(self._window)
        self._window = 1.0
        self._recovery_ends = None
        for index, fate in enumerate(self._fate):
            if fate in (_SENT, _AGAIN):
                self._lose(index)
        self._again.clear()
        self._first_unjudged = self._una + len(self._fate)
        self._rto_ns = min(self._rto_ns * 2, MAX_RTO_NS)
        self._rto_at_ns = now_ns + self._rto_ns


@final
class _Cubic:
    """The window of RFC 9438, in segments."""

    def __init__(self) -> None:
        self._w_max = self._k_s = self._w_est = 0.0
        self._epoch_ns: int | None = None

    def reduce(self, window: float) -> float:
        """Return the window after a loss."""
        self._epoch_ns = None
        self._w_max = window * (1 + BETA) / 2 if window < self._w_max else window  # fast convergence
        return max(2.0, window * BETA)

    def grow(self, window: float, acked: int, now_ns: int, rtt_ns: float) -> float:
        """Return the window after an acknowledgement."""
        if self._epoch_ns is None:
            self._epoch_ns = now_ns
            self._w_est = window
            self._w_max = max(self._w_max, window)
            self._k_s = ((self._w_max - window) / C) ** (1 / 3)
        t = (now_ns - self._epoch_ns) / 1e9
        self._w_est += (ALPHA if self._w_est < self._w_max else 1.0) * acked / window
        if self._at(t) < self._w_est:
            return max(window, self._w_est)
        target = min(max(self._at(t + rtt_ns / 1e9), window), 1.5 * window)
        return window + (target - window) / window * acked

    def _at(self, t: float) -> float:
        d: float = t - self._k_s
        return C * d * d * d + self._w_max


@final
class TcpReceiver:
    """Acknowledge what comes: every second segment, a lone one after 40 ms, and at once whatever shows a gap."""

    def __init__(self) -> None:
        self._expected = 0
        self._ranges: list[tuple[int, int]] = []  # beyond a gap, the one that grew last first
        self._echo_ns: int | None = None  # of the oldest segment not yet acknowledged
        self._ack_at_ns: int | None = None

    @property
    def received_segments(self) -> int:
        """Those without a gap before them."""
        return self._expected

    def poll_timeout(self) -> int | None:
        """Return when `handle_timeout` wants to be called."""
        return self._ack_at_ns

    def handle_segment(self, data: bytes, now_ns: int) -> bytes | None:
        """Take a segment; return what goes back now, if anything does."""
        number, sent_ns = DATA.unpack_from(data)
        if self._echo_ns is None:
            self._echo_ns = sent_ns
        is_in_order = number == self._expected and not self._ranges
        self._insert(number)
        if is_in_order and self._ack_at_ns is None:
            self._ack_at_ns = now_ns + DELAYED_ACK_NS
            return None
        return self.acknowledge()

    def handle_timeout(self, now_ns: int) -> bytes | None:
        """Return an acknowledgement that has waited long enough."""
        return self.acknowledge() if self._ack_at_ns is not None and now_ns >= self._ack_at_ns else None

    def _insert(self, number: int) -> None:
        if number < self._expected:
            return
        first, end = number, number + 1
        kept: list[tuple[int, int]] = []
        for one in self._ranges:
            if one[0] <= end and first <= one[1]:
                first, end = min(first, one[0]), max(end, one[1])
            else:
                kept.append(one)
        if first == self._expected:
            self._expected = end
            self._ranges = kept
        else:
            self._ranges = [(first, end), *kept]

    def acknowledge(self) -> bytes:
        """Return an acknowledgement of all that has come."""
        ranges = self._ranges[:_MAX_RANGES]
        head = ACK.pack(self._expected, self._echo_ns or 0, len(ranges))
        self._echo_ns = self._ack_at_ns = None
        data = head + b"".join(RANGE.pack(*one) for one in ranges)
        options_bytes = 4 + RANGE.size * len(ranges) if ranges else 0
        return data.ljust(IP_AND_TCP_BYTES - _UDP_AND_IP_BYTES + options_bytes, b"\0")
