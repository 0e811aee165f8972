"""More packets than one batch holds: many connections that all have something to say in the same turn."""

import hashlib
import os

import pytest

from interpeer import Config
from interpeer._core import control
from interpeer._core.engine import Engine

MS = 1_000_000
PROTOCOL = b"batches/1"
AT = tuple((bytes(10) + b"\xff\xff" + bytes([192, 0, 2, n]), 1000 + n, 0) for n in (1, 2))
ENTRIES = 64  # messages in a batch


class Side:
    """An engine that is stepped by hand."""

    def __init__(self, n):
        self.engine = Engine()
        limits = Config(keep_alive_s=0, skip_every=0).core_limits()
        ciphers = ["chacha20-poly1305"]
        control.configure(self.engine, bytes([n]) * 32, b"", False, [PROTOCOL], ciphers, 1000, limits)
        self.exchange = control.Exchange(self.engine)
        self.at = AT[n]

    def transmit(self, now):
        control.add_entropy(self.engine, os.urandom(control.entropy_missing(self.engine)))
        return self.exchange.transmit(now)

    def receive(self, packets, source, now):
        control.add_entropy(self.engine, os.urandom(control.entropy_missing(self.engine)))
        self.exchange.receive([(data, source, ecn) for data, _, ecn in packets], now)


class Crowd:
    """Two engines and many connections between them; `here` and `there` are their handles, in the same order."""

    def __init__(self, count):
        self.now = 1000 * MS
        self.a, self.b = Side(0), Side(1)
        identity = control.identity_of(bytes([1]) * 32)
        self.here = [control.connect(self.a.engine, identity, [self.b.at], PROTOCOL) for _ in range(count)]
        self.carry()
        incoming = [event[1] for event in control.events(self.b.engine) if event[0] == control.INCOMING]
        assert len(incoming) == count
        for handle in incoming:
            handle.take()
        # who belongs to whom is told by a number that each sends first
        for number, handle in enumerate(self.here):
            assert handle.send_datagram(number.to_bytes(2, "big"))
        self.carry()
        self.there = sorted(incoming, key=lambda handle: handle.recv_datagram())

    def deliver(self, packets):
        """Hand packets of `a` over to `b`, and then let both say what they have to."""
        self.pass_on(packets, self.a, self.b)
        self.carry()

    def pass_on(self, packets, here, there):
        """Hand packets over a few at a time: replies that wait for a batch are limited."""
        for first in range(0, len(packets), 16):
            there.receive(packets[first : first + 16], here.at, self.now)
            here.receive(there.transmit(self.now), there.at, self.now)

    def carry(self):
        """Let time pass until neither has anything more to say."""
        for _ in range(100):
            self.now += MS
            said = 0
            for here, there in ((self.a, self.b), (self.b, self.a)):
                here.exchange.handle_timeout(self.now)
                packets = here.transmit(self.now)
                self.pass_on(packets, here, there)
                said += len(packets)
            if not said:
                return
        raise AssertionError("they talk without end")


def test_calls_beyond_the_random_bytes_of_a_turn_are_made_in_the_next():
    side, now, turns = Side(0), 1000 * MS, []
    identity = control.identity_of(bytes([1]) * 32)
    calls = [control.connect(side.engine, identity, [AT[1]], PROTOCOL) for _ in range(250)]
    while sum(turns) < 250 and len(turns) < 10:
        turns.append(len(side.transmit(now)))
        assert 0 < side.exchange.poll_timeout() <= now or sum(turns) == 250, "nobody would come back for the others"
        side.exchange.handle_timeout(now)
    assert sum(turns) == 250 and len(turns) > 1
    assert all(len(call.dial_report()) == 1 and call.dial_report()[0][1] == 1 for call in calls)


def data_of(number, n):
    return hashlib.shake_128(number.to_bytes(2, "big")).digest(n)


@pytest.mark.parametrize("size", [1, 200, 1300, 5000])
@pytest.mark.parametrize("count", [ENTRIES, ENTRIES + 1, 200])
def test_streams_of_many_connections_in_one_turn_arrive_whole(count, size):
    crowd = Crowd(count)
    for number, handle in enumerate(crowd.here):
        stream = handle.open_stream()
        assert stream.write(data_of(number, size)) == size
        stream.finish()
    packets = crowd.a.transmit(crowd.now)
    assert len(packets) >= count * (1 + size // 1200), "not all of them had their turn"
    crowd.deliver(packets)
    for number, handle in enumerate(crowd.there):
        stream = handle.accept_stream()
        assert stream.read(size + 1) == data_of(number, size)
        assert stream.is_at_end


def test_messages_and_streams_of_all_lengths_share_the_batches():
    """Messages that are cut short end a super-datagram, others continue it."""
    crowd, expected = Crowd(150), []
    for number, handle in enumerate(crowd.here):
        messages = [data_of(number, n % 1150) for n in range(number, number + 900, 97)]
        assert handle.send_datagrams(messages) == len(messages)
        stream = handle.open_stream()
        stream.write(data_of(number, 37 * number))
        stream.finish()
        expected.append((messages, data_of(number, 37 * number)))
    crowd.deliver(crowd.a.transmit(crowd.now))
    for handle, (messages, data) in zip(crowd.there, expected, strict=True):
        assert handle.recv_datagrams(100) == messages
        stream = handle.accept_stream()
        assert (stream.read(10_000) or b"") == data


def test_both_sides_of_many_connections_speak_at_once():
    crowd = Crowd(130)
    for handles in (crowd.here, crowd.there):
        for number, handle in enumerate(handles):
            stream = handle.open_stream()
            stream.write(data_of(number, 3000))
            stream.finish()
    crowd.carry()
    for handles in (crowd.there, crowd.here):
        for number, handle in enumerate(handles):
            assert handle.accept_stream().read(10_000) == data_of(number, 3000)


@pytest.mark.parametrize("count", [ENTRIES + 1, 200])
def test_many_connections_that_close_at_once_all_say_so(count):
    crowd = Crowd(count)
    for number, handle in enumerate(crowd.here):
        handle.close(number, b"enough")
    packets = crowd.a.transmit(crowd.now)
    assert len(packets) == count
    crowd.deliver(packets)
    assert [handle.closed()[1:] for handle in crowd.there] == [(number, True, b"enough") for number in range(count)]
