"""What a simulated transport gives for `get_extra_info("socket")`: a socket's options and names, and nothing to read or write.

The module socket is here for the numbers of the options."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final, final

from interpeer._address import IPV4_MAPPED

AF_INET: Final = socket.AF_INET
AF_INET6: Final = socket.AF_INET6
_TTL: Final = {(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
_LOOP: Final = {(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP), (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP)}
_JOIN: Final = {(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP), (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP)}
_LEAVE: Final = {(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP), (socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP)}
_SENDS_FROM: Final = (socket.IPPROTO_IP, socket.IP_MULTICAST_IF)


@final
class SocketOptions:
    """Hold options. Those that matter here are times to live, SO_BROADCAST, and what concerns multicast."""

    def __init__(self, *, is_ipv4: bool, is_stream: bool, name: Callable[[], tuple[str, int]]) -> None:
        self.family = AF_INET if is_ipv4 else AF_INET6
        self.type = socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM
        self._name = name
        self._options: dict[tuple[int, int], int | bytes] = {}
        self.groups: set[bytes] = set()
        """The multicast groups, of 16 bytes, that it has joined."""

    def getsockname(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return the address and the port that it is bound to."""
        host, port = self._name()
        return (host, port, 0, 0) if self.family is AF_INET6 else (host, port)

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option, or join or leave a multicast group. Raises OSError."""
        if (level, option) in _JOIN | _LEAVE:
            if not isinstance(value, bytes) or len(value) < 8:
                raise OSError(22, "a group and an interface are wanted")
            group = IPV4_MAPPED + value[:4] if level == socket.IPPROTO_IP else value[:16]
            (self.groups.add if (level, option) in _JOIN else self.groups.discard)(group)
        else:
            self._options[level, option] = value

    def getsockopt(self, level: int, option: int, buffer_bytes: int = 0) -> int | bytes:
        """Return an option as it was set, or 0."""
        return self._options.get((level, option), 0)

    @property
    def ttl(self) -> int:
        """The time to live of its datagrams to one host; 0: the system's."""
        return self._number(_TTL, 0)

    @property
    def is_looped_back(self) -> bool:
        """Whether its own host hears what it sends to a group."""
        return bool(self._number(_LOOP, 1))

    def allow_broadcast(self) -> None:
        """Set SO_BROADCAST."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

    @property
    def may_broadcast(self) -> bool:
        """Whether SO_BROADCAST is set."""
        return bool(self._options.get((socket.SOL_SOCKET, socket.SO_BROADCAST), 0))

    @property
    def sends_from(self) -> bytes | None:
        """The address, of 16 bytes, of the interface by which multicast leaves (IP_MULTICAST_IF); None: the first."""
        value = self._options.get(_SENDS_FROM)
        if not isinstance(value, bytes) or len(value) < 4:
            return None
        address = value[4:8] if len(value) >= 8 else value[:4]
        return None if address == bytes(4) else IPV4_MAPPED + address

    def _number(self, names: set[tuple[int, int]], default: int) -> int:
        for name in names:
            value = self._options.get(name)
            if value is not None:
                return value if isinstance(value, int) else struct.unpack("=i", value.ljust(4, b"\0")[:4])[0]
        return default
