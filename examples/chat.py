"""Chat over datagrams: say each line until it is heard, since a datagram may be lost, and show it once.

Prints:

    bob hears: hello
    bob hears: is this lossy?
    alice hears: not so that you would notice
"""

import asyncio

import interpeer


class Chat:
    """One end of a conversation: lines are numbered, and their numbers come back when they were heard."""

    def __init__(self, name: str, connection: interpeer.Connection) -> None:
        self.name, self.connection = name, connection
        self.said = 0
        self.heard = 0
        self.answered: dict[int, asyncio.Event] = {}

    async def say(self, line: str) -> None:
        self.said += 1
        was_heard = self.answered[self.said] = asyncio.Event()
        while not was_heard.is_set():
            self.connection.send_datagram(b"say %d " % self.said + line.encode())
            try:
                async with asyncio.timeout(4 * self.connection.stats().rtt_s + 0.01):
                    await was_heard.wait()
            except TimeoutError:
                pass  # it, or the answer, was lost: again

    async def listen(self) -> None:
        while True:
            kind, number, *rest = (await self.connection.recv_datagram()).split(b" ", 2)
            if kind == b"heard":
                self.answered[int(number)].set()
                continue
            self.connection.send_datagram(b"heard " + number)
            if int(number) == self.heard + 1:  # otherwise it was said again
                self.heard += 1
                print(f"{self.name} hears: {rest[0].decode()}")


async def main() -> None:
    async with interpeer.Node() as a, interpeer.Node() as b, a.connect(b.address) as connection:
        alice, bob = Chat("alice", connection), Chat("bob", await b.accept())
        listening = [asyncio.create_task(each.listen()) for each in (alice, bob)]
        await alice.say("hello")
        await alice.say("is this lossy?")
        await bob.say("not so that you would notice")
        for task in listening:
            task.cancel()


interpeer.run(main())
