"""What a pump on a thread of its own does between any two looks of a task at the core: no answer mixes two moments."""

import asyncio

import pytest

from interpeer import ConnectionClosed, StreamReset
from interpeer._connection import Connection
from interpeer._stream import Stream
from interpeer._waiting import Waiters
from tests.spec import reference as ref
from tests.spec.peer import NODES, Node, Peer

LOOKS = range(8)


@pytest.fixture(autouse=True)
def _forget_nodes():
    yield
    NODES.clear()


class Between:
    """A handle of the core; before the `look`-th use of it, `happens` is called."""

    def __init__(self, handle, look, happens):
        self._handle, self._left, self._happens = handle, look, happens

    def __getattr__(self, name):
        if self._left == 0:
            self._happens()
        self._left -= 1
        return getattr(self._handle, name)


class FakeConnection:
    """What a stream needs of its connection; a wait that the core does not answer at once is told of at once."""

    def __init__(self, handle):
        self.handle = handle

    is_open = property(lambda self: self.handle.is_open)

    def _error(self):
        return ConnectionClosed("it is over", 0, "")

    def _waiters_of_stream(self, number):
        return EagerWaiters(asyncio.get_running_loop())

    def _forget_stream(self, number):
        pass


class EagerWaiters(Waiters):
    async def wait(self, event, is_so):
        is_so()


def do(peer, handle, look, happens, verb):
    """Return what a verb of a stream gives, when something happens before a look at the core."""

    async def main():
        return await verb(Stream(FakeConnection(peer.handle), Between(handle, look + 1, happens)))  # the first is its number

    return asyncio.run(main())


def stream_with(data):
    peer = Peer(Node()).call()
    peer.send(ref.stream(0, data))
    return peer, peer.handle.accept_stream()


READS = {
    "read": lambda stream: stream.read(14),
    "readexactly": lambda stream: stream.readexactly(14),
    "iteration": lambda stream: anext(stream),
}


@pytest.mark.parametrize("verb", READS)
@pytest.mark.parametrize("look", LOOKS)
def test_last_words_before_a_close_are_read(look, verb):
    peer, handle = stream_with(b"")
    words = (ref.stream(0, b"the last words", fin=True), ref.close(0, b"bye", app=True))
    if look == 0:
        peer.send(*words)
        look = 100
    assert do(peer, handle, look, lambda: peer.send(*words), READS[verb]) == b"the last words"


@pytest.mark.parametrize("look", LOOKS)
def test_a_reset_never_makes_a_read_short(look):
    peer, handle = stream_with(b"0123456789")

    async def read(stream):
        try:
            return await stream.readexactly(10)
        except StreamReset as error:
            return error.code

    assert do(peer, handle, look, lambda: peer.send(ref.reset_stream(0, 7, 10)), read) in (b"0123456789", 7)


@pytest.mark.parametrize("look", LOOKS)
def test_what_the_peer_stops_reading_is_not_told_as_delivered(look):
    peer = Peer(Node()).call()
    handle = peer.handle.open_stream()
    handle.write(bytes(100))

    def happens():
        peer.send(ref.stop_sending(handle.id, 9))

    async def finish(stream):
        await stream.finish()

    if look == 0:
        happens()
    with pytest.raises(StreamReset, match="code 9"):
        do(peer, handle, look, happens, finish)


class FakeNode:
    _config = None

    def __init__(self, loop):
        self._loop = loop


@pytest.mark.parametrize("verb", ["recv_datagram", "recv_datagrams", "accept_stream"])
@pytest.mark.parametrize("look", range(1, 4))
def test_what_came_just_before_the_end_of_a_connection_is_had(look, verb):
    peer = Peer(Node()).call()

    async def main():
        connection = Connection(FakeNode(asyncio.get_running_loop()), peer.handle, "test/1")
        last = (ref.datagram(b"the last"), ref.stream(0, b"the last"), ref.close(0, b"bye", app=True))
        connection._handle = Between(peer.handle, look, lambda: peer.send(*last))
        connection._waiters = EagerWaiters(connection._node._loop)
        found = await getattr(connection, verb)()
        return found._handle.read(8) if verb == "accept_stream" else found

    assert asyncio.run(main()) == ([b"the last"] if verb == "recv_datagrams" else b"the last")
    peer.handle.owner = None
