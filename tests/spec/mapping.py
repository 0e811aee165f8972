"""What the tests of chapter 25 have: a port mapper in simulated time, with a gateway by script at the other end of its wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from interpeer import testing
from interpeer._address import Endpoint
from interpeer._portmap import PortMapper
from interpeer._portmap.answers import Answer, Kind
from interpeer._portmap.machine import Machine, State
from interpeer.testing._loop import SimLoop
from tests.models.gateway import ScriptedGateway, Wire

PORT = 4433


class Outside:
    """Somebody outside, who is asked to come in. `verdict` is what they find."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.verdict: bool | Callable[[], bool | None] | None = None
        self.asked: list[tuple[float, str]] = []
        self._clock = clock

    async def verify(self, endpoint: Endpoint) -> bool | None:
        self.asked.append((self._clock(), str(endpoint)))
        await asyncio.sleep(0.05)
        return self.verdict() if callable(self.verdict) else self.verdict


class Scene:
    """A mapper, its gateway, and somebody outside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.gateway = ScriptedGateway(loop.time)
        self.wire = Wire(loop, self.gateway)
        self.outside = Outside(loop.time)
        self.changes: list[tuple[float, tuple[str, ...]]] = []
        monkeypatch.setattr(
            SimLoop, "create_datagram_endpoint", lambda _, *args, **kw: self.wire.create_datagram_endpoint(*args, **kw)
        )
        given = {"methods": ("pcp", "nat-pmp"), "versions": (4,), "verify": self.outside.verify} | options
        self.mapper = PortMapper(PORT, find_gateway=self.wire.find_gateway, on_change=self._note, **given)

    def _note(self) -> None:
        self.changes.append((self.time(), self.mapped))

    @property
    def mapped(self) -> tuple[str, ...]:
        return tuple(f"{mapping.protocol} {mapping.external}" for mapping in self.mapper.mappings)

    def announce(self, data: bytes) -> None:
        """Let the gateway say something to everybody."""
        for endpoint in self.wire.endpoints:
            endpoint.receive(data, self.wire.source)


def play(
    monkeypatch: pytest.MonkeyPatch, seed: int, script: Callable[[Scene], Awaitable[None]], *, prepare: Any = None, **options: Any
) -> None:
    """Run a script with a mapper that has been started, in simulated time; `prepare` is called with the scene before."""

    async def main() -> None:
        scene = Scene(monkeypatch, **options)
        if prepare is not None:
            prepare(scene)
        await scene.mapper.start()
        try:
            await script(scene)
        finally:
            await scene.mapper.close()
        assert scene.mapper.mappings == ()
        assert all(endpoint.is_closing() for endpoint in scene.wire.endpoints)

    testing.run(main(), seed=seed, until_s=200_000)


class Held:
    """A machine by itself, in time that the test sets."""

    def __init__(self, epoch: Any = None, chance: int = 0x80) -> None:
        self.drawn = 0
        self.chance = chance
        self.now_s = 0.0
        self.machine = Machine(PORT, 0.0, random_bytes=self.random_bytes, epoch=epoch)

    def random_bytes(self, n: int) -> bytes:
        """Return chances in the middle, and nonces that are all different."""
        if n == 4:
            return bytes([self.chance, 0, 0, 0])
        self.drawn += 1
        return self.drawn.to_bytes(n, "big")

    def say(self, answer: Answer) -> None:
        self.machine.handle_answer(answer, self.now_s)

    def grant(self, host: str = "20.0.0.1", port: int = PORT, lifetime_s: int = 7200, epoch_s: int | None = None) -> None:
        self.say(Answer(Kind.GRANTED, host=host, port=port, lifetime_s=lifetime_s, epoch_s=epoch_s))

    def wishes(self, until_s: float) -> Iterator[tuple[float, Any]]:
        """Move time to each thing that is due, and yield what is asked for."""
        while True:
            while (wish := self.machine.poll_request(self.now_s)) is not None:
                yield self.now_s, wish
            due_s = self.machine.poll_timeout()
            if due_s > until_s:
                self.now_s = until_s
                return
            self.now_s = max(due_s, self.now_s)
            self.machine.poll_verification(self.now_s)
            self.machine.handle_timeout(self.now_s)

    def pass_to(self, until_s: float) -> list[tuple[float, Any]]:
        return list(self.wishes(until_s))

    @classmethod
    def in_state(cls, state: State) -> Held:
        """Return a machine that has come to a state by what brings it there."""
        held = cls()
        machine = held.machine
        next(held.wishes(0.0))
        if state in (State.MAPPED, State.RENEWING, State.DELETING):
            held.grant()
        if state is State.RENEWING:
            held.pass_to(4600)
        if state is State.DELETING:
            assert machine.grant is not None
            machine.handle_verdict(machine.grant, False, held.now_s)
        if state is State.WAITING:
            held.say(Answer(Kind.REFUSED, reason="no"))
        if state in (State.RELEASING, State.CLOSED):
            machine.close(held.now_s)
        if state is State.CLOSED:
            held.say(Answer(Kind.GONE))
        assert machine.state is state
        return held


async def until(condition: Callable[[], Any], step_s: float = 0.01, limit_s: float = 60.0) -> None:
    """Wait, looking every few milliseconds."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(step_s)
