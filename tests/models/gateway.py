"""A gateway by script: it speaks PCP and NAT-PMP as far as it is told to, and tells any nonsense that a test wants.

It is a function from datagrams to datagrams. `Wire` puts it behind the datagram endpoints of a simulated loop; `serve` behind a
socket on loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from interpeer._portmap import Gateway
from tests.models import portmap
from tests.models.portmap import NatpmpRequest, PcpRequest

OWN_HOST, GATEWAY_HOST, EXTERNAL_HOST = "192.168.1.10", "192.168.1.1", "20.0.0.1"


class ScriptedGateway:
    """What it has been asked is in `requests`, what it maps in `table`: internal port -> (external port, nonce)."""

    def __init__(self, clock: Callable[[], float], *, speaks: Iterable[str] = ("pcp", "nat-pmp")) -> None:
        self.host = EXTERNAL_HOST
        self.speaks = set(speaks)
        self.lifetime_s: int | None = None
        """What it grants; None: what is asked for."""
        self.port: int | None = None
        """What it grants; None: what is asked for."""
        self.pcp_error = self.natpmp_error = 0
        self.error_lifetime_s = 0
        self.loses: Callable[[bytes], bool] = lambda data: False
        self.twists: Callable[[bytes], bytes] = lambda data: data
        """What becomes of an answer before it is sent."""
        self.requests: list[PcpRequest | NatpmpRequest] = []
        self.asked_at: list[float] = []
        """When each of them came."""
        self.table: dict[int, tuple[int, bytes]] = {}
        self._clock = clock
        self._began_s = clock() - 1000

    @property
    def epoch_s(self) -> int:
        return int(self._clock() - self._began_s)

    @property
    def maps(self) -> list[PcpRequest | NatpmpRequest]:
        """The requests for a mapping, or for the end of one."""
        return [request for request in self.requests if request.opcode == 1]

    @property
    def maps_at(self) -> list[float]:
        return [when for request, when in zip(self.requests, self.asked_at, strict=True) if request.opcode == 1]

    def reboot(self) -> bytes:
        """Lose everything; return what it then says to everybody."""
        self.table.clear()
        self._began_s = self._clock()
        return portmap.pcp_header(0, epoch_s=0) if "pcp" in self.speaks else portmap.natpmp_address_answer(self.host)

    def answer(self, data: bytes) -> list[bytes]:
        """Return what it answers to a request."""
        if self.loses(data):
            return []
        if data[0] == 0:
            return [self.twists(answer) for answer in self._natpmp(data)]
        return [self.twists(answer) for answer in self._pcp(data)]

    def _note(self, request: PcpRequest | NatpmpRequest) -> None:
        self.requests.append(request)
        self.asked_at.append(self._clock())

    def _pcp(self, data: bytes) -> list[bytes]:
        if "pcp" not in self.speaks:
            return [bytes((0, 0x80 | data[1], 0, 1)) + self.epoch_s.to_bytes(4, "big")] if self.speaks else []
        request = portmap.read_pcp_request(data)
        self._note(request)
        if request.opcode == 0:
            return [portmap.pcp_header(0, epoch_s=self.epoch_s)]
        if self.pcp_error:
            said = {"result": self.pcp_error, "lifetime_s": self.error_lifetime_s, "epoch_s": self.epoch_s}
            return [portmap.pcp_answer(request, "0.0.0.0", 0, **said)]
        if request.lifetime_s == 0:
            self._end(request.internal_port, request.nonce)
            return [portmap.pcp_answer(request, "0.0.0.0", 0, epoch_s=self.epoch_s)]
        port = self._map(request.internal_port, request.external_port, request.nonce)
        return [portmap.pcp_answer(request, self.host, port, lifetime_s=self.lifetime_s, epoch_s=self.epoch_s)]

    def _natpmp(self, data: bytes) -> list[bytes]:
        if "nat-pmp" not in self.speaks:
            return [portmap.pcp_header(0, result=1, epoch_s=self.epoch_s)] if self.speaks else []
        request = portmap.read_natpmp_request(data)
        self._note(request)
        if request.opcode == 0:
            return [portmap.natpmp_address_answer(self.host, epoch_s=self.epoch_s)]
        if self.natpmp_error:
            return [portmap.natpmp_map_answer(request.internal_port, 0, 0, result=self.natpmp_error, epoch_s=self.epoch_s)]
        if request.lifetime_s == 0:
            self._end(request.internal_port, b"")
            return [portmap.natpmp_map_answer(request.internal_port, 0, 0, epoch_s=self.epoch_s)]
        port = self._map(request.internal_port, request.external_port, b"")
        lifetime_s = request.lifetime_s if self.lifetime_s is None else self.lifetime_s
        return [portmap.natpmp_map_answer(request.internal_port, port, lifetime_s, epoch_s=self.epoch_s)]

    def _map(self, internal_port: int, external_port: int, nonce: bytes) -> int:
        port = external_port if self.port is None else self.port
        self.table[internal_port] = port, nonce
        return port

    def _end(self, internal_port: int, nonce: bytes) -> None:
        """End a mapping, if it is the asker's."""
        if self.table.get(internal_port, (0, nonce))[1] == nonce:
            self.table.pop(internal_port, None)


# --- in a simulation ---


class _Endpoint(asyncio.DatagramTransport):
    def __init__(self, wire: Wire, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__()
        self._wire, self._protocol, self._is_open = wire, protocol, True

    def sendto(self, data: Any, addr: Any = None) -> None:
        assert self._is_open
        self._wire.loop.call_later(self._wire.delay_s, self._wire.arrive, self, bytes(data))

    def receive(self, data: bytes, source: tuple[str, int]) -> None:
        if self._is_open:
            self._protocol.datagram_received(data, source)

    def refuse(self) -> None:
        if self._is_open:
            self._protocol.error_received(ConnectionRefusedError())

    def close(self) -> None:
        self._is_open = False

    def is_closing(self) -> bool:
        return not self._is_open


class Wire:
    """The link between a host and its gateway, whom it may find with `find_gateway`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gateway: ScriptedGateway | None) -> None:
        self.loop = loop
        self.gateway = gateway
        """None: nobody listens there."""
        self.address: Gateway | None = Gateway(GATEWAY_HOST, OWN_HOST)
        """What the routing table says."""
        self.delay_s = 0.005
        self.source: tuple[str, int] = (GATEWAY_HOST, 5351)
        """Whom answers seem to come from."""
        self.endpoints: list[_Endpoint] = []

    def find_gateway(self, version: int) -> Gateway | None:
        return self.address if version == 4 else None

    async def create_datagram_endpoint(
        self, factory: Callable[[], asyncio.DatagramProtocol], *, local_addr: tuple[str, int], remote_addr: tuple[str, int]
    ) -> tuple[_Endpoint, asyncio.DatagramProtocol]:
        assert self.address is not None and remote_addr == (self.address.host, 5351) and local_addr == (self.address.own_host, 0)
        protocol = factory()
        endpoint = _Endpoint(self, protocol)
        self.endpoints.append(endpoint)
        protocol.connection_made(endpoint)
        return endpoint, protocol

    def arrive(self, endpoint: _Endpoint, data: bytes) -> None:
        if self.gateway is None:
            self.loop.call_later(self.delay_s, endpoint.refuse)
            return
        for answer in self.gateway.answer(data):
            self.loop.call_later(self.delay_s, endpoint.receive, answer, self.source)


# --- on loopback ---


class Server(asyncio.DatagramProtocol):
    def __init__(self, gateway: ScriptedGateway) -> None:
        self._gateway = gateway

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for answer in self._gateway.answer(data):
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def serve(gateway: ScriptedGateway) -> AsyncIterator[Gateway]:
    """Put a gateway on loopback; yield where it is."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Server(gateway), local_addr=("127.0.0.1", 0))
    try:
        yield Gateway("127.0.0.1", "127.0.0.1", port=transport.get_extra_info("sockname")[1])
    finally:
        transport.close()
