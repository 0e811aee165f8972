"""What a gateway is asked for, and what comes back, whichever protocol carries it."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import final

CGNAT = ipaddress.ip_network("100.64.0.0/10")
"""Shared address space (RFC 6598): what a carrier gives to customers behind a NAT of its own."""


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """A mapping as it is asked for. A `lifetime_s` of 0 ends it."""

    internal_port: int
    external_port: int
    """What is suggested; the gateway may give another."""
    external_host: str | None
    """What is suggested; None: any."""
    lifetime_s: int
    nonce: bytes
    """12 bytes that tell this mapping from an earlier one; only PCP sends them."""


class Kind(enum.Enum):
    """What an answer means for a mapping."""

    GRANTED = enum.auto()
    REFUSED = enum.auto()
    GONE = enum.auto()
    """There is no mapping any more."""
    HEARD = enum.auto()
    """The gateway is there: the answer to a probe, or an announcement."""


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway says, checked by its protocol."""

    kind: Kind
    epoch_s: int | None = None
    """Seconds since the gateway has lost its mappings; None: it does not say."""
    lifetime_s: int = 0
    """Of the mapping, as granted; of an error: how long it will not be otherwise."""
    host: str | None = None
    """The external address."""
    port: int = 0
    """The external port."""
    reason: str = ""
    """Why it is refused, or what is odd with what is granted."""


def refused(reason: str, *, epoch_s: int | None = None, lifetime_s: int = 0) -> Answer:
    return Answer(Kind.REFUSED, epoch_s=epoch_s, lifetime_s=lifetime_s, reason=reason)


def is_usable(host: str) -> bool:
    """Tell whether an address can be a host's at all: gateways without an uplink answer 0.0.0.0."""
    address = ipaddress.ip_address(host)
    return not (address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local)


def is_public(host: str) -> bool:
    """Tell whether an address means the same host everywhere: neither private (RFC 1918, ULA) nor a carrier's (RFC 6598)."""
    address = ipaddress.ip_address(host)
    return is_usable(host) and not address.is_private and address not in CGNAT
