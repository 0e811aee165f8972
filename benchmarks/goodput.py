"""Measure congestion control in the simulator: goodput under loss, fairness, queues. Rows beside their goals.

    python -m benchmarks goodput                        every controller; some minutes
    python -m benchmarks goodput --only loss fairness   some groups of rows
    python -m benchmarks goodput --controller bbr-lossy --seconds 30 --seed 7 --json

Simulated time, so what the machine does besides changes nothing: equal seeds give equal numbers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import interpeer
from benchmarks import command
from interpeer._bench.figures import jain
from interpeer.testing import Link, SimNet, run

CONTROLLERS = ("cubic", "bbr", "bbr-lossy", "ledbat")
LOSSES = {0.0: 93, 0.001: 92, 0.01: 88, 0.02: 80, 0.05: 60, 0.1: 35}
"""Share of packets lost, and the goal in Mbit/s of 100 for the loss-tolerant controller."""
PACKET_BYTES, HEADERS_BYTES = 1200, 28
CHUNK = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """Where flows meet: a rate of UDP payload, a round trip, and a queue that drops what does not fit."""

    mbit: float = 100.0
    rtt_s: float = 0.05
    buffer_bdp: float = 1.0
    loss: float = 0.0

    @property
    def bdp_bytes(self) -> float:
        return self.mbit * 1e6 / 8 * self.rtt_s

    def link(self) -> Link:
        """Return the way out of the senders' host."""
        rate = self.mbit * 1e6 * (PACKET_BYTES + HEADERS_BYTES) / PACKET_BYTES
        return Link(rate_bit_per_s=rate, queue_bytes=round(self.bdp_bytes * self.buffer_bdp), loss=self.loss)


@dataclass(slots=True)
class Flow:
    """One connection that sends all it can."""

    controller: str
    start_s: float = 0.0
    received: int = 0
    from_start: int = 0
    rtts_ms: list[float] = field(default_factory=list)
    lost: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What some flows have had of a bottleneck between two moments."""

    mbit: list[float]
    rtt_ms: list[float]
    """The 95th percentile of the senders' smoothed round trips."""
    loss: list[float]


def simulate(
    bottleneck: Bottleneck, flows: Sequence[Flow], seconds: float, *, skip_s: float = 0.0, seed: int = 1, link: Link | None = None
) -> Result:
    """Run flows through a bottleneck; count what arrives after `skip_s`."""

    async def main() -> None:
        net = SimNet(Link(delay_s=bottleneck.rtt_s / 2))
        here = net.host("here", "192.0.2.1", up=link or bottleneck.link())
        there = net.host("there", "198.51.100.1")
        async with here.node() as a, there.node() as b, asyncio.TaskGroup() as tasks:
            busy = [tasks.create_task(_flow(net, a, b, flow)) for flow in flows]
            await asyncio.sleep(skip_s)
            before = [flow.received for flow in flows]
            for flow in flows:
                flow.rtts_ms.clear()
            await asyncio.sleep(seconds - skip_s)
            for flow, start in zip(flows, before, strict=True):
                flow.from_start = flow.received - start
            for task in busy:
                task.cancel()

    run(main(), seed=seed, until_s=seconds + 600)
    return Result(
        [flow.from_start * 8e-6 / (seconds - max(skip_s, flow.start_s)) for flow in flows],
        [percentile(flow.rtts_ms, 95) if flow.rtts_ms else 0.0 for flow in flows],
        [flow.lost / max(flow.sent, 1) for flow in flows],
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def _flow(net: SimNet, a: interpeer.Node, b: interpeer.Node, flow: Flow) -> None:
    if flow.start_s:
        await asyncio.sleep(flow.start_s)
    accepting = asyncio.create_task(b.accept())
    async with a.connect(b.address, congestion=flow.controller) as connection, asyncio.TaskGroup() as tasks:
        incoming = await accepting
        tasks.create_task(_send(connection))
        tasks.create_task(_receive(incoming, flow))
        while True:
            await asyncio.sleep(0.01)
            stats = connection.stats()
            flow.rtts_ms.append(stats.rtt_s * 1e3)
            flow.lost, flow.sent = stats.packets_lost, stats.packets_sent


async def _send(connection: interpeer.Connection) -> None:
    stream = await connection.open_stream()
    while True:
        await stream.write(CHUNK)


async def _receive(connection: interpeer.Connection, flow: Flow) -> None:
    stream = await connection.accept_stream()
    while data := await stream.read(len(CHUNK)):
        flow.received += len(data)


# --- rows ---


@dataclass(frozen=True, slots=True)
class Row:
    """A figure beside its goal."""

    group: str
    controller: str
    what: str
    value: float
    goal: str = ""
    is_met: bool | None = None
    more: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        verdict = "" if self.is_met is None else "ok" if self.is_met else "short"
        return f"{self.group:10} {self.controller:10} {self.what:44} {self.value:8.3g}  {self.goal:16} {verdict}"


def loss_rows(controller: str, seconds: float, seed: int) -> Iterator[Row]:
    """Goodput at 100 Mbit/s of UDP payload, 50 ms, a queue of one bandwidth-delay product, after the first 2 seconds."""
    for loss, goal in LOSSES.items():
        result = simulate(Bottleneck(loss=loss), [Flow(controller)], seconds, skip_s=2.0, seed=seed)
        is_met = result.mbit[0] >= goal if controller == "bbr-lossy" else None
        yield Row("loss", controller, f"Mbit/s at {loss:.1%} loss", result.mbit[0], f">= {goal}", is_met, asdict(result))


def fairness_rows(controller: str, seconds: float, seed: int) -> Iterator[Row]:
    """Four flows of one kind through 20 Mbit/s, 40 ms, begun half a second apart."""
    for buffer in (0.5, 1.0, 2.0):
        flows = [Flow(controller, start_s=i / 2) for i in range(4)]
        result = simulate(Bottleneck(20, 0.04, buffer), flows, seconds, skip_s=5.0, seed=seed)
        index = jain(result.mbit)
        yield Row("fairness", controller, f"Jain of four, queue {buffer} BDP", index, ">= 0.9", index >= 0.9, asdict(result))


def share_rows(controller: str, seconds: float, seed: int) -> Iterator[Row]:
    """Beside one CUBIC flow through 20 Mbit/s, 40 ms; LEDBAT++ is to have less than a third."""
    for buffer in (0.5, 1.0, 2.0, 4.0):
        flows = [Flow(controller), Flow("cubic", start_s=0.5)]
        result = simulate(Bottleneck(20, 0.04, buffer), flows, seconds, skip_s=5.0, seed=seed)
        share = result.mbit[0] / (sum(result.mbit) or 1)
        yields = controller == "ledbat"
        goal = "<= 0.4" if yields else "0.3 to 0.7"
        is_met = share <= 0.4 if yields else 0.3 <= share <= 0.7
        yield Row("share", controller, f"share beside CUBIC, queue {buffer} BDP", share, goal, is_met, asdict(result))


def queue_rows(controller: str, seconds: float, seed: int) -> Iterator[Row]:
    """The round trip through 20 Mbit/s, 40 ms with a queue of four bandwidth-delay products."""
    result = simulate(Bottleneck(20, 0.04, 4.0), [Flow(controller)], seconds, skip_s=2.0, seed=seed)
    growth = result.rtt_ms[0] / 40
    is_met = growth <= 2 if controller.startswith("bbr") else None
    yield Row("queue", controller, "round trip's 95th percentile / least one", growth, "<= 2", is_met, asdict(result))


MEASURES: dict[str, Callable[[str, float, int], Iterator[Row]]] = {
    "loss": loss_rows,
    "fairness": fairness_rows,
    "share": share_rows,
    "queue": queue_rows,
}


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("goodput", __doc__)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="GROUP", help=", ".join(MEASURES))
    parser.add_argument("--controller", nargs="+", choices=CONTROLLERS, default=list(CONTROLLERS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=30.0, help="simulated, for each figure (default: 30)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    asked = parser.parse_args(arguments)
    if asked.seconds <= 6:
        parser.error("--seconds is more than 6: the first five do not count")
    print(f"seed {asked.seed}, {asked.seconds:g} simulated seconds each", file=sys.stderr)
    is_short = False
    for group in asked.only:
        for controller in asked.controller:
            for row in MEASURES[group](controller, asked.seconds, asked.seed):
                print(json.dumps(asdict(row) | {"seed": asked.seed}) if asked.json else row, flush=True)
                is_short = is_short or row.is_met is False
    return 1 if is_short else 0
