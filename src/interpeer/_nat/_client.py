"""Transactions and probes on the event loop: many sockets, one timer, and a future for whoever waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any, final

from interpeer._address import CoreEndpoint
from interpeer._core import stun
from interpeer._nat._hooks import Hooks, Socket
from interpeer._nat._transactions import LAST_WAIT, TRIES, Result, RoundTrips, State, Transactions

PROBE, PROBE_ANSWER = 0x45, 0x46
TOKEN_BYTES = 8
MAX_SEEN = 64
"""Sources remembered for one token: anybody may send there."""


@final
class StunClient:
    """Ask STUN servers from several sockets, and see what else comes to them. Use it with `with`: it closes its sockets."""

    def __init__(self, hooks: Hooks, round_trips: RoundTrips | None = None) -> None:
        self.hooks = hooks
        self._transactions = Transactions(round_trips)
        self._waiting: dict[bytes, asyncio.Future[Result]] = {}
        self._watched: dict[bytes, tuple[list[CoreEndpoint], asyncio.Event]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._sockets: list[Socket] = []

    def __enter__(self) -> StunClient:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for transaction, future in self._waiting.items():
            self.hooks.unexpect(transaction)
            future.cancel()
        self._waiting.clear()
        for socket in self._sockets:
            socket.close()
        self._sockets.clear()

    def open(self, *, is_ipv6: bool = False, is_main: bool = False) -> Socket:
        """Open a socket, or the node's own. Raises OSError."""
        make = self.hooks.open_main if is_main else self.hooks.open_socket
        socket = make(self._on_datagram, is_ipv6)
        self._sockets.append(socket)
        return socket

    def close(self, socket: Socket) -> None:
        """Close a socket before the others; harmless on one that is closed."""
        if socket in self._sockets:
            self._sockets.remove(socket)
            socket.close()

    async def ask(
        self, socket: Socket, remote: CoreEndpoint, *, tries: int = TRIES, last_wait: int = LAST_WAIT, **details: Any
    ) -> Result:
        """Ask a server from a socket (`details` are those of `Transactions.start`); return how it has ended, when it has."""
        transaction = self.hooks.random_bytes(12)
        self._transactions.start(
            remote, transaction, self.hooks.now_ns(), tag=socket, tries=tries, last_wait=last_wait, **details
        )
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting[transaction] = future
        try:
            self.hooks.expect(transaction)  # raises where too many wait already
            self._turn()
            return await future
        finally:
            self._transactions.cancel(transaction)
            if self._waiting.pop(transaction, None) is not None:
                self.hooks.unexpect(transaction)

    @contextlib.contextmanager
    def watch(self, token: bytes) -> Generator[list[CoreEndpoint]]:
        """Watch for what carries a token, on any socket: a probe, or a STUN request of ours that has come back to us.

        The sources that it came from are in the list; `arrival` waits for the first."""
        self._watched[token] = [], asyncio.Event()
        self.hooks.expect(token)
        try:
            yield self._watched[token][0]
        finally:
            del self._watched[token]
            self.hooks.unexpect(token)

    async def arrival(self, token: bytes, within_s: float) -> bool:
        """Return whether something with a token that is watched for arrives in so much time."""
        try:
            await asyncio.wait_for(self._watched[token][1].wait(), within_s)
        except TimeoutError:
            return False
        return True

    # --- what happens ---

    def _on_datagram(self, _socket: Socket, data: bytes, source: CoreEndpoint) -> None:
        token = _token_of(data)
        if token in self._watched:
            seen, event = self._watched[token]
            if len(seen) < MAX_SEEN:
                seen.append(source)
            event.set()
        elif self._transactions.handle_datagram(data, source, self.hooks.now_ns()):
            self._turn()

    def _turn(self) -> None:
        """Send what is due, tell what has ended, and come back when the next thing is due."""
        now_ns = self.hooks.now_ns()
        self._transactions.handle_timeout(now_ns)
        for data, remote, socket in self._transactions.poll_transmit(now_ns):
            socket.send(data, remote)
        for result in self._transactions.poll_results():
            future = self._waiting.get(result.transaction)
            if future is not None and not future.done():
                future.set_result(result)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_ns = self._transactions.poll_timeout()
        if deadline_ns is not None:
            self._timer = self._loop.call_later(max(0.0, (deadline_ns - now_ns) / 1e9), self._turn)


def _token_of(data: bytes) -> bytes:
    """Return the token of a probe, or the transaction of a STUN request; b"" for anything else."""
    if data[:1] in (bytes([PROBE]), bytes([PROBE_ANSWER])):
        return data[2 : 2 + TOKEN_BYTES]
    message = stun.parse(data)
    return message.transaction if message is not None and message.kind == stun.REQUEST else b""


def has_answered(result: Result) -> bool:
    """Tell whether there was any answer: then UDP gets there and back."""
    return result.state in (State.ANSWERED, State.REFUSED)
