"""Long runs, for `./run soak`: much data, many seeds, and hours of simulated time, with everything going wrong at once."""

import asyncio
import random

import pytest

import interpeer.testing
from interpeer.testing import Link
from tests.sim.test_determinism import program

MB = 1_000_000

pytestmark = pytest.mark.soak


def any_link(chance):
    """Draw a link that loses, reorders, duplicates and corrupts a little of everything."""
    return Link(
        delay_s=chance.choice((0.0005, 0.015, 0.1, 0.4)),
        jitter_s=chance.choice((0, 0.005)),
        rate_bit_per_s=chance.choice((1e6, 10e6, 100e6)),
        queue_packets=chance.choice((10, 25, 200)),
        loss=chance.choice((0, 0.01, 0.1)),
        loss_run_packets=chance.choice((0, 3)),
        loss_run_limit=8,
        reorder=chance.choice((0, 0.05)),
        reorder_s=0.01,
        duplicate=chance.choice((0, 0.05)),
        corrupt=chance.choice((0, 0.02)),
        ecn_mark_bytes=chance.choice((None, 10_000)),
    )


@pytest.mark.row("C7", "R5")
@pytest.mark.parametrize("number", range(100))
def test_two_megabytes_both_ways_through_any_two_links_with_frequent_changes_of_key(sim, number):
    chance = random.Random(f"{sim.seed} {number}")
    links = any_link(chance), any_link(chance)

    async def main():
        keys = {"key_update_packets": 50, "rekey_s": 2}
        async with sim.pair(links[0], back=links[1], **keys, connect_timeout_s=60) as pair:
            here, there = await pair.connect()
            await asyncio.gather(sim.transfer(pair, 2 * MB, ends=(here, there)), sim.transfer(pair, 2 * MB, ends=(there, here)))

    sim.run(main(), seed=sim.seed + number, until_s=24 * 3600)


@pytest.mark.row("R5")
def test_two_hundred_megabytes_at_a_hundred_megabits_a_second(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.02, rate_bit_per_s=100e6, queue_packets=350)) as pair:
            return await sim.transfer(pair, 200 * MB)

    assert 200 * MB * 8 / sim.run(main()) > 0.8 * 100e6


@pytest.mark.row("R6")
def test_an_idle_connection_lives_for_a_week_through_loss(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.05, loss=0.05)) as pair:
            here, there = await pair.connect()
            await asyncio.sleep(7 * 24 * 3600)
            assert here.is_open and there.is_open
            await sim.transfer(pair, MB, ends=(here, there))

    sim.run(main(), until_s=30 * 24 * 3600)


@pytest.mark.row("H22", "A3")
def test_a_thousand_calls_and_ends_leave_nothing(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.015, loss=0.2), connect_timeout_s=60) as pair:
            chance = random.Random(sim.seed)
            for _ in range(1000):
                calling = asyncio.create_task(pair.a.connect(pair.b.address))
                await asyncio.wait([calling], timeout=chance.choice((0.01, 0.04, 60)))
                calling.cancel()
                await asyncio.wait([calling])
                if not calling.cancelled():
                    await calling.result().close()
            calling = None
            await asyncio.sleep(60)
            for node in (pair.a, pair.b):
                assert node.connections == []
                assert node.counters()["half_open"] == 0

    sim.run(main(), until_s=24 * 3600)


@pytest.mark.parametrize("number", range(20))
def test_every_seed_is_one_run(sim, number):
    assert len({sim.run(program(), seed=sim.seed + number) for _ in range(5)}) == 1


def test_fifty_nodes_that_all_call_each_other(sim):
    async def main():
        net = interpeer.testing.SimNet(Link(delay_s=0.03, loss=0.02))
        nodes = [net.host().node() for _ in range(50)]
        for node in nodes:
            await node.__aenter__()
        await asyncio.gather(*(node.connect(other.address) for node in nodes for other in nodes if other is not node))
        await asyncio.gather(*(node.close() for node in nodes))

    sim.run(main())
