"""Our own legs: ways to a peer through another (docs/spec, chapter 21)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from interpeer import errors
from interpeer._address import CoreEndpoint
from interpeer._connection import Connection
from interpeer._core import legs, path_handle
from interpeer._identity import PeerId
from interpeer._reach.peers import Peer
from interpeer._reach.relaying import new_leg
from interpeer._reach.signals import FULL, OPENED, REFUSED, UNKNOWN, Attested, Hangup, Offer, Open, Opened

if TYPE_CHECKING:
    from interpeer._reach import Reach

logger = logging.getLogger("interpeer")

MAX_OFFERED = 128
"""Legs that peers have opened towards us and no connection uses yet: an attacker's calls must not fill memory."""
MAX_OFFERED_BY_ONE = 32
"""... of one relay, so that it cannot keep out the calls that come by others."""
UNUSED_S = 30.0
"""How long a leg is kept that no connection uses: calls take ten seconds."""
WHY = {
    UNKNOWN: "does not know the peer",
    REFUSED: "refuses to relay",
    FULL: "relays for as many as it can",
}

Answered = Callable[["Leg"], None]


@final
@dataclass(eq=False, slots=True)
class Leg:
    """Know a leg of ours."""

    id: int
    relay: Peer
    peer_id: PeerId
    """Whom it leads to."""
    endpoint: CoreEndpoint
    """What stands for it in the core."""
    opened_s: float
    status: int | None = None
    """OPENED, or why not; None: no answer yet."""
    attested: CoreEndpoint | None = None
    """Where the relay says that the peer's packets come from."""
    facts: bytes = b""
    """What the peer has told the relay of its NAT."""
    users: set[Connection] = field(default_factory=set[Connection])


@final
class LegBook:
    """Open legs, take those that are offered, and let go of what nobody uses."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._by_id: dict[int, Leg] = {}
        self._answered: dict[int, Answered] = {}

    def find(self, remote: CoreEndpoint) -> Leg | None:
        """Return the leg that a path's remote stands for."""
        leg = self._by_id.get(int.from_bytes(remote[0][8:], "big"))
        return leg if leg is not None and leg.endpoint[0] == remote[0] else None

    def open(self, relay: Peer, peer_id: PeerId, on_answer: Answered) -> Leg | None:
        """Ask a peer for a leg to another; it may be used at once. None when the relay is not to be asked now."""
        own = new_leg(relay.shard)
        try:
            endpoint = legs.add(relay.connection._handle, own)
        except (ValueError, errors.LocalError) as error:
            logger.debug("no leg through %s: %s", relay.peer_id, error)
            return None
        leg = self._by_id[own] = Leg(own, relay, peer_id, endpoint, self._now())
        relay.legs.add(own)
        asked = Open(own, self._reach.shard_of(relay), bytes(peer_id), self._reach.facts)
        if not relay.tell(asked):
            self._drop(leg)
            return None
        self._answered[own] = on_answer
        return leg

    def handle_opened(self, relay: Peer, answer: Opened) -> None:
        """A relay says what became of a leg."""
        leg = self._by_id.get(answer.leg)
        if leg is None or leg.relay is not relay or leg.status is not None:
            return
        leg.status, leg.attested, leg.facts = answer.status, answer.attested, answer.facts
        on_answer = self._answered.pop(leg.id, None)
        if answer.status != OPENED:
            self._drop(leg)
        if on_answer is not None:
            on_answer(leg)
        for connection in tuple(leg.users):  # what was sent on it may have come before the answer
            self._reach.on_opened(connection, leg)

    def handle_attested(self, relay: Peer, told: Attested) -> None:
        """A relay has seen the peer at another address."""
        leg = self._by_id.get(told.leg)
        if leg is not None and leg.relay is relay and told.attested is not None:
            leg.attested = told.attested
            for connection in tuple(leg.users):
                self._reach.on_opened(connection, leg)

    def handle_offer(self, relay: Peer, offer: Offer) -> None:
        """A peer calls us through another; what is sent on the leg is the call."""
        unused = [leg.relay is relay for leg in self._by_id.values() if not leg.users]
        if len(unused) >= MAX_OFFERED or sum(unused) >= MAX_OFFERED_BY_ONE or offer.leg in self._by_id:
            relay.tell(Hangup(offer.leg))
            return
        try:
            endpoint = legs.add(relay.connection._handle, offer.leg)
        except (ValueError, errors.LocalError) as error:
            logger.debug("an offer of %s that cannot be: %s", relay.peer_id, error)
            relay.tell(Hangup(offer.leg))
            return
        relay.legs.add(offer.leg)
        caller = PeerId._of_proved(offer.caller)
        self._by_id[offer.leg] = Leg(offer.leg, relay, caller, endpoint, self._now(), OPENED, offer.attested, offer.facts)

    def handle_hangup(self, relay: Peer, leg_id: int) -> None:
        """The relay, or the other end, has given a leg up."""
        leg = self._by_id.get(leg_id)
        if leg is not None and leg.relay is relay:
            self._refuse(leg)

    def handle_gone(self, leg_id: int) -> None:
        """The connection to the relay is over."""
        if (leg := self._by_id.get(leg_id)) is not None:
            self._refuse(leg)

    # --- users ---

    def use(self, connection: Connection) -> list[Leg]:
        """Note which legs a connection's paths go over, and return them."""
        found: list[Leg] = []
        for _, state, _, _, remote, _ in path_handle.ways(connection._handle):
            leg = self.find(remote) if path_handle.STATES[state] != "abandoned" else None
            if leg is not None:
                leg.users.add(connection)
                found.append(leg)
        for leg in self._by_id.values():
            if leg not in found:
                leg.users.discard(connection)
        return found

    def let_go(self, connection: Connection) -> None:
        """A connection is over: what it alone has used is not needed any more, once its last packets have gone."""
        for leg in tuple(self._by_id.values()):
            leg.users.discard(connection)

    def drop(self, leg: Leg) -> None:
        """Give a leg up, and say so."""
        if self._by_id.get(leg.id) is leg:
            leg.relay.tell(Hangup(leg.id))
            self._drop(leg)

    def expire(self) -> None:
        """Give up what nobody uses."""
        now = self._now()
        for leg in tuple(self._by_id.values()):
            if leg.users:
                leg.opened_s = now
            elif leg.opened_s + UNUSED_S < now:
                leg.relay.tell(Hangup(leg.id))
                self._refuse(leg)

    def _refuse(self, leg: Leg) -> None:
        """A leg is gone: whoever still waits for the relay's answer has it now."""
        on_answer = self._answered.get(leg.id)
        self._drop(leg)
        if on_answer is not None:
            leg.status = REFUSED
            on_answer(leg)

    def _drop(self, leg: Leg) -> None:
        del self._by_id[leg.id]
        self._answered.pop(leg.id, None)
        leg.relay.legs.discard(leg.id)
        legs.remove(leg.relay.connection._handle.engine, leg.id)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
