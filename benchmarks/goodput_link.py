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

from benchmarks import command, transfer
from benchmarks.goodput import CONTROLLERS, LOSSES
from benchmarks.transfer import SKIP_S
from interpeer import Address, Endpoint, Node
from interpeer._bench.end import Control, Facts, run
from interpeer._bench.process import End
from interpeer._run import loop_factory

TOLERANT = "bbr-lossy"
MBIT_PER_S, RTT_S = 100, 0.05


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    is_short = False
    for controller in asked.controller:
        for loss in asked.loss:
            runs = [measure(controller, loss, asked.seconds, asked.seed + number) for number in range(asked.runs)]
            row = _row(controller, loss, runs)
            is_short = is_short or row["is_met"] is False
            print(json.dumps(row) if asked.json else _line(row), flush=True)
    return int(is_short)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = command.parser("goodput --link", __doc__)
    parser.add_argument(
        "--controller", nargs="+", choices=CONTROLLERS, default=list(CONTROLLERS), metavar="NAME", help=", ".join(CONTROLLERS)
    )
    parser.add_argument("--loss", nargs="+", type=float, default=list(LOSSES), metavar="SHARE", help="of packets, from 0 to 1")
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


def measure(controller: str, loss: float, seconds: float, seed: int) -> Facts:
    """Return goodput in Mbit/s, and what both ends and the link tell. Raises EndFailed."""
    with contextlib.ExitStack() as stack:
        receiver, address = stack.enter_context(transfer.receiver(seconds))
        link = stack.enter_context(transfer.relay(address, mbit_per_s=MBIT_PER_S, delay_s=RTT_S / 2, loss=loss, seed=seed))
        here = Address.of(address.peer_id, [Endpoint(link.host, link.port)])
        sender = stack.enter_context(End(f"{__name__}:send", seconds=seconds, address=str(here), controller=controller))
        facts = transfer.outcome(receiver, sender)
        stats = link.stats()
        return facts | {
            "queue_full": stats["up"]["queue_full"],
            "lost_by_link": stats["up"]["lost"],
            "link_late_by_1_ms": stats["up"]["late_by_1_ms"],
            "link_cpu_s": stats["cpu_s"],
        }


def _row(controller: str, loss: float, runs: list[Facts]) -> Facts:
    rates = [one["mbit"] for one in runs]
    goal = LOSSES.get(loss)
    is_met = statistics.median(rates) >= goal if goal is not None and controller == TOLERANT else None
    return {"group": "loss, between processes", "controller": controller, "loss": loss,
            "mbit": statistics.median(rates), "spread": [min(rates), max(rates)], "goal": goal, "is_met": is_met,
            "runs": runs}  # fmt: skip


def _line(row: Facts) -> str:
    low, high = row["spread"]
    spread = f"{low:.1f}-{high:.1f}" if len(row["runs"]) > 1 else ""
    goal = f">= {row['goal']}" if row["goal"] is not None else ""
    verdict = "" if row["is_met"] is None else "ok" if row["is_met"] else "short"
    return f"{row['controller']:10} {row['loss']:6.1%} lost {row['mbit']:8.1f} Mbit/s {spread:>14}  {goal:8} {verdict}".rstrip()


# --- the sender ---


def send(control: Control, *, seconds: float, address: str, controller: str) -> Facts | None:
    return run(_send(seconds, Address(address), controller), uvloop=loop_factory() is not None)


async def _send(seconds: float, address: Address, controller: str) -> Facts:
    async with Node(listen="127.0.0.1:0") as node:
        facts = await transfer.send(await node.connect(address, congestion=controller), seconds)
        stats = facts.pop("stats")
        return facts | {
            "packets_sent": stats.packets_sent,
            "packets_lost": stats.packets_lost,
            "congestion_events": stats.congestion_events,
            "rtt_ms": stats.rtt_s * 1e3,
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
