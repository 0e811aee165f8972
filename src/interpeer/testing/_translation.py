"""What a NAT or a stateful firewall remembers, for one protocol: no packets and no clock, only endpoints and times.

Endpoints are inner (a host's own), outer (what the mapping makes of it) and remote. A mapping belongs to an inner endpoint and to
as much of the remote one as the mapping behaviour depends on; it holds a session for as much of each remote endpoint as the
filter asks for. Where nothing is translated, outer and inner are the same, and the sessions are all there is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, final

from interpeer._address import CoreEndpoint
from interpeer.testing._natkind import FIRST_PORT, LAST_PORT, Allocation, Dependence, NatBehaviour

MAX_MAPPINGS: Final = 262_144
"""More are refused, as by a connection table that is full (Linux' nf_conntrack_max on a large machine)."""
_FIRST_SWEEP: Final = 1024  # mappings from which on those that are over are looked for

_Key = tuple[bytes, int] | bytes | None
"""As much of a remote endpoint as something depends on."""


def _key(dependence: Dependence, remote: CoreEndpoint) -> _Key:
    if dependence is Dependence.ADDRESS_AND_PORT_DEPENDENT:
        return remote[0], remote[1]
    return remote[0] if dependence is Dependence.ADDRESS_DEPENDENT else None


@final
@dataclass(slots=True)
class _Session:
    ends_ns: int
    is_answered: bool = False


@final
@dataclass(slots=True)
class _Mapping:
    inner: CoreEndpoint | None  # None: the NAT's own, since a stranger has sent there
    outer: CoreEndpoint
    key: _Key
    ends_ns: int
    sessions: dict[_Key, _Session] = field(default_factory=dict[_Key, _Session])


@final
class Translator:
    """Translate endpoints and filter, as a behaviour says. Times are nanoseconds.

    address: the outside one, of 16 bytes; is_refreshed_inward: packets that come in keep what they use alive, too."""

    def __init__(
        self, behaviour: NatBehaviour, address: bytes, chance: random.Random, *, is_refreshed_inward: bool = False
    ) -> None:
        self._behaviour = behaviour
        self._address = address
        self._random = chance
        # what is tracked is a pair of endpoints: a port is preserved for each of them, as long as the pair is not taken
        self._depends_on = Dependence.ADDRESS_AND_PORT_DEPENDENT if behaviour.tracks_strangers else behaviour.mapping
        self._is_refreshed_inward = is_refreshed_inward or behaviour.tracks_strangers
        self._remembers = behaviour.translates or behaviour.filtering is not Dependence.NONE
        self._lifetime_ns = round(behaviour.lifetime_s * 1e9)
        self._answered_ns = round((behaviour.reply_lifetime_s or behaviour.lifetime_s) * 1e9)
        self._first, self._last = _ports(behaviour, chance)
        self._previous = chance.randint(self._first, self._last)
        self._by_inner: dict[tuple[CoreEndpoint, _Key], _Mapping] = {}
        self._by_outer: dict[CoreEndpoint, dict[_Key, _Mapping]] = {}
        self._sweep_at = _FIRST_SWEEP
        self._flow_gap_ns = 0.0  # mean time between two flows of others through the same NAT; 0: there are none
        self._next_flow_ns = 0.0

    @property
    def ports(self) -> tuple[int, int]:
        """The first and the last port that it gives out by chance or in sequence."""
        return self._first, self._last

    def live_mappings(self, now_ns: int) -> int:
        """Count what has not ended, those of other flows included."""
        return sum(mapping.ends_ns > now_ns for keyed in self._by_outer.values() for mapping in keyed.values())

    def flush(self) -> None:
        """Forget everything."""
        self._by_inner.clear()
        self._by_outer.clear()

    def let_others_flow(self, flows_per_s: float, now_ns: int) -> None:
        """Have other hosts open so many mappings a second, at random times, from now on."""
        self._flow_gap_ns = 1e9 / flows_per_s if flows_per_s else 0.0
        self._next_flow_ns = now_ns + self._random.expovariate(1.0) * self._flow_gap_ns

    # --- outwards ---

    def outward(self, inner: CoreEndpoint, remote: CoreEndpoint, now_ns: int) -> CoreEndpoint | None:
        """Return where a packet comes from when it is outside; None: there is no port left."""
        if not self._remembers:
            return inner
        key = _key(self._depends_on, remote)
        mapping = self._by_inner.get((inner, key))
        if mapping is None or mapping.ends_ns <= now_ns:
            if mapping is not None:
                self._forget(mapping)
            self._let_others_go_first(now_ns)
            outer = inner if not self._behaviour.translates else self._allocate(inner, key, now_ns)
            if outer is None or len(self._by_inner) >= MAX_MAPPINGS:
                return None
            mapping = self._add(inner, outer, key, now_ns)
        self._refresh(mapping, remote, now_ns)
        return mapping.outer

    def _add(self, inner: CoreEndpoint | None, outer: CoreEndpoint, key: _Key, now_ns: int) -> _Mapping:
        mapping = _Mapping(inner, outer, key, now_ns + self._lifetime_ns)
        self._by_outer.setdefault(outer, {})[key] = mapping
        if inner is not None:
            self._by_inner[inner, key] = mapping
            if len(self._by_inner) >= self._sweep_at:
                self._sweep(now_ns)
        return mapping

    def _refresh(self, mapping: _Mapping, remote: CoreEndpoint, now_ns: int) -> None:
        key = _key(self._behaviour.filtering, remote)
        session = mapping.sessions.get(key)
        if session is None or session.ends_ns <= now_ns:
            session = mapping.sessions[key] = _Session(0)
        session.ends_ns = now_ns + (self._answered_ns if session.is_answered else self._lifetime_ns)
        mapping.ends_ns = max(mapping.ends_ns, session.ends_ns)

    # --- ports ---

    def _allocate(self, inner: CoreEndpoint, key: _Key, now_ns: int) -> CoreEndpoint | None:
        behaviour = self._behaviour
        if behaviour.allocation is Allocation.PRESERVED:
            outer = self._address, inner[1], 0
            if self._is_free(outer, key, now_ns):
                return outer
        step = behaviour.step if behaviour.allocation is Allocation.SEQUENTIAL else 1
        count = self._last - self._first + 1
        if behaviour.allocation is Allocation.SEQUENTIAL:
            port = self._previous + step
        else:
            port = self._random.randint(self._first, self._last)
        for _ in range(count):
            port = self._first + (port - self._first) % count
            outer = self._address, port, 0
            if self._is_free(outer, key, now_ns):
                self._previous = port
                return outer
            port += step
        return None

    def _is_free(self, outer: CoreEndpoint, key: _Key, now_ns: int) -> bool:
        """Tell whether a port can be given out: one may serve several remote endpoints, if the filter keeps them apart."""
        keyed = self._by_outer.get(outer)
        if keyed is None:
            return True
        if self._behaviour.filtering is Dependence.ENDPOINT_INDEPENDENT or key is None:
            for mapping in [mapping for mapping in keyed.values() if mapping.ends_ns <= now_ns]:
                self._forget(mapping)
            return not keyed
        same = keyed.get(key)
        if same is not None and same.ends_ns <= now_ns:
            self._forget(same)
            return True
        return same is None

    def _let_others_go_first(self, now_ns: int) -> None:
        """Open what other hosts have opened since the last time, one after the other."""
        if not self._flow_gap_ns or not self._behaviour.translates:
            return
        while self._next_flow_ns <= now_ns:
            begun_ns = round(self._next_flow_ns)
            self._next_flow_ns += self._random.expovariate(1.0) * self._flow_gap_ns
            remote = self._random.randbytes(16), self._random.randint(1, LAST_PORT), 0
            other = self._random.randbytes(16), self._random.randint(FIRST_PORT, LAST_PORT), 0
            key = _key(self._depends_on, remote)
            outer = self._allocate(other, key, begun_ns)
            if outer is not None and begun_ns + self._lifetime_ns > now_ns and len(self._by_inner) < MAX_MAPPINGS:
                self._add(other, outer, key, begun_ns)

    # --- inwards ---

    def inward(self, outer: CoreEndpoint, remote: CoreEndpoint, now_ns: int) -> CoreEndpoint | str:
        """Return where a packet to an outside endpoint goes to, or why it goes nowhere."""
        behaviour = self._behaviour
        if not self._remembers:
            return outer
        key = _key(self._depends_on, remote)
        keyed = self._by_outer.get(outer)
        mapping = keyed.get(key) if keyed is not None else None
        if mapping is None or mapping.ends_ns <= now_ns or not self._admits(mapping, remote, now_ns):
            has_any = keyed is not None and any(other.ends_ns > now_ns for other in keyed.values())
            mapping = self._admit_stranger(outer, key, remote, now_ns)
            if mapping is None:
                return "filtered" if has_any or not behaviour.translates else "not mapped"
        assert mapping.inner is not None
        session = mapping.sessions.get(_key(behaviour.filtering, remote))
        if session is not None:
            session.is_answered = True
            if self._is_refreshed_inward:
                session.ends_ns = now_ns + self._answered_ns
                mapping.ends_ns = max(mapping.ends_ns, session.ends_ns)
        elif self._is_refreshed_inward:
            mapping.ends_ns = now_ns + self._answered_ns
        return mapping.inner

    def _admits(self, mapping: _Mapping, remote: CoreEndpoint, now_ns: int) -> bool:
        if mapping.inner is None:
            return False
        if self._behaviour.filtering in (Dependence.NONE, Dependence.ENDPOINT_INDEPENDENT):
            return True
        session = mapping.sessions.get(_key(self._behaviour.filtering, remote))
        return session is not None and session.ends_ns > now_ns

    def _admit_stranger(self, outer: CoreEndpoint, key: _Key, remote: CoreEndpoint, now_ns: int) -> _Mapping | None:
        """Return a mapping for somebody whom the filter lets in at another's mapping: answers leave by the port he came to.

        Where strangers are tracked he gets the port, but nobody inside hears of it."""
        for other in self._by_outer.get(outer, {}).values():
            if other.ends_ns > now_ns and other.key != key and self._admits(other, remote, now_ns):
                assert other.inner is not None
                former = self._by_inner.get((other.inner, key))
                if former is not None:
                    self._forget(former)
                mapping = self._add(other.inner, outer, key, now_ns)
                self._refresh(mapping, remote, now_ns)
                return mapping
        if self._behaviour.tracks_strangers and len(self._by_outer) < MAX_MAPPINGS:
            self._by_outer.setdefault(outer, {})[key] = _Mapping(None, outer, key, now_ns + self._lifetime_ns)
        return None

    # --- forgetting ---

    def _forget(self, mapping: _Mapping) -> None:
        keyed = self._by_outer.get(mapping.outer, {})
        if keyed.get(mapping.key) is mapping:
            del keyed[mapping.key]
            if not keyed:
                del self._by_outer[mapping.outer]
        if mapping.inner is not None and self._by_inner.get((mapping.inner, mapping.key)) is mapping:
            del self._by_inner[mapping.inner, mapping.key]

    def _sweep(self, now_ns: int) -> None:
        over = [mapping for keyed in self._by_outer.values() for mapping in keyed.values() if mapping.ends_ns <= now_ns]
        for mapping in over:
            self._forget(mapping)
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._by_inner))


def _ports(behaviour: NatBehaviour, chance: random.Random) -> tuple[int, int]:
    """Return the first and the last port of those to draw from; a block is one of those that all ports fall into."""
    if behaviour.block_ports is None:
        return FIRST_PORT, LAST_PORT
    blocks = (LAST_PORT - FIRST_PORT + 1) // behaviour.block_ports
    first = FIRST_PORT + behaviour.block_ports * chance.randrange(blocks)
    return first, first + behaviour.block_ports - 1
