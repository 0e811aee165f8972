"""A channel: messages both ways, each side with the guarantees that it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Self, final

from interpeer._core import channel_handle
from interpeer._priority import MOST_URGENT, check_priority
from interpeer._stream import bytes_in
from interpeer.errors import ChannelClosed, ClosedError, MessageLost, MessageTooLarge

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from interpeer._connection import Connection

_RESEND, _ORDER, _CLOSE_ON_LOSS = 1, 2, 4
_NO_ROOM, _NO_MEMORY, _TOO_LARGE = 1, -1, -3  # what the core says of a message
_LOST = 2**62 - 1  # the code of a channel that a lost message has closed
_LONGEST_DEADLINE_S = 1e6
_MOST_MESSAGES_A_REPAIR = 64


@final
@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Say with what guarantees one side of a channel sends: see `Connection.open_channel`."""

    resend: bool = True
    ordered: bool = True
    close_on_loss: bool = False
    deadline: float | None = None
    priority: int = 0
    fec: float | None = None

    def __post_init__(self) -> None:
        if self.deadline is not None and not 0 < self.deadline <= _LONGEST_DEADLINE_S:
            raise ValueError(
                f"a deadline is a number of seconds above 0 and up to {_LONGEST_DEADLINE_S:.0f}, not {self.deadline}"
            )
        check_priority(self.priority)
        if self.fec is not None and not 0 < self.fec <= 1:
            raise ValueError(f"fec is how many repairs are sent for each message, above 0 and up to 1, not {self.fec}")

    def to_core(self) -> tuple[int, int, int, int, int]:
        """Return it as the core takes it."""
        flags = _RESEND * self.resend | _ORDER * self.ordered | _CLOSE_ON_LOSS * self.close_on_loss
        deadline_us = 0 if self.deadline is None else max(1, round(self.deadline * 1e6))
        messages = min(round(1 / self.fec), _MOST_MESSAGES_A_REPAIR) if self.fec else 0
        return flags, MOST_URGENT - self.priority, deadline_us, messages, 1 if messages else 0

    @classmethod
    def from_core(cls, values: tuple[int, int, int, int, int]) -> Self:
        """Make it of what the core gives."""
        flags, urgency, deadline_us, messages, repairs = values
        return cls(
            resend=bool(flags & _RESEND),
            ordered=bool(flags & _ORDER),
            close_on_loss=bool(flags & _CLOSE_ON_LOSS),
            deadline=deadline_us / 1e6 if deadline_us else None,
            priority=MOST_URGENT - urgency,
            fec=min(repairs / messages, 1.0) if messages and repairs else None,  # a peer's may be more
        )


@final
@dataclass(frozen=True, slots=True)
class MessageStats:
    """Hold figures of a channel at one moment."""

    queued: int
    """Messages that wait to be sent, or to be acknowledged."""
    queued_bytes: int
    waiting_bytes: int
    """Received, and not taken yet."""
    messages_sent: int
    bytes_sent: int
    dropped: int
    """Of our messages, those that were given up."""
    late: int
    """Of these, those whose deadline had passed."""
    messages_received: int
    bytes_received: int
    peer_dropped: int
    """Messages that the peer has given up."""
    repaired: int
    """Of those received, the ones that were lost on the way and computed from repairs."""


@final
class Dropped(int):
    """Count the messages of a channel that were given up, on both sides; `numbers` says which ones of the peer's.

    >>> Dropped.of(2, 3, ((5, 7), (9, 10)))
    Dropped(5)
    >>> Dropped.of(2, 3, ((5, 7), (9, 10))).numbers
    (range(5, 7), range(9, 10))
    """

    ours: int
    """Messages that we have sent, and that were given up."""
    theirs: int
    """Messages that the peer has sent, and given up: they will not come."""
    numbers: tuple[range, ...]
    """Their numbers, counted from 0 since the channel was opened; the newest 64 ranges."""

    @classmethod
    def of(cls, ours: int, theirs: int, ranges: tuple[tuple[int, int], ...]) -> Self:
        """Make it of what the core counts."""
        self = cls(ours + theirs)
        self.ours, self.theirs, self.numbers = ours, theirs, tuple(range(*each) for each in ranges)
        return self

    def __repr__(self) -> str:
        return f"Dropped({int(self)})"


@final
class Channel:
    """Carry messages both ways between two peers, as reliably, as orderly and as long as each side wants.

    Made by `Connection.open_channel` and `Connection.accept_channel`. A message is any buffer of up to 16 MiB, and arrives
    whole or not at all. Messages of one channel never wait for those of another. Leaving `async with` closes the channel;
    leaving it with an exception gives it up.

    Cancelling `recv*` loses nothing. A cancelled `send` has sent its message or has not, never a part; a cancelled
    `send_many` has sent the first messages. Any number of tasks may send and receive: each message goes to one of them.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node() as a, interpeer.Node() as b, a.connect(b.address) as connection:
    ...         accepted = await b.accept()
    ...         async with connection.open_channel(ordered=False, deadline=0.5) as channel:
    ...             await channel.send(b"position 3 4")
    ...             theirs = await accepted.accept_channel()
    ...             return await theirs.recv(), theirs.peer_options.deadline
    >>> asyncio.run(main())
    (b'position 3 4', 0.5)
    """

    __slots__ = ("__weakref__", "_connection", "_handle", "_waiters")

    def __init__(self, connection: Connection, handle: channel_handle.ChannelHandle) -> None:
        self._connection = connection
        self._handle = handle
        self._waiters = connection._waiters_of_stream(handle.key)

    # --- what it is ---

    @property
    def id(self) -> int:
        """The channel's number on its connection: even for the side that called. Streams have numbers of their own."""
        return self._handle.id

    @property
    def connection(self) -> Connection:
        """The connection that it belongs to."""
        return self._connection

    @property
    def options(self) -> ChannelOptions:
        """With what guarantees this side sends; at first those with which the channel was opened."""
        return ChannelOptions.from_core(self._handle.capabilities)

    @property
    def peer_options(self) -> ChannelOptions | None:
        """With what guarantees the peer sends, as far as it has said so: who accepts a channel says nothing before `set`."""
        values = self._handle.peer_capabilities
        return ChannelOptions.from_core(values) if values is not None else None

    @property
    def dropped(self) -> Dropped:
        """How many messages were given up, ours and the peer's, and which of the peer's."""
        return Dropped.of(*self._handle.dropped())

    @property
    def number(self) -> int | None:
        """The number of the message that was received last, counted from 0 as the peer sent them; None before the first.

        Where numbers are missing, messages were given up, or are still on their way if the channel is not ordered."""
        return self._handle.number

    def stats(self) -> MessageStats:
        """Return figures of this moment."""
        figures = self._handle.stats()
        return MessageStats(**{name: figures[name] for name in MessageStats.__slots__})

    def __repr__(self) -> str:
        return f"<Channel {self.id} of {self._connection!r}>"

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
        """Change with what guarantees this side sends, from the next message on; what is not named stays.

        Raises ValueError as `Connection.open_channel` does."""
        now = self.options
        changed = ChannelOptions(
            resend=now.resend if resend is None else resend,
            ordered=now.ordered if ordered is None else ordered,
            close_on_loss=now.close_on_loss if close_on_loss is None else close_on_loss,
            deadline=now.deadline if deadline is ... else deadline,
            priority=now.priority if priority is None else priority,
            fec=now.fec if fec is ... else fec,
        )
        self._handle.set(changed.to_core())

    # --- sending ---

    async def send(self, message: Buffer) -> None:
        """Send a message: any buffer; it is copied before this returns. Waits while the channel's queue is full.

        Raises MessageTooLarge for more than the peer takes (16 MiB, unless configured), MessageLost when a lost message has
        closed the channel, ChannelClosed when the peer reads no more, ClosedError after `close`, and the connection's error
        when it is over; TypeError for a buffer of Python objects."""
        if type(message) is not bytes:
            bytes_in(message)
        while result := self._handle.send(message):
            await self._make_room(result, message)
        self._waiters.check_loop()

    async def send_many(self, messages: Sequence[Buffer]) -> None:
        """Send messages, in their order; much cheaper than one call each. Raises as `send`, with the first ones sent."""
        self._waiters.check_loop()
        messages = messages if isinstance(messages, list) else list(messages)
        if messages and type(messages[0]) is not bytes:  # a batch is of one kind
            for message in messages:
                bytes_in(message)
        done = 0
        while done < len(messages):
            sent, result = self._handle.send_many(messages, done)
            done += sent
            if result:
                await self._make_room(result, messages[done])

    async def _make_room(self, result: int, message: Buffer) -> None:
        """Wait for room, if that is what is missing."""
        if result == _NO_ROOM:
            await self._waiters.wait(channel_handle.WRITABLE, self._handle.want_writable)
        elif result == _TOO_LARGE:
            most = self._connection._handle.max_message_bytes
            raise MessageTooLarge(f"a message of {memoryview(message).nbytes} bytes; the peer takes at most {most}")
        elif result == _NO_MEMORY:
            raise MemoryError
        else:
            raise self._send_error()

    def _send_error(self) -> Exception:
        code = self._handle.stop_code
        if _LOST in (code, self._handle.own_reset_code):
            return _lost()
        if code is not None:
            return ChannelClosed(f"the peer reads this channel no more (code {code})", code)
        if not self._connection.is_open:
            return self._connection._error()
        return ClosedError("our side of this channel is closed")

    # --- receiving ---

    async def recv(self) -> bytes:
        """Return the next message: in order on an ordered channel, otherwise as they become complete.

        Raises ChannelClosed when the peer has closed its side and there is nothing left, MessageLost when a lost message has
        closed the channel, ClosedError after `close`, and the connection's error when it is over. Cancelled, nothing is
        lost."""
        while True:
            message = self._handle.recv()
            if message is not None:
                return message
            await self._more()

    async def recv_many(self, max: int = 1024) -> list[bytes]:  # noqa: A002 - as recv_datagrams
        """Return up to `max` messages, at least one; otherwise as `recv`, and much cheaper for many."""
        if max < 1:
            raise ValueError(f"max is at least 1, not {max}")
        while True:
            messages: list[bytes] = self._handle.recv_many(max, False)  # type: ignore[assignment]
            if messages:
                return messages
            await self._more()

    async def recv_numbered(self, max: int = 1024) -> list[tuple[int, bytes]]:  # noqa: A002
        """Return up to `max` messages with their numbers; otherwise as `recv_many`."""
        if max < 1:
            raise ValueError(f"max is at least 1, not {max}")
        while True:
            messages: list[tuple[int, bytes]] = self._handle.recv_many(max, True)  # type: ignore[assignment]
            if messages:
                return messages
            await self._more()

    async def _more(self) -> None:
        """Wait until it is worth looking again. Raises what ended it otherwise."""
        handle = self._handle
        state = handle.reading()
        if state == channel_handle.MORE:
            await self._waiters.wait(channel_handle.READABLE, handle.want_readable)
            return
        code = handle.reset_code
        if state == channel_handle.RESET:
            handle.told()
        if code == _LOST or handle.own_reset_code == _LOST:
            raise _lost()
        if state == channel_handle.END:
            raise ChannelClosed("the peer has closed its side of this channel")
        if state == channel_handle.STOPPED:
            raise ClosedError("this side has closed this channel")
        if state == channel_handle.OVER:
            raise self._connection._error()
        raise ChannelClosed(f"the peer gave this channel up (code {code})", code or 0)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next message; the end is where the peer has closed its side."""
        try:
            return await self.recv()
        except ChannelClosed as closed:
            if closed.code or isinstance(closed, MessageLost):
                raise
            raise StopAsyncIteration from None

    # --- lifetime ---

    async def finish(self) -> None:
        """Close our side: the peer takes what was sent, and then its `recv` tells the end. Waits until all is acknowledged.

        Raises ChannelClosed when the peer has stopped reading, MessageLost when a lost message has closed the channel, or
        the connection's error when it is over before that. Cancelled, the end is still sent."""
        handle = self._handle
        handle.finish()
        while not (has_acked := handle.has_acked()):
            if has_acked is None:
                raise self._send_error()
            await self._waiters.wait(channel_handle.ACKED, handle.want_acked)

    async def close(self) -> None:
        """Close the channel: what was sent is delivered, as far as its guarantees go, and nothing more is received.

        Harmless on a channel that is over. Cancelled, what was sent is still delivered."""
        try:
            await self.finish()
        except (ChannelClosed, ClosedError):
            pass
        finally:
            self._handle.stop(0)

    def reset(self, code: int = 0) -> None:
        """Give the channel up at once, both ways: the peer's calls raise ChannelClosed with this code.

        Raises ValueError for a code that is not from 0 to 2**62 - 1."""
        self._handle.reset(code)
        self._handle.stop(code)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.reset()
        else:
            await self.close()

    def __del__(self) -> None:
        self._connection._forget_stream(self._handle.key)


def _lost() -> MessageLost:
    return MessageLost("a message was lost on a channel that closes then", _LOST)
