"""Who may use a service: whoever proves the ticket's secret, or, with `--allow`, the peers named there.

A service (`send`, `pipe`) prints a ticket: its address with a fresh secret of 128 bits. A caller opens the first stream
with 16 bytes, the secret or zeros; they travel inside the encrypted connection to the peer whose key the ticket names, so
nobody else sees them. With `--allow` the ticket has no secret, and strangers are refused before they cost any state.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Iterable
from typing import final

from interpeer._address import SECRET_BYTES, Address
from interpeer._cli.errors import CommandError
from interpeer._connection import Connection
from interpeer._identity import PeerId
from interpeer._stream import Stream
from interpeer.errors import ConnectionClosed, InterpeerError

PATIENCE_S = 10.0
"""How long a caller may take to prove that it may come in."""
MAX_WAITING = 64
"""Callers at the door at once; more are turned away."""
CODE_DENIED = 0x101
"""The application's code for a connection closed because the secret was wrong."""
CODE_BUSY = 0x102
"""... because there is no room for another caller."""
_NO_SECRET = bytes(SECRET_BYTES)


@final
class Door:
    """Let callers in, or not."""

    def __init__(self, allowed: Iterable[PeerId]) -> None:
        self.allowed = frozenset(allowed)
        self._secret = None if self.allowed else secrets.token_bytes(SECRET_BYTES)
        self._waiting = 0

    def ticket(self, address: Address) -> str:
        """Return what a caller needs."""
        return str(address if self._secret is None else address.with_secret(self._secret))

    async def admit(self, connection: Connection) -> Stream | None:
        """Return the stream of a caller that may come in; turn others away, and return None."""
        if self._waiting >= MAX_WAITING:
            await connection.close(CODE_BUSY, "too many callers at once")
            return None
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                stream = await connection.accept_stream()
                shown = await stream.readexactly(SECRET_BYTES)
        except (InterpeerError, TimeoutError, EOFError):
            await connection.close(CODE_DENIED, "no ticket was shown")
            return None
        finally:
            self._waiting -= 1
        if self._secret is not None and not hmac.compare_digest(shown, self._secret):
            await connection.close(CODE_DENIED, "the ticket has not the right secret")
            return None
        return stream


async def knock(connection: Connection, secret: bytes | None) -> Stream:
    """Open the first stream of a service, and show the ticket's secret."""
    stream = await connection.open_stream()
    await stream.write(secret if secret is not None else _NO_SECRET)
    return stream


def turned_away(error: ConnectionClosed) -> CommandError:
    """Return how to tell people that the other side has closed the connection."""
    verb = "refuses" if error.code in (CODE_DENIED, CODE_BUSY) else "has ended it"
    return CommandError(f"the other side {verb}: {error.reason or error}", (str(error),))
