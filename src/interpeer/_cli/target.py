"""Whom to reach: a ticket, an address with an id, or a bare id, as typed.

An address may name hosts: `ID@host.example:4433`; they are looked up when they are needed.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import final

from interpeer._address import MAX_ENDPOINTS, Address, Endpoint, split_host_port
from interpeer._cli.errors import Misuse
from interpeer._identity import PeerId
from interpeer.errors import Unreachable

_ID_CHARACTERS = 52


@final
@dataclass(frozen=True, slots=True)
class Target:
    """Hold a peer to reach, and the places at which to look for it."""

    peer_id: PeerId
    places: tuple[Endpoint | tuple[str, int], ...]
    """Addresses, and hosts whose address must be looked up."""
    secret: bytes | None
    via: tuple[Address, ...] = ()
    """Peers through which it can be reached."""

    @property
    def has_udp(self) -> bool:
        """Whether there is an address that is called by UDP, and not in a tunnel alone."""
        return any(not isinstance(place, Endpoint) or place.transport == "udp" for place in self.places)

    async def resolve(self) -> Address:
        """Return the address to call. Raises Unreachable, with a reason each, when no host's address can be found."""
        endpoints: list[Endpoint] = []
        reasons: list[str] = []
        for place in self.places:
            if isinstance(place, Endpoint):
                endpoints.append(place)
                continue
            try:
                endpoints += await _look_up(*place)
            except OSError as error:
                reasons.append(f"{place[0]}: {error.strerror or error}")
            except UnicodeError:
                reasons.append(f"{place[0]}: is no name of a host")
        if reasons and not endpoints and not self.via:
            raise Unreachable(f"cannot reach {self.peer_id}: {'; '.join(reasons)}", tuple(reasons))
        return Address.of(self.peer_id, list(dict.fromkeys(endpoints))[:MAX_ENDPOINTS], self.secret, self.via)


def parse_target(text: str) -> Target:
    """Parse what was typed. Raises Misuse, which says what was expected."""
    text = text.strip()
    try:
        if "@" in text:
            name, _, places = text.partition("@")
            return Target(PeerId(name), tuple(_place(place) for place in places.split(",")), None)
        if len(text) == _ID_CHARACTERS:
            return Target(PeerId(text), (), None)
        address = Address(text)
    except ValueError as error:
        raise Misuse(f"{_shorten(text)!r} is no ticket, address or id: {error}") from None
    return Target(address.peer_id, address.endpoints, address.secret, address.via)


def parse_id(text: str) -> PeerId:
    """Parse a peer's id. Raises Misuse."""
    try:
        return PeerId(text)
    except ValueError as error:
        raise Misuse(f"{_shorten(text)!r} is no peer id: {error}") from None


def _place(text: str) -> Endpoint | tuple[str, int]:
    if "://" in text:
        return Endpoint.parse(text)
    host, port = split_host_port(text)
    if not 0 < port < 65536:
        raise ValueError(f"a port is a number from 1 to 65535, not {port}")
    try:
        return Endpoint(host, port)
    except ValueError:
        if ":" in host or host.replace(".", "").isdigit():
            raise
    return host, port


async def _look_up(host: str, port: int) -> list[Endpoint]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return [Endpoint(str(address[0]), port) for *_, address in found]


def _shorten(text: str) -> str:
    """Return the beginning of what was typed: it may be long, and may hold a secret."""
    return text if len(text) <= 12 else text[:9] + "..."
