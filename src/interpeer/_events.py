"""What a node tells about itself while it runs: `async for event in node.events()`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from interpeer._identity import PeerId


@dataclass(frozen=True, slots=True)
class Event:
    """Be the base of everything that `Node.events` gives.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node() as a, interpeer.Node() as b:
    ...         async with a.connect(b.address):
    ...             async for event in b.events():
    ...                 return event.peer_id == a.id, event.incoming
    >>> asyncio.run(main())
    (True, True)
    """


@final
@dataclass(frozen=True, slots=True)
class PeerConnected(Event):
    """Say that a connection is open."""

    peer_id: PeerId
    protocol: str
    path: str
    """How it is reached: "direct", "lan" or "relayed", and the address."""
    incoming: bool
    """Whether the peer has called."""


@final
@dataclass(frozen=True, slots=True)
class PeerDisconnected(Event):
    """Say that a connection is over, and why."""

    peer_id: PeerId
    protocol: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class PathChanged(Event):
    """Say that something happened to a path of a connection."""

    peer_id: PeerId
    path: int
    """The path's id."""
    what: str
    """"opened", "proven", "moved" (the peer's packets come from another address), "returned" (to the one before), "suspect"
    (probes go unanswered), "recovered", "abandoned", or "preferred" (what is sent takes it from now on)."""
    reason: str
    """Why; empty where there is nothing to say."""
    remote: str
    """The peer's address on it."""


@final
@dataclass(frozen=True, slots=True)
class ConnectFailed(Event):
    """Say that a peer could not be reached, with a line for each way tried."""

    peer_id: PeerId
    protocol: str
    reason: str
    reasons: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class EventsDropped(Event):
    """Say that so many events were dropped because nobody took them."""

    count: int
