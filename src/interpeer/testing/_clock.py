"""Simulated time: a number, and a queue of what is to happen when. It knows of no event loop and of no network."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, final


@final
class SimClock:
    """Hold simulated time in nanoseconds, and call back when a time has come.

    Inside `run` there is one already. On its own it drives a SimNet without an event loop, step by step.

    >>> clock, rung = SimClock(), []
    >>> clock.at(clock.now_ns + 5_000_000, rung.append, "five milliseconds")
    >>> clock.advance_s(1.0)
    >>> rung, clock.now_s
    (['five milliseconds'], 1.0)
    """

    __slots__ = ("_events", "_numbers", "now_ns", "start_ns")

    now_ns: int
    """The time; it starts at `start_ns`, which is not 0: to the core 0 means never."""

    def __init__(self, start_s: float = 1.0) -> None:
        if start_s <= 0:
            raise ValueError(f"a clock starts later than 0, not at {start_s}")
        self.start_ns = self.now_ns = round(start_s * 1e9)
        self._events: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()  # what is due at the same time happens in the order in which it was asked for

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return (self.now_ns - self.start_ns) / 1e9

    @property
    def next_ns(self) -> int | None:
        """When the next thing happens; None: nothing is to happen."""
        return self._events[0][0] if self._events else None

    def at(self, when_ns: int, callback: Callable[..., object], *args: Any) -> None:
        """Call back at a time; one that has passed means now, after everything that is due already."""
        heapq.heappush(self._events, (max(when_ns, self.now_ns), next(self._numbers), callback, args))

    def advance_to(self, when_ns: int) -> None:
        """Do in order what is due up to a time, what it brings about included, and stand there. Never goes back."""
        events = self._events
        while events and events[0][0] <= when_ns:
            self.now_ns, _, callback, args = heapq.heappop(events)
            callback(*args)
        self.now_ns = max(self.now_ns, when_ns)

    def advance_s(self, seconds: float) -> None:
        """Do what is due in the next seconds, and stand there."""
        self.advance_to(self.now_ns + round(seconds * 1e9))

    def step(self) -> bool:
        """Do the next thing, at its time; False when there is none."""
        if not self._events:
            return False
        self.now_ns, _, callback, args = heapq.heappop(self._events)
        callback(*args)
        return True
