"""How long a mapping lives in silence: a search that tries several sockets at a time (docs/spec, chapter 23).

A socket can be tried once: the packet that finds its mapping alive refreshes it. So each round leaves a few sockets in silence
for different times, and ends with the first of them that is dead, since the longer ones are as well; the next round looks
between that one and the longest that has lived.
"""

from __future__ import annotations

from typing import final

SOCKETS = 8
"""In the first round; half as many in those that follow: mappings are scarce on some NATs."""
FIRST_S = 5.0
"""No shorter life is looked for: RFC 4787 demands two minutes, and keep-alives every five seconds would be a burden."""
RESOLUTION = 1.15
"""Two times whose ratio is less are as good as equal."""


@final
class LifetimeSearch:
    """Say how long to be silent, and be told what was still alive after that."""

    def __init__(self, budget_s: float) -> None:
        self.alive_s: float | None = None
        """The longest silence that a mapping has lived through."""
        self.dead_s: float | None = None
        """The shortest that one has not."""
        self.left_s = budget_s

    def next_round(self) -> list[float]:
        """Return the silences to try now, in rising order; [] when the search is over."""
        if self.dead_s is None:
            if self.alive_s is not None or self.left_s < FIRST_S:
                return []
            return _between(FIRST_S, self.left_s, SOCKETS - 1, with_ends=True)
        if self.alive_s is None or self.dead_s <= RESOLUTION * self.alive_s:
            return []
        return [one for one in _between(self.alive_s, self.dead_s, SOCKETS // 2 + 1, with_ends=False) if one <= self.left_s]

    def handle(self, silence_s: float, is_alive: bool) -> None:
        """Take what was found after a silence; those of a round come in rising order, and end with the first that is dead."""
        if is_alive:
            self.alive_s = silence_s
        else:
            self.dead_s = silence_s

    def handle_round(self, took_s: float) -> None:
        """Take note that a round is over, and of the time that it has cost."""
        self.left_s -= took_s


def _between(low: float, high: float, steps: int, *, with_ends: bool) -> list[float]:
    """Return times in constant ratio; once if they are the same."""
    times = [low * (high / low) ** (i / steps) for i in range(steps + 1)]
    return list(dict.fromkeys(times if with_ends else times[1:-1]))
