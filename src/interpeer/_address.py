"""Where a peer is: its id with the socket addresses that may lead to it, as one word that can be pasted."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import string
from dataclasses import dataclass, field
from typing import Self, final

from interpeer._identity import PeerId, from_base32, to_base32

MAX_ENDPOINTS = 16
SECRET_BYTES = 16
MAX_SCOPE_BYTES = 255
_VERSION = 1
MAX_VIA = 4
_VIA = 9  # the id of a peer through which this one can be reached; the endpoints that follow are that one's
_OVER = 10  # the transport of the endpoint that follows, if it is not UDP: its number, and a path with its length in front
_SCOPED = 7  # in place of 6: an IPv6 address whose scope follows the port, as one byte of length and UTF-8
_CHECK_BYTES = 4
_UNREADABLE = "this is not an address: an endpoint in it cannot be read"
IPV4_MAPPED = b"\0" * 10 + b"\xff\xff"
"""With what the core's addresses of 16 bytes begin that are IPv4 (RFC 4291, section 2.5.5.2)."""

CoreEndpoint = tuple[bytes, int, int]
"""What the core takes: 16 bytes (IPv4 mapped), port, scope."""


TRANSPORTS = ("udp", "tcp", "tls", "ws", "wss")
"""In the order of their numbers in words."""
MAX_PATH_BYTES = 255
_PATH_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~/")


@final
@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Name a port of a host by number: `host` is an IPv4 or IPv6 address, `port` from 1 to 65535.

    `transport` is "udp", or for a tunnel "tcp", "tls", "ws" or "wss" (WebSocket, the latter over TLS), whose text begins with
    it; a WebSocket has a `path` as well ("" is "/").

    >>> str(Endpoint.parse("[::1]:4000"))
    '[::1]:4000'
    >>> Endpoint.parse("tls://192.0.2.1:443").transport
    'tls'
    """

    host: str
    port: int
    transport: str = "udp"
    path: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.host, str):  # ipaddress takes numbers and bytes, too
            raise TypeError(f"a host is a str, not {type(self.host).__name__}")
        if not isinstance(self.port, int) or isinstance(self.port, bool):
            raise TypeError(f"a port is a number, not {type(self.port).__name__}")
        address = ipaddress.ip_address(self.host)  # raises ValueError
        if len((getattr(address, "scope_id", None) or "").encode()) > MAX_SCOPE_BYTES:
            raise ValueError(f"a scope has at most {MAX_SCOPE_BYTES} bytes")
        object.__setattr__(self, "host", str(address))
        if not 0 < self.port < 65536:
            raise ValueError(f"a port is a number from 1 to 65535, not {self.port}")
        if self.transport not in TRANSPORTS:
            raise ValueError(f"a transport is one of {', '.join(TRANSPORTS)}, not {self.transport!r}")
        check_path(self.transport, self.path)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `1.2.3.4:5`, `[::1]:5`, or with a transport `wss://1.2.3.4:5/path`. Raises ValueError with what was expected."""
        transport, place, path = split_transport(text)
        host, port = split_host_port(place)
        try:
            return cls(host, port, transport, path)
        except ValueError as error:
            raise ValueError(f"{text!r} is not an address like 192.0.2.1:4433 or [2001:db8::1]:4433: {error}") from None

    @classmethod
    def from_core(cls, endpoint: CoreEndpoint) -> Self:
        """Make one of what the core gives."""
        packed, port, scope = endpoint
        return cls(host_from_core(packed, scope), port)

    def to_core(self) -> CoreEndpoint:
        """Return what the core takes. Raises ValueError for a scope that names no interface here."""
        address = ipaddress.ip_address(self.host)
        if isinstance(address, ipaddress.IPv4Address):
            return IPV4_MAPPED + address.packed, self.port, 0
        return address.packed, self.port, _scope_number(address.scope_id) if address.scope_id else 0

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine's own."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def is_private(self) -> bool:
        """Whether it has a meaning only in the local network."""
        address = ipaddress.ip_address(self.host)
        return address.is_private or address.is_link_local

    @property
    def is_global(self) -> bool:
        """Whether all hosts of the Internet could send there: it is not private, nor shared by a carrier (RFC 6598)."""
        return ipaddress.ip_address(self.host).is_global

    @property
    def is_unicast(self) -> bool:
        """Whether it can be one machine's: not a group's, unspecified, reserved, or one that stands for something else."""
        address = ipaddress.ip_address(self.host)
        return not (address.is_multicast or address.is_unspecified or address.is_reserved or is_virtual(self.to_core()[0]))

    def __str__(self) -> str:
        place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return place if self.transport == "udp" else f"{self.transport}://{place}{self.path}"


_VIRTUAL = b"\1" + bytes(6)


def is_virtual(packed: bytes) -> bool:
    """Tell whether 16 bytes stand for a relay's leg, a tunnel or an extra socket instead of an address: 0100::/56 (RFC 6666)."""
    return packed.startswith(_VIRTUAL)


def virtual_address(kind: int, number: int) -> bytes:
    """Return the 16 bytes that stand for something of a kind (the core's ENDPOINT_*)."""
    return _VIRTUAL + bytes([kind]) + number.to_bytes(8, "big")


def host_from_core(packed: bytes, scope: int = 0) -> str:
    """Write an address of 16 bytes (IPv4 mapped) as an endpoint's host."""
    address = ipaddress.IPv6Address(packed)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{address}%{scope}" if scope else str(address)


def _scope_number(scope: str) -> int:
    if scope.isdigit():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        raise ValueError(f"there is no network interface {scope!r}") from None


def split_transport(text: str) -> tuple[str, str, str]:
    """Split `ws://host:port/path` into transport, `host:port` and path; without a transport it is UDP. Raises ValueError."""
    transport, separator, rest = text.partition("://")
    if not separator:
        return "udp", text, ""
    if transport not in TRANSPORTS:
        raise ValueError(f"{text!r}: a transport is one of {', '.join(TRANSPORTS)}, not {transport!r}")
    place, slash, path = rest.partition("/")
    return transport, place, slash + path


def check_path(transport: str, path: str) -> None:
    """Raise ValueError for a path that an endpoint with this transport cannot have."""
    if path and transport not in ("ws", "wss"):
        raise ValueError(f"only a WebSocket has a path; {transport} has none, not {path!r}")
    if path and not (path[0] == "/" and len(path) <= MAX_PATH_BYTES and set(path) <= _PATH_CHARACTERS):
        raise ValueError(f"a path begins with / and has at most {MAX_PATH_BYTES} letters, digits and -._~/; not {path!r}")


def split_host_port(text: str) -> tuple[str, int]:
    """Split `host:port` or `[host]:port`; the port may be 0. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, like [::1]:4433")
    if not separator or not port.isascii() or not port.isdigit() or not host:
        raise ValueError(f"{text!r} is not an address and a port, like 192.0.2.1:4433 or [2001:db8::1]:4433")
    return host, int(port)


@final
@dataclass(frozen=True, slots=True)
class Address:
    """Name a peer and where it may be found. `str()` gives one word that can be pasted; `Address(word)` parses it.

    `Address` also parses the readable form `id@1.2.3.4:5,[::1]:5`. A ticket is an address with a `secret` of 16 bytes that
    opens a service of that peer (`interpeer send`); the secret does not show in `repr()`.

    >>> from interpeer import Identity
    >>> a = Address.of(Identity.from_seed(bytes(32)).id, [Endpoint("192.0.2.1", 4433)])
    >>> Address(str(a)) == a
    True
    """

    peer_id: PeerId
    endpoints: tuple[Endpoint, ...]
    secret: bytes | None = field(default=None, repr=False)
    via: tuple[Address, ...] = ()
    """Peers that know it and can be asked for a way to it, at most 4."""

    def __init__(self, text: str | Address) -> None:
        parsed = text if isinstance(text, Address) else _parse(text)
        self._set(parsed.peer_id, parsed.endpoints, parsed.secret, parsed.via)

    @classmethod
    def of(
        cls,
        peer_id: PeerId,
        endpoints: list[Endpoint] | tuple[Endpoint, ...],
        secret: bytes | None = None,
        via: list[Address] | tuple[Address, ...] = (),
    ) -> Address:
        """Make an address from its parts: at most 16 endpoints, and 4 peers through which it can be reached, with at most 16
        of their own. Raises TypeError or ValueError."""
        if not isinstance(peer_id, PeerId) or not all(isinstance(endpoint, Endpoint) for endpoint in endpoints):
            raise TypeError("an address is made of a PeerId and Endpoints")
        if secret is not None and not isinstance(secret, bytes):
            raise TypeError(f"a secret is bytes, not {type(secret).__name__}")
        if len(endpoints) > MAX_ENDPOINTS:
            raise ValueError(f"an address has at most {MAX_ENDPOINTS} endpoints, not {len(endpoints)}")
        if secret is not None and len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
        if len(via) > MAX_VIA or any(one.via or one.secret or not one.endpoints for one in via):
            raise ValueError(f"an address names at most {MAX_VIA} peers to ask, each by its own endpoints alone")
        address = object.__new__(cls)
        address._set(peer_id, tuple(endpoints), secret, tuple(via))
        return address

    def _set(self, peer_id: PeerId, endpoints: tuple[Endpoint, ...], secret: bytes | None, via: tuple[Address, ...]) -> None:
        object.__setattr__(self, "peer_id", peer_id)
        object.__setattr__(self, "endpoints", endpoints)
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "via", via)

    def with_secret(self, secret: bytes) -> Address:
        """Return the ticket that this address and a secret make."""
        return Address.of(self.peer_id, self.endpoints, secret, self.via)

    def __str__(self) -> str:
        body = bytes([_VERSION]) + bytes(self.peer_id)
        body += bytes([SECRET_BYTES]) + self.secret if self.secret is not None else b"\0"
        body += _pack(self.endpoints)
        for one in self.via:
            body += bytes([_VIA]) + bytes(one.peer_id) + _pack(one.endpoints)
        return to_base32(body + _check(body))


def _pack(endpoints: tuple[Endpoint, ...]) -> bytes:
    body = b""
    for endpoint in endpoints:
        address = ipaddress.ip_address(endpoint.host)
        scope = (address.scope_id or "").encode() if isinstance(address, ipaddress.IPv6Address) else b""
        kind = _SCOPED if scope else address.version
        if endpoint.transport != "udp":
            body += bytes([_OVER, TRANSPORTS.index(endpoint.transport), len(endpoint.path)]) + endpoint.path.encode()
        body += bytes([kind]) + address.packed + endpoint.port.to_bytes(2, "big")
        body += bytes([len(scope)]) + scope if scope else b""
    return body


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"interpeer addr").digest()


def _parse(text: str) -> Address:
    if not isinstance(text, str):
        raise TypeError(f"an address is parsed from str, not {type(text).__name__}")
    if "@" in text:
        name, _, places = text.partition("@")
        return Address.of(PeerId(name), [Endpoint.parse(place) for place in places.split(",")])
    try:
        data = from_base32(text)
    except ValueError:
        raise ValueError("this is not an address: it has other characters than a-z and 2-7, or was cut") from None
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(data) < 1 + 32 + 1 + _CHECK_BYTES or _check(body) != check:
        raise ValueError("this is not an address: it was cut, or a character is wrong")
    if body[0] != _VERSION:
        raise ValueError(f"this address is of version {body[0]}; this library reads version {_VERSION}")
    return _parse_body(body)


def _parse_body(body: bytes) -> Address:
    """Parse what has the right checksum; it may still be nonsense that somebody made on purpose."""
    peer_id = PeerId(body[1:33])
    secret_bytes, at = body[33], 34
    if secret_bytes not in (0, SECRET_BYTES):
        raise ValueError("this is not an address: its secret has the wrong size")
    secret = body[at : at + secret_bytes] if secret_bytes else None
    at += secret_bytes
    endpoints: list[Endpoint] = []
    groups = [(peer_id, endpoints)]
    while at < len(body):
        if body[at] == _VIA:
            endpoints = []
            groups.append((PeerId(body[at + 1 : at + 33]), endpoints))
            at += 33
            continue
        transport, path, at = _parse_over(body, at)
        if at >= len(body):
            raise ValueError(_UNREADABLE)
        kind, size = body[at], {4: 4, 6: 16, _SCOPED: 16}.get(body[at], 0)
        end = at + 3 + size
        if not size or end + (kind == _SCOPED) > len(body):
            raise ValueError(_UNREADABLE)
        host = str(ipaddress.ip_address(body[at + 1 : at + 1 + size]))
        port = int.from_bytes(body[at + 1 + size : end], "big")
        if kind == _SCOPED:
            scope = body[end + 1 : end + 1 + body[end]]
            if not scope or len(scope) < body[end]:
                raise ValueError(_UNREADABLE)
            host += f"%{scope.decode()}"  # raises ValueError
            end += 1 + len(scope)
        endpoints.append(Endpoint(host, port, transport, path))
        at = end
    return Address.of(peer_id, groups[0][1], secret, [Address.of(*group) for group in groups[1:]])


def _parse_over(body: bytes, at: int) -> tuple[str, str, int]:
    """Read which transport the endpoint that stands at `at` has; return that, its path, and where the endpoint begins."""
    if body[at] != _OVER:
        return "udp", "", at
    if len(body) < at + 3 or not 0 < body[at + 1] < len(TRANSPORTS):
        raise ValueError(_UNREADABLE)
    end = at + 3 + body[at + 2]
    return TRANSPORTS[body[at + 1]], body[at + 3 : end].decode(), end
