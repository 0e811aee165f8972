"""Streams between two nodes over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc

import pytest

import interpeer


def test_a_stream_is_announced_before_there_are_data(run, pair):
    async def main():
        async with pair() as p:
            accepted = asyncio.ensure_future(p.ba.accept_stream())
            stream = await p.ab.open_stream()
            assert (await accepted).id == stream.id

    run(main())


def test_bytes_arrive_in_order_and_the_end_is_told(run, pair):
    data = hashlib.shake_128(b"x").digest(3_000_000)

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            reading = asyncio.ensure_future(peer.read())
            for i in range(0, len(data), 70_001):
                await stream.write(data[i : i + 70_001])
            await stream.finish()
            assert await reading == data
            assert await peer.read(1) == b""
            with pytest.raises(asyncio.IncompleteReadError):
                await peer.readexactly(1)

    run(main())


def test_both_directions_at_once(run, pair):
    data = hashlib.shake_128(b"y").digest(2_000_000)

    async def pump(stream):
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(stream.read())
            await stream.write(data)
            await stream.finish()
        return reading.result()

    async def main():
        async with pair() as p:
            left, right = await p.streams()
            assert await asyncio.gather(pump(left), pump(right)) == [data, data]

    run(main())


def test_iteration_gives_every_byte(run, pair):
    async def main():
        async with pair() as p:
            async with p.ab.open_stream() as stream:
                await stream.write(b"x" * 500_000)
            peer = await p.ba.accept_stream()
            total = 0
            async for chunk in peer:
                assert chunk
                total += len(chunk)
            assert total == 500_000

    run(main())


def test_any_buffer_can_be_written_and_read_into(run, pair):
    np = pytest.importorskip("numpy")
    buffers = [b"bytes", bytearray(b"array"), memoryview(b"xxviewxx")[2:6], np.arange(3, dtype="u1")]

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            for buffer in buffers:
                await stream.write(buffer)
            expected = b"".join(bytes(b) for b in buffers)
            into = np.zeros(len(expected), dtype="u1")
            done = 0
            while done < len(expected):
                done += await peer.readinto(into[done:])
            assert into.tobytes() == expected

    run(main())


def test_cancelled_reads_lose_nothing(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            for read in (lambda: peer.readexactly(8), lambda: peer.read(), lambda: peer.readinto(bytearray(8))):
                for _ in range(20):
                    task = asyncio.ensure_future(read())
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            # and with half of what is wanted there already
            await stream.write(b"abcd")
            task = asyncio.ensure_future(peer.readexactly(1_000_000))
            while p.ba.stats().data_received < 4:
                await asyncio.sleep(0)
            for _ in range(50):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await stream.write(b"efgh")
            assert await peer.readexactly(8) == b"abcdefgh"

    run(main())


def test_what_a_cancelled_read_had_is_neither_copied_nor_taken_in_pieces(run, pair, monkeypatch):
    size = 8_000_000
    reads = []
    read_some = interpeer.Stream._read_some

    def count(stream, n):
        reads.append(n)
        return read_some(stream, n)

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            task = asyncio.ensure_future(peer.read())
            await stream.write(bytes(size))
            while p.ba.stats().data_received < size or peer._handle.bytes_readable:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(peer._stash) == size
            tracemalloc.start()
            first = await peer.read(10)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 1_000_000, "a small read copies little"
            await stream.write(b"!")
            sending = asyncio.ensure_future(stream.finish())
            monkeypatch.setattr(interpeer.Stream, "_read_some", count)
            assert first + await peer.read() == bytes(size) + b"!"
            assert len(reads) < 10, "what was there is taken at once"
            await sending

    run(main())


READS = {
    "read": lambda stream: stream.read(),
    "read(n)": lambda stream: stream.read(10),
    "readexactly": lambda stream: stream.readexactly(10),
    "readinto": lambda stream: stream.readinto(bytearray(10)),
    "iteration": lambda stream: anext(stream),
}


@pytest.mark.parametrize("first", READS)
def test_a_second_reader_is_refused_and_takes_nothing(run, pair, first):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            reading = asyncio.ensure_future(READS[first](peer))
            await asyncio.sleep(0)
            for second in READS.values():
                with pytest.raises(interpeer.LocalError, match="another task is reading"):
                    await second(peer)
            await stream.write(b"0123456789")
            finishing = asyncio.ensure_future(stream.finish())
            assert await reading in (b"0123456789", 10)
            assert await peer.read() == b""
            await finishing

    run(main())


def test_a_reader_that_was_woken_and_has_not_run_yet_still_is_the_one_that_reads(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            reading = asyncio.ensure_future(peer.read(4))
            await asyncio.sleep(0)
            peer._waiters.wake(-1)
            with pytest.raises(interpeer.LocalError):
                await peer.read(4)
            await stream.write(b"mine")
            assert await reading == b"mine"

    run(main())


def test_a_cancelled_write_leaves_a_prefix(run, pair):
    data = hashlib.shake_128(b"z").digest(60_000_000)

    async def main():
        async with pair(max_send_buffer_bytes=1 << 20, max_connection_window_bytes=1 << 20) as p:
            stream, peer = await p.streams()
            task = asyncio.ensure_future(stream.write(data))
            while stream.bytes_accepted < 1_000_000:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            accepted = stream.bytes_accepted
            assert 0 < accepted < len(data)
            reading = asyncio.ensure_future(peer.read())
            await stream.finish()
            assert await reading == data[:accepted]

    run(main())


def test_reset_is_told_with_its_code(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"something")
            stream.reset(7)
            with pytest.raises(interpeer.StreamReset) as caught:
                await peer.read()
            assert caught.value.code == 7
            with pytest.raises(interpeer.ClosedError):
                await stream.write(b"more")

    run(main())


def test_stop_is_told_with_its_code(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            peer.stop(9)
            with pytest.raises(interpeer.StreamReset) as caught:
                while True:
                    await stream.write(b"x" * 100_000)
            assert caught.value.code == 9

    run(main())


def test_an_exception_in_the_block_resets_the_stream(run, pair):
    async def main():
        async with pair() as p:
            with pytest.raises(ZeroDivisionError):
                async with p.ab.open_stream() as stream:
                    await stream.write(b"half of it")
                    raise ZeroDivisionError
            peer = await p.ba.accept_stream()
            with pytest.raises(interpeer.StreamReset):
                await peer.read()

    run(main())


@pytest.mark.row("S10")
def test_one_stuck_reader_does_not_stop_the_others(run, pair):
    async def main():
        async with pair() as p:
            stuck, unread = await p.streams()
            writing = asyncio.ensure_future(stuck.write(bytes(50_000_000)))
            for _ in range(5):
                stream, peer = await p.streams()
                reading = asyncio.ensure_future(peer.read())
                await stream.write(bytes(100_000))
                await stream.finish()
                assert len(await reading) == 100_000
            assert not writing.done()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            stuck.reset()
            assert unread.id == stuck.id

    run(main())


@pytest.mark.row("A6")
def test_writing_without_a_reader_keeps_memory_bounded(run, pair):
    async def main():
        async with pair(max_send_buffer_bytes=1 << 20, max_stream_window_bytes=1 << 20) as p:
            stream, unread = await p.streams()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    while True:
                        await stream.write(bytes(1 << 20))
            assert stream.bytes_accepted < 8 << 20
            assert unread.id == stream.id
            stream.reset()

    run(main())


def test_streams_wait_for_room_when_the_peer_allows_no_more(run, pair):
    async def main():
        async with pair(max_streams=4) as p:
            open_ones = [await p.ab.open_stream() for _ in range(4)]
            fifth = asyncio.ensure_future(p.ab.open_stream())
            await asyncio.sleep(0)
            for stream in open_ones[:3]:
                peer = await p.ba.accept_stream()
                assert peer.id == stream.id
                await stream.finish()
                await peer.finish()
                assert await peer.read() == b""
                assert await stream.read() == b""
            del peer, stream
            open_ones.clear()
            await fifth

    run(main())


def test_a_connection_that_is_closed_says_so(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            reading = asyncio.ensure_future(peer.read())
            await p.ab.close(5, "enough")
            with pytest.raises(interpeer.ConnectionClosed, match="enough") as caught:
                await reading
            assert caught.value.code == 5
            await p.ba.wait_closed()
            assert p.ba.closed_by == "peer"
            assert p.ab.closed_by == "local"
            with pytest.raises(interpeer.ClosedError):
                await stream.write(b"x")
            with pytest.raises(interpeer.ConnectionClosed):
                await p.ba.open_stream()

    run(main())


def test_what_was_finished_can_be_read_after_the_peer_has_closed(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"x" * 300_000)
            await stream.finish()
            await p.ab.close()
            await p.ba.wait_closed()
            assert len(await peer.read()) == 300_000

    run(main())


def test_finish_succeeds_when_the_peer_closes_as_soon_as_it_has_read_everything(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()

            async def reader():
                assert await peer.read() == b"everything"
                await p.ba.close()

            reading = asyncio.ensure_future(reader())
            await stream.write(b"everything")
            await stream.finish()
            await reading

    run(main())


def test_finish_succeeds_when_the_peer_lets_go_of_the_stream_with_everything_read(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"everything")
            assert await peer.readexactly(10) == b"everything"
            del peer
            await stream.finish()

    run(main())


def test_a_stream_that_is_let_go_of_with_a_part_written_does_not_look_like_the_whole(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"the first half")
            del stream
            with pytest.raises(interpeer.StreamReset):
                await peer.read()

    run(main())


def test_a_stream_that_is_let_go_of_with_nothing_written_ends(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            del stream
            assert await peer.read() == b""

    run(main())


def test_a_peer_that_writes_to_a_stream_that_was_let_go_of_is_asked_to_stop(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"everything")
            assert await peer.readexactly(10) == b"everything"
            del peer
            with pytest.raises(interpeer.StreamReset):
                while True:
                    await stream.write(b"more")
                    await asyncio.sleep(0)

    run(main())
