"""What a link does to packets: settings, for one direction each, and the wire that carries them out."""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from interpeer.testing._clock import SimClock
from interpeer.testing._packet import Packet

Dropped = Callable[[Packet, str], None]
Arrived = Callable[[Packet], None]

MIN_MTU_BYTES = 68
_MAX_FLIPS = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Set what one direction of a link does to packets. Sizes include the headers of IP and UDP; shares are from 0 to 1.

    In order: a full queue drops, the rate lets through, then packets are lost, corrupted, duplicated and delayed.

    >>> Link(delay_s=0.015, rate_bit_per_s=10e6, queue_packets=25).mtu_bytes
    1500
    """

    delay_s: float = 0.0
    """How long a packet is on its way, besides the time in the queue and for its own bits."""
    jitter_s: float = 0.0
    """Up to so much is added, evenly spread; packets keep their order."""
    loss: float = 0.0
    """Share of packets lost."""
    loss_run_packets: float = 0.0
    """Mean length of a run of losses (Gilbert's model, with the same share lost in the long term); 0: each by itself."""
    loss_run_limit: int = 0
    """After so many losses in a row one packet gets through; 0: no limit."""
    reorder: float = 0.0
    """Share of packets kept back, so that later ones overtake them ..."""
    reorder_s: float = 0.0
    """... for so long."""
    duplicate: float = 0.0
    """Share of packets that arrive twice."""
    corrupt: float = 0.0
    """Share of packets that arrive with one to three bits flipped, as if UDP had no checksum."""
    rate_bit_per_s: float | None = None
    """How many bits it takes a second; None: no limit."""
    queue_bytes: int | None = None
    """Bytes that may wait for the rate; more are dropped. None: no limit."""
    queue_packets: int | None = None
    """The same in packets."""
    ecn_mark_bytes: int | None = None
    """Packets that find more than so many bytes waiting are marked CE, if they may be; None: none are."""
    bleaches_ecn: bool = False
    """Whether the ECN field is set to 0."""
    mtu_bytes: int = 1500
    """Larger packets are dropped."""
    is_up: bool = True
    """Whether anything gets through; a direction that is down is a one-way filter."""

    def __post_init__(self) -> None:
        for name in ("loss", "reorder", "duplicate", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        for name in ("delay_s", "jitter_s", "reorder_s", "loss_run_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not negative: {getattr(self, name)}")
        for name in ("queue_bytes", "queue_packets", "ecn_mark_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is not negative: {value}")
        if self.rate_bit_per_s is not None and self.rate_bit_per_s <= 0:
            raise ValueError(f"rate_bit_per_s is more than 0, not {self.rate_bit_per_s}; a link that carries nothing is not up")
        if self.loss_run_packets and self.loss_run_packets < 1:
            raise ValueError(f"loss_run_packets is at least 1, or 0, not {self.loss_run_packets}")
        if self.loss_run_packets and self.loss == 1:
            raise ValueError("a link that loses everything has no runs of losses: use is_up=False")
        if self.mtu_bytes < MIN_MTU_BYTES:
            raise ValueError(f"mtu_bytes is at least {MIN_MTU_BYTES}, not {self.mtu_bytes}")

    def replace(self, **changes: Any) -> Link:
        """Return these settings with changes."""
        return dataclasses.replace(self, **changes)


@final
@dataclass(slots=True)
class WireStats:
    """Count what one direction has done."""

    packets: int = 0
    """Packets given to it, and their bytes with headers."""
    bytes: int = 0
    delivered_packets: int = 0
    """Copies that duplication has made included."""
    delivered_bytes: int = 0
    lost: int = 0
    queue_full: int = 0
    too_large: int = 0
    down: int = 0
    corrupted: int = 0
    duplicated: int = 0
    late: int = 0
    marked: int = 0
    max_queue_bytes: int = 0
    """The most that has waited."""


@final
class Wire:
    """Carry packets in one direction, as its `link` says. Made by a SimNet."""

    def __init__(self, clock: SimClock, link: Link, seed: str, dropped: Dropped) -> None:
        self._clock = clock
        self._link = link
        self._random = random.Random(seed)
        self._dropped = dropped
        self._waiting: collections.deque[tuple[int, int]] = collections.deque()  # (when its first bit goes, bytes) each
        self._waiting_bytes = 0
        self._free_ns = 0  # when the last bit of what waits is gone
        self._last_ns = 0  # when the last packet that keeps its place arrives
        self._is_losing = False
        self._lost_in_a_row = 0
        self.stats = WireStats()
        """What it has done so far."""

    @property
    def link(self) -> Link:
        """Its settings."""
        return self._link

    def set(self, link: Link | None = None, *, after_s: float = 0.0, **changes: Any) -> None:
        """Change some settings, or all of them, now or after some simulated time.

        What waits in the queue keeps its time of departure. Raises ValueError, and TypeError for a setting there is not."""
        (link or self._link).replace(**changes)  # so that a wrong one is told here, not later
        if after_s > 0:
            self._clock.at(self._clock.now_ns + round(after_s * 1e9), self._change, link, changes)
        else:
            self._change(link, changes)

    def _change(self, link: Link | None, changes: dict[str, Any]) -> None:
        self._link = (link or self._link).replace(**changes)

    def carry(self, packet: Packet, arrived: Arrived) -> None:
        """Take a packet; call back when it arrives, twice if it is duplicated, or not at all."""
        link, stats = self._link, self.stats
        size = packet.wire_bytes
        stats.packets += 1
        stats.bytes += size
        if not link.is_up:
            stats.down += 1
            self._dropped(packet, "down")
            return
        if size > link.mtu_bytes:
            stats.too_large += 1
            self._dropped(packet, "too large")
            return
        gone_ns = self._queue(packet, size, link)
        if gone_ns is None:
            stats.queue_full += 1
            self._dropped(packet, "queue full")
            return
        if link.loss and self._loses(link):
            stats.lost += 1
            self._dropped(packet, "lost")
            return
        if link.bleaches_ecn:
            packet.ecn = 0
        if self._happens(link.corrupt):
            self._corrupt(packet)
        self._deliver(packet, size, self._arrival_ns(packet, gone_ns, link), arrived)
        if self._happens(link.duplicate):
            stats.duplicated += 1
            twin = packet.copy()
            twin.note("duplicate")
            self._deliver(twin, size, self._arrival_ns(twin, gone_ns, link), arrived)

    def _deliver(self, packet: Packet, size: int, when_ns: int, arrived: Arrived) -> None:
        self.stats.delivered_packets += 1
        self.stats.delivered_bytes += size
        self._clock.at(when_ns, arrived, packet)

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _queue(self, packet: Packet, size: int, link: Link) -> int | None:
        """Return when the packet's last bit is gone; None: there is no room for it."""
        now_ns = self._clock.now_ns
        if link.rate_bit_per_s is None:
            return now_ns
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            self._waiting_bytes -= waiting.popleft()[1]
        start_ns = max(now_ns, self._free_ns)
        if start_ns > now_ns:
            if link.queue_packets is not None and len(waiting) >= link.queue_packets:
                return None
            if link.queue_bytes is not None and self._waiting_bytes + size > link.queue_bytes:
                return None
            if link.ecn_mark_bytes is not None and self._waiting_bytes > link.ecn_mark_bytes and packet.is_ecn_capable:
                packet.mark()
                self.stats.marked += 1
            waiting.append((start_ns, size))
            self._waiting_bytes += size
            self.stats.max_queue_bytes = max(self.stats.max_queue_bytes, self._waiting_bytes)
        self._free_ns = start_ns + round(size * 8e9 / link.rate_bit_per_s)
        return self._free_ns

    def _loses(self, link: Link) -> bool:
        if link.loss_run_limit and self._lost_in_a_row >= link.loss_run_limit:
            self._lost_in_a_row = 0
            self._is_losing = False
            return False
        if link.loss_run_packets:
            # two states; a run ends with chance 1/mean, and begins so often that the share comes out
            ends = 1 / link.loss_run_packets
            chance = 1 - ends if self._is_losing else min(1.0, ends * link.loss / (1 - link.loss))
            self._is_losing = self._happens(chance)
        else:
            self._is_losing = self._happens(link.loss)
        self._lost_in_a_row = self._lost_in_a_row + 1 if self._is_losing else 0
        return self._is_losing

    def _corrupt(self, packet: Packet) -> None:
        if not packet.data:
            return
        data = bytearray(packet.data)
        for bit in self._random.sample(range(len(data) * 8), self._random.randint(1, min(_MAX_FLIPS, len(data) * 8))):
            data[bit // 8] ^= 1 << bit % 8
        packet.data = bytes(data)
        packet.note("corrupted")
        self.stats.corrupted += 1

    def _arrival_ns(self, packet: Packet, gone_ns: int, link: Link) -> int:
        when_ns = gone_ns + round(link.delay_s * 1e9)
        if link.jitter_s:
            when_ns += round(link.jitter_s * 1e9 * self._random.random())
        if self._happens(link.reorder):
            self.stats.late += 1
            packet.note("late")
            return when_ns + round(link.reorder_s * 1e9)
        self._last_ns = max(self._last_ns, when_ns)  # whoever came before is not overtaken
        return self._last_ns
