"""NAT behaviour discovery in the sense of RFC 5780, with two or three peers in the server's role (docs/spec, chapter 23).

The tests are independent of each other as far as NATs are: filtering, hairpinning and lifetime use sockets of their own, which
have sent to nobody but the one server that the test is about. What is concluded from the answers stands in `_judge`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint
from interpeer._core import stun
from interpeer._nat import _judge
from interpeer._nat._client import TOKEN_BYTES, StunClient, has_answered
from interpeer._nat._hooks import Hooks, How, Prober, Server, Socket
from interpeer._nat._judge import QUORUM, Observation, prefix
from interpeer._nat._lifetime import LifetimeSearch
from interpeer._nat._report import Behaviour, NatReport

MAX_SERVERS = 8
"""Asked in one discovery: more than a quorum and a few liars."""
SAMPLE_SOCKETS = 4
"""Fresh sockets, each of which asks every server, for the ports of mappings."""
TRIES = 4
LAST_WAIT = 3
"""A server that is silent for 5 s is not there (500 ms, doubled twice, and three times that)."""
ABSENT_TRIES = 3
ABSENT_WAIT = 2
"""The same where no answer is the answer that is expected: 2.5 s."""
PROBE_WAIT_S = 2.0
"""For a probe that a peer has promised."""
HAIRPIN_TRIES = 3
HAIRPIN_GAP_S = 0.3


@final
@dataclass(slots=True)
class _Findings:
    """What is known so far."""

    observations: list[Observation] = field(default_factory=list[Observation])
    """Of the node's own socket."""
    samples: list[Observation] = field(default_factory=list[Observation])
    """Of fresh sockets, in the order in which the mappings were made."""
    answering: list[Server] = field(default_factory=list[Server])
    others: dict[CoreEndpoint, CoreEndpoint] = field(default_factory=dict[CoreEndpoint, CoreEndpoint])
    """Of servers that have another address and port (RFC 5780), and have answered from there as well."""
    notes: list[str] = field(default_factory=list[str])


async def discover(
    hooks: Hooks,
    servers: Sequence[Server],
    *,
    own: Collection[CoreEndpoint] = (),
    prober: Prober | None = None,
    lifetime_budget_s: float = 0.0,
    on_progress: Callable[[NatReport], None] | None = None,
) -> NatReport:
    """Find out what NATs are in front of this node, with the help of servers of one address family.

    own: the addresses of the node's own sockets; a mapping to one of them is none.
    prober: has peers send probes, for what plain STUN servers do not do.
    lifetime_budget_s: how long the search for the lifetime of mappings may take; 0: there is none. It goes on beside the
    other tests.
    on_progress: is told what observers have seen, after some round trips; what has to be tried takes seconds more."""
    servers = _distinct(servers)
    if not servers:
        return NatReport(notes=("nobody was asked",))
    is_ipv6 = not servers[0].endpoint[0].startswith(IPV4_MAPPED)
    found = _Findings()
    with StunClient(hooks) as client:
        main = client.open(is_ipv6=is_ipv6, is_main=True)
        await _observe(client, main, servers, found)
        if not found.answering:
            return NatReport(udp=False, notes=("none of those asked has answered",))
        mapping, doubts = _judge.mapping(found.observations, own)
        trusted = _judge.trusted(found.observations)
        found.answering = [one for one in found.answering if one.endpoint in trusted] or found.answering
        await _sample(client, is_ipv6, found)
        report = _report(found, mapping, doubts)
        if on_progress is not None:
            on_progress(report)
        filtering, hairpin, lifetime_s = await asyncio.gather(
            _filtering(client, is_ipv6, found, prober),
            _hairpin(client, is_ipv6, found),
            _lifetime(client, is_ipv6, found, lifetime_budget_s),
        )
    return replace(
        report,
        filtering=_judge.filtering(None if mapping == "unknown" else mapping != "none", *filtering),
        hairpin=hairpin,
        lifetime_s=lifetime_s,
        notes=tuple(dict.fromkeys([*doubts, *found.notes])),
    )


def _report(found: _Findings, mapping: Behaviour, doubts: Sequence[str]) -> NatReport:
    """Return what observers tell: all but what has to be tried."""
    ports = _judge.fresh_ports(found.samples)
    preserves = _judge.preserves_port(found.samples)
    step = None if preserves else _judge.port_step(ports)
    return NatReport(
        mapping=mapping,
        port_step=step,
        port_block=None if preserves or step is not None else _judge.port_block(ports),
        preserves_port=preserves,
        reflexive=tuple(Endpoint.from_core(one) for one in _judge.reflexive(found.observations)),
        udp=True,
        is_disputed=_judge.is_disputed(found.observations),
        notes=tuple(dict.fromkeys([*doubts, *found.notes])),
    )


async def newest_port(hooks: Hooks, server: Server) -> int | None:
    """Return the port that a fresh mapping has got just now: where ports follow each other, the next ones can be told."""
    with StunClient(hooks) as client:
        try:
            socket = client.open(is_ipv6=not server.endpoint[0].startswith(IPV4_MAPPED))
        except OSError:
            return None
        mapped = (await client.ask(socket, server.endpoint, tries=TRIES, last_wait=LAST_WAIT)).mapped
    return None if mapped is None else mapped[1]


async def mapping_lifetime(hooks: Hooks, server: Server, budget_s: float) -> float | None:
    """Return the longest silence that mappings have lived through, of those up to `budget_s`; None: it could not be seen."""
    found = _Findings()
    found.answering = [server]
    with StunClient(hooks) as client:
        return await _lifetime(client, not server.endpoint[0].startswith(IPV4_MAPPED), found, budget_s)


def _distinct(servers: Sequence[Server]) -> list[Server]:
    """Return servers of one family, IPv4 if there are any, of which those in prefixes of their own come first."""
    ipv4 = [one for one in servers if one.endpoint[0].startswith(IPV4_MAPPED)]
    unique: dict[tuple[bytes, int], Server] = {}
    for one in ipv4 or servers:
        unique.setdefault(one.endpoint[:2], one)
    family = list(unique.values())
    first = {prefix(one.endpoint[0]): one for one in reversed(family)}
    leading = [one for one in family if first[prefix(one.endpoint[0])] is one]
    return [*leading, *(one for one in family if one not in leading)][:MAX_SERVERS]


# --- mapping ---


async def _observe(client: StunClient, main: Socket, servers: Sequence[Server], found: _Findings) -> None:
    """Ask everybody from the node's own socket, and the second addresses of those that have one."""
    asked = [client.ask(main, one.endpoint, tries=TRIES, last_wait=LAST_WAIT) for one in servers]
    others: list[tuple[CoreEndpoint, CoreEndpoint]] = []
    for server, result in zip(servers, await asyncio.gather(*asked), strict=True):
        if has_answered(result):
            found.answering.append(server)
        if result.mapped is not None:
            found.observations.append(Observation(server.endpoint, result.mapped, main.port))
        if result.message is not None and result.message.other is not None and _is_other(server, result.message.other):
            others.append((server.endpoint, result.message.other))
    if not others:
        return
    primary, other = others[0]  # one pair shows what a NAT does; more would be more packets for the same
    places = [(other[0], primary[1], 0), (primary[0], other[1], 0), other]
    asked = [client.ask(main, place, tries=TRIES, last_wait=LAST_WAIT) for place in places]
    results = await asyncio.gather(*asked)
    for place, result in zip(places, results, strict=True):
        if result.mapped is not None:
            found.observations.append(Observation(place, result.mapped, main.port))
    if all(result.mapped is not None for result in results):
        found.others[primary] = other


def _is_other(server: Server, other: CoreEndpoint) -> bool:
    """Tell whether a server names an address for us to call that may be its own: public like it, and both parts different."""
    own = server.endpoint
    endpoint, first = Endpoint.from_core(other), Endpoint.from_core(own)
    is_group = ipaddress.ip_address(endpoint.host).is_multicast
    is_like = not is_group and (endpoint.is_private, endpoint.is_loopback) == (first.is_private, first.is_loopback)
    return is_like and other[0] != own[0] and other[1] != own[1] and (":" in endpoint.host) == (":" in first.host)


async def _sample(client: StunClient, is_ipv6: bool, found: _Findings) -> None:
    """Make mappings one after the other, from fresh sockets, to learn which ports they get.

    All are asked for at once: in a round trip a NAT gives many ports to others."""
    sockets: list[Socket] = []
    for _ in range(SAMPLE_SOCKETS):
        try:
            sockets.append(client.open(is_ipv6=is_ipv6))
        except OSError as error:
            found.notes.append(f"no more sockets: {error.strerror or error}")
            break
    asked = [(socket, server) for socket in sockets for server in found.answering]
    results = await asyncio.gather(
        *(client.ask(socket, server.endpoint, tries=ABSENT_TRIES, last_wait=ABSENT_WAIT) for socket, server in asked)
    )
    for (socket, server), result in zip(asked, results, strict=True):
        if result.mapped is not None:
            found.samples.append(Observation(server.endpoint, result.mapped, socket.port))
    for socket in sockets:
        client.close(socket)


# --- filtering ---


async def _filtering(
    client: StunClient, is_ipv6: bool, found: _Findings, prober: Prober | None
) -> tuple[bool | None, bool | None]:
    """Return whether packets come in from another address, and from another port, than we have sent to."""
    from_address: bool | None = None
    from_port: bool | None = None
    for server in _willing(found, prober):
        try:
            socket = client.open(is_ipv6=is_ipv6)
        except OSError:
            break
        opened = await client.ask(socket, server.endpoint, tries=TRIES, last_wait=LAST_WAIT)
        if opened.mapped is not None:
            test = _Filter(client, socket, server, opened.mapped, prober, found.others.get(server.endpoint))
            from_address = _either(from_address, await test.is_open(stun.CHANGES_ADDRESS | stun.CHANGES_PORT, "other peer"))
            if not from_address:  # the order matters: whatever comes in may open the way for more
                from_port = _either(from_port, await test.is_open(stun.CHANGES_PORT, "other port"))
        client.close(socket)
        if from_address or (from_port and from_address is not None):
            break
    if from_address is None and from_port is None:
        found.notes.append("nobody could send us anything from where we have not sent to: filtering is not known")
    return from_address, from_port


def _willing(found: _Findings, prober: Prober | None) -> list[Server]:
    """Return those who can help, two at the most: who says that he has sent may lie, but not all of them."""
    able = [one for one in found.answering if one.endpoint in found.others or (one.peer is not None and prober is not None)]
    return able[:QUORUM]


def _either(before: bool | None, now: bool | None) -> bool | None:
    """One packet that came through proves more than any number that did not."""
    return now if before is None else before if now is None else before or now


@final
@dataclass(frozen=True, slots=True)
class _Filter:
    """The tests of one fresh socket, that has sent to one server alone."""

    client: StunClient
    socket: Socket
    server: Server
    mapped: CoreEndpoint
    prober: Prober | None
    other: CoreEndpoint | None

    async def is_open(self, change: int, how: How) -> bool | None:
        """Tell whether a packet from elsewhere comes in, by the server's other addresses, or by a probe; None: not known.

        That the server does answer from its other addresses has been seen before (erratum 7971 of RFC 5780): else its
        silence would mean nothing."""
        primary = self.server.endpoint
        if self.other is not None:
            source = self.other if change & stun.CHANGES_ADDRESS else (primary[0], self.other[1], 0)
            result = await self.client.ask(
                self.socket, primary, change=change, answers_from=source, tries=ABSENT_TRIES, last_wait=ABSENT_WAIT
            )
            return result.mapped is not None
        if self.prober is None or self.server.peer is None:
            return None
        token = self.client.hooks.random_bytes(TOKEN_BYTES)
        with self.client.watch(token) as sources:
            if not await self.prober.probe(self.server, how, token, self.mapped[1]):
                return None
            await self.client.arrival(token, PROBE_WAIT_S)
            return any(self._is_from_elsewhere(one, change) for one in sources)

    def _is_from_elsewhere(self, source: CoreEndpoint, change: int) -> bool:
        """Tell whether a probe shows what it should: it may have come from where we have sent to."""
        primary = self.server.endpoint
        return source[0] != primary[0] if change & stun.CHANGES_ADDRESS else source[1] != primary[1]


# --- hairpinning ---


async def _hairpin(client: StunClient, is_ipv6: bool, found: _Findings) -> bool | None:
    """Send from each of two sockets to the address that the other has outside: the one opens the way for the other."""
    server = found.answering[0]
    try:
        sockets = [client.open(is_ipv6=is_ipv6), client.open(is_ipv6=is_ipv6)]
    except OSError:
        return None
    asked = [client.ask(one, server.endpoint, tries=TRIES, last_wait=LAST_WAIT) for one in sockets]
    near, far = (result.mapped for result in await asyncio.gather(*asked))
    if near is None or far is None or not _is_plausible(near, found) or not _is_plausible(far, found):
        return None
    transaction = client.hooks.random_bytes(12)
    with client.watch(transaction):
        for _ in range(HAIRPIN_TRIES):
            sockets[0].send(stun.binding_request(transaction), far)
            sockets[1].send(stun.binding_request(transaction), near)
            if await client.arrival(transaction, HAIRPIN_GAP_S):
                return True
    return False


def _is_plausible(mapped: CoreEndpoint, found: _Findings) -> bool:
    """Tell whether it is a host of ours: a server that lies must not choose whom we send to."""
    if len({prefix(one.server[0]) for one in found.observations}) < QUORUM:
        return False
    return mapped[0] in {one[0] for one in _judge.reflexive(found.observations)}


# --- lifetime ---


async def _lifetime(client: StunClient, is_ipv6: bool, found: _Findings, budget_s: float) -> float | None:
    """Search for how long a mapping lives without traffic."""
    search = LifetimeSearch(budget_s)
    while silences := search.next_round():
        started_ns = client.hooks.now_ns()
        tasks = [asyncio.ensure_future(_outlives(client, is_ipv6, found.answering[0], one)) for one in silences]
        try:
            for silence_s, task in zip(silences, tasks, strict=True):
                is_alive = await task
                if is_alive is None:
                    found.notes.append("how long mappings live could not be tried to the end")
                    return search.alive_s
                search.handle(silence_s, is_alive)
                if not is_alive:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        search.handle_round((client.hooks.now_ns() - started_ns) / 1e9)
    if search.alive_s is not None and search.dead_s is None:
        found.notes.append("mappings live longer than was tried")
    return search.alive_s


async def _outlives(client: StunClient, is_ipv6: bool, server: Server, silence_s: float) -> bool | None:
    """Tell whether a mapping works after a silence: the server answers to its port what another socket asks (RFC 5780, 4.6).

    So nothing leaves the socket itself, which would refresh the mapping, or make a new one."""
    try:
        silent = client.open(is_ipv6=is_ipv6)
    except OSError:
        return None
    try:
        opened = await client.ask(silent, server.endpoint, tries=TRIES, last_wait=LAST_WAIT)
        if opened.mapped is None:
            return None
        await asyncio.sleep(silence_s)
        return await _is_alive(client, is_ipv6, server, opened.mapped)
    finally:
        client.close(silent)


async def _is_alive(client: StunClient, is_ipv6: bool, server: Server, mapped: CoreEndpoint) -> bool | None:
    """Ask a server, from a socket of its own, to answer to a port of ours; None: it is not known what silence means."""
    try:
        asking = client.open(is_ipv6=is_ipv6)
    except OSError:
        return None
    try:
        there = await client.ask(asking, server.endpoint, response_port=mapped[1], tries=ABSENT_TRIES, last_wait=ABSENT_WAIT)
        if there.mapped is not None:
            return True
        here = await client.ask(asking, server.endpoint, tries=ABSENT_TRIES, last_wait=ABSENT_WAIT)
        if has_answered(there) or here.mapped is None or here.mapped[0] != mapped[0]:
            return None  # the server does not do it, does not answer any more, or we have another host outside now
        return False
    finally:
        client.close(asking)
