"""What holds in every simulated run: no node sends more to an address that has proved nothing than came from there.

An address is proven to a node by a packet under keys, or a response to its own first message, that has really come from
there. Before that, only the first messages of a call and the challenges of a path are free, as the application has named where
they go, and what nobody has asked for: the requests of STUN and the probes of a hole punch, which have budgets of their own.
Answers to STUN may go to another port than the request came from (RFC 5780), so of those an account is a host's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from interpeer._address import CoreEndpoint
from interpeer.testing._errors import Amplified
from interpeer.testing._packet import Packet

_PROOFS = ("data", "response")
_CHALLENGES, _CHALLENGE_BYTES = 6, 1200  # of one path


@final
@dataclass(slots=True)
class _Account:
    received_bytes: int = 0
    sent_bytes: int = 0
    challenges: int = 0
    is_proven: bool = False


@final
class Audit:
    """Keep the books of one node, an account for each address."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._accounts: dict[CoreEndpoint, _Account] = {}
        self._hosts: dict[bytes, _Account] = {}
        self._called: set[CoreEndpoint] = set()
        self._has_failed = False

    def called(self, target: CoreEndpoint) -> None:
        """Note that the application calls an address."""
        self._called.add(target)

    def received(self, packet: Packet) -> None:
        if packet.kind == "stun":
            self._hosts.setdefault(packet.core_source[0], _Account()).received_bytes += len(packet.data)
        account = self._accounts.get(packet.core_source)
        if account is None:
            account = self._accounts[packet.core_source] = _Account()
        elif account.is_proven:
            return
        account.received_bytes += len(packet.data)
        if packet.kind in _PROOFS and packet.is_genuine:
            account.is_proven = True

    def sent(self, packet: Packet) -> None:
        """Raise Amplified if it was too much."""
        if packet.is_request:
            return
        if packet.kind == "stun":
            self._charge(self._hosts.setdefault(packet.core_target[0], _Account()), packet)
            return
        account = self._accounts.get(packet.core_target)
        if account is None:
            account = self._accounts[packet.core_target] = _Account()
        elif account.is_proven:
            return
        if packet.kind == "init" and packet.core_target in self._called:
            return
        if packet.kind == "data" and packet.core_target in self._called and len(packet.data) == _CHALLENGE_BYTES:
            account.challenges += 1
            if account.challenges <= _CHALLENGES:
                return
        self._charge(account, packet)

    def _charge(self, account: _Account, packet: Packet) -> None:
        account.sent_bytes += len(packet.data)
        if account.sent_bytes > account.received_bytes and not self._has_failed:
            self._has_failed = True  # once is enough: what the run does to end may do it again
            raise Amplified(
                f"{self.name} has sent {account.sent_bytes} bytes to {packet.target}, which has proved nothing and from where "
                f"{account.received_bytes} have come; the last were {len(packet.data)} of kind {packet.kind!r}"
            )
