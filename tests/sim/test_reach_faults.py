"""What happens to a running transfer when the network around it changes: it goes on within three seconds, with nothing lost."""

import asyncio
import itertools

import pytest

from interpeer.testing import NatKind
from tests.sim.test_reach import echo, meet

PART = bytes(range(256)) * 4
EVERY_S = 0.05
MOST_S = 3.0
WARM_UP_S, AFTER_S = 4.0, 8.0
IP_AND_UDP_BYTES = 28


def is_between_homes(meeting, packet):
    """Tell whether a packet, or its fate, has no helper at either end."""
    helpers = {host for helper in meeting.helpers for host in helper._host.addresses}
    return not helpers & {packet.source.host, packet.target.host}


class Flow:
    """Numbered parts from one node to another, a part every 50 ms; `gap_s` is the longest time between two arrivals."""

    def __init__(self, meeting, warm_up_s=WARM_UP_S, most_s=MOST_S):
        self.meeting = meeting
        self.warm_up_s = warm_up_s
        self.most_s = most_s
        self.received = 0
        self.gap_s = 0.0
        self.last_s = None

    async def __aenter__(self):
        self.taking = asyncio.create_task(self._take())
        self.connection = await self.meeting.a.connect(self.meeting.b.id)
        self.stream = await self.connection.open_stream()
        self.sending = asyncio.create_task(self._send())
        await asyncio.sleep(self.warm_up_s)
        self.gap_s = 0.0
        return self

    async def _send(self):
        self.sent = 0
        while True:
            await self.stream.write(self.sent.to_bytes(4, "big") + PART)
            self.sent += 1
            await asyncio.sleep(EVERY_S)

    async def _take(self):
        connection = await self.meeting.b.accept()
        self.theirs = connection
        stream = await connection.accept_stream()
        while True:
            part = await stream.readexactly(4 + len(PART))
            assert part == self.received.to_bytes(4, "big") + PART
            self.received += 1
            now_s = self.meeting.net.clock.now_s
            if self.last_s is not None:
                self.gap_s = max(self.gap_s, now_s - self.last_s)
            self.last_s = now_s

    async def __aexit__(self, kind, *_):
        if kind is None:
            await asyncio.sleep(AFTER_S)
            assert not self.taking.done() and not self.sending.done()
            assert self.sent - self.received <= 4, "data does not flow"
            assert self.gap_s < self.most_s
        for task in (self.sending, self.taking):
            task.cancel()
        await asyncio.gather(self.sending, self.taking, return_exceptions=True)


def a_side(meeting):
    return meeting.a._host


def b_side(meeting):
    return meeting.b._host


@pytest.mark.parametrize("side", [a_side, b_side])
@pytest.mark.parametrize("kind", ["port", "symmetric-ei", "linux"])
def test_a_nat_that_reboots_interrupts_a_direct_path_for_less_than_three_seconds(kind, side):
    async def program(meeting):
        async with Flow(meeting) as flow:
            assert flow.connection.path.kind == "direct"
            side(meeting).router.flush()

    meet(NatKind(kind), NatKind.PORT, program)


@pytest.mark.parametrize("side", [a_side, b_side])
def test_a_nat_that_gets_another_address_interrupts_for_less_than_three_seconds(side):
    async def program(meeting):
        async with Flow(meeting):
            side(meeting).router.renumber()

    meet(NatKind.PORT, NatKind.PORT, program)


@pytest.mark.parametrize("side", [a_side, b_side])
def test_a_host_that_roams_to_another_network_goes_on(side):
    async def program(meeting):
        other = meeting.net.router("other", NatKind.PORT, lan="10.9.8.0/24")
        async with Flow(meeting):
            side(meeting).move_to(other)

    meet(NatKind.PORT, NatKind.PORT, program)


def test_after_all_that_the_path_is_direct_again():
    async def program(meeting):
        async with Flow(meeting) as flow:
            meeting.a._host.router.renumber()
            await asyncio.sleep(20)
            assert flow.connection.path.kind == "direct"

    meet(NatKind.PORT, NatKind.PORT, program)


def test_when_the_direct_path_dies_the_relay_carries_on_and_direct_is_tried_again():
    async def program(meeting):
        async with Flow(meeting) as flow:
            assert flow.connection.path.kind == "direct"
            stop = meeting.net.intercept(lambda packet: () if is_between_homes(meeting, packet) else None)
            await asyncio.sleep(5)
            assert flow.connection.path.kind == "relayed"
            stop()
            await asyncio.sleep(60)
            assert flow.connection.path.kind == "direct"

    meet(NatKind.PORT, NatKind.PORT, program)


def test_an_idle_connection_outlives_mappings_of_twenty_seconds_and_says_little():
    async def program(meeting):
        homes = [meeting.a._host.router, meeting.b._host.router]
        for home in homes:
            home.set(lifetime_s=20.0)
        echoing = asyncio.create_task(echo(meeting.b))
        connection = await meeting.a.connect(meeting.b.id)
        stream = await connection.open_stream()
        await stream.write(b"before")
        assert await stream.readexactly(6) == b"before"
        await asyncio.sleep(10)
        assert connection.path.kind == "direct"
        said = 0

        def count(fate):
            nonlocal said
            if is_between_homes(meeting, fate):
                said += fate.payload_bytes + IP_AND_UDP_BYTES

        meeting.net.observe(count)
        await asyncio.sleep(60)
        assert 0 < said / 60 <= 20, "bytes a second both ways that keep an idle punched connection"
        start_s = meeting.net.clock.now_s
        await stream.write(b"after")
        assert await stream.readexactly(5) == b"after"
        assert meeting.net.clock.now_s - start_s < 0.1 and connection.path.kind == "direct"
        await stream.finish()
        await echoing

    meet(NatKind.PORT, NatKind.PORT, program)


@pytest.mark.parametrize("name", ["a", "b"])
def test_paths_say_something_as_often_as_a_nat_with_a_short_memory_needs(name):
    async def program(meeting):
        node = getattr(meeting, name)
        node._host.router.set(lifetime_s=7.0)
        echoing = asyncio.create_task(echo(meeting.b))
        connection = await meeting.a.connect(meeting.b.id)
        stream = await connection.open_stream()
        await stream.write(b"before")
        assert await stream.readexactly(6) == b"before"
        await asyncio.sleep(90)  # by then both know how long their NATs remember
        assert 3.5 < node._reach.surveyor.keep_alive_s < 5
        said = []
        meeting.net.observe(lambda fate: said.append(meeting.net.clock.now_s) if is_between_homes(meeting, fate) else None)
        await asyncio.sleep(60)
        assert said and max(after - before for before, after in itertools.pairwise(said)) < 7
        start_s = meeting.net.clock.now_s
        await stream.write(b"after")
        assert await stream.readexactly(5) == b"after"
        assert meeting.net.clock.now_s - start_s < 0.1 and connection.path.kind == "direct"
        await stream.finish()
        await echoing

    meet(NatKind.PORT, NatKind.PORT, program)


def test_moving_from_the_relay_stalls_for_no_more_than_a_round_trip_and_a_tenth_of_a_second():
    async def program(meeting):
        flow = Flow(meeting, warm_up_s=0.0)
        async with flow:
            await meeting.until_direct(flow.connection, within_s=2)
            await asyncio.sleep(1)
            assert flow.gap_s <= EVERY_S + 0.060 + 0.1

    meet(NatKind.PORT, NatKind.PORT, program)


@pytest.mark.row("N10")
@pytest.mark.parametrize("how", ["renumber", "roam"])
def test_when_both_change_their_addresses_at_once_data_flow_again_within_five_seconds(how):
    async def program(meeting):
        async with Flow(meeting, most_s=5.0):
            for number, host in enumerate((meeting.a._host, meeting.b._host)):
                if how == "renumber":
                    host.router.renumber()
                else:
                    host.move_to(meeting.net.router(f"other{number}", NatKind.PORT, lan=f"10.9.{number}.0/24"))

    meet(NatKind.PORT, NatKind.PORT, program)
