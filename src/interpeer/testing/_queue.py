"""The bottleneck of a link: a policer, and a queue in front of a rate, with drop-tail, ECN or CoDel (RFC 8289).

The queue is first in, first out, so a packet's departure is known when it comes; the decisions that CoDel makes when a
packet leaves are made then, too, for the time at which it will leave.
"""

from __future__ import annotations

import collections
import math
from typing import final

from interpeer.testing._packet import Packet

_CODEL_MEMORY = 16  # intervals after which an earlier episode of dropping is forgotten


@final
class Bottleneck:
    """Say when packets leave, or that they do not. Times are nanoseconds of the clock, sizes bytes with headers."""

    __slots__ = ("_codel", "_free_ns", "_policer", "_waiting", "marked", "max_bytes", "waiting_bytes")

    def __init__(self) -> None:
        self._waiting: collections.deque[tuple[int, int]] = collections.deque()  # (when its first bit goes, bytes) each
        self._free_ns = 0  # when the last bit of what waits is gone
        self._policer = _Policer()
        self._codel = _CoDel()
        self.waiting_bytes = 0
        self.max_bytes = 0
        self.marked = 0

    def police(self, size: int, now_ns: int, rate_bit_per_s: float, burst_bytes: int) -> bool:
        """Return whether a packet is within the policer's rate."""
        return self._policer.admits(size, now_ns, rate_bit_per_s / 8e9, burst_bytes)

    def leave_ns(
        self,
        packet: Packet,
        size: int,
        now_ns: int,
        *,
        rate_bit_per_s: float,
        most_bytes: int | None,
        most_packets: int | None,
        mark_bytes: int | None,
        codel_ns: tuple[int, int] | None,
    ) -> int | str:
        """Return when the packet's last bit is gone, or why it is dropped. It may be marked.

        most_bytes, most_packets: what may wait. mark_bytes: marks behind so much. codel_ns: target and interval."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            self.waiting_bytes -= waiting.popleft()[1]
        start_ns = max(now_ns, self._free_ns)
        if start_ns > now_ns:
            if most_packets is not None and len(waiting) >= most_packets:
                return "queue full"
            if most_bytes is not None and self.waiting_bytes + size > most_bytes:
                return "queue full"
        if codel_ns is not None and self._codel.strikes(start_ns, start_ns - now_ns, *codel_ns):
            if not packet.is_ecn_capable:
                return "codel"
            self._mark(packet)
        elif mark_bytes is not None and start_ns > now_ns and self.waiting_bytes > mark_bytes and packet.is_ecn_capable:
            self._mark(packet)
        if start_ns > now_ns:
            waiting.append((start_ns, size))
            self.waiting_bytes += size
            self.max_bytes = max(self.max_bytes, self.waiting_bytes)
        self._free_ns = start_ns + round(size * 8e9 / rate_bit_per_s)
        return self._free_ns

    def _mark(self, packet: Packet) -> None:
        packet.mark()
        self.marked += 1


@final
class _Policer:
    """A token bucket that drops what exceeds it, and never lets anything wait."""

    __slots__ = ("_counted_ns", "_tokens_bytes")

    def __init__(self) -> None:
        self._tokens_bytes = math.inf  # full, whatever its size is
        self._counted_ns = 0

    def admits(self, size: int, now_ns: int, bytes_per_ns: float, burst_bytes: int) -> bool:
        self._tokens_bytes = min(burst_bytes, self._tokens_bytes + (now_ns - self._counted_ns) * bytes_per_ns)
        self._counted_ns = now_ns
        if size > self._tokens_bytes:
            return False
        self._tokens_bytes -= size
        return True


@final
class _CoDel:
    """Controlled delay (RFC 8289, 5): strike at a growing pace while packets wait longer than the target."""

    __slots__ = ("_above_ns", "_count", "_is_striking", "_last_count", "_next_ns")

    def __init__(self) -> None:
        self._above_ns = 0  # when the delay will have been above the target for an interval; 0: it is not above
        self._next_ns = 0
        self._count = 0
        self._last_count = 0
        self._is_striking = False

    def strikes(self, now_ns: int, waited_ns: int, target_ns: int, interval_ns: int) -> bool:
        """Return whether the packet that leaves now, after so long, is to be dropped or marked."""
        if waited_ns < target_ns:
            self._above_ns = 0
            self._is_striking = False
            return False
        if self._above_ns == 0:
            self._above_ns = now_ns + interval_ns
            return False
        if now_ns < self._above_ns:
            return False
        if self._is_striking:
            if now_ns < self._next_ns:
                return False
            self._count += 1
            self._next_ns += self._pause_ns(interval_ns)
            return True
        self._is_striking = True
        since_last = self._count - self._last_count
        is_recent = now_ns - self._next_ns < _CODEL_MEMORY * interval_ns
        self._count = since_last if since_last > 1 and is_recent else 1
        self._last_count = self._count
        self._next_ns = now_ns + self._pause_ns(interval_ns)
        return True

    def _pause_ns(self, interval_ns: int) -> int:
        return round(interval_ns / math.sqrt(self._count))
