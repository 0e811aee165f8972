"""Connections through a relay, on a simulated network."""

import asyncio
import random

import pytest

from interpeer._core import control, path_handle
from tests.sim.relayed import Relayed, core_of, is_relayed, open_path, way, with_relays

MB = 1_000_000


def run(sim, program, count=1, **settings):
    sim.run(with_relays(program, count, **settings))


def test_two_peers_that_cannot_reach_each_other_talk_through_a_third(sim):
    async def program(net: Relayed):
        here, there = await net.connect()
        await sim.carry(here, there, 3 * MB)
        await sim.carry(there, here, 3 * MB)
        assert is_relayed(here) and is_relayed(there)
        (pair,) = net.pairs()
        assert pair["bytes_a_to_b"] > 3 * MB and pair["bytes_b_to_a"] > 3 * MB

    run(sim, program)


def direct(net):
    """Return where Bob listens himself."""
    return net.b.address.endpoints[0].to_core()


async def until(is_true, seconds=60.0):
    for _ in range(int(seconds * 1000)):
        if is_true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come true")


async def proven(connection, path):
    await until(lambda: any(p["id"] == path and p["state"] == 1 for p in path_handle.paths(connection._handle)))


# --- tiers ---


def test_a_direct_path_is_preferred_however_long_its_round_trip(sim):
    async def program(net: Relayed):
        net.is_direct_open = True
        net.net.link(net.alice, net.bob, delay_s=0.2)
        here, there = await net.connect()
        await proven(here, await open_path(here, direct(net)))
        await sim.carry(here, there, MB // 4)
        assert not is_relayed(here) and not is_relayed(there)
        assert way(here)["min_rtt_ns"] > 10 * path_handle.paths(here._handle)[0]["min_rtt_ns"] // 2

    run(sim, program)


def test_a_running_transfer_moves_to_the_direct_path_and_back_when_that_dies(sim):
    async def program(net: Relayed):
        here, there = await net.connect()

        async def meddle():
            await asyncio.sleep(0.5)
            assert is_relayed(here)
            net.is_direct_open = True
            await proven(here, await open_path(here, direct(net)))
            assert not is_relayed(here)
            await asyncio.sleep(0.5)
            net.is_direct_open = False
            cut_ns = net.net.clock.now_ns
            await until(lambda: is_relayed(here))
            assert net.net.clock.now_ns - cut_ns < 1_000_000_000
            before = way(there)["bytes_received"], net.pairs()[0]["bytes_a_to_b"]
            await asyncio.sleep(0.3)
            assert net.pairs()[0]["bytes_a_to_b"] > before[1] + 100_000
            net.is_direct_open = True
            await until(lambda: not is_relayed(here))

        meddling = asyncio.create_task(meddle())
        await sim.carry(here, there, 6 * MB)
        await asyncio.wait_for(meddling, 30)

    run(sim, program)


def test_an_idle_connection_notices_a_dead_direct_path_within_three_heartbeats(sim):
    heartbeat_s = 2.0

    async def program(net: Relayed):
        net.is_direct_open = True
        here, there = await net.connect()
        path = await open_path(here, direct(net))
        await proven(here, path)
        for end in (here, there):
            for one in path_handle.paths(end._handle):
                path_handle.set_path_keep_alive(end._handle, one["id"], heartbeat_s)
        await asyncio.sleep(20)
        net.is_direct_open = False
        await asyncio.sleep(3 * heartbeat_s)
        assert is_relayed(here) and is_relayed(there)
        await sim.carry(there, here, 1000)

    run(sim, program, keep_alive_s=0.0)


def test_a_path_is_kept_open_for_less_than_twenty_bytes_a_second(sim):
    async def program(net: Relayed):
        net.is_direct_open = True
        here, there = await net.connect()
        await proven(here, await open_path(here, direct(net)))
        for end in (here, there):
            for one in path_handle.paths(end._handle):
                path_handle.set_path_keep_alive(end._handle, one["id"], 15.0)
        await asyncio.sleep(60)
        wire_bytes = {"direct": 0, "to the relay": 0, "to the peer": 0}

        def count(packet):
            hosts = packet.source.host, packet.target.host
            if not any(host in net.relay_hosts[0].addresses for host in hosts):
                wire_bytes["direct"] += packet.wire_bytes
            elif any(host in net.alice.addresses for host in hosts):
                wire_bytes["to the relay"] += packet.wire_bytes
            else:
                wire_bytes["to the peer"] += packet.wire_bytes

        net.net.intercept(count)
        await asyncio.sleep(600)
        assert here.is_open and not is_relayed(here)
        assert all(8 < total / 600 < 20 for total in wire_bytes.values()), wire_bytes

    run(sim, program, keep_alive_s=0.0, idle_timeout_s=3600.0)


# --- the end of a relay ---


@pytest.mark.row("N7")
def test_a_relay_that_dies_is_replaced_by_another_within_three_seconds_and_nothing_is_lost(sim):
    async def program(net: Relayed):
        here, there = await net.connect()
        other, _ = await net.meet(1)
        path = await open_path(here, other)
        await proven(here, path)
        path_handle.set_standby(here._handle, path, True)
        arrived = []

        async def watch():
            stream = await there.accept_stream()
            size = 0
            while piece := await stream.read(65536):
                size += len(piece)
                arrived.append((net.net.clock.now_ns, size))

        watching = asyncio.create_task(watch())
        stream = await here.open_stream()
        data = sim.bytes(6 * MB)
        sending = asyncio.create_task(stream.write(data))
        await asyncio.sleep(1.0)
        net.relay_hosts[0].unplug()
        killed_ns = net.net.clock.now_ns
        await sending
        await stream.finish()
        await watching
        assert arrived[-1][1] == 6 * MB
        # what was on its way arrives, and then the first from the other relay
        after = [at for at, _ in arrived if at > killed_ns + 100_000_000]
        assert after[0] - killed_ns < 3_000_000_000

    run(sim, program, count=2)


def test_a_relay_that_says_goodbye_takes_its_legs_and_their_paths_with_it(sim):
    async def program(net: Relayed):
        here, there = await net.connect()
        other, _ = await net.meet(1)
        await proven(here, await open_path(here, other))
        told = []
        on_events = net.a._driver._on_events
        net.a._driver._on_events = lambda events: (told.extend(e for e in events if e[0] == control.LEG_GONE), on_events(events))
        await net.carriers[0][0].close()
        await asyncio.sleep(1)
        assert told == [(control.LEG_GONE, net.legs[0][0])]
        assert control.live_objects(core_of(net.a))["legs"] == 1
        assert net.pairs(0) == [] and len(net.pairs(1)) == 1
        assert way(here)["remote"] == other
        await sim.carry(here, there, MB)

    run(sim, program, count=2)


def test_a_connection_whose_only_relay_is_gone_goes_on_over_a_path_that_is_opened_later(sim):
    async def program(net: Relayed):
        here, there = await net.connect()
        stream = await here.open_stream()
        await stream.write(b"before")
        assert await (incoming := await there.accept_stream()).readexactly(6) == b"before"
        await net.at_relays[0][0].close()
        await asyncio.sleep(1)
        await stream.write(b"behind")
        await asyncio.sleep(8)
        assert here.is_open and there.is_open
        other, _ = await net.meet(1)
        opened_ns = net.net.clock.now_ns
        await open_path(here, other)
        assert await incoming.readexactly(6) == b"behind"
        assert net.net.clock.now_ns - opened_ns < 1_000_000_000

    run(sim, program, count=2)


def test_a_silent_only_path_makes_way_at_once_for_one_that_is_proven(sim):
    """No goodbye, and no other path: probes back off. The next path must not wait for the next of them."""

    async def program(net: Relayed):
        here, there = await net.connect()
        other, _ = await net.meet(1)
        stream = await here.open_stream()
        await stream.write(b"before")
        incoming = await there.accept_stream()
        assert await incoming.readexactly(6) == b"before"
        net.relay_hosts[0].unplug()
        await stream.write(b"behind")
        await asyncio.sleep(10)
        opened_ns = net.net.clock.now_ns
        await open_path(here, other)
        assert await incoming.readexactly(6) == b"behind"
        assert net.net.clock.now_ns - opened_ns < 500_000_000

    run(sim, program, count=2)


# --- roaming ---


def test_a_nat_in_front_of_a_relayed_peer_may_forget_it(sim):
    async def program(net: Relayed):
        here, there = await net.connect()
        await sim.carry(here, there, MB // 10)
        for host in (net.alice, net.bob):
            host.rebind(address=True)
            start = asyncio.get_running_loop().time()
            await sim.carry(here, there, MB // 10)
            await sim.carry(there, here, MB // 10)
            assert asyncio.get_running_loop().time() - start < 3.0

    run(sim, program)


# --- what a relay does to packets ---


@pytest.mark.row("N7")
@pytest.mark.parametrize("what", ["drops", "delays", "reorders", "replays", "corrupts"])
def test_a_bad_relay_slows_a_transfer_and_changes_nothing_in_it(sim, what):
    async def program(net: Relayed):
        here, there = await net.connect()
        relay, chance = net.relay_hosts[0], random.Random(sim.seed)

        def meddle(packet):
            if packet.sender is not relay or chance.random() > 0.1 or len(packet.data) < 100:
                return None
            if what == "drops":
                return ()
            if what == "delays":
                packet.delay_s = 0.2
            elif what == "reorders":
                packet.delay_s = chance.random() * 0.05
            elif what == "replays":
                return (packet, packet.copy(delay_s=chance.random()))
            else:
                at = chance.randrange(8, len(packet.data))
                packet.data = packet.data[:at] + bytes([packet.data[at] ^ 1]) + packet.data[at + 1 :]
            return (packet,)

        net.net.intercept(meddle)
        await sim.carry(here, there, MB)
        await sim.carry(there, here, MB)

    run(sim, program)
