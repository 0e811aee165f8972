"""How much a peer may cause: a token bucket."""

from __future__ import annotations

from typing import final


@final
class Allowance:
    """Allow so much a second, and a burst at once; full at first.

    >>> probes = Allowance(2.0, 3.0)
    >>> [probes.take(1, 0.0) for _ in range(4)], probes.take(1, 0.5)
    ([True, True, True, False], True)
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = self._tokens = burst
        self._updated_s = 0.0

    def take(self, amount: float, now_s: float) -> bool:
        """Tell whether so much may be had, and take it then."""
        if self.left(now_s) < amount:
            return False
        self._tokens -= amount
        return True

    def spend(self, amount: float, now_s: float) -> None:
        """Take what has been had already."""
        self._tokens = max(0.0, self.left(now_s) - amount)

    def left(self, now_s: float) -> int:
        """Return how much may be had at once, rounded down."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self._per_s)
        self._updated_s = now_s
        return int(self._tokens)
