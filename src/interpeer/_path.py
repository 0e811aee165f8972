"""The ways that a connection's packets can go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, final

from interpeer._address import CoreEndpoint, Endpoint, host_from_core, is_virtual
from interpeer._core import path_handle
from interpeer._identity import PeerId

ANY_ADDRESS = bytes(16)
_CoreWay = tuple[int, int, bool, bool, CoreEndpoint, bytes]  # what path_handle.ways gives
KINDS = ("opened", "proven", "moved", "returned", "suspect", "recovered", "abandoned", "preferred")  # the core's PATH_EVENT_*
REASONS = (
    "",
    "this side wants it",
    "the peer wants it",
    "its probes were not answered",
    "its address was not proved",
    "its round trip is shorter",
    "no other path works",
    "the peer has opened the last one at the same time",
    "its relay is gone",
    "the other one is relayed, in a tunnel or standby",
)  # the core's PATH_REASON_*


@final
@dataclass(frozen=True, slots=True)
class Path:
    """Say by which way a connection's packets go, as it is at the moment.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address) as connection:
    ...             path = connection.path
    ...             return path.kind, path.transport, path.remote == b.address.endpoints[0], path.reasons
    >>> asyncio.run(main())
    ('lan', 'udp', True, ())
    """

    kind: str
    """"direct", "lan" (this machine included) or "relayed"."""
    remote: Endpoint
    """The peer's address on it."""
    id: int = 0
    """Its number in the connection: 0 is that of the handshake."""
    state: str = "active"
    """"validating", "active", "suspect" (probes go unanswered) or "abandoned"."""
    local: str | None = None
    """Our address on it, if the system has told it."""
    is_preferred: bool = True
    """Whether what is sent takes it."""
    is_standby: bool = False
    """Whether one of the ends keeps it for when no other works."""
    relay: PeerId | None = None
    """The peer that relays it; `remote` is then that one's address. It sees how much is said, and nothing of what."""
    transport: str = "udp"
    """What carries it: "udp", or in a tunnel "tcp", "tls", "ws" or "wss"."""
    detail: str = ""
    """How it came about."""
    reasons: tuple[str, ...] = ()
    """Why a better one is not used: a line for each way that was tried."""

    @classmethod
    def _of_core(cls, way: _CoreWay, explain: Explain) -> Self:
        number, state, is_preferred, is_standby, remote, local = way
        host = None if local == ANY_ADDRESS or is_virtual(local) else host_from_core(local)
        said = explain(remote)
        return cls(
            said.kind, said.remote, number, path_handle.STATES[state], host, bool(is_preferred), bool(is_standby),
            said.relay, said.remote.transport, said.detail, said.reasons,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.kind} {self.remote}" if self.relay is None else f"{self.kind} by {self.relay} at {self.remote}"


@final
@dataclass(frozen=True, slots=True)
class Explanation:
    """Say what stands behind a path's remote address."""

    kind: str
    remote: Endpoint
    relay: PeerId | None = None
    detail: str = ""
    reasons: tuple[str, ...] = ()


Explain = Callable[[CoreEndpoint], Explanation]


def explain_address(remote: CoreEndpoint) -> Explanation:
    """Explain the remote of a path that goes to the peer itself."""
    at = Endpoint.from_core(remote)
    return Explanation(kind_of(at), at)


def kind_of(remote: Endpoint) -> str:
    """Say how a peer at this address is reached."""
    return "lan" if remote.is_loopback or remote.is_private else "direct"
