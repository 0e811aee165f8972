"""Two nodes find together whatever happens to their first messages, and nothing that is not authentic changes anything."""

import asyncio
import random

import pytest

import interpeer
from interpeer import Endpoint
from interpeer.testing import Link, Packet

NEAR = Link(delay_s=0.015)
STRANGER = Endpoint("203.0.113.7", 4444)


async def talk(here, there):
    """Prove that a connection works in both directions."""
    async with here.open_stream() as stream:
        await stream.write(b"ping")
    incoming = await there.accept_stream()
    assert await incoming.read() == b"ping"
    async with incoming:
        await incoming.write(b"pong")
    assert await stream.read() == b"pong"


async def meet(pair):
    """Connect and talk; return both ends."""
    ends = await pair.connect()
    await talk(*ends)
    return ends


def flipped(packet, bit):
    data = bytearray(packet.data)
    data[bit // 8] ^= 1 << bit % 8
    return packet.copy(data=bytes(data))


@pytest.mark.row("H22", "R5")
@pytest.mark.parametrize("fault", [{"loss": 0.3, "loss_run_limit": 3}, {"loss": 0.3}, {"corrupt": 0.3}])
def test_fifty_connections_through_30_percent_each_way(sim, interop, fault):
    async def main():
        async with sim.pair(interop.replace(**fault), connect_timeout_s=30) as pair:
            for _ in range(50):
                await meet(pair)
            assert pair.a.counters()["connections_opened"] == pair.b.counters()["connections_accepted"] == 50

    sim.run(main())


@pytest.mark.row("H22")
def test_any_of_the_first_six_packets_may_be_lost(sim):
    async def main(mask):
        async with sim.pair(NEAR) as pair:
            sent = []

            def drop(packet):
                sent.append(packet)
                return () if mask >> len(sent) - 1 & 1 else None

            pair.net.intercept(drop)
            await meet(pair)
            assert pair.b.counters()["connections_accepted"] == 1

    for mask in range(64):
        sim.run(main(mask))


@pytest.mark.row("H14")
def test_every_packet_twice_and_late_is_one_connection(sim):
    async def main(delay_s):
        async with sim.pair(NEAR) as pair:
            pair.net.intercept(lambda packet: [packet, packet.copy(delay_s=delay_s)])
            await meet(pair)
            await asyncio.sleep(5)
            assert pair.b.counters()["connections_accepted"] == 1
            assert len(pair.b.connections) == 1

    for delay_s in (0.0, 0.01, 0.04, 0.5, 2.0):
        sim.run(main(delay_s))


@pytest.mark.row("R5")
def test_a_satellite_takes_one_round_trip(sim, interop):
    async def main():
        async with sim.pair(interop.replace(delay_s=0.75)) as pair:
            loop = asyncio.get_running_loop()
            start = loop.time()
            await pair.a.connect(pair.b.address)
            connected_s = loop.time() - start
            await pair.b.accept()
            await asyncio.sleep(20)
            assert pair.b.counters()["connections_accepted"] == 1
            assert pair.b.counters()["half_open"] == 0
            return connected_s

    assert 1.5 <= sim.run(main()) < 1.51


@pytest.mark.row("H2", "H3")
@pytest.mark.parametrize("kind", ["init", "response"])
def test_cut_and_flipped_messages_before_the_true_one_change_nothing(sim, kind):
    async def main():
        async with sim.pair(NEAR) as pair:
            chance = random.Random(sim.seed)

            def spoil(packet):
                if packet.kind != kind:
                    return None
                n = len(packet.data)
                cuts = [packet.copy(data=packet.data[:size]) for size in range(n)]
                bits = [*range(128), *chance.sample(range(128, n * 8), 500), *range(n * 8 - 300, n * 8)]
                return [*cuts, *(flipped(packet, bit) for bit in bits), packet]

            with pair.net.intercepting(spoil):
                await meet(pair)
            node = pair.b if kind == "init" else pair.a
            counters = node.counters()
            dropped = sum(count for name, count in counters.items() if name.startswith("dropped_"))
            assert dropped >= (1200 if kind == "init" else 144)
            assert pair.b.counters()["half_open"] == 0
            assert pair.b.counters()["connections_accepted"] == 1

    sim.run(main())


@pytest.mark.row("H1", "P6", "P7")
def test_noise_is_dropped_and_answered_by_nothing(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            here, there = await pair.connect()
            chance, target = random.Random(sim.seed), pair.b.address.endpoints[0]
            fates = []
            await asyncio.sleep(1)
            pair.net.observe(fates.append)
            for size in (0, 1, 2, 9, 10, 15, 16, 17, 31, 32, 33, 39, 40, 41, 66, 144, 1199, 1200, 1201, 9000, 65_507):
                for first in range(256):
                    data = bytes([first, *chance.randbytes(size)])[:size]
                    pair.net.inject(Packet.of(data, STRANGER, target))
            await asyncio.sleep(1)
            assert not [fate for fate in fates if fate.source != STRANGER]
            await talk(here, there)

    sim.run(main())


@pytest.mark.row("H8")
def test_a_replayed_first_message_opens_nothing_and_is_forgotten(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            inits = []
            stop = pair.net.intercept(lambda packet: inits.append(packet.copy()) if packet.kind == "init" else None)
            here, there = await meet(pair)
            stop()
            for again in range(3):
                for _ in range(20):
                    pair.net.inject(inits[0].copy(source=STRANGER if again else None))
                await asyncio.sleep(0.1)
                assert pair.b.counters()["half_open"] == 1
                await asyncio.sleep(12)
                assert pair.b.counters()["half_open"] == 0
            await talk(here, there)
            await here.close()
            pair.net.inject(inits[0].copy())
            await asyncio.sleep(1)
            assert pair.b.connections == []
            assert pair.b.counters()["connections_accepted"] == 1

    sim.run(main())


@pytest.mark.row("H14")
def test_a_second_response_is_ignored_wherever_it_comes_from(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            responses = []
            pair.net.intercept(lambda packet: responses.append(packet.copy()) if packet.kind == "response" else None)
            here, there = await meet(pair)
            before = here.path
            for source in (None, STRANGER):
                pair.net.inject(responses[0].copy(source=source))
            await asyncio.sleep(1)
            assert here.path == before
            await talk(here, there)

    sim.run(main())


@pytest.mark.row("P4", "P5")
def test_reflected_and_replayed_packets_are_dropped(sim):
    async def main():
        async with sim.pair(NEAR) as pair:

            def reflect(packet):
                back = packet.copy(source=packet.target, target=packet.source)
                return [packet, back, packet.copy(), packet.copy(source=STRANGER)]

            here, there = await pair.connect()
            with pair.net.intercepting(reflect):
                await talk(here, there)
                await asyncio.sleep(1)
            for node in (pair.a, pair.b):
                assert node.counters()["dropped_replayed"] > 0
                assert node.counters()["dropped_unknown"] > 0
            assert here.path.remote == pair.b.address.endpoints[0]
            assert there.path.remote == pair.a.address.endpoints[0]
            await talk(here, there)

    sim.run(main())


@pytest.mark.row("H20")
def test_a_response_that_is_repeated_late_can_still_be_confirmed(sim):
    """The responder waits ten seconds from its last response, not from the first."""

    async def main():
        async with sim.pair(NEAR) as pair:
            start = pair.net.clock.now_s

            def drop(packet):
                age_s = pair.net.clock.now_s - start
                return () if (packet.kind == "response" and age_s < 9) or (packet.kind == "data" and age_s < 12) else None

            pair.net.intercept(drop)
            await meet(pair)

    sim.run(main())


@pytest.mark.row("H20")
def test_an_initiator_that_falls_silent_is_forgotten(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            pair.net.intercept(lambda packet: () if packet.kind == "data" else None)
            here = await pair.a.connect(pair.b.address)
            await asyncio.sleep(5)
            assert pair.b.counters()["half_open"] == 1
            await asyncio.sleep(10)
            assert pair.b.counters()["half_open"] == 0
            assert pair.b.connections == []
            await here.wait_closed()
            assert here.closed_by == "silence"

    sim.run(main())


@pytest.mark.row("A7")
def test_three_hundred_calls_to_nobody_each_say_what_was_tried_and_leave_nothing(sim):
    """That many want more random bytes than there are for one turn: some begin a turn later."""

    async def main():
        async with sim.pair(NEAR) as pair:
            loop = asyncio.get_running_loop()
            start = loop.time()
            nobody = interpeer.Address.of(interpeer.Identity.generate().id, [Endpoint("192.0.2.1", 9), STRANGER])
            failures = await asyncio.gather(*(pair.a.connect(nobody) for _ in range(300)), return_exceptions=True)
            assert loop.time() - start == pytest.approx(10)
            assert {type(failure) for failure in failures} == {interpeer.Unreachable}
            assert all(len(failure.reasons) == 2 for failure in failures)
            del failures
            await meet(pair)
            assert pair.a.counters()["connections"] == 1

    sim.run(main())


@pytest.mark.row("H16", "H18")
def test_under_load_a_stranger_shows_a_cookie_first(sim):
    async def main():
        async with sim.pair(NEAR, max_half_open=2) as pair, pair.net.host("carol").node() as c:
            # carol's call waits for confirmation, and that is half of the table
            carol = pair.net.hosts[-1]
            pair.net.intercept(lambda packet: () if packet.sender is carol and packet.kind == "data" else None)
            await c.connect(pair.b.address)
            here, _there = await meet(pair)
            assert pair.b.counters()["cookies_sent"] == 1
            await here.close()

    sim.run(main())


@pytest.mark.row("H20")
@pytest.mark.parametrize("most", [1, 2, 4])
def test_more_callers_at_once_than_there_are_entries_all_get_in(sim, most):
    """An entry is its caller's for as long as a confirmation takes; the others' first messages come again."""
    callers = 12

    async def main():
        async with sim.pair(NEAR, max_half_open=most) as pair:

            async def call(host):
                async with host.node() as node, node.connect(pair.b.address) as connection:
                    stream = await connection.open_stream()
                    await stream.write(b"hello")
                    await stream.finish()
                    assert await stream.read() == b"hello"

            async def answer():
                async for connection in pair.b.incoming():
                    serving.add(asyncio.create_task(echo(connection)))

            async def echo(connection):
                stream = await connection.accept_stream()
                await stream.write(await stream.read())
                await stream.finish()

            serving = set()
            answering = asyncio.create_task(answer())
            await asyncio.gather(*(call(pair.net.host(f"caller {i}", f"12.{i}.0.1")) for i in range(callers)))
            answering.cancel()
            assert len(serving) == callers
            await asyncio.gather(*serving)

    sim.run(main())


@pytest.mark.row("H20")
def test_a_slow_caller_is_not_pushed_out_by_quick_ones_where_there_is_room(sim):
    async def main():
        async with sim.pair(NEAR, max_half_open=4) as pair, pair.net.host("far", "12.0.0.1").node() as far:
            pair.net.link(pair.net.hosts[-1], pair.bob, delay_s=0.6)
            accepting = asyncio.create_task(pair.b.accept())
            slow = asyncio.create_task(far.connect(pair.b.address))
            await asyncio.sleep(0.65)  # it is answered, and its confirmation on its way
            for _ in range(6):
                await (await pair.a.connect(pair.b.address)).close()
            connection = await slow
            await asyncio.sleep(2)
            assert connection.is_open and connection.stats().packets_received > 0
            await accepting

    sim.run(main())


@pytest.mark.row("H18", "H19")
def test_a_cookie_is_worth_nothing_from_elsewhere(sim):
    async def main():
        async with sim.pair(NEAR, max_half_open=2) as pair, pair.net.host("carol").node() as c:
            carol = pair.net.hosts[-1]
            seen = []

            def watch(packet):
                seen.append(packet)
                return () if packet.sender is carol and packet.kind == "data" else None

            pair.net.intercept(watch)
            await c.connect(pair.b.address)
            await meet(pair)
            with_cookie = [packet for packet in seen if packet.kind == "init" and packet.sender is pair.alice][-1]
            before = pair.b.counters()["cookies_sent"]
            # a new first message with that cookie would have to come from alice's address
            forged = bytearray(with_cookie.data)
            forged[100] ^= 1
            pair.net.inject(with_cookie.copy(data=bytes(forged)))
            pair.net.inject(with_cookie.copy(source=STRANGER))
            await asyncio.sleep(1)
            assert pair.b.counters()["dropped_mac"] == 1
            assert pair.b.counters()["cookies_sent"] == before + 1  # for that address, and no Diffie-Hellman
            assert pair.b.counters()["half_open"] == 1

    sim.run(main())


@pytest.mark.row("H12")
def test_another_network_is_not_heard(sim):
    async def main():
        async with sim.pair(NEAR, a={"network": "ours"}, b={"network": "theirs"}) as pair:
            with pytest.raises(interpeer.Unreachable):
                await pair.a.connect(pair.b.address)
            assert pair.b.counters()["dropped_mac"] > 0
            assert pair.net.wire(pair.bob, pair.alice).stats.packets == 0

    sim.run(main())


def test_refusals_are_told_by_name_through_loss(sim):
    async def main():
        link, theirs = Link(delay_s=0.015, loss=0.3), {"protocols": ("theirs",), "allow": ()}
        async with sim.pair(link, b=theirs, connect_timeout_s=30) as pair:
            with pytest.raises(interpeer.Refused, match="does not speak the protocol 'ours'"):
                await pair.a.connect(pair.b.address, protocol="ours")
            with pytest.raises(interpeer.Refused, match="does not let us in"):
                await pair.a.connect(pair.b.address, protocol="theirs")

    sim.run(main())


def test_an_application_that_takes_its_time_to_decide_is_waited_for(sim):
    async def main():
        asked = []
        async with sim.pair(NEAR, b={"allow": lambda peer: asked.append(peer) or True}) as pair:
            await meet(pair)
            assert asked == [pair.a.id]

    sim.run(main())
