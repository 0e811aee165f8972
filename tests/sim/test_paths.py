"""Several paths between two nodes, and addresses that change under them, on a simulated network."""

import asyncio
from collections import Counter

import pytest

import interpeer
from interpeer.testing import Link, SimNet

NEAR = Link(delay_s=0.01, rate_bit_per_s=20e6, queue_packets=60)
HERE, THERE = ("11.0.1.1", "2000:0:1::1"), ("11.0.2.1", "2000:0:2::1")
"""Two hosts with an address of each family: two pairs of addresses are two paths."""


class Two:
    """Two nodes that may have two paths; what goes by IPv6 may be cut, or have a link of its own."""

    def __init__(self, net, alice, bob, a, b):
        self.net, self.alice, self.bob, self.a, self.b = net, alice, bob, a, b
        self.dead = set()
        net.intercept(lambda packet: () if self.dead & {packet.target.host, packet.source.host} else None)

    def cut(self, host):
        """Let nothing through to or from this address any more."""
        self.dead.add(host)

    async def connect(self):
        accepting = asyncio.create_task(self.b.accept())
        target = interpeer.Address(f"{self.b.id}@{THERE[0]}:{self.b.address.endpoints[0].port}")
        return await self.a.connect(target), await accepting

    def other(self, node, host):
        """Return where a node listens at another address of its host."""
        return interpeer.Endpoint(host, node.address.endpoints[0].port)


async def with_two(program, sim, link=NEAR, **settings):
    net = SimNet(link)
    alice, bob = net.host("alice", *HERE), net.host("bob", *THERE)
    config = interpeer.Config(**settings)
    async with alice.node(config=config) as a, bob.node(config=config) as b:
        await program(Two(net, alice, bob, a, b))


def run(sim, program, link=NEAR, **settings):
    async def main():
        await with_two(program, sim, link, **settings)

    sim.run(main())


async def changes(node, found):
    async for event in node.events():
        if isinstance(event, interpeer.PathChanged):
            found.append((event.path, event.what))


# --- rebinding ---


@pytest.mark.row("N1")
@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["port", "address"])
@pytest.mark.parametrize("who", ["sender", "receiver", "both"])
def test_nothing_is_lost_and_little_slowed_when_nats_rebind_every_five_seconds(sim, interop, who, is_elsewhere):
    size = 14_000_000  # 11.2 seconds at 10 Mbit/s

    async def main():
        async with sim.pair(interop) as pair:
            ends = await pair.connect()
            if who != "receiver":
                pair.alice.rebind(address=is_elsewhere, after_s=5, every_s=5)
            if who != "sender":
                pair.bob.rebind(address=is_elsewhere, after_s=6.5, every_s=5)
            seconds = await sim.transfer(pair, size, ends=ends)
            assert size * 8 / seconds / 10e6 >= 0.8, f"{seconds:.1f} s"

    sim.run(main())


def test_an_idle_connection_is_found_again_behind_a_nat_that_has_forgotten_it(sim):
    async def main():
        async with sim.pair(NEAR, keep_alive_s=1.0) as pair:
            here, there = await pair.connect()
            pair.alice.rebind(address=True)
            await asyncio.sleep(5)
            stream = await there.open_stream()
            await stream.write(b"found")
            assert await (await here.accept_stream()).readexactly(5) == b"found"

    sim.run(main())


def test_the_first_ping_from_a_new_address_is_enough_to_prove_it(sim):
    async def main():
        async with sim.pair(NEAR, keep_alive_s=5.0) as pair:
            _, there = await pair.connect()
            await asyncio.sleep(1)
            pair.alice.rebind(address=True)
            pings = []
            pair.net.intercept(lambda packet: pings.append(packet) if packet.sender is pair.alice else None)
            while not pings:
                await asyncio.sleep(0.001)
            await asyncio.sleep(3 * NEAR.delay_s + 0.002)  # there, the question, and its answer
            assert there.path.remote.host != pair.alice.addresses[0] and there.path.state == "active"

    sim.run(main())


def test_what_happens_to_a_path_in_the_turn_in_which_a_connection_comes_in_is_told(sim):
    """Its first packet, and one from behind a NAT that has forgotten it, arrive at once; it is accepted much later."""

    async def main():
        async with sim.pair(Link(delay_s=0.01)) as pair:
            sent, told = [], []

            async def listen():
                async for event in pair.b.events():
                    told.append((pair.net.clock.now_ns, event))  # noqa: PERF401 - it is cancelled, and keeps what it has

            listening = asyncio.create_task(listen())

            def gather(packet):
                if packet.sender is pair.alice and packet.kind == "data" and len(sent) < 2:
                    packet.delay_s = 0.005 * (2 - len(sent))
                    if sent:
                        packet.translate(source=interpeer.Endpoint(pair.alice.addresses[0], 777))
                    sent.append(packet)

            with pair.net.intercepting(gather):
                here = await pair.a.connect(pair.b.address)
                await asyncio.sleep(0.005)
                here.send_datagram(b"from elsewhere" * 30)
                await asyncio.sleep(1)
            there = await pair.b.accept()
            assert await there.recv_datagram()
            pair.alice.rebind(address=True)
            here.send_datagram(b"and again" * 30)
            assert await there.recv_datagram()
            listening.cancel()
            assert [getattr(event, "what", "connected") for _, event in told] == ["connected", "moved", "returned", "moved"]
            assert told[0][0] == told[1][0] and told[1][1].remote.endswith(":777")

    sim.run(main())


@pytest.mark.row("N2")
def test_an_attacker_who_copies_packets_faster_does_not_keep_the_path(sim):
    """Every packet of the initiator comes first from elsewhere, for two seconds; nothing is sent back from there."""

    async def main():
        async with sim.pair(NEAR) as pair:
            mallory = pair.net.host("mallory", "11.0.9.9")
            got = []
            ends = await pair.connect()
            start = pair.net.clock.now_s

            def copy(packet):
                if packet.target.host == mallory.addresses[0]:
                    got.append(len(packet.data))
                    return ()
                if packet.sender is pair.alice and start < pair.net.clock.now_s < start + 2:
                    faster = packet.copy()
                    faster.translate(source=interpeer.Endpoint(mallory.addresses[0], 666))
                    pair.net.inject(faster)
                return None

            pair.net.intercept(copy)
            await sim.transfer(pair, 1_000_000, ends=ends)
            await asyncio.sleep(3)
            assert str(ends[1].path.remote.host) == pair.alice.addresses[0]
            assert got and max(got) < 100, "challenges, and no data"

    sim.run(main())


# --- two paths ---


@pytest.mark.parametrize("scheduler", ["lowest-rtt", "aggregate", "redundant"])
@pytest.mark.parametrize("dies", [None, 0, 1])
def test_a_transfer_over_two_paths_survives_the_end_of_either(sim, scheduler, dies):
    async def program(two):
        here, there = await two.connect()
        there.scheduler = here.scheduler
        opened = await here.open_path(two.other(two.b, THERE[1]), local=HERE[1])
        assert opened.id == 2
        assert opened.state == "active"
        if dies is not None:
            two.net.clock.at(two.net.clock.now_ns + 300_000_000, two.cut, THERE[dies])
        await sim.transfer(two, 2_000_000, ends=(here, there))
        states = {path.id: path.state for path in here.paths}
        assert set(states) == {0, 2} if dies is None else states[0 if dies else 2] == "active"

    run(sim, program, scheduler=scheduler)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_message_that_is_sent_once_on_each_path_is_dropped_when_all_its_copies_are_lost(sim, ordered):
    """Of 20 % on each of two paths, 4 % are left; each message arrives or is told as dropped, and never both."""
    count = 1000

    async def program(two):
        here, there = await two.connect()
        await here.open_path(two.other(two.b, THERE[1]), local=HERE[1])
        for wire in (two.net.wire(two.alice, two.bob), two.net.wire(two.bob, two.alice)):
            wire.set(loss=0.2)
        async with await here.open_channel(resend=False, ordered=ordered) as channel:
            incoming = await there.accept_channel()
            got = Counter()

            async def receive():
                async for message in incoming:
                    got[int.from_bytes(message, "big")] += 1

            receiving = asyncio.create_task(receive())
            for i in range(count):
                await channel.send(i.to_bytes(4, "big") * 100)
                await asyncio.sleep(0.002)
            await asyncio.sleep(5)
            receiving.cancel()
            assert set(got.values()) == {1}
            lost = count - len(got)
            assert 0.01 * count < lost < 0.08 * count
            assert channel.stats().dropped == incoming.stats().peer_dropped == lost

    run(sim, program, NEAR, scheduler="redundant", congestion="bbr-lossy")


def test_a_standby_path_carries_nothing_until_it_is_needed(sim):
    async def program(two):
        here, there = await two.connect()
        spare = await here.open_path(two.other(two.b, THERE[1]), local=HERE[1])
        here.set_standby(spare)
        await asyncio.sleep(0.2)
        seen = []
        two.net.intercept(lambda packet: seen.append(packet.target.host) if len(packet.data) > 600 else None)
        await sim.transfer(two, 500_000, ends=(here, there))
        assert set(seen) == {THERE[0]}
        two.cut(THERE[0])
        await sim.transfer(two, 500_000, ends=(here, there))
        assert here.path.id == spare.id
        assert here.path.is_standby

    run(sim, program, scheduler="aggregate")


@pytest.mark.parametrize("by_opener", [True, False])
def test_either_end_may_give_a_path_up(sim, by_opener):
    async def program(two):
        here, there = await two.connect()
        await here.open_path(two.other(two.b, THERE[1]), local=HERE[1])
        await asyncio.sleep(0.1)
        transfer = asyncio.create_task(sim.transfer(two, 1_000_000, ends=(here, there)))
        await asyncio.sleep(0.1)
        end = here if by_opener else there
        end.close_path(end.paths[0])
        await transfer
        await asyncio.sleep(2)
        assert [path.id for path in here.paths] == [path.id for path in there.paths] == [2]
        with pytest.raises(interpeer.LocalError, match="last path"):
            end.close_path(end.path)
        # its id is not used again
        again = await here.open_path(two.other(two.b, THERE[0]), local=HERE[0])
        assert again.id == 4

    run(sim, program, scheduler="aggregate")


def test_both_ends_open_paths_at_once(sim):
    async def program(two):
        here, there = await two.connect()
        await asyncio.sleep(0.1)
        opened = await asyncio.gather(
            here.open_path(two.other(two.b, THERE[1]), local=HERE[1]), there.open_path(two.other(two.a, HERE[1]), local=THERE[1])
        )
        assert sorted(path.id for path in opened) == [1, 2]
        await asyncio.sleep(0.1)
        assert [path.id for path in here.paths] == [path.id for path in there.paths] == [0, 1, 2]
        await sim.transfer(two, 500_000, ends=(here, there))

    run(sim, program, scheduler="aggregate")


@pytest.mark.parametrize("most", [2, 3, 4])
def test_when_both_ends_open_the_last_path_at_once_the_initiators_is_opened(sim, most):
    async def program(two):
        here, there = await two.connect()
        await asyncio.sleep(0.1)
        for _ in range(most - 2):
            await here.open_path(two.other(two.b, THERE[1]), local=HERE[1])
        opened = await asyncio.gather(
            here.open_path(two.other(two.b, THERE[1]), local=HERE[1]),
            there.open_path(two.other(two.a, HERE[1]), local=THERE[1]),
            return_exceptions=True,
        )
        assert opened[0].id == 2 * most - 2
        assert isinstance(opened[1], interpeer.LocalError) and "at the same time" in str(opened[1])
        await sim.transfer(two, 500_000, ends=(here, there))
        await asyncio.sleep(3)
        assert {path.id for path in here.paths} == {path.id for path in there.paths} == set(range(0, 2 * most, 2))
        here.close_path(opened[0])
        await asyncio.sleep(1)
        assert (await there.open_path(two.other(two.a, HERE[1]), local=THERE[1])).id == 3

    run(sim, program, max_paths=most, scheduler="aggregate")


def test_paths_open_through_heavy_loss_and_nothing_of_them_is_lost_for_good(sim):
    """Whatever frame of theirs is lost is said again."""

    async def program(two):
        here, there = await two.connect()
        for _ in range(3):
            opened = await here.open_path(two.other(two.b, THERE[1]), local=HERE[1])
            here.set_standby(opened)
            await sim.transfer(two, 50_000, ends=(here, there))
            here.close_path(opened)
            await asyncio.sleep(3)
        await asyncio.sleep(20)
        assert [(path.id, path.state) for path in here.paths] == [(0, "active")]
        assert [(path.id, path.state) for path in there.paths] == [(0, "active")]

    run(sim, program, NEAR.replace(loss=0.2), connect_timeout_s=60.0)


def test_an_address_where_nobody_answers_is_unreachable_and_the_connection_lives(sim):
    async def program(two):
        here, there = await two.connect()
        with pytest.raises(interpeer.Unreachable, match="no answer"):
            await here.open_path("11.0.7.7:77")
        assert [path.id for path in here.paths if path.state != "abandoned"] == [0]
        await sim.transfer(two, 50_000, ends=(here, there))

    run(sim, program)


def test_migration_moves_a_transfer_and_events_tell_of_it(sim):
    async def program(two):
        found = []
        telling = asyncio.create_task(changes(two.a, found))
        here, there = await two.connect()
        transfer = asyncio.create_task(sim.transfer(two, 1_000_000, ends=(here, there)))
        await asyncio.sleep(0.1)
        moved = await here.migrate(two.other(two.b, THERE[1]), local=HERE[1])
        two.cut(THERE[0])
        await transfer
        assert here.path.id == moved.id
        telling.cancel()
        assert [what for path, what in found if path == 2][:2] == ["opened", "proven"]
        assert (0, "abandoned") in found

    run(sim, program)
