"""A reader that waits for more than the peer may send gets it all the same, whatever is missing in between."""

import asyncio

import pytest

KIB = 1024


@pytest.mark.parametrize("loss", [0, 0.02])
def test_what_is_read_at_once_may_be_larger_than_every_window(sim, interop, loss):
    sizes = {"stream_window_bytes": 64 * KIB, "connection_window_bytes": 128 * KIB}
    windows = sizes | {f"max_{name}": size for name, size in sizes.items()}
    link = interop.replace(loss=loss, rate_bit_per_s=100e6)

    async def main():
        async with sim.pair(link, **windows) as pair:
            ours, theirs = await pair.connect()
            streams = [await ours.open_stream() for _ in range(8)]
            # together they may send less than one of them is asked for
            sending = [asyncio.create_task(stream.write(bytes([i]) * 256 * KIB)) for i, stream in enumerate(streams)]
            reading = []
            for _ in sending:
                stream = await theirs.accept_stream()
                reading.append(asyncio.create_task(stream.readexactly(256 * KIB)))
            assert [set(data) for data in await asyncio.gather(*reading)] == [{i} for i in range(8)]
            await asyncio.gather(*sending)

    sim.run(main())


def test_second_reader_is_refused_and_takes_nothing_from_the_first(sim):
    async def main():
        async with sim.pair() as pair:
            ours, theirs = await pair.connect()
            sending = await ours.open_stream()
            await sending.write(b"first ")
            stream = await theirs.accept_stream()
            reading = asyncio.create_task(stream.readexactly(12))
            await asyncio.sleep(1)
            with pytest.raises(RuntimeError, match="another task is reading"):
                await stream.readexactly(6)
            await sending.write(b"second")
            assert await reading == b"first second"

    sim.run(main())
