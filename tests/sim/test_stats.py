"""What `Connection.stats` tells of the connection, its paths and its channels."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import interpeer
from interpeer.testing import Link

LINK = Link(delay_s=0.05, rate_bit_per_s=20e6, queue_packets=60, loss=0.02)


def test_the_path_in_use_is_told_twice(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, 200_000, ends=(here, there))
            return here.stats(), there.stats(), here.path

    here, there, path = sim.run(main())
    (only,) = here.paths
    same = {field.name for field in dataclasses.fields(only)} & {field.name for field in dataclasses.fields(here)}
    assert {"rtt_s", "min_rtt_s", "window_bytes", "packets_lost", "bytes_sent", "packet_bytes", "ecn"} <= same
    for name in same:
        assert getattr(only, name) == getattr(here, name), name
    assert (only.id, only.kind, only.remote, only.state, only.congestion) == (0, path.kind, path.remote, "active", "cubic")
    assert only.packets_lost > 0 and 0.1 <= only.min_rtt_s <= only.rtt_s
    # a window a round trip, or a little more, so that the window is what holds back
    assert 1 < only.pacing_bytes_per_s / (only.window_bytes / only.rtt_s) <= 2
    (other,) = there.paths
    assert other.ecn_received_ect0 == other.packets_received and other.ecn_received_ce == 0
    assert only.ecn_sent == only.packets_sent > other.packets_received


def test_channels_say_where_bytes_wait(sim):
    async def main():
        async with sim.pair(LINK, stream_window_bytes=50_000) as pair:
            here, there = await pair.connect()
            first, second = await here.open_stream(), await here.open_stream()
            reader, _ = await there.accept_stream(), await there.accept_stream()
            await first.write(b"x" * 80_000)
            await second.write(b"y" * 10)
            await asyncio.sleep(5)
            stuck = here.stats().channels, there.stats().channels
            await reader.readexactly(80_000)
            await asyncio.sleep(5)
            return stuck, (here.stats().channels, there.stats().channels)

    (ours, theirs), (ours_after, theirs_after) = sim.run(main())
    assert [channel.id for channel in ours] == [0, 2] and all(channel.kind == "stream" for channel in ours)
    assert all(channel.is_ours for channel in ours) and not any(channel.is_ours for channel in theirs)
    # the reader is late: what the peer allowed has arrived, the rest waits
    assert (ours[0].queued_bytes, ours[0].unacked_bytes, theirs[0].readable_bytes) == (30_000, 0, 50_000)
    assert (ours[0].send_limit, theirs[0].recv_limit) == (50_000, 50_000)
    assert (ours[1].queued_bytes, theirs[1].readable_bytes) == (0, 10)
    assert (ours_after[0].queued_bytes, ours_after[0].bytes_sent, theirs_after[0].readable_bytes) == (0, 80_000, 0)
    assert theirs_after[0].bytes_received == 80_000


def test_what_is_on_its_way_is_not_acknowledged_yet(sim):
    async def main():
        async with sim.pair(LINK.replace(loss=0)) as pair:
            here, _ = await pair.connect()
            stream = await here.open_stream()
            await stream.write(b"x" * 5000)
            await asyncio.sleep(0.03)  # less than a round trip
            return here.stats()

    stats = sim.run(main())
    (channel,) = stats.channels
    assert (channel.unacked_bytes, channel.queued_bytes) == (5000, 0)
    assert stats.paths[0].bytes_in_flight > 5000


def test_everything_becomes_json_and_nothing_is_lost(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, 1000, ends=(here, there))
            async with here.open_stream():
                return here.stats()

    stats = sim.run(main())
    told = json.loads(json.dumps(stats.to_dict()))
    assert set(told) == {field.name for field in dataclasses.fields(stats)}
    assert told["paths"][0]["remote"] == str(stats.paths[0].remote)
    assert told["channels"] == [dataclasses.asdict(channel) for channel in stats.channels] != []
    assert told["rtt_s"] == stats.rtt_s


def test_a_connection_that_is_over_has_its_last_figures(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, 100_000, ends=(here, there))
            await here.close()
            await there.wait_closed()
            return here.stats(), there.stats()

    for stats in sim.run(main()):
        assert stats.paths[0].bytes_in_flight == 0 and stats.paths[0].packets_received > 0


def test_a_call_that_is_not_answered_has_no_path(sim):
    async def main():
        async with sim.pair(LINK) as pair:
            pair.net.partition([pair.alice], [pair.bob])
            calling = asyncio.ensure_future(pair.a.connect(pair.b.address))
            await asyncio.sleep(1)
            (connection,) = pair.a._connections.values()
            stats = connection.stats()
            calling.cancel()
            await asyncio.wait([calling])
            return stats

    stats = sim.run(main())
    assert isinstance(stats, interpeer.Stats) and stats.paths == () and stats.channels == ()
