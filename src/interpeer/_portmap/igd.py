"""UPnP's Internet Gateway Device: found by SSDP, and asked over SOAP by async-upnp-client (the extra interpeer[upnp]).

Only what the gateway itself says counts: a search reply has to come from its address and to name it as the location. What is
fetched and called goes through `requester`, which reaches no other host.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, final
from urllib.parse import urlsplit

from interpeer._portmap.answers import Answer, Kind, Wish, is_usable, refused
from interpeer._portmap.datagrams import Absent
from interpeer._portmap.gateway import Gateway
from interpeer._portmap.machine import LIFETIME_S

if TYPE_CHECKING:
    from async_upnp_client.client import UpnpService

MULTICAST = "239.255.255.250"
SEARCH_RETRIES_S = (0.25, 1.0, 2.0)
"""Between searches, unless one is answered; devices answer within one second (MX)."""
MAX_REPLY_BYTES = 4096
MAX_LOCATIONS = 4
"""Of one gateway: those of its devices."""
CALL_S = 6.0
"""For all that one wish takes."""
MAX_PORTS_TRIED = 4
MAX_REASON_CHARACTERS = 100
_TARGETS = ("InternetGatewayDevice:1", "InternetGatewayDevice:2")
_SERVICES = ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1")
_CONFLICT, _NO_SUCH_ENTRY, _ONLY_PERMANENT, _NOT_AUTHORISED = (718, 729), 714, 725, 606
_Address = tuple[str | Any, int]


@final
class Igd:
    """UPnP at one gateway."""

    name = "upnp"
    epoch = None
    retries_s = (CALL_S + 2.0,)

    def __init__(self, gateway: Gateway, random_bytes: Callable[[int], bytes]) -> None:
        self.on_answer: Callable[[Answer], None] | None = None
        self.ignored = 0
        self._gateway = gateway
        self._random_bytes = random_bytes
        self._search: Search | None = None
        self._service: UpnpService | None = None
        self._requester: Any = None
        self._external_port = 0
        self._asked: Wish | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deletion: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def probe(self) -> None:
        """Find the device, and the service that maps ports. Raises Absent."""
        try:
            library = await asyncio.to_thread(importlib.import_module, "interpeer._portmap.requester")
            factory = await asyncio.to_thread(importlib.import_module, "async_upnp_client.client_factory")
        except ImportError as error:
            raise Absent(f"it needs async-upnp-client: pip install 'interpeer[upnp]' ({error})") from None
        self._requester = library.GatewayRequester(self._gateway.host, self._gateway.own_host)
        self._search = search = Search(self._gateway)
        reasons: list[str] = []
        try:
            async with aclosing(search.locations()) as locations:
                async for location in locations:
                    reason = await self._describe(factory.UpnpFactory, location)
                    if not reason:
                        return
                    reasons.append(f"{location}: {reason}")
        finally:
            self.ignored += search.ignored
            search.close()
        raise Absent("; ".join(reasons) or "no answer")

    async def _describe(self, factory: Any, location: str) -> str:
        """Fetch a description, and take the service from it that maps ports; return why that is not possible."""
        try:
            async with asyncio.timeout(CALL_S):
                device = await factory(self._requester, non_strict=True).async_create_device(location)
        except Exception as error:
            # whatever a library makes of bytes that anybody may have written
            return plain(str(error) or type(error).__name__)
        self._service = _service_of(device)
        return "" if self._service is not None else "it has no service that maps ports"

    def send(self, wish: Wish) -> None:
        """Ask; the answer comes by `on_answer`. A wish that is being asked for is not asked for twice."""
        if self._asked != wish:
            self._asked = wish
            task = asyncio.get_running_loop().create_task(self._ask(wish))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if wish.lifetime_s == 0:
                self._deletion = task

    def handle_announcement(self, data: bytes) -> None:
        """Do nothing: the announcements of the others say nothing of UPnP."""

    def leave(self) -> None:
        """Close, but let a deletion that was asked for come to its end, which CALL_S sets."""
        self.on_answer = None
        for task in self._tasks:
            if task is not self._deletion:
                task.cancel()

    def close(self) -> None:
        self.on_answer = None
        for task in self._tasks:
            task.cancel()
        if self._search is not None:
            self._search.close()

    async def _ask(self, wish: Wish) -> None:
        try:
            async with self._turn, asyncio.timeout(CALL_S):
                if self._service is None:
                    await self.probe()
                self._requester.requests_left = 2 + 2 * MAX_PORTS_TRIED
                answer = await (self._add(wish) if wish.lifetime_s else self._delete(wish))
        except Exception as error:
            # as above; and a device that has restarted may listen elsewhere, so that it is looked for again
            self._service = None
            answer = refused(plain(str(error) or type(error).__name__))
        self._asked = None
        if self.on_answer is not None:
            self.on_answer(answer)

    async def _add(self, wish: Wish) -> Answer:
        said = str((await self._call("GetExternalIPAddress")).get("NewExternalIPAddress"))
        host = _usable_ipv4(said)
        if host is None:
            return refused(f"it has no external address (it says {plain(said)})")
        port, lease_s, odd = self._external_port or wish.external_port, wish.lifetime_s, ""
        for _ in range(MAX_PORTS_TRIED):
            code = await self._add_one(wish.internal_port, port, lease_s)
            if code == _ONLY_PERMANENT and lease_s:
                lease_s, odd = 0, "the gateway keeps mappings for ever: one is left behind if this program is killed"
                code = await self._add_one(wish.internal_port, port, lease_s)
            if code == 0:
                self._external_port = port
                return Answer(Kind.GRANTED, lifetime_s=lease_s or LIFETIME_S, host=host, port=port, reason=odd)
            if code not in _CONFLICT:
                return refused("not authorised" if code == _NOT_AUTHORISED else f"error {code}")
            port = 1024 + int.from_bytes(self._random_bytes(2), "big") % 64512
        return refused(f"{MAX_PORTS_TRIED} ports are taken")

    async def _add_one(self, internal_port: int, external_port: int, lease_s: int) -> int:
        """Return 0, or the error's number."""
        return await self._try(
            "AddPortMapping",
            NewRemoteHost="",
            NewExternalPort=external_port,
            NewProtocol="UDP",
            NewInternalPort=internal_port,
            NewInternalClient=self._gateway.own_host,
            NewEnabled=True,
            NewPortMappingDescription="interpeer",
            NewLeaseDuration=lease_s,
        )

    async def _delete(self, wish: Wish) -> Answer:
        port, self._external_port = self._external_port or wish.external_port, 0
        code = await self._try("DeletePortMapping", NewRemoteHost="", NewExternalPort=port, NewProtocol="UDP")
        return Answer(Kind.GONE) if code in (0, _NO_SUCH_ENTRY) else refused(f"error {code}")

    async def _try(self, action: str, **arguments: Any) -> int:
        from async_upnp_client.exceptions import UpnpActionError

        try:
            await self._call(action, **arguments)
        except UpnpActionError as error:
            return error.error_code or -1
        return 0

    async def _call(self, action: str, **arguments: Any) -> dict[str, Any]:
        assert self._service is not None
        return dict(await self._service.action(action).async_call(**arguments))


def _usable_ipv4(text: str) -> str | None:
    """Return the IPv4 address that a host outside can be called by; None if the text is none."""
    try:
        host = str(ipaddress.IPv4Address(text))
    except ValueError:
        return None
    return host if is_usable(host) else None


def _service_of(device: Any) -> UpnpService | None:
    """Return the service of a device that maps ports: the newest, where there are several."""
    found = {service.service_type: service for service in device.all_services}
    return next((found[name] for kind in _SERVICES if (name := f"urn:schemas-upnp-org:service:{kind}") in found), None)


@final
class Search(asyncio.DatagramProtocol):
    """An SSDP search of the gateway, by multicast and at its own address."""

    def __init__(self, gateway: Gateway) -> None:
        self.ignored = 0
        self._gateway = gateway
        self._transport: asyncio.DatagramTransport | None = None
        self.found: list[str] = []
        self._more = asyncio.Event()

    async def locations(self) -> AsyncGenerator[str]:
        """Yield the locations of the gateway's devices as they answer, until nobody does. Raises Absent."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._gateway.own_host, 0))
        except OSError as error:
            raise Absent(f"no way to the gateway: {error.strerror or error}") from None
        own = socket.inet_aton(self._gateway.own_host)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        taken = 0
        for wait_s in SEARCH_RETRIES_S:
            self._ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._more.wait()
            while taken < len(self.found):  # more may come meanwhile
                yield self.found[taken]
                taken += 1
            self._more.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _ask(self) -> None:
        assert self._transport is not None
        for host in dict.fromkeys((self._gateway.host, MULTICAST)):
            for target in _TARGETS:
                request = (
                    f'M-SEARCH * HTTP/1.1\r\nHOST: {MULTICAST}:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
                    f"ST: urn:schemas-upnp-org:device:{target}\r\n\r\n"
                )
                with suppress(OSError):  # some loops raise what others tell error_received
                    self._transport.sendto(request.encode(), (host, self._gateway.ssdp_port))

    # --- asyncio's callbacks ---

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        location = parse_reply(data) if addr[0] == self._gateway.host else None
        if location is None or not _is_at(location, self._gateway.host):
            self.ignored += 1
        elif location not in self.found and len(self.found) < MAX_LOCATIONS:
            self.found.append(location)
            self._more.set()

    def error_received(self, exc: Exception) -> None:
        """Ignore that nobody listens at the gateway's own address: the multicast may still be answered."""


def parse_reply(data: bytes) -> str | None:
    """Return the location in a reply to a search; None if it is none."""
    if len(data) > MAX_REPLY_BYTES or not data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        return None
    for line in data.split(b"\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"location":
            location = value.strip().decode("ascii", "replace")
            return location if location.isprintable() else None
    return None


def check_url(url: str, host: str) -> None:
    """Raise ValueError unless a URL leads to this host, by its number, over HTTP."""
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme == "http" and parts.hostname == host and parts.port != 0 and parts.username is None
    except ValueError:
        is_fine = False
    if not is_fine:
        raise ValueError(f"it points at {plain(url)}, which is not http://{host}/")


def plain(text: str) -> str:
    """Return what others wrote in a form that can be shown."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= MAX_REASON_CHARACTERS else f"{shown[:MAX_REASON_CHARACTERS]}..."


def _is_at(location: str, host: str) -> bool:
    try:
        check_url(location, host)
    except ValueError:
        return False
    return True
