"""How often something is said on a link: hellos in a burst and then ever more rarely, answers one a second to each."""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

FIRST_GAP_S = 1.0
LONGEST_GAP_S = 60.0
JITTER = 0.25
"""A gap is so much shorter or longer, so that nodes that were started together do not speak together."""
LEAST_GAP_S = 1.0
"""Between two rounds, however often the interfaces change."""
ANSWER_GAP_S = 1.0
"""Between two answers to one neighbour."""
MAX_ANSWERS_PER_S = 32
"""To all together: sources can be made up."""
MAX_OPENED_PER_S = 256
"""Beacons that are opened; each costs a tenth of a millisecond at most."""


@final
class Schedule:
    """When the next hello is due."""

    def __init__(self) -> None:
        self._gap_s = FIRST_GAP_S
        self._last_s: float | None = None

    def restart(self, now_s: float) -> float:
        """Begin again with a burst; return when to say hello first."""
        self._gap_s = FIRST_GAP_S
        return now_s if self._last_s is None else max(now_s, self._last_s + LEAST_GAP_S)

    def said(self, now_s: float, chance: float) -> float:
        """Note that hello was said; return when to say it again. `chance` is from 0 to 1."""
        self._last_s = now_s
        gap_s = self._gap_s * (1 - JITTER + 2 * JITTER * chance)
        self._gap_s = min(2 * self._gap_s, LONGEST_GAP_S)
        return now_s + gap_s


@final
class Allowance:
    """So many a second, as many at once."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._since_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Take one, if there is one left."""
        if self._since_s is not None:
            self._left = min(self._per_s, self._left + (now_s - self._since_s) * self._per_s)
        self._since_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


@final
class AnswerGaps:
    """Whom an answer may go to now. What it keeps is bounded by how many answers there may be in all."""

    def __init__(self) -> None:
        self._answered: dict[Hashable, float] = {}
        self._all = Allowance(MAX_ANSWERS_PER_S)

    def take(self, whom: Hashable, now_s: float) -> bool:
        """Tell whether to answer somebody now, and note that it was done."""
        for other, answered_s in list(self._answered.items()):
            if answered_s + ANSWER_GAP_S <= now_s:
                del self._answered[other]
        if whom in self._answered or not self._all.take(now_s):
            return False
        self._answered[whom] = now_s
        return True
