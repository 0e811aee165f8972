"""A sender with a controller of the core, a bottleneck and a receiver, in a hundred lines: what the controllers' tests run on.

Rates of delivery are told as in draft-ietf-ccwg-bbr, 4.1, from this side's own books, not the core's.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from dataclasses import dataclass

from interpeer._core.probe_cc import Controller

MS, SECOND = 1_000_000, 1_000_000_000
PACKET = 1200
CUBIC, BBR, BBR_LOSSY, LEDBAT = range(4)
STARTUP, DRAIN, DOWN, CRUISE, REFILL, UP, PROBE_RTT = range(7)


@dataclass(slots=True)
class Sent:
    number: int
    sent_ns: int
    delivered: int
    delivered_ns: int
    first_sent_ns: int
    in_flight: int
    lost: int
    is_app_limited: bool


class Pipe:
    """Send through a bottleneck of `rate` bytes a second, with a round trip and a queue; `lose` and `mark` choose packets."""

    def __init__(
        self,
        kind: int,
        *,
        mbit: float = 20.0,
        rtt_ns: int = 40 * MS,
        buffer_bdp: float = 1.0,
        loss: float = 0.0,
        mark: Callable[[int], bool] = lambda queued: False,
        seed: int = 1,
    ) -> None:
        self.cc = Controller(PACKET, kind)
        self.rate, self.rtt_ns = mbit * 125_000, rtt_ns
        self.bdp = self.rate * rtt_ns / SECOND
        self.buffer = buffer_bdp * self.bdp
        self.loss, self.mark, self.random = loss, mark, random.Random(seed)
        self.app_rate: float | None = None
        """Bytes a second that the application has; None: any number."""
        self.now = SECOND
        self.free_ns = self.now  # when the bottleneck has sent everything
        self.outstanding: collections.OrderedDict[int, Sent] = collections.OrderedDict()
        self.coming: collections.deque[tuple[int, int, bool]] = collections.deque()  # (when, number, marked) of each ACK
        self.next = self.delivered = self.lost = self.dropped = 0
        self.delivered_ns = self.first_sent_ns = self.now
        self.app_limited = 0
        self.app_bytes = 0.0
        self.smoothed_ns = self.min_ns = 0
        self.sent_at: list[int] = []
        self.states: list[tuple[int, int]] = []
        """When BBR has entered which state."""
        self.note: Callable[[], object] = lambda: None
        """Called after every acknowledgement."""

    @property
    def in_flight(self) -> int:
        return len(self.outstanding) * PACKET

    @property
    def goodput(self) -> float:
        """Share of the bottleneck's rate that was delivered since the start."""
        return self.delivered / (self.rate * (self.now - SECOND) / SECOND)

    def run(self, ns: int) -> None:
        end = self.now + ns
        while self.now < end:
            release = self._send_all()
            due = min([end, *([release] if release else []), *([self.coming[0][0]] if self.coming else [])])
            if self.app_rate is not None:
                self.app_bytes = min(self.app_bytes + self.app_rate * (due - self.now) / SECOND, 64 * PACKET)
            if not self.coming and self.outstanding and not release and due == end:
                self.now = min(end, self.now + SECOND // 2)  # everything is lost: a probe time-out
                self._lose(list(self.outstanding))
                continue
            self.now = max(due, self.now)
            while self.coming and self.coming[0][0] <= self.now:
                _, number, marked = self.coming.popleft()
                self._acknowledge(number, marked)

    def _send_all(self) -> int:
        """Send what may go; return when more may, or 0 if an acknowledgement has to come first."""
        while True:
            if self.app_rate is not None and self.app_bytes < PACKET:
                if self.in_flight + PACKET <= self.cc.window:
                    self.app_limited = max(self.delivered + self.in_flight, 1)
                return self.now + MS
            if self.in_flight + PACKET > self.cc.window:
                return 0
            release = self.cc.release_ns(self.now, self.smoothed_ns)
            if release:
                return release
            self._send()

    def _send(self) -> None:
        before = self.in_flight
        if not before:
            self.first_sent_ns = self.delivered_ns = self.now
        self.cc.sent(self.now, PACKET, before, self.app_limited != 0)
        self.sent_at.append(self.now)
        self.app_bytes -= PACKET
        self.outstanding[self.next] = Sent(
            self.next, self.now, self.delivered, self.delivered_ns, self.first_sent_ns, before + PACKET, self.lost,
            self.app_limited != 0,
        )  # fmt: skip
        queued = max(0, self.free_ns - self.now) * self.rate / SECOND
        if queued + PACKET > self.buffer:
            self.dropped += 1
        else:
            self.free_ns = max(self.free_ns, self.now) + round(PACKET / self.rate * SECOND)
            if self.random.random() >= self.loss:
                self.coming.append((self.free_ns + self.rtt_ns, self.next, self.mark(round(queued))))
        self.next += 1

    def _acknowledge(self, number: int, marked: bool) -> None:
        p = self.outstanding.pop(number, None)
        if p is None:
            return
        before = self.in_flight + PACKET
        rtt = self.now - p.sent_ns
        self.min_ns = min(self.min_ns or rtt, rtt)
        self.smoothed_ns = (7 * (self.smoothed_ns or rtt) + rtt) // 8
        self.delivered += PACKET
        self.delivered_ns, acked_ns = self.now, self.now - p.delivered_ns
        sent_ns, self.first_sent_ns = p.sent_ns - p.first_sent_ns, p.sent_ns
        interval = max(sent_ns, acked_ns)
        if self.app_limited and self.delivered > self.app_limited:
            self.app_limited = 0
        lost = [other for other in self.outstanding if other + 3 <= number]
        self._lose(lost, PACKET, rtt)
        if marked:
            self.cc.mark(self.now, p.sent_ns)
        self.cc.ack(
            before, now_ns=self.now, acked_bytes=PACKET, lost_bytes=len(lost) * PACKET, marked_packets=int(marked),
            newest_sent_ns=p.sent_ns, rtt_ns=rtt, min_rtt_ns=self.min_ns, smoothed_rtt_ns=self.smoothed_ns,
            in_flight=self.in_flight, rate=(self.delivered - p.delivered) * SECOND / interval if interval >= self.min_ns else 0,
            is_rate_app_limited=p.is_app_limited, delivered=self.delivered, prior_delivered=p.delivered,
            prior_in_flight=p.in_flight, lost_since=(self.lost - p.lost) * PACKET,
        )  # fmt: skip
        if self.cc.wants_app_limited:
            self.app_limited = max(self.delivered + self.in_flight, 1)
        state = self.cc.bbr["state"]
        if not self.states or self.states[-1][1] != state:
            self.states.append((self.now, state))
        self.note()

    def _lose(self, numbers: list[int], acked: int = 0, rtt: int = 0) -> None:
        if not numbers:
            return
        packets = [self.outstanding.pop(number) for number in numbers]
        self.lost += len(packets)
        newest = packets[-1]
        self.cc.loss(
            now_ns=self.now, lost_bytes=len(packets) * PACKET, newest_sent_ns=newest.sent_ns, rtt_ns=rtt or self.smoothed_ns,
            in_flight=self.in_flight, acked_bytes=acked, delivered=self.delivered, is_rate_app_limited=newest.is_app_limited,
            prior_in_flight=newest.in_flight, lost_since=(self.lost - newest.lost) * PACKET,
        )  # fmt: skip
