"""Messages in the wrong hands: relayed to somebody else, or with a clock that has run for years."""

import pytest

from interpeer._core import control
from tests.spec import reference as ref
from tests.spec.peer import SECOND, Node, Peer


@pytest.mark.row("H11")
def test_a_call_that_is_relayed_to_another_responder_opens_nothing():
    caller, called, other = Node(bytes([3]) * 32), Node(bytes([4]) * 32), Node(bytes([5]) * 32)
    handle = control.connect(caller.engine, called.identity.id, [Peer(called).at], b"test/1")
    (init,) = caller.say()
    assert other.answers(init.data) == [] and other.counter("dropped_mac") == 1
    # whoever relays it can make it look as if it were meant for the other, but cannot make it so
    meant = ref.with_macs(init.data[:1168], other.identity.public, b"")
    assert other.answers(meant) == [] and other.counter("dropped_handshake") == 1
    assert other.counter("half_open") == 0 and not other.events()
    assert len(called.answers(init.data)) == 1 and not handle.is_open


@pytest.mark.row("M10")
@pytest.mark.parametrize("unit_ns", [1, 1_000, 1_000_000], ids=["ns", "us", "ms"])
def test_no_counter_of_time_wraps_after_32_bits(unit_ns):
    node = Node(idle_timeout_ns=30 * SECOND)
    node.now_ns = (unit_ns << 32) - 2 * SECOND
    assert node.now_ns > 0
    peer = Peer(node).call()
    stream = peer.handle.open_stream()
    for _ in range(4):  # the moment is between two of these
        stream.write(b"tick")
        said = node.wait(SECOND)
        packets = peer.packets(said)
        assert packets, node.now_ns
        peer.acknowledge(*(packet.counter for packet in packets))
        assert 0 <= peer.handle.stats()["rtt_ns"] <= 2 * SECOND
    assert stream.bytes_acked == 16 and peer.handle.is_open
    node.wait(31 * SECOND)
    assert not peer.handle.is_open
