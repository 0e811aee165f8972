"""The face for threads."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import interpeer
from interpeer import blocking
from interpeer.blocking._thread import LoopThread


@contextmanager
def two_nodes():
    with blocking.Node(listen="127.0.0.1:0") as a, blocking.Node(listen="127.0.0.1:0") as b:
        yield a, b


def test_two_threads_talk():
    with two_nodes() as (a, b):
        got = []

        def serve():
            for connection in b.incoming():
                for stream in connection.streams():
                    got.append(b"".join(stream))
                    stream.write(b"thanks")
                    stream.finish(timeout=5)
                return

        thread = threading.Thread(target=serve)
        thread.start()
        with a.connect(b.address, timeout=5) as connection, connection.open_stream(timeout=5) as stream:
            stream.write(b"x" * 1_000_000)
            stream.finish(timeout=5)
            assert stream.read(timeout=5) == b"thanks"
        thread.join(5)
        assert got == [b"x" * 1_000_000]


def test_every_call_takes_a_timeout():
    with two_nodes() as (a, b):
        with pytest.raises(TimeoutError):
            b.accept(timeout=0.01)
        connection = a.connect(b.address, timeout=5)
        other = b.accept(timeout=5)
        stream = connection.open_stream()
        peer = other.accept_stream(timeout=5)
        for call in (peer.read, lambda timeout: peer.readexactly(4, timeout=timeout), other.recv_datagram, other.accept_stream):
            with pytest.raises(TimeoutError):
                call(timeout=0.01)
        stream.write(b"late")
        assert peer.readexactly(4, timeout=5) == b"late"
        assert connection.send_datagram(b"d")
        assert other.recv_datagrams(timeout=5) == [b"d"]
        waits = {
            name
            for kind in (blocking.Connection, blocking.Stream, blocking.Channel, blocking.Node)
            for name, f in vars(kind).items()
            if inspect.isfunction(f) and not name.startswith("_") and "timeout" not in inspect.signature(f).parameters
        }
        at_once = {
            "stats",
            "send_datagram",
            "send_datagrams",
            "reset",
            "stop",
            "counters",
            "report",
            "close_path",
            "set_standby",
            "set",
        }
        assert waits == at_once, "these wait for nobody"


def test_it_mirrors_the_asynchronous_api():
    for kind in (interpeer.Node, interpeer.Connection, interpeer.Stream, interpeer.Channel):
        mine = getattr(blocking, kind.__name__)
        wanted = {name for name in vars(kind) if not name.startswith("_")}
        assert wanted <= set(dir(mine)), kind
        for name in filter(lambda name: inspect.isfunction(getattr(kind, name)), wanted):
            theirs, ours = (inspect.signature(getattr(each, name)).parameters for each in (kind, mine))
            assert {key: value.default for key, value in theirs.items()}.items() <= {
                key: value.default for key, value in ours.items()
            }.items(), (kind, name)


def test_what_a_channel_is_not_asked_to_change_stays():
    with two_nodes() as (a, b):
        channel = a.connect(b.address, timeout=5).open_channel(deadline=0.5, fec=0.25, timeout=5)
        channel.set(priority=2)
        assert (channel.options.deadline, channel.options.fec, channel.options.priority) == (0.5, 0.25, 2)
        channel.set(deadline=None, fec=None)
        assert (channel.options.deadline, channel.options.fec) == (None, None)
        with pytest.raises(ValueError, match="deadline"):
            channel.set(deadline=-1)


def test_what_iterates_can_be_timed_and_used_again():
    with two_nodes() as (a, b):
        incoming, events = b.incoming(timeout=0.01), b.events(timeout=0.01)
        for waiting in (incoming, events):
            with pytest.raises(TimeoutError):
                next(waiting)
        connection = a.connect(b.address, timeout=5)
        assert a.connections == [connection] and {*a.connections} == {connection}
        event = next(b.events(timeout=5))
        assert isinstance(event, interpeer.PeerConnected) and event.peer_id == a.id
        accepted = next(b.incoming(timeout=5))
        streams = accepted.streams(timeout=0.01)
        with pytest.raises(TimeoutError):
            next(streams)
        stream = connection.open_stream(timeout=5)
        peer = next(accepted.streams(timeout=5))
        chunks = peer.chunks(timeout=0.01)
        with pytest.raises(TimeoutError):
            next(chunks)
        stream.write(b"x" * 1_000_000, timeout=5)
        finishing, _ = outcome(lambda: stream.finish(timeout=5))
        assert b"".join(peer.chunks(timeout=5)) == b"x" * 1_000_000
        finishing.join(5)
        connection.close(timeout=5)
        assert list(accepted.streams(timeout=5)) == []
        b.close(timeout=5)
        assert list(incoming) == []
        assert [type(event) for event in events] == [interpeer.PeerDisconnected]
        assert b.connections == [] and b.config == a.config and b.protocols == a.protocols


def test_arrays_and_files(tmp_path):
    with two_nodes() as (a, b):
        stream = a.connect(b.address, timeout=5).open_stream()
        peer = b.accept(timeout=5).accept_stream(timeout=5)
        array = np.arange(10_000.0)
        thread = threading.Thread(target=stream.send_array, args=(array,), kwargs={"timeout": 5})
        thread.start()
        assert (peer.recv_array(timeout=5) == array).all()
        thread.join()
        (tmp_path / "a").write_bytes(b"content")
        thread = threading.Thread(target=stream.send_file, args=(tmp_path / "a",), kwargs={"timeout": 5})
        thread.start()
        assert peer.recv_file(tmp_path / "b", timeout=5) == 7
        thread.join()
        assert (tmp_path / "b").read_bytes() == b"content"


def test_errors_are_the_same():
    with two_nodes() as (a, b):
        with pytest.raises(interpeer.Refused, match="chat"):
            a.connect(b.address, protocol="chat/1", timeout=5)
        connection = a.connect(b.address, timeout=5)
        other = b.accept(timeout=5)
        connection.close(3, "done", timeout=5)
        other.wait_closed(timeout=5)
        assert other.closed_by == "peer"
        with pytest.raises(interpeer.ConnectionClosed, match="done"):
            other.open_stream(timeout=5)


def test_a_closed_node_says_so():
    with blocking.Node(listen="127.0.0.1:0") as node:
        pass
    node.close()
    with pytest.raises(interpeer.ClosedError):
        node.accept(timeout=1)


def test_it_works_inside_a_running_loop():
    async def main():
        with blocking.Node(listen="127.0.0.1:0") as a, blocking.Node(listen="127.0.0.1:0") as b:
            assert a.connect(b.address, timeout=5).peer_id == b.id

    asyncio.run(main())


def outcome(call):
    """Run a call on a thread of its own; return the thread and the list that its error comes into."""
    errors = []

    def run():
        try:
            call()
        except Exception as error:
            errors.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_closing_ends_every_call_that_waits():
    with two_nodes() as (a, b):
        connection = a.connect(b.address, timeout=5)
        stream = connection.open_stream()
        calls = [stream.read, a.accept, connection.recv_datagram, connection.accept_stream, lambda: stream.write(bytes(10**8))]
        waiting = [outcome(call) for call in calls]
        while len(a._thread.do(asyncio.all_tasks)) < len(calls) + 2:  # the loop's own, and this look
            pass
        closing = [outcome(a.close) for _ in range(3)]
        for thread, errors in waiting:
            thread.join(10)
            assert errors == [interpeer.ClosedError]
        for thread, errors in closing:
            thread.join(10)
            assert not thread.is_alive() and errors == []


def test_a_call_that_is_cancelled_by_the_end_says_that_the_node_is_closed():
    thread = LoopThread()
    waiting, errors = outcome(lambda: thread.call(lambda: asyncio.sleep(1000), None))
    while len(thread.do(asyncio.all_tasks)) < 3:
        pass
    thread.close()
    waiting.join(10)
    assert errors == [interpeer.ClosedError]


def test_calls_that_race_close_all_return():
    for _ in range(20):
        with two_nodes() as (a, b):
            stream = a.connect(b.address, timeout=5).open_stream()

            def spin(stream=stream):
                while True:
                    stream.reset()

            spinning = [outcome(spin) for _ in range(4)]
            while not any(thread.is_alive() for thread, _ in spinning):
                pass
            a.close(timeout=10)
            for thread, errors in spinning:
                thread.join(10)
                assert errors == [interpeer.ClosedError]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_told_so_and_closes_nothing():
    with two_nodes() as (a, b):
        connection = a.connect(b.address, timeout=5)
        child = os.fork()
        if child == 0:  # nothing of pytest's may run here
            try:
                connection.open_stream(timeout=5)
            except interpeer.ForkedError:
                a.close(timeout=5)
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert connection.open_stream(timeout=5).id == 0
