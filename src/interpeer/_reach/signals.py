"""What nodes say to each other about reaching peers: one message a signal, and how each is written (docs/spec, chapter 20).

The first byte is the message's kind. Numbers are big-endian; an address is its family (4 or 6), its bytes and its port; a
blob is its size in one byte and its bytes. What follows the last field is ignored, so that later versions can say more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Self, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint, is_virtual

ID_BYTES = 32
TOKEN_BYTES = 8
KEY_BYTES = 32
MAX_CANDIDATES = 16
"""Addresses of a peer that are looked at: a list of thousands is an attempt to make us send to somebody else."""
MAX_FACTS_BYTES = 64


class MalformedSignalError(ValueError):
    """A signal that cannot be read."""


class _Reader:
    """Read fields one after the other. Every method raises MalformedSignalError where the bytes end too soon."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, n: int) -> bytes:
        taken = self._data[self._at : self._at + n]
        if len(taken) != n:
            raise MalformedSignalError("it ends too soon")
        self._at += n
        return taken

    def number(self, n: int) -> int:
        return int.from_bytes(self.take(n), "big")

    def blob(self, most: int) -> bytes:
        size = self.number(1)
        if size > most:
            raise MalformedSignalError(f"a field of {size} bytes, where {most} are the most")
        return self.take(size)

    def endpoint(self) -> CoreEndpoint | None:
        family = self.number(1)
        if not family:
            return None
        if family not in (4, 6):
            raise MalformedSignalError(f"an address of family {family}")
        packed, port = IPV4_MAPPED + self.take(4) if family == 4 else self.take(16), self.number(2)
        if not port or is_virtual(packed):
            raise MalformedSignalError("an address that nobody can have")
        return packed, port, 0


def _endpoint(endpoint: CoreEndpoint | None) -> bytes:
    if endpoint is None:
        return b"\0"
    packed, port, _ = endpoint
    body = b"\4" + packed[12:] if packed.startswith(IPV4_MAPPED) else b"\6" + packed
    return body + port.to_bytes(2, "big")


def _blob(data: bytes) -> bytes:
    return bytes([len(data)]) + data


@final
@dataclass(frozen=True, slots=True)
class Register:
    """Ask to be told of peers that want to reach us through the receiver, and to be found by it."""

    KIND: ClassVar[int] = 1
    shard: int
    """Leg ids towards the sender have first two bytes whose exclusive or is this (chapter 3)."""
    facts: bytes
    """What is known of the NAT in front of the sender (chapter 24)."""

    def pack(self) -> bytes:
        return struct.pack(">BB", self.KIND, self.shard) + _blob(self.facts)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(1) & 0x7F, r.blob(MAX_FACTS_BYTES))


@final
@dataclass(frozen=True, slots=True)
class Registered:
    """Say what the sender gives to a peer that has registered."""

    KIND: ClassVar[int] = 2
    bytes_per_s: int
    """Relayed for each pair of peers; 0: no legs are opened."""

    def pack(self) -> bytes:
        return struct.pack(">BQ", self.KIND, self.bytes_per_s)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(8))


@final
@dataclass(frozen=True, slots=True)
class Open:
    """Ask for a leg towards a peer; what is sent on it follows at once."""

    KIND: ClassVar[int] = 3
    leg: int
    shard: int
    """As in Register: legs that the receiver opens towards the sender."""
    target: bytes
    facts: bytes

    def pack(self) -> bytes:
        return struct.pack(">BQB", self.KIND, self.leg, self.shard) + self.target + _blob(self.facts)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(8), r.number(1) & 0x7F, r.take(ID_BYTES), r.blob(MAX_FACTS_BYTES))


OPENED, UNKNOWN, REFUSED, FULL = range(4)
"""What became of a leg that was asked for."""


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """Answer an Open: what became of it, and where the target's packets come from, which the sender attests."""

    KIND: ClassVar[int] = 4
    leg: int
    status: int
    """OPENED, or why not."""
    bytes_per_s: int
    attested: CoreEndpoint | None
    facts: bytes

    def pack(self) -> bytes:
        return (
            struct.pack(">BQBQ", self.KIND, self.leg, self.status, self.bytes_per_s)
            + _endpoint(self.attested)
            + _blob(self.facts)
        )

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(8), r.number(1), r.number(8), r.endpoint(), r.blob(MAX_FACTS_BYTES))


@final
@dataclass(frozen=True, slots=True)
class Offer:
    """Tell a registered peer of a leg towards it: who calls, and where that one's packets come from."""

    KIND: ClassVar[int] = 5
    leg: int
    caller: bytes
    attested: CoreEndpoint | None
    facts: bytes

    def pack(self) -> bytes:
        return struct.pack(">BQ", self.KIND, self.leg) + self.caller + _endpoint(self.attested) + _blob(self.facts)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(8), r.take(ID_BYTES), r.endpoint(), r.blob(MAX_FACTS_BYTES))


@final
@dataclass(frozen=True, slots=True)
class Hangup:
    """Say that a leg is not used any more, or was refused."""

    KIND: ClassVar[int] = 6
    leg: int

    def pack(self) -> bytes:
        return struct.pack(">BQ", self.KIND, self.leg)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(8))


HOST, REFLEXIVE, MAPPED = range(3)
"""Where a candidate is from: an interface, what peers see, a port mapping."""


@final
@dataclass(frozen=True, slots=True)
class Candidates:
    """Say where the sender may be reached directly, and begin to punch. Goes end to end, over the connection to be moved."""

    KIND: ClassVar[int] = 7
    attempt: int
    """Its number; an answer has that of the message it answers."""
    is_controlling: bool
    """From who has opened the connection: then it also has the tokens and the keys of the attempt."""
    own_token: bytes
    """On probes to the sender."""
    peer_token: bytes
    """On probes to the receiver."""
    own_key: bytes
    """What probes to the sender are sealed with."""
    peer_key: bytes
    facts: bytes
    endpoints: tuple[tuple[int, CoreEndpoint], ...]
    """Kind and address of each, the best first."""

    def pack(self) -> bytes:
        head = struct.pack(">BIB", self.KIND, self.attempt, self.is_controlling)
        if self.is_controlling:
            head += self.own_token + self.peer_token + self.own_key + self.peer_key
        head += _blob(self.facts) + bytes([len(self.endpoints)])
        return head + b"".join(bytes([kind]) + _endpoint(endpoint) for kind, endpoint in self.endpoints)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        attempt, is_controlling = r.number(4), r.number(1) == 1
        own_token = peer_token = own_key = peer_key = b""
        if is_controlling:
            own_token, peer_token = r.take(TOKEN_BYTES), r.take(TOKEN_BYTES)
            own_key, peer_key = r.take(KEY_BYTES), r.take(KEY_BYTES)
        facts = r.blob(MAX_FACTS_BYTES)
        endpoints: list[tuple[int, CoreEndpoint]] = []
        for _ in range(min(r.number(1), MAX_CANDIDATES)):
            kind, endpoint = r.number(1), r.endpoint()
            if endpoint is not None:
                endpoints.append((kind, endpoint))
        return cls(attempt, is_controlling, own_token, peer_token, own_key, peer_key, facts, tuple(endpoints))


SAME_PORT, OTHER_PORT, OTHER_PEER, SHOWN = range(4)
"""Where a probe is to come from; SHOWN: from us, and shows another address of ours."""

NO_COOKIE = bytes(TOKEN_BYTES)


@final
@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Ask for a probe to where the receiver sees the sender, after a while, from somewhere (RFC 5780, 7: CHANGE-REQUEST)."""

    KIND: ClassVar[int] = 8
    token: bytes
    origin: int
    """SAME_PORT, OTHER_PORT, OTHER_PEER or SHOWN."""
    delay_ms: int
    port: int
    """To this port of the address that is seen (RFC 5780, 7.5: RESPONSE-PORT); 0: the one that is seen."""
    cookie: bytes = NO_COOKIE
    """To the address that was shown, and that has received this there, instead of the one of the connection."""

    def pack(self) -> bytes:
        return struct.pack(">B8sBIH8s", self.KIND, self.token, self.origin, self.delay_ms, self.port, self.cookie)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.take(TOKEN_BYTES), r.number(1), r.number(4), r.number(2), r.take(TOKEN_BYTES))


@final
@dataclass(frozen=True, slots=True)
class ProbeOrder:
    """Pass a ProbeRequest on to another peer, with the address at which the one who passes it on sees who asks."""

    KIND: ClassVar[int] = 9
    token: bytes
    target: CoreEndpoint

    def pack(self) -> bytes:
        return struct.pack(">B8s", self.KIND, self.token) + _endpoint(self.target)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        token, target = r.take(TOKEN_BYTES), r.endpoint()
        if target is None:
            raise MalformedSignalError("an order without an address")
        return cls(token, target)


@final
@dataclass(frozen=True, slots=True)
class Attested:
    """Say that the peer behind a leg has been seen at another address, which it has shown since the leg was opened."""

    KIND: ClassVar[int] = 10
    leg: int
    attested: CoreEndpoint | None

    def pack(self) -> bytes:
        return struct.pack(">BQ", self.KIND, self.leg) + _endpoint(self.attested)

    @classmethod
    def _read(cls, r: _Reader) -> Self:
        return cls(r.number(8), r.endpoint())


Signal = Register | Registered | Open | Opened | Offer | Hangup | Candidates | ProbeRequest | ProbeOrder | Attested
_KINDS: dict[int, type[Signal]] = {
    kind.KIND: kind
    for kind in (Register, Registered, Open, Opened, Offer, Hangup, Candidates, ProbeRequest, ProbeOrder, Attested)
}


def parse(data: bytes) -> Signal | None:
    """Read a signal; None for one of a kind that this version does not know. Raises MalformedSignalError."""
    r = _Reader(data)
    kind = _KINDS.get(r.number(1))
    return None if kind is None else kind._read(r)
