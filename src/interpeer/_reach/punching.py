"""One attempt to punch, with sockets and time: what the machine of chapter 24 wants is done here."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, final

from interpeer import errors
from interpeer._address import IPV4_MAPPED, CoreEndpoint
from interpeer._connection import Connection
from interpeer._core import control
from interpeer._core.natfacts import NatFacts
from interpeer._core.punch import Punch
from interpeer._host import random_bytes
from interpeer._path import ANY_ADDRESS
from interpeer._reach.signals import HOST, MAPPED, REFLEXIVE

if TYPE_CHECKING:
    from interpeer._reach import Reach
    from interpeer._sockets import ExtraSocket

logger = logging.getLogger("interpeer")

SEED_BYTES = 32
ANSWERS_S = 10.0
"""How long the peer's probes are answered when a pair is found: it may still be looking. What waits for them is one of few."""
EXPERIMENTS = "INTERPEER_EXPERIMENTS"
"""The environment's variable for what nodes do only if both are told to: "blocks" guesses between two NATs with known blocks."""
CandidateKind = Literal["host", "ipv6", "reflexive", "mapped", "predicted"]
_KINDS: dict[int, CandidateKind] = {HOST: "host", REFLEXIVE: "reflexive", MAPPED: "mapped"}


def kind_name(kind: int, endpoint: CoreEndpoint) -> CandidateKind:
    """Return how the machine names a candidate."""
    if kind == HOST and not endpoint[0].startswith(IPV4_MAPPED):
        return "ipv6"
    return _KINDS.get(kind, "mapped")


@final
class Attempt:
    """Run a punching machine until it has found a pair, or failed.

    `on_heard` gets an address of the peer that most likely works; `on_found` gets the peer's address and our local one (zeros:
    the node's own socket), `on_failed` the reasons."""

    def __init__(
        self,
        reach: Reach,
        connection: Connection,
        token: bytes,
        key: bytes,
        *,
        is_controlling: bool,
        is_same_machine: bool,
        unattested_bytes: int,
        on_heard: Callable[[CoreEndpoint], None],
        on_found: Callable[[CoreEndpoint, bytes, str], None],
        on_failed: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._node = reach.node
        self._core = connection._handle.engine
        self._token = token
        self._on_heard = on_heard
        self._on_found = on_found
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._sockets: list[ExtraSocket] = []
        self._adopted = (0, ANY_ADDRESS)  # the number of the extra socket that the engine has by now, and its address there
        self._is_over = False
        self._step_is_due = False
        self.machine = Punch(
            token, key, is_controlling, reach.surveyor.facts, random_bytes(SEED_BYTES), budget=reach.spray_budget,
            is_same_machine=is_same_machine, is_experimental=os.environ.get(EXPERIMENTS) == "blocks",
            unattested_bytes=unattested_bytes,
        )  # fmt: skip
        self._node._expected.add(token, self._on_datagram)

    def set_peer(self, token: bytes, key: bytes, facts: bytes) -> None:
        """Take what the peer has told; harmless once it is too late for that."""
        try:
            self.machine.set_peer(token, key, NatFacts.parse(facts) or NatFacts(), self._now_ns())
        except ValueError as error:
            logger.debug("a peer's candidates are not used: %s", error)

    def add(self, kind: int, endpoint: CoreEndpoint, *, is_attested: bool = False) -> None:
        """Take an address of the peer."""
        why_not = self.machine.add_remote(endpoint, kind_name(kind, endpoint), is_attested)
        if why_not:
            logger.debug("%s is not tried: %s", endpoint, why_not)

    def start(self, rtt_s: float, delay_s: float) -> None:
        """Begin in a while."""
        self.machine.start(self._now_ns(), round(rtt_s * 1e9), round(delay_s * 1e9))
        self.step()

    def peer_opened(self) -> None:
        """The peer has said that it has opened its NAT for us."""
        self.machine.peer_opened(self._now_ns())
        self.step()

    def step(self) -> None:
        """Do what is due, and come back when more is."""
        if self._is_over:
            return
        now_ns = self._now_ns()
        self.machine.handle_timeout(now_ns)
        for data, remote, socket, ttl in self.machine.poll_transmit(now_ns):
            self._send(data, remote, socket, ttl)
        for event in self.machine.poll_events():
            self._handle(event)
        self._arm()

    def _send(self, data: bytes, remote: CoreEndpoint, socket: int, ttl: int) -> None:
        if not socket:
            control.send_raw(self._core, data, remote, None, ttl)
        elif socket == self._adopted[0]:
            control.send_raw(self._core, data, remote, self._adopted[1], ttl)
        elif socket <= len(self._sockets):
            self._sockets[socket - 1].send(data, remote, ttl)

    def _handle(self, event: tuple[Any, ...]) -> None:
        if event[0] == "sockets":
            self._open_sockets(event[1])
        elif event[0] == "heard":
            self._on_heard(event[1])
        elif event[0] == "found":
            self._found(event[1], event[2], event[3])
        elif event[0] == "failed":
            self._end()
            self._on_failed(tuple(event[1]))

    def _open_sockets(self, count: int) -> None:
        try:
            self._sockets = self._node._driver.open_sockets(count, False, self._on_extra)
        except (OSError, ValueError, errors.LocalError) as error:
            logger.info("no sockets for a spray: %s", error)
        self.machine.sockets_opened(len(self._sockets), self._now_ns())

    def _found(self, remote: CoreEndpoint, socket: int, kind: str) -> None:
        local = ANY_ADDRESS
        if socket:
            try:
                local = self._sockets.pop(socket - 1).adopt()
                self._adopted = (socket, local)
            except errors.LocalError as error:
                self._end()
                self._on_failed((f"a socket was found that works, and cannot be kept: {error}",))
                return
        self._close_sockets()
        self._ending = self._loop.call_later(ANSWERS_S, self.close)
        self._on_found(remote, local, kind)

    # --- what comes ---

    def _on_datagram(self, data: bytes, remote: CoreEndpoint, local: bytes) -> None:
        if not self._is_over:
            socket, adopted = self._adopted
            self.machine.handle_datagram(data, remote, socket if local == adopted else 0, self._now_ns())
            self._step_soon()

    def _on_extra(self, socket: ExtraSocket, data: bytes, remote: CoreEndpoint) -> None:
        if not self._is_over and socket in self._sockets:
            self.machine.handle_datagram(data, remote, 1 + self._sockets.index(socket), self._now_ns())
            self._step_soon()

    def _step_soon(self) -> None:
        """Step once for all that has come in this turn."""
        if not self._step_is_due:
            self._step_is_due = True
            self._loop.call_soon(self._step_now)

    def _step_now(self) -> None:
        self._step_is_due = False
        self.step()

    # --- time ---

    def _now_ns(self) -> int:
        return round(self._loop.time() * 1e9)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at_ns = self.machine.poll_timeout()
        if at_ns and not self._is_over:
            self._timer = self._loop.call_at(at_ns / 1e9, self.step)

    # --- the end ---

    def close(self) -> None:
        """Stop."""
        if not self._is_over:
            self.machine.close(self._now_ns())
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self._node._expected.remove(self._token)
        self._close_sockets()
        for timer in (self._timer, self._ending):
            if timer is not None:
                timer.cancel()

    def _close_sockets(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._sockets = []
