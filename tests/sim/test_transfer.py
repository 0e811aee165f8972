"""Data arrive whole and in order whatever the network does, and in a time that shows that nothing waits in vain.

The link is that of the QUIC interop runner unless a test says otherwise. The bounds on time are half again what the worst
of twenty seeds took.
"""

import asyncio

import pytest

from interpeer.testing import Link

MB = 1_000_000


def transfer_seconds(sim, link, size, **kwargs):
    async def main():
        async with sim.pair(link, **kwargs) as pair:
            return await sim.transfer(pair, size)

    return sim.run(main())


@pytest.mark.row("R5")
def test_goodput_on_a_clean_link_is_92_percent_of_its_rate(sim, interop):
    seconds = transfer_seconds(sim, interop, 10 * MB)
    assert 10 * MB * 8 / seconds >= 0.92 * interop.rate_bit_per_s


@pytest.mark.row("C7", "R5")
@pytest.mark.parametrize(("loss", "most_s"), [(0, 1.8), (0.01, 9.5), (0.05, 21), (0.1, 35)])
def test_two_megabytes_through_random_loss(sim, interop, loss, most_s):
    assert transfer_seconds(sim, interop.replace(loss=loss), 2 * MB) < most_s


@pytest.mark.row("C7", "R5")
@pytest.mark.parametrize(("loss", "most_s"), [(0.01, 5), (0.05, 16), (0.1, 30)])
def test_two_megabytes_through_bursts_of_loss(sim, interop, loss, most_s):
    link = interop.replace(loss=loss, loss_run_packets=3, loss_run_limit=5)
    assert transfer_seconds(sim, link, 2 * MB) < most_s


@pytest.mark.row("C7")
@pytest.mark.parametrize(("share", "late_s", "most_s"), [(0.01, 0.005, 9), (0.1, 0.001, 6), (0.1, 0.005, 15), (0.3, 0.1, 90)])
def test_two_megabytes_out_of_order(sim, interop, share, late_s, most_s):
    assert transfer_seconds(sim, interop.replace(reorder=share, reorder_s=late_s), 2 * MB) < most_s


@pytest.mark.row("C7", "P1")
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_duplicates_cost_nothing_and_are_delivered_once(sim, interop, share):
    assert transfer_seconds(sim, interop.replace(duplicate=share), 2 * MB) < 1.8


@pytest.mark.row("C7", "R5")
@pytest.mark.parametrize(("share", "size", "most_s"), [(0.02, 2 * MB, 14), (0.3, MB // 2, 28)])
def test_corrupted_packets_are_lost_packets_and_no_more(sim, interop, share, size, most_s):
    async def main():
        async with sim.pair(interop.replace(corrupt=share)) as pair:
            seconds = await sim.transfer(pair, size)
            dropped = pair.b.counters()
            assert dropped["dropped_forged"] + dropped["dropped_unknown"] + dropped["dropped_reserved"] > 0
            return seconds

    assert sim.run(main()) < most_s


@pytest.mark.row("C7")
def test_jitter_as_large_as_the_delay(sim, interop):
    assert transfer_seconds(sim, interop.replace(jitter_s=0.015), 2 * MB) < 4


@pytest.mark.row("C7", "R5")
def test_a_round_trip_of_one_and_a_half_seconds_only_takes_the_rounds_of_slow_start(sim, interop):
    assert transfer_seconds(sim, interop.replace(delay_s=0.75), MB) < 8 * 1.5


@pytest.mark.row("C7", "C12")
def test_a_slow_link_with_hardly_a_queue_is_used_well(sim):
    link = Link(delay_s=0.015, rate_bit_per_s=1e5, queue_packets=5)
    assert transfer_seconds(sim, link, MB // 4, back=Link(delay_s=0.015)) < 1.2 * MB // 4 * 8 / 1e5


@pytest.mark.row("C7")
def test_everything_at_once(sim, interop):
    link = interop.replace(
        loss=0.02, loss_run_limit=3, reorder=0.02, reorder_s=0.005, duplicate=0.02, corrupt=0.02, jitter_s=0.002
    )
    assert transfer_seconds(sim, link, MB) < 15


@pytest.mark.row("C8", "R5")
@pytest.mark.parametrize("hole_s", [2, 5, 27])  # and a probe time-out less than the idle time-out
def test_a_black_hole_ends_within_one_probe_time_out(sim, interop, hole_s):
    async def main():
        async with sim.pair(interop) as pair:
            ends = await pair.connect()
            for wire in (pair.there, pair.back):
                wire.set(after_s=1, is_up=False)
                wire.set(after_s=1 + hole_s, is_up=True)
            return await sim.transfer(pair, 3 * MB, ends=ends)

    assert sim.run(main()) < 3 * MB * 8 / 10e6 + hole_s + 2 + 0.5


@pytest.mark.row("C8")
def test_persistent_congestion_starts_the_window_afresh(sim, interop):
    async def main():
        async with sim.pair(interop) as pair:
            here, there = await pair.connect()
            transfer = asyncio.create_task(sim.transfer(pair, 3 * MB, ends=(here, there)))
            await asyncio.sleep(1)
            pair.there.set(is_up=False)
            await asyncio.sleep(5)
            before = here.stats().window_bytes
            pair.there.set(is_up=True)
            windows = []
            while not windows or windows[-1] == before:
                await asyncio.sleep(0.001)
                windows.append(here.stats().window_bytes)
            await transfer
            return before, windows[-1]

    before, after = sim.run(main())
    assert after <= 4 * 1200 < before


@pytest.mark.row("C7")
def test_a_small_window_grows_again(sim, interop):
    """At 10 % loss the window is two packets time and again; it must not stay there when the loss has gone."""

    async def main():
        async with sim.pair(interop.replace(loss=0.3)) as pair:
            here, there = await pair.connect()
            transfer = asyncio.create_task(sim.transfer(pair, 4 * MB, ends=(here, there)))
            while here.stats().window_bytes >= 3 * 1200:
                await asyncio.sleep(0.001)
            for wire in (pair.there, pair.back):
                wire.set(loss=0)
            await asyncio.sleep(3)
            window = here.stats().window_bytes
            await transfer
            return window

    assert sim.run(main()) > 10 * 1200


@pytest.mark.row("C11")
def test_both_directions_at_once_share_nothing_but_the_connection(sim, interop):
    async def main():
        async with sim.pair(interop) as pair:
            here, there = await pair.connect()
            loop = asyncio.get_running_loop()
            start = loop.time()
            data = sim.bytes(2 * MB)

            async def send(connection):
                async with connection.open_stream() as stream:
                    await stream.write(data)

            async def receive(connection):
                assert await (await connection.accept_stream()).read() == data

            async with asyncio.TaskGroup() as group:
                for connection in (here, there):
                    group.create_task(send(connection))
                    group.create_task(receive(connection))
            return loop.time() - start

    assert sim.run(main()) < 2.5


@pytest.mark.row("C5")
def test_marks_slow_the_sender_down_before_the_queue_is_full(sim, interop):
    async def main(link):
        async with sim.pair(link) as pair:
            here, there = await pair.connect()
            seconds = await sim.transfer(pair, 4 * MB, ends=(here, there))
            return seconds, here.stats().ecn, pair.there.stats

    seconds, ecn, stats = sim.run(main(interop.replace(queue_packets=100, ecn_mark_bytes=20_000)))
    assert ecn == "capable"
    assert stats.marked > 0 == stats.queue_full
    assert seconds < 4


@pytest.mark.row("C5")
def test_bleached_marks_end_the_use_of_ecn_and_nothing_else(sim, interop):
    async def main():
        async with sim.pair(interop.replace(bleaches_ecn=True)) as pair:
            here, there = await pair.connect()
            seconds = await sim.transfer(pair, 2 * MB, ends=(here, there))
            return seconds, here.stats().ecn

    seconds, ecn = sim.run(main())
    assert ecn == "failed"
    assert seconds < 1.8


@pytest.mark.row("C9")
def test_the_smallest_mtu_that_ipv6_allows_is_enough(sim, interop):
    assert transfer_seconds(sim, interop.replace(mtu_bytes=1280), 2 * MB) < 1.8
