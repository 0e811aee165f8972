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
    """Say that a connection is open.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address):
    ...             async for event in b.events():
    ...                 if isinstance(event, interpeer.PeerConnected):
    ...                     return event.peer_id == a.id, event.incoming, event.path.startswith("lan 127.0.0.1:")
    >>> asyncio.run(main())
    (True, True, True)
    """

    peer_id: PeerId
    protocol: str
    path: str
    """How it is reached: "direct", "lan" or "relayed", and the address."""
    incoming: bool
    """Whether the peer has called."""


@final
@dataclass(frozen=True, slots=True)
class PeerDisconnected(Event):
    """Say that a connection is over, and why.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address):
    ...             pass
    ...         async for event in b.events():
    ...             if isinstance(event, interpeer.PeerDisconnected):
    ...                 return event.reason
    >>> asyncio.run(main())
    'the peer closed the connection with code 0'
    """

    peer_id: PeerId
    protocol: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class PathChanged(Event):
    """Say that something happened to a path of a connection.

    >>> import interpeer
    >>> from interpeer.testing import SimNet, run
    >>> async def main():
    ...     net = SimNet()
    ...     laptop = net.host("laptop")
    ...     async with laptop.node() as a, net.host("server").node() as b:
    ...         async with a.connect(b.address) as connection:
    ...             laptop.rebind()
    ...             connection.send_datagram(b"from another address")
    ...             async for event in b.events():
    ...                 if isinstance(event, interpeer.PathChanged):
    ...                     return event.what
    >>> run(main())
    'moved'
    """

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
    """Say that a peer could not be reached, with a line for each way tried.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     somebody = interpeer.Identity.generate().id
    ...     async with interpeer.Node(config=interpeer.Config(connect_timeout_s=0.1)) as node:
    ...         try:
    ...             await node.connect(f"{somebody}@127.0.0.1:9")
    ...         except interpeer.Unreachable:
    ...             pass
    ...         async for event in node.events():
    ...             return event.peer_id == somebody, event.reasons
    >>> asyncio.run(main())
    (True, ('127.0.0.1:9: ... no answer',))
    """

    peer_id: PeerId
    protocol: str
    reason: str
    reasons: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class EventsDropped(Event):
    """Say that so many events were dropped because nobody took them."""

    count: int
