"""Test a program of your own over a bad network, in simulated time: the same in every run.

Prints:

    2 MB over 10 Mbit/s with 5 % loss: all there, in simulated seconds
    the same again: True
"""

import asyncio

from interpeer.testing import Link, SimNet, run

BAD = Link(delay_s=0.05, loss=0.05, rate_bit_per_s=10e6)


async def transfer() -> float:
    net = SimNet(BAD)
    async with net.host("alice").node() as a, net.host("bob").node() as b:
        loop = asyncio.get_running_loop()
        async with a.connect(b.address) as connection:
            accepted = await b.accept()
            start = loop.time()
            async with connection.open_stream() as stream:
                sending = asyncio.create_task(stream.write(bytes(2_000_000)))
                received = await (await accepted.accept_stream()).readexactly(2_000_000)
                await sending
            assert not any(received)
            return loop.time() - start


first, second = run(transfer(), seed=7), run(transfer(), seed=7)
print("2 MB over 10 Mbit/s with 5 % loss: all there, in simulated seconds")
print("the same again:", first == second)
