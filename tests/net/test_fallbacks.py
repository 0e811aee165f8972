"""Every fallback can be forced, is counted when it is used, and carries data and datagrams all the same."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

import interpeer

FALLBACKS = {
    "gso": "without_gso",
    "gro": "without_gro",
    "mmsg": "without_mmsg",
    "ecn": "without_ecn",
    "pktinfo": "without_pktinfo",
    "bigbuf": "small_buffers",
    "recvmsg": "without_control",
    "timer": "without_timer",
    "reader": "without_reader",
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("word", FALLBACKS)
def test_a_forced_fallback_is_used_and_counted(monkeypatch, word, loop):
    if (word, loop) == ("reader", "uvloop"):
        pytest.skip("uvloop always watches sockets, and does not receive without")
    monkeypatch.setenv("INTERPEER_DISABLE", word)
    data = hashlib.shake_128(word.encode()).digest(2_000_000)

    async def main():
        async with asyncio.timeout(30), interpeer.Node() as a, interpeer.Node() as b:
            async with a.connect(b.address) as connection, connection.open_stream() as stream:
                peer = await (other := await b.accept()).accept_stream()
                reading = asyncio.ensure_future(peer.read())
                connection.send_datagram(b"and a datagram")
                await stream.write(data)
                await stream.finish()
                assert await reading == data
                assert await other.recv_datagram() == b"and a datagram"
                while not max(node.counters()[FALLBACKS[word]] for node in (a, b)):
                    await asyncio.sleep(0)  # until a deadline passes, for the timer; the others are used by now

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(main())


def test_a_word_that_names_nothing_is_refused(monkeypatch):
    monkeypatch.setenv("INTERPEER_DISABLE", "gsso")

    async def main():
        async with interpeer.Node(listen="127.0.0.1:0"):
            pass

    with pytest.raises(ValueError, match="gsso"):
        asyncio.run(main())
