"""What a link does to packets: settings, for one direction each, and the wire that carries them out."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from interpeer.testing._clock import SimClock
from interpeer.testing._packet import Packet
from interpeer.testing._queue import Bottleneck

Dropped = Callable[[Packet, str], None]
Arrived = Callable[[Packet], None]
Stop = Callable[[], None]

MIN_MTU_BYTES = 68
_MAX_FLIPS = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Set what one direction of a link does to packets. Sizes include the headers of IP and UDP; shares are from 0 to 1.

    In order: a policer and a full queue drop, the rate lets through, then packets are lost, corrupted, duplicated and delayed.

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
    codel_target_s: float | None = None
    """When packets have waited longer than this for an interval, CoDel (RFC 8289) marks or else drops some; None: it does not."""
    codel_interval_s: float = 0.1
    """How long a queue may stand: about the longest round trip there is."""
    policer_bit_per_s: float | None = None
    """More than this is dropped, and nothing waits: a token bucket; None: there is none."""
    policer_burst_bytes: int = 15_000
    """What may exceed the policer's rate after a pause."""
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
        for name in ("queue_bytes", "queue_packets", "ecn_mark_bytes", "codel_target_s"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is not negative: {value}")
        for name in ("rate_bit_per_s", "policer_bit_per_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is more than 0, not {value}; a link that carries nothing is not up")
        if self.codel_interval_s <= 0:
            raise ValueError(f"codel_interval_s is more than 0, not {self.codel_interval_s}")
        if self.policer_bit_per_s is not None and self.policer_burst_bytes < self.mtu_bytes:
            raise ValueError(
                f"policer_burst_bytes is at least mtu_bytes, or no large packet ever passes: {self.policer_burst_bytes}"
            )
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
    codel: int = 0
    policed: int = 0
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
        self._bottleneck = Bottleneck()
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

    def _change(self, link: Link | None, changes: Mapping[str, Any]) -> None:
        self._link = (link or self._link).replace(**changes)

    def schedule(self, steps: Iterable[tuple[float, Link | Mapping[str, Any]]], *, every_s: float | None = None) -> Stop:
        """Change settings at times from now on, once or again and again; return a function that ends this.

        steps: a time in seconds and the changes at that time (a Link: all settings) each; every_s: when all of it begins anew.
        Raises ValueError, and TypeError for a setting there is not.

        >>> clock = SimClock()
        >>> wire = Wire(clock, Link(), "seed", lambda packet, what: None)
        >>> stop = wire.schedule([(5, {"is_up": False}), (7, {"is_up": True})], every_s=7)  # five seconds on, two off
        >>> [(clock.advance_s(1), wire.link.is_up)[1] for _ in range(14)].count(False)
        4
        """
        planned = sorted(((time_s, step) for time_s, step in steps), key=lambda step: step[0])
        for time_s, step in planned:
            if time_s < 0 or (every_s is not None and time_s > every_s):
                raise ValueError(f"the times of a schedule are from 0 to every_s, not {time_s}")
            self._check(step)
        if every_s is not None and every_s <= 0:
            raise ValueError(f"every_s is more than 0, not {every_s}")
        schedule = _Schedule(self._clock, self._step, planned, every_s)
        schedule.begin()
        return schedule.stop

    def _check(self, step: Link | Mapping[str, Any]) -> None:
        if not isinstance(step, Link):
            self._link.replace(**step)  # a wrong one is told when it is planned

    def _step(self, step: Link | Mapping[str, Any]) -> None:
        if isinstance(step, Link):
            self._change(step, {})
        else:
            self._change(None, step)

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
        gone_ns = self._pass(packet, size, link)
        if gone_ns is None:
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

    def _pass(self, packet: Packet, size: int, link: Link) -> int | None:
        """Return when the packet's last bit is gone; None: it is dropped."""
        now_ns, bottleneck, stats = self._clock.now_ns, self._bottleneck, self.stats
        if link.policer_bit_per_s is not None and not bottleneck.police(
            size, now_ns, link.policer_bit_per_s, link.policer_burst_bytes
        ):
            stats.policed += 1
            self._dropped(packet, "policed")
            return None
        if link.rate_bit_per_s is None:
            return now_ns
        codel_ns = None
        if link.codel_target_s is not None:
            codel_ns = round(link.codel_target_s * 1e9), round(link.codel_interval_s * 1e9)
        gone_ns = bottleneck.leave_ns(
            packet, size, now_ns, rate_bit_per_s=link.rate_bit_per_s, most_bytes=link.queue_bytes,
            most_packets=link.queue_packets, mark_bytes=link.ecn_mark_bytes, codel_ns=codel_ns,
        )  # fmt: skip
        stats.marked, stats.max_queue_bytes = bottleneck.marked, bottleneck.max_bytes
        if isinstance(gone_ns, int):
            return gone_ns
        stats.queue_full += gone_ns == "queue full"
        stats.codel += gone_ns == "codel"
        self._dropped(packet, gone_ns)
        return None

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


@final
class _Schedule:
    """Take steps at their times, round after round. Each step sets off the next, so that ending it leaves one call at most."""

    def __init__(
        self,
        clock: SimClock,
        take: Callable[[Link | Mapping[str, Any]], None],
        steps: list[tuple[float, Link | Mapping[str, Any]]],
        every_s: float | None,
    ) -> None:
        self._clock = clock
        self._take = take
        self._steps = steps
        self._every_ns = None if every_s is None else round(every_s * 1e9)
        self._round_ns = clock.now_ns
        self._next = 0

    def begin(self) -> None:
        if self._steps:
            self._clock.at(self._due_ns(), self._go)

    def _due_ns(self) -> int:
        return self._round_ns + round(self._steps[self._next][0] * 1e9)

    def _go(self) -> None:
        if not self._steps:
            return
        self._take(self._steps[self._next][1])
        self._next += 1
        if self._next == len(self._steps):
            if self._every_ns is None:
                return
            self._next = 0
            self._round_ns += self._every_ns
        self._clock.at(self._due_ns(), self._go)

    def stop(self) -> None:
        self._steps = []
