"""Rows of the list of attacks and faults that are a link's: mixtures of faults, holes, pauses, deep queues, policers.

The link is that of the QUIC interop runner unless a test says otherwise."""

import asyncio
import itertools

import pytest

from interpeer.testing import Link, TcpFlow, Traffic

MB = 1_000_000

FAULTS = {
    "loss 0.1 %": {"loss": 0.001},
    "loss 5 % in runs": {"loss": 0.05, "loss_run_packets": 3, "loss_run_limit": 8},
    "loss 30 %": {"loss": 0.3},
    "reordered 1 %": {"reorder": 0.01, "reorder_s": 0.01},
    "reordered 30 %": {"reorder": 0.3, "reorder_s": 0.02},
    "doubled 10 %": {"duplicate": 0.1},
    "jitter": {"jitter_s": 0.02},
    "all of it": {"loss": 0.02, "reorder": 0.05, "reorder_s": 0.01, "duplicate": 0.05, "corrupt": 0.01, "jitter_s": 0.005},
}
WAYS = {
    "50 us, 1 Gbit/s": Link(delay_s=25e-6, rate_bit_per_s=1e9, queue_packets=200),
    "30 ms, 10 Mbit/s": Link(delay_s=0.015, rate_bit_per_s=10e6, queue_packets=25),
    "300 ms, 100 Mbit/s": Link(delay_s=0.15, rate_bit_per_s=100e6, queue_packets=1000),
    "1.5 s, 1 Mbit/s": Link(delay_s=0.75, rate_bit_per_s=1e6, queue_packets=100),
    "20 ms, 100 kbit/s": Link(delay_s=0.01, rate_bit_per_s=1e5, queue_packets=10),
}
SAMPLE = [("loss 30 %", "30 ms, 10 Mbit/s"), ("reordered 30 %", "300 ms, 100 Mbit/s"), ("all of it", "1.5 s, 1 Mbit/s"),
          ("loss 5 % in runs", "50 us, 1 Gbit/s"), ("jitter", "20 ms, 100 kbit/s")]  # fmt: skip
MATRIX = list(itertools.product(FAULTS, WAYS))


def both_ways(sim, fault, way, size):
    """Send as much each way at once, and see that it arrives as it was sent."""

    async def main():
        async with sim.pair(WAYS[way].replace(**FAULTS[fault]), connect_timeout_s=120, idle_timeout_s=300) as pair:
            here, there = await pair.connect()
            await asyncio.gather(sim.transfer(pair, size, ends=(here, there)), sim.transfer(pair, size, ends=(there, here)))

    sim.run(main(), until_s=24 * 3600)


@pytest.mark.row("C7")
@pytest.mark.parametrize(("fault", "way"), SAMPLE)
def test_everything_arrives_whatever_the_link_does(sim, fault, way):
    both_ways(sim, fault, way, MB // 8)


@pytest.mark.soak
@pytest.mark.row("C7")
@pytest.mark.parametrize(("fault", "way"), MATRIX)
def test_a_megabyte_arrives_whatever_the_link_does(sim, fault, way):
    both_ways(sim, fault, way, MB)


async def send_for_ever(connection):
    stream = await connection.open_stream()
    while True:
        await stream.write(bytes(MB // 4))


async def receive_for_ever(connection, arrived=lambda size: None):
    stream = await connection.accept_stream()
    async for data in stream:
        arrived(len(data))


@pytest.mark.row("C8")
@pytest.mark.parametrize("hole_s", [2, 5, 29])
def test_data_flow_again_within_a_round_trip_and_a_probe_time_out_of_the_end_of_a_hole(sim, interop, hole_s):
    """The probe time-out has grown to two seconds at most, whatever the hole is."""

    async def main():
        async with sim.pair(interop, idle_timeout_s=60) as pair:
            here, there = await pair.connect()
            loop, arrivals = asyncio.get_running_loop(), []
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(send_for_ever(here)),
                    tasks.create_task(receive_for_ever(there, lambda size: arrivals.append(loop.time()))),
                ]
                start_s = loop.time()
                for wire in (pair.there, pair.back):
                    wire.schedule([(3, {"is_up": False}), (3 + hole_s, {"is_up": True})])
                await asyncio.sleep(3 + hole_s)
                rtt_s = here.stats().rtt_s
                await asyncio.sleep(4)
                for task in running:
                    task.cancel()
            end_s = start_s + 3 + hole_s
            return min(time for time in arrivals if time > end_s) - end_s, rtt_s

    after_s, rtt_s = sim.run(main())
    assert after_s <= rtt_s + min(2.0, hole_s) + 0.01


@pytest.mark.row("C10")
def test_a_sender_that_was_stopped_for_five_seconds_does_not_burst(sim, interop):
    """As with SIGSTOP: its turns do not happen, and then all of them do at once."""

    async def main():
        async with sim.pair(interop.replace(queue_packets=1000)) as pair:
            here, there = await pair.connect()
            sent_s, loop = [], asyncio.get_running_loop()
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(send_for_ever(here)), tasks.create_task(receive_for_ever(there))]
                await asyncio.sleep(3)
                driver = pair.a._driver
                driver._is_open = False  # it gets no turns, and its packets wait in the socket
                await asyncio.sleep(5)
                driver._is_open = True
                pair.net.intercept(lambda packet: sent_s.append(loop.time()) if packet.sender is pair.alice else None)
                events_before = here.stats().congestion_events
                driver._alarm_ns = 0
                driver.kick()
                await asyncio.sleep(2)
                events, window = here.stats().congestion_events - events_before, here.stats().window_bytes
                for task in running:
                    task.cancel()
            return sent_s, events, window

    sent_s, events, window = sim.run(main())
    assert len(sent_s) > 100
    most = max(sum(start <= time < start + 0.001 for time in sent_s) for start in sent_s)
    assert most <= 16
    assert events == 0  # the queue has room for all of it
    assert window > 4 * 1200  # that nothing came for so long was not the network's fault


@pytest.mark.row("C11")
def test_a_transfer_and_a_tcp_flow_share_a_queue(sim, interop):
    async def main():
        async with sim.pair(interop) as pair:
            near, far = pair.net.host("c", "11.0.3.1"), pair.net.host("d", "11.0.4.1")
            pair.net.bottleneck(interop, [pair.alice, near], [pair.bob, far])
            here, there = await pair.connect()
            flow, received = TcpFlow(near, far), []
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(send_for_ever(here)), tasks.create_task(receive_for_ever(there, received.append))]
                await asyncio.sleep(30)
                flow.stop()
                for task in running:
                    task.cancel()
            return sum(received), flow.received_bytes

    ours, theirs = sim.run(main())
    assert 0.3 <= ours / (ours + theirs) <= 0.7
    assert (ours + theirs) * 8 / 30 > 0.85 * 10e6


@pytest.mark.row("C11")
def test_a_transfer_takes_what_other_traffic_leaves(sim, interop):
    async def main():
        async with sim.pair(interop) as pair:
            near, far = pair.net.host("c", "11.0.3.1"), pair.net.host("d", "11.0.4.1")
            pair.net.bottleneck(interop, [pair.alice, near], [pair.bob, far])
            noise = Traffic(near, far, rate_bit_per_s=5e6, pattern="poisson")
            seconds = await sim.transfer(pair, 4 * MB)
            noise.stop()
            return 4 * MB * 8 / seconds

    assert sim.run(main()) > 0.7 * 5e6


@pytest.mark.row("C12")
@pytest.mark.parametrize("burst_bytes", [15_000, 60_000])
def test_a_policer_costs_little(sim, burst_bytes):
    async def main():
        link = Link(delay_s=0.015, policer_bit_per_s=10e6, policer_burst_bytes=burst_bytes)
        async with sim.pair(link, back=Link(delay_s=0.015)) as pair:
            here, there = await pair.connect()
            seconds = await sim.transfer(pair, 8 * MB, ends=(here, there))
            stats = here.stats()
            return 8 * MB * 8 / seconds, stats.packets_lost / stats.packets_sent

    rate, lost = sim.run(main())
    assert lost <= 0.05
    assert rate > 0.7 * 10e6


@pytest.mark.row("C12", "C5")
@pytest.mark.parametrize("bleaches_ecn", [False, True])
def test_a_deep_queue_that_is_kept_short_delays_little_and_is_used(sim, interop, bleaches_ecn):
    async def main():
        link = interop.replace(queue_packets=None, queue_bytes=1_250_000, codel_target_s=0.005, bleaches_ecn=bleaches_ecn)
        async with sim.pair(link, back=Link(delay_s=0.015)) as pair:
            here, there = await pair.connect()
            transfer, rtts_s = asyncio.create_task(sim.transfer(pair, 8 * MB, ends=(here, there))), []
            while not transfer.done():
                await asyncio.sleep(0.05)
                rtts_s.append(here.stats().rtt_s)
            return 8 * MB * 8 / transfer.result(), sorted(rtts_s)[len(rtts_s) * 9 // 10]

    rate, rtt_s = sim.run(main())
    assert rate > 0.8 * 10e6
    assert rtt_s <= 2 * 0.03
