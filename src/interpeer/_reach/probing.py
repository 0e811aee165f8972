"""Probes: small packets that peers send on request, for surveys and to try addresses from outside (docs/spec, chapter 23)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from interpeer import errors
from interpeer._address import CoreEndpoint, Endpoint
from interpeer._core import control
from interpeer._host import random_bytes
from interpeer._identity import PeerId
from interpeer._nat import How, Server
from interpeer._path import ANY_ADDRESS
from interpeer._reach.allowance import Allowance
from interpeer._reach.peers import Peer, Peers, is_same_family
from interpeer._reach.signals import NO_COOKIE, OTHER_PEER, OTHER_PORT, SAME_PORT, SHOWN, TOKEN_BYTES, ProbeOrder, ProbeRequest

if TYPE_CHECKING:
    from interpeer._node import Node
    from interpeer._sockets import ExtraSocket

logger = logging.getLogger("interpeer")

PROBE = 0x45
PROBE_VERSION = 1
PROBE_BYTES = 64
COOKIE_AT = 2 + TOKEN_BYTES
VERIFIERS, VERIFY_TRIES, VERIFY_WAIT_S = 2, 3, 0.7
"""Peers that are asked whether an address works, how often, and how long each probe is waited for."""
MAX_DELAY_MS = 300_000
"""Until a probe that was asked for is sent; longer than most mappings live."""
PROBES_PER_S, PROBES_BURST = 2.0, 40.0
"""Probes sent for a peer: each is smaller than the packet that asks for it."""
MAX_PENDING = 32
"""Probes that are to be sent later, for each peer."""
_ORIGINS: dict[How, int] = {"same port": SAME_PORT, "other port": OTHER_PORT, "other peer": OTHER_PEER}
SHOW_WAITS_S = (0.1, 0.2, 0.4, 0.8)
"""After each packet that shows an address: the first ones may be there before the signal that announces them."""
SHOWN_S = 5.0
"""How long a packet that shows an address is waited for."""


async def show(node: Node, peer: Peer, at: CoreEndpoint) -> bytes | None:
    """Let a peer see the address that we have for another one of its own; return the cookie it answers with, None without one.

    A connection shows one address, often of IPv6; NATs are in front of the other family. Cancelled, nothing is left."""
    async with peer.showing:
        return await _show(node, peer, at)


async def _show(node: Node, peer: Peer, at: CoreEndpoint) -> bytes | None:
    token = random_bytes(TOKEN_BYTES)
    cookie: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(data: bytes, _source: CoreEndpoint, _local: bytes) -> None:
        if len(data) == PROBE_BYTES and not cookie.done():
            cookie.set_result(data[COOKIE_AT : COOKIE_AT + len(NO_COOKIE)])

    try:
        node._expected.add(token, take)
    except errors.LocalError as error:
        logger.info("%s is not shown another address: %s", peer.peer_id, error)
        return None
    try:
        if not peer.tell(ProbeRequest(token, SHOWN, 0, 0)):
            return None
        for wait_s in SHOW_WAITS_S:
            control.send_raw(node._engines[0], _probe(token), at, ANY_ADDRESS)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    received = await asyncio.shield(cookie)
                    peer.tell(ProbeRequest(token, SHOWN, 0, 0, received))  # now it knows that we receive there
                    return received
    finally:
        node._expected.remove(token)
    return None


def other_address(node: Node, peers: Peers, peer: Peer) -> CoreEndpoint | None:
    """Return a peer's address of the family that the connection to it does not use; None: there is none that we can reach."""
    address, at = peers.address_of(peer), peer.attested
    if address is None or at is None:
        return None
    is_private = Endpoint.from_core(at).is_private
    others = [one for one in address.endpoints if one.transport == "udp" and one.is_private == is_private and not one.is_loopback]
    reachable = [one.to_core() for one in others if node._driver.can_reach(one)]
    return next((one for one in reachable if not is_same_family(one, at)), None)


@final
class Prober:
    """Have peers send probes to us. Close it with `async with`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._showing: dict[CoreEndpoint, asyncio.Task[bytes | None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._showing.values():
            task.cancel()
        await asyncio.gather(*self._showing.values(), return_exceptions=True)

    async def probe(self, server: Server, how: How, token: bytes, port: int, delay_s: float = 0.0) -> bool:
        """Ask a server that is a peer; return whether it can send a probe to us, and has been asked."""
        peer = server.peer
        if not isinstance(peer, Peer):
            return False
        cookie: bytes | None = NO_COOKIE
        if server.endpoint != peer.attested:
            cookie = await self._show(peer, server.endpoint)
        if cookie is None:
            return False
        return peer.tell(ProbeRequest(token, _ORIGINS[how], min(round(delay_s * 1000), MAX_DELAY_MS), port, cookie))

    async def _show(self, peer: Peer, at: CoreEndpoint) -> bytes | None:
        if at not in self._showing:
            self._showing[at] = asyncio.get_running_loop().create_task(show(self._node, peer, at))
        return await asyncio.shield(self._showing[at])


@final
class Verifier:
    """Have an address of ours tried from outside: does what is sent there come in?"""

    def __init__(self, node: Node, peers: Peers, servers_seeing: Callable[[Endpoint], list[Server]]) -> None:
        self._node = node
        self._peers = peers
        self._servers_seeing = servers_seeing

    async def verify(self, endpoint: Endpoint) -> bool | None:
        """Tell whether packets to an address reach the node's own socket; None: nobody is there who could send one.

        A peer sends to nothing but the host at which it sees us, so others cannot be aimed at."""
        host = endpoint.to_core()[0]
        able = [(peer, NO_COOKIE) for peer in self._peers if (seen := peer.observed) is not None and seen[0] == host]
        if not able:
            able = [
                (server.peer, cookie)
                for server in self._servers_seeing(endpoint)[:VERIFIERS]
                if isinstance(server.peer, Peer) and (cookie := await show(self._node, server.peer, server.endpoint)) is not None
            ]
        for peer, cookie in able[:VERIFIERS]:
            token = random_bytes(TOKEN_BYTES)
            arrived = asyncio.Event()
            try:
                self._node._expected.add(token, _setter(arrived))
            except errors.LocalError as error:
                logger.info("%s is not tried from outside: %s", endpoint, error)
                return None
            try:
                for _ in range(VERIFY_TRIES):
                    peer.tell(ProbeRequest(token, OTHER_PORT, 0, endpoint.port, cookie))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(VERIFY_WAIT_S):
                            await arrived.wait()
                            return True
            finally:
                self._node._expected.remove(token)
        return False if able else None


@final
class Helper:
    """Send the probes that peers ask for: small, few, and to the asker's own address alone."""

    def __init__(self, node: Node, peers: Peers, on_shown: Callable[[Peer], None]) -> None:
        self._on_shown = on_shown
        self._node = node
        self._peers = peers
        self._allowed: dict[PeerId, Allowance] = {}
        self._pending: dict[PeerId, set[asyncio.TimerHandle]] = {}
        self._shown: dict[PeerId, tuple[bytes, CoreEndpoint]] = {}
        """The address that each has shown last, and the cookie that was sent there."""
        self._awaited: dict[PeerId, tuple[bytes, asyncio.TimerHandle]] = {}
        """The token with which each is to show an address, and when that is waited for no more."""

    def handle_request(self, peer: Peer, asked: ProbeRequest) -> None:
        """Send a probe to where we see the peer, perhaps later, perhaps through another peer."""
        if asked.origin == SHOWN and asked.cookie == NO_COOKIE:
            self._await_shown(peer, asked.token)
            return
        at = peer.attested if asked.cookie == NO_COOKIE else self._find_shown(peer, asked.cookie)
        if at is None or not self._allows(peer):
            return
        if asked.origin == SHOWN:
            peer.shown = at
            self._on_shown(peer)
            return
        target = (at[0], asked.port or at[1], at[2])
        if asked.origin == OTHER_PEER:
            helper = next((other for other in self._peers if other is not peer and self._is_elsewhere(other, at)), None)
            if helper is not None:
                self._later(peer, asked.delay_ms, lambda: helper.tell(ProbeOrder(asked.token, target)))
        elif asked.origin == OTHER_PORT:
            self._later(peer, asked.delay_ms, lambda: self._send_from_other_port(asked.token, target))
        elif asked.origin == SAME_PORT:
            self._later(peer, asked.delay_ms, lambda: self._send(asked.token, target))

    def handle_order(self, peer: Peer, order: ProbeOrder) -> None:
        """Send a probe for a peer of a peer. Who orders vouches for the address: it costs more to ask than to be hit."""
        target, by = Endpoint.from_core(order.target), peer.attested
        if not target.is_unicast or target.is_loopback or by is None or not self._allows(peer):
            return
        if target.is_private and not Endpoint.from_core(by).is_private:
            return  # who is outside sees nobody with such an address: it would be somebody in our own network
        self._send(order.token, order.target)

    def _is_elsewhere(self, other: Peer, at: CoreEndpoint) -> bool:
        """Whether a peer can send to an address, and has another one: of the same family, as far as we know."""
        address = self._peers.address_of(other)
        told = () if address is None else address.endpoints
        _, shown = self._shown.get(other.peer_id) or (NO_COOKIE, None)
        known = [other.attested, shown, *(one.to_core() for one in told)]
        where = next((one for one in known if one is not None and is_same_family(one, at)), None)
        return other.is_registered and where is not None and where[0] != at[0]

    def _find_shown(self, peer: Peer, cookie: bytes) -> CoreEndpoint | None:
        """Return the address that a peer has shown, if it has received there what we have sent."""
        sent, at = self._shown.get(peer.peer_id, (cookie, None))
        return at if sent == cookie else None

    def _await_shown(self, peer: Peer, token: bytes) -> None:
        """Wait for packets that show another address of a peer, and answer each by itself: as many as are sent, but no more."""
        if not self._allows(peer) or token in self._node._expected:
            return
        self._forget_awaited(peer.peer_id)
        left = len(SHOW_WAITS_S)

        def take(data: bytes, source: CoreEndpoint, local: bytes) -> None:
            nonlocal left
            if len(data) != PROBE_BYTES:
                return
            cookie, at = self._shown.get(peer.peer_id, (NO_COOKIE, None))
            if at != source:
                cookie = random_bytes(len(NO_COOKIE))
                self._shown[peer.peer_id] = cookie, source
            control.send_raw(self._node._engines[0], _probe(token, cookie), source, local)
            left -= 1
            if not left:
                self._forget_awaited(peer.peer_id)

        try:
            self._node._expected.add(token, take)
        except errors.LocalError as error:
            logger.info("%s cannot show another address now: %s", peer.peer_id, error)
            return
        timer = asyncio.get_running_loop().call_later(SHOWN_S, self._forget_awaited, peer.peer_id)
        self._awaited[peer.peer_id] = token, timer

    def _forget_awaited(self, peer_id: PeerId) -> None:
        if peer_id in self._awaited:
            token, timer = self._awaited.pop(peer_id)
            timer.cancel()
            self._node._expected.remove(token)

    def _allows(self, peer: Peer) -> bool:
        allowed = self._allowed.setdefault(peer.peer_id, Allowance(PROBES_PER_S, PROBES_BURST))
        return allowed.take(1, asyncio.get_running_loop().time())

    def forget(self, peer: Peer) -> None:
        """A peer is gone."""
        self._allowed.pop(peer.peer_id, None)
        self._shown.pop(peer.peer_id, None)
        self._forget_awaited(peer.peer_id)
        for timer in self._pending.pop(peer.peer_id, ()):
            timer.cancel()

    def _later(self, peer: Peer, delay_ms: int, send: Callable[[], object]) -> None:
        if not delay_ms:
            send()
            return

        def run() -> None:
            pending.discard(timer)
            send()

        pending = self._pending.setdefault(peer.peer_id, set())
        if len(pending) < MAX_PENDING:
            timer = asyncio.get_running_loop().call_later(min(delay_ms, MAX_DELAY_MS) / 1000, run)
            pending.add(timer)

    def _send(self, token: bytes, target: CoreEndpoint) -> None:
        control.send_raw(self._node._engines[0], _probe(token), target, ANY_ADDRESS)

    def _send_from_other_port(self, token: bytes, target: CoreEndpoint) -> None:
        is_ipv6 = ":" in Endpoint.from_core(target).host
        try:
            socket = self._node._driver.open_sockets(1, is_ipv6, _ignore)[0]
        except (OSError, ValueError, errors.LocalError) as error:
            logger.info("no other port to send a probe from: %s", error)
            return
        socket.send(_probe(token), target)
        socket.close()

    def close(self) -> None:
        """Send nothing more."""
        for timer in [timer for pending in self._pending.values() for timer in pending]:
            timer.cancel()
        self._pending.clear()
        for peer_id in tuple(self._awaited):
            self._forget_awaited(peer_id)


def _probe(token: bytes, cookie: bytes = NO_COOKIE) -> bytes:
    return (bytes([PROBE, PROBE_VERSION]) + token + cookie).ljust(PROBE_BYTES, b"\0")


def _setter(event: asyncio.Event) -> Callable[[bytes, CoreEndpoint, bytes], None]:
    def set_it(_data: bytes, _source: CoreEndpoint, _local: bytes) -> None:
        event.set()

    return set_it


def _ignore(_socket: ExtraSocket, _data: bytes, _source: CoreEndpoint) -> None:
    """Take no notice of what comes to a socket that was opened to send."""
