"""Channels over real sockets, under every driver."""

import asyncio
import random

import pytest

import interpeer
from tests.net.conftest import make_pair


def test_messages_of_all_sizes_arrive_both_ways(run):
    async def main():
        async with make_pair() as pair:
            here = await pair.ab.open_channel()
            there = await pair.ba.accept_channel()
            chance = random.Random(1)
            sent = [chance.randbytes(chance.choice((0, 1, 1000, 1200, 70_000))) for _ in range(200)]

            async def send(channel):
                await channel.send_many(sent)
                await channel.finish()

            async def receive(channel):
                return [message async for message in channel]

            async with asyncio.TaskGroup() as group:
                group.create_task(send(here))
                group.create_task(send(there))
                received = [group.create_task(receive(channel)) for channel in (here, there)]
            assert [task.result() for task in received] == [sent, sent]

    run(main())


def test_any_buffer_can_be_sent_and_a_cancelled_recv_loses_nothing(run):
    async def main():
        async with make_pair() as pair, pair.ab.open_channel(ordered=False) as here:
            there = await pair.ba.accept_channel()
            waiting = asyncio.create_task(there.recv())
            await asyncio.sleep(0)
            waiting.cancel()
            await here.send(bytearray(b"one"))
            await here.send_many([memoryview(b"two")])
            assert await there.recv() == b"one" and there.number == 0
            assert await there.recv_numbered() == [(1, b"two")]
            with pytest.raises(TypeError, match="Python objects"):
                import numpy as np

                await here.send(np.array([object()]))

    run(main())


def test_a_message_of_sixteen_mebibytes(run):
    async def main():
        async with make_pair() as pair:
            here = await pair.ab.open_channel(priority=-2)
            there = await pair.ba.accept_channel()
            message = random.Random(2).randbytes(16 << 20)
            async with asyncio.TaskGroup() as group:
                group.create_task(here.send(message))
                received = group.create_task(there.recv())
            assert received.result() == message
            assert here.stats().bytes_sent == there.stats().bytes_received == 16 << 20

    run(main())


def test_a_channel_that_is_closed_says_so_to_both(run):
    async def main():
        async with make_pair() as pair:
            async with pair.ab.open_channel() as here:
                there = await pair.ba.accept_channel()
                await here.send(b"last")
            assert await there.recv() == b"last"
            with pytest.raises(interpeer.ChannelClosed):
                await there.recv()
            with pytest.raises(interpeer.ClosedError):
                await here.send(b"more")
            with pytest.raises(interpeer.ClosedError):
                await here.recv()
            other = await pair.ab.open_channel()
            far = await pair.ba.accept_channel()
            other.reset(7)
            with pytest.raises(interpeer.ChannelClosed) as closed:
                await far.recv()
            assert closed.value.code == 7

    run(main())


@pytest.mark.parametrize(
    "options",
    [{"priority": 4}, {"priority": -5}, {"deadline": 0}, {"deadline": -1.0}, {"fec": 0}, {"fec": 1.1}, {"fec": -0.5}],
    ids=str,
)
def test_options_that_cannot_be_are_refused(run, options):
    async def main():
        async with make_pair() as pair:
            with pytest.raises(ValueError, match="priority|deadline|fec"):
                await pair.ab.open_channel(**options)
            stream = await pair.ab.open_stream()
            stream.priority = 3
            assert stream.priority == 3
            with pytest.raises(ValueError, match="from -4"):
                stream.priority = 9

    run(main())


def test_threads_use_channels():
    with interpeer.blocking.Node() as a, interpeer.blocking.Node() as b, a.connect(b.address, timeout=20) as connection:
        accepted = b.accept(timeout=20)
        with connection.open_channel(deadline=5.0, timeout=20) as channel:
            there = accepted.accept_channel(timeout=20)
            channel.send_many([b"one", b"two"], timeout=20)
            assert list(zip(range(2), there.messages(timeout=20), strict=False)) == [(0, b"one"), (1, b"two")]
            channel.set(priority=2)
            assert channel.options.priority == 2 and there.dropped == 0 and there.number == 1
            with pytest.raises(TimeoutError):
                there.recv(timeout=0.01)
            there.send(b"back", timeout=20)
            assert channel.recv_many(timeout=20) == [b"back"]
