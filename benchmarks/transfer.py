"""One bulk transfer between two real processes, over relays of tests/net: what a case adds is its relays and its sender."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from interpeer import Address, Connection, Node
from interpeer._bench.end import Control, Facts, Stopwatch, run
from interpeer._bench.process import End
from interpeer._run import loop_factory
from interpeer.testing import Link
from tests.net.udplink import UdpLink

SKIP_S = 2.0
"""What arrives in the beginning does not count."""
LONGER_S = 1.0
"""The sender goes on for so much longer, in case it began earlier."""
CHUNK_BYTES = 1 << 18


@contextlib.contextmanager
def receiver(seconds: float) -> Generator[tuple[End, Address]]:
    """Start the process that receives; yield it and where it is. Raises EndFailed."""
    with End(f"{__name__}:receive", seconds=seconds) as end:
        yield end, Address(end.receive()["address"])


def relay(to: Address, *, mbit_per_s: float, delay_s: float, loss: float = 0.0, seed: int) -> UdpLink:
    """Return a way there with a queue of one bandwidth-delay product; what comes back is only delayed."""
    queue_bytes = round(mbit_per_s * 1e6 / 8 * 2 * delay_s)
    there = Link(delay_s=delay_s, rate_bit_per_s=mbit_per_s * 1e6, queue_bytes=queue_bytes, loss=loss)
    target = to.endpoints[0].host, to.endpoints[0].port
    return UdpLink(target, there, Link(delay_s=delay_s), seed=seed, overhead_bytes=0)


def outcome(receiving: End, sending: End) -> Facts:
    """Wait for the end; return what both processes tell."""
    facts = receiving.receive()
    sending.stop()
    return facts | sending.receive()


def receive(control: Control, *, seconds: float) -> Facts | None:
    """Be the process that receives; count what comes after SKIP_S."""
    return run(_receive(control, seconds), uvloop=loop_factory() is not None)


async def _receive(control: Control, seconds: float) -> Facts:
    async with Node(listen="127.0.0.1:0") as node:
        control.tell(address=str(node.address))
        return await count(await node.accept(), seconds)


async def count(connection: Connection, seconds: float) -> Facts:
    """Read what comes on a connection's first stream for so long; return the rate after SKIP_S, and the processor time."""
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


async def send(connection: Connection, seconds: float) -> Facts:
    """Send all that goes; return the processor time that it took, with `stats` from before the stream is given up."""
    stream = await connection.open_stream()
    data, watch, end_s = bytes(CHUNK_BYTES), Stopwatch(), time.monotonic() + seconds + LONGER_S
    with contextlib.suppress(OSError):  # the receiver ends first
        while time.monotonic() < end_s:
            await stream.write(data)
    stats = connection.stats()
    stream.reset(0)
    return {"sender_cpu_s": watch.read()["cpu_s"], "stats": stats}
