"""The same API for threads: every call waits, and takes `timeout=` in seconds.

    >>> import interpeer
    >>> with interpeer.blocking.Node() as a, interpeer.blocking.Node() as b:
    ...     connection = a.connect(b.address, timeout=5)
    ...     stream = connection.open_stream()
    ...     stream.write(b"hello")
    ...     accepted = b.accept(timeout=5).accept_stream(timeout=5)
    ...     accepted.readexactly(5, timeout=5)
    b'hello'

Each node has an event loop on a thread of its own, so any thread may use it, and its connections and streams, at any time.
A call that takes longer than `timeout` raises TimeoutError and is cancelled, with what the asynchronous call promises of
that: reads lose nothing, a write leaves a prefix sent.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

import interpeer
from interpeer._address import Address, Endpoint
from interpeer._channel import ChannelOptions, Dropped, MessageStats
from interpeer._config import Config, Give
from interpeer._events import Event
from interpeer._identity import Identity, PeerId
from interpeer._node import DEFAULT_PROTOCOL, Allow, Target
from interpeer._path import Path
from interpeer._run import loop_factory
from interpeer._stats import Stats
from interpeer._stream import MAX_READ_BYTES
from interpeer.errors import ClosedError, ForkedError, LocalError, NetworkError

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Buffer

__all__ = ["Channel", "Connection", "Node", "Stream"]

_T = TypeVar("_T")


@final
class _LoopThread:
    """An event loop on a thread, and a way in from other threads."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._process = os.getpid()
        self._lock = threading.Lock()  # a call comes in either before the end, and is ended by it, or is refused
        self.is_accepting = True
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interpeer.blocking", daemon=True)
        self._thread.start()
        self._is_ready.wait()

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._is_ready.set()
        await self._stop.wait()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the one that has the thread."""
        return os.getpid() != self._process

    def call(self, make: Callable[[], Coroutine[Any, Any, _T]], timeout: float | None) -> _T:
        """Run a coroutine there and wait for it. Raises TimeoutError; the coroutine is then cancelled and has ended."""
        if self.is_forked:
            raise ForkedError("this process is a fork of the one that owns the node: make a node of its own after the fork")
        if threading.current_thread() is self._thread:
            raise LocalError("a blocking call on the node's own thread would wait for itself")

        async def bounded() -> _T:
            async with asyncio.timeout(timeout):
                return await make()

        with self._lock:
            if not self.is_accepting:
                raise ClosedError("the node is closed")
            future: Future[_T] = asyncio.run_coroutine_threadsafe(bounded(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClosedError("the node was closed meanwhile") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def do(self, function: Callable[[], _T]) -> _T:
        """Run a plain function there and wait for it."""

        async def done() -> _T:
            return function()

        return self.call(done, None)

    def close(self) -> None:
        """Cancel what still runs there, and end the thread."""
        with self._lock:
            self.is_accepting = False
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@final
class _Each(Iterator[_T]):
    """Iterate by a call, until it raises one of `ends`. May be used again after a time-out."""

    def __init__(self, take: Callable[[], _T], ends: tuple[type[Exception], ...]) -> None:
        self._take = take
        self._ends = ends

    def __next__(self) -> _T:
        try:
            return self._take()
        except self._ends:
            raise StopIteration from None


@final
class Stream:
    """Carry bytes both ways; see `interpeer.Stream`."""

    def __init__(self, thread: _LoopThread, inner: interpeer.Stream, connection: Connection) -> None:
        self._thread = thread
        self._inner = inner
        self._connection = connection

    @property
    def id(self) -> int:
        """The stream's number on its connection."""
        return self._inner.id

    @property
    def connection(self) -> Connection:
        """The connection that it belongs to."""
        return self._connection

    @property
    def priority(self) -> int:
        """How urgent what we send is, from -4 to 3."""
        return self._inner.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._inner.priority = priority

    @property
    def bytes_accepted(self) -> int:
        """How many bytes `write` has taken."""
        return self._inner.bytes_accepted

    def write(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Send bytes; waits while the peer is slower."""
        self._thread.call(lambda: self._inner.write(data), timeout)

    def finish(self, *, timeout: float | None = None) -> None:
        """End our side, and wait until the peer's transport has all of it."""
        self._thread.call(self._inner.finish, timeout)

    def read(self, n: int = -1, *, max_bytes: int = MAX_READ_BYTES, timeout: float | None = None) -> bytes:
        """Read up to `n` bytes, or everything up to the end."""
        return self._thread.call(lambda: self._inner.read(n, max_bytes=max_bytes), timeout)

    def readexactly(self, n: int, *, timeout: float | None = None) -> bytes:
        """Read exactly `n` bytes, or raise asyncio.IncompleteReadError."""
        return self._thread.call(lambda: self._inner.readexactly(n), timeout)

    def readinto(self, buffer: Buffer, *, timeout: float | None = None) -> int:
        """Read into a buffer what has come, at least one byte; 0 means the end."""
        return self._thread.call(lambda: self._inner.readinto(buffer), timeout)

    def reset(self, code: int = 0) -> None:
        """Give our side up."""
        self._thread.do(lambda: self._inner.reset(code))

    def stop(self, code: int = 0) -> None:
        """Read no more."""
        self._thread.do(lambda: self._inner.stop(code))

    def send_array(self, array: np.ndarray[Any, Any], *, timeout: float | None = None) -> None:
        """Send a numpy array, without copying it."""
        self._thread.call(lambda: self._inner.send_array(array), timeout)

    def recv_array(
        self, out: np.ndarray[Any, Any] | None = None, *, max_bytes: int = MAX_READ_BYTES, timeout: float | None = None
    ) -> np.ndarray[Any, Any]:
        """Receive an array."""
        return self._thread.call(lambda: self._inner.recv_array(out, max_bytes=max_bytes), timeout)

    def send_file(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> int:
        """Send a file."""
        return self._thread.call(lambda: self._inner.send_file(path), timeout)

    def recv_file(self, path: str | os.PathLike[str], *, max_bytes: int | None = None, timeout: float | None = None) -> int:
        """Receive a file, and verify it."""
        return self._thread.call(lambda: self._inner.recv_file(path, max_bytes=max_bytes), timeout)

    def chunks(self, *, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what comes, in chunks of whatever size; wait for each no longer than `timeout`."""
        return _Each(lambda: self._thread.call(self._inner.__anext__, timeout), (StopAsyncIteration,))

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.call(lambda: self._inner.__aexit__(kind, error, trace), None)


@final
class Channel:
    """Carry messages both ways; see `interpeer.Channel`."""

    def __init__(self, thread: _LoopThread, inner: interpeer.Channel, connection: Connection) -> None:
        self._thread = thread
        self._inner = inner
        self._connection = connection

    @property
    def id(self) -> int:
        """The channel's number on its connection."""
        return self._inner.id

    @property
    def connection(self) -> Connection:
        """The connection that it belongs to."""
        return self._connection

    @property
    def options(self) -> ChannelOptions:
        """With what guarantees this side sends."""
        return self._inner.options

    @property
    def peer_options(self) -> ChannelOptions | None:
        """With what guarantees the peer sends, as far as it has said so."""
        return self._inner.peer_options

    @property
    def dropped(self) -> Dropped:
        """How many messages were given up, and which of the peer's."""
        return self._inner.dropped

    @property
    def number(self) -> int | None:
        """The number of the message that was received last."""
        return self._inner.number

    def stats(self) -> MessageStats:
        """Return figures of this moment."""
        return self._inner.stats()

    def set(
        self,
        *,
        resend: bool | None = None,
        ordered: bool | None = None,
        close_on_loss: bool | None = None,
        deadline: float | None = -1,
        priority: int | None = None,
        fec: float | None = None,
    ) -> None:
        """Change with what guarantees this side sends; what is not named stays."""
        self._thread.do(
            lambda: self._inner.set(
                resend=resend, ordered=ordered, close_on_loss=close_on_loss, deadline=deadline, priority=priority, fec=fec
            )
        )

    def send(self, message: Buffer, *, timeout: float | None = None) -> None:
        """Send a message; waits while the channel's queue is full."""
        self._thread.call(lambda: self._inner.send(message), timeout)

    def send_many(self, messages: Sequence[Buffer], *, timeout: float | None = None) -> None:
        """Send messages, in their order."""
        self._thread.call(lambda: self._inner.send_many(messages), timeout)

    def recv(self, *, timeout: float | None = None) -> bytes:
        """Return the next message."""
        return self._thread.call(self._inner.recv, timeout)

    def recv_many(self, max: int = 1024, *, timeout: float | None = None) -> list[bytes]:  # noqa: A002 - as recv_datagrams
        """Return up to `max` messages, at least one."""
        return self._thread.call(lambda: self._inner.recv_many(max), timeout)

    def recv_numbered(self, max: int = 1024, *, timeout: float | None = None) -> list[tuple[int, bytes]]:  # noqa: A002
        """Return up to `max` messages with their numbers, at least one."""
        return self._thread.call(lambda: self._inner.recv_numbered(max), timeout)

    def messages(self, *, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what comes, until the peer closes its side; wait for each no longer than `timeout`."""
        return _Each(lambda: self._thread.call(self._inner.__anext__, timeout), (StopAsyncIteration,))

    def __iter__(self) -> Iterator[bytes]:
        return self.messages()

    def finish(self, *, timeout: float | None = None) -> None:
        """Close our side, and wait until all is acknowledged."""
        self._thread.call(self._inner.finish, timeout)

    def close(self, *, timeout: float | None = None) -> None:
        """Close the channel: what was sent is delivered, and nothing more is received."""
        self._thread.call(self._inner.close, timeout)

    def reset(self, code: int = 0) -> None:
        """Give the channel up at once, both ways."""
        self._thread.do(lambda: self._inner.reset(code))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.call(lambda: self._inner.__aexit__(kind, error, trace), None)


@final
class Connection:
    """Talk to one peer; see `interpeer.Connection`."""

    def __init__(self, thread: _LoopThread, inner: interpeer.Connection) -> None:
        self._thread = thread
        self._inner = inner

    def __eq__(self, other: object) -> bool:
        return self._inner is other._inner if isinstance(other, Connection) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._inner)

    @property
    def peer_id(self) -> PeerId:
        """Who is at the other end."""
        return self._inner.peer_id

    @property
    def protocol(self) -> str:
        """The application protocol that both ends agreed on."""
        return self._inner.protocol

    @property
    def cipher(self) -> str:
        """The cipher in use."""
        return self._inner.cipher

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._inner.is_open

    @property
    def path(self) -> Path:
        """The way its packets go."""
        return self._inner.path

    @property
    def closed_by(self) -> str | None:
        """Who ended it, or None."""
        return self._inner.closed_by

    def stats(self) -> Stats:
        """Return figures of this moment."""
        return self._inner.stats()

    def open_stream(self, *, timeout: float | None = None) -> Stream:
        """Open a stream."""
        return Stream(self._thread, self._thread.call(self._inner._open_stream, timeout), self)

    def accept_stream(self, *, timeout: float | None = None) -> Stream:
        """Return the next stream that the peer has opened."""
        return Stream(self._thread, self._thread.call(self._inner.accept_stream, timeout), self)

    def streams(self, *, timeout: float | None = None) -> Iterator[Stream]:
        """Iterate over the streams that the peer opens, until the connection is over; wait for each no longer than `timeout`."""
        return _Each(lambda: self.accept_stream(timeout=timeout), (NetworkError, ClosedError))

    def open_channel(
        self,
        resend: bool = True,
        ordered: bool = True,
        close_on_loss: bool = False,
        deadline: float | None = None,
        priority: int = 0,
        fec: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Channel:
        """Open a channel for messages, with what guarantees both sides send at first."""
        options = ChannelOptions(resend, ordered, close_on_loss, deadline, priority, fec)
        return Channel(self._thread, self._thread.call(lambda: self._inner._open_channel(options), timeout), self)

    def accept_channel(self, *, timeout: float | None = None) -> Channel:
        """Return the next channel that the peer has opened."""
        return Channel(self._thread, self._thread.call(self._inner.accept_channel, timeout), self)

    def channels(self, *, timeout: float | None = None) -> Iterator[Channel]:
        """Iterate over the channels that the peer opens, until the connection is over; wait for each no longer than `timeout`."""
        return _Each(lambda: self.accept_channel(timeout=timeout), (NetworkError, ClosedError))

    @property
    def max_datagram_bytes(self) -> int:
        """How large a datagram may be."""
        return self._inner.max_datagram_bytes

    def send_datagram(self, data: Buffer) -> bool:
        """Queue one datagram; False when the queue is full."""
        return self._inner.send_datagram(data)

    def send_datagrams(self, messages: Sequence[Buffer]) -> int:
        """Queue datagrams; return how many."""
        return self._inner.send_datagrams(messages)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All ways that its packets can go."""
        return self._inner.paths

    @property
    def scheduler(self) -> str:
        """Which path a packet takes where there are several; may be set."""
        return self._inner.scheduler

    @scheduler.setter
    def scheduler(self, name: str) -> None:
        self._inner.scheduler = name

    def open_path(self, remote: Endpoint | str, *, local: str | None = None, timeout: float | None = None) -> Path:
        """Open another way to the peer, and return it once it is proven."""
        return self._thread.call(lambda: self._inner.open_path(remote, local=local), timeout)

    def migrate(self, remote: Endpoint | str, *, local: str | None = None, timeout: float | None = None) -> Path:
        """Move to another way and give the others up."""
        return self._thread.call(lambda: self._inner.migrate(remote, local=local), timeout)

    def close_path(self, path: Path) -> None:
        """Give a path up."""
        self._inner.close_path(path)

    def set_standby(self, path: Path, is_standby: bool = True) -> None:
        """Keep a path for when no other works, or use it again."""
        self._inner.set_standby(path, is_standby)

    def datagrams_writable(self, *, timeout: float | None = None) -> None:
        """Wait until half of the queue is free."""
        self._thread.call(self._inner.datagrams_writable, timeout)

    def recv_datagram(self, *, timeout: float | None = None) -> bytes:
        """Return the oldest datagram that has come."""
        return self._thread.call(self._inner.recv_datagram, timeout)

    def recv_datagrams(self, max: int = 1024, *, timeout: float | None = None) -> list[bytes]:  # noqa: A002 - the contract's
        """Return up to `max` datagrams, at least one."""
        return self._thread.call(lambda: self._inner.recv_datagrams(max), timeout)

    def close(self, code: int = 0, reason: str = "", *, timeout: float | None = None) -> None:
        """Close, telling the peer a code and a reason."""
        self._thread.call(lambda: self._inner.close(code, reason), timeout)

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until the connection is over."""
        self._thread.call(self._inner.wait_closed, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.call(lambda: self._inner.__aexit__(kind, error, trace), None)


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
        self._inner = interpeer.Node(identity, listen, network, bootstrap, state_dir, protocols, allow, lan, give, config)
        self._closing = threading.Lock()

    _opened: _LoopThread | None = None  # also of one that could not be made

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if self._opened is not None and self._opened.is_accepting and not self._opened.is_forked:
            warn(f"{self._inner!r} was never closed", ResourceWarning, source=self)

    def __enter__(self) -> Self:
        thread = _LoopThread()
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
    def _thread(self) -> _LoopThread:
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
        return _Each(lambda: Connection(thread, thread.call(self._inner.accept, timeout)), (ClosedError,))

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

        return _Each(take, (StopAsyncIteration, ClosedError))
