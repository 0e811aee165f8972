"""Moving one connection to a better path, and back when that dies: candidates, punching, retries, a second relay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from interpeer._connection import Connection
from interpeer._reach.signals import Candidates

if TYPE_CHECKING:
    from interpeer._address import CoreEndpoint
    from interpeer._reach import Reach


@final
class Mover:
    """See that a connection has the best path there is."""

    def __init__(self, reach: Reach, connection: Connection, *, is_controlling: bool) -> None:
        self._reach = reach
        self._connection = connection
        self._is_controlling = is_controlling
        self._loop = asyncio.get_running_loop()
        self._legs = reach.legs.use(connection)

    def begin(self) -> None:
        """Look at the path that the handshake took."""

    def on_paths(self) -> None:
        """Something has happened to a path."""
        self._legs = self._reach.legs.use(self._connection)

    def on_candidates(self, told: Candidates) -> None:
        """The peer says where it may be reached."""

    def on_raw(self, data: bytes, remote: CoreEndpoint, local: bytes) -> None:
        """A probe, or the answer to one, has come."""

    def close(self) -> None:
        """End whatever runs."""
