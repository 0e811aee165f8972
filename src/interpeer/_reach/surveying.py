"""Finding out what NAT is in front of us, with peers as helpers (docs/spec, chapter 23)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from interpeer._address import IPV4_MAPPED, Endpoint
from interpeer._core.natfacts import NatFacts
from interpeer._nat import NatReport, NodeHooks, Server, discover, mapping_lifetime, newest_port
from interpeer._reach.peers import Peers, is_same_family
from interpeer._reach.probing import Prober
from interpeer._reach.tasks import Tasks

if TYPE_CHECKING:
    from interpeer._node import Node

logger = logging.getLogger("interpeer")

SETTLE_S = 0.05
"""After a peer has come others often follow: a survey with two or three tells more than one with one."""
AGAIN_S = 600.0
"""How long a survey holds, unless the network changes."""
ENOUGH_SERVERS = 3
MAX_AGE_MS = 0xFFFFFFFF
"""Of the last port, in four bytes: 50 days."""
KEEP_ALIVE_S = 15.0
"""Between two packets on a path at the least: below the 30 s after which the hastiest NATs forget (RFC 4787, REQ-5 wants 2
minutes), until it is known how long ours remembers."""
MOST_KEEP_ALIVE_S = 20.0
"""A path that is dead is to be missed soon, however long its NAT remembers it."""
OF_LIFETIME = 0.7
"""A keep-alive may be lost, and the peer's timer be late."""
LIFETIME_AFTER_S, LIFETIME_BUDGET_S = 5.0, 60.0
"""When it is measured how long mappings live, and how long that may take: what is longer makes no difference."""


def facts_of(report: NatReport, last_port: int, age_ms: int) -> NatFacts:
    """Return what a peer has to know of a report in order to punch: with the newest port where ports follow each other.

    One observer cannot tell on what a mapping depends, and two that agree where a third does not may have seen the same port by
    chance. But a NAT that changes ports mostly does so for each destination, and to try what that needs costs nothing where the
    plain punch works, which comes first."""
    if report.udp is False:
        return NatFacts(is_udp_blocked=True)
    mapping = report.mapping
    if mapping == "unknown" and report.preserves_port is not None:
        mapping = "endpoint-independent" if report.preserves_port else "address-and-port-dependent"
    if mapping == "endpoint-independent" and report.is_disputed and report.preserves_port is False:
        mapping = "address-and-port-dependent"
    if report.preserves_port:
        return NatFacts(mapping, report.filtering, "preserved")
    if report.port_step and last_port:
        return NatFacts(mapping, report.filtering, "sequential", step=report.port_step, last_port=last_port, age_ms=age_ms)
    if report.port_block:
        return NatFacts(mapping, report.filtering, "block", block=report.port_block)
    return NatFacts(mapping, report.filtering, "unknown" if report.preserves_port is None else "random")


@final
class Surveyor:
    """Survey the NAT in front of the node when peers come and when the network changes."""

    def __init__(
        self, node: Node, peers: Peers, tasks: Tasks, on_report: Callable[[], None], on_lifetime: Callable[[], None]
    ) -> None:
        self._node = node
        self._peers = peers
        self._tasks = tasks
        self._on_report = on_report
        self._on_lifetime = on_lifetime
        self._measuring: asyncio.Task[None] | None = None
        self._lifetime_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked = 0
        self.report: NatReport | None = None
        """What the last survey has found."""
        self._is_stale = False
        self._last_port = 0
        self._last_port_s = 0.0

    def handle_peer(self) -> None:
        """A peer has come that may help."""
        if self._asked < ENOUGH_SERVERS:
            self._begin_in(SETTLE_S)

    def handle_network_change(self) -> None:
        """What was found may not hold any more."""
        self._asked = 0
        self._is_stale = True
        if self._measuring is not None:
            self._measuring.cancel()
            self._measuring = None
        self._set_lifetime(None)
        self._begin_in(SETTLE_S)

    def _begin_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = self._tasks.start(self._survey())
        else:
            self._begin_in(1.0)

    def servers(self) -> list[Server]:
        """Return peers that we have called, since those have addresses of their own: of IPv4, where NATs are, if there is one."""
        found: list[Server] = []
        for peer in self._peers:
            address = self._peers.address_of(peer)
            if address is None:
                continue
            usable = [one for one in address.endpoints if one.transport == "udp" and not one.is_loopback]
            usable = [one for one in usable if self._node._driver.can_reach(one)]
            first = min(usable, key=lambda one: ":" in one.host, default=None)
            if first is not None:
                found.append(Server(first.to_core(), peer))
        return found[:ENOUGH_SERVERS]

    def servers_seeing(self, endpoint: Endpoint) -> list[Server]:
        """Return those that have seen us at the host of an endpoint of ours."""
        if endpoint.host not in {one.host for one in self.reflexive}:
            return []
        return [one for one in self.servers() if is_same_family(one.endpoint, endpoint.to_core())]

    async def _survey(self) -> None:
        servers = self.servers()
        self._asked = len(servers)
        if self._node._tunnels.udp_is_blocked:  # to ask servers in vain takes seconds more
            self._take(NatReport(udp=False, notes=("peers are reached over TCP alone",)))
        if not servers:
            return
        self._take(await self.look(servers, on_progress=self._take))
        if self.facts.mapping != "none" and self._measuring is None:
            self._measuring = self._tasks.start(self._measure_lifetime(servers[0]))
        if self._timer is None:
            self._begin_in(AGAIN_S)

    async def _measure_lifetime(self, server: Server) -> None:
        """Find out how long our NAT remembers a mapping in silence: so often paths have to say something."""
        await asyncio.sleep(LIFETIME_AFTER_S)
        self._set_lifetime(await mapping_lifetime(NodeHooks(self._node), server, LIFETIME_BUDGET_S))

    def _set_lifetime(self, lifetime_s: float | None) -> None:
        before, self._lifetime_s = self.keep_alive_s, lifetime_s
        if self.keep_alive_s != before:
            self._on_lifetime()

    @property
    def keep_alive_s(self) -> float:
        """How often a path has to say something for our NAT to remember it."""
        return KEEP_ALIVE_S if self._lifetime_s is None else min(self._lifetime_s * OF_LIFETIME, MOST_KEEP_ALIVE_S)

    async def look(
        self, servers: Sequence[Server], lifetime_budget_s: float = 0.0, on_progress: Callable[[NatReport], None] | None = None
    ) -> NatReport:
        """Find out what these servers show, peers among them; the lifetime of mappings too, if there is time for it."""
        own = [endpoint.to_core() for endpoint in self._node._driver.endpoints]
        async with Prober(self._node) as prober:
            return await discover(
                NodeHooks(self._node),
                servers,
                own=own,
                prober=prober,
                lifetime_budget_s=lifetime_budget_s,
                on_progress=on_progress,
            )

    def _take(self, report: NatReport) -> None:
        """Take a report, and say so if it changes what can be tried."""
        before = self.facts.side
        self._is_stale = False
        self.report = report
        if not self._last_port:
            self._note_port(max((at[1] for peer in self._peers if (at := peer.observed) is not None), default=0))
        logger.info("NAT: %s", report)
        if self.facts.side != before:
            self._on_report()

    @property
    def facts(self) -> NatFacts:
        """What a peer has to know in order to punch."""
        if self.report is None:
            return NatFacts("none") if self._is_seen_as_it_is else NatFacts()
        return facts_of(self.report, self._last_port, min(round((self._now() - self._last_port_s) * 1000), MAX_AGE_MS))

    @property
    def _is_seen_as_it_is(self) -> bool:
        """Whether the node's IPv4 addresses are its own outside, too, as far as can be told before any survey: peers have seen it
        there, or have not seen it by IPv4 at all and its addresses are of those that all hosts reach."""
        seen = {at for peer in self._peers if (at := peer.observed) is not None and at[0].startswith(IPV4_MAPPED)}
        own = [endpoint for endpoint in self._node._driver.endpoints if ":" not in endpoint.host and not endpoint.is_loopback]
        if not seen:
            return bool(own) and all(endpoint.is_global for endpoint in own)
        return seen <= {endpoint.to_core() for endpoint in own}

    @property
    def reflexive(self) -> tuple[Endpoint, ...]:
        """Where servers have seen the node's own socket."""
        return () if self.report is None or self._is_stale else self.report.reflexive

    @property
    def is_hard(self) -> bool:
        """Whether our NAT gives each destination another port, as far as is known."""
        return self.facts.mapping in ("address-dependent", "address-and-port-dependent")

    async def refresh(self) -> None:
        """Where ports follow each other, look which one is the newest: in a minute a NAT gives out many."""
        servers = self.servers()
        if self.facts.allocation == "sequential" and servers:
            port = await newest_port(NodeHooks(self._node), servers[0])
            if port is not None:
                self._note_port(port)

    def _note_port(self, port: int) -> None:
        self._last_port, self._last_port_s = port, self._now()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def close(self) -> None:
        """End a survey."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
