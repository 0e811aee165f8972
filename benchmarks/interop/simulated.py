"""A case in the simulator, from a seed."""

from __future__ import annotations

import asyncio
from typing import Any

import interpeer
from benchmarks.interop import programs
from benchmarks.interop.cases import Case, Facts
from interpeer import Endpoint
from interpeer.testing import Fate, Host, Link, Packet, SimNet, TcpFlow, run

FAR, NEAR = "11.0.2.1", "11.0.1.1"
HOME = Link(delay_s=0.005)
"""The part of the way that is behind the caller's NAT, where there is one."""
UNTIL_S = 600.0


def simulate(case: Case, seed: int) -> Facts:
    """Run a case; return what both ends and the link have seen. Raises what goes wrong, Amplified included."""
    facts: Facts = run(_main(case), seed=seed, until_s=UNTIL_S)
    return facts


async def _main(case: Case) -> Facts:
    net = SimNet(case.link)
    near, far, others = _hosts(net, case)
    if case.drops is not None:
        net.intercept(_Dropper(near, *case.drops))
    config = interpeer.Config(**case.config)
    async with near.node(config=config) as caller, far.node(config=config) as called:
        serving = asyncio.create_task(programs.serve(called))
        facts = await _ask_for_version(net, near, called) if case.asks_for_version else {}
        flow = TcpFlow(others[1], others[0]) if case.competitor else None
        for pair in ((near, far), (far, near)):
            if case.steps:
                net.wire(*pair).schedule(case.steps, every_s=case.every_s)
        calling = asyncio.create_task(programs.call(caller, called.address, case))
        if case.rebinding:
            near.rebind(address=case.rebinding.address, after_s=case.rebinding.first_s, every_s=case.rebinding.every_s)
        if case.moves:
            await asyncio.sleep(0.5)
            near.move("11.0.1.2")
        facts |= await calling
        if flow is not None:
            facts |= _shares(facts, flow)
            flow.stop()
        facts |= programs.called_facts(called)
        serving.cancel()
    return facts | {"marked": sum(net.wire(*pair).stats.marked for pair in ((near, far), (far, near)))}


def _hosts(net: SimNet, case: Case) -> tuple[Host, Host, list[Host]]:
    if case.is_ipv6:
        return net.host("near", "2a00::1"), net.host("far", "2a00:0:1::1"), []
    behind = {}
    if case.rebinding:
        behind = {"up": HOME, "down": HOME}
    near, far = net.host("near", NEAR, **behind), net.host("far", FAR)
    if case.rebinding:
        for pair in ((near, far), (far, near)):
            net.wire(*pair).set(delay_s=case.link.delay_s - HOME.delay_s)
    others = []
    if case.competitor:
        others = [net.host("other near", "11.0.3.1"), net.host("other far", "11.0.4.1")]
        net.bottleneck(case.link, [near, others[0]], [far, others[1]])
        net.bottleneck(case.link, [far, others[1]], [near, others[0]])
    return near, far, others


class _Dropper:
    """Lose packets of a host by their number."""

    def __init__(self, host: Host, first: int, last: int) -> None:
        self._host = host
        self._numbers = range(first, last + 1)
        self._count = 0

    def __call__(self, packet: Packet) -> tuple[Packet, ...] | None:
        if packet.sender is not self._host:
            return None
        self._count += 1
        return () if self._count in self._numbers else None


async def _ask_for_version(net: SimNet, near: Host, called: interpeer.Node) -> Facts:
    """Send a first message of another version, and see what comes back."""
    from benchmarks.interop.version import first_message, is_versions_reply

    answers: list[Fate] = []
    net.observe(lambda fate: answers.append(fate) if fate.kind == "versions" else None)
    seen: list[bytes] = []
    stop = net.intercept(lambda packet: seen.append(packet.data) if packet.sender is not near else None)
    message = first_message(called.id)
    net.inject(Packet.of(message, Endpoint(NEAR, 5), called.address.endpoints[0]))
    await asyncio.sleep(0.2)
    stop()
    replies = [data for data in seen if is_versions_reply(data, message, called.id)]
    return {"versions_told": bool(replies), "versions_room_bytes": len(message) - max(map(len, replies), default=0)}


def _shares(facts: Facts, flow: TcpFlow) -> dict[str, Any]:
    """Compare with what the other transfer had in the same time."""
    other = flow.received_bytes * 8e-6 / facts["seconds"]
    return {"tcp_mbit_per_s": other, "share": facts["mbit_per_s"] / (facts["mbit_per_s"] + other)}
