"""Nodes that have loopback alone, on one machine: they know each other through a third, and need it no more after that."""

import asyncio

import pytest

import interpeer

TIMEOUT_S = 10


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_nodes_on_one_machine_meet_through_a_third_and_go_direct(listen):
    async def program():
        def node(*known):
            return interpeer.Node(listen=listen, network="test", lan=False, bootstrap=tuple(known))

        async with node() as helper, node(helper.address) as a, node(helper.address) as b, asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(a.joined(), b.joined())
            connection = await a.connect(b.id)
            await connection.wait_direct()
            assert connection.path.kind == "lan" and connection.path.remote in b.address.endpoints

    asyncio.run(program())
