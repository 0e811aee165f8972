"""Real sockets, under every driver: both loops, a thread of its own, and a loop that cannot watch sockets."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import interpeer
import pytest
from interpeer._core import engine

DRIVERS = ["asyncio", "uvloop", "thread", "portable"]
TIMEOUT_S = 30


@pytest.fixture(scope="session", autouse=True)
def _first_uvloop() -> None:
    """Let uvloop make, outside of any test, what it makes once for the process: a pipe for signals."""
    import uvloop

    uvloop.new_event_loop().close()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the driver that nodes of this test run on."""
    name: str = request.param
    if name == "thread":
        monkeypatch.setenv("INTERPEER_PUMP", "thread")
    if name == "portable":
        monkeypatch.setenv("INTERPEER_DISABLE", "reader")
    return name


@pytest.fixture
def run(driver: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """A function that runs a coroutine on the driver's loop, and fails if it hangs or leaves an unhandled error."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        problems: list[dict[str, Any]] = []

        async def bounded() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
            async with asyncio.timeout(TIMEOUT_S):
                return await main

        factory = None
        if driver == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            result = runner.run(bounded())
            gc.collect()
        assert not problems, problems
        return result

    return run


class Pair:
    """Two nodes on loopback and a connection between them: `ab` is a's end, `ba` is b's."""

    a: interpeer.Node
    b: interpeer.Node
    ab: interpeer.Connection
    ba: interpeer.Connection

    async def streams(self) -> tuple[interpeer.Stream, interpeer.Stream]:
        """Open a stream at a, and accept it at b."""
        return await self.ab.open_stream(), await self.ba.accept_stream()


@asynccontextmanager
async def make_pair(**config: Any) -> AsyncIterator[Pair]:
    """Connect two nodes, both with these settings of Config."""
    settings = interpeer.Config(**config)
    async with (
        interpeer.Node(listen="127.0.0.1:0", config=settings) as a,
        interpeer.Node(listen="127.0.0.1:0", config=settings) as b,
    ):
        pair = Pair()
        pair.a, pair.b = a, b
        pair.ab = await a.connect(b.address)
        pair.ba = await b.accept()
        yield pair


@pytest.fixture
def pair() -> Callable[..., Any]:
    """`async with pair(**config) as p`: two connected nodes."""
    return make_pair


def pytest_live_objects() -> Counter[str]:
    """Engines that are still alive hold everything else."""
    return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, engine.Engine))
