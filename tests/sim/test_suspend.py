"""Machines that sleep under their connections, and wake up: minutes later, or somewhere else (docs/spec, chapters 5 and 14)."""

import asyncio

import pytest

import interpeer
from interpeer.testing import Link

NEAR = Link(delay_s=0.02, rate_bit_per_s=10e6, queue_packets=60)
LONG_S, MINUTES_S = 900.0, 600.0
"""An idle time-out, and a sleep that is shorter."""
WAKE_S = 2.0
"""When everything goes as before."""


async def sleeping(host, seconds, *, address=None):
    host.suspend()
    await asyncio.sleep(seconds)
    if address is not None:
        host.move(address)
    host.resume()


@pytest.mark.row("M2", "R12")
@pytest.mark.parametrize(("who", "is_elsewhere"), [
    ("sender", False), ("receiver", False), ("both", False), ("sender", True), ("receiver", True),
])  # fmt: skip
def test_a_transfer_goes_on_after_a_sleep_of_minutes(sim, who, is_elsewhere):
    """Where both have moved meanwhile neither knows where the other is: that is for the overlay to find out."""
    size = 3_000_000  # 2.4 seconds

    async def main():
        async with sim.pair(NEAR, idle_timeout_s=LONG_S) as pair:
            ends = await pair.connect()
            transfer = asyncio.create_task(sim.transfer(pair, size, ends=ends))
            await asyncio.sleep(1)
            sleepers = {"sender": [pair.alice], "receiver": [pair.bob], "both": [pair.alice, pair.bob]}[who]
            async with asyncio.TaskGroup() as tasks:
                for i, host in enumerate(sleepers):
                    tasks.create_task(sleeping(host, MINUTES_S, address=f"11.0.{i}.99" if is_elsewhere else None))
            assert not transfer.done()
            before = pair.net.counters["delivered"]
            seconds = await transfer
            assert seconds <= 1 + MINUTES_S + WAKE_S + 8 * size / 10e6
            assert pair.net.counters["delivered"] - before < 2 * size / 1200, "no storm of timers"
            assert all(end.is_open for end in ends)
            if is_elsewhere:
                assert ends[who == "sender"].path.remote.host == "11.0.0.99"

    sim.run(main())


@pytest.mark.row("M2", "R12")
@pytest.mark.parametrize("places", [(None, None), ("11.0.7.7", "11.0.8.8")], ids=["here", "elsewhere"])
def test_an_idle_connection_is_there_again_as_soon_as_a_machine_wakes_up(sim, places):
    """Whoever speaks first: the one that slept, or the one that did not know of it."""

    async def main():
        async with sim.pair(NEAR, idle_timeout_s=LONG_S) as pair:
            here, there = await pair.connect()
            await asyncio.sleep(1)
            for end, other, address in ((here, there, places[0]), (there, here, places[1])):
                await sleeping(pair.alice, MINUTES_S, address=address)
                start = pair.net.clock.now_s
                stream = await end.open_stream()
                await stream.write(b"awake")
                assert await (await other.accept_stream()).readexactly(5) == b"awake"
                assert pair.net.clock.now_s - start <= WAKE_S
                await asyncio.sleep(1)

    sim.run(main())


@pytest.mark.row("M2")
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_who_sleeps_longer_than_the_idle_time_out_is_told_so_and_so_is_the_peer(sim, is_busy):
    """At the other end when the time-out has passed; at this end when it wakes up. A new connection works at once."""

    async def main():
        async with sim.pair(NEAR, idle_timeout_s=30.0) as pair:
            here, there = await pair.connect()
            stream = await here.open_stream()
            peer = await there.accept_stream()
            if is_busy:
                await stream.write(sim.bytes(500_000))
                await asyncio.sleep(0.1)
            waiting = asyncio.create_task(stream.read(1))
            start = pair.net.clock.now_s
            pair.alice.suspend()
            with pytest.raises(interpeer.TimedOut, match="nothing came from .* for the idle time-out"):
                await there.accept_stream()
            assert 30 <= pair.net.clock.now_s - start <= 31
            await asyncio.sleep(MINUTES_S)
            assert not waiting.done()
            pair.alice.resume()
            woken = pair.net.clock.now_s
            with pytest.raises(interpeer.TimedOut, match="nothing came from .* for the idle time-out"):
                await waiting
            assert pair.net.clock.now_s == woken
            assert here.closed_by == there.closed_by == "silence"
            if is_busy:
                assert await peer.read(1), "what has come can be read"
            await sim.transfer(pair, 10_000)
            assert pair.net.clock.now_s - woken <= WAKE_S

    sim.run(main())


@pytest.mark.row("M2")
def test_a_machine_that_sleeps_during_the_handshake_is_told_that_nobody_answered(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            calling = asyncio.create_task(pair.connect())
            await asyncio.sleep(0.01)  # the first message is on its way
            await sleeping(pair.alice, MINUTES_S)
            with pytest.raises(interpeer.Unreachable):
                await calling
            await sim.transfer(pair, 10_000)

    sim.run(main())


def test_a_path_of_several_that_is_silent_because_the_machine_slept_is_used_again(sim):
    async def main():
        async with sim.pair(NEAR, idle_timeout_s=LONG_S) as pair:
            here, there = await pair.connect()
            second = await here.open_path(interpeer.Endpoint(pair.bob.addresses[0], pair.b.address.endpoints[0].port))
            transfer = asyncio.create_task(sim.transfer(pair, 1_000_000, ends=(here, there)))
            await asyncio.sleep(0.3)
            await sleeping(pair.alice, MINUTES_S)
            await transfer
            await asyncio.sleep(40)
            live = {path.id: path.state for path in there.paths}
            assert "active" in live.values() and live.keys() <= {0, second.id}

    sim.run(main())
