"""Measure what a small urgent message waits for beside a bulk transfer, in the simulator. Rows beside their goals.

    python -m benchmarks control                        every controller; half a minute
    python -m benchmarks control --controller bbr --seconds 30 --seed 7 --loss 0.01 --json

100 Mbit/s of UDP payload, 50 ms, a queue of one product of both; a stream of the lowest priority sends all it can, and every
20 ms a message of 16 bytes goes out on a channel of the highest, and is answered at once. The goal: 99 of 100 answers come
within a round trip and 10 ms ("ok": the round trip of the empty path; "with the queue": the smoothed one that the connection
sees when the answer comes). Simulated time: equal seeds give equal numbers.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from dataclasses import asdict, dataclass, field

import interpeer
from benchmarks import command
from benchmarks.goodput import CHUNK, CONTROLLERS, Bottleneck, percentile
from interpeer.testing import Link, SimNet, run

EVERY_S = 0.02
MARGIN_MS = 10.0
"""A message and its answer are to take no longer than a round trip and this, 99 times of 100."""
SKIP_S = 2.0
"""Startup does not count."""
REST_S = 2.0
"""The last messages have so long to be answered."""
CONTROL = struct.Struct("!Qd")


@dataclass(slots=True)
class Waits:
    """What was seen of the messages that were sent after the beginning, in milliseconds, and of the path."""

    there_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    rtt_ms: list[float] = field(default_factory=list)
    """The round trip that the connection saw: smoothed, at each message."""
    late_ms: list[float] = field(default_factory=list)
    """How much later answers came than the round trip of then has it."""
    sent: int = 0
    bulk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """How long the messages of one controller took."""

    controller: str
    there_ms: tuple[float, float]
    """One way: the median and the 99th percentile."""
    answer_ms: tuple[float, float]
    rtt_ms: tuple[float, float]
    """The smoothed round trip when answers came, the queue included."""
    late_ms: float
    """The 99th percentile of how much longer than that answers took."""
    bulk_mbit: float
    path_ms: float

    @property
    def is_met(self) -> bool:
        """Tell whether an answer comes within the round trip of the empty path and the margin."""
        return self.answer_ms[1] <= self.path_ms + MARGIN_MS

    @property
    def is_met_now(self) -> bool:
        """Tell whether it comes within the round trip that the path has by then, and the margin."""
        return self.late_ms <= MARGIN_MS

    def __str__(self) -> str:
        there, answer, rtt = (f"{half:6.1f} {most:6.1f}" for half, most in (self.there_ms, self.answer_ms, self.rtt_ms))
        met = "ok" if self.is_met else "with the queue" if self.is_met_now else "short"
        return f"{self.controller:10} {there}   {answer}   {rtt}   {self.late_ms:6.1f}   {self.bulk_mbit:6.1f}   {met}"


HEAD = f"{'':10} {'one way, ms':>13}   {'answered':>13}   {'round trip':>13}   {'later':>6}   {'Mbit/s':>6}   goal"


def simulate(bottleneck: Bottleneck, controller: str, seconds: float, *, seed: int = 1) -> Row:
    """Run a bulk transfer, and messages beside it."""
    waits = Waits()

    async def main() -> None:
        net = SimNet(Link(delay_s=bottleneck.rtt_s / 2))
        here = net.host("here", "192.0.2.1", up=bottleneck.link())
        there = net.host("there", "198.51.100.1")
        async with here.node() as a, there.node() as b:
            accepting = asyncio.create_task(b.accept())
            async with a.connect(b.address, congestion=controller) as connection:
                await _talk(connection, await accepting, waits, seconds)

    run(main(), seed=seed, until_s=seconds + 600)
    if len(waits.answer_ms) < waits.sent:
        raise RuntimeError(f"{waits.sent - len(waits.answer_ms)} messages were not answered")
    there, answer, rtt = ((percentile(ms, 50), percentile(ms, 99)) for ms in (waits.there_ms, waits.answer_ms, waits.rtt_ms))
    mbit = waits.bulk_bytes * 8e-6 / (seconds - SKIP_S)
    return Row(controller, there, answer, rtt, percentile(waits.late_ms, 99), mbit, bottleneck.rtt_s * 1e3)


async def _talk(here: interpeer.Connection, there: interpeer.Connection, waits: Waits, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    bulk = await here.open_stream()
    bulk.priority = -4
    control = await here.open_channel(priority=3)
    start = loop.time()
    async with asyncio.TaskGroup() as tasks:
        busy = [
            tasks.create_task(_send(bulk)),
            tasks.create_task(_receive(there, waits, start + SKIP_S, start + seconds)),
            tasks.create_task(_answer(there, waits, start + SKIP_S)),
            tasks.create_task(_collect(here, control, waits, start + SKIP_S)),
        ]
        number = 0
        while (now := loop.time()) < start + seconds:
            await control.send(CONTROL.pack(number, now))
            number += 1
            if now >= start + SKIP_S:
                waits.sent += 1
            await asyncio.sleep(EVERY_S)
        await asyncio.sleep(REST_S)
        for task in busy:
            task.cancel()


async def _send(stream: interpeer.Stream) -> None:
    while True:
        await stream.write(CHUNK)


async def _receive(connection: interpeer.Connection, waits: Waits, from_s: float, to_s: float) -> None:
    loop = asyncio.get_running_loop()
    stream = await connection.accept_stream()
    while data := await stream.read(len(CHUNK)):
        if from_s <= loop.time() < to_s:
            waits.bulk_bytes += len(data)


async def _answer(connection: interpeer.Connection, waits: Waits, from_s: float) -> None:
    loop = asyncio.get_running_loop()
    channel = await connection.accept_channel()
    while True:
        message = await channel.recv()
        _, sent_s = CONTROL.unpack(message)
        if sent_s >= from_s:
            waits.there_ms.append((loop.time() - sent_s) * 1e3)
        await channel.send(message)


async def _collect(here: interpeer.Connection, channel: interpeer.Channel, waits: Waits, from_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        _, sent_s = CONTROL.unpack(await channel.recv())
        if sent_s >= from_s:
            took_ms, rtt_ms = (loop.time() - sent_s) * 1e3, here.stats().rtt_s * 1e3
            waits.answer_ms.append(took_ms)
            waits.rtt_ms.append(rtt_ms)
            waits.late_ms.append(took_ms - rtt_ms)


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("control", __doc__)
    parser.add_argument("--controller", nargs="+", choices=CONTROLLERS, default=list(CONTROLLERS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=20.0, help="simulated, for each controller (default: 20)")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets lost at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    asked = parser.parse_args(arguments)
    if asked.seconds <= SKIP_S:
        parser.error(f"--seconds is more than {SKIP_S:g}: the first do not count")
    print(f"seed {asked.seed}, {asked.seconds:g} simulated seconds each; medians, then 99th percentiles\n{HEAD}", file=sys.stderr)
    is_short = False
    for controller in asked.controller:
        row = simulate(Bottleneck(loss=asked.loss), controller, asked.seconds, seed=asked.seed)
        print(json.dumps(asdict(row) | {"seed": asked.seed, "is_met": row.is_met}) if asked.json else row, flush=True)
        is_short = is_short or not row.is_met_now
    return 1 if is_short else 0
