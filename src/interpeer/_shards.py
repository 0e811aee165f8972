"""Several engines for one node, each with a thread and sockets of its own, at one address."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, final

from interpeer._address import Endpoint
from interpeer._config import Config
from interpeer._core import engine
from interpeer._driver import CoreEventsCallback, Driver, ThreadDriver, socket_words


@final
class ShardsDriver(Driver):
    """Drive a node's engines, which are `control.share`d: the first binds, the others join it.

    The first to be bound takes the address alone, so that a port in use is noticed as ever. Threads end before anything is
    closed, since each writes to what wakes the others."""

    def __init__(
        self,
        cores: Sequence[engine.Engine],
        config: Config,
        on_core_events: CoreEventsCallback,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._shards = [ThreadDriver(core, config, functools.partial(on_core_events, core), loop) for core in cores]
        self.endpoints: tuple[Endpoint, ...] = ()
        self.bound = ()

    async def open(self, listen: Iterable[str]) -> None:
        disabled = socket_words()
        first, *others = self._shards
        first.bind(listen)
        for shard in others:
            shard.join(first, disabled)
        for shard in self._shards:
            shard.know_shards(self._shards, disabled)
        for shard in self._shards:
            shard.start()
        self.endpoints, self.bound = first.endpoints, first.bound

    def kick(self) -> None:
        for shard in self._shards:
            shard.kick()

    def flush(self) -> None:
        for shard in self._shards:
            shard.flush()

    def can_reach(self, endpoint: Endpoint) -> bool:
        return self._shards[0].can_reach(endpoint)

    def counters(self) -> dict[str, int]:
        total = Counter[str]()
        for shard in self._shards:
            total.update(shard.counters())
        return dict(total)

    def capabilities(self) -> list[dict[str, Any]]:
        """Return what each socket can do, for doctor."""
        return [capabilities for shard in self._shards for capabilities in shard.capabilities()]

    def close(self) -> None:
        for shard in self._shards:
            shard.stop()
        for shard in reversed(self._shards):  # the first may have lent its sockets
            shard.close()
