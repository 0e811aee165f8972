"""interpeer.testing's NATs that forget: packets come from elsewhere, and what goes to the old place vanishes."""

import asyncio

import pytest

import interpeer
from interpeer.testing import Link, SimClock, SimNet, run
from interpeer.testing._port import Port


class Talk:
    """A host behind a NAT that calls, and one that answers to wherever a packet came from."""

    def __init__(self, *addresses):
        self.net = SimNet(Link(delay_s=0.01), seed=1, clock=SimClock())
        self.a, self.b = self.net.host("a", *addresses[:1]), self.net.host("b", *addresses[1:])
        self.answers, self.seen = 0, []
        family = self.b.packed_addresses[0], 0, 0
        self.near = Port(self.a, lambda packet: self._answered(), family_of=family)
        self.far = Port(self.b, self._arrived, family_of=family)

    def _answered(self):
        self.answers += 1

    def _arrived(self, packet):
        self.seen.append(packet.core_source)
        self.far.send(b"answer", packet.core_source)

    def call(self):
        self.near.send(b"question", self.far.endpoint)
        self.net.clock.advance_s(0.1)
        return self.seen[-1]


@pytest.mark.parametrize("addresses", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_packets_come_from_another_port_and_answers_still_arrive(addresses):
    talk = Talk(*addresses)
    first = talk.call()
    assert first == talk.call() == talk.near.endpoint
    talk.a.rebind()
    second = talk.call()
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert talk.call() == second
    assert talk.answers == 4


@pytest.mark.parametrize("addresses", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_packets_come_from_another_address_and_answers_still_arrive(addresses):
    talk = Talk(*addresses)
    places = [talk.call()]
    for _ in range(3):
        talk.a.rebind(address=True)
        places.append(talk.call())
    assert len({address for address, _port, _scope in places}) == 4
    assert talk.answers == 4
    assert talk.a.addresses == addresses[:1]


def test_what_is_sent_to_the_old_place_vanishes():
    talk = Talk()
    for settings in ({}, {"address": True}, {"address": True}):
        before = talk.call()
        talk.far.send(b"on its way", before)
        talk.net.clock.advance_s(0.005)
        answers = talk.answers
        talk.a.rebind(**settings)
        talk.net.clock.advance_s(0.1)
        talk.far.send(b"later", before)
        talk.net.clock.advance_s(0.1)
        assert talk.answers == answers
    assert talk.net.counters["not mapped"] + talk.net.counters["nobody there"] == 6


def test_rebinding_again_and_again_ends_when_it_is_told_to():
    talk = Talk()
    stop = talk.a.rebind(after_s=1.05, every_s=5)
    places = []
    for _ in range(200):
        place = talk.call()
        if place not in places:
            places.append(place)
    assert len(places) == 1 + 4  # at 1, 6, 11 and 16 s
    stop()
    for _ in range(100):
        assert talk.call() == places[-1]
    with pytest.raises(ValueError, match="more than 0"):
        talk.a.rebind(every_s=0)


def test_two_ports_of_a_host_stay_two():
    talk = Talk()
    other = Port(talk.a, lambda packet: None, family_of=talk.far.endpoint)
    talk.a.rebind()
    first = talk.call()
    other.send(b"question", talk.far.endpoint)
    talk.net.clock.advance_s(0.1)
    assert talk.seen[-1] != first
    assert talk.call() == first


def test_a_node_behind_a_nat_that_forgets_can_be_called_again_by_nobody_and_calls_as_before():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        alice, bob = net.host("alice"), net.host("bob")
        async with alice.node() as a, bob.node() as b:
            alice.rebind(address=True)
            async with a.connect(b.address):
                there = await b.accept()
                assert there.path.remote.host not in alice.addresses
            with pytest.raises(interpeer.Unreachable):
                await b.connect(a.address)
            await asyncio.sleep(0)

    run(main(), seed=1)
