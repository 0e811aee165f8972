"""Who is on the link: a table that forgets, and that nobody can make grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from interpeer._address import Endpoint
from interpeer._identity import PeerId

EXPIRY_S = 200.0
"""A neighbour that has said nothing for so long is gone: three beacons in a row were lost."""
MAX_NEIGHBOURS = 256
"""More on one link are not kept; those that are there stay."""
MAX_ENDPOINTS = 8
"""Of one neighbour, over all families, interfaces and ways of discovery."""
MAX_IDS_PER_HOST = 16
"""Nodes at one address: whoever makes ids up cannot fill the table from one place."""


@final
@dataclass(frozen=True, slots=True)
class Neighbour:
    """A node on the same link, as it says itself: a hint, until a handshake has proved it."""

    peer_id: PeerId
    endpoints: tuple[Endpoint, ...]
    """Where it says it can be reached, the one heard of last first."""


@final
class Neighbours:
    """Keep who was heard, and where. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._heard: dict[PeerId, dict[Endpoint, float]] = {}
        self._ids_at = Counter[str]()
        self.refused = 0
        """How often somebody new was not kept."""

    def __len__(self) -> int:
        return len(self._heard)

    def all(self, now_s: float) -> tuple[Neighbour, ...]:
        """Return those that are there, in the order in which they came."""
        self.expire(now_s)
        return tuple(self._neighbour(peer_id) for peer_id in self._heard)

    def hear(self, peer_id: PeerId, endpoints: Iterable[Endpoint], now_s: float) -> Neighbour | None:
        """Note that a node can be reached at these places; return it if any of them is news."""
        self.expire(now_s)
        places = list(endpoints)[:MAX_ENDPOINTS]
        known = self._heard.get(peer_id, {})
        new = [place for place in places if place not in known]
        if any(self._ids_at[place.host] >= MAX_IDS_PER_HOST for place in new) or (not known and len(self) >= MAX_NEIGHBOURS):
            self.refused += 1
            return None
        known = self._heard.setdefault(peer_id, known)
        for place in places:
            known.pop(place, None)
            known[place] = now_s  # the newest stands last
        self._ids_at.update(place.host for place in new)
        while len(known) > MAX_ENDPOINTS:
            self._forget(known, next(iter(known)))
        if not known:
            del self._heard[peer_id]
        return self._neighbour(peer_id) if new else None

    def expire(self, now_s: float) -> None:
        """Forget what was not heard of for too long."""
        for peer_id, known in list(self._heard.items()):
            for place in [place for place, heard_s in known.items() if heard_s + EXPIRY_S <= now_s]:
                self._forget(known, place)
            if not known:
                del self._heard[peer_id]

    def _forget(self, known: dict[Endpoint, float], place: Endpoint) -> None:
        del known[place]
        self._ids_at[place.host] -= 1
        if not self._ids_at[place.host]:
            del self._ids_at[place.host]

    def _neighbour(self, peer_id: PeerId) -> Neighbour:
        return Neighbour(peer_id, tuple(reversed(self._heard[peer_id])))
