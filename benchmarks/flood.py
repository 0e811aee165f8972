"""What a flood of strangers does to a node: python -m benchmarks.flood [--rate N] [--gbit G] [--seconds S] [--json]

Three processes on loopback: a node that serves a stream and whoever comes, a peer that sends on that stream as much as a
link of so many Gbit/s takes and now and then connects anew, and one that sends first messages with a right mac1 from random
addresses of 127.0.0.0/8, which is all that a stranger can do who knows the node's key. Linux alone takes such sources.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import select
import socket
import statistics
import struct
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from interpeer import Address, Config, Connection, Node, Stream
from interpeer._bench.end import Control, Facts, resident_bytes, run
from interpeer._bench.process import End
from interpeer._core import control, engine
from interpeer._run import loop_factory
from interpeer.errors import NetworkError

RATE, SECONDS = 20_000, 4.0
LINK_GBIT = 1.0  # with more, the three processes take the processors from each other, and that is what would be measured
SETTLE_S = 0.5
NEWCOMERS_PER_S = 10.0
CHUNK_BYTES = 1 << 20
PIECE_BYTES = 1 << 17
MARK = struct.Struct(">QQ")  # bytes received, resident bytes
INITS = 2048
PROTOCOL = b"interpeer/1"
SOCKETS = 16
BURST = 32
IP_PKTINFO = 8
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Goal:
    """A line of the result, and what is wanted of it."""

    figure: str
    label: str
    form: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f">= {self.at_least:{self.form}}" if self.at_least is not None else f"<= {self.at_most:{self.form}}"


GOALS = (
    Goal("goodput_kept", "share of its goodput that the connection keeps", ".0%", at_least=0.8),
    Goal("memory_mib", "growth of the node's memory, MiB", ".1f", at_most=8),
    Goal("newcomer_p99_s", "an honest newcomer connects, p99, s", ".3f", at_most=2),
    Goal("newcomers_failed", "newcomers that do not get in", ".0f", at_most=0),
    Goal("largest_reply_bytes", "largest reply to 1,200 bytes, bytes", ".0f", at_most=1200),
    Goal("amplification", "bytes of replies for each byte of the flood", ".3f", at_most=1),
)


# --- the node ---


def serve(control_: Control, *, loop: str) -> Facts | None:
    return run(_serve(control_), uvloop=loop == "uvloop")


async def _serve(control_: Control) -> Facts:
    received = 0

    async def take(stream: Stream, buffer: bytearray) -> None:
        nonlocal received
        while size := await stream.readinto(buffer):
            received += size

    async def answer(stream: Stream) -> None:
        while await stream.read(1):
            await stream.write(MARK.pack(received, resident_bytes()))

    async def attend(connection: Connection) -> None:
        try:
            first = await connection.accept_stream()
            kind = await first.read(1)
            if kind == b"b":
                async with asyncio.TaskGroup() as group:
                    group.create_task(take(first, bytearray(CHUNK_BYTES)))
                    group.create_task(answer(await connection.accept_stream()))
            else:
                await first.write(b"welcome")
                await first.finish()
                await connection.wait_closed()
        except* NetworkError:
            pass

    async with asyncio.TaskGroup() as group, Node(listen="127.0.0.1:0") as node:
        control_.tell(address=str(node.address))
        accepting = group.create_task(_accept(node, attend, group))
        await control_.stopped()
        counters = node.counters()
        accepting.cancel()
    return {name: counters[name] for name in ("cookies_sent", "dropped_limited", "half_open", "connections_accepted")}


async def _accept(node: Node, attend: Any, group: asyncio.TaskGroup) -> None:
    async for connection in node.incoming():
        work: Coroutine[Any, Any, None] = attend(connection)
        group.create_task(work)


# --- its peers ---


def dial(control_: Control, *, address: str, rate: int, gbit: float, seconds: float, loop: str) -> Facts | None:
    return run(_dial(Address(address), rate, gbit, seconds), uvloop=loop == "uvloop")


async def _dial(address: Address, rate: int, gbit: float, seconds: float) -> Facts:
    async with Node(listen="127.0.0.1:0") as node, node.connect(address) as connection:
        bulk = await connection.open_stream()
        await bulk.write(b"b")
        marks = await connection.open_stream()
        sending = asyncio.create_task(_send(bulk, gbit))
        await asyncio.sleep(SETTLE_S)
        quiet, _, before = await _measure(marks, seconds)
        flooding = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.flood", "--from", str(address), "--rate", str(rate),
            "--seconds", str(seconds + 2 * SETTLE_S), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert flooding.stdout is not None
        await flooding.stdout.readline()  # it has begun
        await asyncio.sleep(SETTLE_S)
        newcomers = asyncio.create_task(_newcomers(address, seconds))
        flooded, after, _ = await _measure(marks, seconds)
        times, failed = await newcomers
        told = json.loads(await flooding.stdout.readline())
        await flooding.wait()
        sending.cancel()
        bulk.reset(0)
    return {
        "quiet_gbit": quiet, "flooded_gbit": flooded, "goodput_kept": flooded / quiet, "memory_mib": (after - before) / MIB,
        "newcomers": len(times), "newcomers_failed": failed, "newcomer_p50_s": statistics.median(times or [0]),
        "newcomer_p99_s": statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else sum(times), **told,
    }  # fmt: skip


async def _send(stream: Stream, gbit: float) -> None:
    """Write at this rate for ever; at 0, as fast as can be."""
    data, due_s = bytes(PIECE_BYTES), time.perf_counter()
    while True:
        await stream.write(data)
        if gbit:
            due_s = max(due_s + PIECE_BYTES * 8e-9 / gbit, time.perf_counter() - 0.01)  # what was missed is missed
            await asyncio.sleep(due_s - time.perf_counter())


async def _mark(marks: Stream) -> tuple[int, int, float]:
    await marks.write(b"?")
    received, resident = MARK.unpack(await marks.readexactly(MARK.size))
    return received, resident, time.perf_counter()


async def _measure(marks: Stream, seconds: float) -> tuple[float, int, int]:
    """Return the goodput in Gbit/s of the next seconds, and the node's resident bytes at the end and at the start."""
    received, before, start_s = await _mark(marks)
    await asyncio.sleep(seconds)
    later, after, end_s = await _mark(marks)
    return (later - received) * 8e-9 / (end_s - start_s), after, before


async def _newcomers(address: Address, seconds: float) -> tuple[list[float], int]:
    """Connect now and then, as somebody else each time; return how long each took, and how many failed."""
    times: list[float] = []
    failed = 0
    end_s = time.perf_counter() + seconds
    while (start_s := time.perf_counter()) < end_s:
        try:
            async with Node(listen="127.0.0.1:0") as node, node.connect(address) as connection:
                stream = await connection.open_stream()
                await stream.write(b"n")
                assert await stream.readexactly(7) == b"welcome"
                times.append(time.perf_counter() - start_s)
        except NetworkError:
            failed += 1
        await asyncio.sleep(max(0.0, start_s + 1 / NEWCOMERS_PER_S - time.perf_counter()))
    return times, failed


# --- the flood ---


def first_messages(address: Address, count: int) -> list[bytes]:
    """Write first messages of so many strangers to a node."""
    messages = []
    target = [endpoint.to_core() for endpoint in address.endpoints[:1]]
    for _ in range(count // 16):
        core = engine.Engine()
        limits = Config().core_limits()
        control.configure(core, random.randbytes(32), b"", False, [PROTOCOL], ["chacha20-poly1305"], 1, limits)
        exchange = control.Exchange(core)
        handles = [control.connect(core, bytes(address.peer_id), target, PROTOCOL) for _ in range(16)]
        control.add_entropy(core, random.randbytes(control.entropy_missing(core)))
        messages += [data for data, _, _ in exchange.transmit(1)]
        del handles
    return messages


def flood(address: Address, rate: int, seconds: float) -> Facts:
    """Send first messages at a rate from random addresses and ports; return what came back."""
    target = (address.endpoints[0].host, address.endpoints[0].port)
    messages = first_messages(address, INITS)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
    for one in sockets:
        one.bind(("0.0.0.0", 0))
        one.setblocking(False)
    print("begun", flush=True)
    draw, start_s, sent, replies, reply_bytes, largest = random.Random(1), time.perf_counter(), 0, 0, 0, 0
    while (now_s := time.perf_counter() - start_s) < seconds:
        due = min(int(now_s * rate) - sent, BURST)
        for _ in range(due):
            source = bytes((127, *draw.randbytes(3)))
            info = [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("i4s4s", 0, source, bytes(4)))]
            try:
                sockets[sent % SOCKETS].sendmsg([messages[sent % len(messages)]], info, 0, target)
            except OSError:  # a full buffer, or an address that is a broadcast
                pass
            sent += 1
        if due <= 0:
            time.sleep(0.0005)
        for one in select.select(sockets, [], [], 0)[0]:
            while True:
                try:
                    reply = one.recv(65_536)
                except OSError:
                    break
                replies, reply_bytes, largest = replies + 1, reply_bytes + len(reply), max(largest, len(reply))
    for one in sockets:
        one.close()
    return {
        "flood_per_s": sent / seconds, "replies": replies, "largest_reply_bytes": largest,
        "amplification": reply_bytes / (1200 * max(sent, 1)),
    }  # fmt: skip


# --- all together ---


def measure(rate: int = RATE, seconds: float = SECONDS, gbit: float = LINK_GBIT) -> Facts:
    """Run it once. Raises EndFailed."""
    loop = "uvloop" if loop_factory() is not None else "asyncio"
    with End("benchmarks.flood:serve", loop=loop) as server:
        told = server.receive()
        with End("benchmarks.flood:dial", rate=rate, gbit=gbit, seconds=seconds, loop=loop, **told) as client:
            facts = client.receive()
            client.stop()
            client.wait()
        server.stop()
        facts |= server.receive()
        server.wait()
    return facts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description="Measure a node under a flood of strangers.")
    parser.add_argument("--rate", type=int, default=RATE, help="first messages a second")
    parser.add_argument("--gbit", type=float, default=LINK_GBIT, help="what the connection sends, Gbit/s; 0: all it can")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each of the two measurements")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--from", dest="address", help=argparse.SUPPRESS)  # the process that floods
    asked = parser.parse_args(arguments)
    if asked.address:
        print(json.dumps(flood(Address(asked.address), asked.rate, asked.seconds)), flush=True)
        return 0
    facts = measure(asked.rate, asked.seconds, asked.gbit)
    if asked.json:
        print(json.dumps(facts))
        return 0
    print(f"{facts['flood_per_s']:,.0f} handshakes a second from random sources, {facts['replies']:,} replies")
    print(f"stream: {facts['quiet_gbit']:.2f} Gbit/s without it, {facts['flooded_gbit']:.2f} with it")
    for goal in GOALS:
        value = facts[goal.figure]
        print(f"{goal.label:<52}{value:>10{goal.form}}  {goal!s:<12}{'ok' if goal.is_met(value) else 'short'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
