"""Send a game's state: what is late is worth nothing, and what happens must not be missed.

Positions go over an unordered channel without repetition and with a deadline; events over one that delivers everything, and
is more urgent. Prints:

    3 events in order; the last position is (99, 198); of 100 positions every one arrived or was given up
"""

import asyncio
import struct

import interpeer

TICKS = 100


async def play(connection: interpeer.Connection) -> None:
    positions = await connection.open_channel(resend=False, ordered=False, deadline=0.1)
    events = await connection.open_channel(priority=2)
    for tick in range(TICKS):
        await positions.send(struct.pack("!III", tick, tick, 2 * tick))
        if tick % 40 == 0:
            await events.send(b"jump at %d" % tick)
        await asyncio.sleep(0.001)
    await events.finish()
    await positions.finish()


async def watch(connection: interpeer.Connection) -> None:
    positions, events = await connection.accept_channel(), await connection.accept_channel()
    newest = (-1, 0, 0)
    count = 0
    async for message in positions:
        newest = max(newest, struct.unpack("!III", message))  # an older one may come after a newer one
        count += 1
    happened = [event async for event in events]
    order = "in order" if happened == [b"jump at %d" % tick for tick in range(0, TICKS, 40)] else "mixed up"
    whole = "every one arrived or was given up" if count + positions.dropped.theirs == TICKS else "some vanished"
    print(f"{len(happened)} events {order}; the last position is {newest[1:]}; of {TICKS} positions {whole}")


async def main() -> None:
    async with interpeer.Node() as a, interpeer.Node() as b, a.connect(b.address) as connection, asyncio.TaskGroup() as group:
        group.create_task(watch(await b.accept()))
        group.create_task(play(connection))


interpeer.run(main())
