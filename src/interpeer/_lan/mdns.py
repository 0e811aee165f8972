"""Discovery by mDNS (RFC 6762, 6763), through the package zeroconf: what other tools of a network know how to carry and to show.

A record's name and host name are drawn anew in each run, and its text is a sealed beacon: to those who do not know the network's
name it says that somebody runs interpeer here, and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, final

from interpeer._interfaces import Interface

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

SERVICE = "_interpeer._udp.local."
TEXT_KEY = b"b"
LOOKUP_MS = 3000
MAX_LOOKUPS = 16
"""Records that are looked at at the same time; more wait for their turn."""
MAX_WAITING = 256
"""... and more than that are left out: zeroconf tells of a record once, so they are found when they change."""
MAX_ADDRESSES = 8
"""Of one record."""

_logger = logging.getLogger("interpeer")
OnRecord = Callable[[bytes, tuple[str, ...]], None]
"""Called with a sealed beacon, and with the hosts that the record names."""


class NameTaken(Exception):
    """Say that somebody on the link claims to have our name."""


@final
class Mdns:
    """Publish one record, and look for those of others."""

    def __init__(self, name: str, beacon: bytes, port: int, on_record: OnRecord) -> None:
        self._name = name
        self._beacon = beacon
        self._port = port
        self._on_record = on_record
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._lookups: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, None] = {}
        self._used: tuple[str | int, ...] = ()

    async def open(self, interfaces: Iterable[Interface]) -> None:
        """Begin, on these interfaces. When that cannot be, nothing is left open, and `use` tries again.

        Raises ImportError without zeroconf, OSError when its port cannot be had, NameTaken, and what else zeroconf raises."""
        from zeroconf import NonUniqueNameException

        try:
            await self._open(tuple(interfaces))
        except NonUniqueNameException:
            await self.close()
            raise NameTaken("a neighbour says that it has our name") from None
        except Exception:
            await self.close()
            raise

    async def _open(self, interfaces: tuple[Interface, ...]) -> None:
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        self._used = _wanted(interfaces)
        if not self._used:
            return
        self._zeroconf = AsyncZeroconf(interfaces=list(self._used), ip_version=IPVersion.All)
        await self._zeroconf.zeroconf.async_wait_for_start()
        untyped: Any = self._zeroconf  # its annotations leave out what is awaited
        await untyped.async_register_service(self._record(interfaces))
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._on_service])

    async def use(self, interfaces: Iterable[Interface]) -> None:
        """Go on, on these interfaces."""
        interfaces = tuple(interfaces)
        if _wanted(interfaces) != self._used:
            await self.close()
            await self.open(interfaces)

    def _record(self, interfaces: tuple[Interface, ...]) -> ServiceInfo:
        from zeroconf import ServiceInfo

        addresses = [a.ip.packed for i in interfaces for a in i.addresses if a.is_usable and not a.is_deprecated]
        return ServiceInfo(
            SERVICE,
            f"{self._name}.{SERVICE}",
            port=self._port,
            addresses=addresses,
            properties={TEXT_KEY: self._beacon},
            server=f"{self._name}.local.",
        )

    def _on_service(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        if state_change.name == "Removed":
            self._waiting.pop(name, None)
        elif not name.startswith(f"{self._name}.") and len(self._waiting) < MAX_WAITING:
            self._waiting[name] = None
            self._look_up_next(zeroconf)

    def _look_up_next(self, zeroconf: Zeroconf) -> None:
        while self._waiting and len(self._lookups) < MAX_LOOKUPS:
            name = next(iter(self._waiting))
            del self._waiting[name]
            lookup = asyncio.get_running_loop().create_task(self._look_up(zeroconf, SERVICE, name))
            self._lookups.add(lookup)
            lookup.add_done_callback(functools.partial(self._end_lookup, zeroconf))

    def _end_lookup(self, zeroconf: Zeroconf, lookup: asyncio.Task[None]) -> None:
        self._lookups.discard(lookup)
        self._look_up_next(zeroconf)

    async def _look_up(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        from zeroconf import BadTypeInNameException, IPVersion
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            info = AsyncServiceInfo(service_type, name)
            is_found = await info.async_request(zeroconf, LOOKUP_MS)
        except (BadTypeInNameException, OSError):
            return  # somebody's nonsense, or an interface that is going
        beacon = info.properties.get(TEXT_KEY) if is_found else None
        if beacon is not None:
            hosts = info.parsed_scoped_addresses(IPVersion.All)[:MAX_ADDRESSES]
            self._on_record(beacon, tuple(host for host in hosts if _is_address(host)))

    async def close(self) -> None:
        """Take the record back, and stop. Harmless when closed."""
        browser, zeroconf, self._browser, self._zeroconf = self._browser, self._zeroconf, None, None
        self._used = ()
        self._waiting.clear()
        for lookup in list(self._lookups):
            lookup.cancel()
        try:
            if self._lookups:
                await asyncio.gather(*self._lookups, return_exceptions=True)
            if browser is not None:
                await browser.async_cancel()
            if zeroconf is not None:
                with contextlib.suppress(OSError, TimeoutError):
                    await zeroconf.async_unregister_all_services()
        finally:  # whoever waits for it may be cancelled
            if zeroconf is not None:
                await zeroconf.async_close()


def _wanted(interfaces: tuple[Interface, ...]) -> tuple[str | int, ...]:
    """Return the interfaces as zeroconf takes them: by address for IPv4, by index for IPv6."""
    ipv4 = [str(a.ip) for i in interfaces for a in i.addresses if i.is_multicast and a.ip.version == 4 and a.is_usable]
    ipv6 = [i.index for i in interfaces if i.is_multicast and any(a.ip.version == 6 and a.is_usable for a in i.addresses)]
    return (*ipv4, *ipv6)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
