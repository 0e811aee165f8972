"""From engine to engine in memory, without a socket; and what it costs Python to reach the core and come back."""

import pytest

from benchmarks.micro.conftest import Link, note_each
from interpeer._core.probe import available_suites

ciphers = pytest.mark.parametrize("cipher", available_suites())
MESSAGE = bytes(64)
BATCH = [MESSAGE] * 64
ROUNDS = 300


# --- packets ---


@ciphers
def test_round_trip_of_a_packet(benchmark, cipher):
    """A datagram there and back, each in a packet of its own, with all that belongs to it."""
    link = Link(cipher)

    def round_trip():
        link.left.send_datagram(MESSAGE)
        link.carry()
        link.right.send_datagram(link.right.recv_datagram())
        link.carry()
        return link.left.recv_datagram()

    assert benchmark(round_trip) == MESSAGE


@ciphers
def test_packets_of_a_stream(benchmark, cipher):
    """A stream's packets and their acknowledgements; `ns_each` is one packet, both ends."""
    link, data = Link(cipher), bytes(1 << 18)
    out = link.left.open_stream()
    out.write(b"x")
    link.carry()
    into = link.right.accept_stream()
    assert into.read(1) == b"x"

    def transfer():
        written = left = 0
        while left < len(data):
            written += out.write(data, written)
            link.carry()
            left += len(into.read(len(data)) or b"")
        return left

    for _ in range(20):  # until the window no longer grows
        transfer()
    before = link.wire.packets
    assert transfer() == len(data)
    packets = link.wire.packets - before
    assert benchmark(transfer) == len(data)
    note_each(benchmark, packets)


# --- the border between Python and the core ---


def test_send_datagram(benchmark, link):
    def send():
        for _ in range(64):
            link.left.send_datagram(MESSAGE)

    benchmark.pedantic(send, setup=lambda: drain(link), rounds=ROUNDS)
    note_each(benchmark, 64)


def test_send_datagrams(benchmark, link):
    sent = benchmark.pedantic(lambda: link.left.send_datagrams(BATCH), setup=lambda: drain(link), rounds=ROUNDS)
    assert sent == 64
    note_each(benchmark, 64)


def test_recv_datagrams(benchmark, link):
    def fill():
        link.left.send_datagrams(BATCH)
        link.carry()

    received = benchmark.pedantic(lambda: link.right.recv_datagrams(64), setup=fill, rounds=ROUNDS)
    assert received == BATCH
    note_each(benchmark, 64)


def drain(link):
    """Carry what was sent, and read it."""
    link.carry()
    while link.right.recv_datagrams(64):
        pass
