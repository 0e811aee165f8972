"""Reaching peers behind NATs through peers that both know, in simulated time: the production code from end to end."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from interpeer import PathChanged, errors
from interpeer.testing import Link, NatKind, SimNet, run

LINK = Link(delay_s=0.015)
HELPERS = 3


class Meeting:
    """Public peers, and two nodes behind NATs that know them."""

    def __init__(self, net, helpers, a, b):
        self.net, self.helpers, self.a, self.b = net, helpers, a, b

    async def until_direct(self, connection, within_s):
        """Wait until the connection has a direct path; return how long it took."""
        start_s = self.net.clock.now_s
        while connection.path.kind == "relayed":
            assert self.net.clock.now_s < start_s + within_s, connection.path.reasons
            await asyncio.sleep(0.01)
        return self.net.clock.now_s - start_s


def meet(kind_a, kind_b, program, *, link=LINK, helpers=HELPERS, seed=1, **settings):
    """Run a program with two nodes behind NATs of these kinds that have joined a network."""

    async def main():
        net = SimNet(link)
        async with AsyncExitStack() as stack:

            async def node(host, **more):
                return await stack.enter_async_context(host.node(network="test", lan=False, **more, **settings))

            peers = [await node(net.host(f"helper{i}")) for i in range(helpers)]
            bootstrap = [peer.address for peer in peers]
            b = await node(net.host("b", nat=kind_b), bootstrap=bootstrap)
            a = await node(net.host("a", nat=kind_a), bootstrap=bootstrap)
            await asyncio.gather(a.joined(), b.joined())
            await asyncio.sleep(1.5)  # until the NATs are known
            return await program(Meeting(net, peers, a, b))

    return run(main(), seed=seed)


async def echo(node):
    """Send one stream's bytes back."""
    connection = await node.accept()
    stream = await connection.accept_stream()
    while data := await stream.read(65_536):
        await stream.write(data)
    await stream.finish()
    return connection


EASY = [("port", "port"), ("linux", "linux"), ("firewall", "symmetric-ei"), ("symmetric", "fullcone")]
HARD = [("symmetric", "port"), ("port", "symmetric"), ("symmetric-seq", "port")]


@pytest.mark.parametrize("kinds", EASY + HARD)
def test_two_nodes_behind_nats_meet_through_a_third_and_go_direct(kinds):
    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        assert connection.path.kind in ("relayed", "direct")
        assert await meeting.until_direct(connection, within_s=3) < 3
        assert connection.path.detail

    meet(*map(NatKind, kinds), program)


@pytest.mark.parametrize("told", [True, False])
def test_two_known_blocks_meet_if_nodes_are_told_to_try(monkeypatch, told):
    if told:
        monkeypatch.setenv("INTERPEER_EXPERIMENTS", "blocks")

    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        if told:
            await meeting.until_direct(connection, within_s=30)  # the first guess may fail
        else:
            path = await connection.wait_direct()
            assert path.kind == "relayed" and any("both" in reason for reason in path.reasons), path.reasons

    meet(NatKind.SYMMETRIC_BLOCK, NatKind.SYMMETRIC_BLOCK, program)


def test_a_node_that_has_joined_is_reached_at_once_and_names_who_knows_it():
    async def main():
        net = SimNet(LINK)
        async with net.host("helper").node(network="test", lan=False) as helper:
            behind = {"network": "test", "lan": False}
            b = net.host("b", nat=NatKind.PORT).node(**behind, bootstrap=[helper.address])
            a = net.host("a", nat=NatKind.PORT).node(**behind)
            async with a, b:
                await b.joined()
                assert [one.peer_id for one in b.address.via] == [helper.id]
                connection = await a.connect(str(b.address))
                assert connection.peer_id == b.id

    run(main(), seed=1)


def test_the_first_byte_goes_through_the_relay_within_two_and_a_half_round_trips():
    async def program(meeting):
        answering = asyncio.create_task(echo(meeting.b))
        start_s = meeting.net.clock.now_s
        connection = await meeting.a.connect(meeting.b.id)
        stream = await connection.open_stream()
        await stream.write(b"hello")
        assert await stream.readexactly(5) == b"hello"
        # a round trip between a and b through the relay is 60 ms: two wires each way
        assert meeting.net.clock.now_s - start_s <= 2.5 * 0.060
        await stream.finish()
        await answering

    meet(NatKind.PORT, NatKind.PORT, program)


def test_nothing_is_lost_when_a_transfer_moves_to_the_direct_path():
    data = bytes(range(256)) * 8000

    async def program(meeting):
        preferred = []

        async def listen():
            async for event in meeting.a.events():
                match event:
                    case PathChanged(what="preferred"):
                        preferred.append((event.path, event.reason))

        listening = asyncio.create_task(listen())
        answering = asyncio.create_task(echo(meeting.b))
        connection = await meeting.a.connect(meeting.b.id)
        stream = await connection.open_stream()

        async def send():
            await stream.write(data)
            await stream.finish()

        sending = asyncio.create_task(send())
        got = bytearray()
        while part := await stream.read(65_536):
            got += part
        await sending
        await answering
        assert bytes(got) == data
        assert connection.path.kind == "direct"
        assert preferred == [(2, "the other one is relayed, in a tunnel or standby")]
        listening.cancel()

    meet(NatKind.PORT, NatKind.PORT, program)


def test_two_symmetric_nats_stay_on_the_relay_and_say_why():
    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        await asyncio.sleep(5)
        path = connection.path
        assert path.kind == "relayed"
        assert path.relay in {helper.id for helper in meeting.helpers}
        assert path.reasons

    meet(NatKind.SYMMETRIC, NatKind.SYMMETRIC, program)


def test_an_unknown_peer_is_unreachable_with_a_reason_for_each_helper():
    async def program(meeting):
        stranger = meeting.net.host("stranger")
        async with stranger.node(network="test", lan=False) as nobody_knows:
            with pytest.raises(errors.Unreachable) as caught:
                await meeting.a.connect(nobody_knows.id)
        assert len([reason for reason in caught.value.reasons if "does not know the peer" in reason]) == HELPERS

    meet(NatKind.PORT, NatKind.PORT, program)


def test_a_dying_relay_is_replaced_by_another_within_three_seconds():
    async def program(meeting):
        answering = asyncio.create_task(echo(meeting.b))
        connection = await meeting.a.connect(meeting.b.id)
        stream = await connection.open_stream()
        await asyncio.sleep(4)
        used = connection.path.relay
        dead = next(helper for helper in meeting.helpers if helper.id == used)
        dead._host.unplug()
        start_s = meeting.net.clock.now_s
        await stream.write(b"still there?")
        assert await stream.readexactly(12) == b"still there?"
        assert meeting.net.clock.now_s - start_s < 3
        await stream.finish()
        await answering

    meet(NatKind.SYMMETRIC, NatKind.SYMMETRIC, program)


def test_two_runs_with_one_seed_are_one_run():
    async def program(meeting):
        connection = await meeting.a.connect(meeting.b.id)
        await meeting.until_direct(connection, within_s=10)
        await asyncio.sleep(3)
        return meeting.net.digest()

    assert meet(NatKind.PORT, NatKind.SYMMETRIC, program) == meet(NatKind.PORT, NatKind.SYMMETRIC, program)
