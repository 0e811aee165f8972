"""Leaving a tunnel: UDP is tried for ever, and ever less often, while a connection has no better way than its tunnel."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, final

from interpeer._address import CoreEndpoint, Endpoint, is_virtual
from interpeer._core import path_handle
from interpeer._host import random_bytes
from interpeer._path import ANY_ADDRESS
from interpeer._tunnel.calling import FAILURES

if TYPE_CHECKING:
    from interpeer._connection import Connection
    from interpeer._tunnel import Tunnels

logger = logging.getLogger("interpeer")

FIRST_S, LAST_S = 1.0, 60.0
"""Between two attempts: twice as long each time, with some jitter."""
MAX_TRIED = 2
"""UDP addresses that an attempt tries at once: a connection has four paths at the most, and one is the tunnel's."""
KEEP_ALIVE_S = 15.0
"""What is kept for when no other way works says something that often, so that it is known whether it does."""


@final
class Upgrader:
    """See that one connection, which we have opened, goes by UDP if it can, and by a tunnel if it must."""

    def __init__(self, book: Tunnels, connection: Connection, endpoints: list[Endpoint], udp: list[CoreEndpoint]) -> None:
        self._book = book
        self._connection = connection
        self._handle = connection._handle
        self._endpoints = endpoints
        self._udp = udp
        self._changed = asyncio.Event()
        self._lost = asyncio.Event()
        self._tended: set[int] = set()
        self.reasons: tuple[str, ...] = ()
        """Why it does not go by UDP."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def look(self) -> None:
        """Something has happened to a path, or a tunnel."""
        self._changed.set()

    def hurry(self) -> None:
        """A tunnel has ended: have another one at once, if it was needed."""
        self._lost.set()
        self._changed.set()

    def close(self) -> None:
        """Stop."""
        self._task.cancel()

    async def _run(self) -> None:
        delay_s = FIRST_S
        while self._connection.is_open:
            self._tidy()
            self._changed.clear()
            self._lost.clear()
            if self._has(is_tunnel=False):
                delay_s = FIRST_S
                self.reasons = ()
                self._book.udp_is_blocked = False
                await self._changed.wait()
                continue
            if not self._has(is_tunnel=True) and await self._open_tunnel():
                delay_s = FIRST_S
                continue
            if await self._try_udp():  # also where no tunnel can be opened: a network may block those and let UDP through
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s * (1 + random_bytes(1)[0] / 1024)):
                    await self._lost.wait()
            delay_s = min(2 * delay_s, LAST_S)

    def _ways(self) -> list[tuple[int, str, CoreEndpoint]]:
        return [(number, path_handle.STATES[state], remote) for number, state, _, _, remote, _ in path_handle.ways(self._handle)]

    def _has(self, *, is_tunnel: bool) -> bool:
        """Tell whether a path works, by a tunnel that there still is, or by UDP. One through a relay is neither."""
        working = [remote for _, state, remote in self._ways() if state == "active"]
        if is_tunnel:
            return any(self._book.find(remote) is not None for remote in working)
        return not all(is_virtual(remote[0]) for remote in working)

    def _is_there(self, remote: CoreEndpoint) -> bool:
        return not self._book.is_tunnel(remote) or self._book.find(remote) is not None

    def _tidy(self) -> None:
        """Give up paths whose tunnels have gone, if there are others, and see that the others say something now and then."""
        ways = self._ways()
        self._tended &= {number for number, _, _ in ways}
        for number, state, remote in ways:
            if not self._is_there(remote) and state != "abandoned":
                path_handle.abandon_path(self._handle, number)
            if number not in self._tended:
                self._tended.add(number)
                path_handle.set_path_keep_alive(self._handle, number, KEEP_ALIVE_S)

    async def _try_udp(self) -> bool:
        """Open paths to the peer's UDP addresses; return whether one works."""
        opened: dict[int, CoreEndpoint] = {}
        known = {remote for _, state, remote in self._ways() if state != "abandoned"}
        for remote in [remote for remote in self._udp if remote not in known][:MAX_TRIED]:
            result, number = path_handle.open_path(self._handle, remote, ANY_ADDRESS)
            if number is not None:
                opened[number] = remote
            else:
                logger.debug("no path to %s: %s", remote, result)
        if await self._is_proven(set(opened)):
            return True
        self.reasons = tuple(f"{Endpoint.from_core(remote)}: no answer by UDP" for remote in opened.values()) or self.reasons
        return False

    async def _is_proven(self, opened: set[int]) -> bool:
        """Wait until one of these paths works, or none will."""
        while self._connection.is_open:
            states = {number: state for number, state, _ in self._ways()}
            if any(states.get(number) == "active" for number in opened):
                return True
            if not any(states.get(number) == "validating" for number in opened):
                break
            self._changed.clear()
            await self._changed.wait()
        return False

    async def _open_tunnel(self) -> bool:
        """Have a tunnel again, since the one before has ended, and UDP does not work; return whether there is one."""
        for endpoint in self._endpoints:
            try:
                way = await self._book.open(endpoint)
            except FAILURES as error:
                logger.debug("no tunnel to %s: %s", endpoint, error)
                continue
            _, number = path_handle.open_path(self._handle, way, ANY_ADDRESS)
            if number is not None and await self._is_proven({number}):
                return True
        return False
