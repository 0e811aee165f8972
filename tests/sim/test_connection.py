"""The life of a connection: silence, keep-alive, closing, a restarted peer, key updates, and what it carries."""

import asyncio

import pytest

import interpeer
from interpeer.testing import Link

NEAR = Link(delay_s=0.015)
ROUGH = Link(delay_s=0.015, rate_bit_per_s=10e6, queue_packets=25, loss=0.05, reorder=0.1, reorder_s=0.02, duplicate=0.05)
PORT = 4433


def cut(pair):
    for wire in (pair.there, pair.back):
        wire.set(is_up=False)


async def crash(host, node):
    """End a node without a word to anybody, as kill -9 does."""
    host.unplug()
    closing = asyncio.create_task(node.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await asyncio.sleep(1)
    host.plug_in()


# --- silence ---


@pytest.mark.row("R6")
@pytest.mark.spec("CN-14", "CN-15")
@pytest.mark.parametrize(("a_s", "b_s"), [(5, 20), (20, 5), (0, 5)])
def test_silence_ends_a_connection_after_the_smaller_idle_time_out(sim, a_s, b_s):
    async def main():
        sides = {name: {"config": interpeer.Config(idle_timeout_s=s, keep_alive_s=0)} for name, s in (("a", a_s), ("b", b_s))}
        async with sim.pair(NEAR, **sides) as pair:
            here, there = await pair.connect()
            await asyncio.sleep(1)
            start = pair.net.clock.now_s
            with pytest.raises(interpeer.TimedOut):
                await here.accept_stream()
            assert 3.9 <= pair.net.clock.now_s - start <= 5
            await there.wait_closed()
            assert here.closed_by == there.closed_by == "silence"

    sim.run(main())


@pytest.mark.row("R6")
@pytest.mark.spec("CN-19")
def test_keep_alive_holds_an_idle_connection_for_ten_minutes_with_few_packets(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            here, there = await pair.connect()
            await asyncio.sleep(600)
            assert here.is_open and there.is_open
            # either side's PING and its acknowledgement, every ten seconds
            assert pair.there.stats.packets + pair.back.stats.packets < 600 / 10 * 4 + 20

    sim.run(main())


@pytest.mark.row("R6")
def test_keep_alive_does_not_hold_a_connection_to_a_peer_that_has_gone(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            here, there = await pair.connect()
            await asyncio.sleep(100)
            cut(pair)
            start = pair.net.clock.now_s
            await asyncio.gather(here.wait_closed(), there.wait_closed())
            assert here.closed_by == there.closed_by == "silence"
            assert pair.net.clock.now_s - start <= 30 + 10 + 1

    sim.run(main())


# --- the end ---


@pytest.mark.spec("CN-4", "CN-7")
@pytest.mark.parametrize("loss", [0, 0.3])
def test_closing_is_told_with_code_and_reason_after_what_was_finished(sim, loss):
    async def main():
        async with sim.pair(NEAR.replace(loss=loss), connect_timeout_s=30) as pair:
            here, there = await pair.connect()
            stream = await here.open_stream()
            await stream.write(b"last words")
            await stream.finish()
            closing = asyncio.create_task(here.close(7, "done"))
            assert await (await there.accept_stream()).read() == b"last words"
            # a CLOSE may be lost, and so may all its repetitions: then it is silence that ends the connection
            ends = (interpeer.ConnectionClosed, interpeer.TimedOut) if loss else interpeer.ConnectionClosed
            with pytest.raises(ends) as failure:
                await there.accept_stream()
            await closing
            if there.closed_by == "peer":
                assert (failure.value.code, failure.value.reason) == (7, "done")

    sim.run(main())


@pytest.mark.row("P13")
@pytest.mark.spec("CN-23", "CN-28")
@pytest.mark.parametrize("loss", [0, 0.3])
def test_a_peer_that_was_restarted_with_its_key_resets_its_connections(sim, loss):
    async def main():
        identity = interpeer.Identity.from_seed(bytes(32))
        again = {"identity": identity, "listen": f"0.0.0.0:{PORT}"}
        async with sim.pair(NEAR, b=again) as pair:
            here, _there = await pair.connect()
            await crash(pair.bob, pair.b)
            for wire in (pair.there, pair.back):
                wire.set(loss=loss)
            async with pair.bob.node(**again) as restarted:
                start = pair.net.clock.now_s
                with pytest.raises(interpeer.ResetByPeer):
                    await (await here.open_stream()).write(bytes(10_000_000))
                assert pair.net.clock.now_s - start < 5
                assert here.closed_by == "reset"
                assert restarted.counters()["resets_sent"] > 0
                await pair.a.connect(restarted.address)

    sim.run(main())


@pytest.mark.spec("CN-26")
def test_a_peer_that_was_restarted_with_another_key_stays_silent(sim):
    async def main():
        async with sim.pair(NEAR, b={"listen": f"0.0.0.0:{PORT}"}) as pair:
            here, _there = await pair.connect()
            await crash(pair.bob, pair.b)
            async with pair.bob.node(listen=f"0.0.0.0:{PORT}") as other:
                await here.wait_closed()
                assert here.closed_by == "silence"
                assert other.counters()["resets_sent"] == 0

    sim.run(main())


# --- keys ---


@pytest.mark.row("P9")
@pytest.mark.parametrize("link", [NEAR, ROUGH], ids=["clean", "rough"])
def test_keys_are_updated_every_few_packets_in_both_directions(sim, link):
    async def main():
        async with sim.pair(link, key_update_packets=8) as pair:
            here, there = await pair.connect()
            await asyncio.gather(sim.transfer(pair, 400_000, ends=(here, there)), sim.transfer(pair, 400_000, ends=(there, here)))
            for end in (here, there):
                assert end.stats().key_epoch > 2
            for node in (pair.a, pair.b):
                assert node.counters()["key_updates"] > 2

    sim.run(main())


@pytest.mark.row("P9")
def test_a_key_whose_update_nobody_acknowledges_is_not_used_beyond_its_limit(sim):
    """The peer hears nothing of the update; the sender ends the connection, or silence does, and never goes on sealing."""

    async def main():
        async with sim.pair(NEAR, key_update_packets=8, key_limit_packets=16, keep_alive_s=0.5) as pair:
            here, _there = await pair.connect()
            await asyncio.sleep(1)
            pair.back.set(is_up=False)
            before = pair.there.stats.packets
            await here.wait_closed()
            assert here.closed_by in ("silence", "error")
            assert pair.there.stats.packets - before <= 2 * 16

    sim.run(main())


# --- what it carries ---


@pytest.mark.row("R5")
def test_five_hundred_streams_both_ways_through_a_rough_link(sim):
    async def main():
        async with sim.pair(ROUGH) as pair:
            here, there = await pair.connect()

            async def echo():
                async with asyncio.TaskGroup() as group:
                    for _ in range(500):
                        group.create_task(answer(await there.accept_stream()))

            async def answer(stream):
                async with stream:
                    await stream.write(await stream.read())

            async def ask(number):
                data = number.to_bytes(2, "big") * (number % 300)
                async with here.open_stream() as stream:
                    await stream.write(data)
                assert await stream.read() == data

            async with asyncio.TaskGroup() as group:
                group.create_task(echo())
                for number in range(500):
                    group.create_task(ask(number))
            await asyncio.sleep(5)
            assert here.stats().streams == there.stats().streams == 0

    sim.run(main())


def test_more_streams_than_are_allowed_wait_for_their_turn(sim):
    async def main():
        async with sim.pair(NEAR, max_streams=4) as pair:
            here, there = await pair.connect()
            most = 0

            async def serve():
                nonlocal most
                async for stream in there.streams():
                    most = max(most, there.stats().streams)
                    await stream.read()
                    await stream.finish()

            async def ask():
                async with here.open_stream() as stream:
                    await stream.write(b"?")
                assert await stream.read() == b""

            serving = asyncio.create_task(serve())
            await asyncio.gather(*(ask() for _ in range(40)))
            serving.cancel()
            assert 1 <= most <= 4

    sim.run(main())


@pytest.mark.row("R5")
@pytest.mark.parametrize("loss", [0, 0.1])
def test_datagrams_arrive_once_whole_and_are_not_repeated(sim, loss):
    async def main():
        async with sim.pair(NEAR.replace(loss=loss, duplicate=0.2, reorder=0.1, reorder_s=0.02)) as pair:
            here, there = await pair.connect()
            messages = [number.to_bytes(2, "big") * (1 + number % 500) for number in range(1000)]
            for message in messages:
                await here.datagrams_writable()
                assert here.send_datagram(message)
                await asyncio.sleep(0.001)
            while here.stats().datagrams_queued:
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            got = []
            while there.stats().datagrams_waiting:
                got += await there.recv_datagrams()
            assert len(set(got)) == len(got)
            assert set(got) <= set(messages)
            assert len(got) == 1000 if not loss else 800 < len(got) < 980

    sim.run(main())


@pytest.mark.row("A4")
def test_a_reader_that_stops_holds_its_own_stream_and_nothing_else(sim):
    async def main():
        async with sim.pair(NEAR) as pair:
            here, there = await pair.connect()
            stuck = await here.open_stream()
            writing = asyncio.create_task(stuck.write(sim.bytes(8_000_000)))
            await asyncio.sleep(30)
            assert not writing.done()
            held = there.stats().data_received
            assert held <= interpeer.Config().stream_window_bytes
            unread = await there.accept_stream()
            assert await sim.transfer(pair, 200_000, ends=(here, there)) < 2
            finishing = asyncio.create_task(finish(stuck, writing))
            assert await unread.read() == sim.bytes(8_000_000)
            await finishing

    async def finish(stream, writing):
        await writing
        await stream.finish()

    sim.run(main())


@pytest.mark.row("A4")
def test_a_stream_that_is_stopped_or_reset_tells_the_other_side(sim):
    async def main():
        async with sim.pair(ROUGH) as pair:
            here, there = await pair.connect()
            for by_reader in (True, False):
                stream = await here.open_stream()
                writing = asyncio.create_task(stream.write(bytes(8_000_000)))
                incoming = await there.accept_stream()
                if by_reader:
                    incoming.stop(5)
                    with pytest.raises(interpeer.StreamReset) as failure:
                        await writing
                else:
                    writing.cancel()
                    await asyncio.wait([writing])
                    stream.reset(5)
                    with pytest.raises(interpeer.StreamReset) as failure:
                        await incoming.read()
                assert failure.value.code == 5

    sim.run(main())


# --- cancelling ---


@pytest.mark.row("A3")
@pytest.mark.parametrize("loss", [0, 0.3])
def test_connecting_can_be_cancelled_at_any_moment_and_leaves_nothing(sim, loss):
    async def main(after_s):
        async with sim.pair(NEAR.replace(loss=loss), max_half_open=2) as pair:
            calling = asyncio.create_task(pair.a.connect(pair.b.address))
            await asyncio.sleep(after_s)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            calling = None
            await asyncio.sleep(45)
            if pair.b.connections:  # it was through before: then it is a connection, which nobody holds
                assert pair.a.connections
            else:
                assert pair.a.connections == []
            assert pair.b.counters()["half_open"] == 0

    for step in range(24):
        sim.run(main(step * 0.0025))
