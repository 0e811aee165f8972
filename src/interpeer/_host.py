"""Where a node runs: what gives it random bytes and a driver. The machine does, unless a simulated host stands in its place.

interpeer.testing puts one there, for a node at a time or for a whole program; a node keeps the host on which it was made.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from interpeer._config import Config
    from interpeer._core import engine
    from interpeer._driver import Driver, EventsCallback


class Host(Protocol):
    """What a simulated host provides."""

    def random_bytes(self, n: int) -> bytes:
        """Return `n` bytes that have not been given out before."""
        ...

    def make_driver(
        self, core: engine.Engine, config: Config, on_events: EventsCallback, loop: asyncio.AbstractEventLoop
    ) -> Driver:
        """Return what drives an engine on this host."""
        ...

    def interfaces(self) -> list[tuple[str, str, int, bool, bool]]:
        """Return, for each address, its interface's name, itself, its prefix, whether it is up and has multicast."""
        ...

    def watch_interfaces(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back whenever they may have changed; return what ends this."""
        ...


current: ContextVar[Host | None] = ContextVar("interpeer host", default=None)
"""The simulated host that the running code is on; None: the machine."""


@contextmanager
def on(host: Host | None) -> Generator[None]:
    """Be on a host for a while."""
    token = current.set(host)
    try:
        yield
    finally:
        current.reset(token)


def random_bytes(n: int) -> bytes:
    """Return random bytes of the host; of the operating system, unless it is a simulated one."""
    host = current.get()
    return os.urandom(n) if host is None else host.random_bytes(n)
