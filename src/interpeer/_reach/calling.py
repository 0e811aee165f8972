"""Reaching one peer: its own addresses and legs through others are called at once, and whichever answers is taken."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, final

from interpeer import errors
from interpeer._address import Address, CoreEndpoint
from interpeer._connection import Connection
from interpeer._core import connection_handle, control, engine
from interpeer._reach.legbook import WHY, Leg
from interpeer._reach.peers import Peer
from interpeer._reach.signals import OPENED

if TYPE_CHECKING:
    from interpeer._reach import Reach

STAGGER_S = 0.15
"""How long one way is tried before the next is, too (RFC 8305, 5, has 250 ms between addresses) ..."""
STAGGER_RTTS = 3.0
"""... or so many round trips to the relay, if that is longer: the peer may be as far away on its other side."""
NEIGHBOUR_WAIT_S = 1.5
"""How long a neighbour on the local network may take to answer a beacon: they are said in the first second."""
MAX_ASKED = 4
"""Peers that are asked for a leg to the same one: each answer is a way, and two are enough to survive the loss of one."""


@final
class Call:
    """Call a peer. Used once."""

    def __init__(self, reach: Reach, target: Address, direct: list[CoreEndpoint], protocol: str, controller: int) -> None:
        self._reach = reach
        self._node = reach.node
        self._target = target
        self._direct = direct
        self._began_s = asyncio.get_running_loop().time()
        self._protocol = protocol
        self._controller = controller
        self._asked: dict[Peer, Leg | None] = {}
        self._failed: list[str] = []
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        """A peer was asked, or has answered."""
        self._declined = asyncio.Event()
        """A peer has said no."""

    async def run(self) -> Connection:
        """Return the connection. Raises Unreachable, with a reason for each way, and what a call raises."""
        asking: asyncio.Task[None] | None = None
        try:
            for via in self._target.via:
                self._reach.peers.meet(via)
            asking = self._reach.tasks.start(self._ask())
            connection = await self._begin()
            if connection is None:
                raise self._unreachable()
            await self._node._await_open(connection)
            if not connection.is_open:
                raise self._explained(connection)
            return connection
        except BaseException:
            for leg in self._asked.values():
                if leg is not None:
                    self._reach.legs.drop(leg)
            raise
        finally:
            if asking is not None:
                asking.cancel()

    async def _begin(self) -> Connection | None:
        """Start the call as soon as there is an address, or a leg; None if neither comes in time."""
        self._look_around()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._node.config.connect_timeout_s):
                while not self._ways() and not self._is_hopeless:
                    await self._wait_change(self._changed)
                    self._look_around()
        ways = self._ways()
        if not ways:
            return None
        core = next((_engine_of(leg.relay) for leg in self._usable_legs()), None)
        self._connection = self._node._call(self._target.peer_id, ways, self._protocol, self._controller, core)
        return self._connection

    async def _ask(self) -> None:
        """Ask peers for legs, one after the other: a second one when the first does not lead to the peer soon, and at once
        when it cannot. A call by several ways at a time takes a round trip more, until the peer knows which one is ours."""
        if self._direct:
            await asyncio.sleep(STAGGER_S)
        while True:
            peer = self._next_peer()
            if peer is not None:
                leg = self._asked[peer] = self._reach.legs.open(peer, self._target.peer_id, self._on_answer)
                self._changed.set()
                if leg is not None and self._connection is not None:
                    control.add_candidate(self._connection._handle, leg.endpoint)
                if leg is None:
                    continue
            with suppress(TimeoutError):
                async with asyncio.timeout(None if peer is None else max(STAGGER_S, STAGGER_RTTS * peer.rtt_ns / 1e9)):
                    await self._wait_change(self._declined)
            self._look_around()

    def _next_peer(self) -> Peer | None:
        """Return whom to ask next: of those not asked yet the nearest; None: nobody, or enough were asked."""
        if len(self._asked) >= MAX_ASKED:
            return None
        able = [
            peer
            for peer in self._reach.peers
            if peer not in self._asked
            and peer.peer_id != self._target.peer_id
            and peer.connection.is_open
            and (self._connection is None or _engine_of(peer) is self._connection._handle.engine)
        ]
        named = {via.peer_id for via in self._target.via}
        return min(able, key=lambda peer: (peer.peer_id not in named, peer.rtt_ns), default=None)

    @property
    def _is_hopeless(self) -> bool:
        """Whether there is nobody left to ask, and all who were asked have said no."""
        is_waiting = self._reach.peers.is_waiting or self._next_peer() is not None or self._may_be_near
        return not is_waiting and all(leg is None or leg.status not in (None, OPENED) for leg in self._asked.values())

    @property
    def _may_be_near(self) -> bool:
        """Whether a neighbour may still say that it is the one: on the local network answers come soon or never."""
        has_lan = self._reach.surroundings.is_looking
        return has_lan and asyncio.get_running_loop().time() < self._began_s + NEIGHBOUR_WAIT_S

    async def _wait_change(self, event: asyncio.Event) -> None:
        """Wait until a peer has come, or for something else; not for long."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._reach.peers.change()), loop.create_task(event.wait())]
        try:
            await asyncio.wait(tasks, timeout=NEIGHBOUR_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            event.clear()
            for task in tasks:
                task.cancel()

    def _ways(self) -> list[CoreEndpoint]:
        return self._direct + [leg.endpoint for leg in self._usable_legs()]

    def _usable_legs(self) -> list[Leg]:
        """Return the legs that may lead there: those of the engine that the call is on, or will be on because the first is."""
        usable = [leg for leg in self._asked.values() if leg is not None and leg.status in (None, OPENED)]
        core = self._connection._handle.engine if self._connection else next((_engine_of(leg.relay) for leg in usable), None)
        return [leg for leg in usable if _engine_of(leg.relay) is core]

    # --- ways ---

    def _look_around(self) -> None:
        """Call the peer where it says that it is on the local network, too."""
        for endpoint in self._reach.surroundings.neighbour(self._target.peer_id):
            at = endpoint.to_core()
            if at not in self._direct and self._node._driver.can_reach(endpoint):
                self._direct.insert(0, at)
                if self._connection is not None:
                    control.add_candidate(self._connection._handle, at)

    def _on_answer(self, leg: Leg) -> None:
        if leg.status != OPENED:
            self._failed.append(f"through {leg.relay.peer_id}: it {WHY.get(leg.status or 0, 'refuses')}")
            self._declined.set()
        self._changed.set()
        connection = self._connection
        if connection is not None and not self._direct and self._is_hopeless:
            connection._handle.close(0, b"")  # nobody can be called any more: no need to wait for the time-out
            connection._waiters.wake(connection_handle.EVENT_OPEN)

    # --- why not ---

    def _reasons(self) -> tuple[str, ...]:
        peers = self._reach.peers
        gone = [f"through {peer_id}: {why}" for peer_id, why in peers.failures.items() if peers.is_kept(peer_id)]
        nobody = (
            () if self._asked or gone else ("no peer of the network is connected that could be asked: name one with bootstrap",)
        )
        return (*self._failed, *gone, *nobody)

    def _unreachable(self) -> errors.Unreachable:
        reasons = self._reasons()
        no_address = () if self._direct else ("no address of its own is known",)
        return errors.Unreachable(
            f"cannot reach {self._target.peer_id}: {'; '.join((*no_address, *reasons))}", (*no_address, *reasons)
        )

    def _explained(self, connection: Connection) -> Exception:
        """Return the call's error, with what was tried through peers."""
        failure = self._node._tell_failed(connection)
        if isinstance(failure, errors.Unreachable | errors.ClosedError):
            tried = failure.reasons if isinstance(failure, errors.Unreachable) else ()
            reasons = (*tried, *self._reasons())
            return errors.Unreachable(f"cannot reach {self._target.peer_id}: {'; '.join(reasons)}", reasons)
        return failure


def _engine_of(peer: Peer) -> engine.Engine:
    return peer.connection._handle.engine
