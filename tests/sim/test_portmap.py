"""Port mapping on simulated hosts, over bad links: the mapper needs nothing of a loop but datagram endpoints."""

import asyncio

import pytest

from interpeer._portmap import Gateway, PortMapper
from interpeer.testing import Link, SimNet
from tests.models.gateway import EXTERNAL_HOST, ScriptedGateway, Server

PORT = 4433
WEEK_S = 7 * 86_400


async def put(gateway, host):
    """Put a gateway by script on a host."""

    async def program():
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: Server(gateway), local_addr=("0.0.0.0", 5351))

    await host.start(program())


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_mapping_lasts_for_a_week_on_a_link_that_loses_packets(sim, loss):
    async def main():
        loop = asyncio.get_running_loop()
        net = SimNet(Link(delay_s=0.002, loss=loss))
        host, router = net.host("host", "192.0.2.9"), net.host("router", "192.0.2.1")
        gateway = ScriptedGateway(loop.time)
        await put(gateway, router)
        found = Gateway("192.0.2.1", "192.0.2.9")
        mapper = PortMapper(PORT, versions=(4,), methods=("pcp", "nat-pmp"), find_gateway=lambda version: found)
        await host.start(mapper.start())
        away_s = 0
        for _ in range(WEEK_S // 60):
            await asyncio.sleep(60)
            away_s += 60 * (not mapper.mappings)
        assert away_s <= (0 if loss == 0 else WEEK_S / 100)
        assert str(mapper.mappings[0].external) == f"{EXTERNAL_HOST}:{PORT}"
        renewals = len(gateway.maps)
        assert WEEK_S / 7200 < renewals < 3 * WEEK_S / 3600
        await mapper.close()
        assert mapper.mappings == () and (loss or gateway.table == {})

    sim.run(main(), until_s=2 * WEEK_S)
