"""Loss detection and round-trip times by RFC 9002, as its appendix A has them: dictionaries, and no thought for speed.

What differs from the RFC differs in the core on purpose: packets that elicit no acknowledgement are not waited for, the
probe time-out is never backed off beyond MAX_PTO, and a handshake does not come into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PACKET_THRESHOLD = 3
GRANULARITY = 1_000_000
INITIAL_RTT = 333_000_000
MAX_PTO = 2_000_000_000
PERSISTENT = 3


@dataclass
class Sent:
    number: int
    time: int
    size: int
    elicits: bool


@dataclass
class Outcome:
    acked: list[Sent] = field(default_factory=list)
    lost: list[Sent] = field(default_factory=list)
    has_rtt: bool = False
    is_persistent: bool = False


class Recovery:
    def __init__(self) -> None:
        self.packets: list[Sent | None] = []  # by number; None: left out
        self.waiting: dict[int, Sent] = {}  # those that elicit an acknowledgement, and have none
        self.acked: set[int] = set()
        self.largest_acked = -1
        self.latest = self.smoothed = self.variance = self.least = 0
        self.first_sample: int | None = None
        self.loss_time = 0
        self.pto_count = 0
        self.last_eliciting = 0

    def send(self, now: int, size: int, elicits: bool) -> int:
        packet = Sent(len(self.packets), now, size, elicits)
        self.packets.append(packet)
        if elicits:
            self.waiting[packet.number] = packet
            self.last_eliciting = now
        return packet.number

    def skip(self) -> int:
        self.packets.append(None)
        return len(self.packets) - 1

    # A.7

    def handle_ack(self, ranges: list[tuple[int, int]], delay: int, now: int, max_delay: int) -> Outcome:
        """`ranges` are (low, high), both included, the highest first; `delay` is in ns."""
        outcome, largest = Outcome(), ranges[0][1]
        numbers = [n for low, high in ranges for n in range(low, high + 1)]
        outcome.acked = sorted((self.waiting.pop(n) for n in numbers if n in self.waiting), key=lambda packet: packet.number)
        self.acked |= set(numbers)
        if not outcome.acked:
            return outcome
        if outcome.acked[-1].number == largest or largest > self.largest_acked:
            self.sample(now, now - self.packets[largest].time, min(delay, max_delay))
            outcome.has_rtt = True
        self.largest_acked = max(self.largest_acked, largest)
        self.pto_count = 0
        self.detect(now, max_delay, outcome)
        return outcome

    def sample(self, now: int, latest: int, delay: int) -> None:
        """5.3."""
        self.latest = latest = max(latest, 1)
        if self.first_sample is None:
            self.first_sample = now
            self.least = self.smoothed = latest
            self.variance = latest // 2
            return
        self.least = min(self.least, latest)
        adjusted = latest - delay if latest >= self.least + delay else latest
        self.variance = (3 * self.variance + abs(self.smoothed - adjusted)) // 4
        self.smoothed = (7 * self.smoothed + adjusted) // 8

    # A.10

    def detect(self, now: int, max_delay: int, outcome: Outcome) -> None:
        loss_delay = max(max(self.latest, self.smoothed) * 9 // 8, GRANULARITY)
        self.loss_time = 0
        for packet in list(self.waiting.values()):
            if packet.number > self.largest_acked:
                continue
            if packet.time + loss_delay <= now or self.largest_acked >= packet.number + PACKET_THRESHOLD:
                outcome.lost.append(self.waiting.pop(packet.number))
            else:
                due = packet.time + loss_delay
                self.loss_time = min(self.loss_time, due) if self.loss_time else due
        outcome.is_persistent = self.is_persistent(outcome.lost, max_delay)

    def is_persistent(self, lost: list[Sent], max_delay: int) -> bool:
        """7.6: two packets lost, longer apart than the duration, and none acknowledged that was sent between them."""
        duration = PERSISTENT * (self.smoothed + max(4 * self.variance, GRANULARITY) + max_delay)
        return any(
            last.time - first.time > duration
            and self.first_sample is not None
            and first.time > self.first_sample
            and not any(n in self.acked and self.packets[n].elicits for n in range(first.number, last.number))
            for first in lost
            for last in lost
        )

    # A.8, A.9

    def pto(self, max_delay: int) -> int:
        if self.first_sample is None:
            return 3 * INITIAL_RTT
        return self.smoothed + max(4 * self.variance, GRANULARITY) + max_delay

    def deadline(self, max_delay: int) -> int:
        if self.loss_time:
            return self.loss_time
        if not self.waiting:
            return 0
        pto = self.pto(max_delay)
        return self.last_eliciting + max(min(pto * 2**self.pto_count, MAX_PTO), pto)

    def handle_timeout(self, now: int, max_delay: int) -> Outcome:
        outcome = Outcome()
        if not self.loss_time:
            self.pto_count += 1
        elif self.loss_time <= now:
            self.detect(now, max_delay, outcome)
        return outcome

    # what the core tells

    @property
    def in_flight(self) -> int:
        return sum(packet.size for packet in self.waiting.values())
