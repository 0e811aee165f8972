"""Whole networks in simulated time: what the tests here share, and a look at each engine for what it has not let go of."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import interpeer
from interpeer._core import control, engine
from interpeer.testing import Host, Link, SimNet, Wire, run

LATER_NS = 365 * 24 * 3600 * 10**9
INTEROP = Link(delay_s=0.015, rate_bit_per_s=10e6, queue_packets=25)
"""The base link of the QUIC interop runner."""


def pytest_live_objects() -> Counter[str]:
    return Counter("engine" for o in gc.get_objects() if type(o) is engine.Engine)


@dataclass(slots=True)
class Pair:
    """Two hosts with a node each."""

    net: SimNet
    alice: Host
    bob: Host
    a: interpeer.Node
    b: interpeer.Node

    @property
    def there(self) -> Wire:
        return self.net.wire(self.alice, self.bob)

    @property
    def back(self) -> Wire:
        return self.net.wire(self.bob, self.alice)

    async def connect(self, **kwargs):
        """Return both ends of a connection that `a` opens."""
        accepting = asyncio.create_task(self.b.accept())
        try:
            return await self.a.connect(self.b.address, **kwargs), await accepting
        finally:
            accepting.cancel()


class Sim:
    """Run programs with the test's seed; afterwards every engine must have let go of everything."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.engines: list[engine.Engine] = []

    def run(self, main, *, seed: int | None = None, until_s: float = 3600.0):
        try:
            result = run(main, seed=self.seed if seed is None else seed, until_s=until_s)
        except BaseException:
            self.engines.clear()
            raise
        self.check_engines()
        return result

    def check_engines(self) -> None:
        gc.collect()
        while self.engines:
            core = self.engines.pop()
            exchange = control.Exchange(core)
            now_ns = LATER_NS
            for _ in range(3):  # closing ends, what is over is let go of, and so is what that held
                now_ns += LATER_NS
                exchange.handle_timeout(now_ns)
                exchange.transmit(now_ns)
                control.events(core)
            left = {name: count for name, count in control.live_objects(core).items() if count}
            assert not left, f"an engine still holds {left}"

    @contextlib.asynccontextmanager
    async def pair(self, link: Link | None = None, *, back: Link | None = None, a=None, b=None, **settings):
        """Two nodes on two hosts; `a` and `b` are more arguments of the nodes, `settings` those of both."""
        net = SimNet(link)
        alice, bob = net.host("alice", "11.0.1.1"), net.host("bob", "11.0.2.1")
        if back is not None:
            net.wire(bob, alice).set(back)
        config = {"config": interpeer.Config(**settings)} if settings else {}
        async with alice.node(**{**config, **(a or {})}) as node_a, bob.node(**{**config, **(b or {})}) as node_b:
            yield Pair(net, alice, bob, node_a, node_b)

    def bytes(self, n: int) -> bytes:
        """Data that a wrong order, a gap or a repetition would show in."""
        return random.Random(self.seed).randbytes(n)

    async def transfer(self, pair: Pair, size: int, *, ends=None) -> float:
        """Send so many bytes from `a` to `b`; return how many seconds it took. They arrive as they were sent."""
        return await self.carry(*(ends or await pair.connect()), size)

    async def carry(self, here: interpeer.Connection, there: interpeer.Connection, size: int) -> float:
        """Do that between the ends of a connection, wherever they are."""
        data = self.bytes(size)
        loop = asyncio.get_running_loop()
        start = loop.time()

        async def send():
            async with here.open_stream() as stream:
                await stream.write(data)

        async def receive():
            stream = await there.accept_stream()
            return await stream.read()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            received = group.create_task(receive())
        assert received.result() == data
        return loop.time() - start


@pytest.fixture
def interop() -> Link:
    return INTEROP


@pytest.fixture
def sim(seed, monkeypatch) -> Iterator[Sim]:
    sim = Sim(seed)
    attach = Host.attach

    def attach_and_remember(host, core, on_events):
        sim.engines.append(core)
        return attach(host, core, on_events)

    monkeypatch.setattr(Host, "attach", attach_and_remember)
    gc.collect()
    gc.freeze()  # so that looking for what a run has left costs no more than the run
    yield sim
    gc.unfreeze()
