"""Channels over networks in simulated time: nobody waits for a reader that is stuck, or for what is less urgent."""

import asyncio
import random

import pytest

import interpeer
from interpeer.testing import Link

LINK = Link(delay_s=0.025, rate_bit_per_s=100e6, queue_packets=100)
QUEUE_S = LINK.queue_packets * 1200 * 8 / LINK.rate_bit_per_s
MB = 1_000_000


async def pump(channel, size=20_000):
    while True:
        await channel.send(bytes(size))


async def count(channel, counts, i):
    while True:
        counts[i] += sum(map(len, await channel.recv_many()))


async def write_for_ever(stream):
    while True:
        await stream.write(bytes(MB))


async def read_for_ever(stream, counts):
    while data := await stream.read(MB):
        counts[0] += len(data)


@pytest.mark.row("S14")
def test_a_control_message_beside_a_bulk_transfer_takes_no_longer_than_a_round_trip(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            loop = asyncio.get_running_loop()
            bulk = await here.open_channel(priority=-4)
            control = await here.open_channel(priority=3)
            incoming, commands = await there.accept_channel(), await there.accept_channel()
            counts = [0]
            tasks = [asyncio.create_task(pump(bulk)), asyncio.create_task(count(incoming, counts, 0))]
            delays = []
            for _ in range(150):
                await asyncio.sleep(0.01)
                await control.send(b"%r" % loop.time())
                delays.append(loop.time() - float(await commands.recv()))
            for task in tasks:
                task.cancel()
            return sorted(delays), counts[0] * 8 / loop.time()

    delays, bit_per_s = sim.run(main())
    assert delays[int(0.99 * len(delays))] <= 2 * LINK.delay_s + QUEUE_S + 0.010
    assert bit_per_s > 0.5 * LINK.rate_bit_per_s


@pytest.mark.row("S10")
@pytest.mark.parametrize("kind", ["channel", "stream"])
def test_a_reader_that_is_stuck_slows_no_other(sim, kind):
    link = Link(delay_s=0.01, rate_bit_per_s=50e6, queue_packets=100)

    async def goodput(stuck):
        async with sim.pair(link) as pair:
            here, there = await pair.connect()
            ends = []
            for _ in range(20):
                if kind == "channel":
                    ends.append((await here.open_channel(), await there.accept_channel()))
                else:
                    ends.append((await here.open_stream(), await there.accept_stream()))
            counts = [0] * len(ends)

            async def write(stream):
                while True:
                    await stream.write(bytes(20_000))

            async def read(stream, i):
                while True:
                    counts[i] += len(await stream.read(1 << 20))

            tasks = [asyncio.create_task(pump(near) if kind == "channel" else write(near)) for near, _ in ends]
            for i, (_, far) in enumerate(ends):
                if i >= stuck:
                    tasks.append(asyncio.create_task(count(far, counts, i) if kind == "channel" else read(far, i)))
            await asyncio.sleep(4)
            before = sum(counts)
            await asyncio.sleep(4)
            for task in tasks:
                task.cancel()
            return sum(counts) - before

    assert sim.run(goodput(4)) >= 0.95 * sim.run(goodput(0))


@pytest.mark.row("S9")
def test_a_peer_that_never_reads_is_waited_for_while_others_go_on(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.01), idle_timeout_s=30.0) as pair:
            here, there = await pair.connect()
            deaf, other = await here.open_channel(), await here.open_channel(ordered=False)
            _, far = await there.accept_channel(), await there.accept_channel()
            sending = asyncio.create_task(pump(deaf))
            for minute in range(60):
                await asyncio.sleep(60)
                await other.send(b"%d" % minute)
                assert await far.recv() == b"%d" % minute
            assert not sending.done() and deaf.stats().queued_bytes < 40 * MB
            sending.cancel()

    sim.run(main(), until_s=2 * 3600)


@pytest.mark.row("S13")
def test_a_message_larger_than_all_windows_arrives_and_so_do_several_at_once(sim):
    link = Link(delay_s=0.005, rate_bit_per_s=200e6, queue_packets=200)

    async def main():
        async with sim.pair(link) as pair:
            here, there = await pair.connect()
            messages = [random.Random(i).randbytes(4 << 20) for i in range(4)]
            near = [await here.open_channel(ordered=i % 2 == 0) for i in range(4)]
            far = [await there.accept_channel() for _ in near]
            stream, theirs = await here.open_stream(), None
            async with asyncio.TaskGroup() as group:
                for channel, message in zip(near, messages, strict=True):
                    group.create_task(channel.send(message))
                received = [group.create_task(channel.recv()) for channel in far]
                theirs = await there.accept_stream()
                group.create_task(stream.write(messages[0]))
                group.create_task(theirs.readexactly(len(messages[0])))
            assert [task.result() for task in received] == messages
            with pytest.raises(interpeer.MessageTooLarge, match="at most 16777216"):
                await near[0].send(bytes((16 << 20) + 1))

    sim.run(main())


@pytest.mark.row("S13")
def test_what_a_peer_never_completes_stays_bounded(sim):
    """A peer that begins large messages and ends none can make us keep no more than the largest window."""

    async def main():
        async with sim.pair(Link(delay_s=0.001), max_connection_window_bytes=4 * MB, max_message_bytes=2 * MB) as pair:
            here, there = await pair.connect()
            channels = [await here.open_channel(deadline=0.05) for _ in range(20)]
            for channel in channels:
                await channel.send(bytes(2 * MB))
            await asyncio.sleep(2)
            assert there.stats().data_allowed - there.stats().data_received <= 4 * MB
            assert sum(channel.dropped for channel in channels) > 0
            far = [await there.accept_channel() for _ in channels]
            assert sum(channel.dropped.theirs for channel in far) == sum(channel.dropped.ours for channel in channels)

    sim.run(main())


@pytest.mark.row("S1")
@pytest.mark.parametrize("loss", [0, 0.05])
def test_thousands_of_channels_carry_each_their_own(sim, loss):
    async def main():
        async with sim.pair(Link(delay_s=0.01, loss=loss)) as pair:
            here, there = await pair.connect()
            near = [await here.open_channel(resend=True, ordered=bool(i % 2)) for i in range(3000)]
            for i, channel in enumerate(near):
                await channel.send_many([b"%d" % i, b"and again"])
            for i in range(3000):
                far = await there.accept_channel()
                assert far.id == 2 * i
                assert sorted([await far.recv(), await far.recv()]) == sorted([b"%d" % i, b"and again"])
            assert here.stats().open_channels == 3000

    sim.run(main())


@pytest.mark.row("S1")
def test_a_thousand_busy_channels_move_nearly_as_much_as_one_stream(sim):
    """Nine tenths of it on a link of 50 Mbit/s, of which one stream fills nearly all."""

    async def goodput(channels):
        async with sim.pair(Link(delay_s=0.01, rate_bit_per_s=50e6, queue_bytes=125_000), back=Link(delay_s=0.01)) as pair:
            here, there = await pair.connect()
            counts, tasks = [0] * max(channels, 1), []
            if channels:
                near = [await here.open_channel() for _ in range(channels)]
                tasks = [asyncio.create_task(pump(channel, 1000)) for channel in near]
                tasks += [asyncio.create_task(count(await there.accept_channel(), counts, i)) for i in range(channels)]
            else:
                tasks = [asyncio.create_task(write_for_ever(await here.open_stream()))]
                tasks.append(asyncio.create_task(read_for_ever(await there.accept_stream(), counts)))
            await asyncio.sleep(1)
            before = sum(counts)
            await asyncio.sleep(2)
            after = sum(counts)
            for task in tasks:
                task.cancel()
            return (after - before) * 8 / 2

    stream, channels = sim.run(goodput(0)), sim.run(goodput(1000))
    assert stream > 0.9 * 50e6
    assert channels >= 0.9 * stream


@pytest.mark.parametrize("loss", [0.02, 0.2])
def test_a_lost_message_closes_a_channel_that_is_to_close_then_on_both_sides(sim, loss):
    async def main():
        async with sim.pair(Link(delay_s=0.01, loss=loss)) as pair:
            here, there = await pair.connect()
            channel = await here.open_channel(resend=False, close_on_loss=True)
            far = await there.accept_channel()
            with pytest.raises(interpeer.MessageLost) as near_end:
                for _ in range(100_000):
                    await channel.send(bytes(1000))
                    await asyncio.sleep(0.001)
            with pytest.raises(interpeer.MessageLost):
                while True:
                    await far.recv()
            with pytest.raises(interpeer.MessageLost):
                await far.send(b"too late")
            assert near_end.value.code == 2**62 - 1

    sim.run(main())


def test_the_receiver_learns_what_was_given_up(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.02, rate_bit_per_s=1e6, queue_packets=20)) as pair:
            here, there = await pair.connect()
            channel = await here.open_channel(deadline=0.1)
            far = await there.accept_channel()
            await channel.send_many([b"%4d" % i + bytes(996) for i in range(500)])
            await channel.finish()
            got = [int(message[:4]) async for message in far]
            gone = [number for numbers in far.dropped.numbers for number in numbers]
            assert got == sorted(got) and sorted(got + gone) == list(range(500))
            assert far.dropped == len(gone) == far.dropped.theirs > 0 and channel.stats().late >= len(gone)

    sim.run(main())


def test_a_channel_of_a_connection_that_ends_tells_why(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.01)) as pair:
            here, there = await pair.connect()
            channel = await here.open_channel()
            far = await there.accept_channel()
            waiting = asyncio.create_task(far.recv())
            await asyncio.sleep(0.1)
            await here.close(5, "enough")
            with pytest.raises(interpeer.ConnectionClosed, match="enough"):
                await waiting
            with pytest.raises(interpeer.ClosedError):
                await channel.send(b"more")
            with pytest.raises(interpeer.ConnectionClosed):
                await there.open_channel()
            assert [channel async for channel in there.channels()] == []

    sim.run(main())


@pytest.mark.row("S10", "S12")
@pytest.mark.parametrize("resend", [False, True])
def test_repairs_bring_back_what_is_lost_without_a_round_trip(sim, resend):
    """Messages as those of a call, at 5 % loss."""
    texts = [b"%d" % i + bytes(600) for i in range(600)]

    async def call(fec):
        async with sim.pair(Link(delay_s=0.05, rate_bit_per_s=20e6, loss=0.05)) as pair:
            here, there = await pair.connect(congestion="bbr-lossy")
            loop = asyncio.get_running_loop()
            sent_s, delays = [], []
            channel = await here.open_channel(resend=resend, ordered=False, fec=fec)
            far = await there.accept_channel()

            async def read():
                async for text in far:
                    number = far.number
                    assert text == texts[number]
                    delays.append(loop.time() - sent_s[number])

            reading = asyncio.create_task(read())
            for text in texts:
                sent_s.append(loop.time())
                await channel.send(text)
                await asyncio.sleep(0.02)
            await channel.finish()
            await reading
            assert len(delays) + far.dropped.theirs == len(texts)
            assert bool(fec) == (far.stats().repaired > 0)
            return sorted(delays)

    bare, protected = sim.run(call(None)), sim.run(call(0.5))
    if resend:
        assert len(bare) == len(protected) == len(texts)
        assert protected[-len(texts) // 100] < 0.75 * bare[-len(texts) // 100]
    else:
        assert len(texts) - len(protected) <= 0.2 * (len(texts) - len(bare))
