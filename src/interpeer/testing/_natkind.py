"""The named kinds of NAT, and what each of them does: the one table that the simulator and the laboratory both read.

The words are those of RFC 4787 (mapping, filtering, port assignment, hairpinning) and RFC 5780 (how to measure them)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any, Final, final

FIRST_PORT: Final = 1024  # ports below are for servers: a NAT that gives them out breaks rlogin and NFS (RFC 4787, REQ-3)
LAST_PORT: Final = 65535


@final
@unique
class NatKind(StrEnum):
    """Name what stands between a host and the public network.

    >>> NatKind("port-random").behaviour.preserves_port
    False
    """

    PUBLIC = "public"
    """Nothing: the host has a public address, and takes whatever comes."""
    FIREWALL = "firewall"
    """A public address behind a filter that remembers whom the host has sent to."""
    FULLCONE = "fullcone"
    """One outside port for each socket, open to everybody ("full cone" in RFC 3489)."""
    ADDR = "addr"
    """One outside port for each socket, open to the addresses it has sent to ("restricted cone")."""
    PORT = "port"
    """One outside port for each socket, open to the endpoints it has sent to ("port-restricted cone"): the usual home router."""
    PORT_RANDOM = "port-random"
    """As PORT, but the outside port is drawn by chance and then kept."""
    SYMMETRIC = "symmetric"
    """Another outside port, drawn by chance, for each endpoint that a socket sends to."""
    SYMMETRIC_BLOCK = "symmetric-block"
    """As SYMMETRIC, drawn from a block of 512 ports: one subscriber's share of a carrier's address."""
    SYMMETRIC_SEQ = "symmetric-seq"
    """As SYMMETRIC, but each port is the one given out before plus a step."""
    SYMMETRIC_AD = "symmetric-ad"
    """Another outside port for each address that a socket sends to; the filter asks for the address as well."""
    SYMMETRIC_EI = "symmetric-ei"
    """As SYMMETRIC, but an open port is open to everybody; answers to whom that lets in leave by the port they came to."""
    LINUX = "linux"
    """Plain masquerade without a firewall: a stranger's packet takes the port it came to, so that the own one moves away."""
    DOUBLE = "double"
    """PORT behind PORT: a router behind another router."""
    CGN = "cgn"
    """PORT behind a carrier's PORT, which several homes share; it turns nothing back that one home sends to another's outside."""
    CGN_HAIRPIN = "cgn-hairpin"
    """As CGN, but the carrier's NAT turns such packets back (hairpinning)."""
    UDPBLOCK = "udpblock"
    """No UDP at all; TCP as behind PORT."""
    TCP443 = "tcp443"
    """Nothing but TCP to port 443."""

    @property
    def behaviour(self) -> NatBehaviour:
        """Return what this kind does, as a host behind it sees it."""
        return _BEHAVIOURS[self]


@final
@unique
class Dependence(StrEnum):
    """Name what of the remote endpoint a mapping or a filter depends on."""

    NONE = "none"
    """There is no translation, or no filter."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


@final
@unique
class Allocation(StrEnum):
    """Name how the outside port of a new mapping is chosen."""

    PRESERVED = "preserved"
    """The inside port, or by chance if another mapping has that."""
    RANDOM = "random"
    """By chance, out of all or out of a block."""
    SEQUENTIAL = "sequential"
    """The one given out before plus a step."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NatBehaviour:
    """What a NAT does. The defaults are those of the usual home router.

    >>> NatKind.SYMMETRIC_SEQ.behaviour.replace(step=2, lifetime_s=20).allocation
    <Allocation.SEQUENTIAL: 'sequential'>
    """

    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    """What makes a socket get another outside port; NONE: addresses are not translated."""
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT
    """Whose packets come in: those of anybody, or of addresses or endpoints the socket has sent to; NONE: no filter."""
    allocation: Allocation = Allocation.PRESERVED
    """How the outside port is chosen."""
    step: int = 1
    """What SEQUENTIAL adds each time."""
    block_ports: int | None = None
    """How many ports in a row RANDOM draws from; None: all from 1024 on. Where the block begins is each NAT's own choice."""
    hairpin: bool = False
    """Whether a packet from inside to an outside port of the same NAT is turned back. It then comes from the sender's outside
    endpoint and passes the filter as if it had come from there (RFC 4787, REQ-9)."""
    lifetime_s: float = 120.0
    """How long a mapping and what its filter lets in live after the last packet outwards (RFC 4787, REQ-5: 120 at least)."""
    reply_lifetime_s: float | None = None
    """The same once packets have gone both ways; None: no different."""
    tracks_strangers: bool = False
    """Whether a packet that nobody asked for takes the outside port it came to: a host that then sends to that stranger
    from that port gets another one. A packet that died before (low TTL) does no harm, which is the way around it."""
    udp: bool = True
    """Whether UDP passes at all."""
    tcp_ports: tuple[int, ...] | None = None
    """The remote ports to which TCP passes; None: all."""
    carrier: NatKind | None = None
    """The kind of the NAT behind this one, through which packets go as well; what is said above is what both do together."""

    def __post_init__(self) -> None:
        if self.allocation is Allocation.SEQUENTIAL and not 1 <= abs(self.step) <= 1024:
            raise ValueError(f"step is 1 to 1024, forwards or backwards, not {self.step}")
        if self.block_ports is not None and not 1 <= self.block_ports <= LAST_PORT - FIRST_PORT + 1:
            raise ValueError(f"block_ports is 1 to {LAST_PORT - FIRST_PORT + 1}, not {self.block_ports}")
        for name in ("lifetime_s", "reply_lifetime_s"):
            lifetime_s = getattr(self, name)
            if lifetime_s is not None and lifetime_s <= 0:
                raise ValueError(f"{name} is more than 0, not {lifetime_s}")
        if self.mapping is Dependence.NONE and self.hairpin:
            raise ValueError("hairpin is for a NAT: there is nothing to turn back where addresses are not translated")

    def replace(self, **changes: Any) -> NatBehaviour:
        """Return one with some properties changed."""
        return dataclasses.replace(self, **changes)

    @property
    def translates(self) -> bool:
        """Whether addresses are translated."""
        return self.mapping is not Dependence.NONE

    @property
    def preserves_port(self) -> bool:
        """Whether a socket's outside port is its inside port, as long as nobody else has that."""
        return not self.translates or self.allocation is Allocation.PRESERVED

    @property
    def is_predictable(self) -> bool:
        """Whether a socket's outside port towards a peer is the one that everybody else sees."""
        return self.mapping in (Dependence.NONE, Dependence.ENDPOINT_INDEPENDENT)


def can_punch(one: NatBehaviour, other: NatBehaviour) -> bool:
    """Tell whether two hosts behind different NATs reach each other by UDP if both send, from one socket each, to the outside
    endpoint that a third has seen, and answer wherever packets come from. No port is guessed.

    >>> can_punch(NatKind.PORT.behaviour, NatKind.PORT.behaviour), can_punch(NatKind.PORT.behaviour, NatKind.SYMMETRIC.behaviour)
    (True, False)
    """
    if not (one.udp and other.udp):
        return False
    return _hears(one, other) or _hears(other, one)


def _hears(one: NatBehaviour, other: NatBehaviour) -> bool:
    """Tell whether a packet of the other's, from a port that is not known before, gets through to one, at a known port.

    The answer then goes to where the packet came from, and finds the other's NAT open."""
    if other.is_predictable:
        return one.is_predictable or one.filtering is Dependence.ENDPOINT_INDEPENDENT
    if one.is_predictable:
        return one.filtering is not Dependence.ADDRESS_AND_PORT_DEPENDENT
    return one.filtering is Dependence.ENDPOINT_INDEPENDENT


_APDM: Final = Dependence.ADDRESS_AND_PORT_DEPENDENT
_PORT: Final = NatBehaviour()
_SYMMETRIC: Final = NatBehaviour(mapping=_APDM, allocation=Allocation.RANDOM)

_BEHAVIOURS: Final = {
    NatKind.PUBLIC: NatBehaviour(mapping=Dependence.NONE, filtering=Dependence.NONE),
    NatKind.FIREWALL: NatBehaviour(mapping=Dependence.NONE),
    NatKind.FULLCONE: NatBehaviour(filtering=Dependence.ENDPOINT_INDEPENDENT),
    NatKind.ADDR: NatBehaviour(filtering=Dependence.ADDRESS_DEPENDENT),
    NatKind.PORT: _PORT,
    NatKind.PORT_RANDOM: NatBehaviour(allocation=Allocation.RANDOM),
    NatKind.SYMMETRIC: _SYMMETRIC,
    NatKind.SYMMETRIC_BLOCK: _SYMMETRIC.replace(block_ports=512),
    NatKind.SYMMETRIC_SEQ: _SYMMETRIC.replace(allocation=Allocation.SEQUENTIAL),
    NatKind.SYMMETRIC_AD: _SYMMETRIC.replace(mapping=Dependence.ADDRESS_DEPENDENT, filtering=Dependence.ADDRESS_DEPENDENT),
    NatKind.SYMMETRIC_EI: _SYMMETRIC.replace(filtering=Dependence.ENDPOINT_INDEPENDENT),
    NatKind.LINUX: NatBehaviour(tracks_strangers=True, lifetime_s=30.0, reply_lifetime_s=120.0),  # the kernel's defaults
    NatKind.DOUBLE: _PORT.replace(carrier=NatKind.PORT),
    NatKind.CGN: _PORT.replace(carrier=NatKind.PORT),
    NatKind.CGN_HAIRPIN: _PORT.replace(carrier=NatKind.PORT, hairpin=True),
    NatKind.UDPBLOCK: _PORT.replace(udp=False),
    NatKind.TCP443: _PORT.replace(udp=False, tcp_ports=(443,)),
}
