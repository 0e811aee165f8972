"""Reach a peer behind a NAT from behind another one, by its id alone: through a third at first, and then directly.

The network is simulated, NATs and all, so that the example runs anywhere. On real machines it is the same with
`interpeer.Node(network="our club", bootstrap=[ADDRESS])` on each, and `interpeer up` somewhere that prints the ADDRESS.

Prints:

    called by id: relayed by a helper
    0.5 seconds later: direct, punched to its reflexive address
    300 numbers arrived, none of them lost
    between symmetric NATs: relayed, since both NATs give each destination another port: neither end can guess both
"""

import asyncio

import interpeer
from interpeer.testing import Link, NatKind, SimNet, run

NETWORK = "our club"
COUNT = 300


async def receive(node: interpeer.Node) -> list[int]:
    async with await node.accept() as connection:
        stream = await connection.accept_stream()
        numbers = [int(line) for line in (await stream.read()).split()]
        await connection.wait_closed()
        return numbers


async def send(connection: interpeer.Connection) -> None:
    """Send for three seconds, whatever becomes of the path meanwhile."""
    async with connection.open_stream() as stream:
        for number in range(COUNT):
            await stream.write(f"{number}\n".encode())
            await asyncio.sleep(0.01)
        await stream.finish()


async def between(nat: NatKind) -> None:
    net = SimNet(Link(delay_s=0.015))
    async with net.host("one").node(network=NETWORK) as helper, net.host("two").node(network=NETWORK) as other:
        known = [helper.address, other.address]  # two: one alone cannot tell what a NAT does with ports
        async with (
            net.host("a", nat=nat).node(network=NETWORK, bootstrap=known) as a,
            net.host("b", nat=nat).node(network=NETWORK, bootstrap=known) as b,
        ):
            await asyncio.gather(a.joined(), b.joined())
            receiving = asyncio.create_task(receive(b))
            async with a.connect(b.id) as connection:
                if nat is NatKind.PORT:
                    assert connection.path.relay in (helper.id, other.id)
                    print(f"called by id: {connection.path.kind} by a helper")
                sending = asyncio.create_task(send(connection))
                await asyncio.sleep(0.5)
                path = await connection.wait_direct()
                if path.kind == "direct":
                    print(f"0.5 seconds later: {path.kind}, {path.detail}")
                else:
                    print(f"between symmetric NATs: {path.kind}, since {path.reasons[-1]}")
                await sending
            received = await receiving
            assert received == list(range(COUNT))
            if nat is NatKind.PORT:
                print(f"{len(received)} numbers arrived, none of them lost")


run(between(NatKind.PORT), seed=1)
run(between(NatKind.SYMMETRIC), seed=1)
