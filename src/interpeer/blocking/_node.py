"""A node, for threads: it has a thread of its own, on which it and all that belongs to it live."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, final

from interpeer import _node
from interpeer._address import Address
from interpeer._arguments import Allow, Target
from interpeer._config import Config, Give
from interpeer._events import Event
from interpeer._identity import Identity, PeerId
from interpeer._node import DEFAULT_PROTOCOL
from interpeer.blocking._connection import Connection
from interpeer.blocking._thread import Each, LoopThread
from interpeer.errors import ClosedError


@final
class Node:
    """Be a peer; see `interpeer.Node`, whose arguments it takes. `with Node() as node` opens and closes it."""

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
        self._inner = _node.Node(identity, listen, network, bootstrap, state_dir, protocols, allow, lan, give, config)
        self._closing = threading.Lock()

    _opened: LoopThread | None = None  # also of one that could not be made

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if self._opened is not None and self._opened.is_accepting and not self._opened.is_forked:
            warn(f"{self._inner!r} was never closed", ResourceWarning, source=self)

    def __enter__(self) -> Self:
        thread = LoopThread()
        try:
            thread.call(self._inner.__aenter__, None)
        except BaseException:
            thread.close()
            raise
        self._opened = thread
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _thread(self) -> LoopThread:
        if self._opened is None:
            raise ClosedError('open the node first: "with Node() as node"')
        return self._opened

    def close(self, *, timeout: float | None = None) -> None:
        """Close every connection and the sockets. Harmless when closed. Calls that wait in other threads raise ClosedError."""
        thread = self._opened
        if thread is None or thread.is_forked:
            return
        if not self._closing.acquire(timeout=-1 if timeout is None else min(max(0, timeout), threading.TIMEOUT_MAX)):
            raise TimeoutError("another thread is closing the node")
        try:
            if thread.is_accepting:
                try:
                    thread.call(self._inner.close, timeout)
                finally:
                    thread.close()
        finally:
            self._closing.release()

    @property
    def id(self) -> PeerId:
        """The node's peer id."""
        return self._inner.id

    @property
    def address(self) -> Address:
        """The id with the socket addresses under which the node may be reached."""
        return self._inner.address

    @property
    def config(self) -> Config:
        """The node's settings."""
        return self._inner.config

    @property
    def protocols(self) -> tuple[str, ...]:
        """The application protocols that it offers."""
        return self._inner.protocols

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open."""
        thread = self._opened
        if thread is None or not thread.is_accepting:
            return []
        return [Connection(thread, connection) for connection in thread.do(lambda: self._inner.connections)]

    def counters(self) -> dict[str, int]:
        """Return how often what has happened."""
        return self._inner.counters()

    def report(self) -> dict[str, Any]:
        """Return what the node knows of its place in the network, and what it gives: for people, and ready for JSON."""
        return self._thread.do(self._inner.report)

    def joined(self, *, timeout: float | None = None) -> None:
        """Wait until each peer of `bootstrap` is connected and brings others to us, or has failed once."""
        self._thread.call(self._inner.joined, timeout)

    def connect(
        self, target: Target, protocol: str | None = None, congestion: str | None = None, *, timeout: float | None = None
    ) -> Connection:
        """Reach a peer."""
        connection = self._thread.call(lambda: self._inner._connect(target, protocol, congestion), timeout)
        return Connection(self._thread, connection)

    def accept(self, *, timeout: float | None = None) -> Connection:
        """Return the next connection that a peer opens."""
        return Connection(self._thread, self._thread.call(self._inner.accept, timeout))

    def incoming(self, *, timeout: float | None = None) -> Iterator[Connection]:
        """Iterate over the connections that peers open, until the node is closed; wait for each no longer than `timeout`."""
        thread = self._thread
        return Each(lambda: Connection(thread, thread.call(self._inner.accept, timeout)), (ClosedError,))

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """Iterate over what happens to the node, until it is closed; wait for each no longer than `timeout`."""
        thread = self._thread

        def take() -> Event:
            try:
                return thread.call(self._inner._next_event, timeout)
            except ClosedError:  # there may be some left
                event = self._inner._take_event()
                if event is None:
                    raise
                return event

        return Each(take, (StopAsyncIteration, ClosedError))
