"""Measure goodput under loss between two real processes: 100 Mbit/s of UDP payload, 50 ms, a queue of one product of both.

    python -m benchmarks goodput --link                              every controller, 10 s for each figure
    python -m benchmarks goodput --link --loss 0 0.01 --runs 3 --json
    python -m benchmarks goodput --link --controller bbr-lossy --seconds 30

The link is the relay of tests/net, which loses, delays and queues what goes to the receiver, and delays what comes back. The
first two seconds do not count. Other work on the machine costs goodput: the table of simulated time is without that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from typing import Any

from interpeer import Address, Config, Endpoint, Node
from interpeer._bench.end import Control, Facts, Stopwatch, run
from interpeer._bench.process import End
from interpeer._run import loop_factory
from interpeer.testing import Link
from tests.net.udplink import UdpLink

CONTROLLERS = ("cubic", "bbr", "bbr-lossy", "ledbat")
GOALS = {0.0: 93, 0.001: 92, 0.01: 88, 0.02: 80, 0.05: 60, 0.1: 35}
"""Share of packets lost, and the goal in Mbit/s for the loss-tolerant controller."""
TOLERANT = "bbr-lossy"
MBIT_PER_S, RTT_S = 100, 0.05
QUEUE_BYTES = round(MBIT_PER_S * 1e6 / 8 * RTT_S)
SKIP_S, LONGER_S = 2.0, 1.0
CHUNK_BYTES = 1 << 18
_HERE = __name__


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    controllers = asked.controller or (list(CONTROLLERS) if _has_controllers() else [None])
    is_short = False
    for controller in controllers:
        for loss in asked.loss:
            runs = [measure(controller, loss, asked.seconds, asked.seed + number) for number in range(asked.runs)]
            row = _row(controller, loss, runs)
            is_short = is_short or row["is_met"] is False
            print(json.dumps(row) if asked.json else _line(row), flush=True)
    return int(is_short)


def _has_controllers() -> bool:
    return hasattr(Config, "congestion")


def _parse(arguments: list[str]) -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks goodput --link", description=about, epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--controller", nargs="+", choices=CONTROLLERS, metavar="NAME", help=", ".join(CONTROLLERS))
    parser.add_argument("--loss", nargs="+", type=float, default=list(GOALS), metavar="SHARE", help="of packets, from 0 to 1")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure (default: 10)")
    parser.add_argument("--runs", type=int, default=1, help="for each figure; the median counts (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of what is lost")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    asked = parser.parse_args(arguments)
    if asked.seconds <= SKIP_S:
        parser.error(f"--seconds is more than {SKIP_S:g}: so many do not count")
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    return asked


def measure(controller: str | None, loss: float, seconds: float, seed: int) -> Facts:
    """Return goodput in Mbit/s, and what both ends and the link tell. None: the controller of today. Raises EndFailed."""
    there = Link(delay_s=RTT_S / 2, rate_bit_per_s=MBIT_PER_S * 1e6, queue_bytes=QUEUE_BYTES, loss=loss)
    config: dict[str, Any] = {} if controller is None else {"congestion": controller}
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(End(f"{_HERE}:receive", seconds=seconds))
        address = Address(receiver.receive()["address"])
        target = address.endpoints[0].host, address.endpoints[0].port
        link = stack.enter_context(UdpLink(target, there, Link(delay_s=RTT_S / 2), seed=seed, overhead_bytes=0))
        here = Address.of(address.peer_id, [Endpoint(link.host, link.port)])
        sender = stack.enter_context(End(f"{_HERE}:send", seconds=seconds, address=str(here), config=config))
        facts = receiver.receive()
        sender.stop()
        facts |= sender.receive()
        stats = link.stats()
        return facts | {
            "queue_full": stats["up"]["queue_full"],
            "lost_by_link": stats["up"]["lost"],
            "link_late_by_1_ms": stats["up"]["late_by_1_ms"],
            "link_cpu_s": stats["cpu_s"],
        }


def _row(controller: str | None, loss: float, runs: list[Facts]) -> Facts:
    rates = [one["mbit"] for one in runs]
    goal = GOALS.get(loss)
    is_met = statistics.median(rates) >= goal if goal is not None and controller == TOLERANT else None
    return {"group": "loss, between processes", "controller": controller or "default", "loss": loss,
            "mbit": statistics.median(rates), "spread": [min(rates), max(rates)], "goal": goal, "is_met": is_met,
            "runs": runs}  # fmt: skip


def _line(row: Facts) -> str:
    low, high = row["spread"]
    spread = f"{low:.1f}-{high:.1f}" if len(row["runs"]) > 1 else ""
    goal = f">= {row['goal']}" if row["goal"] is not None else ""
    verdict = "" if row["is_met"] is None else "ok" if row["is_met"] else "short"
    return f"{row['controller']:10} {row['loss']:6.1%} lost {row['mbit']:8.1f} Mbit/s {spread:>14}  {goal:8} {verdict}".rstrip()


# --- the two ends ---


def receive(control: Control, *, seconds: float) -> Facts | None:
    return run(_receive(control, seconds), uvloop=loop_factory() is not None)


def send(control: Control, *, seconds: float, address: str, config: dict[str, Any]) -> Facts | None:
    return run(_send(control, seconds, Address(address), Config(**config)), uvloop=loop_factory() is not None)


async def _receive(control: Control, seconds: float) -> Facts:
    async with Node(listen="127.0.0.1:0") as node:
        control.tell(address=str(node.address))
        connection = await node.accept()
        stream = await connection.accept_stream()
        buffer, counted = bytearray(CHUNK_BYTES), 0
        await stream.readinto(buffer)
        start_s = now_s = time.monotonic()
        watch, skipped_s = Stopwatch(), None
        while now_s - start_s < seconds:
            size = await stream.readinto(buffer)
            now_s = time.monotonic()
            if skipped_s is not None:
                counted += size
            elif now_s - start_s >= SKIP_S:
                skipped_s = now_s
        return {"mbit": counted * 8e-6 / (now_s - (skipped_s or start_s)), "receiver_cpu_s": watch.read()["cpu_s"]}


async def _send(control: Control, seconds: float, address: Address, config: Config) -> Facts:
    async with Node(listen="127.0.0.1:0", config=config) as node:
        connection = await node.connect(address)
        stream = await connection.open_stream()
        data, watch, end_s = bytes(CHUNK_BYTES), Stopwatch(), time.monotonic() + seconds + LONGER_S
        with contextlib.suppress(OSError):  # the receiver ends first
            while time.monotonic() < end_s:
                await stream.write(data)
        stats = connection.stats()
        stream.reset(0)
        return {
            "sender_cpu_s": watch.read()["cpu_s"],
            "packets_sent": stats.packets_sent,
            "packets_lost": stats.packets_lost,
            "congestion_events": stats.congestion_events,
            "rtt_ms": stats.rtt_s * 1e3,
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
