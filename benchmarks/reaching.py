"""Count how often two nodes behind NATs get a direct path, and how soon, in simulated time: whole nodes, production code.

    python -m benchmarks reaching                               the pairs with goals, 100 seeds each
    python -m benchmarks reaching --delay 0.075 --loss 0.05     a round trip of 150 ms (of 300 ms through a relay), with losses
    python -m benchmarks reaching --every --runs 1              every ordered pair of kinds
    python -m benchmarks reaching --pairs symmetric:port --runs 1000 --json

Three public nodes are known to both; the two have joined 2 s before, so that their NATs are known. Flows of others go through
each NAT (--background). "direct" is the share of all runs that had a direct path within 3 s of `connect`. Kinds that let no UDP
through are not here, since tunnels are not simulated: python -m benchmarks nat has them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from contextlib import AsyncExitStack
from itertools import product

from benchmarks import command
from interpeer.testing import Link, NatKind, SimNet, run

PAIRS = (
    "port:port",
    "linux:linux",
    "symmetric-seq:port",
    "port:symmetric-seq",
    "symmetric-block:port",
    "port:symmetric-block",
    "symmetric:port",
    "port:symmetric",
)
WITHOUT_UDP = {NatKind.UDPBLOCK, NatKind.TCP443}
HELPERS = 3
SETTLE_S = 2.0
WITHIN_S, GIVE_UP_S = 3.0, 10.0
STEP_S = 0.01


def main(arguments: list[str]) -> int:
    parser = command.parser("reaching", __doc__)
    parser.add_argument("--pairs", metavar="A:B,...", default=",".join(PAIRS), help="who calls whom")
    parser.add_argument("--every", action="store_true", help="every ordered pair of kinds that let UDP through")
    parser.add_argument("--runs", type=int, default=100, help="of each pair, with seeds from 1 (default: 100)")
    parser.add_argument("--delay", type=float, default=0.015, metavar="S", help="one way, from site to site")
    parser.add_argument("--loss", type=float, default=0.0, metavar="SHARE", help="each way, from site to site")
    parser.add_argument(
        "--background", type=float, default=20.0, metavar="N", help="flows a second through each NAT (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each pair")
    asked = parser.parse_args(arguments)
    kinds = [kind.value for kind in NatKind if kind not in WITHOUT_UDP]
    pairs = list(product(kinds, kinds)) if asked.every else [pair.split(":") for pair in asked.pairs.split(",")]
    link = Link(delay_s=asked.delay, loss=asked.loss)
    for caller, called in pairs:
        row = measure(NatKind(caller), NatKind(called), asked.runs, link, asked.background)
        if asked.json:
            print(json.dumps(row), flush=True)
            continue
        soon = f"median {row['median_s']:.2f} s  slowest {row['slowest_s']:.2f} s" if row["slowest_s"] is not None else ""
        print(
            f"{caller + ' calls ' + called:36} connected {row['connect_s']:.3f} s  direct {row['within']:7.2%}  {soon}",
            flush=True,
        )
    return 0


def measure(caller: NatKind, called: NatKind, runs: int, link: Link, background: float) -> dict[str, object]:
    """Let a pair meet with so many seeds. Times are in seconds from `connect`, those of a direct path where there was one."""
    outcomes = [run(_meet(caller, called, link, background), seed=seed) for seed in range(1, runs + 1)]
    direct = [direct_s for _, direct_s in outcomes if direct_s is not None]
    return {
        "caller": caller.value,
        "called": called.value,
        "runs": runs,
        "connect_s": statistics.median(connect_s for connect_s, _ in outcomes),
        "within": sum(seconds <= WITHIN_S for seconds in direct) / runs,
        "median_s": statistics.median(direct) if direct else None,
        "slowest_s": max(direct, default=None),
    }


async def _meet(caller: NatKind, called: NatKind, link: Link, background: float) -> tuple[float, float | None]:
    """Return when a node was connected to another one, and when directly; None: not soon."""
    net = SimNet(link)
    async with AsyncExitStack() as stack:
        helpers = [await stack.enter_async_context(net.host(f"helper{i}").node(network="n", lan=False)) for i in range(HELPERS)]
        known = [helper.address for helper in helpers]
        hosts = [net.host("called", nat=called), net.host("caller", nat=caller)]
        for host in hosts:
            if host.router is not None:
                host.router.background(background)
        b, a = [await stack.enter_async_context(host.node(network="n", lan=False, bootstrap=known)) for host in hosts]
        await asyncio.gather(a.joined(), b.joined())
        await asyncio.sleep(SETTLE_S)
        begun_s = net.clock.now_s
        connection = await a.connect(b.id)
        connect_s = net.clock.now_s - begun_s
        while connection.path.kind == "relayed":
            if net.clock.now_s > begun_s + GIVE_UP_S:
                return connect_s, None
            await asyncio.sleep(STEP_S)
        return connect_s, net.clock.now_s - begun_s


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
