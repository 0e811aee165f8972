"""How an operation is repeated, and two engines that are joined in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from interpeer import Config
from interpeer._core import control
from interpeer._core.connection_handle import ConnectionHandle
from interpeer._core.engine import Engine
from interpeer._core.probe_loops import RIGHT_AT, Wire

MANY = 1000
MS = 1_000_000
PROTOCOL = b"micro/1"


@pytest.fixture
def repeat(benchmark: Any) -> Callable[..., None]:
    """`repeat(run, n)`: measure `run(n)`, which does something n times and returns how often it went well."""

    def repeat(run: Callable[[int], int], n: int = MANY) -> None:
        assert benchmark(run, n) == n
        note_each(benchmark, n)

    return repeat


def note_each(benchmark: Any, n: int) -> None:
    """Note what one of `n` operations took, if anything was measured."""
    if benchmark.stats is not None:
        benchmark.extra_info["ns_each"] = round(benchmark.stats.stats.median / n * 1e9, 1)


class Link:
    """A connection between two engines, and nothing between them; each side is a ConnectionHandle."""

    def __init__(self, cipher: str = "chacha20-poly1305") -> None:
        self.now_ns = 1000 * MS
        self.engines = [self._engine(bytes([side]) * 32, cipher) for side in (1, 2)]
        self.wire = Wire(*self.engines)
        identity = control.identity_of(bytes([2]) * 32)
        self.left = control.connect(self.engines[0], identity, [RIGHT_AT], PROTOCOL)
        self.carry()
        self.right: ConnectionHandle
        (self.right,) = (event[1] for event in control.events(self.engines[1]) if event[0] == control.INCOMING)
        self.right.take()
        self.carry()
        assert self.left.is_open and self.right.is_open

    @staticmethod
    def _engine(seed: bytes, cipher: str) -> Engine:
        engine = Engine()
        control.configure(engine, seed, b"", False, [PROTOCOL], [cipher], 16, Config(keep_alive_s=0).core_limits())
        return engine

    def carry(self) -> None:
        """Let a millisecond pass, and packets go to and fro until all is said."""
        for engine in self.engines:
            control.add_entropy(engine, os.urandom(control.entropy_missing(engine)))
        self.now_ns += MS
        self.wire.handle_timeout(self.now_ns)
        self.wire.exchange(self.now_ns)


@pytest.fixture
def link() -> Link:
    return Link()
