"""Send many small messages as datagrams, in batches both ways: cheap, unordered, and lost rather than late.

Prints:

    of 100000 messages none vanished: what did not arrive was dropped or lost, and counted
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
        while connection.stats().bytes_in_flight:  # noqa: ASYNC110 - until each packet has arrived or is known to be lost
            await asyncio.sleep(0.01)
        missing = COUNT - counting.result()
        lost = connection.stats().packets_lost * (connection.max_datagram_bytes // 8)  # as many as these can have carried
        if 0 <= missing <= accepted.stats().datagrams_dropped + lost:
            print(f"of {COUNT} messages none vanished: what did not arrive was dropped or lost, and counted")
        else:
            print(f"{missing} messages vanished")


interpeer.run(main())
