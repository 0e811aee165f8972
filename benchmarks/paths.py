"""Measure several paths between two real processes: two equal ones against one, and goodput while a NAT rebinds.

    python -m benchmarks paths                      each case three times
    python -m benchmarks paths --runs 5 --json

Each path goes over a relay of its own (tests/net/udplink.c): 20 Mbit/s, 15 ms one way, a queue of one product of both. The first
two seconds do not count. Rebinding gives the caller another address every five seconds, as a NAT does that forgets.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys

from benchmarks import command, transfer
from interpeer import Address, Endpoint, Node, PeerId
from interpeer._bench.end import Control, Facts, run
from interpeer._bench.process import End
from interpeer._run import loop_factory

MBIT_PER_S, DELAY_S = 20, 0.015
REBIND_S = 5.0
CASES = ("one", "aggregate", "redundant", "rebinding")
GOALS = {"aggregate": ("x of one", 1.8), "rebinding": ("x of one", 0.9)}


def main(arguments: list[str]) -> int:
    parser = command.parser("paths", __doc__)
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
    with contextlib.ExitStack() as stack:
        receiver, address = stack.enter_context(transfer.receiver(seconds))
        links = [
            stack.enter_context(transfer.relay(address, mbit_per_s=MBIT_PER_S, delay_s=DELAY_S, seed=seed + n))
            for n in range(2 if case in ("aggregate", "redundant") else 1)
        ]
        if case == "rebinding":
            links[0].rebind(address=True, after_s=1.0, every_s=REBIND_S)
        ways = [f"{link.host}:{link.port}" for link in links]
        peer = str(address.peer_id)
        sender = stack.enter_context(End(f"{__name__}:send", seconds=seconds, peer=peer, ways=ways, scheduler=case))
        return transfer.outcome(receiver, sender)


# --- the sender ---


def send(control: Control, *, seconds: float, peer: str, ways: list[str], scheduler: str) -> Facts | None:
    return run(_send(seconds, peer, ways, scheduler), uvloop=loop_factory() is not None)


async def _send(seconds: float, peer: str, ways: list[str], scheduler: str) -> Facts:
    first, *others = [Endpoint.parse(way) for way in ways]
    async with Node(listen="0.0.0.0:0") as node:
        connection = await node.connect(Address.of(PeerId(peer), [first]))
        for other in others:
            await connection.open_path(other)
            connection.scheduler = scheduler
        facts = await transfer.send(connection, seconds)
        return {"paths": [(path.id, path.packets_sent, path.packets_lost) for path in facts["stats"].paths]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
