"""What a node gives as a relay: legs between peers that both are connected to it (docs/spec, chapter 21)."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from interpeer import errors
from interpeer._config import Give
from interpeer._core import engine, legs
from interpeer._host import random_bytes
from interpeer._identity import PeerId
from interpeer._reach.allowance import Allowance
from interpeer._reach.peers import Peer, Peers
from interpeer._reach.signals import FULL, OPENED, REFUSED, UNKNOWN, Attested, Hangup, Offer, Open, Opened

if TYPE_CHECKING:
    from interpeer._node import Node

logger = logging.getLogger("interpeer")

MAX_PAIRS = 1024
"""Pairs of legs in all: each is an entry in a table, and a share of what we give."""
MAX_LEGS_OF_A_PEER = 32
"""... of one peer, as caller or called: it must not use up all."""
OPENS_PER_S, OPENS_BURST = 5.0, 20
"""Legs that a peer may ask for."""
SIGNALLING_BYTES_PER_S = 4_000
"""What a pair has where data are not relayed: enough for handshakes and punching, which are always relayed."""
ALL_SIGNALLING_BYTES_PER_S = 64_000
"""What all pairs have together where that is more than what is given: half a Mbit/s, for hundreds of handshakes a minute."""
SIGNALLING_BURST_BYTES = 64_000
BURST_S = 1.0
"""How long a pair may be faster than its rate."""
IDLE_NS = 60 * 1_000_000_000
"""After so much silence a pair is forgotten: its peers send something every 15 s while they need it."""


def new_leg(shard: int) -> int:
    """Draw an id for a leg towards a peer, whose datagrams that peer's shard gets (docs/spec, chapter 3)."""
    drawn = bytearray(random_bytes(8))
    drawn[0] |= 0x80
    drawn[1] = drawn[0] & 0x80 | (drawn[0] ^ shard) & 0x7F
    return int.from_bytes(drawn, "big")


@final
@dataclass(frozen=True, slots=True)
class _Pair:
    """Know two legs that are joined."""

    caller: Peer
    caller_leg: int
    target: Peer
    target_leg: int
    opened_ns: int


@final
class Relaying:
    """Join peers that ask for it, within what the application gives."""

    def __init__(self, node: Node, peers: Peers, give: Give) -> None:
        self._node = node
        self._peers = peers
        self._give = give
        self._pairs: dict[int, _Pair] = {}
        """By the ids of both legs."""
        self._opens: dict[PeerId, Allowance] = {}
        self.refused = 0
        """Legs that were asked for in vain."""

    def share_bytes_per_s(self, pairs: int) -> int:
        """Return what each of so many pairs gets: an equal share of what is given, and never less than signalling needs."""
        return max(SIGNALLING_BYTES_PER_S, self._given_bytes_per_s // max(1, pairs))

    def _share_anew(self) -> None:
        pairs = len(self._pairs) // 2
        rate = self.share_bytes_per_s(pairs)
        busy = Counter[engine.Engine]()
        for leg, pair in self._pairs.items():
            if leg == pair.caller_leg:
                core = self._engine_of(pair.caller)
                busy[core] += 1
                with suppress(ValueError):  # it has ended, and that is told in a moment
                    legs.set_rate(core, leg, rate, _burst(rate))
        for core, own in busy.items():
            all_rate = max(ALL_SIGNALLING_BYTES_PER_S, self._given_bytes_per_s) * own / pairs
            legs.set_total(core, all_rate, _burst(all_rate))

    @property
    def _given_bytes_per_s(self) -> int:
        return 0 if self._give.metered else self._give.relay_bytes_per_s

    def handle_open(self, caller: Peer, asked: Open, now_s: float) -> None:
        """Open a leg towards a registered peer, and tell both."""
        target = self._peers.find(PeerId._of_proved(asked.target))
        status = self._open(caller, target, asked, now_s)
        if status != OPENED or target is None:
            self.refused += 1
            caller.tell(Opened(asked.leg, status, 0, None, b""))

    def _open(self, caller: Peer, target: Peer | None, asked: Open, now_s: float) -> int:
        if target is None or not target.is_registered or target is caller:
            return UNKNOWN
        if not self._opens.setdefault(caller.peer_id, Allowance(OPENS_PER_S, OPENS_BURST)).take(1, now_s):
            return FULL
        if len(self._pairs) // 2 >= MAX_PAIRS or max(len(caller.legs), len(target.legs)) >= MAX_LEGS_OF_A_PEER:
            return FULL
        leg = new_leg(target.shard)
        rate = self.share_bytes_per_s(len(self._pairs) // 2 + 1)
        try:
            legs.join(caller.connection._handle, asked.leg, target.connection._handle, leg, rate, _burst(rate))
        except (ValueError, errors.LocalError) as error:
            logger.info("no leg from %s to %s: %s", caller.peer_id, target.peer_id, error)
            return REFUSED
        self._pairs[asked.leg] = self._pairs[leg] = _Pair(caller, asked.leg, target, leg, round(now_s * 1e9))
        caller.legs.add(asked.leg)
        target.legs.add(leg)
        if not target.tell(Offer(leg, bytes(caller.peer_id), caller.attested_for(target), asked.facts or caller.facts)):
            self._remove(leg, caller)  # it would never hear of it
            return FULL
        self._share_anew()
        caller.tell(Opened(asked.leg, OPENED, rate, target.attested_for(caller), target.facts))
        return OPENED

    def handle_shown(self, peer: Peer) -> None:
        """A peer has shown its address of the other family: those who have that family alone could not use the one before."""
        for leg in peer.legs & self._pairs.keys():
            pair = self._pairs[leg]
            other, other_leg = (pair.target, pair.target_leg) if pair.caller is peer else (pair.caller, pair.caller_leg)
            if peer.attested_for(other) != peer.attested:
                other.tell(Attested(other_leg, peer.shown))

    def handle_hangup(self, peer: Peer, leg: int) -> None:
        """One end does not use its leg any more."""
        if leg in peer.legs and leg in self._pairs:
            self._remove(leg, peer)

    def handle_gone(self, leg: int) -> None:
        """The core has removed a leg with its connection."""
        if leg in self._pairs:
            self._forget(leg, None)

    def _remove(self, leg: int, by: Peer | None) -> None:
        legs.remove(self._engine_of(self._pairs[leg].caller), leg)
        self._forget(leg, by)

    def _forget(self, leg: int, by: Peer | None) -> None:
        pair = self._pairs[leg]
        del self._pairs[pair.caller_leg], self._pairs[pair.target_leg]
        for peer, own in ((pair.caller, pair.caller_leg), (pair.target, pair.target_leg)):
            peer.legs.discard(own)
            if peer is not by:
                peer.tell(Hangup(own))
        self._share_anew()

    def expire(self, now_ns: int) -> None:
        """Forget what nobody uses; called now and then."""
        for core in self._node._engines:
            for figures in legs.pairs(core):
                pair = self._pairs.get(figures["leg_a"])
                if pair is not None and max(figures["last_ns"], pair.opened_ns) + IDLE_NS < now_ns:
                    self._remove(pair.caller_leg, None)
        self._opens = {peer_id: opens for peer_id, opens in self._opens.items() if self._peers.find(peer_id)}

    def report(self) -> list[dict[str, Any]]:
        """Return what is relayed at the moment: for each pair both peers, bytes each way, and what was dropped."""
        return [
            {**figures, "a": str(pair.caller.peer_id), "b": str(pair.target.peer_id)}
            for core in self._node._engines
            for figures in legs.pairs(core)
            if (pair := self._pairs.get(figures["leg_a"])) is not None
        ]

    def _engine_of(self, peer: Peer) -> engine.Engine:
        return peer.connection._handle.engine


def _burst(rate: float) -> int:
    return max(SIGNALLING_BURST_BYTES, int(rate * BURST_S))
