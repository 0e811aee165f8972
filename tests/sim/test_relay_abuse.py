"""What strangers, peers and relays may try with legs, on a simulated network."""

import asyncio
import random

import pytest

from interpeer._core import control, legs
from interpeer.errors import LocalError
from interpeer.testing import Packet
from tests.sim.relayed import BURST, Relayed, core_of
from tests.sim.test_relaying import MB, run


def counters(node):
    return control.counters(core_of(node))


def frame(leg, inner):
    return leg.to_bytes(8, "big") + inner


def send_as(net, host, node, data, count=1, *, source=None):
    """Put datagrams on a node's doorstep, as if a host had sent them."""
    at = node.address.endpoints[0]
    for _ in range(count):
        net.net.inject(Packet.of(data, source or net.a.address.endpoints[0], at))


async def a_moment():
    await asyncio.sleep(0.001)


# --- what is passed on ---


@pytest.mark.row("N6")
def test_what_is_more_than_a_pairs_rate_is_dropped_and_counted(sim):
    async def program(net: Relayed):
        here, there = await net.connect(bytes_per_s=125_000, burst=65_536)
        (before,) = net.pairs()
        start = net.net.clock.now_ns
        seconds = await sim.carry(here, there, MB // 2)
        (pair,) = net.pairs()
        passed = sum(pair[key] - before[key] for key in ("bytes_a_to_b", "bytes_b_to_a"))
        assert passed <= 65_536 + 125_000 * (net.net.clock.now_ns - start) / 1e9
        assert seconds > (MB // 2 - 65_536) / 125_000 and pair["dropped_rate"] > 0

    run(sim, program)


@pytest.mark.row("N6")
def test_a_gigabyte_a_second_through_a_capped_pair_passes_at_its_rate_alone(sim):
    async def program(net: Relayed):
        await net.meet(bytes_per_s=125_000, burst=65_536)
        for _ in range(100):  # 1.2 MB in each of 100 ms: more than is ever in the simulator at once
            send_as(net, net.alice, net.relays[0], frame(net.legs[0][0], bytes([0x80]) * 1192), 1000)
            await a_moment()
        (pair,) = net.pairs()
        assert 65_536 <= pair["bytes_a_to_b"] <= 65_536 + 125_000 * 0.2
        assert pair["dropped_rate"] + pair["packets_a_to_b"] == 100_000

    run(sim, program)


def test_set_rate_changes_what_may_pass(sim):
    async def program(net: Relayed):
        here, there = await net.connect(bytes_per_s=1000, burst=BURST)
        legs.set_rate(core_of(net.relays[0]), net.legs[0][1], 1e9, BURST)
        await sim.carry(here, there, 3 * MB)
        with pytest.raises(ValueError, match="joined"):
            legs.set_rate(core_of(net.a), net.legs[0][0], 1e9, BURST)

    run(sim, program)


# --- what is not ---


@pytest.mark.row("N6")
@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (lambda net: frame(net.legs[0][0], b"")[:7], "dropped_short"),
        (lambda net: frame(net.legs[0][0], b""), "dropped_short"),
        (lambda net: frame(net.legs[0][0], bytes(9)), "dropped_short"),
        (lambda net: frame(net.draw(), bytes(40)), "dropped_unknown"),
        (lambda net: frame(net.legs[0][1], bytes(40)), "dropped_leg"),  # Bob's leg, from Alice
    ],
    ids=["cut id", "nothing inside", "less than a message", "unknown id", "another's id"],
)
def test_frames_that_cannot_be_passed_on_are_dropped_and_counted(sim, data, counter):
    async def program(net: Relayed):
        await net.meet()
        before, passed = counters(net.relays[0]), net.pairs()
        send_as(net, net.alice, net.relays[0], data(net), 10)
        await a_moment()
        after = counters(net.relays[0])
        assert after[counter] - before[counter] == 10
        assert net.pairs()[0]["packets_a_to_b"] == passed[0]["packets_a_to_b"] == 0
        assert net.pairs()[0]["packets_b_to_a"] == 0

    run(sim, program)


def test_a_frame_from_elsewhere_is_dropped_though_its_leg_is_right(sim):
    async def program(net: Relayed):
        await net.meet()
        before = counters(net.relays[0])["dropped_leg"]
        here = net.a.address.endpoints[0]
        elsewhere = type(here)(here.host, here.port + 1)
        send_as(net, net.alice, net.relays[0], frame(net.legs[0][0], bytes([0x80]) * 100), 10, source=elsewhere)
        await a_moment()
        assert counters(net.relays[0])["dropped_leg"] - before == 10
        assert net.pairs()[0]["packets_a_to_b"] == 0

    run(sim, program)


@pytest.mark.row("N6")
def test_a_leg_inside_a_leg_is_dropped_where_it_ends(sim):
    async def program(net: Relayed):
        await net.meet()
        own, relay = net.legs[0][0], net.relays[0].address.endpoints[0]
        inner = frame(own, frame(own, bytes([0x80]) * 100))
        before = counters(net.a)
        send_as(net, net.relay_hosts[0], net.a, frame(own, inner), 10, source=relay)
        await a_moment()
        after = counters(net.a)
        assert after["dropped_leg"] - before["dropped_leg"] == 10
        assert after["packets_sent"] == before["packets_sent"]

    run(sim, program)


@pytest.mark.parametrize("first", [0x00, 0x45], ids=["STUN", "probe"])
def test_nothing_that_asks_for_an_address_is_taken_from_a_leg(sim, first):
    async def program(net: Relayed):
        await net.meet()
        relay = net.relays[0].address.endpoints[0]
        before = counters(net.a)["dropped_leg"]
        inner = bytes([first, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]) + bytes(56)
        send_as(net, net.relay_hosts[0], net.a, frame(net.legs[0][0], inner), source=relay)
        await a_moment()
        assert counters(net.a)["dropped_leg"] == before + 1

    run(sim, program)


@pytest.mark.row("N7")
def test_a_relay_that_swaps_the_packets_of_two_pairs_mixes_nothing_up(sim):
    async def program(net: Relayed):
        first, second = await net.connect(), await net.connect()
        ids = {leg.to_bytes(8, "big") for pair in net.legs for leg in pair}
        swapped = {a.to_bytes(8, "big"): b.to_bytes(8, "big") for a, b in zip(*net.legs, strict=True)}
        swapped |= {b: a for a, b in swapped.items()}
        relay, chance = net.relay_hosts[0], random.Random(sim.seed)

        def swap(packet):
            if packet.sender is not relay or packet.data[:8] not in ids or chance.random() > 0.1:
                return None
            packet.data = swapped[packet.data[:8]] + packet.data[8:]
            return (packet,)

        net.net.intercept(swap)
        await asyncio.gather(sim.carry(*first, MB // 2), sim.carry(*reversed(second), MB // 2))

    run(sim, program)


# --- what the verbs refuse ---


def test_ids_that_are_taken_or_cannot_be_are_refused(sim):
    async def program(net: Relayed):
        await net.meet()
        handle = net.carriers[0][0]._handle
        for bad in (net.legs[0][0], net.draw() & ~(1 << 63), 0):
            with pytest.raises(ValueError, match="leg's id"):
                legs.add(handle, bad)
        a, b = (end._handle for end in net.at_relays[0])
        with pytest.raises(ValueError, match="leg's id"):
            legs.join(a, net.draw(), b, net.legs[0][1], 1e6, 1000)
        for rate, burst in ((0, 1), (-1, 1), (float("nan"), 1), (1, 0)):
            with pytest.raises(ValueError, match="greater than 0"):
                legs.join(a, net.draw(), b, net.draw(), rate, burst)
        assert control.live_objects(core_of(net.relays[0]))["legs"] == 2

    run(sim, program)


def test_a_leg_needs_an_open_connection_of_the_same_engine(sim):
    async def program(net: Relayed):
        await net.meet()
        closed = net.carriers[0][0]
        with pytest.raises(LocalError, match="shards"):
            legs.join(closed._handle, net.draw(), net.at_relays[0][0]._handle, net.draw(), 1e6, 1000)
        with pytest.raises(LocalError, match="itself"):
            legs.join(net.at_relays[0][0]._handle, net.draw(), net.at_relays[0][0]._handle, net.draw(), 1e6, 1000)
        await closed.close()
        with pytest.raises(LocalError, match="open connection"):
            legs.add(closed._handle, net.draw())

    run(sim, program)


def test_remove_takes_both_legs_and_tells_nobody(sim):
    async def program(net: Relayed):
        here, _ = await net.connect()
        told = []
        on_events = net.a._driver._on_events
        net.a._driver._on_events = lambda events: (told.extend(e for e in events if e[0] == control.LEG_GONE), on_events(events))
        legs.remove(core_of(net.relays[0]), net.legs[0][1])
        legs.remove(core_of(net.relays[0]), net.legs[0][1])
        assert net.pairs() == [] and control.live_objects(core_of(net.relays[0]))["legs"] == 0
        legs.remove(core_of(net.a), net.legs[0][0])
        await asyncio.sleep(1)
        assert told == [] and here.is_open
        assert control.live_objects(core_of(net.a))["legs"] == 0

    run(sim, program)


def test_packets_for_a_leg_that_is_gone_are_counted_and_go_nowhere(sim):
    async def program(net: Relayed):
        here, _ = await net.connect()
        legs.remove(core_of(net.a), net.legs[0][0])
        stream = await here.open_stream()
        await stream.write(b"lost")
        await asyncio.sleep(1)
        assert counters(net.a)["dropped_legless"] > 0

    run(sim, program)
