"""Moving one connection to a better path, and back when that dies: candidates, punching, retries, a second relay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from interpeer import errors
from interpeer._address import CoreEndpoint, Endpoint
from interpeer._connection import EVENT_REASONS, Connection
from interpeer._core import path_handle, signal_handle
from interpeer._core.natfacts import NatFacts
from interpeer._core.retry import Retry
from interpeer._host import random_bytes
from interpeer._identity import PeerId
from interpeer._path import ANY_ADDRESS
from interpeer._reach.allowance import Allowance
from interpeer._reach.legbook import Leg
from interpeer._reach.punching import Attempt
from interpeer._reach.signals import KEY_BYTES, OPENED, REFLEXIVE, TOKEN_BYTES, Candidates
from interpeer._reach.surveying import KEEP_ALIVE_S

if TYPE_CHECKING:
    from interpeer._reach import Reach

logger = logging.getLogger("interpeer")

SPARE_AFTER_S = 1.0
"""How long a connection has one relay alone: most have a direct path by then."""
MAX_RELAYS = 2
"""Relayed paths of a connection that has no direct one: when a relay dies, the other carries on."""
LATE = 1.25
"""By how much later the side that follows asks, if the other one does not."""
RETRY_RANDOM_BYTES = 4
REPEAT_S = 0.05
"""After which candidates are told once more: what a lossy path loses comes a second later otherwise, and opening cannot wait."""
ADOPTED_WAIT_S = 10.0
"""How long a socket of a spray is kept for a path that is not there yet."""
GUESSED = ("sprayed", "peer-reflexive")
ADOPTION_S = 0.02
"""The peer hears by our last probe which of its many sockets was hit, and has to give that to its engine before packets come."""
FOLLOWS_PER_S, FOLLOWS_BURST = 0.5, 5.0
"""Attempts that the peer may begin (it leads): each has us send probes to where it says."""
UNATTESTED_BYTES_PER_S, UNATTESTED_BURST_BYTES = 240.0, 4800.0
"""Probes of all attempts of a connection to addresses that the peer alone vouches for; one has 1,200 bytes at the most (PU-6)."""
VAIN_S = 30.0
"""A peer that could not relay is asked again after so long."""
MAX_RESTARTS = 4
"""Attempts that begin anew because more has become known of one of the NATs, until one has failed by itself."""
DEFAULT_RTT_S = 0.2
"""Of a relayed path that has not been measured yet."""


@final
class Mover:
    """See that a connection has the best path there is."""

    def __init__(self, reach: Reach, connection: Connection, *, is_controlling: bool) -> None:
        self._reach = reach
        self._connection = connection
        self._handle = connection._handle
        self._is_controlling = is_controlling
        self._loop = asyncio.get_running_loop()
        self._retry = Retry(self._now_ns())
        self._timer: asyncio.TimerHandle | None = None
        self._attempt: Attempt | None = None  # the last one: when it is over it still answers the peer's probes
        self._is_trying = False
        self._attempts = 0
        self._peer_key = self._peer_token = b""
        self._peer_side = ""
        self._restarts = 0
        self._follows = Allowance(FOLLOWS_PER_S, FOLLOWS_BURST)
        self._unattested = Allowance(UNATTESTED_BYTES_PER_S, UNATTESTED_BURST_BYTES)
        self._path: tuple[CoreEndpoint, bytes] | None = None  # that is being opened
        self._opening: int | None = None  # and its number, once it has one
        self._was_direct = False
        self._path_task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._leg_task: asyncio.Task[None] | None = None
        self._spare: asyncio.TimerHandle | None = None
        self._adopted: dict[bytes, float] = {}  # sockets that a spray has left us, and since when
        self._legs: list[Leg] = []
        self._asked: set[int] = set()
        self._vain: dict[PeerId, float] = {}  # peers that did not relay, and when
        self._details: dict[bytes, str] = {}
        self._repeat: asyncio.TimerHandle | None = None
        self._adoption: asyncio.TimerHandle | None = None
        self._releasing: asyncio.TimerHandle | None = None
        self._tended: set[int] = set()
        self.reasons: tuple[str, ...] = ()
        """Why there is no direct path."""
        self.better: tuple[str, ...] = ()
        """Why a direct path is not a better one: over the local network, or IPv6."""

    # --- what happens ---

    def begin(self) -> None:
        """Look at the path that the handshake took."""
        self.on_paths()

    def on_paths(self) -> None:
        """Something has happened to a path."""
        if not self._connection.is_open:
            return
        self._connection._waiters.wake(EVENT_REASONS)
        self._legs = self._reach.legs.use(self._connection)
        ways = [
            (number, path_handle.STATES[state], self._reach.legs.find(remote)) for number, state, _, _, remote, _ in self._ways()
        ]
        self._keep_alive(ways)
        self._release_sockets()
        if self._opening is not None:
            state = next((state for number, state, _ in ways if number == self._opening), "abandoned")
            if state == "validating":
                return
            if state == "abandoned":
                self._path_failed("the direct path that was found was not proved")
            else:
                self._path = self._opening = None
                self._is_trying = False
                self._retry.succeed()
                self.reasons = ()
        was_direct, self._was_direct = self._was_direct, not self._is_relayed
        if was_direct and not self._was_direct:
            self._retry.handle_network_change(self._now_ns())
            self._reach.doubt()
        if self._is_controlling and self._is_relayed:
            self._schedule()
            if self._spare is None:
                self._spare = self._loop.call_later(SPARE_AFTER_S, self._ask_for_more)

    def on_network_change(self) -> None:
        """Our addresses have changed: what was tried before may work now."""
        self._retry.handle_network_change(self._now_ns())
        if self._is_controlling and self._is_relayed:
            self._schedule()

    def on_facts(self) -> None:
        """More is known of our own NAT: who leads tries again at once, and who follows says so."""
        if not self._connection.is_open or not self._is_relayed:
            return
        if self._is_controlling:
            self._lead_again()
        elif self._attempts:
            self._tell(self._answer())

    def _lead_again(self) -> None:
        """Begin anew with what is known now; a few times, for the peer can cause it."""
        if self._path is None and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            self._lead()

    def on_opened(self, leg: Leg) -> None:
        """A relay says where it has seen the peer, and what the peer has told it of its NAT."""
        if self._attempt is None or leg.attested is None:
            return
        if leg.facts and self._is_controlling and not self._peer_side:
            self._attempt.set_peer(self._peer_token, self._peer_key, leg.facts)
        self._attempt.add(REFLEXIVE, leg.attested, is_attested=True)
        self._attempt.step()

    def on_candidates(self, told: Candidates) -> None:
        """The peer says where it may be reached."""
        if told.is_controlling == self._is_controlling:
            return  # two that both lead, or both follow, cannot be
        if told.is_controlling:
            if told.attempt > self._attempts and self._follows.take(1, self._loop.time()):  # and not one that is told once more
                self._follow(told)
        elif self._attempt is not None and told.attempt == self._attempts:
            before, self._peer_side = self._peer_side, (NatFacts.parse(told.facts) or NatFacts()).side
            if before not in ("", self._peer_side) and self._is_relayed:
                self._lead_again()
                return
            self._attempt.set_peer(self._peer_token, self._peer_key, told.facts)
            self._add(self._attempt, told)
            self._attempt.peer_opened()

    @property
    def _is_relayed(self) -> bool:
        """Whether no direct path works."""
        return not any(
            path_handle.STATES[state] == "active" and self._reach.legs.find(remote) is None
            for _, state, _, _, remote, _ in self._ways()
        )

    def _ways(self) -> list[tuple[int, int, bool, bool, CoreEndpoint, bytes]]:
        return path_handle.ways(self._handle)

    # --- punching ---

    def _schedule(self) -> None:
        """Try when it is time to: for ever, and ever less often."""
        if self._is_trying or self._path is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at_ns = self._retry.poll_timeout()
        if self._retry.is_due(self._now_ns()):
            self._lead()
        elif at_ns:
            self._timer = self._loop.call_at(at_ns / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._connection.is_open and self._is_relayed:
            self._schedule()

    def _lead(self) -> None:
        """Say where we may be reached, and open our NAT meanwhile."""
        self._retry.begin(self._now_ns())
        self._is_trying = True
        self._do(self._lead_now)

    def _do(self, begin: Callable[[], None]) -> None:
        """Begin when what is known of our NAT is fresh: at once for most."""
        if self._reach.surveyor.facts.allocation != "sequential":
            begin()
            return

        async def refresh() -> None:
            await self._reach.surveyor.refresh()
            if self._connection.is_open:
                begin()

        if self._refreshing is not None:
            self._refreshing.cancel()
        self._refreshing = self._reach.tasks.start(refresh())

    def _lead_now(self) -> None:
        self._attempts += 1
        token, key = random_bytes(TOKEN_BYTES), random_bytes(KEY_BYTES)
        self._peer_token, self._peer_key = random_bytes(TOKEN_BYTES), random_bytes(KEY_BYTES)
        told = Candidates(
            self._attempts, True, token, self._peer_token, key, self._peer_key,
            self._reach.facts, self._reach.addresses.candidates(),
        )  # fmt: skip
        if not self._tell(told):
            self._failed(("too much is being said to the peer's node already",))
            return
        attempt = self._begin(token, key)
        if attempt is None:
            return
        attempt.set_peer(self._peer_token, self._peer_key, next((leg.facts for leg in self._legs if leg.facts), b""))
        self._add_attested(attempt)
        attempt.start(self._rtt_s(), 0.0)

    def _follow(self, told: Candidates) -> None:
        """Answer the peer's candidates with ours, and open at once."""
        self._attempts = told.attempt
        self._do(lambda: self._follow_now(told))

    def _follow_now(self, told: Candidates) -> None:
        self._tell(self._answer())
        attempt = self._begin(told.peer_token, told.peer_key)
        if attempt is None:
            return
        attempt.set_peer(told.own_token, told.own_key, told.facts)
        self._add_attested(attempt)
        self._add(attempt, told)
        attempt.start(self._rtt_s(), 0.0)

    def _tell(self, told: Candidates) -> bool:
        """Tell the peer, twice; return whether there is room for it."""
        data = told.pack()
        if self._repeat is not None:
            self._repeat.cancel()
        self._repeat = self._loop.call_later(REPEAT_S, self._tell_again, data)
        return signal_handle.send(self._handle, data)

    def _tell_again(self, data: bytes) -> None:
        if self._connection.is_open and self._is_relayed:
            signal_handle.send(self._handle, data)

    def _answer(self) -> Candidates:
        return Candidates(self._attempts, False, b"", b"", b"", b"", self._reach.facts, self._reach.addresses.candidates())

    def _begin(self, token: bytes, key: bytes) -> Attempt | None:
        """Return a new attempt in place of the one before; None when there are too many on this node."""
        now_s = self._loop.time()
        if self._attempt is not None:
            self._unattested.spend(self._attempt.machine.unattested_sent, now_s)
            self._attempt.close()
        self._is_trying = True
        try:
            self._attempt = Attempt(
                self._reach, self._connection, token, key,
                is_controlling=self._is_controlling, is_same_machine=self._is_same_machine(),
                unattested_bytes=self._unattested.left(now_s),
                on_heard=self._heard, on_found=self._found, on_failed=self._failed,
            )  # fmt: skip
        except errors.LocalError as error:
            self._attempt = None
            self._failed((f"as many peers are punched to as can be: {error}",))
        return self._attempt

    def _is_same_machine(self) -> bool:
        """Whether a relay on this machine has seen the peer there: then, and only then, loopback leads to the peer."""
        return any(
            leg.attested is not None
            and Endpoint.from_core(leg.attested).is_loopback
            and leg.relay.connection.path.remote.is_loopback
            for leg in self._legs
        )

    def _add_attested(self, attempt: Attempt) -> None:
        for leg in self._legs:
            if leg.attested is not None:
                attempt.add(REFLEXIVE, leg.attested, is_attested=True)

    def _add(self, attempt: Attempt, told: Candidates) -> None:
        """Take the peer's candidates; those that a relay has seen it use are attested already."""
        for kind, endpoint in told.endpoints:
            attempt.add(kind, endpoint)

    def _rtt_s(self) -> float:
        rtt_ns = self._handle.stats()["rtt_ns"]
        return rtt_ns / 1e9 if rtt_ns else DEFAULT_RTT_S

    def _heard(self, remote: CoreEndpoint) -> None:
        """The peer's probes come from where others see it. Unless our NAT gives that address a port that it does not expect, the
        path works: open it now, and be a round trip earlier. (An address that the peer alone vouches for could be a victim's.)"""
        if self._is_controlling and self._path is None and not self._reach.surveyor.is_hard:
            self._details[remote[0]] = "punched to its reflexive address"
            self._begin_path(remote, ANY_ADDRESS)

    def _found(self, remote: CoreEndpoint, local: bytes, kind: str) -> None:
        """A pair of addresses works. Who leads opens the path; who follows will see it come."""
        how = f"punched to its {kind} address" if kind != "host" else "by its own address"
        self._details[remote[0]] = how if local == ANY_ADDRESS else f"{how}, from one of many sockets"
        self._is_trying = False
        if self._attempt is not None:
            self.better = tuple(self._attempt.machine.reasons(is_better=True))
        if local != ANY_ADDRESS:
            self._adopt(local)
        is_there = any(remote == way[4] and path_handle.STATES[way[1]] != "abandoned" for way in self._ways())
        if self._is_controlling and not is_there:
            if local == ANY_ADDRESS and kind in GUESSED:
                self._path, self._opening = (remote, local), None
                self._adoption = self._loop.call_later(ADOPTION_S, self._begin_path, remote, local)
            else:
                self._begin_path(remote, local)

    def _adopt(self, local: bytes) -> None:
        """Keep a socket of a spray for the path that will come on it, or else for a while."""
        self._release_sockets()
        self._adopted[local] = self._loop.time()
        if self._releasing is not None:
            self._releasing.cancel()
        self._releasing = self._loop.call_later(ADOPTED_WAIT_S + REPEAT_S, self._release_sockets)

    def _release_sockets(self) -> None:
        """Close sockets of sprays that no path uses; a path may still be on its way to one that was found lately."""
        used = {local for _, state, _, _, _, local in self._ways() if path_handle.STATES[state] != "abandoned"}
        for local, since_s in tuple(self._adopted.items()):
            if not self._connection.is_open or (local not in used and since_s + ADOPTED_WAIT_S < self._loop.time()):
                del self._adopted[local]
                self._reach.node._driver.release_socket(local)

    def _begin_path(self, remote: CoreEndpoint, local: bytes) -> None:
        at = Endpoint.from_core(remote)
        if not self._reach.node._driver.can_reach(at):
            self._path_failed(f"{at}: this node has no socket of that family")
            return
        if self._path_task is not None:
            self._path_task.cancel()
        self._path, self._opening = (remote, local), None
        self._path_task = self._reach.tasks.start(self._open(at, local))

    async def _open(self, at: Endpoint, local: bytes) -> None:
        """Open the path that was found; the peer's connection ids for it may still be on their way."""
        try:
            self._opening = await self._connection._begin_path(at.to_core(), local)
        except (errors.LocalError, errors.NetworkError, errors.ProtocolError) as error:
            self._path_failed(f"{at}: it works, but the connection takes no other path: {error}")
        else:
            self.on_paths()

    def _path_failed(self, why: str) -> None:
        """A path has come to nothing: the attempt goes on, if it has not ended."""
        self._path = self._opening = None
        if not self._is_trying:
            self._failed((why,))

    def _failed(self, reasons: tuple[str, ...]) -> None:
        self._restarts = 0
        self.reasons = reasons or ("nothing is known that could be tried",)
        self._is_trying = False
        self._connection._waiters.wake(EVENT_REASONS)
        if self._is_controlling:
            self._retry.fail(self._now_ns(), random=random_bytes(RETRY_RANDOM_BYTES))
            self._schedule()

    # --- relays ---

    def _ask_for_more(self) -> None:
        """Have a second relay, so that one may die."""
        self._spare = None
        if not self._connection.is_open or not self._is_relayed:
            return
        if len(self._legs) >= MAX_RELAYS or self._asked:
            return
        now_s = self._loop.time()
        self._vain = {peer_id: since_s for peer_id, since_s in self._vain.items() if since_s + VAIN_S > now_s}
        used = {leg.relay.peer_id for leg in self._legs} | self._vain.keys() | {self._connection.peer_id}
        for peer in self._reach.peers:
            if peer.peer_id not in used and peer.connection._handle.engine is self._handle.engine:
                leg = self._reach.legs.open(peer, self._connection.peer_id, self._on_leg)
                if leg is not None:
                    self._asked.add(leg.id)
                    return

    def _on_leg(self, leg: Leg) -> None:
        self._asked.discard(leg.id)
        if not self._connection.is_open:
            return
        if leg.status == OPENED:
            self._leg_task = self._reach.tasks.start(self._open_over(leg))
        else:
            self._vain[leg.relay.peer_id] = self._loop.time()
            self._ask_for_more()

    async def _open_over(self, leg: Leg) -> None:
        """Open a path over another relay, for when the one before dies."""
        try:
            await self._connection._begin_path(leg.endpoint, ANY_ADDRESS)
        except (errors.LocalError, errors.NetworkError, errors.ProtocolError) as error:
            logger.debug("no path over another relay: %s", error)
            self._reach.legs.drop(leg)

    def _keep_alive(self, ways: list[tuple[int, str, Leg | None]]) -> None:
        """See that every path says something now and then, so that NATs remember it, and that it is missed when it dies."""
        interval_s = self._reach.surveyor.keep_alive_s
        if not self._is_controlling and interval_s >= KEEP_ALIVE_S:
            # one side asks, and the other answers: both NATs have seen a packet go out
            interval_s *= LATE
        for number, _, _ in ways:
            if number not in self._tended:
                self._tended.add(number)
                path_handle.set_path_keep_alive(self._handle, number, interval_s)

    def on_lifetime(self) -> None:
        """It is known now how long our NAT remembers."""
        self._tended.clear()
        self.on_paths()

    # --- for people ---

    def detail_of(self, remote: CoreEndpoint) -> str:
        """Say how a direct path came about."""
        return self._details.get(remote[0], "called there")

    def _now_ns(self) -> int:
        return round(self._loop.time() * 1e9)

    def close(self) -> None:
        """End whatever runs."""
        for local in self._adopted:
            self._reach.node._driver.release_socket(local)
        self._adopted.clear()
        for timer in (self._timer, self._spare, self._repeat, self._adoption, self._releasing):
            if timer is not None:
                timer.cancel()
        for task in (self._path_task, self._refreshing, self._leg_task):
            if task is not None:
                task.cancel()
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None
