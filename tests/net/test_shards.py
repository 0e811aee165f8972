"""A node of several shards on real sockets, steered by the kernel, spread by it at random, or fed by one socket."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import sys
import threading

import pytest

import interpeer
from interpeer import Config, Node, blocking
from interpeer._bench import peer
from interpeer._core import control

ANY = "127.0.0.1:0"
CONNECTIONS = 24
IS_LINUX = sys.platform == "linux"
WAYS = {"": IS_LINUX, "steering": False, "reuseport": False}
"""What is switched off, and whether each datagram then comes where it belongs."""


def run(main):
    async def bounded():
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(bounded())


async def exchange(a: Node, b: Node) -> None:
    """Move data and datagrams both ways over some connections."""
    data = [hashlib.shake_128(b"%d" % i).digest(200_000) for i in range(CONNECTIONS)]

    async def call(text):
        connection = await a.connect(b.address)
        async with connection.open_stream() as stream:
            await stream.write(text)
        assert connection.send_datagram(text[:100])
        assert await connection.recv_datagram() == text[:100]
        assert await stream.read() == text[::-1]

    async def serve(connection):
        stream = await connection.accept_stream()
        text = await stream.read()
        connection.send_datagram(await connection.recv_datagram())
        await stream.write(text[::-1])
        await stream.finish()

    async def serve_all():
        await asyncio.gather(*[serve(await b.accept()) for _ in range(CONNECTIONS)])

    await asyncio.gather(serve_all(), *map(call, data))


@pytest.mark.parametrize("words", WAYS)
@pytest.mark.parametrize("shards", [2, 3])
def test_connections_are_spread_over_shards_and_work_whichever_way_datagrams_come(words, shards, monkeypatch):
    monkeypatch.setenv("INTERPEER_DISABLE", words)

    async def main():
        config = Config(shards=shards)
        async with Node(listen="[::]:0", config=config) as a, Node(listen="[::]:0", config=config) as b:
            await exchange(a, b)
            for node in (a, b):
                each = [control.counters(core)["connections"] for core in node._engines]
                assert len(each) == shards and sum(each) == node.counters()["connections"] == CONNECTIONS
                assert sum(count > 0 for count in each) > 1
                assert (node.counters()["shard_forwarded"] == 0) == WAYS[words]

    run(main())


@pytest.mark.skipif(not IS_LINUX, reason="only Linux spreads datagrams over sockets")
def test_an_address_that_is_taken_is_refused_to_shards_too():
    async def main():
        config = Config(shards=2)
        async with Node(listen=ANY, config=config) as node:
            taken = str(node.address.endpoints[0])
            for settings in (config, Config()):
                with pytest.raises(OSError) as caught:
                    async with Node(listen=taken, config=settings):
                        pass
                assert caught.value.errno == errno.EADDRINUSE

    run(main())


def test_the_application_is_asked_whichever_shard_a_peer_comes_to():
    async def main():
        asked = []

        def allow(peer_id):
            asked.append(peer_id)
            return len(asked) % 2 == 0

        async with Node(listen=ANY, config=Config(shards=3), allow=allow) as b:
            ends = []
            for _ in range(8):
                async with Node(listen=ANY) as a:
                    try:
                        ends.append((await a.connect(b.address)).is_open)
                    except interpeer.Refused:
                        ends.append(False)
            assert ends == [False, True] * 4 and len(asked) == 8

    run(main())


def test_closing_ends_all_threads_and_tells_the_peers():
    before = threading.active_count()

    async def main():
        async with Node(listen=ANY) as a:
            async with Node(listen=ANY, config=Config(shards=3)) as b:
                connections = [await a.connect(b.address) for _ in range(6)]
                assert {(await b.accept()).peer_id for _ in connections} == {a.id}
                assert threading.active_count() == before + 3
            await asyncio.gather(*(connection.wait_closed() for connection in connections))
            assert {connection.closed_by for connection in connections} == {"peer"}

    run(main())
    assert threading.active_count() == before


def test_as_many_shards_as_this_process_has_processors():
    async def main():
        async with Node(listen=ANY, config=Config(shards=0)) as node:
            return len(node._engines)

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert run(main()) == min(usable, 32)


def test_a_loop_that_cannot_watch_sockets_has_one_engine(monkeypatch):
    monkeypatch.setenv("INTERPEER_DISABLE", "reader")

    async def main():
        async with Node(listen=ANY, config=Config(shards=2)) as a, Node(listen=ANY) as b:
            assert len(a._engines) == 1
            await exchange(a, b)

    run(main())


def test_threads_may_use_a_node_of_shards():
    config = Config(shards=2)
    with blocking.Node(listen=ANY, config=config) as a, blocking.Node(listen=ANY, config=config) as b:

        def serve():
            stream = b.accept(timeout=30).accept_stream(timeout=30)
            stream.write(stream.read(timeout=30), timeout=30)
            stream.finish(timeout=30)

        def call(number):
            stream = a.connect(b.address, timeout=30).open_stream(timeout=30)
            stream.write(b"%d" % number, timeout=30)
            stream.finish(timeout=30)
            assert stream.read(timeout=30) == b"%d" % number
            done.append(number)

        done = []
        threads = [threading.Thread(target=serve) for _ in range(4)]
        threads += [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == [0, 1, 2, 3]


@pytest.mark.parametrize("shards", [1, 2])
def test_many_busy_connections_between_two_processes_share_fairly(shards):
    """The small version of the load "many" of the benchmarks."""
    figures = peer.run_once("many", 1.0, loop="asyncio", plan={"busy_connections": 50}, shards=shards, send_buffer_bytes=1 << 17)
    assert figures["connections"] == 50 and figures["gbit"] > 0
    assert figures["jain"] > 0.5 and figures["ping_p50_ms"] > 0


class Full:
    """A socket that wakes a thread, and says that it was full by then."""

    def __init__(self, real):
        self.real = real

    def send(self, data):
        self.real.send(data)
        raise BlockingIOError(errno.EAGAIN, "full")

    def close(self):
        self.real.close()


@pytest.mark.parametrize("shards", [1, 2])
def test_a_node_closes_while_its_threads_have_many_calls_to_look_at(shards):
    async def main():
        node = Node(listen=ANY, config=Config(pump="thread", shards=shards))
        async with node:
            drivers = node._driver._shards if shards > 1 else [node._driver]
            for driver in drivers:
                driver._wake = Full(driver._wake)
            for driver in drivers:
                driver.kick()
        assert not any(driver._thread.is_alive() for driver in drivers)

    run(main())


def test_an_error_of_a_later_shard_closes_what_is_open(monkeypatch):
    """A port may be taken between two shards where the system does not tell them apart."""
    from interpeer._driver import ThreadDriver

    def fail(self, first, disabled):
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(ThreadDriver, "join", fail)

    async def main():
        with pytest.raises(OSError, match="taken"):
            async with Node(listen=ANY, config=Config(shards=2)):
                pass

    before = len(os.listdir("/proc/self/fd")) if IS_LINUX else 0
    run(main())
    assert not IS_LINUX or len(os.listdir("/proc/self/fd")) == before
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
