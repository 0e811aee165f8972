"""What discovery needs of a node: sockets, time and random bytes; and of the peers that help with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, final

from interpeer._address import CoreEndpoint

OnDatagram = Callable[["Socket", bytes, CoreEndpoint], None]
How = Literal["same port", "other port", "other peer"]


class Socket(Protocol):
    """A UDP socket; `on_datagram` of whoever opened it gets what comes."""

    @property
    def port(self) -> int:
        """Its own port; 0: not known."""
        ...

    def send(self, data: bytes, remote: CoreEndpoint, ttl: int = 0) -> None:
        """Send a datagram; what cannot be sent is lost like any other."""
        ...

    def close(self) -> None: ...


class Hooks(Protocol):
    """What a node, or a test, lends to discovery."""

    def now_ns(self) -> int: ...

    def random_bytes(self, n: int) -> bytes:
        """Return bytes that nobody can guess, and nobody is given again."""
        ...

    def open_main(self, on_datagram: OnDatagram, is_ipv6: bool) -> Socket:
        """Return the node's own socket, or where it has none yet, one that stands for it. Raises OSError."""
        ...

    def open_socket(self, on_datagram: OnDatagram, is_ipv6: bool) -> Socket:
        """Open another one, on any port. Raises OSError."""
        ...

    def expect(self, token: bytes) -> None:
        """Let what begins a transaction (12 bytes) or a probe (8 bytes) come through the node's own socket."""
        ...

    def unexpect(self, token: bytes) -> None: ...


@final
@dataclass(frozen=True, slots=True)
class Server:
    """Somebody who answers STUN, and perhaps sends probes on request."""

    endpoint: CoreEndpoint
    peer: object = None
    """What the prober knows him by; None: an ordinary STUN server."""


class Prober(Protocol):
    """Has peers send probes: how packets fare that come from where nothing was sent to."""

    async def probe(self, server: Server, how: How, token: bytes, port: int, delay_s: float = 0.0) -> bool:
        """Ask a peer to have a probe sent to the address at which it sees us, but to another `port` of it, after `delay_s`.

        `how` says from where: the "same port" that we talk to, an "other port" of the peer, or an "other peer" at another
        address. The probe carries `token` (8 bytes). Return whether the peer has promised it."""
        ...
