"""Moving with the machine: when its addresses or its way out change, or it wakes up, the node's addresses follow, and every
peer is shown at once where we are now. What was on its way is recovered as any loss is."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from typing import final

from interpeer._address import Endpoint
from interpeer._core.connection_handle import ConnectionHandle
from interpeer._driver import Driver
from interpeer._interfaces import Change, watch


@final
class Roaming:
    """Watch the interfaces on behalf of a driver's sockets and of connections."""

    def __init__(
        self,
        driver: Driver,
        handles: Callable[[], Iterable[ConnectionHandle]],
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self._driver = driver
        self._handles = handles
        self._watcher = watch(loop, self._on_change)
        self._tell = on_change
        self.changes = 0
        """How often something has changed."""

    def start(self) -> None:
        """Begin to watch, on the node's host; sockets that nobody but this machine can reach have nowhere to move."""
        if not all(ipaddress.ip_address(host).is_loopback for host, _ in self._driver.bound):
            self._watcher.start()

    def _on_change(self, change: Change) -> None:
        self.changes += 1
        self._driver.learn_addresses()
        gone = b"".join(_packed(host) for host in change.gone)
        for handle in self._handles():
            handle.nudge(gone)
        if self._tell is not None:
            self._tell(change)

    def close(self) -> None:
        """End it. Harmless when closed."""
        self._watcher.close()


def _packed(host: str) -> bytes:
    """Return an address as the core has it on paths, where scopes are not told."""
    return Endpoint(host.partition("%")[0], 1).to_core()[0]
