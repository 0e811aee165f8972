"""Measure several paths between two real processes: two equal ones against one, and goodput while a NAT rebinds.

    python -m benchmarks paths                      each case three times
    python -m benchmarks paths --runs 5 --json

Each path goes over a relay of its own (tests/net/udplink.c): 20 Mbit/s, 15 ms one way, a queue of one product of both. The first
two seconds do not count. Rebinding gives the caller another address every five seconds, as a NAT does that forgets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time

from benchmarks.goodput_link import CHUNK_BYTES, LONGER_S
from interpeer import Address, Endpoint, Node, PeerId
from interpeer._bench.end import Control, Facts, run
from interpeer._bench.process import End
from interpeer._run import loop_factory
from interpeer.testing import Link
from tests.net.udplink import UdpLink

MBIT_PER_S, DELAY_S = 20, 0.015
QUEUE_BYTES = round(MBIT_PER_S * 1e6 / 8 * 2 * DELAY_S)
REBIND_S = 5.0
CASES = ("one", "aggregate", "redundant", "rebinding")
GOALS = {"aggregate": ("x of one", 1.8), "rebinding": ("x of one", 0.9)}
_HERE = __name__


def main(arguments: list[str]) -> int:
    about, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks paths", description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="for each figure (default: 12)")
    parser.add_argument("--runs", type=int, default=3, help="of each case, in turns; medians count (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    asked = parser.parse_args(arguments)
    runs: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(asked.runs):
        for case in CASES:
            runs[case].append(measure(case, asked.seconds, number)["mbit"])
    is_short = False
    for case in CASES:
        mbit, one = statistics.median(runs[case]), statistics.median(runs["one"])
        what, goal = GOALS.get(case, ("x of one", None))
        row = {"case": case, "mbit": mbit, "spread": [min(runs[case]), max(runs[case])], "compared": mbit / one, "goal": goal}
        is_short = is_short or (goal is not None and mbit / one < goal)
        verdict = "" if goal is None else f">= {goal} {'ok' if mbit / one >= goal else 'short'}"
        print(json.dumps(row) if asked.json else f"{case:10} {mbit:7.2f} Mbit/s {mbit / one:6.2f} {what} {verdict}".rstrip())
    return int(is_short)


def measure(case: str, seconds: float, seed: int) -> Facts:
    """Return goodput in Mbit/s of data. Raises EndFailed."""
    there = Link(delay_s=DELAY_S, rate_bit_per_s=MBIT_PER_S * 1e6, queue_bytes=QUEUE_BYTES)
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(End(f"{_HERE}:receive", seconds=seconds))
        address = Address(receiver.receive()["address"])
        target = address.endpoints[0].host, address.endpoints[0].port
        links = [
            stack.enter_context(UdpLink(target, there, Link(delay_s=DELAY_S), seed=seed + n, overhead_bytes=0))
            for n in range(2 if case in ("aggregate", "redundant") else 1)
        ]
        if case == "rebinding":
            links[0].rebind(address=True, after_s=1.0, every_s=REBIND_S)
        ways = [f"{link.host}:{link.port}" for link in links]
        sender = stack.enter_context(End(f"{_HERE}:send", seconds=seconds, peer=str(address.peer_id), ways=ways, scheduler=case))
        facts = receiver.receive()
        sender.stop()
        return facts | sender.receive()


# --- the two ends ---


def receive(control: Control, *, seconds: float) -> Facts | None:
    return run(_receive(control, seconds), uvloop=loop_factory() is not None)


def send(control: Control, *, seconds: float, peer: str, ways: list[str], scheduler: str) -> Facts | None:
    return run(_send(seconds, peer, ways, scheduler), uvloop=loop_factory() is not None)


async def _receive(control: Control, seconds: float) -> Facts:
    async with Node(listen="127.0.0.1:0") as node:
        control.tell(address=str(node.address))
        connection = await node.accept()
        stream = await connection.accept_stream()
        buffer, counted = bytearray(CHUNK_BYTES), 0
        await stream.readinto(buffer)
        start_s = now_s = time.monotonic()
        skipped_s = None
        while now_s - start_s < seconds:
            size = await stream.readinto(buffer)
            now_s = time.monotonic()
            if skipped_s is not None:
                counted += size
            elif now_s - start_s >= 2:
                skipped_s = now_s
        return {"mbit": counted * 8e-6 / (now_s - (skipped_s or start_s))}


async def _send(seconds: float, peer: str, ways: list[str], scheduler: str) -> Facts:
    first, *others = [Endpoint.parse(way) for way in ways]
    async with Node(listen="0.0.0.0:0") as node:
        connection = await node.connect(Address.of(PeerId(peer), [first]))
        for other in others:
            await connection.open_path(other)
            connection.scheduler = scheduler
        stream = await connection.open_stream()
        data, end_s = bytes(CHUNK_BYTES), time.monotonic() + seconds + LONGER_S
        with contextlib.suppress(OSError):  # the receiver ends first
            while time.monotonic() < end_s:
                await stream.write(data)
        paths = [(path.id, path.packets_sent, path.packets_lost) for path in connection.stats().paths]
        stream.reset(0)
        return {"paths": paths}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
