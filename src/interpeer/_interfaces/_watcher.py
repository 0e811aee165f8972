"""Watching the machine's place in the network: addresses that come and go, another way out, and sleep.

On Linux the kernel tells, elsewhere it is asked every few seconds, and a simulated host tells by itself. Changes come in
bursts: the first one starts a short wait, and what is told is the difference that is left at its end.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from typing import final

from interpeer import _host
from interpeer._interfaces import _netlink
from interpeer._interfaces._model import Change, Interface, change

SETTLE_S = 0.1
"""From the first sign of a change until it is looked at: a burst is one change, and a flood costs ten looks a second."""
TICK_S = 5.0
"""How often it is seen whether the machine has slept and, where nothing tells, whether anything has changed."""
SLEPT_S = 1.0
"""A clock that counts sleep has gone on for so much longer than one that does not."""
LATE_S = 10.0
"""Where no clock tells them apart: what was to be done after TICK_S is done so much later."""

ReadInterfaces = Callable[[], tuple[Interface, ...]]


@final
class Watcher:
    """Call back with every `Change`. Start and close it on the event loop; while it runs, it holds one socket or none."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[Change], None],
        read: ReadInterfaces,
        *,
        use_netlink: bool = True,
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        self._read = read
        self._use_netlink = use_netlink
        self._socket: socket.socket | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] | None = None
        self._slept_s = 0.0
        self.interfaces: tuple[Interface, ...] = ()
        """As they were when last looked at."""

    @property
    def is_told(self) -> bool:
        """Whether somebody tells of changes, so that nothing is polled."""
        return self._socket is not None or self._unwatch is not None

    def start(self) -> None:
        """Begin to watch. What there is already is not told."""
        host = _host.current.get()
        if host is not None:
            self._unwatch = host.watch_interfaces(self._on_sign)
        else:
            self._open_socket()
            self._slept_s = _slept_s()
            self._tick_later()
        self.interfaces = self._read()

    def _open_socket(self) -> None:
        if not self._use_netlink or not sys.platform.startswith("linux"):
            return
        try:
            watch = _netlink.open_watch()
        except OSError:
            return  # forbidden here: poll
        try:
            self._loop.add_reader(watch.fileno(), self._on_sign)
        except NotImplementedError:
            watch.close()
        else:
            self._socket = watch

    def _on_sign(self) -> None:
        """Something has changed: see what, a little later. Meanwhile nothing is read, so a flood of signs costs nothing."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
        if self._settling is None:
            self._settling = self._loop.call_later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        if self._socket is not None:
            try:
                _netlink.drain(self._socket)
                self._loop.add_reader(self._socket.fileno(), self._on_sign)
            except OSError:
                self._close_socket()
        self._look(is_resumed=False)

    def _tick_later(self) -> None:
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._tick_later()
        slept_s, before_s = _slept_s(), self._slept_s
        self._slept_s = slept_s
        is_resumed = slept_s - before_s > (SLEPT_S if _HAS_BOOTTIME else TICK_S + LATE_S)
        if is_resumed or not self.is_told:
            self._look(is_resumed=is_resumed)

    def _look(self, *, is_resumed: bool) -> None:
        before = self.interfaces
        try:
            self.interfaces = self._read()
        except OSError:
            return  # the next sign, or the next tick, tries again
        seen = change(before, self.interfaces, is_resumed=is_resumed)
        if seen:
            self._on_change(seen)

    def close(self) -> None:
        """End it. Harmless when closed."""
        for handle in (self._settling, self._ticking):
            if handle is not None:
                handle.cancel()
        self._settling = self._ticking = None
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._socket is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._socket.fileno())
            self._close_socket()

    def _close_socket(self) -> None:
        assert self._socket is not None
        self._socket.close()
        self._socket = None


_HAS_BOOTTIME = hasattr(time, "CLOCK_BOOTTIME")


def _slept_s() -> float:
    """Return how long the machine has slept since it was started; elsewhere than on Linux, what the time of day is.

    There sleep shows as a tick that comes late by that clock. Setting the time forward looks the same, and does no harm."""
    if _HAS_BOOTTIME:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.time()
