"""No node can be made to send more to a victim than the attacker sends to the node.

That is checked in every simulated run (interpeer.testing's audit raises Amplified); here somebody tries. The attacker sees
every packet, and sends any with the victim's address as its source, ahead of the true one.
"""

import asyncio
import random

import pytest

import interpeer
from interpeer import Endpoint
from interpeer.testing import Amplified, Link, Packet

NEAR = Link(delay_s=0.03)
VICTIM = Endpoint("203.0.113.9", 53)

pytestmark = [pytest.mark.row("R1"), pytest.mark.spec("PK-35")]


class Victim:
    """Count what an address that says nothing gets, and what was sent in its name."""

    def __init__(self, net):
        self.got = self.sent = 0
        net.observe(self._observe)

    def _observe(self, fate):
        if fate.target == VICTIM:
            self.got += fate.payload_bytes
        elif fate.source == VICTIM and fate.what == "delivered":
            self.sent += fate.payload_bytes


async def exchange_inits(pair):
    """Have both nodes call each other once; return their first messages, by sender."""
    inits = {}

    def keep(packet):
        if packet.kind == "init":
            inits[packet.sender] = packet.copy()

    stop = pair.net.intercept(keep)
    for caller, callee in ((pair.a, pair.b), (pair.b, pair.a)):
        here = await caller.connect(callee.address)
        there = await callee.accept()
        await here.close()
        await there.wait_closed()
    stop()
    await asyncio.sleep(15)
    return inits


async def refuse_to_be_silent(connection, size=200_000):
    """Write as an application does that has much to say, whether or not it is read."""
    stream = await connection.open_stream()
    await stream.write(bytes(size))
    await asyncio.sleep(20)


async def call_as_if_from_the_victim(pair, *, only=None):
    """Have alice call bob, who has much to say; her first packet of each kind, or of this one, comes from the victim as well."""
    seen = set()

    def attack(packet):
        if packet.sender is pair.alice and packet.kind not in seen and only in (None, packet.kind):
            seen.add(packet.kind)
            return [packet.copy(source=VICTIM), packet]
        return None

    pair.net.intercept(attack)
    connecting = asyncio.create_task(pair.a.connect(pair.b.address))
    await refuse_to_be_silent(await pair.b.accept())
    await connecting


@pytest.mark.row("H8", "H16")
def test_a_replayed_first_message_is_answered_by_less(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            inits = await exchange_inits(pair)
            victim = Victim(pair.net)
            for _ in range(100):
                pair.net.inject(inits[pair.alice].copy(source=VICTIM))
                await asyncio.sleep(0.01)
            assert 0 < victim.got < victim.sent / 8

    sim.run(main())


@pytest.mark.row("H8", "H15")
def test_a_replayed_first_message_turns_a_call_to_its_source_once_each_time(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            inits = await exchange_inits(pair)
            victim = Victim(pair.net)
            nowhere = Endpoint("192.0.2.1", 9)
            calls = []
            for node, peer, host in ((pair.a, pair.b, pair.bob), (pair.b, pair.a, pair.alice)):
                calls.append(asyncio.create_task(node.connect(interpeer.Address.of(peer.id, [nowhere]))))
                await asyncio.sleep(0.1)
                pair.net.inject(inits[host].copy(source=VICTIM))
            failures = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(failure) for failure in failures} == {interpeer.Unreachable}
            assert 0 < victim.got <= victim.sent == 2400

    sim.run(main())


@pytest.mark.row("H18", "H19")
def test_a_cookie_from_elsewhere_is_not_followed(sim):
    async def main():
        async with sim.pair(NEAR, max_half_open=2) as pair, pair.net.host("carol").node() as c:
            carol = pair.net.hosts[-1]
            victim = Victim(pair.net)

            def attack(packet):
                if packet.sender is carol and packet.kind == "data":
                    return ()
                return [packet.copy(source=VICTIM), packet] if packet.kind == "cookie" else None

            pair.net.intercept(attack)
            await c.connect(pair.b.address)
            await pair.connect()
            assert victim.sent > 0 == victim.got

    sim.run(main())


@pytest.mark.row("H14", "N2")
def test_a_response_from_elsewhere_moves_no_data_there(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            victim = Victim(pair.net)
            pair.net.intercept(lambda packet: [packet.copy(source=VICTIM)] if packet.kind == "response" else None)
            await refuse_to_be_silent(await pair.a.connect(pair.b.address))
            assert 0 < victim.got <= victim.sent

    sim.run(main())


@pytest.mark.row("H14")
def test_a_peer_that_answers_from_another_address_is_believed_when_it_has_said_more(sim):
    """As behind some NATs: the response, and everything after it, comes from where nobody called."""

    async def main():
        async with sim.pair(NEAR) as pair:
            called, other = pair.b.address.endpoints[0], Endpoint(pair.b.address.endpoints[0].host, 7)

            def translate(packet):
                if packet.source == called:
                    packet.translate(source=other)
                elif packet.target == other:
                    packet.translate(target=called)

            pair.net.intercept(translate)
            seconds = await sim.transfer(pair, 200_000)
            assert seconds < 1

    sim.run(main())


@pytest.mark.row("N2")
def test_a_first_packet_from_elsewhere_moves_no_data_there(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            victim = Victim(pair.net)
            await call_as_if_from_the_victim(pair, only="data")
            assert 0 < victim.got <= victim.sent

    sim.run(main())


@pytest.mark.row("N12")
def test_a_first_packet_that_comes_by_another_way_than_the_call_costs_a_round_trip_and_no_more(sim):
    """As with two families: the call is answered at both addresses, and goes on at the one that answered first."""

    async def main():
        async with sim.pair(NEAR) as pair:
            pair.net.intercept(translated(pair))
            here, there = await pair.connect()
            seconds = await sim.transfer(pair, 200_000, ends=(there, here))
            assert seconds < 1

    sim.run(main())


def translated(pair, port=7):
    """An interceptor that has the packets of a connection leave alice's side by another port than her call did."""
    called, other = pair.a.address.endpoints[0], Endpoint(pair.a.address.endpoints[0].host, port)

    def translate(packet):
        if packet.source == called and packet.kind == "data":
            packet.translate(source=other)
        elif packet.target == other:
            packet.translate(target=called)

    return translate


@pytest.mark.row("N12")
@pytest.mark.spec("HS-79", "PA-27")
def test_an_address_that_has_proved_nothing_gets_probes_until_its_credit_is_used_up(sim):
    """And the peer's next packet is enough for another one, and so for everything."""

    async def main():
        async with sim.pair(NEAR, b={"config": interpeer.Config(idle_timeout_s=60)}) as pair:
            pair.net.intercept(translated(pair))
            sizes = []

            def watch(packet):
                if packet.sender is pair.bob and packet.kind == "data":
                    sizes.append(len(packet.data))
                    return () if pair.net.clock.now_s < 8 else None
                return None

            pair.net.intercept(watch)
            connecting = asyncio.create_task(pair.a.connect(pair.b.address))
            there = await pair.b.accept()
            here = await connecting
            pair.there.set(after_s=0.02, is_up=False)  # after the first packet alice falls silent
            writing = asyncio.create_task(sim.transfer(pair, 200_000, ends=(there, here)))
            await asyncio.sleep(7)
            assert 3 <= len(sizes) <= 8
            assert sum(sizes) <= 400
            assert max(sizes) < 150
            pair.there.set(is_up=True)
            await asyncio.sleep(6)
            assert writing.done()
            await writing

    sim.run(main())


@pytest.mark.row("N12")
def test_an_address_that_has_proved_nothing_is_proven_through_loss(sim):
    async def main():
        async with sim.pair(NEAR.replace(loss=0.3), connect_timeout_s=30) as pair:
            pair.net.intercept(translated(pair))
            here, there = await pair.connect()
            await sim.transfer(pair, 50_000, ends=(there, here))

    for seed in range(20):
        sim.run(main(), seed=sim.seed + seed)


@pytest.mark.row("H14", "N2")
def test_a_response_to_several_addresses_proves_none_of_them(sim):
    """The call is answered to the victim first; then the caller's first packet is shown with the victim's address."""

    async def main():
        async with sim.pair(NEAR) as pair:
            victim = Victim(pair.net)
            await call_as_if_from_the_victim(pair)
            assert 0 < victim.got <= victim.sent

    sim.run(main())


@pytest.mark.row("P13")
def test_resets_are_smaller_than_what_causes_them(sim):
    async def main():
        identity = interpeer.Identity.from_seed(bytes(32))
        async with sim.pair(NEAR, b={"identity": identity}) as pair:
            victim, chance = Victim(pair.net), random.Random(sim.seed)
            target = pair.b.address.endpoints[0]
            for size in range(1200):
                pair.net.inject(Packet.of(bytes([0x80 | chance.getrandbits(7)]) + chance.randbytes(size), VICTIM, target))
                await asyncio.sleep(0.2)
            assert 0 < victim.got < victim.sent
            assert pair.b.counters()["resets_sent"] > 0

    sim.run(main())


@pytest.mark.row("P13")
def test_two_nodes_that_have_both_forgotten_do_not_reset_each_other_for_ever(sim):
    async def main():
        one, two = (interpeer.Identity.from_seed(bytes([n]) * 32) for n in (1, 2))
        async with sim.pair(NEAR, a={"identity": one}, b={"identity": two}) as pair:
            source, target = pair.a.address.endpoints[0], pair.b.address.endpoints[0]
            pair.net.inject(Packet.of(bytes([0x80]) * 1200, source, target))
            await asyncio.sleep(60)
            resets = pair.a.counters()["resets_sent"] + pair.b.counters()["resets_sent"]
            assert resets == 1

    sim.run(main())


def test_an_unanswered_call_is_not_held_against_the_node(sim, monkeypatch):
    """A control: the audit can tell a call from an answer, and does raise for the latter."""

    async def main():
        async with sim.pair(NEAR) as pair:
            with pytest.raises(interpeer.Unreachable):
                await pair.a.connect(interpeer.Address.of(pair.b.id, [VICTIM]))
            monkeypatch.setattr(pair.a._driver.audit, "_called", frozenset())
            monkeypatch.setattr(pair.a._driver.audit, "called", lambda target: None)
            await pair.a.connect(interpeer.Address.of(pair.b.id, [VICTIM]))

    with pytest.raises(Amplified):
        sim.run(main())
