"""What a peer can cause is bounded, and what nobody needs any more is let go of."""

import asyncio

import pytest

import interpeer
from interpeer import errors
from interpeer._address import Endpoint
from interpeer._core import legs
from interpeer._nat import NatReport
from interpeer._reach import moving, peers, probing, punching, signals
from interpeer._reach.legbook import MAX_OFFERED, MAX_OFFERED_BY_ONE
from interpeer._reach.relaying import ALL_SIGNALLING_BYTES_PER_S, new_leg
from interpeer._reach.surveying import facts_of
from interpeer.testing import Link, NatKind, SimNet, run
from tests.sim.test_reach import meet
from tests.sim.test_reach_abuse import MAPPED, VICTIM, in_net, network, peer_of, say

NOBODY = interpeer.Identity.from_seed(bytes(32)).id


# --- attempts ---


@pytest.mark.row("N4")
@pytest.mark.spec("PU-37")
def test_a_peer_that_begins_one_attempt_after_another_has_few_probes_sent():
    async def program(meeting):
        accepting = asyncio.create_task(meeting.b.accept())
        connection = await meeting.a.connect(meeting.b.id)
        victim = await accepting
        sent = []
        meeting.net.observe(lambda fate: sent.append(fate) if fate.target.host == "203.0.113.9" else None)
        for number in range(1, 601):
            told = signals.Candidates(
                1000 + number, True, number.to_bytes(8, "big"), bytes(8), number.to_bytes(32, "big"), bytes(32), b"",
                tuple((signals.REFLEXIVE, (VICTIM[0], 1000 + n, 0)) for n in range(4)),
            )  # fmt: skip
            meeting.b._reach._movers[victim].on_candidates(told)
            await asyncio.sleep(0.05)
        assert 0 < 64 * len(sent) <= 4800 + 30 * 240
        assert connection.is_open

    meet(NatKind.SYMMETRIC, NatKind.SYMMETRIC, program)


@pytest.mark.spec("PU-37")
def test_more_attempts_than_are_followed_are_not_answered():
    async def program(meeting):
        accepting = asyncio.create_task(meeting.b.accept())
        await meeting.a.connect(meeting.b.id)
        mover = meeting.b._reach._movers[await accepting]
        await asyncio.sleep(60)
        followed = []
        mover._follow = followed.append
        for number in range(100):
            told = signals.Candidates(1000 + number, True, bytes(8), bytes(8), bytes(32), bytes(32), b"", ())
            mover.on_candidates(told)
            await asyncio.sleep(0.1)
        assert 5 <= len(followed) <= 5 + 10 / 2 + 1

    meet(NatKind.SYMMETRIC, NatKind.SYMMETRIC, program)


def test_an_attempt_that_has_found_a_pair_answers_for_a_while_and_then_waits_for_nothing():
    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        await meeting.until_direct(connection, within_s=3)
        assert meeting.a._expected and meeting.b._expected
        await asyncio.sleep(punching.ANSWERS_S + 1)
        assert len(meeting.a._expected) == len(meeting.b._expected) == 0

    meet(NatKind.PORT, NatKind.PORT, program)


def test_more_attempts_than_a_node_has_room_for_fail_with_a_reason():
    async def program(meeting):
        taken = []
        with pytest.raises(errors.LocalError):
            for number in range(10_000):
                token = number.to_bytes(8, "big")
                meeting.a._expected.add(token, lambda *_: None)
                taken.append(token)
        connection = await meeting.a.connect(meeting.b.id)
        path = await connection.wait_direct()
        assert path.kind == "relayed" and "as many peers" in path.reasons[0]
        for token in taken:
            meeting.a._expected.remove(token)
        await meeting.until_direct(connection, within_s=30)

    meet(NatKind.PORT, NatKind.PORT, program)


def test_sockets_that_no_path_takes_are_closed_after_a_while():
    async def program(meeting):
        accepting = asyncio.create_task(meeting.b.accept())
        connection = await meeting.a.connect(meeting.b.id)
        there = await accepting
        meeting.a._reach._movers[connection]._begin_path = lambda *_: None  # who leads never opens the path
        mover = meeting.b._reach._movers[there]
        deadline_s = meeting.net.clock.now_s + 20
        while not mover._adopted:
            assert meeting.net.clock.now_s < deadline_s
            await asyncio.sleep(0.05)
        await asyncio.sleep(moving.ADOPTED_WAIT_S + 1)
        assert mover._adopted == {} and meeting.b._driver.can_adopt

    meet(NatKind.PORT, NatKind.SYMMETRIC, program)


def test_a_direct_path_tells_why_it_is_not_a_better_one():
    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        await meeting.until_direct(connection, within_s=3)
        await asyncio.sleep(1)
        (reason,) = connection.path.reasons
        assert reason.startswith("192.168.1.10:") and "(host): no answer to" in reason

    meet(NatKind.PORT, NatKind.PORT, program)


@pytest.mark.parametrize(("is_disputed", "preserves", "told"), [
    (True, False, "address-and-port-dependent"), (False, False, "endpoint-independent"), (True, True, "endpoint-independent"),
])  # fmt: skip
def test_observers_that_agree_may_have_seen_the_same_port_by_chance(is_disputed, preserves, told):
    report = NatReport(mapping="endpoint-independent", preserves_port=preserves, is_disputed=is_disputed, udp=True)
    assert facts_of(report, 0, 0).mapping == told


# --- relays ---


@pytest.mark.row("N5")
@pytest.mark.spec("RE-10")
def test_all_pairs_together_have_what_is_given_or_what_signalling_needs():
    async def program(net):
        give = interpeer.Give(metered=True)
        async with network(net, *(f"n{i}" for i in range(8)), give=give) as (helper, nodes):
            total = []
            net_set_total = legs.set_total
            legs.set_total = lambda core, rate, burst: (total.append(rate), net_set_total(core, rate, burst))
            try:
                for i, caller in enumerate(nodes):
                    for called in nodes[i + 1 :]:
                        say(caller, helper, signals.Open(new_leg(0), 0, bytes(called.id), b""))
                        await asyncio.sleep(0.3)
            finally:
                legs.set_total = net_set_total
            assert len(helper.report()["relayed"]) == 28
            assert total[-1] == ALL_SIGNALLING_BYTES_PER_S < 28 * 4000

    in_net(program)


def test_a_pair_that_was_just_joined_is_not_taken_for_idle():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            say(a, helper, signals.Open(new_leg(0), 0, bytes(b.id), b""))
            await asyncio.sleep(0.1)
            for later_s, left in ((59, 1), (61, 0)):  # and nothing was ever sent on it
                helper._reach.relaying.expire(round((net.clock.now_s + later_s) * 1e9))
                assert len(helper.report()["relayed"]) == left

    in_net(program)


def test_an_offer_that_cannot_be_made_is_answered_as_full():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            while say(helper, b, b"\xff"):  # until nothing more can wait for b
                pass
            answers = []
            a._reach.legs.handle_opened = lambda relay, answer: answers.append(answer.status)
            say(a, helper, signals.Open(new_leg(0), 0, bytes(b.id), b""))
            await asyncio.sleep(0.02)
            assert helper.report()["relayed"] == []
            await asyncio.sleep(1)
            assert answers == [signals.FULL]

    in_net(program)


@pytest.mark.row("N5")
def test_one_relay_cannot_keep_out_the_calls_that_come_by_others():
    async def program(net):
        async with network(net, "a") as (helper, (a,)):
            for number in range(MAX_OFFERED):
                say(helper, a, signals.Offer(new_leg(0), bytes([number]) * 32, None, b""))
                await asyncio.sleep(0.02)
            assert len(a._reach.legs._by_id) == MAX_OFFERED_BY_ONE

    in_net(program)


@pytest.mark.parametrize("how", ["hangup", "silence"])
def test_who_has_asked_for_a_leg_hears_that_it_is_gone(how):
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            helper._reach.relaying.handle_open = lambda *_: None  # a relay that does not answer
            answers = []
            leg = a._reach.legs.open(peer_of(a, helper), b.id, answers.append)
            await asyncio.sleep(0.5)
            if how == "hangup":
                say(helper, a, signals.Hangup(leg.id))
            await asyncio.sleep(1 if how == "hangup" else 60)
            assert [one.status for one in answers] == [signals.REFUSED] and a._reach.legs._answered == {}

    in_net(program)


def test_a_second_relay_is_found_though_the_first_one_asked_does_not_know_the_peer():
    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        used = connection.path.relay
        asked_next = next(peer.peer_id for peer in meeting.a._reach.peers if peer.peer_id != used)
        (helper,) = [one for one in meeting.helpers if one.id == asked_next]
        peer_of(helper, meeting.b).is_registered = False
        await asyncio.sleep(10)
        (third,) = {one.id for one in meeting.helpers} - {used, asked_next}
        assert {leg.relay.peer_id for leg in meeting.a._reach._movers[connection]._legs} == {used, third}

    meet(NatKind.SYMMETRIC, NatKind.SYMMETRIC, program)


# --- peers ---


def test_two_that_keep_each_other_come_together_again():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        first = net.host("a").node(network="test", lan=False, listen="[::]:4000")
        async with first as a:
            async with net.host("b").node(network="test", lan=False, bootstrap=[a.address]) as b:
                a._reach.peers.keep(b.address)  # both call at once
                await asyncio.sleep(2)
                for _ in range(3):
                    peer_of(a, b).connection._handle.close(0, b"")
                    await asyncio.sleep(30)
                    assert peer_of(a, b) is not None and peer_of(b, a) is not None
                assert not a._reach.peers._keepers[b.id].done() and not b._reach.peers._keepers[a.id].done()

    run(main(), seed=1)


def test_a_peer_that_accepts_and_closes_is_called_ever_less_often():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        async with net.host("full").node(network="test", lan=False) as full:
            calls = []

            def refuse(connection):
                calls.append(connection.peer_id)
                connection._handle.close(0, b"no room")

            full._reach.peers.add = refuse
            async with net.host("a").node(network="test", lan=False, bootstrap=[full.address]) as a:
                await asyncio.sleep(600)
                assert 5 < len(calls) < 40
                assert a._reach.peers.find(full.id) is None

    run(main(), seed=1)


@pytest.mark.row("N4")
def test_peers_that_strangers_name_are_few_and_called_a_few_times():
    async def program(net):
        async with network(net, "a") as (_, (a,)):
            for number in range(200):
                stranger = interpeer.Identity.from_seed(number.to_bytes(32, "big")).id
                a._reach.peers.meet(interpeer.Address.of(stranger, [Endpoint("198.51.100.7", 4000 + number)]))
            assert len(a._reach.peers._keepers) == 1 + peers.MAX_PASSING
            await asyncio.sleep(60)
            assert list(a._reach.peers._keepers) == [peer.peer_id for peer in a._reach.peers]
            assert a._reach.peers.failures == {} and len(a._reach.peers._addresses) == 1

    in_net(program)


# --- probes ---


@pytest.mark.row("N4")
@pytest.mark.spec("NB-12")
@pytest.mark.parametrize("at", ["224.0.0.251", "0.0.0.0", "240.0.0.1", "10.0.0.1", "127.0.0.1"])
def test_an_order_to_probe_is_for_one_machine_outside(at):
    async def program(net):
        async with network(net, "a") as (helper, (a,)):
            await asyncio.sleep(10)
            sent = []
            net.observe(lambda fate: sent.append(fate) if fate.payload_bytes == probing.PROBE_BYTES else None)
            say(helper, a, signals.ProbeOrder(bytes(8), Endpoint(at, 80).to_core()))
            await asyncio.sleep(1)
            assert sent == []

    in_net(program)


@pytest.mark.row("N4")
@pytest.mark.spec("SG-10")
@pytest.mark.parametrize("address", [(MAPPED + bytes([15, 0, 0, 1]), 0, 0), (b"\1" + bytes(7) + b"\1" * 8, 80, 0)])
def test_signals_with_an_address_that_nobody_has_are_ignored(address):
    for signal in (
        signals.ProbeOrder(bytes(8), address),
        signals.Opened(1, signals.OPENED, 1, address, b""),
        signals.Offer(1, bytes(32), address, b""),
    ):
        with pytest.raises(signals.MalformedSignalError):
            signals.parse(signal.pack())


@pytest.mark.row("N4")
def test_probes_for_later_are_few_for_each_peer_and_end_with_it():
    async def program(net):
        async with network(net, "a", "b") as (helper, (a, b)):
            await asyncio.sleep(10)
            for _ in range(100):
                say(a, helper, signals.ProbeRequest(bytes(8), signals.SAME_PORT, 200_000, 4000))
                await asyncio.sleep(0.6)
            pending = helper._reach._helper._pending
            assert {peer_id: len(timers) for peer_id, timers in pending.items()} == {a.id: probing.MAX_PENDING}
            sent = []
            net.observe(lambda fate: sent.append(fate) if fate.payload_bytes == probing.PROBE_BYTES else None)
            say(b, helper, signals.ProbeRequest(bytes(8), signals.SAME_PORT, 0, 4000))
            await asyncio.sleep(1)
            assert len(sent) == 1
            await a.close()
            await asyncio.sleep(1)
            assert pending == {}

    in_net(program)


# --- mistakes ---


def test_a_mistake_in_one_event_does_not_lose_the_others():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        problems = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context["exception"]))
        async with network(net, "a", "b") as (_, (a, b)):

            def fail(*_args, **_more):
                raise RuntimeError("a mistake")

            a._reach.on_connected = b._reach.on_connected = fail
            connection = await a.connect(b.address)
            accepted = await b.accept()
            assert connection.peer_id == b.id and accepted.peer_id == a.id
            assert [str(problem) for problem in problems] == ["a mistake"] * 2

    run(main(), seed=1)
