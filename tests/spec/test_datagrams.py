"""Chapter 8 of the specification: datagrams."""

import pytest

from interpeer.errors import DatagramTooLarge
from tests.spec import reference as ref
from tests.spec.peer import MS, SECOND, Node, Peer
from tests.spec.reference import PROTOCOL_ERROR
from tests.spec.test_frames import connected


def messages(frames):
    return [frame.data for frame in frames if frame.kind in (ref.DATAGRAM, ref.DATAGRAM_LEN)]


@pytest.mark.spec("DG-2")
def test_messages_arrive_as_they_were_sent():
    peer = connected()
    peer.send(ref.datagram(b""), ref.datagram(b"one"), ref.datagram(b"two" * 300), ref.datagram(b"to the end", length=False))
    peer.send(ref.datagram(b"", length=False))
    assert peer.handle.recv_datagrams(9) == [b"", b"one", b"two" * 300, b"to the end", b""]
    sizes = [0, 1, 63, 64, 65, 500, 700, 1149, 1150, 1151, peer.handle.max_datagram_bytes]
    sent = [bytes([i]) * size for i, size in enumerate(sizes)]
    assert peer.handle.send_datagrams(sent) == len(sent)
    assert messages(peer.exchange()) == sent


@pytest.mark.spec("DG-3")
def test_a_message_larger_than_allowed_ends_the_connection():
    for size, is_right in ((100, True), (101, False), (1000, False)):
        for length in (True, False):
            peer = connected(max_datagram=100)
            peer.send(ref.datagram(bytes(size), length=length))
            if is_right:
                assert peer.handle.recv_datagram() == bytes(size)
            else:
                assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.spec("DG-4")
@pytest.mark.row("S13")
@pytest.mark.parametrize(("theirs", "most"), [(0, 0), (1, 1), (1000, 1000), (65_000, 1200 - 16 - 16 - 1), (None, 0)])
def test_a_message_that_the_peer_or_the_path_does_not_take_is_not_sent(theirs, most):
    peer = Peer(Node()).call(MAX_DATAGRAM=theirs)
    assert peer.handle.max_datagram_bytes == most
    with pytest.raises(DatagramTooLarge, match=f"at most {most}"):
        peer.handle.send_datagram(bytes(most + 1))
    assert peer.handle.send_datagram(bytes(most))
    said = peer.node.say()
    assert messages(peer.frames(said)) == [bytes(most)] and max(len(sent.data) for sent in said) <= 1200


@pytest.mark.spec("DG-5")
def test_a_lost_message_is_not_repeated():
    peer = connected()
    stream = peer.handle.open_stream()
    stream.write(b"with it")
    peer.handle.send_datagram(b"once")
    frames = peer.told()
    assert messages(frames) == [b"once"] and len(frames) == 2
    frames = peer.told(peer.node.wait(3 * SECOND))
    assert messages(frames) == [] and {frame.data for frame in frames} == {b"with it"}


@pytest.mark.spec("DG-6")
def test_messages_are_acknowledged_and_held_back_like_anything_else():
    peer = connected()
    peer.exchange()
    peer.send(ref.datagram(b"message"))
    assert [frame.kind for frame in peer.frames(peer.node.wait(10 * MS))] == [ref.ACK]
    peer.handle.recv_datagram()
    assert peer.handle.send_datagrams([bytes(1000)] * 100) == 100
    window = peer.handle.stats()["window_bytes"]
    said = peer.node.wait(40 * MS)
    assert 8 <= len(said) <= 11 and sum(len(sent.data) for sent in said) <= window
    peer.frames(said)
    peer.acknowledge()
    assert len(peer.node.wait(40 * MS)) > len(said)


@pytest.mark.spec("DG-8")
@pytest.mark.row("S14")
@pytest.mark.parametrize("size", [1100, 1150])  # with room for a piece of the stream, and without
def test_messages_and_streams_take_turns(size):
    peer = connected()
    stream = peer.handle.open_stream()
    stream.write(bytes(100_000))
    assert peer.handle.send_datagrams([bytes(size)] * 90) == 90
    packets = []
    while len(packets) < 40:
        packets += peer.packets(peer.node.wait(20 * MS))
        peer.acknowledge()
    kinds = [{frame.kind for frame in ref.read_frames(packet.payload)} - {ref.ACK} for packet in packets[:40]]
    with_message = sum(ref.DATAGRAM_LEN in kind or ref.DATAGRAM in kind for kind in kinds)
    with_stream = sum(ref.STREAM in kind for kind in kinds)
    assert with_message >= 18 and with_stream >= 18
    for i in range(len(kinds) - 2):
        assert ref.STREAM in set().union(*kinds[i : i + 3]), "no stream for three packets"


@pytest.mark.spec("DG-9")
def test_of_messages_that_nobody_takes_the_oldest_are_given_up():
    peer = connected(datagram_queue_bytes=8192)
    sent = [b"%4d" % i * 25 for i in range(200)]
    for i in range(0, 200, 5):
        peer.send(*[ref.datagram(message) for message in sent[i : i + 5]])
    kept = peer.handle.recv_datagrams(1000)
    assert kept == sent[-len(kept) :] and 70 <= len(kept) <= 81
    assert peer.handle.stats()["datagrams_dropped"] == peer.node.counter("datagrams_dropped") == 200 - len(kept)


def test_a_full_queue_refuses_messages_and_drops_none():
    peer = connected(datagram_queue_bytes=8192)
    queued = peer.handle.send_datagrams([b"%4d" % i * 25 for i in range(200)])
    assert 70 <= queued <= 81 and not peer.handle.send_datagram(bytes(100))
    assert messages(peer.exchange()) == [b"%4d" % i * 25 for i in range(queued)]
