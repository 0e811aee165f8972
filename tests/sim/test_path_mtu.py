"""The path's MTU is found, lost, and found again while data flow, and nothing of the data is (docs/spec, chapter 15)."""

import asyncio
import contextlib

import pytest

from interpeer import DatagramTooLarge
from interpeer._core import control
from interpeer.testing import Link

MB = 1_000_000
IPV4 = 28
BASE, RESOLUTION = 1200, 16
LINK = Link(delay_s=0.005, rate_bit_per_s=100e6, queue_bytes=100_000)
BUFFER = 8 << 20


@contextlib.contextmanager
def sizes(pair):
    """Collect (seconds, bytes) of each packet under a connection's keys that `a` sends."""
    seen = []

    def look(packet):
        if packet.kind == "data" and packet.sender is pair.alice:
            seen.append((pair.net.clock.now_s, len(packet.data)))

    with pair.net.intercepting(look):
        yield seen


def hold_more(sim):
    """Let the nodes' sockets hold more than the little that a peer takes for granted."""
    for core in sim.engines:
        control.set_receive_buffer(core, BUFFER)


async def settle(sim, pair, ends):
    """Let a window grow, and then give the search the round trips that it takes."""
    await sim.transfer(pair, 8 * MB, ends=ends)
    for _ in range(100):
        await sim.transfer(pair, 16 * ends[0].stats().packet_bytes, ends=ends)


@pytest.mark.parametrize("mtu", [1228, 1229, 1280, 1420, 1492, 1500, 1501, 2000, 4352, 9000, 9001, 16_000, 32_768, 65_535])
def test_what_the_path_carries_is_found_and_used(sim, mtu):
    async def main():
        async with sim.pair(Link(delay_s=0.005, mtu_bytes=mtu)) as pair:
            hold_more(sim)
            ends = here, _ = await pair.connect()
            assert here.stats().packet_bytes == BASE
            with sizes(pair) as seen:
                await settle(sim, pair, ends)
                found = here.stats().packet_bytes
                assert min(mtu - IPV4, 65_507) - RESOLUTION < found <= mtu - IPV4
                await sim.transfer(pair, MB, ends=ends)
            assert max(n for _, n in seen if n <= mtu - IPV4) == found
            assert pair.a.counters()["mtu_black_holes"] == 0
            too_large = [n for _, n in seen if n > mtu - IPV4]
            assert len(too_large) == pair.there.stats.too_large <= 3 * 16
            return here.stats().packets_lost, here.stats().congestion_events

    assert sim.run(main()) == (0, 0), "a lost probe is no lost packet"


def test_the_search_costs_no_time(sim):
    def seconds(**settings):
        async def main():
            async with sim.pair(LINK, **settings) as pair:
                return await sim.transfer(pair, 3 * MB)

        return sim.run(main())

    assert seconds() < 1.05 * seconds(max_packet_bytes=BASE)


def test_a_pinned_size_is_never_exceeded(sim):
    async def main():
        async with sim.pair(LINK, max_packet_bytes=BASE) as pair:
            with sizes(pair) as seen:
                await sim.transfer(pair, 3 * MB)
            assert max(n for _, n in seen) == BASE
            assert pair.a.counters()["mtu_probes_sent"] == 0

    sim.run(main())


def test_connections_that_say_little_do_not_search(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            for _ in range(100):
                here.send_datagram(bytes(500))
                assert len(await there.recv_datagram()) == 500
            await asyncio.sleep(100)
            assert pair.a.counters()["mtu_probes_sent"] == pair.b.counters()["mtu_probes_sent"] == 0

    sim.run(main())


def test_a_peer_with_a_small_socket_gets_no_packets_that_fill_it(sim):
    async def main():
        async with sim.pair(LINK.replace(mtu_bytes=65_535)) as pair:
            for core in sim.engines:
                control.set_receive_buffer(core, 80_000)
            here, there = await pair.connect()
            await sim.transfer(pair, 8 * MB, ends=(here, there))
            assert here.stats().packet_bytes == 80_000 // 8

    sim.run(main())


@pytest.mark.row("C7", "C9")
@pytest.mark.parametrize("trouble", [{"loss": 0.1}, {"reorder": 0.2, "reorder_s": 0.01}, {"duplicate": 0.3}, {"corrupt": 0.05}])
@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
def test_the_search_finds_it_on_bad_networks(sim, mtu, trouble):
    async def main():
        async with sim.pair(LINK.replace(mtu_bytes=mtu, delay_s=0.001, **trouble)) as pair:
            here, there = await pair.connect()
            best = 0
            for _ in range(8):
                await sim.transfer(pair, MB // 2, ends=(here, there))
                best = max(best, here.stats().packet_bytes)
            assert BASE < best <= mtu - IPV4

    sim.run(main())


# --- row C9 ---


@pytest.mark.row("C9")
def test_the_mtu_falls_in_mid_flow_from_1500_to_1280_to_1200_and_nothing_is_lost(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            ends = here, _ = await pair.connect()
            await sim.transfer(pair, 2 * MB, ends=ends)
            assert here.stats().packet_bytes == 1472
            for holes, mtu in ((1, 1280), (2, 1200 + IPV4)):
                pair.there.set(after_s=0.1, mtu_bytes=mtu)
                start = pair.net.clock.now_s
                await sim.transfer(pair, 4 * MB, ends=ends)
                assert pair.net.clock.now_s - start < 4 * MB * 8 / 100e6 + 0.5
                assert pair.a.counters()["mtu_black_holes"] == holes
                await asyncio.sleep(2)  # for the second search, which is not in as much of a hurry
                await settle(sim, pair, ends)
                assert mtu - IPV4 - RESOLUTION < here.stats().packet_bytes <= mtu - IPV4
                assert pair.a.counters()["mtu_black_holes"] == holes

    sim.run(main())


@pytest.mark.row("C9")
@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_a_machine_that_moves_to_a_narrower_network_loses_nothing_and_falls_into_no_hole(sim, who):
    """From Ethernet to a tunnel of 1280, in the middle of a transfer."""

    async def main():
        async with sim.pair(LINK) as pair:
            ends = here, _ = await pair.connect()
            await sim.transfer(pair, 2 * MB, ends=ends)
            assert here.stats().packet_bytes == 1472
            transfer = asyncio.create_task(sim.transfer(pair, 4 * MB, ends=ends))
            await asyncio.sleep(0.1)
            pair.there.set(mtu_bytes=1280)
            pair.back.set(mtu_bytes=1280)
            (pair.alice if who == "sender" else pair.bob).move("11.0.9.1")
            start = pair.net.clock.now_s
            await transfer
            assert pair.net.clock.now_s - start < 4 * MB * 8 / 100e6 + 3
            await settle(sim, pair, ends)
            assert 1280 - IPV4 - RESOLUTION < here.stats().packet_bytes <= 1280 - IPV4
            holes = pair.a.counters()["mtu_black_holes"]
            # a sender learns by the answers that it has moved itself; packets that are on their way then may be too large
            assert holes == 0 if who == "receiver" else holes <= 1

    sim.run(main())


@pytest.mark.row("C9")
@pytest.mark.parametrize(("before", "after"), [(1500, 1280), (1500, 1228), (9000, 1500), (9000, 1228), (65_535, 1500)])
def test_a_black_hole_costs_no_more_than_a_probe_time_out(sim, before, after):
    async def main():
        async with sim.pair(LINK.replace(mtu_bytes=before)) as pair:
            hold_more(sim)
            ends = here, _ = await pair.connect()
            await sim.transfer(pair, 8 * MB, ends=ends)
            assert here.stats().packet_bytes > after - IPV4
            with sizes(pair) as seen:
                transfer = asyncio.create_task(sim.transfer(pair, 4 * MB, ends=ends))
                await asyncio.sleep(0.1)
                pair.there.set(mtu_bytes=after)
                fell_s = pair.net.clock.now_s
                while not pair.a.counters()["mtu_black_holes"]:
                    await asyncio.sleep(0.001)
                found_s = pair.net.clock.now_s
                await transfer
            small = [at for at, n in seen if at > fell_s and 1000 < n <= BASE]
            assert found_s - fell_s < 0.5 and small
            assert pair.a.counters()["mtu_black_holes"] == 1

    sim.run(main())


@pytest.mark.row("C9")
def test_a_black_hole_in_one_direction_narrows_that_direction_alone(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, 2 * MB, ends=(here, there))
            await sim.transfer(pair, 2 * MB, ends=(there, here))
            pair.there.set(mtu_bytes=1280)
            await sim.transfer(pair, 2 * MB, ends=(there, here))
            await sim.transfer(pair, 2 * MB, ends=(here, there))
            assert here.stats().packet_bytes <= 1252 and there.stats().packet_bytes == 1472

    sim.run(main())


@pytest.mark.row("C9")
def test_a_lone_large_request_gets_through_a_black_hole(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, MB, ends=(here, there))
            pair.there.set(mtu_bytes=1228)
            start = pair.net.clock.now_s
            await sim.transfer(pair, 1400, ends=(here, there))
            return pair.net.clock.now_s - start

    assert sim.run(main()) < 2


@pytest.mark.row("C8", "C9")
def test_an_outage_is_no_black_hole(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, MB, ends=(here, there))
            for n in range(5):
                for wire in (pair.there, pair.back):
                    wire.set(after_s=0.05, is_up=False)
                    wire.set(after_s=0.5 + n, is_up=True)
                await sim.transfer(pair, MB, ends=(here, there))
            assert here.stats().packet_bytes == 1472
            assert pair.a.counters()["mtu_black_holes"] == 0

    sim.run(main())


@pytest.mark.row("C9")
def test_a_path_that_widens_again_is_used_again(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, MB, ends=(here, there))
            pair.there.set(mtu_bytes=1280)
            await settle(sim, pair, (here, there))
            assert here.stats().packet_bytes <= 1252
            pair.there.set(mtu_bytes=1500)
            await settle(sim, pair, (here, there))
            assert here.stats().packet_bytes <= 1252, "nobody has noticed"
            await asyncio.sleep(601)
            await settle(sim, pair, (here, there))
            assert here.stats().packet_bytes == 1472

    sim.run(main())


@pytest.mark.row("C9", "N7")
def test_datagrams_that_do_not_fit_any_more_are_dropped_and_counted(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            least = here.max_datagram_bytes
            await sim.transfer(pair, MB, ends=(here, there))
            most = here.max_datagram_bytes
            assert most == least + 1472 - BASE
            pair.there.set(mtu_bytes=1228)
            for _ in range(600):
                assert here.send_datagram(bytes(most)) and here.send_datagram(b"small")
            received = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    while True:
                        received.append(await there.recv_datagram())
            assert here.max_datagram_bytes == least
            assert received and set(received) == {b"small"}
            assert here.stats().datagrams_queued == 0
            assert pair.a.counters()["datagrams_too_large"] > 0
            with pytest.raises(DatagramTooLarge):
                here.send_datagram(bytes(least + 1))
            assert here.send_datagram(bytes(least))
            assert len(await there.recv_datagram()) == least

    sim.run(main())


def test_a_datagram_that_is_too_large_starts_the_search(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            with pytest.raises(DatagramTooLarge):
                here.send_datagram(bytes(1400))
            await asyncio.sleep(1)
            assert here.send_datagram(bytes(1400))
            assert len(await there.recv_datagram()) == 1400
            await asyncio.sleep(60)
            return here.stats().packet_bytes

    assert sim.run(main()) == 1472
