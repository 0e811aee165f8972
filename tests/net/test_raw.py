"""Raw datagrams through every driver, to and from a plain socket."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

import interpeer
from interpeer._address import Endpoint
from interpeer._core import control

TXID, TOKEN = bytes(range(12)), bytes(range(8))
IP_RECVTTL = 12
STUN_ANSWER = b"\1\1\0\0" + bytes.fromhex("2112a442") + TXID
PROBE = (b"\x45\1" + TOKEN).ljust(64, b"p")


def test_answers_reach_whoever_expects_them_and_nobody_else(run):
    async def main():
        heard: asyncio.Queue[tuple] = asyncio.Queue()
        async with interpeer.Node(listen="127.0.0.1:0") as node:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                node._expected.add(TXID, lambda *came: heard.put_nowait(("answer", *came)))
                node._expected.add(TOKEN, lambda *came: heard.put_nowait(("probe", *came)))
                at = ("127.0.0.1", node.address.endpoints[0].port)
                for data in (STUN_ANSWER[:-1] + b"x", PROBE[:63], PROBE, STUN_ANSWER):
                    peer.sendto(data, at)
                came = [await heard.get() for _ in range(2)]
                source = Endpoint("127.0.0.1", peer.getsockname()[1]).to_core()
                assert sorted(one[:3] for one in came) == [("answer", STUN_ANSWER, source), ("probe", PROBE, source)]
                node._expected.remove(TXID)
                peer.sendto(STUN_ANSWER, at)
                peer.sendto(PROBE, at)
                assert (await heard.get())[0] == "probe" and heard.empty()
            assert node.counters()["dropped_stun"] == 2

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="the time to live of what came is told by an option of Linux")
def test_raw_datagrams_leave_with_their_own_time_to_live(run):
    async def main():
        async with interpeer.Node(listen="127.0.0.1:0") as node:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                peer.setblocking(False)
                peer.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
                to = Endpoint("127.0.0.1", peer.getsockname()[1]).to_core()
                for i, ttl in enumerate((2, 0, 3)):
                    assert control.send_raw(node._engines[0], b"%d" % i, to, None, ttl)
                lives = {}
                while len(lives) < 3:
                    try:
                        data, ancillary, _, _ = peer.recvmsg(100, 100)
                        lives[data] = int.from_bytes(ancillary[0][2], sys.byteorder)
                    except BlockingIOError:
                        await asyncio.sleep(0)
                assert lives == {b"0": 2, b"1": peer.getsockopt(socket.IPPROTO_IP, socket.IP_TTL), b"2": 3}

    run(main())
