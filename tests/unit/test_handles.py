"""What Python holds of the core, where it could harm it: bounds of buffers, memory that is short, collected handles."""

import gc
import os
import sys

import pytest

from interpeer import Config
from interpeer._core import connection_handle, control, stream_handle
from interpeer._core.engine import Engine
from interpeer._core.pump import Pump

MS = 1_000_000
PROTOCOL = b"handles/1"
AT = tuple((bytes(10) + b"\xff\xff" + bytes([192, 0, 2, n]), 1000 + n, 0) for n in (1, 2))


class Ends:
    """Two engines, stepped by hand, and a connection between them."""

    def __init__(self, **settings):
        self.now = 1000 * MS
        self.engines = Engine(), Engine()
        self.exchanges = [control.Exchange(engine) for engine in self.engines]
        limits = Config(keep_alive_s=0, skip_every=0, **settings).core_limits()
        for n, engine in enumerate(self.engines):
            control.configure(engine, bytes([n]) * 32, b"", False, [PROTOCOL], ["chacha20-poly1305"], 100, limits)
        self.here = []
        self.dial(1)
        self.there = [event[1] for event in control.events(self.engines[1]) if event[0] == control.INCOMING]
        assert len(self.there) == 1

    def dial(self, count):
        identity = control.identity_of(bytes([1]) * 32)
        self.here += [control.connect(self.engines[0], identity, [AT[1]], PROTOCOL) for _ in range(count)]
        self.carry()

    def transmit(self, side):
        for engine in self.engines:
            control.add_entropy(engine, os.urandom(control.entropy_missing(engine)))
        return self.exchanges[side].transmit(self.now)

    def carry(self):
        """Let both sides talk until neither has anything more to say."""
        said = True
        while said:
            self.now += 30 * MS
            said = False
            for side in (0, 1):
                self.exchanges[side].handle_timeout(self.now)
                packets = [(data, AT[side], ecn) for data, _, ecn in self.transmit(side)]
                self.exchanges[1 - side].receive(packets, self.now)
                said = said or bool(packets)


@pytest.mark.parametrize("start", [-1, 4])
@pytest.mark.parametrize("verb", ["write", "readinto", "post"])
def test_start_outside_of_the_buffer_is_refused_and_the_buffer_is_free(verb, start):
    buffer, stream = bytearray(3), Ends().here[0].open_stream()
    with pytest.raises(ValueError, match=f"start {start} lies outside of 3 bytes"):
        getattr(stream, verb)(buffer, start, *([1] if verb == "post" else []))
    buffer.extend(b"not held by anybody")
    assert not stream.has_post


@pytest.mark.parametrize("start", [0, 3])
def test_start_at_either_end_of_the_buffer_is_good(start):
    buffer, stream = bytearray(3), Ends().here[0].open_stream()
    assert stream.write(buffer, start) == 3 - start
    assert stream.readinto(buffer, start) == 0
    assert stream.post(buffer, start, 1) is False
    assert stream.unpost() == 0


@pytest.mark.parametrize(
    "read", [lambda handle: handle.recv_datagram(), lambda handle: handle.closed(), lambda handle: handle.peer_identity]
)
def test_reader_without_memory_gives_the_lock_back(read):
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without its tests, which make memory short")
    ends = Ends()
    ends.here[0].send_datagram(bytes(1000))
    ends.carry()
    ends.here[0].close(7, bytes(200))
    ends.carry()
    handle = ends.there[0]
    testcapi.set_nomemory(0)
    try:
        read(handle)
        failed = False
    except MemoryError:
        failed = True
    finally:
        testcapi.remove_mem_hooks()
    assert failed
    assert read(handle)


def test_events_of_a_connection_that_goes_away_meanwhile_are_left_out():
    ends = Ends()
    assert not ends.there[0].want(connection_handle.EVENT_DATAGRAM)
    ends.dial(12)
    ends.here[0].send_datagram(b"an event")
    ends.carry()
    ends.engines[1].on_kick = lambda: ends.transmit(1)  # a turn that comes at once, as one on another thread may
    before = gc.get_threshold()
    gc.collect()
    cycle = [ends.there.pop()]
    cycle.append(cycle)
    del cycle
    gc.set_threshold(gc.get_count()[0] + 6)  # the collector runs while the handles of the new connections are made
    try:
        events = control.events(ends.engines[1])
    finally:
        gc.set_threshold(*before)
        ends.engines[1].on_kick = None
    assert [kind for kind, *_ in events] == [control.INCOMING] * 12


def test_pump_that_was_never_made_closes_no_descriptor():
    before = os.fstat(0)
    with pytest.raises(TypeError):
        Pump(None)
    assert os.path.samestat(os.fstat(0), before)


def test_stop_wakes_who_waits_to_read_even_if_there_is_nothing_to_send():
    ends = Ends()
    theirs = ends.there[0].open_stream()
    ends.carry()
    ours = ends.here[0].accept_stream()
    theirs.write(b"lost")
    ends.transmit(1)
    theirs.finish()
    ends.exchanges[0].receive([(data, AT[1], ecn) for data, _, ecn in ends.transmit(1)], ends.now)
    ends.transmit(0)
    control.events(ends.engines[0])
    kicks = []
    ends.engines[0].on_kick = lambda: kicks.append("kick")
    assert ours.want_readable() is False and kicks == []
    ours.stop(5)
    assert kicks == ["kick"]
    assert [event[2:] for event in control.events(ends.engines[0])] == [(ours.id, stream_handle.READABLE)]
    assert ours.want_readable() is True


@pytest.mark.parametrize("code", [1 << 62, (1 << 64) + 1, -1])
@pytest.mark.parametrize("verb", ["close", "reset", "stop"])
def test_code_that_no_frame_can_carry_is_refused_and_nothing_is_done(verb, code):
    ends = Ends()
    stream = ends.here[0].open_stream()
    with pytest.raises(ValueError, match=f"from 0 to 2\\*\\*62 - 1, not {code}"):
        ends.here[0].close(code, b"") if verb == "close" else getattr(stream, verb)(code)
    assert ends.here[0].is_open and stream.can_write and stream.reading() == stream_handle.MORE


@pytest.mark.parametrize("made", [connection_handle.ConnectionHandle, stream_handle.StreamHandle])
def test_handle_of_nothing_cannot_be_made(made):
    for make in (made, lambda *args: made.__new__(made, *args)):
        for args in ((), (Engine(),), (None,), (object(),)):
            with pytest.raises(TypeError):
                make(*args)


@pytest.mark.parametrize("verb", ["read", "readinto", "readexactly"])
def test_read_of_many_pieces_is_whole(verb):
    ends = Ends(stream_window_bytes=4 << 20, connection_window_bytes=4 << 20)
    theirs, sent, data = ends.there[0].open_stream(), 0, bytes(range(256)) * 4096
    while sent < len(data):
        sent += theirs.write(data, sent)
        ends.carry()
    ours = ends.here[0].accept_stream()
    assert ours.bytes_readable == len(data)
    if verb == "readinto":
        buffer = bytearray(len(data) + 7)
        assert ours.readinto(buffer, 7) == len(data) and buffer[7:] == data
    else:
        assert ours.read(len(data), len(data) if verb == "readexactly" else 1) == data


def test_read_of_at_least_as_much_takes_nothing_before_it_is_there():
    ends = Ends()
    theirs = ends.there[0].open_stream()
    theirs.write(b"12345")
    ends.carry()
    stream = ends.here[0].accept_stream()
    assert stream.read(10, 6) is None and stream.read(0, 0) is None
    assert stream.read(3, 3) == b"123" and stream.read(10) == b"45" and stream.read(10) is None
    with pytest.raises(ValueError, match="cannot read -1 bytes"):
        stream.read(-1)


def test_second_loan_and_second_post_are_refused_and_hold_nothing():
    stream = Ends().here[0].open_stream()
    first, second = bytearray(10), bytearray(10)
    assert stream.lend(first)
    with pytest.raises(RuntimeError, match="another buffer"):
        stream.lend(second)
    assert stream.post(first, 0, 1) is False
    with pytest.raises(RuntimeError, match="another task"):
        stream.post(second, 0, 1)
    second.extend(b"free")
    with pytest.raises(BufferError):
        first.extend(b"held")
    stream.return_loan()
    stream.return_loan()
    assert stream.unpost() == 0 and stream.unpost() == 0
    first.extend(b"free")


def test_batches_have_one_user_at_a_time():
    ends = Ends()

    def datagrams():
        yield bytes(30), AT[1], 0
        ends.exchanges[0].transmit(ends.now)

    with pytest.raises(RuntimeError, match="one at a time"):
        ends.exchanges[0].receive(datagrams(), ends.now)
    assert ends.transmit(0) == []


@pytest.mark.parametrize("verb", ["lend", "post"])
def test_a_buffer_that_is_given_back_is_not_touched_any_more(verb):
    """The collector visits the buffers that a handle holds: what it has given back may have gone away."""
    ends = Ends()
    stream = ends.here[0].open_stream()
    buffer = bytearray(100)
    before = sys.getrefcount(buffer)
    if verb == "lend":
        assert stream.lend(buffer)
        assert buffer in gc.get_referents(stream)
        stream.return_loan()
    else:
        assert not stream.post(buffer, 0, 1)
        assert buffer in gc.get_referents(stream)
        stream.unpost()
    assert buffer not in gc.get_referents(stream) and sys.getrefcount(buffer) == before
    del stream
    assert sys.getrefcount(buffer) == before
    buffer += b"it can grow again"


# --- large messages ---


def test_a_large_message_is_copied_aside_and_leaves_nothing_behind():
    ends = Ends()
    channel = ends.here[0].open_channel((3, 3, 0, 0, 0))
    message = os.urandom(5 * (1 << 20) + 7)
    ends.carry()
    incoming = ends.there[0].accept_channel()
    for buffer in (message, bytearray(message), memoryview(message)):
        assert channel.send(buffer) == 0
        ends.carry()
        assert incoming.recv() == message
    ends.carry()
    assert control.live_objects(ends.engines[0])["large_blocks"] == 0


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_large_message_that_is_not_taken_leaves_nothing_behind(is_closed):
    ends = Ends()
    channel = ends.here[0].open_channel((3, 3, 0, 0, 0))
    if is_closed:
        channel.finish()
    else:
        assert channel.send(bytes(2 << 20)) == 0
    before = control.live_objects(ends.engines[0])["large_blocks"]
    assert channel.send(bytes(3 << 20)) == (-2 if is_closed else 1)
    assert channel.send(bytes((1 << 24) + 1)) == (-2 if is_closed else -3)
    assert control.live_objects(ends.engines[0])["large_blocks"] == before


def test_messages_of_all_sizes_are_queued_in_order_by_one_call():
    ends = Ends()
    channel = ends.here[0].open_channel((3, 3, 0, 0, 0))
    messages = [os.urandom(n) for n in (0, 1, 300_000, 10, 262_143, 262_144, 5)]
    messages[3] = bytearray(messages[3])
    ends.carry()
    incoming = ends.there[0].accept_channel()
    got, sent = [], 0
    while len(got) < len(messages):
        taken, _ = channel.send_many(messages, sent)
        sent += taken
        ends.carry()
        got += incoming.recv_many(100, False)
    assert got == messages and sent == len(messages)
