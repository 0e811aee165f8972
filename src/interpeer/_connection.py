"""A connection: an authenticated, encrypted session with one peer, its streams and its datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, final

from interpeer import errors
from interpeer._address import CoreEndpoint, Endpoint
from interpeer._channel import Channel, ChannelOptions
from interpeer._core import connection_handle, control, entry, path_handle
from interpeer._identity import PeerId
from interpeer._path import ANY_ADDRESS, Explanation, Path
from interpeer._stats import Stats, make_stats
from interpeer._stream import Stream, bytes_in
from interpeer._waiting import Opening, Waiters

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from interpeer._node import Node

EVENT_REASONS = 1 << 30
"""Beside the core's events: a path has come, or it is known why not."""
_ID_WAIT_S = 10.0  # for a connection id that the peer gives out at once

# who ended a connection (the core's CLOSED_*)
_LOCALLY, _BY_PEER, _BY_ERROR, _BY_PEER_ERROR, _BY_RESET, _BY_SILENCE, _BY_REFUSAL, _BY_VERSION, _UNREACHABLE = range(1, 10)
_CODES = {
    0x00: "no error",
    0x01: "an internal error",
    0x02: "a frame cannot be read",
    0x03: "more data than was allowed",
    0x04: "more streams than were allowed",
    0x05: "a frame for a stream that cannot have it",
    0x06: "a stream with two sizes",
    0x07: "a rule of the protocol is broken",
    0x08: "parameters that cannot be read",
    0x09: "a key is used up",
    0x0A: "too many gaps in a stream",
    0x0B: "a message that is too large",
    0x10: "its policy does not let us in",
    0x11: "it does not speak this protocol",
    0x12: "it has no room for another connection",
    0x13: "there is no cipher in common",
    0x14: "the identity does not match its key",
}

_T = TypeVar("_T")


@final
class _Accepted(Generic[_T]):
    """Iterate over what the peer opens; may be used again after a cancellation."""

    __slots__ = ("_accept",)

    def __init__(self, accept: Callable[[], Awaitable[_T]]) -> None:
        self._accept = accept

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        try:
            return await self._accept()
        except (errors.NetworkError, errors.ClosedError):
            raise StopAsyncIteration from None


@final
class Connection:
    """Talk to one peer, over as many streams as the peer allows and in datagrams.

    Made by `Node.connect` and `Node.accept`. Leaving `async with` closes it, after what was finished is delivered; leaving it
    with an exception closes it at once with code 1.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node() as a, interpeer.Node() as b:
    ...         async with a.connect(b.address) as connection:
    ...             accepted = await b.accept()
    ...             assert accepted.peer_id == a.id
    ...             stream = await connection.open_stream()
    ...             theirs = await accepted.accept_stream()
    ...             await theirs.write(b"from the callee")
    ...             connection.send_datagrams([b"one", b"two"])
    ...             return await stream.readexactly(15), await accepted.recv_datagram()
    >>> asyncio.run(main())
    (b'from the callee', b'one')
    """

    __slots__ = ("__weakref__", "_by_stream", "_handle", "_node", "_protocol", "_waiters", "_was_announced", "peer_id")

    peer_id: PeerId
    """Who is at the other end, proved by the handshake."""

    def __init__(self, node: Node, handle: connection_handle.ConnectionHandle, protocol: str) -> None:
        self._node = node
        self._handle = handle
        self._protocol = protocol
        self._waiters = Waiters(node._loop)
        self._by_stream: dict[int, Waiters] = {}
        self._was_announced = False
        self.peer_id = PeerId._of_proved(handle.peer_identity)
        handle.owner = self

    # --- what it is ---

    @property
    def protocol(self) -> str:
        """The application protocol that both ends agreed on."""
        return self._protocol

    @property
    def cipher(self) -> str:
        """The cipher in use: "aegis-256", "aegis-128l", "aes-256-gcm" or "chacha20-poly1305"."""
        return control.SUITE_NAMES[self._handle.suite]

    @property
    def is_open(self) -> bool:
        """Whether it can be used: neither side has closed it, and it has not been lost."""
        return self._handle.is_open

    @property
    def closed_by(self) -> str | None:
        """Who ended it: "local", "peer", "error", "reset", "silence" or "network"; None while it is open."""
        closed = self._handle.closed()
        if closed is None:
            return None
        names = {_LOCALLY: "local", _BY_PEER: "peer", _BY_ERROR: "error", _BY_PEER_ERROR: "error", _BY_RESET: "reset"}
        return {**names, _BY_SILENCE: "silence"}.get(closed[0], "network")

    def stats(self) -> Stats:
        """Return figures of this moment, of the connection and of each path and channel; cheap, but not free."""
        return make_stats(self._handle.stats(), path_handle.paths(self._handle), self._handle.channel_stats())

    def __repr__(self) -> str:
        return f"<Connection to {self.peer_id} for {self._protocol}>"

    # --- streams ---

    def open_stream(self) -> Opening[Stream]:
        """Open a stream; the peer's `accept_stream` returns at once, before there are data.

        Await it, or use it with `async with`. Waits while the peer allows no more streams. Raises the connection's error
        when it is over."""
        return Opening(self._open_stream())

    async def _open_stream(self) -> Stream:
        self._waiters.check_loop()
        while True:
            handle = self._handle.open_stream()
            if handle is not None:
                return Stream(self, handle)
            if not self.is_open:
                raise self._error()
            await self._until(connection_handle.EVENT_STREAM_ROOM)

    async def accept_stream(self) -> Stream:
        """Return the next stream that the peer has opened, in the order in which it has opened them.

        Raises the connection's error when it is over. Cancelled, nothing is lost."""
        return Stream(self, await self._opened_by_peer(self._handle.accept_stream, connection_handle.EVENT_STREAM))

    def streams(self) -> _Accepted[Stream]:
        """Iterate over the streams that the peer opens, until the connection is over."""
        return _Accepted(self.accept_stream)

    # --- channels ---

    def open_channel(
        self,
        resend: bool = True,
        ordered: bool = True,
        close_on_loss: bool = False,
        deadline: float | None = None,
        priority: int = 0,
        fec: float | None = None,
    ) -> Opening[Channel]:
        """Open a channel for messages, with what guarantees both sides send at first; each may change its own by `set`.

        With `resend`, what is lost is sent again; otherwise a message of which something is lost is given up. `ordered`
        messages are delivered in the order in which they were sent. `close_on_loss` closes the channel when a message is given
        up. A `deadline` is how many seconds a message may take: what is not acknowledged by then is given up. Of streams and
        channels, those of higher `priority`, from -4 to 3, are sent first, those of the same in turn; a stream's is 0 unless
        it is set, and datagrams have 0. `fec` is how many repairs are sent for each message, such as 0.2, from which the peer
        computes messages that were lost without waiting for a round trip; those of more than 1,100 bytes are not protected.

        Await it, or use it with `async with`. The peer's `accept_channel` returns at once, before there are messages. Waits
        while the peer allows no more channels. Raises ValueError for numbers out of range, UnsupportedVersion when the peer
        knows no channels, and the connection's error when it is over."""
        return Opening(self._open_channel(ChannelOptions(resend, ordered, close_on_loss, deadline, priority, fec)))

    async def _open_channel(self, options: ChannelOptions) -> Channel:
        self._waiters.check_loop()
        while True:
            handle = self._handle.open_channel(options.to_core())
            if handle is not None:
                return Channel(self, handle)
            if not self.is_open:
                raise self._error()
            if not self._handle.max_message_bytes:
                raise errors.UnsupportedVersion("the peer's version of the protocol has no channels")
            await self._until(connection_handle.EVENT_CHANNEL_ROOM)

    async def accept_channel(self) -> Channel:
        """Return the next channel that the peer has opened, in the order in which it has opened them.

        Raises the connection's error when it is over. Cancelled, nothing is lost."""
        return Channel(self, await self._opened_by_peer(self._handle.accept_channel, connection_handle.EVENT_CHANNEL))

    def channels(self) -> _Accepted[Channel]:
        """Iterate over the channels that the peer opens, until the connection is over."""
        return _Accepted(self.accept_channel)

    async def _opened_by_peer(self, take: Callable[[], _T | None], event: int) -> _T:
        """Return what `take` gives, once it gives something; `event` tells when to look."""
        while True:
            handle = take()
            if handle is None and not self.is_open:
                handle = take()  # it may have come just before the end
                if handle is None:
                    raise self._error()
            if handle is not None:
                return handle
            await self._until(event)

    async def _until(self, event: int) -> None:
        """Wait until `event` has come true, or the connection is over."""
        await self._waiters.wait(event, lambda: self._handle.want(event))

    def _waiters_of_stream(self, stream: int) -> Waiters:
        waiters = self._by_stream[stream] = Waiters(self._node._loop)
        return waiters

    def _forget_stream(self, stream: int) -> None:
        self._by_stream.pop(stream, None)

    # --- paths ---

    @property
    def path(self) -> Path:
        """The way its packets go at the moment."""
        for way in path_handle.ways(self._handle):
            if way[2]:
                return Path._of_core(way, self._explain)
        said = self._explain(self._handle.remote)
        return Path(said.kind, said.remote)  # not reached yet, or never

    @property
    def paths(self) -> tuple[Path, ...]:
        """All ways that there are, in the order of their ids."""
        found = (Path._of_core(way, self._explain) for way in path_handle.ways(self._handle))
        return tuple(sorted(found, key=lambda path: path.id))

    def _explain(self, remote: CoreEndpoint) -> Explanation:
        return self._node._explain(self, remote)

    async def wait_direct(self) -> Path:
        """Wait until the peer is reached directly, or until that was tried and has failed for now; return the path by then.

        A connection over a relay goes on trying for ever, ever less often: `path.reasons` tells what has failed. Raises the
        connection's error when it is over. Cancelled, nothing changes."""
        self._waiters.check_loop()
        while self.is_open and self.path.kind == "relayed" and not self.path.reasons:
            await self._waiters.wait(EVENT_REASONS, lambda: self.path.kind != "relayed" or self.path.reasons or not self.is_open)
        if not self.is_open:
            raise self._error()
        return self.path

    @property
    def scheduler(self) -> str:
        """Which path a packet takes where there are several; may be set.

        "lowest-rtt": the one with the shortest round trip, another when that fails. "aggregate": all of them, so that their
        rates add up. "redundant": all of them, each packet on every one, so that the first copy counts. Raises ValueError
        for another name."""
        number = path_handle.scheduler(self._handle)
        return next(name for name, other in path_handle.SCHEDULERS.items() if other == number)

    @scheduler.setter
    def scheduler(self, name: str) -> None:
        if name not in path_handle.SCHEDULERS:
            raise ValueError(f"scheduler is one of {', '.join(path_handle.SCHEDULERS)}, not {name!r}")
        path_handle.set_scheduler(self._handle, path_handle.SCHEDULERS[name])

    async def open_path(self, remote: Endpoint | str, *, local: str | None = None) -> Path:
        """Open another way to the peer: to another address of it, from another of ours, or both. Return it once it is proven.

        remote: where the peer listens as well, like "192.0.2.1:4433". local: an address of this machine to send from; None: the
        system chooses. Raises Unreachable when nothing answers there, LocalError when there are as many paths as both ends
        allow, ValueError for an address that cannot be, and the connection's error when it is over. Cancelled, the path is
        given up. (RFC 9000, 8.2 and 9.)"""
        to = Endpoint.parse(remote) if isinstance(remote, str) else remote
        from_ = ANY_ADDRESS if local is None else Endpoint(local, 1).to_core()[0]
        self._waiters.check_loop()
        if not self._node._driver.can_reach(to):
            raise errors.Unreachable(f"no way to {to}", (f"{to}: this node has no socket of that family",))
        path = await self._begin_path(to.to_core(), from_)
        try:
            await self._waiters.wait(connection_handle.EVENT_PATH, lambda: self._path_state(path) != "validating")
            while self.is_open and self._path_state(path) == "validating":
                await self._waiters.wait(connection_handle.EVENT_PATH, lambda: self._path_state(path) != "validating")
        except BaseException:
            path_handle.abandon_path(self._handle, path)
            raise
        found = next((one for one in self.paths if one.id == path and one.state == "active"), None)
        if not self.is_open:
            raise self._error()
        if found is None and path_handle.has_crossed(self._handle, path):
            raise errors.LocalError("the peer has opened the last path that both ends allow at the same time (Config.max_paths)")
        if found is None:
            raise errors.Unreachable(f"no answer from {to}", (f"{to}: challenges were not answered",))
        return found

    async def _begin_path(self, to: CoreEndpoint, from_: bytes) -> int:
        """Start a path; the peer may have to give out a connection id first. Return the path's id."""
        while True:
            result, path = path_handle.open_path(self._handle, to, from_)
            if path is not None:
                return path
            if not self.is_open:
                raise self._error()
            if result == path_handle.TOO_MANY:
                raise errors.LocalError("the connection has as many paths as both ends allow (Config.max_paths)")
            if result == path_handle.NO_MEMORY:
                raise MemoryError("no memory for another path")
            try:
                async with asyncio.timeout(_ID_WAIT_S):
                    await self._until(connection_handle.EVENT_IDS)
            except TimeoutError:
                raise errors.LocalError("the peer has given out no connection id for another path") from None

    def _path_state(self, path: int) -> str:
        return next((one.state for one in self.paths if one.id == path), "abandoned")

    def close_path(self, path: Path) -> None:
        """Give a path up; what is on its way there goes another one. Harmless for one that is gone.

        Raises LocalError for the last: close the connection."""
        if not path_handle.abandon_path(self._handle, path.id):
            raise errors.LocalError("the last path of a connection cannot be given up: close the connection")

    def set_standby(self, path: Path, is_standby: bool = True) -> None:
        """Keep a path for when no other works (one that costs money, say), or use it again. The peer does likewise."""
        path_handle.set_standby(self._handle, path.id, is_standby)

    async def migrate(self, remote: Endpoint | str, *, local: str | None = None) -> Path:
        """Move to another way and give the others up, with nothing lost. Arguments and errors are those of `open_path`."""
        moved = await self.open_path(remote, local=local)
        for path in self.paths:
            if path.id != moved.id:
                path_handle.abandon_path(self._handle, path.id)
        return moved

    # --- datagrams ---

    @property
    def max_datagram_bytes(self) -> int:
        """How large a datagram may be at the moment; 0 when the peer takes none."""
        return self._handle.max_datagram_bytes

    def send_datagram(self, data: Buffer) -> bool:
        """Queue one datagram, which may be lost on the way. False, and nothing is queued, when the queue is full.

        Raises DatagramTooLarge, and the connection's error when it is over; TypeError for a buffer of Python objects."""
        if type(data) is not bytes:
            bytes_in(data)
        try:
            if self._handle.send_datagram(data):
                return True
        except RuntimeError as error:
            raise self._sending_error(error) from None
        if not self.is_open:
            raise self._error()
        return False

    def send_datagrams(self, messages: Sequence[Buffer]) -> int:
        """Queue datagrams until the queue is full; return how many were queued. Much cheaper than one call each.

        Raises DatagramTooLarge if the first is too large (otherwise it stops before one that is), and the connection's
        error when it is over."""
        messages = messages if isinstance(messages, list) else list(messages)
        if messages and type(messages[0]) is not bytes:  # a batch is of one kind
            for message in messages:
                bytes_in(message)
        try:
            sent = self._handle.send_datagrams(messages)
        except RuntimeError as error:
            raise self._sending_error(error) from None
        if not sent and messages and not self.is_open:
            raise self._error()
        return sent

    def _sending_error(self, error: RuntimeError) -> RuntimeError:
        """Return what to tell of a failure to have the next turn taken: a loop that is closed takes none."""
        if self._node._loop.is_closed() and not isinstance(error, errors.LocalError):
            self._handle.close(0, b"")  # which is said once: now nothing more can be queued
            return errors.ClosedError("the event loop of the node is closed")
        return error

    async def datagrams_writable(self) -> None:
        """Wait until half of the queue is free again. Raises the connection's error when it is over."""
        await self._until(connection_handle.EVENT_DATAGRAM_ROOM)
        if not self.is_open:
            raise self._error()

    async def recv_datagram(self) -> bytes:
        """Return the oldest datagram that has come; wait for one if there is none.

        Raises the connection's error when it is over. Cancelled, nothing is lost. What is not received in time is dropped,
        oldest first, and counted in `stats().datagrams_dropped`."""
        while True:
            data = self._handle.recv_datagram()
            if data is None and not self.is_open:
                data = self._handle.recv_datagram()  # it may have come just before the end
                if data is None:
                    raise self._error()
            if data is not None:
                return data
            await self._until(connection_handle.EVENT_DATAGRAM)

    async def recv_datagrams(self, max: int = 1024) -> list[bytes]:  # noqa: A002 - the contract's name
        """Return up to `max` datagrams, at least one; otherwise as `recv_datagram`, and much cheaper for many."""
        if max < 1:
            raise ValueError(f"max is at least 1, not {max}")
        while True:
            messages = self._handle.recv_datagrams(max)
            if not messages and not self.is_open:
                messages = self._handle.recv_datagrams(max)  # they may have come just before the end
                if not messages:
                    raise self._error()
            if messages:
                return messages
            await self._until(connection_handle.EVENT_DATAGRAM)

    # --- lifetime ---

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close, telling the peer a code and a reason, after what `finish` has promised is delivered.

        Waits for that no longer than the node's linger time. Harmless on a connection that is over. Cancelled, it is closed
        at once. Raises ValueError, and closes nothing, for a code that is not from 0 to 2**62 - 1."""
        self._waiters.check_loop()
        code = entry.wire_code(code)
        if not isinstance(reason, str):
            raise TypeError(f"a reason is a str, not {type(reason).__name__}")
        encoded = reason.encode()
        try:
            async with asyncio.timeout(self._node._linger_s):
                await self._until(connection_handle.EVENT_FLUSHED)
        except TimeoutError:
            pass
        finally:
            self._handle.close(code, encoded)

    async def wait_closed(self) -> None:
        """Wait until the connection is over, whoever ended it; `closed_by` tells."""
        await self._waiters.wait(connection_handle.EVENT_CLOSED, lambda: not self.is_open)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._handle.close(1, b"")
        else:
            await self.close()

    # --- what the node tells ---

    def _on_events(self, events: int) -> None:
        self._waiters.wake(events)

    def _on_closed(self) -> None:
        """Wake everybody: nothing more will be told, so the handle need not know us, and is let go of together with us."""
        self._handle.owner = None
        self._waiters.wake(-1)
        for waiters in self._by_stream.values():
            waiters.wake(-1)

    def _on_stream_events(self, stream: int, events: int) -> None:
        waiters = self._by_stream.get(stream)
        if waiters is not None:
            waiters.wake(events)

    def _error(self) -> Exception:
        """Return why the connection cannot be used."""
        closed = self._handle.closed()
        if closed is None:
            return errors.ClosedError("the connection is not open")
        by, code, _, raw_reason = closed
        reason = raw_reason.decode("utf-8", "replace")
        what = f"{_CODES.get(code, 'an error')} (code {code})"
        if by == _LOCALLY:
            return errors.ClosedError("this connection was closed by this side")
        if by == _BY_PEER:
            said = f", saying {reason!r}" if reason else ""
            return errors.ConnectionClosed(f"the peer closed the connection with code {code}{said}", code, reason)
        if by == _BY_ERROR:
            return errors.ProtocolError(f"the peer broke the protocol: {reason or what}", code)
        if by == _BY_PEER_ERROR:
            return errors.ProtocolError(f"the peer says that we broke the protocol: {reason or what}", code)
        if by == _BY_RESET:
            return errors.ResetByPeer("connection reset by peer: it was restarted, or has given the connection up")
        if by == _BY_SILENCE:
            return errors.TimedOut(f"nothing came from {self.peer_id} for the idle time-out")
        return self._dial_error(by, code, reason)

    def _dial_error(self, by: int, code: int, reason: str) -> Exception:
        """Return why the peer could not be reached."""
        if by == _BY_REFUSAL and code == 0x11:
            return errors.Refused(f"the peer does not speak the protocol {self._protocol!r}", code)
        if by == _BY_REFUSAL:
            return errors.Refused(f"the peer refuses: {_CODES.get(code, 'no reason given')}", code)
        if by == _BY_VERSION:
            return errors.UnsupportedVersion("the peer speaks no version of the protocol that this library speaks")
        report = self._handle.dial_report()
        tried = [_describe_attempt(self._explain(at).remote, sent, has_cookie) for at, sent, has_cookie in report]
        ways = f"{len(tried)} address{'es' if len(tried) != 1 else ''}"
        return errors.Unreachable(f"cannot reach {self.peer_id}: tried {ways}: {'; '.join(tried)}", tuple(tried))


def _describe_attempt(where: Endpoint, sent: int, has_cookie: bool) -> str:
    if not sent:
        return f"{where}: not called before the time was up"
    messages = f"{sent} call{'s' if sent != 1 else ''}"
    if has_cookie:
        return f"{where}: {messages}; the peer is busy, asked for proof of our address, and then did not answer"
    return f"{where}: {messages}, no answer"
