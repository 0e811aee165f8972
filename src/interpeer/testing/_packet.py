"""A datagram on its way through a simulated network, and what became of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self, final

from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint

if TYPE_CHECKING:
    from interpeer.testing._machine import Host
    from interpeer.testing._realm import Node as NetNode
    from interpeer.testing._realm import Realm

DEFAULT_TTL = 64
IPV4_OVERHEAD_BYTES = 28
IPV6_OVERHEAD_BYTES = 48
_ECT_1, _ECT_0, _CE = 1, 2, 3
_PROBE = 0x45
_MESSAGES = {0x41: "init", 0x42: "response", 0x43: "cookie", 0x44: "versions", _PROBE: "probe", 0x46: "probe"}
_STUN_COOKIE = b"\x21\x12\xa4\x42"


def is_loopback(address: bytes) -> bool:
    return address == b"\0" * 15 + b"\1" or (address.startswith(IPV4_MAPPED) and address[12] == 127)


def is_multicast(address: bytes) -> bool:
    return address[0] == 0xFF or (address.startswith(IPV4_MAPPED) and address[12] & 0xF0 == 0xE0)


def is_ipv4(endpoint: CoreEndpoint) -> bool:
    return endpoint[0].startswith(IPV4_MAPPED)


@lru_cache(maxsize=65_536)
def to_endpoint(core: CoreEndpoint) -> Endpoint:
    return Endpoint.from_core(core)


@final
@dataclass(slots=True)
class Packet:
    """Hold one UDP datagram, or a segment of TCP.

    An interceptor may look at it, copy it with changes, and put others in its place."""

    data: bytes
    """The UDP payload; of a segment also its TCP header."""
    core_source: CoreEndpoint
    core_target: CoreEndpoint
    ecn: int = 0
    """The ECN field: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE."""
    delay_s: float = 0.0
    """How long it is kept back before it goes on its way."""
    sent_ns: int = 0
    origin: tuple[bytes, CoreEndpoint] | None = None
    """What a node has sent, and from where, if a node has."""
    sender: Host | None = None
    """The host whose links carry it; None: it is put on its target's doorstep."""
    notes: str = ""
    ttl: int = DEFAULT_TTL
    """How many routers let it pass: every NAT is one, and between two sites of the public network there is one more."""
    is_tcp: bool = False
    is_to_group: bool = False
    """Whether it goes to all on the sender's switch, or to those who have joined a group there."""
    is_looped_back: bool = True
    """Whether the sender hears itself, then."""
    realm: Realm | None = None
    """The network that it crosses now; its addresses mean something there only."""
    carrier: NetNode | None = None
    """Who has put it there: its sender, or a router."""

    @classmethod
    def of(cls, data: bytes, source: Endpoint, target: Endpoint, *, ecn: int = 0) -> Self:
        """Make a packet that no node has sent, for `SimNet.inject`."""
        return cls(data, source.to_core(), target.to_core(), ecn)

    @property
    def source(self) -> Endpoint:
        """Where it says that it comes from."""
        return to_endpoint(self.core_source)

    @property
    def target(self) -> Endpoint:
        """Where it goes to."""
        return to_endpoint(self.core_target)

    @property
    def kind(self) -> str:
        """What it is: "init", "response", "cookie", "versions", "data" for what is under a connection's keys,
        "probe" of a hole punch, "stun", "tcp", or "other"."""
        if self.is_tcp:
            return "tcp"
        first = self.data[0] if self.data else 0
        if first < 4 and self.data[4:8] == _STUN_COOKIE:
            return "stun"
        return "data" if first & 0x80 else _MESSAGES.get(first, "other")

    @property
    def is_request(self) -> bool:
        """Whether it is a STUN request (RFC 8489, 5: a class of 0) or the probe of a hole punch, not the answer to one."""
        if self.kind == "stun":
            return not (self.data[0] & 1 or self.data[1] & 0x10)
        return self.kind == "probe" and self.data[0] == _PROBE

    @property
    def wire_bytes(self) -> int:
        """Its size with the headers of IP and UDP."""
        return len(self.data) + (IPV4_OVERHEAD_BYTES if is_ipv4(self.core_target) else IPV6_OVERHEAD_BYTES)

    @property
    def is_genuine(self) -> bool:
        """Whether it is what a node has sent, from where that node is."""
        return self.origin is not None and self.data == self.origin[0] and self.core_source == self.origin[1]

    @property
    def is_ecn_capable(self) -> bool:
        """Whether a queue may mark it instead of dropping it."""
        return self.ecn in (_ECT_0, _ECT_1)

    def mark(self) -> None:
        """Mark it as having met congestion."""
        self.ecn = _CE
        self.note("marked")

    def note(self, what: str) -> None:
        """Remember what happened to it on the way, for the trace."""
        self.notes = f"{self.notes}, {what}" if self.notes else what

    def translate(self, *, source: Endpoint | None = None, target: Endpoint | None = None) -> Packet:
        """Rewrite its addresses as a NAT on the way does, and return it: to whoever gets it, it truly comes from there."""
        if target is not None:
            self.core_target = target.to_core()
        if source is not None:
            is_genuine = self.is_genuine
            self.core_source = source.to_core()
            if is_genuine:
                self.origin = (self.data, self.core_source)
        return self

    def copy(
        self,
        *,
        data: bytes | None = None,
        source: Endpoint | None = None,
        target: Endpoint | None = None,
        delay_s: float | None = None,
    ) -> Packet:
        """Return another packet like this one, but for what is given. With another source it is a forgery."""
        return dataclasses.replace(
            self,
            data=self.data if data is None else data,
            core_source=self.core_source if source is None else source.to_core(),
            core_target=self.core_target if target is None else target.to_core(),
            delay_s=self.delay_s if delay_s is None else delay_s,
        )


@final
@dataclass(frozen=True, slots=True)
class Fate:
    """Say what became of a packet, and when.

    `str()` gives a line of the trace: times in seconds since the clock's start, addresses, bytes of UDP payload."""

    time_s: float
    sent_s: float
    source: Endpoint
    target: Endpoint
    payload_bytes: int
    kind: str
    what: str
    """"delivered", or why not: "lost", "queue full", "codel", "policed", "too large", "down", "partitioned", "unplugged",
    "suspended", "interface down", "nobody there", "intercepted", "ttl expired"; at a NAT or firewall "not mapped", "filtered",
    "blocked", "not turned back" for want of hairpinning, "no port left"."""
    notes: str
    """What happened on the way, in order: "corrupted", "duplicate", "late" for reordered, "marked" for ECN."""

    def __str__(self) -> str:
        notes = f" ({self.notes})" if self.notes else ""
        return (
            f"{self.sent_s:.9f} {self.time_s:.9f} {self.source} > {self.target} {self.kind} {self.payload_bytes} "
            f"{self.what}{notes}"
        )
