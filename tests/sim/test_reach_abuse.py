"""What hostile peers of a network can do to a node by signals: little, and nothing to others (rows N4, N5 and N8)."""

import asyncio
from contextlib import asynccontextmanager

import pytest

import interpeer
from interpeer._address import Endpoint
from interpeer._core import control, legs, signal_handle
from interpeer._reach import signals
from interpeer._reach.relaying import MAX_LEGS_OF_A_PEER, OPENS_BURST, SIGNALLING_BYTES_PER_S, new_leg
from interpeer.testing import Link, Packet, SimNet, run

MAPPED = b"\0" * 10 + b"\xff\xff"
VICTIM = (MAPPED + bytes([203, 0, 113, 9]), 53, 0)


@asynccontextmanager
async def network(net, *names, give=None):
    """A helper, and peers that are connected to it and know nobody else."""
    async with net.host("helper").node(network="test", lan=False, give=give) as helper:
        nodes = [net.host(name).node(network="test", lan=False, bootstrap=[helper.address]) for name in names]
        for node in nodes:
            await node.__aenter__()
            await node.joined()
        await asyncio.sleep(1)
        try:
            yield helper, nodes
        finally:
            for node in nodes:
                await node.close()


def peer_of(node, other):
    """What a node knows of another that it is connected to for the network's sake."""
    return node._reach.peers.find(other.id)


def say(node, other, signal):
    """Say something by hand."""
    data = signal if isinstance(signal, bytes) else signal.pack()
    return signal_handle.send(peer_of(node, other).connection._handle, data)


def in_net(program, **settings):
    async def main():
        await program(SimNet(Link(delay_s=0.01), **settings))

    run(main(), seed=1)


@pytest.mark.row("N5")
def test_a_peer_that_asks_for_many_legs_gets_a_few():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            for _ in range(4):
                for _ in range(20):
                    say(a, helper, signals.Open(new_leg(0), 0, bytes(b.id), b""))
                await asyncio.sleep(0.05)
            assert len(helper.report()["relayed"]) <= OPENS_BURST + 1
            await asyncio.sleep(20)
            for _ in range(40):
                say(a, helper, signals.Open(new_leg(0), 0, bytes(b.id), b""))
                await asyncio.sleep(0.5)
            assert len(helper.report()["relayed"]) <= MAX_LEGS_OF_A_PEER

    in_net(program)


@pytest.mark.row("N5")
def test_nothing_is_relayed_to_who_has_not_registered_nor_to_an_unknown_key_nor_to_oneself():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            peer_of(helper, b).is_registered = False
            for target in (bytes(b.id), bytes(32), bytes(a.id), bytes(helper.id)):
                say(a, helper, signals.Open(new_leg(0), 0, target, b""))
            await asyncio.sleep(1)
            assert helper.report()["relayed"] == [] and helper._reach.relaying.refused == 4

    in_net(program)


def test_what_is_given_is_shared_and_metered_links_carry_signalling_alone():
    async def program(net):
        give = interpeer.Give(relay_bytes_per_s=90_000)
        async with network(net, "a", "b", "c", "d", give=give) as (helper, (a, b, c, d)):
            for caller, called in ((a, b), (c, d), (a, d)):
                say(caller, helper, signals.Open(new_leg(0), 0, bytes(called.id), b""))
            await asyncio.sleep(1)
            assert [pair["bytes_per_s"] for pair in helper.report()["relayed"]] == [30_000] * 3
        async with network(SimNet(Link(), clock=None), "a", "b", give=interpeer.Give(metered=True)) as (helper, (a, b)):
            say(a, helper, signals.Open(new_leg(0), 0, bytes(b.id), b""))
            await asyncio.sleep(1)
            assert [pair["bytes_per_s"] for pair in helper.report()["relayed"]] == [SIGNALLING_BYTES_PER_S]

    in_net(program)


def test_a_leg_id_that_is_taken_or_impossible_is_refused():
    async def program(net):
        async with network(net, "a", "b", "c") as (helper, (a, b, c)):
            leg = new_leg(0)
            say(a, helper, signals.Open(leg, 0, bytes(b.id), b""))
            await asyncio.sleep(0.5)
            say(c, helper, signals.Open(leg, 0, bytes(b.id), b""))
            say(c, helper, signals.Open(5, 0, bytes(b.id), b""))
            say(c, helper, signals.Hangup(leg))  # it is not c's to give up
            await asyncio.sleep(0.5)
            assert [pair["a"] for pair in helper.report()["relayed"]] == [str(a.id)]

    in_net(program)


def test_offers_that_nobody_uses_are_forgotten():
    async def program(net):
        async with network(net, "a") as (helper, (a,)):
            for number in range(200):
                say(helper, a, signals.Offer(new_leg(0), bytes([number]) * 32, None, b""))
                await asyncio.sleep(0.02)
            assert len(a._reach.legs._by_id) <= 128
            await asyncio.sleep(60)
            assert a._reach.legs._by_id == {} and legs.pairs(a._engines[0]) == []

    in_net(program)


def test_signals_that_cannot_be_read_or_make_no_sense_change_nothing():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            for data in (b"", b"\x01", b"\xff" * 40, signals.Open(1, 0, bytes(32), b"").pack()[:-1], bytes([3]) + bytes(1000)):
                say(a, helper, data)
            say(a, helper, signals.Opened(77, signals.OPENED, 1, VICTIM, b""))
            say(a, helper, signals.Candidates(1, True, bytes(8), bytes(8), bytes(32), bytes(32), b"", ()))
            await asyncio.sleep(1)
            connection = await a.connect(b.id)
            assert connection.is_open

    in_net(program)


@pytest.mark.row("N4")
def test_probes_go_to_who_asks_and_never_faster_than_they_are_paid_for():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, _)):
            await asyncio.sleep(10)  # until the surveys are over
            sent = []
            net.observe(lambda fate: sent.append(fate) if fate.payload_bytes == 64 else None)
            for how in (signals.SAME_PORT, signals.OTHER_PORT, signals.OTHER_PEER, 77):
                for _ in range(30):
                    say(a, helper, signals.ProbeRequest(bytes(8), how, 0, 4000))
                    await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            asker = {endpoint.host for endpoint in a._driver.endpoints}
            assert {fate.target.host for fate in sent} <= asker
            assert 0 < len(sent) <= 45

    in_net(program)


@asynccontextmanager
async def shown(net, token=b"shown ok"):
    """A helper that waits for a node to show it its IPv4 address, the node, a function that shows it, and packets of probes."""
    async with network(net, "a") as (helper, (a,)):
        await asyncio.sleep(10)  # until the surveys are over
        sent = []
        net.observe(lambda fate: sent.append(fate) if fate.payload_bytes == 64 else None)
        say(a, helper, signals.ProbeRequest(token, signals.SHOWN, 0, 0))
        await asyncio.sleep(0.1)
        at = next(one for one in helper._driver.endpoints if ":" not in one.host).to_core()

        async def show():
            control.send_raw(a._engines[0], (b"\x45\x01" + token).ljust(64, b"\0"), at, bytes(16))
            await asyncio.sleep(0.1)

        yield helper, a, show, sent


@pytest.mark.row("N4")
@pytest.mark.spec("NB-11")
def test_an_address_that_is_shown_is_answered_a_few_times_with_what_was_sent_to_it():
    async def program(net):
        async with shown(net) as (_, a, show, sent):
            for _ in range(10):
                await show()
            mine = {one.host for one in a._driver.endpoints}
            answers = [fate for fate in sent if fate.target.host in mine]
            assert len(answers) == 4 and len(sent) == 14

    in_net(program)


@pytest.mark.row("N4")
@pytest.mark.spec("NB-11")
def test_an_address_is_not_awaited_for_long():
    async def program(net):
        async with shown(net) as (_, _, show, sent):
            await asyncio.sleep(5)
            await show()
            assert len(sent) == 1

    in_net(program)


@pytest.mark.row("N4")
@pytest.mark.spec("NB-11")
@pytest.mark.parametrize("knows", [False, True], ids=["without what was sent there", "with what was sent there"])
def test_an_address_that_was_shown_counts_if_the_cookie_was_received_there(knows):
    async def program(net):
        async with shown(net) as (helper, a, show, sent):
            peer = peer_of(helper, a)
            peer.shown = None
            await show()
            ((cookie, at),) = helper._reach._helper._shown.values()
            sent.clear()
            for guess in (cookie if knows else bytes([1] * 8), bytes([255] * 8)):
                for origin in (signals.SAME_PORT, signals.SHOWN):
                    say(a, helper, signals.ProbeRequest(bytes(8), origin, 0, 4000, guess))
            await asyncio.sleep(0.1)
            targets = [(fate.target.host, fate.target.port) for fate in sent]
            assert targets == ([(Endpoint.from_core(at).host, 4000)] if knows else [])
            assert peer.shown == (at if knows else None)

    in_net(program)


def test_a_relay_tells_each_the_address_of_the_family_that_it_has_itself():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        async with network(net, "dual") as (helper, (dual,)):
            hosts = net.host("old", "11.9.9.1"), net.host("new", "2000:99::1")
            old, new = [host.node(network="test", lan=False, bootstrap=[helper.address]) for host in hosts]
            async with old, new:
                await asyncio.gather(old.joined(), new.joined())
                await asyncio.sleep(3)
                heard = []
                dual._reach.legs.handle_offer = lambda relay, offer: heard.append(offer.attested)
                for caller in (old, new):
                    answers = []
                    caller._reach.legs.open(peer_of(caller, helper), dual.id, answers.append)
                    await asyncio.sleep(0.5)
                    heard.append(answers[0].attested)
                hosts = [Endpoint.from_core(one).host for one in heard]
                mine = [next(iter(e.host for e in dual._driver.endpoints if (":" in e.host) == is_6)) for is_6 in (False, True)]
                assert hosts == ["11.9.9.1", mine[0], "2000:99::1", mine[1]]
                # and later, when it was not known in time
                peer, leg = peer_of(helper, dual), next(iter(old._reach.legs._by_id.values()))
                leg.attested, told = None, []
                old._reach.on_opened = lambda connection, leg: told.append((connection, leg.attested))
                leg.users.add("a connection")
                helper._reach.relaying.handle_shown(peer)
                await asyncio.sleep(0.5)
                assert told == [("a connection", peer.shown)] and Endpoint.from_core(peer.shown).host == mine[0]
                leg.users.clear()

    run(main(), seed=1)


@pytest.mark.row("N4")
def test_nobody_takes_over_a_token_that_is_waited_for():
    async def program(net):
        async with network(net, "a") as (helper, (a,)):
            await asyncio.sleep(10)
            heard = []
            helper._expected.add(b"expected", lambda *it: heard.append(it))
            say(a, helper, signals.ProbeRequest(b"expected", signals.SHOWN, 0, 0))
            await asyncio.sleep(10)
            at = next(one for one in helper._driver.endpoints if ":" not in one.host).to_core()
            control.send_raw(a._engines[0], (b"\x45\x01expected").ljust(64, b"\0"), at, bytes(16))
            await asyncio.sleep(0.1)
            assert len(heard) == 1
            helper._expected.remove(b"expected")

    in_net(program)


@pytest.mark.row("N4")
def test_an_order_to_probe_does_not_reach_into_the_network_of_who_is_asked():
    async def program(net):
        async with network(net, "a") as (helper, (a,)):
            sent = []
            net.observe(lambda fate: sent.append(fate) if fate.payload_bytes == 64 else None)
            for packed in ((10, 0, 0, 1), (192, 168, 1, 1), (127, 0, 0, 1)):
                say(helper, a, signals.ProbeOrder(bytes(8), (MAPPED + bytes(packed), 80, 0)))
            say(helper, a, signals.ProbeOrder(bytes(8), (MAPPED + bytes([15, 0, 0, 1]), 0, 0)))
            await asyncio.sleep(1)
            assert sent == []

    in_net(program)


@pytest.mark.row("N8")
def test_probes_and_answers_of_stun_that_nobody_asked_for_do_nothing():
    async def program(net):
        async with network(net, "a") as (helper, (a,)):
            before = a.counters()
            at, source = a._driver.endpoints[0], helper._driver.endpoints[0]
            for data in (b"\x45\x01" + bytes(62), b"\x46\x01" + bytes(62), b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)):
                net.inject(Packet.of(data, source, at))
            await asyncio.sleep(1)
            after = a.counters()
            assert sum(after[name] - before[name] for name in after if name.startswith("dropped")) >= 3

    in_net(program)


def test_one_observer_that_lies_among_three_is_not_believed():
    async def program(net):
        helpers = [net.host(f"helper{i}").node(network="test", lan=False) for i in range(3)]
        for helper in helpers:
            await helper.__aenter__()
        async with net.host("a").node(network="test", lan=False, bootstrap=[one.address for one in helpers]) as a:
            await a.joined()
            await asyncio.sleep(2)
            truth = a._reach.addresses.reflexive()
            liar = helpers[0].id
            a._reach.addresses._seen[liar] = (VICTIM, a._reach.addresses._seen[liar][1])
            assert VICTIM not in {endpoint.to_core() for endpoint in a._reach.addresses.reflexive()}
            assert set(a._reach.addresses.reflexive()) == set(truth)
        for helper in helpers:
            await helper.close()

    in_net(program)
