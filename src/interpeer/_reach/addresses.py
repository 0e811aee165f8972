"""Where the node itself can be reached: what its interfaces say, what peers see, what was mapped (docs/spec, chapter 20)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint
from interpeer._identity import PeerId
from interpeer._nat import prefix
from interpeer._reach.peers import Peer, Peers
from interpeer._reach.signals import HOST, MAPPED, MAX_CANDIDATES, REFLEXIVE

if TYPE_CHECKING:
    from interpeer._node import Node

MAX_OWN = 8
"""Addresses of interfaces that are told: with many bridges and tunnels they would leave no room for those that others see."""
Listing = Callable[[], tuple[Endpoint, ...]]


@final
class OwnAddresses:
    """Know the node's addresses, and what its NAT does with them."""

    def __init__(self, node: Node, peers: Peers, mapped: Listing, surveyed: Listing) -> None:
        self._node = node
        self._mapped = mapped
        self._surveyed = surveyed
        self._peers = peers
        self._seen: dict[PeerId, tuple[CoreEndpoint, CoreEndpoint]] = {}
        """What each peer says of us, and from where it says so."""

    def note(self, peer: Peer) -> None:
        """Take what a peer says of us."""
        seen, at = peer.observed, peer.attested
        if seen is not None and at is not None:
            self._seen[peer.peer_id] = (seen, at)

    def forget(self, peer: Peer) -> None:
        """A peer is gone; what it has said may not hold any more."""
        self._seen.pop(peer.peer_id, None)

    def reflexive(self) -> tuple[Endpoint, ...]:
        """Return the addresses that others see: those of a survey, and of each family it says nothing of, those that most peers
        agree on. One liar has one voice.

        Where two prefixes contradict each other, both are told: a false one costs a few probes that reach nobody."""
        found = list(self._surveyed())
        for is_ipv4 in (True, False):
            surveyed = {endpoint.host for endpoint in found if (":" not in endpoint.host) == is_ipv4}
            voices: dict[bytes, set[bytes]] = {}
            ports: Counter[tuple[bytes, int]] = Counter()
            for seen, at in self._seen.values():
                is_told = seen[0].startswith(IPV4_MAPPED) == is_ipv4
                if is_told and (not surveyed or Endpoint.from_core(seen).host in surveyed):
                    voices.setdefault(seen[0], set()).add(prefix(at[0]))
                    ports[seen[0], seen[1]] += 1
            if not voices:
                continue
            most = max(map(len, voices.values()))
            hosts = {host for host, who in voices.items() if len(who) == most}
            found += [Endpoint.from_core((host, port, 0)) for (host, port), _ in ports.most_common() if host in hosts]
        return tuple(dict.fromkeys(found))

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return every address of ours, those of the interfaces first."""
        return tuple(dict.fromkeys((*self._node._driver.endpoints, *self.reflexive(), *self._mapped())))

    def candidates(self) -> tuple[tuple[int, CoreEndpoint], ...]:
        """Return what a peer may try, with its kind."""
        own = [(HOST, endpoint) for endpoint in self._node._driver.endpoints if not endpoint.is_loopback]
        told = [(REFLEXIVE, endpoint) for endpoint in self.reflexive() if endpoint not in self._node._driver.endpoints]
        mapped = [(MAPPED, endpoint) for endpoint in self._mapped()]
        return tuple((kind, endpoint.to_core()) for kind, endpoint in (own[:MAX_OWN] + told + mapped)[:MAX_CANDIDATES])
