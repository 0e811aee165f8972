"""Moving while data flow: whoever moves shows his peer at once where he is, and no time-out is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import interpeer
from interpeer._interfaces._watcher import SETTLE_S
from interpeer.testing import Host, Link, SimNet, run

DELAY_S = 0.03
PIECE = bytes(range(256)) * 16
Act = Callable[[Host, Host], Awaitable[None]]


async def longest_gap(act: Act) -> tuple[float, bool]:
    """Send for a while, act, and go on; return the longest time for which nothing came, and whether all came in order."""
    net = SimNet(Link(delay_s=DELAY_S, rate_bit_per_s=5e6, queue_packets=20))
    here, there = net.host("here", "192.0.2.1"), net.host("there", "198.51.100.1")
    loop = asyncio.get_running_loop()
    async with here.node() as a, there.node() as b:
        sending = await a.connect(b.address)
        receiving = await b.accept()
        out = await sending.open_stream()
        is_over, total, gap_s, is_right = False, 0, 0.0, True

        async def send() -> None:
            while not is_over:
                await out.write(PIECE)
            await out.finish()

        async def receive() -> None:
            nonlocal total, gap_s, is_right
            stream = await receiving.accept_stream()
            last_s = loop.time()
            while data := await stream.read(4096):
                expected = (PIECE + PIECE)[total % len(PIECE) :][: len(data)]
                is_right = is_right and data == expected
                total += len(data)
                gap_s, last_s = max(gap_s, loop.time() - last_s), loop.time()

        tasks = [here.start(send()), there.start(receive())]
        await asyncio.sleep(5)
        await act(here, there)
        await asyncio.sleep(5)
        is_over = True
        await asyncio.gather(*tasks)
    return gap_s, is_right


async def move_sender(here: Host, there: Host) -> None:
    here.move("203.0.113.1")


async def move_receiver(here: Host, there: Host) -> None:
    there.move("203.0.113.1")


@pytest.mark.row("N1")
@pytest.mark.parametrize("act", [move_sender, move_receiver])
def test_whoever_moves_is_followed_within_a_few_round_trips(act, seed):
    gap_s, is_right = run(longest_gap(act), seed=seed)
    assert is_right
    assert gap_s <= SETTLE_S + 6 * DELAY_S


@pytest.mark.row("N12")
@pytest.mark.parametrize("away_s", [0.5, 5, 20])
@pytest.mark.parametrize("whose", ["here", "there"])
def test_interface_that_was_off_for_long_carries_data_as_soon_as_it_is_back(away_s, whose, seed):
    async def act(here: Host, there: Host) -> None:
        host = here if whose == "here" else there
        host.set_interface("eth0", is_up=False)
        await asyncio.sleep(away_s)
        host.set_interface("eth0", is_up=True)

    gap_s, is_right = run(longest_gap(act), seed=seed)
    assert is_right
    assert gap_s <= away_s + SETTLE_S + 6 * DELAY_S


def test_idle_connection_follows_without_a_word_from_the_programs(seed):
    async def main():
        net = SimNet(Link(delay_s=DELAY_S))
        here, there = net.host("here", "192.0.2.1"), net.host("there", "198.51.100.1")
        quiet = interpeer.Config(keep_alive_s=0)
        async with here.node(config=quiet) as a, there.node(config=quiet) as b:
            async with a.connect(b.address):
                other = await b.accept()
                await asyncio.sleep(5)
                here.move("203.0.113.1")
                await asyncio.sleep(1)
                return other.path.remote.host

    assert run(main(), seed=seed) == "203.0.113.1"
