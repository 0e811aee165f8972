"""The peers that a node keeps in touch with: through them it is found, reached and told where it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from interpeer import errors
from interpeer._address import IPV4_MAPPED, MAX_ENDPOINTS, Address, CoreEndpoint, Endpoint, is_virtual
from interpeer._connection import Connection
from interpeer._core import path_handle, signal_handle
from interpeer._host import random_bytes
from interpeer._identity import PeerId
from interpeer._reach.signals import Signal
from interpeer._reach.tasks import Tasks

if TYPE_CHECKING:
    from interpeer._node import Node

logger = logging.getLogger("interpeer")

PROTOCOL = "interpeer.peer/1"
"""What nodes of a network speak to each other beside their applications."""
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 60.0
"""How long a peer that does not answer is left alone: twice as long each time, with full jitter."""
LIVED_S = 10.0
"""A connection that has lived so long was welcome: until then whoever accepts and closes is called ever less often, too."""
PASSING_TRIES = 3
"""How often a peer is called that nobody has named: calls last ten seconds, and by then its answer is not needed any more."""
MAX_PASSING = 64
"""Peers kept in touch with that the application has not named: strangers can make them up."""
MAX_PEERS = 1024
"""Peers kept in touch with; more are refused, since each costs a connection."""


@final
@dataclass(eq=False, slots=True)
class Peer:
    """Know a peer that is connected for the network's sake."""

    connection: Connection
    is_registered: bool = False
    """It has asked to be told of those who call it."""
    shard: int = 0
    """What leg ids towards it have (see `Register`)."""
    facts: bytes = b""
    """What it knows of the NAT in front of it."""
    relays_bytes_per_s: int | None = None
    """What it relays for us and another peer; None: it has not said."""
    legs: set[int] = field(default_factory=set[int])
    """Ids of legs on its connection."""
    shown: CoreEndpoint | None = None
    """Its address of the other family, where it has proved to receive."""
    showing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is shown an address of ours: it waits for one at a time."""

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""
        return self.connection.peer_id

    @property
    def observed(self) -> CoreEndpoint | None:
        """Our address as it sees it."""
        return signal_handle.observed(self.connection._handle)

    @property
    def attested(self) -> CoreEndpoint | None:
        """Its address as we see it, on a path that is proven."""
        for _, state, is_preferred, _, remote, _ in path_handle.ways(self.connection._handle):
            if is_preferred and path_handle.STATES[state] == "active" and not is_virtual(remote[0]):
                return remote
        return None  # it is reached over a tunnel

    def attested_for(self, other: Peer) -> CoreEndpoint | None:
        """Its address as we see it, of the family of another peer's if it has shown that: what the other one can use."""
        at, theirs = self.attested, other.attested
        if self.shown is None or theirs is None or (at is not None and is_same_family(at, theirs)):
            return at
        return self.shown if is_same_family(self.shown, theirs) else at

    @property
    def rtt_ns(self) -> int:
        """The round trip to it."""
        return self.connection._handle.stats()["rtt_ns"]

    def tell(self, signal: Signal) -> bool:
        """Say something; False when too much waits, or the connection is over."""
        return signal_handle.send(self.connection._handle, signal.pack())


@final
class Peers:
    """Keep connections to the peers that the application has named, and hold those that others have opened."""

    def __init__(self, node: Node, tasks: Tasks, on_peer: Callable[[Peer], None], on_gone: Callable[[Peer], None]) -> None:
        self._node = node
        self._tasks = tasks
        self._on_peer = on_peer
        self._on_gone = on_gone
        self._by_id: dict[PeerId, Peer] = {}
        self._keepers: dict[PeerId, asyncio.Task[None]] = {}
        self._passing: set[PeerId] = set()
        """Of the keepers those that end when their peer does not answer, or goes."""
        self._changed = asyncio.Event()
        self._addresses: dict[PeerId, Address] = {}
        """Of those that are to be kept, as they were told."""
        self.failures: dict[PeerId, str] = {}
        """Why those are not connected that should be."""

    # --- who is there ---

    def find(self, peer_id: PeerId) -> Peer | None:
        """Return a peer that is connected."""
        return self._by_id.get(peer_id)

    def of(self, connection: Connection) -> Peer | None:
        """Return the peer of a connection that is the network's."""
        peer = self._by_id.get(connection.peer_id)
        return peer if peer is not None and peer.connection is connection else None

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def is_waiting(self) -> bool:
        """Whether a peer that is to be kept is not there yet, and has not failed either."""
        return any(peer_id not in self._by_id and peer_id not in self.failures for peer_id in self._keepers)

    async def change(self) -> None:
        """Wait until a peer has come, gone or failed."""
        await self._changed.wait()

    def tell_change(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    # --- connections ---

    def add(self, connection: Connection) -> None:
        """Take a connection that is open. Of two to the same peer one stays, the same at both ends."""
        before = self._by_id.get(connection.peer_id)
        if before is None and len(self._by_id) >= MAX_PEERS:
            connection._handle.close(0, b"no room")
            return
        if before is not None and before.connection.is_open and not self._replaces(connection, before.connection):
            connection._handle.close(0, b"")
            return
        peer = self._by_id[connection.peer_id] = Peer(connection)
        self.failures.pop(connection.peer_id, None)
        if before is not None:
            self._on_gone(before)
            before.connection._handle.close(0, b"")
        self._on_peer(peer)
        self.tell_change()

    def _replaces(self, newer: Connection, older: Connection) -> bool:
        """Tell whether a connection takes the place of one to the same peer: who has called again has lost the one before; if
        both have called, the call of the smaller id counts."""
        if newer._handle.is_initiator == older._handle.is_initiator:
            return True
        return newer._handle.is_initiator == (self._node.id < newer.peer_id)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        peer = self.of(connection)
        if peer is not None:
            del self._by_id[connection.peer_id]
            self._on_gone(peer)
            self.tell_change()

    def keep(self, target: Address) -> None:
        """Stay connected to a peer, as long as the node is open."""
        if target.peer_id in self._passing and target.peer_id not in self._by_id:
            self._end_keeper(target.peer_id)
        self._passing.discard(target.peer_id)
        self._start(target)

    def meet(self, target: Address) -> None:
        """Connect to a peer for as long as it stays: one that somebody else has named. Another address takes the place of the one
        that was tried before."""
        peer_id = target.peer_id
        if peer_id in self._passing and peer_id not in self._by_id and self._addresses[peer_id] != target:
            self._end_keeper(peer_id)
        if peer_id not in self._keepers and len(self._passing) < MAX_PASSING:
            self._passing.add(peer_id)
            self._start(target)

    def _start(self, target: Address) -> None:
        if target.peer_id not in self._keepers and target.peer_id != self._node.id:
            self._addresses[target.peer_id] = target
            self._keepers[target.peer_id] = self._tasks.start(self._keep(target))

    def _end_keeper(self, peer_id: PeerId) -> None:
        self._keepers.pop(peer_id).cancel()
        self._passing.discard(peer_id)
        self.failures.pop(peer_id, None)
        del self._addresses[peer_id]

    def address_of(self, peer: Peer) -> Address | None:
        """Return where others can call a peer that we have called: where we do, and what we were told besides."""
        told = self._addresses.get(peer.peer_id)
        at = peer.attested
        endpoints = [*([] if at is None else [Endpoint.from_core(at)]), *(told.endpoints if told else ())]
        found = list(dict.fromkeys(endpoints))[:MAX_ENDPOINTS]
        return Address.of(peer.peer_id, found) if found and peer.connection._handle.is_initiator else None

    def is_kept(self, peer_id: PeerId) -> bool:
        """Tell whether the node stays connected to a peer."""
        return peer_id in self._keepers

    async def _keep(self, target: Address) -> None:
        delay_s, tries = FIRST_RETRY_S, 0
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            tries += 1
            await self._hold(target)
            has_lived = loop.time() > began_s + LIVED_S and target.peer_id not in self.failures
            if target.peer_id in self._passing and (has_lived or tries >= PASSING_TRIES):
                break
            if has_lived:
                delay_s = FIRST_RETRY_S
            # full jitter: a thousand nodes that have lost the same peer do not come back at once
            await asyncio.sleep(delay_s * (int.from_bytes(random_bytes(2), "big") + 1) / 65536)
            delay_s = min(2 * delay_s, LAST_RETRY_S)
        self._end_keeper(target.peer_id)

    async def _hold(self, target: Address) -> None:
        """Call a peer unless it is connected, and wait until the connection is over."""
        peer = self._by_id.get(target.peer_id)
        if peer is not None:
            await peer.connection.wait_closed()
            return
        try:
            connection = await self._node._reach_directly(target, PROTOCOL)
        except (errors.NetworkError, errors.ProtocolError, errors.UnsupportedVersion) as error:
            self._fail(target.peer_id, str(error))
        except errors.LocalError as error:
            if target.peer_id not in self._by_id:  # else both have called, and its call is the one that stays
                self._fail(target.peer_id, str(error))
        else:
            await connection.wait_closed()

    def _fail(self, peer_id: PeerId, why: str) -> None:
        logger.info("%s is not reached: %s", peer_id, why)
        self.failures[peer_id] = why
        self.tell_change()

    def close(self) -> None:
        """End what keeps peers."""
        for task in self._keepers.values():
            task.cancel()
        self._keepers.clear()
        self._passing.clear()


def is_same_family(one: CoreEndpoint, other: CoreEndpoint) -> bool:
    """Return whether both are of IPv4, or both of IPv6."""
    return one[0].startswith(IPV4_MAPPED) == other[0].startswith(IPV4_MAPPED)


def endpoint_text(endpoint: CoreEndpoint | None) -> str:
    """Write an address for people."""
    return "an unknown address" if endpoint is None else str(Endpoint.from_core(endpoint))
