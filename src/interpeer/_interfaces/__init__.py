"""This machine's network interfaces: what there is, which addresses to tell others, and watching for changes.

`interfaces()` asks the kernel on Linux, the C library elsewhere, and a simulated host for its own. INTERPEER_DISABLE with the
words `netlink` and `getifaddrs` makes it do without them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable

from interpeer import _host
from interpeer._address import Endpoint
from interpeer._interfaces import _candidates, _getifaddrs, _names, _netlink, _simulated, _watcher
from interpeer._interfaces._getifaddrs import ways_out
from interpeer._interfaces._model import Change, Interface, InterfaceAddress, IPAddress, change
from interpeer._interfaces._watcher import Watcher

__all__ = [
    "Change",
    "IPAddress",
    "Interface",
    "InterfaceAddress",
    "Watcher",
    "change",
    "host_candidates",
    "interfaces",
    "is_disabled",
    "watch",
    "ways_out",
]


def is_disabled(word: str) -> bool:
    """Tell whether INTERPEER_DISABLE has a word."""
    return word in {given.strip() for given in os.environ.get("INTERPEER_DISABLE", "").split(",")}


def interfaces() -> tuple[Interface, ...]:
    """Return this host's network interfaces; never raises for what a system does not offer."""
    host = _host.current.get()
    if host is not None:
        return _simulated.simulated_interfaces(host.interfaces())
    if sys.platform.startswith("linux") and not is_disabled("netlink"):
        try:
            return _netlink.netlink_interfaces()
        except OSError:
            pass  # a sandbox may forbid it
    if not is_disabled("getifaddrs"):
        try:
            return _getifaddrs.getifaddrs_interfaces()
        except (OSError, AttributeError, TypeError):
            pass  # TypeError: Windows has no library of the process itself
    return _names.named_interfaces()


def host_candidates(bound: Iterable[tuple[str, int]], *, with_link_local: bool = False) -> list[Endpoint]:
    """Return where sockets bound to (host, port) can be called, as things are now: see `_candidates.host_candidates`."""
    return _candidates.host_candidates(bound, interfaces(), with_link_local=with_link_local)


def watch(loop: asyncio.AbstractEventLoop, on_change: Callable[[Change], None]) -> _watcher.Watcher:
    """Return a watcher of this host's interfaces, to be started."""
    return Watcher(loop, on_change, interfaces, use_netlink=not is_disabled("netlink"))
