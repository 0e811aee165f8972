"""A case between two real processes, with the link of tests/net between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import interpeer
from benchmarks.interop import programs
from benchmarks.interop.cases import CASES, Case, Facts
from benchmarks.interop.version import first_message, is_versions_reply
from interpeer import Address, Config, Endpoint, Node
from interpeer._bench.end import Control, run
from interpeer._bench.process import End
from interpeer._run import loop_factory
from tests.net.udplink import UdpLink

TIMEOUT_S = 240.0
ANSWER_S = 2.0
HOSTS = {False: "127.0.0.1", True: "::1"}
COMPETITOR = "benchmarks.interop.competitor"
_HERE = __name__


def run_between_processes(case: Case, seed: int) -> Facts:
    """Run a case; return what both ends and the link have seen. Raises EndFailed."""
    with contextlib.ExitStack() as stack:
        called = stack.enter_context(End(f"{_HERE}:serve", timeout_s=TIMEOUT_S, name=case.name))
        address = Address(called.receive()["address"])
        also, other = [], None
        if case.competitor:
            sender = stack.enter_context(End(f"{COMPETITOR}:send", timeout_s=TIMEOUT_S))
            also = [("127.0.0.1", sender.receive()["port"])]
        target = address.endpoints[0]
        link = stack.enter_context(UdpLink((target.host, target.port), case.link, seed=seed, also=also))
        facts = _ask_for_version(link, address.peer_id) if case.asks_for_version else {}
        if case.competitor:
            other = stack.enter_context(End(f"{COMPETITOR}:receive", timeout_s=TIMEOUT_S, port=link.ports[1]))
        _set_up(link, case)
        here = Address.of(address.peer_id, [Endpoint(link.host, link.port)])
        caller = stack.enter_context(End(f"{_HERE}:dial", timeout_s=TIMEOUT_S, name=case.name, address=str(here)))
        facts |= caller.receive()
        if other is not None:
            other.stop()
            facts |= _shares(facts, other.receive())
        called.stop()
        facts |= called.receive()
        caller.stop()
        caller.wait()
        return facts | _link_facts(link)


def _set_up(link: UdpLink, case: Case) -> None:
    if case.drops is not None:
        link.drop("up", *case.drops)
    link.schedule(case.steps, every_s=case.every_s)
    if case.rebinding is not None:
        link.rebind(address=case.rebinding.address, after_s=case.rebinding.first_s, every_s=case.rebinding.every_s)
    if case.moves:
        link.rebind(address=True, after_s=0.5)


def _link_facts(link: UdpLink) -> Facts:
    stats = link.stats()
    ways = stats["up"], stats["down"]
    if stats["unproven_excess_bytes"]:
        raise AssertionError(
            f"{stats['unproven_excess_bytes']} bytes more than had come went to an address that had proved nothing"
        )
    return {
        "marked": sum(way["marked"] for way in ways),
        "queue_full": sum(way["queue_full"] for way in ways),
        "lost": sum(way["lost"] for way in ways),
        "rebinds": stats["rebinds"],
        "link_late_by_1_ms": sum(way["late_by_1_ms"] for way in ways),
        "link_late_max_ms": max(way["late_max_ns"] for way in ways) / 1e6,
        "link_cpu_s": stats["cpu_s"],
    }


def _ask_for_version(link: UdpLink, peer: interpeer.PeerId) -> Facts:
    """Send a first message of another version, and see what comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(ANSWER_S)
        message = first_message(peer)
        sock.sendto(message, (link.host, link.port))
        try:
            reply = sock.recv(65536)
        except TimeoutError:
            return {"versions_told": False, "versions_room_bytes": len(message)}
    return {"versions_told": is_versions_reply(reply, message, peer), "versions_room_bytes": len(message) - len(reply)}


def _shares(facts: Facts, other: Facts) -> dict[str, Any]:
    """Compare with what the other transfer had; it began a moment before and ended a moment later."""
    rate = other["bytes"] * 8e-6 / other["seconds"]
    return {"tcp_mbit_per_s": rate, "share": facts["mbit_per_s"] / (facts["mbit_per_s"] + rate)}


# --- the two ends ---


def serve(control: Control, *, name: str) -> Facts | None:
    programs.prepare(CASES[name])
    return run(_serve(control, CASES[name]), uvloop=loop_factory() is not None)


def dial(control: Control, *, name: str, address: str) -> Facts | None:
    return run(_dial(control, CASES[name], Address(address)), uvloop=loop_factory() is not None)


def _listen(case: Case) -> str:
    host = HOSTS[case.is_ipv6]
    return f"[{host}]:0" if case.is_ipv6 else f"{host}:0"


async def _serve(control: Control, case: Case) -> Facts:
    async with Node(listen=_listen(case), config=Config(**case.config)) as node:
        control.tell(address=str(node.address))
        serving = asyncio.create_task(programs.serve(node))
        stopped = asyncio.create_task(control.stopped())
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        facts = programs.called_facts(node)
        serving.cancel()
        return facts


async def _dial(control: Control, case: Case, address: Address) -> None:
    async with Node(listen=_listen(case), config=Config(**case.config)) as node:
        control.tell(**await programs.call(node, address, case))
        await control.stopped()
