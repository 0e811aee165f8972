"""Send many small messages as datagrams, in batches both ways: cheap, unordered, and lost rather than late.

Prints:

    all 100000 arrived or were counted as lost
"""

import asyncio

import interpeer

COUNT = 100_000


async def count(connection: interpeer.Connection) -> int:
    seen = 0
    while True:
        for message in await connection.recv_datagrams(1024):
            if message == b"end":
                return seen
            seen += 1


async def main() -> None:
    async with interpeer.Node() as a, interpeer.Node() as b, a.connect(b.address) as connection:
        accepted = await b.accept()
        counting = asyncio.create_task(count(accepted))
        messages = [i.to_bytes(8, "big") for i in range(COUNT)]
        while messages:
            sent = connection.send_datagrams(messages[:4096])  # how many the queue took
            del messages[:sent]
            await connection.datagrams_writable()
        while not counting.done():
            connection.send_datagram(b"end")  # may be lost like any other, so say it until it is heard
            await asyncio.sleep(0.01)
        lost = accepted.stats().datagrams_dropped + connection.stats().packets_lost
        print(f"all {COUNT} arrived or were counted as lost" if counting.result() == COUNT or lost else "some vanished")


interpeer.run(main())
