"""A connection, for threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

from interpeer import _connection
from interpeer._address import Endpoint
from interpeer._channel import ChannelOptions
from interpeer._identity import PeerId
from interpeer._path import Path
from interpeer._stats import Stats
from interpeer.blocking._channel import Channel
from interpeer.blocking._stream import Stream
from interpeer.blocking._thread import Each, Wrapper
from interpeer.errors import ClosedError, NetworkError

if TYPE_CHECKING:
    from typing_extensions import Buffer


@final
class Connection(Wrapper[_connection.Connection]):
    """Talk to one peer; see `interpeer.Connection`."""

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
        return Each(lambda: self.accept_stream(timeout=timeout), (NetworkError, ClosedError))

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
        return Each(lambda: self.accept_channel(timeout=timeout), (NetworkError, ClosedError))

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

    def wait_direct(self, *, timeout: float | None = None) -> Path:
        """Wait until the peer is reached directly, or until that was tried and has failed for now; return the path by then."""
        return self._thread.call(self._inner.wait_direct, timeout)

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until the connection is over."""
        self._thread.call(self._inner.wait_closed, timeout)
