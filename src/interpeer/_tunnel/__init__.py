"""Tunnels: the same packets over TCP, TLS or WebSocket, for networks that let no UDP pass (docs/spec, chapter 26).

`Tunnels` is what a node has: listeners, calls, and a `Carrier` for each open one, which stands as a virtual address in the
core. The protocol on top is the same, with all its checks, so that nothing here is trusted: whoever speaks to a listener
is a stranger until its handshake has come through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, final

from interpeer import errors
from interpeer._address import CoreEndpoint, Endpoint
from interpeer._core import control, path_handle, tunnels
from interpeer._identity import PeerId
from interpeer._path import Explanation, kind_of
from interpeer._tunnel import websocket
from interpeer._tunnel.calling import Offer, open_stream
from interpeer._tunnel.carrier import Carrier
from interpeer._tunnel.listening import HANDSHAKE_S, Callers, Listener
from interpeer._tunnel.upgrading import Upgrader

if TYPE_CHECKING:
    from interpeer._connection import Connection
    from interpeer._core import engine
    from interpeer._node import Node

logger = logging.getLogger("interpeer")

CLOSE_S = 1.0
"""How long closing waits for the last words of tunnels."""
TEND_S = 5.0
"""How often what nobody uses is looked for."""
NAMES = {"tcp": "TCP", "tls": "TLS", "ws": "WebSocket", "wss": "WebSocket and TLS"}
_PREFIX = tunnels.endpoint(1)[0][:8]
_SOMEWHERE = Endpoint("::", 1, "tcp")  # of a tunnel that has gone

__all__ = ["Tunnels"]

_current: ContextVar[Offer | None] = ContextVar("interpeer tunnels of a call", default=None)


@final
class Tunnels:
    """Have tunnels to peers, and from them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.is_simulated = node._host is not None
        self.udp_is_blocked = False
        """Whether the last call that tried both was answered by a tunnel: the next does not wait before it tries one."""
        self._listeners: list[Listener] = []
        self._by_number: dict[int, Carrier] = {}
        self._unready: set[Carrier] = set()
        self._next_number = 1
        self.callers = Callers()
        self._upgraders: dict[Connection, Upgrader] = {}
        self._tending: asyncio.TimerHandle | None = None

    @property
    def core(self) -> engine.Engine:
        """The engine that hears what tunnels bring: it passes on what is another shard's."""
        return self._node._engines[0]

    # --- lifetime ---

    async def listen(self, addresses: Iterable[str]) -> None:
        """Listen at addresses of `Config.tunnel_listen`. Raises OSError and ValueError."""
        for text in addresses:
            listener = Listener(self, text, self._node.config.tunnel_certificate)
            await listener.open()
            self._listeners.append(listener)

    def close(self) -> None:
        """Close everything, once the engines say nothing more; what they have said still goes out. Harmless when closed."""
        if self._node._loop.is_closed():
            return
        for listener in self._listeners:
            listener.close()
        for upgrader in tuple(self._upgraders.values()):
            upgrader.close()
        for core in self._node._engines:
            for event in control.events(core):
                if event[0] == control.TUNNEL:
                    self.on_frames(event[1], event[2])
        for carrier in (*self._by_number.values(), *self._unready):
            carrier.close()
        if self._tending is not None:
            self._tending.cancel()
            self._tending = None

    async def wait_closed(self) -> None:
        """Wait a moment for what was written last to go out, and then for no more."""
        carriers = (*self._by_number.values(), *self._unready)
        if carriers:
            try:
                await asyncio.wait([carrier.lost for carrier in carriers], timeout=CLOSE_S)
            finally:
                for carrier in carriers:
                    carrier.abort()
        await asyncio.gather(*(listener.wait_closed() for listener in self._listeners))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where this node can be called by tunnel."""
        own = self._node._driver.endpoints
        return tuple(endpoint for listener in self._listeners for endpoint in listener.endpoints(own))

    # --- carriers ---

    def make_carrier(self, transport: str, remote: Endpoint | None, path: str) -> Carrier:
        """Make an end of a tunnel that is about to be opened, or was accepted."""
        if transport in ("ws", "wss"):
            return websocket.WebSocketCarrier(self, transport, remote, path)
        return Carrier(self, transport, remote)

    def begin(self, carrier: Carrier, caller: tuple[Any, ...] | None) -> bool:
        """Take a stream that is there; return whether there is room for it. `caller` has called us, unless we have called."""
        if not carrier.is_caller:
            if caller is None:
                return False
            if carrier.counted is None and self.callers.enter(caller[0]):
                carrier.counted = caller[0]
            if carrier.counted is None:
                return False
            carrier.remote = Endpoint(caller[0], caller[1], carrier.kind)
        carrier.opened_s = self._now()
        self._unready.add(carrier)
        self._tend_soon()
        return True

    def add(self, carrier: Carrier) -> bool:
        """Give a tunnel that is ready its number; return whether there is room for it."""
        if len(self._by_number) >= tunnels.MOST_TUNNELS:
            return False
        number, self._next_number = self._next_number, self._next_number + 1
        for core in self._node._engines:
            tunnels.add(core, number)
        carrier.number = number
        self._by_number[number] = carrier
        self._unready.discard(carrier)
        return True

    def lose(self, carrier: Carrier) -> None:
        """A tunnel has ended: its paths give way to others at once, where there are any. Harmless when it has before."""
        self._unready.discard(carrier)
        if carrier.counted is not None:
            self.callers.leave(carrier.counted)
            carrier.counted = None
        if self._by_number.pop(carrier.number, None) is None:
            return
        for core in self._node._engines:
            tunnels.remove(core, carrier.number)
        for connection in tuple(self._node._connections.values()):
            for number, _, _, _, remote, _ in path_handle.ways(connection._handle):
                if remote == carrier.endpoint:
                    path_handle.abandon_path(connection._handle, number)
            if connection in self._upgraders:
                self._upgraders[connection].hurry()

    def hold(self, carrier: Carrier, is_held: bool) -> None:
        """Let the core keep what is for a tunnel, or give it out again."""
        if carrier.number in self._by_number:
            for core in self._node._engines:
                tunnels.hold(core, carrier.number, is_held)

    def on_frames(self, number: int, frames: bytes) -> None:
        """The core has something for a tunnel."""
        carrier = self._by_number.get(number)
        if carrier is not None:
            carrier.write(frames)

    def find(self, remote: CoreEndpoint) -> Carrier | None:
        """Return the tunnel that stands behind the remote address of a path."""
        carrier = self._by_number.get(int.from_bytes(remote[0][8:], "big"))
        return carrier if carrier is not None and carrier.endpoint == remote else None

    def is_tunnel(self, remote: CoreEndpoint) -> bool:
        """Tell whether an address of the core stands for a tunnel, even if that has gone."""
        return remote[0].startswith(_PREFIX)

    def __len__(self) -> int:
        return len(self._by_number) + len(self._unready)

    # --- unused ones ---

    def _tend_soon(self) -> None:
        if self._tending is None and len(self):
            self._tending = asyncio.get_running_loop().call_later(TEND_S, self._tend)

    def _tend(self) -> None:
        """Close what carries no path of any connection, and has had the time for it."""
        self._tending = None
        used = {way[4] for connection in self._node._connections.values() for way in path_handle.ways(connection._handle)}
        now, calls_s = self._now(), self._node.config.connect_timeout_s
        for carrier in (*self._by_number.values(), *self._unready):
            if carrier.number and carrier.endpoint in used:
                carrier.opened_s = now
            elif carrier.opened_s + HANDSHAKE_S + (calls_s if carrier.is_caller else 0) <= now:
                logger.debug("the tunnel with %s carries nothing", carrier.remote)
                carrier.abort()
        self._tend_soon()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # --- calling ---

    async def open(self, endpoint: Endpoint) -> CoreEndpoint:
        """Open a tunnel; return what stands for it. Raises OSError, TimeoutError and LocalError."""
        carrier = self.make_carrier(endpoint.transport, endpoint, endpoint.path)
        try:
            async with asyncio.timeout(self._node.config.connect_timeout_s):
                await open_stream(carrier, endpoint, is_simulated=self.is_simulated)
                await carrier.ready
        except BaseException:
            carrier.abort()
            raise
        return carrier.endpoint

    @contextmanager
    def beside(self, peer_id: PeerId, endpoints: Iterable[Endpoint], udp: list[CoreEndpoint]) -> Generator[Offer]:
        """Offer tunnels to the calls of a peer that begin in this block; say in its errors why they did not help."""
        offer = Offer(self, peer_id, [one for one in endpoints if one.transport != "udp"], udp)
        token = _current.set(offer)
        try:
            yield offer
        except errors.Unreachable as error:
            if not offer.failures:
                raise
            raise errors.Unreachable(f"{error}; {'; '.join(offer.failures)}", (*error.reasons, *offer.failures)) from None
        finally:
            _current.reset(token)
            offer.close()

    def on_call(self, connection: Connection) -> None:
        """A call has begun: perhaps there are tunnels to be tried besides."""
        offer = _current.get()
        if offer is not None and offer.peer_id == connection.peer_id:
            offer.begin(connection)

    def keep(self, connection: Connection, endpoints: list[Endpoint], udp: list[CoreEndpoint]) -> None:
        """See that a connection leaves its tunnel when it can, and has one when it needs one."""
        if connection.is_open and connection not in self._upgraders:
            self._upgraders[connection] = Upgrader(self, connection, endpoints, udp)

    def on_paths(self, connection: Connection) -> None:
        """Something has happened to a connection's paths."""
        if connection in self._upgraders:
            self._upgraders[connection].look()

    def on_closed(self, connection: Connection) -> None:
        """A connection is over."""
        upgrader = self._upgraders.pop(connection, None)
        if upgrader is not None:
            upgrader.close()

    # --- for people ---

    def name(self, remote: CoreEndpoint) -> Endpoint:
        """Return the address behind the virtual one of a tunnel."""
        carrier = self.find(remote)
        return carrier.remote if carrier is not None and carrier.remote is not None else _SOMEWHERE

    def explain(self, connection: Connection, remote: CoreEndpoint) -> Explanation | None:
        """Say what stands behind the remote address of a path; None: no tunnel does."""
        if not self.is_tunnel(remote):
            return None
        at = self.name(remote)
        carrier = self.find(remote)
        direction = "to" if carrier is None or carrier.is_caller else "from"
        upgrader = self._upgraders.get(connection)
        reasons = upgrader.reasons if upgrader is not None else ()
        where = Endpoint(at.host, at.port)
        return Explanation(kind_of(at), at, None, f"over {NAMES[at.transport]} {direction} {where}", reasons)
