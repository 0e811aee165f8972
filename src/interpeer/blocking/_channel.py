"""A channel, for threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, final

from interpeer import _channel
from interpeer._channel import ChannelOptions, Dropped, MessageStats
from interpeer.blocking._thread import Each, LoopThread, Wrapper

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from interpeer.blocking._connection import Connection


@final
class Channel(Wrapper[_channel.Channel]):
    """Carry messages both ways; see `interpeer.Channel`."""

    def __init__(self, thread: LoopThread, inner: _channel.Channel, connection: Connection) -> None:
        super().__init__(thread, inner)
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
        deadline: float | EllipsisType | None = ...,
        priority: int | None = None,
        fec: float | EllipsisType | None = ...,
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
        return Each(lambda: self._thread.call(self._inner.__anext__, timeout), (StopAsyncIteration,))

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
