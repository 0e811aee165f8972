"""Several engines for one node, each with a thread and sockets of its own, at one address."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, final

from interpeer import errors
from interpeer._address import Endpoint
from interpeer._config import Config
from interpeer._core import engine
from interpeer._driver import CoreEventsCallback, Driver, ThreadDriver, socket_words
from interpeer._sockets import ExtraSocket, ExtraSockets, LoopSocket, OnDatagram, number_of


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
        self._extra = ExtraSockets(loop, is_watched=True)
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

    # The first shard receives from an adopted socket, and passes on what is another's; each sends by a descriptor of its own,
    # so that none can be closed, and be another file's, while one still uses it.

    def open_sockets(self, count: int, is_ipv6: bool, on_datagram: OnDatagram) -> list[ExtraSocket]:
        return self._extra.open(count, self._shards[0].hosts, is_ipv6, on_datagram, self._adopt)

    @property
    def can_adopt(self) -> bool:
        return self._shards[0].can_adopt

    def _adopt(self, extra: LoopSocket) -> bytes:
        if not self.can_adopt:
            raise errors.LocalError("as many sockets as may be are adopted already, or the node is closed")
        local = self._extra.next_local()
        first, *others = self._shards
        try:
            with extra.detach() as sock:
                for shard in others:
                    with sock.dup() as copy:
                        shard.take_in(copy, number_of(local), is_read=False)
                first.take_in(sock, number_of(local))
        except OSError:
            self.release_socket(local)
            raise
        return local

    def release_socket(self, local: bytes) -> None:
        for shard in self._shards:
            shard.release_socket(local)

    def counters(self) -> dict[str, int]:
        total = Counter[str]()
        for shard in self._shards:
            total.update(shard.counters())
        return dict(total)

    def capabilities(self) -> list[dict[str, Any]]:
        """Return what each socket can do, for doctor."""
        return [capabilities for shard in self._shards for capabilities in shard.capabilities()]

    def close(self) -> None:
        self._extra.close()
        for shard in self._shards:
            shard.stop()
        for shard in reversed(self._shards):  # the first may have lent its sockets
            shard.close()
