"""What cannot be meant is refused where it is said, with the reason, and does no harm."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys

import numpy as np
import pytest

import interpeer


def node(**kwargs):
    return interpeer.Node(listen="127.0.0.1:0", **kwargs)


async def asked_later(peer_id):
    return False


class AskedLater:
    async def __call__(self, peer_id):
        return False


@pytest.mark.parametrize("allow", [asked_later, functools.partial(asked_later), AskedLater()])
def test_allow_is_no_coroutine_function(allow):
    with pytest.raises(TypeError, match="async def"):
        interpeer.Node(allow=allow)


@pytest.mark.parametrize("answer", [lambda peer: asked_later(peer), lambda peer: 1, lambda peer: "no", lambda peer: None])
def test_an_answer_of_allow_that_is_no_bool_lets_nobody_in(run, caplog, answer):
    async def main():
        async with node(allow=answer) as b, node() as a:
            with pytest.raises(interpeer.Refused):
                await a.connect(b.address)

    with caplog.at_level(logging.ERROR, "interpeer"):
        run(main())
    assert "a bool was expected" in caplog.text
    caplog.clear()  # its records hold the traceback, and that the engine


NOT_YET_OPEN = {
    "id": lambda n: n.id,
    "address": lambda n: n.address,
    "counters": lambda n: n.counters(),
    "accept": lambda n: n.accept(),
    "connect": lambda n: n.connect("anybody"),
    "incoming": lambda n: n.incoming(),
    "events": lambda n: n.events(),
}


@pytest.mark.parametrize("use", NOT_YET_OPEN.values(), ids=NOT_YET_OPEN)
def test_a_node_that_is_not_open_says_so(use):
    async def main():
        asynchronous, blocking = node(), interpeer.blocking.Node()
        with pytest.raises(interpeer.ClosedError, match="open the node first"):
            answer = use(asynchronous)
            await answer
        with pytest.raises(interpeer.ClosedError, match="open the node first"):
            use(blocking)
        assert asynchronous.connections == blocking.connections == []
        assert asynchronous.protocols == blocking.protocols == ("interpeer/1",)
        await asynchronous.close()
        blocking.close()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["state_dir", "identity"])
def test_an_empty_path_is_not_the_current_folder(name):
    with pytest.raises(ValueError, match=name):
        interpeer.Node(**{name: ""})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1,), ValueError),
        ((1 << 62,), ValueError),
        ((1.5,), TypeError),
        (("1",), TypeError),
        ((0, 5), TypeError),
        ((0, None), TypeError),
        ((0, "\ud800"), ValueError),
    ],
)
def test_close_is_refused_before_it_waits_and_leaves_the_connection_open(run, pair, arguments, error):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"unread")
            finishing = asyncio.ensure_future(stream.finish())
            closing = p.ab.close(*arguments)
            with pytest.raises(error):
                closing.send(None)  # at once: a coroutine that waits would return here
            assert p.ab.is_open
            assert await peer.read() == b"unread"
            await finishing
            await p.ab.close((1 << 62) - 1, "é" * 600)
            await p.ba.wait_closed()
            with pytest.raises(interpeer.ConnectionClosed) as told:
                await p.ba.open_stream()
            assert told.value.code == (1 << 62) - 1

    run(main())


@pytest.mark.parametrize("code", [1.5, "1", None])
def test_a_code_is_a_whole_number(run, pair, code):
    async def main():
        async with pair() as p:
            stream, _ = await p.streams()
            for give_up in (stream.reset, stream.stop):
                with pytest.raises(TypeError):
                    give_up(code)
            await stream.write(b"unharmed")

    run(main())


@pytest.mark.parametrize("most", [0, -1])
def test_to_ask_for_no_datagrams_is_refused(run, pair, most):
    async def main():
        async with pair() as p:
            p.ab.send_datagram(b"one")
            with pytest.raises(ValueError, match="at least 1"):
                await p.ba.recv_datagrams(max=most)
            assert await p.ba.recv_datagrams(max=1) == [b"one"]

    run(main())


OBJECTS = {
    "an array": np.array([object(), None]),
    "records": np.zeros(2, [("a", "O"), ("b", "f8")]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_buffer_of_python_objects_is_not_sent(run, pair, name):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            objects = OBJECTS[name]
            for send in (
                lambda: stream.write(objects).send(None),
                lambda: p.ab.send_datagram(objects),
                lambda: p.ab.send_datagrams([objects]),
                lambda: p.ab.send_datagrams((objects,)),
            ):
                with pytest.raises(TypeError, match="Python objects"):
                    send()
            plain = np.ones(2, [("Ocean", "f8")])
            await stream.write(plain)
            assert await peer.readexactly(16) == plain.tobytes()
            assert p.ab.send_datagrams((plain, b"x")) == 2
            assert await p.ba.recv_datagram() == plain.tobytes()

    run(main())


UNCLOSED = """
import asyncio
import tracemalloc  # the first warning imports it, and a collection in the middle of that would lose another one
import interpeer

async def main():
    node = interpeer.Node(listen="127.0.0.1:0")
    other = interpeer.Node(listen="127.0.0.1:0")
    await node.__aenter__()
    await other.__aenter__()
    return node, await node.connect(other.address)

node, connection = asyncio.run(main())
for send in (lambda: connection.send_datagram(b"x"), lambda: connection.send_datagrams([b"x"])):
    try:
        send()
    except interpeer.ClosedError:
        print("closed")
blocking = interpeer.blocking.Node(listen="127.0.0.1:0").__enter__()
del blocking
"""


def test_a_node_that_is_never_closed_is_warned_of_and_sends_nothing_without_its_loop(tmp_path):
    script = tmp_path / "unclosed.py"
    script.write_text(UNCLOSED)
    command = [sys.executable, "-W", "always::ResourceWarning", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["closed"] * 2
    warnings = [line for line in done.stderr.splitlines() if ": ResourceWarning: <Node " in line]
    assert len(warnings) == 3 and all("was never closed" in line for line in warnings), done.stderr


def test_nodes_that_are_open_when_the_interpreter_ends_do_not_break_it(tmp_path):
    """The collector takes the event loop's callbacks apart before it comes to the connection, which would call one."""
    script = tmp_path / "unclosed.py"
    script.write_text(UNCLOSED.partition("for send")[0])
    command = [sys.executable, "-W", "always::ResourceWarning", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("was never closed\n") == 2, done.stderr
