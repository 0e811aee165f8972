"""Nodes and connections over real sockets: reaching, refusing, closing, events, misuse."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import pickle
import socket
import sys
import threading
from contextlib import suppress

import pytest

import interpeer
from interpeer._core import control
from interpeer._driver import ThreadDriver


def node(**kwargs):
    return interpeer.Node(listen="127.0.0.1:0", **kwargs)


def test_both_ends_know_each_other(run, pair):
    async def main():
        async with pair() as p:
            assert p.ab.peer_id == p.b.id
            assert p.ba.peer_id == p.a.id
            assert p.ab.protocol == p.ba.protocol == "interpeer/1"
            assert p.ab.cipher == p.ba.cipher == control.available_suites()[-1]
            assert p.ab.path.kind == "lan"
            assert str(p.ab.path.remote) == str(p.b.address.endpoints[0])

    run(main())


def test_connect_is_a_coroutine_and_a_context(run):
    async def main():
        async with node() as a, node() as b:
            async with a.connect(str(b.address)) as connection:
                assert connection.is_open
            assert not connection.is_open
            async with asyncio.TaskGroup() as group:
                task = group.create_task(a.connect(b.address))
            assert task.result().peer_id == b.id

    run(main())


def test_ipv6_and_both_families(run):
    async def main():
        async with interpeer.Node(listen="[::1]:0") as a, interpeer.Node(listen="[::1]:0") as b:
            async with a.connect(b.address) as connection:
                assert connection.path.remote.host == "::1"
        async with interpeer.Node() as both, node() as four, interpeer.Node(listen="[::1]:0") as six:
            assert {":" in e.host for e in both.address.endpoints} == {True, False}
            ports = {e.port for e in both.address.endpoints}
            assert len(ports) == 1, "one port serves both families"
            four_to_both = interpeer.Address.of(both.id, [interpeer.Endpoint("127.0.0.1", ports.pop())])
            async with four.connect(four_to_both), both.connect(six.address):
                pass

    run(main())


def test_a_machine_without_ipv6(run, driver, monkeypatch):
    words = [os.environ.get("INTERPEER_DISABLE", ""), "ipv6"]
    monkeypatch.setenv("INTERPEER_DISABLE", ",".join(filter(None, words)))

    async def main():
        async with interpeer.Node() as a, node() as b:
            assert all(":" not in e.host for e in a.address.endpoints)
            async with a.connect(b.address):
                pass
            with pytest.raises(interpeer.Unreachable) as caught:
                await a.connect(f"{b.id}@[::1]:9")
            assert "no socket of that family" in caught.value.reasons[0]

    run(main())


def test_an_unknown_protocol_is_refused_by_name(run):
    async def main():
        async with node() as a, node(protocols=("game/1", "game/2")) as b:
            assert (await a.connect(b.address, protocol="game/2")).protocol == "game/2"
            assert (await b.accept()).protocol == "game/2"
            with pytest.raises(interpeer.Refused, match="chat/9"):
                await a.connect(b.address, protocol="chat/9")

    run(main())


@pytest.mark.parametrize("kind", ["set", "function"])
def test_only_who_is_allowed_comes_in(run, kind):
    async def main():
        async with node() as friend, node() as stranger:
            asked = []

            def allow(peer):
                asked.append(peer)
                return peer == friend.id

            async with node(allow={friend.id} if kind == "set" else allow) as b:
                assert (await friend.connect(b.address)).is_open
                with pytest.raises(interpeer.Refused):
                    await stranger.connect(b.address)
                assert (await b.accept()).peer_id == friend.id
                assert asked == ([] if kind == "set" else [friend.id, stranger.id])
                assert b.counters()["connections"] == 1

    run(main())


@pytest.mark.row("A5")
def test_an_allow_function_that_fails_lets_nobody_in(run, monkeypatch):
    logged = []
    monkeypatch.setattr("interpeer._node.logger.exception", lambda text, *args: logged.append(text % args))

    def allow(peer):
        raise ZeroDivisionError

    async def main():
        async with node() as a, node(allow=allow) as b:
            with pytest.raises(interpeer.Refused):
                await a.connect(b.address)

    run(main())
    assert len(logged) == 1
    assert "the peer is not let in" in logged[0]


def test_another_network_does_not_hear(run):
    async def main():
        config = interpeer.Config(connect_timeout_s=0.3)
        async with node(network="one", config=config) as a, node(network="two") as b:
            with pytest.raises(interpeer.Unreachable):
                await a.connect(b.address)
            assert b.counters()["dropped_mac"] > 0

    run(main())


def test_nobody_there_says_what_was_tried(run):
    async def main():
        async with node(config=interpeer.Config(connect_timeout_s=0.3)) as a:
            async with node() as b:
                address = b.address
            with pytest.raises(interpeer.Unreachable) as caught:
                await a.connect(address)
            assert str(address.endpoints[0]) in caught.value.reasons[0]
            assert "no answer" in caught.value.reasons[0]
            with pytest.raises(interpeer.Unreachable, match="no address"):
                await a.connect(address.peer_id)

    run(main())


@pytest.mark.row("H7")
def test_connecting_to_oneself_is_refused(run):
    async def main():
        async with node() as a:
            with pytest.raises(ValueError, match="itself"):
                await a.connect(a.address)

    run(main())


def test_the_wrong_key_at_the_right_address_is_not_reached(run):
    async def main():
        async with node(config=interpeer.Config(connect_timeout_s=0.3)) as a, node() as b:
            other = interpeer.Identity.generate().id
            with pytest.raises(interpeer.Unreachable):
                await a.connect(interpeer.Address.of(other, b.address.endpoints))

    run(main())


def test_a_cancelled_connect_leaves_nothing(run):
    async def main():
        async with node() as a:
            nowhere = f"{interpeer.Identity.generate().id}@127.0.0.1:9"
            for _ in range(5):
                task = asyncio.ensure_future(a.connect(nowhere))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            del task
            while a.counters()["connections"]:
                gc.collect()
                await asyncio.sleep(0)

    run(main())


def test_a_full_backlog_refuses(run):
    async def main():
        async with node() as a, node(config=interpeer.Config(backlog=2)) as b:
            first, second = await a.connect(b.address), await a.connect(b.address)
            while b.counters()["connections"] < 2:
                await asyncio.sleep(0)
            with pytest.raises(interpeer.Refused, match="no room"):
                await a.connect(b.address)
            await b.accept()
            assert (await a.connect(b.address)).is_open
            assert first.is_open and second.is_open

    run(main())


def test_glare_ends_in_one_connection(run, monkeypatch):
    """Threads, which might have connected before the second call is made, begin when both are."""
    start, waiting = ThreadDriver._start, []
    monkeypatch.setattr(ThreadDriver, "_start", lambda driver: waiting.append(driver))

    async def main():
        async with node() as a, node() as b:
            calls = asyncio.gather(a.connect(b.address), b.connect(a.address))
            while not (a.counters()["connections"] and b.counters()["connections"]):
                await asyncio.sleep(0)
            for one in waiting:
                start(one)
            ab, ba = await calls
            assert ab.peer_id == b.id
            assert ba.peer_id == a.id
            stream = await ab.open_stream()
            await stream.write(b"one session")
            assert await (await ba.accept_stream()).readexactly(11) == b"one session"
            assert a.counters()["connections"] == b.counters()["connections"] == 1

    run(main())


def test_datagrams_both_ways(run, pair):
    async def main():
        async with pair() as p:
            assert p.ab.send_datagram(b"one") is True
            assert p.ab.send_datagrams([b"two", bytearray(b"three"), memoryview(b"four")]) == 3
            got = [await p.ba.recv_datagram()]
            while len(got) < 4:
                got += await p.ba.recv_datagrams(2)
            assert got == [b"one", b"two", b"three", b"four"]
            largest = bytes(p.ba.max_datagram_bytes)
            assert p.ba.send_datagram(largest)
            assert await p.ab.recv_datagram() == largest
            with pytest.raises(interpeer.DatagramTooLarge, match="1201 bytes"):
                p.ab.send_datagram(bytes(1201))
            with pytest.raises(interpeer.DatagramTooLarge):
                p.ab.send_datagrams([bytes(1201)])

    run(main())


def test_a_full_datagram_queue_says_no_and_has_room_later(run, pair):
    async def main():
        async with pair(datagram_queue_bytes=4096) as p:
            message = bytes(1000)
            sent = 0
            while p.ab.send_datagram(message):
                sent += 1
            assert sent
            await p.ab.datagrams_writable()
            assert p.ab.send_datagram(message)

    run(main())


def test_datagrams_that_nobody_reads_are_dropped_oldest_first(run, pair):
    async def main():
        async with pair(datagram_queue_bytes=4096) as p:
            number = 0
            while not p.ba.stats().datagrams_dropped:
                while not p.ab.send_datagram(number.to_bytes(4, "big") + bytes(500)):
                    await p.ab.datagrams_writable()
                number += 1
                await asyncio.sleep(0)
            first = int.from_bytes((await p.ba.recv_datagram())[:4], "big")
            assert first == p.ba.stats().datagrams_dropped or first > 0

    run(main())


def test_events_tell_of_connections(run):
    async def main():
        async with node(config=interpeer.Config(connect_timeout_s=1)) as a, node() as b:
            events = a.events()
            async with a.connect(b.address):
                pass
            with pytest.raises(interpeer.Unreachable):
                await a.connect(f"{b.id}@127.0.0.1:9")
            got = [await anext(events) for _ in range(3)]
            assert [type(e).__name__ for e in got] == ["PeerConnected", "PeerDisconnected", "ConnectFailed"]
            assert got[0].peer_id == b.id and not got[0].incoming
            assert got[2].reasons

    run(main())


def test_iterators_survive_a_cancellation_and_end_with_the_node(run):
    async def main():
        async with node() as a:
            async with node() as b:
                incoming, events = b.incoming(), b.events()
                for iterator in (incoming, events):
                    task = asyncio.ensure_future(anext(iterator))
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                await a.connect(b.address)
                assert (await anext(incoming)).peer_id == a.id
                waiting = asyncio.ensure_future(anext(incoming, None))
                await asyncio.sleep(0)
            assert await waiting is None
            assert [e async for e in events]

    run(main())


@pytest.mark.row("A2")
def test_closed_objects_say_so(run):
    async def main():
        a = node()
        with pytest.raises(interpeer.ClosedError, match="open the node first"):
            await a.accept()
        async with a, node() as b:
            connection = await a.connect(b.address)
            stream = await connection.open_stream()
            await connection.close()
            await connection.close()
            with pytest.raises(interpeer.ClosedError):
                await stream.write(b"x")
            with pytest.raises(interpeer.ClosedError):
                connection.send_datagram(b"x")
            with pytest.raises(interpeer.ClosedError):
                await connection.recv_datagram()
            with pytest.raises(interpeer.ClosedError):
                await connection.accept_stream()
        await a.close()
        with pytest.raises(interpeer.ClosedError):
            await a.connect(b.address)
        with pytest.raises(interpeer.ClosedError, match="once"):
            await a.__aenter__()

    run(main())


@pytest.mark.row("A1")
def test_wrong_types_and_values_are_refused(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            for wrong in (None, "text", 7, object(), [1, 2]):
                with pytest.raises(TypeError):
                    await stream.write(wrong)
                with pytest.raises(TypeError):
                    p.ab.send_datagram(wrong)
            with pytest.raises((BufferError, ValueError, TypeError)):
                await stream.write(memoryview(bytes(8))[::2])
            with pytest.raises((BufferError, TypeError)):
                await peer.readinto(b"read-only")
            released = memoryview(bytes(8))
            released.release()
            with pytest.raises(ValueError):
                await stream.write(released)
            with pytest.raises(TypeError):
                await p.a.connect(7)
            for text in ("", "x", "a" * 52, str(p.b.address)[:-1], f"{p.b.id}@", f"{p.b.id}@nowhere"):
                with pytest.raises(ValueError):
                    await p.a.connect(text)
            await stream.write(b"")
            await stream.write(b"still fine")
            assert await peer.readexactly(10) == b"still fine"
            assert await peer.read(0) == b""

    run(main())


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": "127.0.0.1"},
        {"listen": "127.0.0.1:99999"},
        {"listen": "nowhere:1"},
        {"listen": ()},
        {"protocols": ()},
        {"protocols": ("x" * 65,)},
        {"network": "n" * 65},
        {"allow": ["not an id"]},
    ],
)
def test_settings_that_cannot_be(run, settings):
    async def main():
        async with interpeer.Node(**{"listen": "127.0.0.1:0", **settings}):
            pass

    with pytest.raises(ValueError):
        run(main())


def test_a_port_in_use_is_told(run):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            async with interpeer.Node(listen=f"127.0.0.1:{taken.getsockname()[1]}"):
                pass

    with pytest.raises(OSError, match="cannot listen at 127.0.0.1"):
        run(main())


@pytest.mark.row("A4")
def test_another_loop_is_refused_with_help(run):
    async def main():
        async with node() as a, node() as b:
            connection = await a.connect(b.address)
            stream = await connection.open_stream()
            errors = []

            calls = [
                *(a.accept, lambda: a.connect(b.address), a.close, connection.accept_stream, connection.open_stream),
                *(connection.close, lambda: stream.read(1), lambda: stream.write(b"there is room")),
            ]

            def elsewhere():
                for call in calls:
                    try:
                        asyncio.run(call())
                    except interpeer.WrongLoopError as error:
                        errors.append(str(error))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0)
            thread.join()
            assert connection.is_open and stream.bytes_accepted == 0
            assert len(errors) == len(calls)
            assert all("interpeer.blocking" in text for text in errors)

    run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.row("A4")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_and_disturbs_nothing(run, pair):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                said = b"nothing"
                try:
                    p.ab.send_datagram(b"from the child")
                except interpeer.ForkedError as error:
                    said = str(error).encode()
                except BaseException as error:
                    said = repr(error).encode()
                os.write(writer, said)
                os._exit(0)
            os.close(writer)
            assert b"open a node of its own" in os.read(reader, 1000)
            os.close(reader)
            await asyncio.to_thread(os.waitpid, child, 0)
            await stream.write(b"as before")
            assert await peer.readexactly(9) == b"as before"

    run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.row("A4")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_sends_nothing_and_calls_nobody(run, pair):
    def in_the_child(p):
        """Do what the loop and the application of a child might do; return what was told."""
        told = []
        where = [endpoint.to_core() for endpoint in p.b.address.endpoints]
        connect = functools.partial(control.connect, p.a._engines[0], bytes(p.b.id), where, b"interpeer/1")
        for call in (p.a.counters, connect, lambda: control.events(p.a._engines[0])):
            try:
                call()
            except interpeer.ForkedError:
                told.append("forked")
        before = p.a._driver.counters()["sent_packets"]
        with suppress(interpeer.ForkedError):
            p.a._driver.flush()
        return [*told, p.a._driver.counters()["sent_packets"] - before]

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            reader, writer = os.pipe()
            await stream.write(b"sealed once")  # at the next turn
            child = os.fork()
            if child == 0:
                try:
                    os.write(writer, repr(in_the_child(p)).encode())
                finally:
                    os._exit(0)
            os.close(writer)
            assert os.read(reader, 1000) == b"['forked', 'forked', 'forked', 0]"
            os.close(reader)
            await asyncio.to_thread(os.waitpid, child, 0)
            assert await peer.readexactly(11) == b"sealed once"
            assert p.b.counters()["dropped_replayed"] == 0

    run(main())


@pytest.mark.row("A11")
def test_secrets_do_not_show():
    identity = interpeer.Identity.generate()
    seed = identity.seed
    ticket = interpeer.Address.of(identity.id, [interpeer.Endpoint("192.0.2.1", 1)], secret=bytes(range(16)))
    for text in (repr(identity), str(identity), repr(ticket)):
        assert seed.hex() not in text
        assert bytes(range(16)).hex() not in text
        assert repr(seed)[2:-1] not in text
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(identity)


@pytest.mark.row("A8")
def test_a_loop_closed_under_open_nodes_does_not_hang():
    nodes = []

    async def main():
        a, b = node(), node()
        await a.__aenter__()
        await b.__aenter__()
        nodes.extend((a, b, await a.connect(b.address)))

    asyncio.run(main())
    for left in nodes[:2]:
        asyncio.run(left.close())  # on another loop, since its own is gone
    nodes.clear()
