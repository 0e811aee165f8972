"""What observations mean together (docs/spec, chapter 23): pure functions, each of them sceptical of every single observer.

An observer is anybody who says at which address he sees us. He may lie, so nothing is taken from one alone, and many at one
place count once: a quorum is of distinct prefixes.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint
from interpeer._nat._report import Behaviour

QUORUM = 2
"""Observers in distinct prefixes who must agree."""
MAX_STEP = 32
"""Between two mappings made one after the other; others' mappings lie between ours, so more says nothing."""
MIN_SAMPLES = 4
"""Fresh mappings, from which a step or a block is guessed."""
LUCK = 1e-3
"""How likely ports drawn from all may lie as close together by chance, for it to be called a block."""
PORTS = 64_512
"""Ports that a NAT draws from, above the well-known ones."""
MAX_BLOCK = 8192


@final
@dataclass(frozen=True, slots=True)
class Observation:
    """Say that a server has seen a socket of ours at an address."""

    server: CoreEndpoint
    mapped: CoreEndpoint
    local_port: int = 0
    """Of our socket; 0: not known."""


def prefix(address: bytes) -> bytes:
    """Return what an observer counts by: the /24 of an IPv4 address, the /48 of an IPv6 address.

    In a network of one's own addresses lie together, so there each counts singly."""
    if Endpoint.from_core((address, 1, 0)).is_private:
        return address
    return address[:15] if address.startswith(IPV4_MAPPED) else address[:6]


def voters(observations: Iterable[Observation]) -> dict[CoreEndpoint, set[bytes]]:
    """Return, for each address that we are seen at, the prefixes of those who say so."""
    found: defaultdict[CoreEndpoint, set[bytes]] = defaultdict(set)
    for one in observations:
        found[one.mapped].add(prefix(one.server[0]))
    return dict(found)


def reflexive(observations: Sequence[Observation]) -> list[CoreEndpoint]:
    """Return the addresses of ours that a quorum vouches for, those with the most voters first.

    Of a NAT that gives us another port for each observer every one is listed whose host a quorum names. A single
    observer's word is returned as well if there is no other: it is all there is, and whoever uses it is to know (NB-4)."""
    votes = voters(observations)
    agreed = [one for one in votes if len(votes[one]) >= QUORUM]
    if not agreed:
        hosts: defaultdict[bytes, set[bytes]] = defaultdict(set)
        for one, prefixes in votes.items():
            hosts[one[0]] |= prefixes
        agreed = [one for one in votes if len(hosts[one[0]]) >= QUORUM]
    if not agreed and len({prefix(one.server[0]) for one in observations}) == 1:
        agreed = list(votes)
    return sorted(agreed, key=lambda one: -len(votes[one]))


def trusted(observations: Sequence[Observation]) -> set[CoreEndpoint]:
    """Return the servers to ask more: those who agree with most, or name the host that most name, or else all there are."""
    agreed = set(reflexive(observations))
    alike = {one.server for one in observations if one.mapped in agreed}
    return alike or {one.server for one in observations}


def mapping(observations: Sequence[Observation], own: Collection[CoreEndpoint]) -> tuple[Behaviour, list[str]]:
    """Return the mapping behaviour that what servers say of ONE socket shows, and what is doubtful about it."""
    votes = voters(observations)
    everybody = {prefix(one.server[0]) for one in observations}
    if len(everybody) < QUORUM:
        only = next(iter(votes), None)
        if len(votes) > 1:
            return "address-and-port-dependent", ["seen at two ports by one address alone"]
        if only is not None and only[:2] in {one[:2] for one in own}:
            return "none", ["one observer alone says so"]
        return "unknown", ["it takes two observers at different addresses"] if votes else []
    favourite = max(votes, key=lambda one: len(votes[one]))
    dissenters = everybody - votes[favourite]
    if len(votes[favourite]) >= QUORUM and len(votes[favourite]) > len(dissenters):
        notes = [f"{len(dissenters)} of {len(everybody)} observers disagree"] if dissenters else []
        return ("none" if favourite[:2] in {one[:2] for one in own} else "endpoint-independent"), notes
    return _dependent(observations, everybody)


def is_disputed(observations: Sequence[Observation]) -> bool:
    """Tell whether servers have seen ONE socket at different addresses."""
    return len(voters(observations)) > 1


def _dependent(observations: Sequence[Observation], everybody: set[bytes]) -> tuple[Behaviour, list[str]]:
    """Tell what a mapping depends on that differs from server to server: do two ports of one address see the same?"""
    notes = ["two observers disagree, and no third says which of them is right"] if len(everybody) == QUORUM else []
    seen: defaultdict[bytes, dict[int, CoreEndpoint]] = defaultdict(dict)
    for one in observations:
        seen[one.server[0]][one.server[1]] = one.mapped
    pairs = [set(ports.values()) for ports in seen.values() if len(ports) > 1]
    if not pairs:
        return "address-and-port-dependent", [*notes, "no observer has two ports: it may depend on addresses alone"]
    is_same = sum(len(mapped) == 1 for mapped in pairs) * 2 > len(pairs)
    return ("address-dependent" if is_same else "address-and-port-dependent"), notes


def filtering(is_natted: bool | None, from_other_address: bool | None, from_other_port: bool | None) -> Behaviour:
    """Return the filtering behaviour: what came through from an address, and from a port, that nothing was sent to."""
    if from_other_address:
        return "none" if is_natted is False else "endpoint-independent"
    if from_other_port is False:
        return "address-and-port-dependent"
    if from_other_address is False:  # where the port was not tried the worse is assumed
        return "address-dependent" if from_other_port else "address-and-port-dependent"
    return "unknown"


def preserves_port(samples: Sequence[Observation]) -> bool | None:
    """Tell whether mappings have the ports of our sockets."""
    known = [one.mapped[1] == one.local_port for one in samples if one.local_port]
    return all(known) if len(known) >= QUORUM else None


def fresh_ports(samples: Sequence[Observation]) -> list[int]:
    """Return the ports of the mappings, each once, in the order in which they were made."""
    return list(dict.fromkeys(one.mapped[1] for one in samples))


def port_step(ports: Sequence[int]) -> int | None:
    """Return how far apart mappings are that were made one after the other; None: there is no such rule.

    Mappings of others in between make some distances multiples of it."""
    if len(ports) < MIN_SAMPLES:
        return None
    apart = [after - before for before, after in itertools.pairwise(ports)]
    steps = [one for one in apart if abs(one) < PORTS // 2]  # at the end of its ports a NAT begins anew
    if len(steps) < len(apart) - 1 or len(steps) < MIN_SAMPLES - 1:
        return None
    sign = 1 if steps[0] > 0 else -1
    least = math.gcd(*steps)
    if any(one * sign <= 0 for one in steps) or least > MAX_STEP:
        return None
    if any(abs(one) > MAX_STEP * least for one in steps):
        return None
    return least * sign


def port_block(ports: Sequence[int]) -> tuple[int, int] | None:
    """Return the range that mappings get their ports from; None: it is not small, or too little is known.

    Of n ports drawn from a block the outermost are, on average, one n-th of their span away from its ends; twice that is
    added, so that the true ends lie outside in few cases."""
    n, span = len(ports), max(ports, default=0) - min(ports, default=0)
    if n < MIN_SAMPLES or n * ((span + 1) / PORTS) ** (n - 1) > LUCK:
        return None
    margin = 2 * span // (n - 1) + 1
    low, high = max(1024, min(ports) - margin), min(65_535, max(ports) + margin)
    low = min(low, *ports)
    return (low, high) if high - low < MAX_BLOCK else None
