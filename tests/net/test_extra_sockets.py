"""Extra sockets of every driver: alone, and adopted, as the way that a connection's path goes."""

from __future__ import annotations

import asyncio
import hashlib
import socket

import pytest

import interpeer
from interpeer import _sockets, errors
from interpeer._address import Endpoint
from interpeer._core import path_handle

MOST_ADOPTED, MOST_OPEN = 12, 512
DATA = hashlib.shake_128(b"extra").digest(3_000_000)


def forget(*_):
    pass


async def open_path(connection, remote, local):
    """Open a path by an adopted socket; return its number when it is proven."""
    result = path_handle.NOT_NOW
    while result in (path_handle.NOT_NOW, path_handle.NO_ID):  # the peer's packets are on their way
        await asyncio.sleep(0)
        result, number = path_handle.open_path(connection._handle, remote.to_core(), local)
    assert result == path_handle.OPENED
    while True:
        states = {way[0]: way[1] for way in path_handle.ways(connection._handle)}
        if path_handle.STATES[states[number]] == "active":
            return number
        await asyncio.sleep(0)


async def transfer(writer, reader):
    """Move DATA over a stream of its own."""
    async with writer.open_stream() as stream:
        peer = await reader.accept_stream()
        reading = asyncio.ensure_future(peer.read())
        await stream.write(DATA)
        await stream.finish()
        assert await reading == DATA


def adopt(node, is_ipv6=False):
    (extra,) = node._driver.open_sockets(1, is_ipv6, forget)
    return extra.port, extra.adopt()


def test_extra_sockets_have_ports_of_their_own_and_carry_datagrams_both_ways(run):
    async def main():
        heard: asyncio.Queue[tuple] = asyncio.Queue()
        async with interpeer.Node(listen="127.0.0.1:0") as node:
            sockets = node._driver.open_sockets(8, False, lambda *came: heard.put_nowait(came))
            assert len({extra.port for extra in sockets} | {node.address.endpoints[0].port}) == 9
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                peer.settimeout(10)
                at = Endpoint("127.0.0.1", peer.getsockname()[1]).to_core()
                for i, extra in enumerate(sockets):
                    extra.send(b"%d" % i, at, ttl=i)
                came = dict(peer.recvfrom(10) for _ in sockets)
                assert {data: source[1] for data, source in came.items()} == {
                    b"%d" % i: extra.port for i, extra in enumerate(sockets)
                }
                peer.sendto(b"back", ("127.0.0.1", sockets[3].port))
                assert await heard.get() == (sockets[3], b"back", at)
                sockets[3].close()
                sockets[3].close()
                with pytest.raises(errors.ClosedError):
                    sockets[3].send(b"late", at)
                with pytest.raises(errors.ClosedError):
                    sockets[3].adopt()

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_path_over_an_adopted_socket_carries_data_and_outlives_the_first(run, host):
    async def main():
        async with interpeer.Node(listen=f"{host}:0") as a, interpeer.Node(listen=f"{host}:0") as b:
            ab = await a.connect(b.address)
            ba = await b.accept()
            await transfer(ab, ba)
            port, local = adopt(a, is_ipv6=":" in host)
            number = await open_path(ab, b.address.endpoints[0], local)
            assert path_handle.abandon_path(ab._handle, 0)
            await transfer(ab, ba)
            await transfer(ba, ab)
            assert [path.remote.port for path in ba.paths if path.state == "active"] == [port]
            (path,) = (path for path in ab.paths if path.id == number)
            assert path.local is None and path.is_preferred

    run(main())


def test_responders_path_over_an_adopted_socket_is_heard_there(run):
    """Both ends use extra sockets: what comes to one is known to have come to it, and the answer leaves from it."""

    async def main():
        async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
            ab = await a.connect(b.address)
            ba = await b.accept()
            port_a, local_a = adopt(a)
            port_b, local_b = adopt(b)
            number = await open_path(ab, Endpoint("127.0.0.1", port_b), local_a)
            assert path_handle.abandon_path(ab._handle, 0)
            await transfer(ba, ab)
            way = next(way for way in path_handle.ways(ba._handle) if way[0] == number)
            assert way[4:] == (Endpoint("127.0.0.1", port_a).to_core(), local_b)

    run(main())


def test_path_goes_back_when_its_adopted_socket_is_released(run):
    async def main():
        async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
            ab = await a.connect(b.address)
            ba = await b.accept()
            _, local = adopt(a)
            await open_path(ab, b.address.endpoints[0], local)
            ab.set_standby(ab.paths[0])
            await transfer(ab, ba)
            a._driver.release_socket(local)
            a._driver.release_socket(local)
            await transfer(ab, ba)
            assert a._driver.can_adopt and a.counters()["sent_packets"] > 0

    run(main())


def test_no_more_sockets_are_adopted_than_a_pump_takes_and_a_released_place_is_free_again(run):
    async def main():
        async with interpeer.Node(listen="127.0.0.1:0") as node, interpeer.Node(listen="127.0.0.1:0") as peer:
            await node.connect(peer.address)
            driver = node._driver
            locals_ = [adopt(node)[1] for _ in range(MOST_ADOPTED)]
            assert len(set(locals_)) == MOST_ADOPTED and not driver.can_adopt
            (extra,) = driver.open_sockets(1, False, forget)
            with pytest.raises(errors.LocalError, match="already"):
                extra.adopt()
            driver.release_socket(locals_[1])
            assert driver.can_adopt
            last = extra.adopt()
            assert last not in locals_ and not driver.can_adopt
            driver.release_socket(last)  # before, or after, a turn has taken it in
            assert driver.can_adopt

    run(main())


def test_what_cannot_be_opened_says_why(run):
    async def main():
        async with interpeer.Node(listen="127.0.0.1:0") as node:
            with pytest.raises(ValueError, match="no IPv6 socket"):
                node._driver.open_sockets(1, True, forget)
            with pytest.raises(errors.LocalError, match=f"at most {MOST_OPEN}"):
                node._driver.open_sockets(MOST_OPEN + 1, False, forget)
            assert node._driver.open_sockets(0, False, forget) == []

    run(main())


def test_datagram_that_claims_to_come_from_what_is_no_address_is_not_told(run, monkeypatch):
    async def main():
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        async with interpeer.Node(listen="127.0.0.1:0") as node:
            (extra,) = node._driver.open_sockets(1, False, lambda _, data, source: heard.put_nowait(data))
            forged = bytes([1]) + bytes(6) + bytes([2]) + bytes(8), 1, 0
            true = _sockets.packed
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                mine = peer.getsockname()[1]
                monkeypatch.setattr(_sockets, "packed", lambda source: forged if source[1] == mine else true(source))
                peer.sendto(b"forged", ("127.0.0.1", extra.port))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.sendto(b"true", ("127.0.0.1", extra.port))
                    assert await heard.get() == b"true" and heard.empty()

    run(main())
