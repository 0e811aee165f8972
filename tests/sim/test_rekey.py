"""Fresh keys by time on whole networks: loss, reordering, busy ends, idle ones, long lives, and no agreement at all."""

import asyncio

import pytest

import interpeer
from interpeer.testing import Link

NEAR = Link(delay_s=0.015)
LOSSY = Link(delay_s=0.015, loss=0.3)
MIXED = Link(delay_s=0.015, loss=0.03, reorder=0.4, reorder_s=0.1, duplicate=0.1)


async def chat(here, there, *, until_s, every_s=0.5):
    """Exchange datagrams, one each way at a time, and check what arrives; return how many did."""
    loop = asyncio.get_running_loop()
    sent = received = 0

    async def receive(end):
        nonlocal received
        while True:
            message = await end.recv_datagram()
            assert message.startswith(b"message ")
            received += 1

    tasks = [asyncio.create_task(receive(end)) for end in (here, there)]
    while loop.time() < until_s:
        for end in (here, there):
            end.send_datagram(b"message %d" % sent)
            sent += 1
        await asyncio.sleep(every_s)
    for task in tasks:
        assert not task.done(), task.exception()
        task.cancel()
    return sent, received


async def bulk(here, there, size, data):
    """Send a stream of `size` bytes, slowly enough to last over many agreements."""
    reading = asyncio.create_task(read(there))
    async with here.open_stream() as stream:
        for at in range(0, size, 10_000):
            await stream.write(data[at : at + 10_000])
            await asyncio.sleep(0.25)
    assert await reading == data


async def read(there):
    async with await there.accept_stream() as stream:
        return await stream.read()


@pytest.mark.row("P12")
@pytest.mark.parametrize("link", [NEAR, LOSSY, MIXED], ids=["clean", "lossy", "reordered"])
@pytest.mark.parametrize("update", [1 << 22, 10], ids=["alone", "among key updates"])
def test_busy_ends_agree_on_fresh_keys_again_and_again(sim, link, update):
    async def main():
        async with sim.pair(link, rekey_s=3, key_update_packets=update, idle_timeout_s=120) as pair:
            here, there = await pair.connect()
            size = 1_000_000
            data = sim.bytes(size)
            async with asyncio.TaskGroup() as group:
                group.create_task(bulk(here, there, size, data))
                group.create_task(bulk(there, here, size, data))
            stats = here.stats(), there.stats()
            assert all(s.rekeys >= 5 for s in stats) and abs(stats[0].rekeys - stats[1].rekeys) <= 1
            assert all(s.key_age_s < 30 for s in stats)
            for node in (pair.a, pair.b):
                assert node.counters()["dropped_forged"] == 0

    sim.run(main())


@pytest.mark.row("P12")
def test_a_connection_in_use_agrees_on_fresh_keys_every_two_minutes_for_hours(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            here, there = await pair.connect()
            loop = asyncio.get_running_loop()
            hours = 3
            sent, received = await chat(here, there, until_s=loop.time() + hours * 3600, every_s=5)
            assert received >= sent - 2
            for end in (here, there):
                # the interval's end is drawn from its last eighth, and messages come every 5 s
                assert hours * 3600 / 127 <= end.stats().rekeys <= hours * 3600 / 104
                assert end.stats().key_age_s < 127

    sim.run(main(), until_s=4 * 3600)


def test_an_idle_connection_keeps_its_keys(sim):
    async def main():
        async with sim.pair(NEAR, rekey_s=10) as pair:
            here, there = await pair.connect()
            await asyncio.sleep(600)
            assert here.is_open and here.stats().rekeys == there.stats().rekeys == 0
            assert here.stats().key_epoch == there.stats().key_epoch == 0
            await chat(here, there, until_s=asyncio.get_running_loop().time() + 1)
            await asyncio.sleep(600)
            assert here.is_open and here.stats().rekeys == there.stats().rekeys == 0
            await chat(here, there, until_s=asyncio.get_running_loop().time() + 1)  # the first use after the interval
            await asyncio.sleep(600)
            assert here.is_open and here.stats().rekeys == there.stats().rekeys == 1

    sim.run(main())


@pytest.mark.parametrize("interval_s", [0, 1000])
def test_the_opener_decides_when(sim, interval_s):
    async def main():
        sides = {"a": {"config": interpeer.Config(rekey_s=interval_s)}, "b": {"config": interpeer.Config(rekey_s=2)}}
        async with sim.pair(NEAR, **sides) as pair:
            here, there = await pair.connect()
            await chat(here, there, until_s=asyncio.get_running_loop().time() + 60)
            assert here.stats().rekeys == there.stats().rekeys == 0

    sim.run(main())


def test_one_end_that_only_receives_gets_fresh_keys_too(sim):
    """The opener sends nothing but acknowledgements: what it receives is use as well."""

    async def main():
        async with sim.pair(NEAR, rekey_s=3) as pair:
            here, there = await pair.connect()
            data = sim.bytes(400_000)
            await bulk(there, here, len(data), data)
            assert here.stats().rekeys >= 2

    sim.run(main())


def test_an_outage_in_the_middle_of_an_agreement_is_survived(sim):
    async def main():
        async with sim.pair(NEAR, rekey_s=5, idle_timeout_s=300, keep_alive_s=5) as pair:
            here, there = await pair.connect()
            loop = asyncio.get_running_loop()
            for cut in (pair.there, pair.back) * 3:
                await chat(here, there, until_s=loop.time() + 3.5)
                cut.set(is_up=False)
                await chat(here, there, until_s=loop.time() + 25)
                cut.set(is_up=True)
                await chat(here, there, until_s=loop.time() + 5)
            assert here.is_open and there.is_open
            assert here.stats().rekeys >= 6 and abs(here.stats().rekeys - there.stats().rekeys) <= 1

    sim.run(main())
