"""Call functions of a peer over a channel: requests and answers are messages, so nothing has to be framed.

An unordered channel serves them as they arrive: a call that is lost on the way delays no other.

Prints:

    add(2, 3) = 5, upper('peer') = 'PEER', and 1000 calls at once agree
"""

import asyncio
import itertools
import json
from typing import Any

import interpeer

FUNCTIONS = {"add": lambda a, b: a + b, "upper": str.upper}


async def serve(channel: interpeer.Channel) -> None:
    async for request in channel:
        number, name, arguments = json.loads(request)
        await channel.send(json.dumps([number, FUNCTIONS[name](*arguments)]).encode())


class Caller:
    """Match answers to the calls that wait for them."""

    def __init__(self, channel: interpeer.Channel) -> None:
        self.channel = channel
        self.numbers = itertools.count()
        self.waiting: dict[int, asyncio.Future[Any]] = {}

    async def call(self, name: str, *arguments: object) -> Any:
        number = next(self.numbers)
        self.waiting[number] = asyncio.get_running_loop().create_future()
        await self.channel.send(json.dumps([number, name, arguments]).encode())
        return await self.waiting[number]

    async def receive(self) -> None:
        async for answer in self.channel:
            number, result = json.loads(answer)
            self.waiting.pop(number).set_result(result)


async def main() -> None:
    async with interpeer.Node() as a, interpeer.Node() as b, a.connect(b.address) as connection:
        async with connection.open_channel(ordered=False) as channel:
            accepted = await b.accept()
            serving = asyncio.create_task(serve(await accepted.accept_channel()))
            caller = Caller(channel)
            receiving = asyncio.create_task(caller.receive())
            five, peer = await caller.call("add", 2, 3), await caller.call("upper", "peer")
            sums = await asyncio.gather(*(caller.call("add", i, i) for i in range(1000)))
            agree = "agree" if sums == [2 * i for i in range(1000)] else "differ"
            print(f"add(2, 3) = {five}, upper('peer') = {peer!r}, and 1000 calls at once {agree}")
            receiving.cancel()
        await serving


interpeer.run(main())
