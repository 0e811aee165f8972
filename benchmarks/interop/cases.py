"""The cases of the QUIC interop runner, with its parameters, for two peers: what each asks of the link and of the peers.

The base link is the runner's: 15 ms one way, 10 Mbit/s, a queue of 25 packets. The caller fetches files, as the runner's client
does. What is about HTTP or about TLS is left out; cookies stand for retry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from interpeer.testing import Link

BASE = Link(delay_s=0.015, rate_bit_per_s=10e6, queue_packets=25)
MB = 1 << 20  # as the runner counts
SMALL_FILE_BYTES = 32
SMALL_FILES = 2000

Facts = dict[str, Any]
Check = Callable[[Facts], str | None]
"""Return what is wrong with the facts of a run, or None."""


@dataclass(frozen=True, slots=True)
class Rebinding:
    """When the caller's NAT forgets."""

    first_s: float
    every_s: float
    address: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One case. Both directions of the link are the same."""

    name: str
    about: str
    files: tuple[int, ...]
    """Bytes of each file that is fetched, all at once over one connection."""
    link: Link = BASE
    calls: int = 1
    """Connections, one after another, each of which fetches the files."""
    calls_at_once: bool = False
    every_s: float | None = None
    steps: tuple[tuple[float, dict[str, Any]], ...] = ()
    """A schedule of the link's settings."""
    rebinding: Rebinding | None = None
    config: dict[str, Any] = field(default_factory=dict)
    check: Check = lambda facts: None
    competitor: bool = False
    """Whether one TCP transfer with CUBIC shares the link, in the same direction."""
    is_ipv6: bool = False
    asks_for_version: bool = False
    """Whether a first message of another version goes first."""
    moves: bool = False
    """Whether the caller takes another address in the middle, and knows it."""
    drops: tuple[int, int] | None = None
    """Which packets of the caller's are lost, the first and the last, by their number from 1."""

    @property
    def bytes(self) -> int:
        return sum(self.files) * self.calls


NOT_YET: dict[str, str] = {}
"""Cases that cannot pass yet, and why; whoever makes them pass strikes them off."""


def equal(name: str, wanted: Any) -> Check:
    return lambda facts: None if facts[name] == wanted else f"{name} is {facts[name]!r}, not {wanted!r}"


def at_least(name: str, least: float) -> Check:
    return lambda facts: None if facts[name] >= least else f"{name} is {facts[name]:g}, less than {least:g}"


def within(name: str, least: float, most: float) -> Check:
    return lambda facts: None if least <= facts[name] <= most else f"{name} is {facts[name]:g}, not from {least:g} to {most:g}"


def both(*checks: Check) -> Check:
    return lambda facts: next((wrong for check in checks if (wrong := check(facts)) is not None), None)


_LOSS_RUN = {"loss_run_limit": 3}
_LINGERS = {"connect_timeout_s": 60.0}

CASES = {
    case.name: case
    for case in (
        Case("handshake", "one connection, 1 KiB", (1024,)),
        Case("longrtt", "750 ms one way, 1 KiB", (1024,), link=BASE.replace(delay_s=0.75)),
        Case("transfer", "2, 3 and 5 MB at once", (2 * MB, 3 * MB, 5 * MB)),
        Case("chacha20", "ChaCha20-Poly1305 alone, 3 MB", (3 * MB,), config={"ciphers": ("chacha20-poly1305",)},
             check=equal("cipher", "chacha20-poly1305")),
        Case("multiplexing", "2,000 files of 32 bytes, a stream each", (SMALL_FILE_BYTES,) * SMALL_FILES),
        Case("retry", "20 calls at once under load: cookies", (1024,), calls=20, calls_at_once=True,
             config={"max_half_open": 30}, check=at_least("cookies", 1)),
        Case("version", "another version is answered with ours", (1024,), asks_for_version=True,
             check=both(equal("versions_told", True), at_least("versions_room_bytes", 0))),
        Case("amplificationlimit", "the caller's packets 2 to 7 are lost", (1024,), drops=(2, 7)),
        Case("blackhole", "10 MB, 5 s on and 2 s off", (10 * MB,), every_s=7,
             steps=((5, {"is_up": False}), (7, {"is_up": True}))),
        Case("keyupdate", "3 MB, new keys every 500 packets", (3 * MB,), config={"key_update_packets": 500},
             check=at_least("peer_key_epoch", 3)),
        Case("handshakeloss", "50 connections, 30 % lost each way, at most 3 in a row", (1024,), calls=50, config=_LINGERS,
             link=BASE.replace(loss=0.3, **_LOSS_RUN)),
        Case("transferloss", "2 MB, 2 % lost, at most 3 in a row", (2 * MB,), link=BASE.replace(loss=0.02, **_LOSS_RUN)),
        Case("handshakecorruption", "50 connections, 30 % corrupted each way", (1024,), calls=50, config=_LINGERS,
             link=BASE.replace(corrupt=0.3)),
        Case("transfercorruption", "2 MB, 2 % corrupted", (2 * MB,), link=BASE.replace(corrupt=0.02)),
        Case("ecn", "3 MB, marks behind 10 packets", (3 * MB,), link=BASE.replace(ecn_mark_bytes=12_500, queue_packets=100),
             check=both(equal("ecn", "capable"), equal("ecn_called", "capable"), at_least("marked", 1))),
        Case("rebind-port", "10 MB, another port after 1 s and then every 5 s", (10 * MB,), rebinding=Rebinding(1, 5),
             check=at_least("mbit_per_s", 0.9 * 9.2)),
        Case("rebind-addr", "10 MB, another address after 1 s and then every 5 s", (10 * MB,),
             rebinding=Rebinding(1, 5, address=True), check=at_least("mbit_per_s", 0.9 * 9.2)),
        Case("ipv6", "1 KiB and 3 MB over IPv6", (1024, 3 * MB), is_ipv6=True),
        Case("connectionmigration", "2 MB, the caller moves in the middle", (2 * MB,), moves=True),
        Case("goodput", "10 MB at 9.2 Mbit/s or more", (10 * MB,), check=at_least("mbit_per_s", 9.2)),
        Case("crosstraffic", "25 MB beside one TCP CUBIC: 30 to 70 % of the rate", (25 * MB,), competitor=True,
             check=within("share", 0.3, 0.7)),
    )
}  # fmt: skip
