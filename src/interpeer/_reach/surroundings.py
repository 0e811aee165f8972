"""What is around the node: neighbours on the local network, and a gateway that maps ports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, final

from interpeer import _host
from interpeer._address import Endpoint
from interpeer._identity import PeerId
from interpeer._interfaces import Change
from interpeer._lan import LanDiscovery, Neighbour
from interpeer._portmap import PortMapper
from interpeer._reach.tasks import Tasks

if TYPE_CHECKING:
    from interpeer._node import Node

logger = logging.getLogger("interpeer")


@final
class Surroundings:
    """Find neighbours and have a port mapped, from `start` to `close`; what fails is noted."""

    def __init__(
        self,
        node: Node,
        tasks: Tasks,
        on_neighbour: Callable[[PeerId], None],
        verify: Callable[[Endpoint], Awaitable[bool | None]],
    ) -> None:
        self._node = node
        self._tasks = tasks
        self._on_neighbour = on_neighbour
        self._lan: LanDiscovery | None = None
        self._mapper: PortMapper | None = None
        self._starting: asyncio.Task[None] | None = None
        self._verify = verify
        self._reflexive: frozenset[str] = frozenset()

    def start(self) -> None:
        """Begin; nobody waits for it."""
        with _host.on(self._node._host):  # wherever it was made that opens the node
            self._starting = self._tasks.start(self._start())

    async def _start(self) -> None:
        node, driver = self._node, self._node._driver
        if node._lan and node._network is not None:
            self._lan = LanDiscovery(node.id, node._network, driver.bound, self._handle_neighbour)
            await self._lan.start()
            for note in self._lan.notes:
                logger.info("local network: %s", note)
        has_routes = node._host is None  # a simulated host has no routing table to find the gateway in
        if node.config.port_mapping and has_routes and self._is_reachable and driver.bound:
            self._mapper = PortMapper(driver.bound[0][1], verify=self._verify)
            await self._mapper.start()

    @property
    def _is_reachable(self) -> bool:
        """Whether anything but this machine can send to the sockets."""
        return any(not endpoint.is_loopback for endpoint in self._node._driver.endpoints)

    # --- what happens ---

    def handle_change(self, change: Change) -> None:
        """The interfaces have changed."""
        if self._lan is not None:
            self._lan.on_change(change)
        if self._mapper is not None:
            self._mapper.handle_network_change()

    def _handle_neighbour(self, peer_id: PeerId, _endpoints: tuple[Endpoint, ...]) -> None:
        self._on_neighbour(peer_id)

    # --- what is known ---

    @property
    def is_looking(self) -> bool:
        """Whether neighbours are looked for on the local network."""
        return self._node._lan and self._node._network is not None

    def neighbour(self, peer_id: PeerId) -> tuple[Endpoint, ...]:
        """Return where a neighbour says that it is; the handshake proves it."""
        return next((one.endpoints for one in self.neighbours if one.peer_id == peer_id), ())

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The neighbours that were heard of lately."""
        return () if self._lan is None else self._lan.neighbours

    def mapped(self) -> tuple[Endpoint, ...]:
        """Return addresses that a gateway has opened for us, but for those that others cannot reach or that were found to lie."""
        if self._mapper is None:
            return ()
        return tuple(one.external for one in self._mapper.mappings if one.is_public and one.is_verified is not False)

    def set_reflexive(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Tell the gateway's client where peers see us: a gateway with another address is not the last NAT."""
        hosts = frozenset(endpoint.host for endpoint in endpoints)
        if self._mapper is not None and hosts and hosts != self._reflexive:
            self._reflexive = hosts
            self._mapper.set_reflexive(hosts)

    def handle_doubt(self) -> None:
        """Have mappings checked: a path has died."""
        if self._mapper is not None:
            self._mapper.handle_doubt()

    def report(self) -> dict[str, Any]:
        """Say what was found, for people."""
        return {
            "neighbours": {str(one.peer_id): [str(at) for at in one.endpoints] for one in self.neighbours},
            "port_mapping": None if self._mapper is None else self._mapper.report(),
        }

    async def close(self) -> None:
        """End it: mappings are given back, which takes a second at the most."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._lan is not None:
            await self._lan.close()
        if self._mapper is not None:
            await self._mapper.close()
