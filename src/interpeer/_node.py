"""The node: a socket, a key, and everything that goes through them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from interpeer import _host, errors
from interpeer._address import MAX_ENDPOINTS, Address, CoreEndpoint, Endpoint, is_virtual
from interpeer._arguments import (
    Allow,
    Target,
    address_of,
    check_allow,
    check_kind,
    open_identity,
    resolve,
    targets,
    why_no_address,
    words,
)
from interpeer._config import Config, Give, congestion_number
from interpeer._connection import Connection
from interpeer._core import connection_handle, control, engine, path_handle, pump
from interpeer._driver import Driver, make_driver, shard_count
from interpeer._events import ConnectFailed, Event, EventsDropped, PathChanged, PeerConnected, PeerDisconnected
from interpeer._expected import Expected
from interpeer._identity import Identity, PeerId
from interpeer._interfaces import Change
from interpeer._iterators import Events, Incoming
from interpeer._path import KINDS, REASONS, Explanation, explain_address
from interpeer._reach import PROTOCOL, Reach
from interpeer._roaming import Roaming
from interpeer._state import StateDirectory
from interpeer._tracer import Tracer, make_tracers
from interpeer._tunnel import Tunnels
from interpeer._waiting import Opening, Waiters

logger = logging.getLogger("interpeer")

DEFAULT_PROTOCOL = "interpeer/1"
MAX_EVENTS = 1024
"""Events that wait to be taken; then the oldest is dropped and counted."""
LINGER_S = 5.0
"""How long closing waits for what `finish` has promised."""

_INCOMING, _EVENT = 1, 2  # what tasks wait for on a node


@final
class Node:
    """Be a peer: reach others by their public key, and be reached.

    `async with Node() as node` opens it, and closes it with everything it has opened.

    - `identity`: an `Identity`, a key file's path (made at first use), or None: the key in `state_dir`, or a fresh one in memory.
    - `listen`: where to listen, "[::]:0" (both families, any port), "192.0.2.1:4433", ...; or several of them.
    - `network`: the name of the network that the node belongs to. Peers of another network do not hear it. None: direct
      connections only.
    - `bootstrap`: addresses of peers to stay connected to: through them others reach the node, and it them. `lan`: whether to
      find peers on the local network, and be found. `give`: what the node does for others. All three need `network`.
    - `state_dir`: a directory for what outlives the process; one process at a time. None: nothing is written.
    - `protocols`: names of the application protocols offered; a peer that asks for another is told so.
    - `allow`: whom to let in: a set of PeerIds, a function that is asked for each and returns a bool at once, or None: everybody
      who has our id.

    Raises ValueError for settings that cannot be, IdentityFileError, OSError when an address cannot be listened on.

    >>> async def main():
    ...     async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address) as connection:
    ...             return connection.peer_id == b.id
    >>> asyncio.run(main())
    True
    """

    def __init__(
        self,
        identity: Identity | str | os.PathLike[str] | None = None,
        listen: str | Iterable[str] = "[::]:0",
        network: str | None = None,
        bootstrap: Iterable[Target] = (),
        state_dir: str | os.PathLike[str] | None = None,
        protocols: Iterable[str] = (DEFAULT_PROTOCOL,),
        allow: Iterable[PeerId] | Allow | None = None,
        lan: bool = True,
        give: Give | None = None,
        config: Config | None = None,
    ) -> None:
        check_kind("network", network, str | None)
        check_kind("lan", lan, bool)
        check_kind("give", give, Give | None)
        check_kind("config", config, Config | None)
        self._identity_given = identity
        self._listen = words("listen", (listen,) if isinstance(listen, str) else listen)
        self._network = network
        self._bootstrap = targets(bootstrap)
        for name, path in (("identity", identity), ("state_dir", state_dir)):
            if isinstance(path, str) and not path:
                raise ValueError(f'{name} is a path, not ""')
        self._state_path = Path(state_dir) if state_dir is not None else None
        self._protocols = words("protocols", (protocols,) if isinstance(protocols, str) else protocols)
        self._allow = check_allow(allow)
        self._lan = lan
        self._give = give if give is not None else Give()
        self._config = config if config is not None else Config()
        self._linger_s = LINGER_S
        self._host = _host.current.get()
        self._was_opened = False
        self._resources = ExitStack()
        self._connections: dict[connection_handle.ConnectionHandle, Connection] = {}
        self._backlog: collections.deque[Connection] = collections.deque()
        self._events: collections.deque[Event] = collections.deque()
        self._events_dropped = 0
        self._engines = [engine.Engine()]
        self._expected = Expected(self._engines)
        self._tracers: dict[engine.Engine, Tracer] = {}
        self._reach: Reach | None = None
        self._driver: Driver
        self._loop: asyncio.AbstractEventLoop
        self._waiters: Waiters
        self._tunnels: Tunnels
        self._identity: Identity

    # --- what it is ---

    @property
    def id(self) -> PeerId:
        """The node's peer id."""
        self._check_opened()
        return self._identity.id

    @property
    def address(self) -> Address:
        """The id with the socket addresses under which the node may be reached, as far as it knows."""
        self._check_opened()
        tunnels = self._tunnels.endpoints
        own = self._driver.endpoints if self._reach is None else self._reach.addresses.endpoints()
        endpoints = (*own[: MAX_ENDPOINTS - len(tunnels)], *tunnels)
        return Address.of(self.id, endpoints, via=() if self._reach is None else self._reach.via())

    @property
    def config(self) -> Config:
        """The node's settings."""
        return self._config

    @property
    def protocols(self) -> tuple[str, ...]:
        """The application protocols that it offers."""
        return self._protocols

    @property
    def _spoken(self) -> tuple[str, ...]:
        """What it speaks: the application's protocols, and in a network that of its nodes."""
        return self._protocols if self._network is None else (*self._protocols, PROTOCOL)

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open."""
        return [one for one in self._connections.values() if one.is_open and one.protocol != PROTOCOL]

    def report(self) -> dict[str, Any]:
        """Return what the node knows of its place in the network, and what it gives: for people, and ready for JSON.

        `addresses` under which it may be reached, `peers` that it keeps in touch with and `failures` of those that it does not
        reach, the `nat` in front of it, `neighbours`, `port_mapping`; and `relayed`: for each pair of peers that it relays,
        both ids, bytes each way, the rate that they may have, and what was dropped. Empty without a network.

        >>> import asyncio, interpeer
        >>> async def main():
        ...     async with interpeer.Node(network="example", lan=False) as node:
        ...         return node.report()["relayed"]
        >>> asyncio.run(main())
        []
        """
        self._check_opened()
        return {} if self._reach is None else self._reach.report()

    def counters(self) -> dict[str, int]:
        """Return how often what has happened: packets, drops by cause, handshakes, resets, and system calls by fallback."""
        self._check_opened()
        total = collections.Counter[str]()
        for core in self._engines:
            total.update(control.counters(core))
        for tracer in self._tracers.values():
            total.update(tracer.counters())
        return {**total, **self._driver.counters()}

    _is_open = False  # also of one that could not be made

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if self._is_open:
            warn(f"{self!r} was never closed", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<Node {self.id}>" if self._was_opened else "<Node, not open>"

    # --- lifetime ---

    async def __aenter__(self) -> Self:
        if self._was_opened:
            raise errors.ClosedError("a node is opened once: make another")
        self._loop = asyncio.get_running_loop()
        self._waiters = Waiters(self._loop)
        with ExitStack() as stack:
            state = stack.enter_context(StateDirectory(self._state_path)) if self._state_path is not None else None
            with _host.on(self._host):
                self._identity = open_identity(self._identity_given, state)
                self._engines += [engine.Engine() for _ in range(shard_count(self._config, self._loop) - 1)]
                for core in self._engines:
                    self._configure(core)
                if len(self._engines) > 1:
                    control.share(self._engines)
                self._driver = make_driver(self._engines, self._config, self._on_core_events, self._loop)
            self._tracers = make_tracers(self._engines, self._config, self._loop, stack, is_simulated=self._host is not None)
            self._tunnels = Tunnels(self)
            stack.callback(self._tunnels.close)
            stack.callback(self._driver.close)
            await self._driver.open(self._listen)
            roaming = Roaming(self._driver, lambda: self._connections, self._loop, self._on_change)
            stack.callback(roaming.close)
            with _host.on(self._host):
                roaming.start()
                await self._tunnels.listen(self._config.tunnel_listen)
            self._resources = stack.pop_all()
        self._is_open = self._was_opened = True
        if self._network is not None:
            self._reach = Reach(self, self._give)
            self._reach.start([address_of(target) for target in self._bootstrap])
        return self

    def _configure(self, core: engine.Engine) -> None:
        config = self._config
        limits = config.core_limits()
        limits["max_memory"] //= len(self._engines)
        limits["observe"] = int(self._network is not None)
        control.configure(
            core,
            self._identity.seed,
            (self._network or "").encode(),
            self._identity.is_stored,
            [name.encode() for name in self._spoken],
            list(config.ciphers),
            config.backlog,
            limits,
        )
        if callable(self._allow):
            control.allow_asking(core)
        elif self._allow is not None:
            control.allow_listed(core, [bytes(peer) for peer in self._allow])

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, after what was finished is delivered, and the sockets. Harmless when closed.

        Raises WrongLoopError on another event loop than its own, unless that one is closed. Cancelled, everything is closed
        at once."""
        if not self._is_open:
            return
        has_loop = not self._loop.is_closed()
        if has_loop:
            self._waiters.check_loop()
        else:
            for core in self._engines:
                core.on_kick = None  # nobody is there to take a turn
        self._is_open = False
        for core in self._engines:
            control.refuse_all(core)
        try:
            if self._reach is not None and has_loop:
                await self._reach.close()
            closing = [connection.close() for connection in self._connections.values()]
            await asyncio.gather(*closing, return_exceptions=True)
        finally:
            for connection in list(self._connections.values()):
                connection._handle.close(0, b"")
            if has_loop:
                self._driver.flush()
            self._waiters.wake(_INCOMING | _EVENT)
            self._resources.close()
            for connection in list(self._connections.values()):
                connection._on_closed()
            self._connections.clear()
            self._backlog.clear()
            if has_loop:
                await self._tunnels.wait_closed()

    def _check_opened(self) -> None:
        if not self._was_opened:
            raise errors.ClosedError('open the node first: "async with Node() as node"')

    def _check_open(self) -> None:
        self._check_opened()
        if not self._is_open:
            raise errors.ClosedError("the node is closed")
        self._waiters.check_loop()

    async def joined(self) -> None:
        """Wait until each peer of `bootstrap` is connected and brings others to us, or has failed once.

        Returns at once where there are none to wait for: without a network, or without `bootstrap`."""
        self._check_open()
        if self._reach is not None:
            await self._reach.joined()

    # --- connecting ---

    def connect(self, target: Target, protocol: str | None = None, congestion: str | None = None) -> Opening[Connection]:
        """Reach a peer, by its address or its id, and agree on an application protocol (None: the node's first).

        `congestion` names what controls congestion for what this end sends: "cubic", "bbr", "bbr-lossy" or "ledbat" (None:
        as the node's `Config` has it).
        Await it, or use it with `async with`. Raises Unreachable, with a reason for each way tried; Refused when the peer
        does not let us in or does not speak the protocol; UnsupportedVersion; ValueError for a target that cannot be.
        Cancelled, the attempt ends and leaves nothing behind."""
        return Opening(self._connect(target, protocol, congestion))

    async def _connect(self, target: Target, protocol: str | None, congestion: str | None) -> Connection:
        self._check_open()
        controller = -1 if congestion is None else congestion_number(congestion)
        name = self._protocols[0] if protocol is None else protocol
        peer_id, endpoints = resolve(target)
        if peer_id == self.id:
            raise ValueError("a node cannot connect to itself")
        usable = self._usable(endpoints)
        with self._tunnels.beside(peer_id, endpoints, usable) as offer:
            ways = usable or await offer.first()
            if self._reach is not None:
                connection = await self._reach.connect(address_of(target), ways, name, controller)
            else:
                connection = await self._connect_directly(peer_id, endpoints, ways, name, controller)
            offer.keep(connection)
            return connection

    async def _connect_directly(
        self, peer_id: PeerId, endpoints: tuple[Endpoint, ...], ways: list[CoreEndpoint], protocol: str, controller: int
    ) -> Connection:
        if not ways:
            raise errors.Unreachable(f"cannot reach {peer_id}: no address to call", why_no_address(endpoints))
        connection = self._call(peer_id, ways, protocol, controller)
        await self._await_open(connection)
        if not connection.is_open:
            raise self._tell_failed(connection)
        return connection

    def _usable(self, endpoints: tuple[Endpoint, ...]) -> list[CoreEndpoint]:
        """Return, of a peer's addresses, those that this node can call by UDP."""
        found = [one.to_core() for one in endpoints if one.transport == "udp" and self._driver.can_reach(one)]
        return [one for one in found if not is_virtual(one[0])]  # somebody hopes that we take it for something of ours

    async def _reach_directly(self, target: Address, protocol: str) -> Connection:
        """Connect to a peer by its own addresses alone, for the network's sake. Raises what `connect` raises."""
        usable = self._usable(target.endpoints)
        with self._tunnels.beside(target.peer_id, target.endpoints, usable) as offer:
            ways = usable or await offer.first()
            if not ways:
                raise errors.Unreachable(f"cannot reach {target.peer_id}: no address to call", why_no_address(target.endpoints))
            connection = self._call(target.peer_id, ways, protocol, -1)
            await self._await_open(connection)
            if not connection.is_open:
                raise connection._error()
            offer.keep(connection)
            return connection

    def _call(
        self, peer_id: PeerId, ways: list[CoreEndpoint], protocol: str, controller: int, core: engine.Engine | None = None
    ) -> Connection:
        """Begin a call, on the engine that has the ways if only one can."""
        if core is None:
            core = self._engines[control.shard_for(self._engines[0], bytes(peer_id), protocol.encode(), pump.now_ns())]
        handle = control.connect(core, bytes(peer_id), ways, protocol.encode(), controller)
        connection = self._connections[handle] = Connection(self, handle, protocol)
        self._tunnels.on_call(connection)
        return connection

    async def _await_open(self, connection: Connection) -> None:
        """Wait until a call has come to something. Cancelled, it ends."""
        handle = connection._handle
        try:
            await connection._waiters.wait(connection_handle.EVENT_OPEN, lambda: handle.want(connection_handle.EVENT_OPEN))
        except BaseException:
            handle.close(0, b"")
            raise

    def _tell_failed(self, connection: Connection) -> Exception:
        """Return why a call has failed. (A local name for it in the function that raises it would be a cycle, and keep the
        connection until garbage is collected.)"""
        failure = connection._error()
        if isinstance(failure, errors.Unreachable | errors.Refused | errors.UnsupportedVersion):
            reasons = failure.reasons if isinstance(failure, errors.Unreachable) else ()
            self._tell(ConnectFailed(connection.peer_id, connection.protocol, str(failure), reasons))
        return failure

    async def accept(self) -> Connection:
        """Return the next connection that a peer opens; ClosedError when the node is closed. Cancelled, nothing is lost."""
        self._check_open()
        while not self._backlog:
            await self._waiters.wait(_INCOMING, lambda: self._backlog or not self._is_open)
            if not self._is_open:
                raise errors.ClosedError("the node is closed")
        connection = self._backlog.popleft()
        connection._handle.take()
        return connection

    def incoming(self) -> Incoming:
        """Iterate over the connections that peers open, until the node is closed."""
        self._check_opened()
        return Incoming(self)

    # --- events ---

    def events(self) -> Events:
        """Iterate over what happens to the node, until it is closed. If nobody takes them the oldest are dropped."""
        self._check_opened()
        return Events(self)

    async def _next_event(self) -> Event:
        while True:
            if event := self._take_event():
                return event
            if not self._is_open:
                raise StopAsyncIteration
            await self._waiters.wait(_EVENT, lambda: self._events or not self._is_open)

    def _take_event(self) -> Event | None:
        if self._events_dropped:
            dropped, self._events_dropped = self._events_dropped, 0
            return EventsDropped(dropped)
        return self._events.popleft() if self._events else None

    def _tell(self, event: Event) -> None:
        if len(self._events) == MAX_EVENTS:
            self._events.popleft()
            self._events_dropped += 1
        self._events.append(event)
        self._waiters.wake(_EVENT)

    # --- what the core tells ---

    def _on_core_events(self, core: engine.Engine, events: list[tuple[Any, ...]]) -> None:
        if self._host is None:
            self._handle(core, events)
        else:
            with _host.on(self._host):  # whoever has caused the turn: in a simulation chance is the host's
                self._handle(core, events)

    def _handle(self, core: engine.Engine, events: list[tuple[Any, ...]]) -> None:
        for event in events:
            try:  # not `_reporting`: the generator in it would cost a ping a quarter of its time
                self._on_core_event(core, event)
            except Exception as error:
                self._report(error)
        if core in self._tracers:
            self._tracers[core].collect(only_if_ripe=True)

    def _on_core_event(self, core: engine.Engine, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == control.STREAM:
            if event[1].owner is not None:
                event[1].owner._on_stream_events(event[2], event[3])
        elif kind == control.CONNECTION:
            self._on_connection_events(event[1], event[2])
        elif kind == control.INCOMING:
            self._on_incoming(event[1], event[2])
        elif kind == control.RAW:
            self._expected.handle(event[1], event[2], event[3])
        elif kind == control.TUNNEL:
            self._tunnels.on_frames(event[1], event[2])
        elif kind == control.LEG_GONE:
            if self._reach is not None:
                self._reach.on_leg_gone(event[1])
        else:
            self._on_ask(core, event[1], PeerId._of_proved(event[2]))

    @contextlib.contextmanager
    def _reporting(self) -> Generator[None]:
        """Tell the event loop's handler of a mistake; others wait for what comes next, and must not miss it."""
        try:
            yield
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": f"{self!r}: an event was not handled to its end", "exception": error})

    def _on_connection_events(self, handle: connection_handle.ConnectionHandle, events: int) -> None:
        connection: Connection | None = handle.owner
        if connection is None:
            return
        if events & connection_handle.EVENT_OPEN:
            self._tell_connected(connection, incoming=False)
        self._tell_reach(connection, events)
        if events & connection_handle.EVENT_CLOSED:
            self._on_closed(connection)
        connection._on_events(events)

    def _tell_reach(self, connection: Connection, events: int) -> None:
        if events & connection_handle.EVENT_PATH:
            self._tell_paths(connection)
        if events & connection_handle.EVENT_SIGNAL and self._reach is not None:
            with self._reporting():
                self._reach.on_signals(connection)

    def _on_incoming(self, handle: connection_handle.ConnectionHandle, events: int) -> None:
        connection = Connection(self, handle, self._spoken[handle.protocol])
        self._connections[handle] = connection
        self._tell_connected(connection, incoming=True)
        self._tell_reach(connection, events)
        if events & connection_handle.EVENT_CLOSED:
            self._on_closed(connection)
            return
        if connection.protocol == PROTOCOL:
            connection._handle.take()
            return
        self._backlog.append(connection)
        self._waiters.wake(_INCOMING)

    def _on_closed(self, connection: Connection) -> None:
        was_open = self._connections.pop(connection._handle, None) is not None
        connection._on_closed()
        if was_open:
            self._tunnels.on_closed(connection)
        if was_open and self._reach is not None:
            with self._reporting():
                self._reach.on_closed(connection)
        if was_open and connection._was_announced:
            self._tell(PeerDisconnected(connection.peer_id, connection.protocol, str(connection._error())))

    def _on_change(self, change: Change) -> None:
        if self._reach is not None:
            self._reach.on_change(change)

    def _explain(self, connection: Connection, remote: CoreEndpoint) -> Explanation:
        """Say what stands behind the remote address of a connection's path."""
        said = self._tunnels.explain(connection, remote)
        if said is not None:
            return said
        return explain_address(remote) if self._reach is None else self._reach.explain(connection, remote)

    def _tell_connected(self, connection: Connection, incoming: bool) -> None:
        if self._reach is not None:
            with self._reporting():
                self._reach.on_connected(connection, is_incoming=incoming)
        if connection.protocol == PROTOCOL:
            return  # the network's, not the application's
        connection._was_announced = True
        self._tell(PeerConnected(connection.peer_id, connection.protocol, str(connection.path), incoming))

    def _tell_paths(self, connection: Connection) -> None:
        changes, dropped = path_handle.take_path_events(connection._handle)
        self._tunnels.on_paths(connection)
        if self._reach is not None:
            with self._reporting():
                self._reach.on_paths(connection)
        if connection.protocol == PROTOCOL:
            return
        for path, kind, reason, remote in changes:
            at = str(self._explain(connection, remote).remote)
            self._tell(PathChanged(connection.peer_id, path, KINDS[kind], REASONS[reason], at))
        self._events_dropped += dropped

    def _on_ask(self, core: engine.Engine, ask: int, peer_id: PeerId) -> None:
        answer: object = None
        try:
            assert callable(self._allow)
            answer = self._allow(peer_id)
            if not isinstance(answer, bool):  # anything else may be true by accident, as a coroutine is
                if inspect.iscoroutine(answer):
                    answer.close()
                raise TypeError(f"a bool was expected, not {type(answer).__name__}")
        except Exception:
            logger.exception("allow(%s) failed; the peer is not let in", peer_id)
        control.decide(core, ask, answer is True)
