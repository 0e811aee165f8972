"""How a node of a network reaches peers that have no address of their own, and is reached (docs/spec, chapters 20 to 24).

`Reach` is what a node has: peers that it keeps in touch with, what it relays for them, its own legs, and a `Mover` for each
connection that could have a better path. Modules beside this one hold the parts; none but this one knows them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from interpeer import _host
from interpeer._address import MAX_ENDPOINTS, MAX_VIA, Address, CoreEndpoint
from interpeer._connection import Connection
from interpeer._core import path_handle, signal_handle
from interpeer._core.spray_budget import SprayBudget
from interpeer._identity import PeerId
from interpeer._interfaces import Change
from interpeer._path import Explanation, explain_address
from interpeer._reach import signals
from interpeer._reach.addresses import OwnAddresses
from interpeer._reach.calling import Call
from interpeer._reach.legbook import Leg, LegBook
from interpeer._reach.moving import Mover
from interpeer._reach.peers import PROTOCOL, Peer, Peers
from interpeer._reach.probing import Helper, Verifier, other_address, show
from interpeer._reach.relaying import Relaying
from interpeer._reach.surroundings import Surroundings
from interpeer._reach.surveying import KEEP_ALIVE_S, Surveyor
from interpeer._reach.tasks import Tasks

if TYPE_CHECKING:
    from interpeer._config import Give
    from interpeer._node import Node

logger = logging.getLogger("interpeer")

ENOUGH_PEERS = 8
"""With so many peers there is no need to call neighbours before somebody wants to reach them."""
REGISTERED_S = 2.0
"""How long peers may take to say that we are registered there: one that never does must not hold up who waits."""
DOUBT_GAP_S = 1.0
"""Peers are asked no more often than this where we are: many connections die together."""
TEND_S = 10.0
"""How often what nobody uses is looked for."""

__all__ = ["PROTOCOL", "Reach"]


@final
class Reach:
    """Reach peers through others, be reached, and move to direct paths."""

    def __init__(self, node: Node, give: Give) -> None:
        self.node = node
        self.tasks = Tasks()
        self.peers = Peers(node, self.tasks, self._on_peer, self._on_peer_gone)
        self.addresses = OwnAddresses(node, self.peers, lambda: self.surroundings.mapped(), lambda: self.surveyor.reflexive)
        self.surveyor = Surveyor(node, self.peers, self.tasks, self._on_nat, self._on_lifetime)
        self.relaying = Relaying(node, self.peers, give)
        self._helper = Helper(node, self.peers, self.relaying.handle_shown)
        self.surroundings = Surroundings(
            node, self.tasks, self._on_neighbour, Verifier(node, self.peers, self.surveyor.servers_seeing).verify
        )
        self.legs = LegBook(self)
        self.spray_budget = SprayBudget()
        self._movers: dict[Connection, Mover] = {}
        self._doubted_s = 0.0
        self._tending: asyncio.TimerHandle | None = None
        self._is_closed = False
        """Connections linger: what they still say must begin nothing new."""

    def start(self, bootstrap: Iterable[Address]) -> None:
        """Begin to keep in touch with peers."""
        for target in bootstrap:
            self.peers.keep(target)
        self.surroundings.start()
        self._tend()

    async def close(self) -> None:
        """End whatever runs; connections are the node's to close."""
        try:
            await self.surroundings.close()
        finally:
            self._end()
            await self.tasks.close()

    def _end(self) -> None:
        self._is_closed = True
        self.peers.close()
        self.surveyor.close()
        self._helper.close()
        if self._tending is not None:
            self._tending.cancel()
        for mover in self._movers.values():
            mover.close()
        self._movers.clear()

    def _tend(self) -> None:
        self.relaying.expire(round(asyncio.get_running_loop().time() * 1e9))
        self.legs.expire()
        self._tending = asyncio.get_running_loop().call_later(TEND_S, self._tend)

    # --- reaching ---

    async def connect(self, target: Address, direct: list[CoreEndpoint], protocol: str, controller: int) -> Connection:
        """Reach a peer by whatever way answers first. Raises Unreachable with a reason for each way, and what a call raises."""
        with _host.on(self.node._host):  # whoever calls: in a simulation its chance is the host's
            return await Call(self, target, direct, protocol, controller).run()

    async def joined(self) -> None:
        """Wait until peers that are to be kept are there and know us, or have failed: then others reach us through them."""
        while self.peers.is_waiting:
            await self.peers.change()
        with suppress(TimeoutError):
            async with asyncio.timeout(REGISTERED_S):
                while any(peer.relays_bytes_per_s is None for peer in self.peers if self.peers.is_kept(peer.peer_id)):
                    await self.peers.change()

    def via(self) -> list[Address]:
        """Return the peers through which we can be reached, with their addresses, for our own address."""
        able = [peer for peer in self.peers if peer.relays_bytes_per_s is not None]
        found = [address for peer in able if (address := self.peers.address_of(peer)) is not None]
        return found[:MAX_VIA]

    def explain(self, connection: Connection, remote: CoreEndpoint) -> Explanation:
        """Say what stands behind the remote address of a path, how it came about, and why there is no better one."""
        mover = self._movers.get(connection)
        leg = self.legs.find(remote)
        if leg is None:
            said = explain_address(remote)
            return replace(said, detail=mover.detail_of(remote), reasons=mover.better) if mover is not None else said
        way = leg.relay.connection.path
        reasons = mover.reasons if mover is not None else ()
        how = f"{way.detail}, " if way.transport != "udp" else ""
        detail = f"{how}by {leg.relay.peer_id}, which sees ciphertext alone"
        return Explanation("relayed", way.remote, leg.relay.peer_id, detail, reasons)

    # --- what the node tells ---

    def on_connected(self, connection: Connection, *, is_incoming: bool) -> None:
        """A connection is open: the application's, or the network's own."""
        if self._is_closed:
            return
        if connection.protocol == PROTOCOL:
            self.peers.add(connection)
            self._keep_alive(connection)
            return
        mover = self._movers[connection] = Mover(self, connection, is_controlling=not is_incoming)
        mover.begin()

    def on_paths(self, connection: Connection) -> None:
        """Something has happened to a connection's paths."""
        mover = self._movers.get(connection)
        if mover is not None:
            mover.on_paths()

    def on_opened(self, connection: Connection, leg: Leg) -> None:
        """A relay tells of the peer that a connection has reached already."""
        mover = self._movers.get(connection)
        if mover is not None:
            mover.on_opened(leg)

    def on_closed(self, connection: Connection) -> None:
        """A connection is over."""
        self.peers.remove(connection)
        mover = self._movers.pop(connection, None)
        if mover is not None:
            mover.close()
        self.legs.let_go(connection)

    def on_signals(self, connection: Connection) -> None:
        """The node at the other end says something."""
        for data in signal_handle.take(connection._handle) if not self._is_closed else ():
            try:
                signal = signals.parse(data)
            except signals.MalformedSignalError as error:
                logger.debug("%s sends a signal that cannot be read: %s", connection.peer_id, error)
                continue
            if isinstance(signal, signals.Candidates):
                mover = self._movers.get(connection)
                if mover is not None:
                    mover.on_candidates(signal)
            elif signal is not None and (peer := self.peers.of(connection)) is not None:
                self._on_signal(peer, signal)
        if (peer := self.peers.of(connection)) is not None:
            self.addresses.note(peer)
            self.surroundings.set_reflexive(self.addresses.reflexive())

    def on_leg_gone(self, leg: int) -> None:
        """The core has removed a leg, because its connection is over."""
        self.relaying.handle_gone(leg)
        self.legs.handle_gone(leg)

    # --- what is around ---

    def on_change(self, change: Change) -> None:
        """Our addresses have changed, or the machine has slept; peers have been shown already where we are now."""
        if self._is_closed:
            return
        come, gone = (", ".join(hosts) or "nothing" for hosts in (change.come, change.gone))
        logger.info("the network has changed: %s come, %s gone", come, gone)
        self.surroundings.handle_change(change)
        self.surveyor.handle_network_change()
        for peer in self.peers:
            self.tasks.start(self._show(peer))
        for mover in self._movers.values():
            mover.on_network_change()

    def doubt(self) -> None:
        """A direct path has died: a NAT may have forgotten us, or taken another address. Look whether peers see us elsewhere."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._doubted_s + DOUBT_GAP_S:
            return
        self._doubted_s = now_s
        for peer in self.peers:
            peer.connection._handle.nudge()
        self.surveyor.handle_network_change()
        self.surroundings.handle_doubt()

    def _on_neighbour(self, peer_id: PeerId) -> None:
        """Somebody is on the local network: keep in touch, if there are few others."""
        if len(self.peers) < ENOUGH_PEERS and peer_id > self.node.id:
            self.peers.meet(Address.of(peer_id, self.surroundings.neighbour(peer_id)[:MAX_ENDPOINTS]))
        self.peers.tell_change()

    # --- signals of peers ---

    def _on_peer(self, peer: Peer) -> None:
        peer.tell(signals.Register(self.shard_of(peer), self.facts))
        self.surveyor.handle_peer()
        self.tasks.start(self._show(peer))

    async def _show(self, peer: Peer) -> None:
        """Let a peer know our address of the other family, too: it is asked for by those who have that one alone."""
        at = other_address(self.node, self.peers, peer)
        if at is not None:
            await show(self.node, peer, at)

    def _on_peer_gone(self, peer: Peer) -> None:
        self.addresses.forget(peer)
        self._helper.forget(peer)

    def _on_nat(self) -> None:
        """More is known of the NAT in front of us: others should know it, too, and what was tried may work now."""
        for peer in self.peers:
            peer.tell(signals.Register(self.shard_of(peer), self.facts))
        for mover in self._movers.values():
            mover.on_facts()
        self.surroundings.set_reflexive(self.addresses.reflexive())

    def _on_lifetime(self) -> None:
        """It is known how long the NAT in front of us remembers."""
        for mover in self._movers.values():
            mover.on_lifetime()
        for peer in self.peers:
            self._keep_alive(peer.connection)

    def _keep_alive(self, connection: Connection) -> None:
        """See that a peer's packets go on reaching us, when the node's own keep-alives are too rare for our NAT."""
        own_s = self.node.config.keep_alive_s or KEEP_ALIVE_S
        if (interval_s := self.surveyor.keep_alive_s) < own_s:
            path_handle.set_path_keep_alive(connection._handle, connection.path.id, interval_s)

    @property
    def facts(self) -> bytes:
        """What is known of the NAT in front of us, as chapter 24 writes it."""
        return self.surveyor.facts.to_bytes()

    def shard_of(self, peer: Peer) -> int:
        """Return the number of the engine that has the connection to a peer."""
        return self.node._engines.index(peer.connection._handle.engine)

    def _on_signal(self, peer: Peer, signal: signals.Signal) -> None:
        match signal:
            case signals.Register():
                peer.is_registered, peer.shard, peer.facts = True, signal.shard, signal.facts
                peer.tell(signals.Registered(self.relaying.share_bytes_per_s(1)))
            case signals.Registered():
                peer.relays_bytes_per_s = signal.bytes_per_s
                self.peers.tell_change()
            case signals.Open():
                self.relaying.handle_open(peer, signal, asyncio.get_running_loop().time())
            case signals.Hangup():
                self.relaying.handle_hangup(peer, signal.leg)
                self.legs.handle_hangup(peer, signal.leg)
            case signals.Opened():
                self.legs.handle_opened(peer, signal)
            case signals.Attested():
                self.legs.handle_attested(peer, signal)
            case signals.Offer():
                self.legs.handle_offer(peer, signal)
            case signals.ProbeRequest():
                self._helper.handle_request(peer, signal)
            case signals.ProbeOrder():
                self._helper.handle_order(peer, signal)
            case _:
                pass

    def report(self) -> dict[str, Any]:
        """Return what is known and going on, for people: own addresses, peers, what is relayed."""
        return {
            "addresses": [str(one) for one in self.addresses.endpoints()],
            "peers": [str(peer.peer_id) for peer in self.peers],
            "failures": {str(peer_id): why for peer_id, why in self.peers.failures.items()},
            "relayed": self.relaying.report(),
            "nat": None if self.surveyor.report is None else self.surveyor.report.to_dict(),
            **self.surroundings.report(),
        }
