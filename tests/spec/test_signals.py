"""Chapter 20 of the specification: signals and observed addresses."""

import ipaddress

import pytest

from interpeer._core import signal_handle
from tests.spec import reference as ref
from tests.spec.paths import QUESTION
from tests.spec.peer import ELSEWHERE, MS, PEER_AT, SECOND, Node, Peer, ack_of
from tests.spec.reference import FRAME_ENCODING

SIGNAL, OBSERVED_ADDRESS = 0x40, 0x41
MOST_BYTES, MOST_WAITING, WINDOW = 1024, 32, 64
IPV6_AT = (ipaddress.IPv6Address("2001:db8::7").packed, 4433, 0)
VIRTUAL_AT = (ipaddress.IPv6Address("100::1").packed, 1, 0)


def signal(number, message):
    content = ref.varint(number) + message
    return ref.varint(SIGNAL) + ref.varint(len(content)) + content


def observed(number, path, at, *, cut=0, more=b""):
    packed, port, _ = at
    address = packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed
    content = ref.varint(number) + ref.varint(path) + address + port.to_bytes(2, "big") + more
    content = content[: len(content) - cut]
    return ref.varint(OBSERVED_ADDRESS) + ref.varint(len(content)) + content


def read_signal(frame):
    reader = ref.Reader(frame.data)
    return reader.varint(), reader.data


def member(**limits):
    """A peer that has called a node which belongs to a network."""
    return Peer(Node(observe=1, **limits)).call()


def signals_in(frames):
    return [read_signal(frame) for frame in frames if frame.kind == SIGNAL]


def reports_in(frames):
    """Number, path, address and port of each report."""
    told = []
    for frame in frames:
        if frame.kind == OBSERVED_ADDRESS:
            reader = ref.Reader(frame.data)
            number, path = reader.varint(), reader.varint()
            told.append((number, path, reader.data[:-2], int.from_bytes(reader.data[-2:], "big")))
    return told


@pytest.mark.spec("SG-1")
def test_a_signal_is_a_number_and_a_message():
    peer = member()
    assert signal_handle.send(peer.handle, b"\x63 to the peer's node")
    assert signals_in(peer.exchange()) == [(0, b"\x63 to the peer's node")]
    peer.send(signal(0, b""), signal(1, bytes(MOST_BYTES)))
    assert signal_handle.take(peer.handle) == [b"", bytes(MOST_BYTES)]
    with pytest.raises(ValueError, match="at most 1024"):
        signal_handle.send(peer.handle, bytes(MOST_BYTES + 1))


@pytest.mark.spec("SG-2")
def test_signals_have_numbers_from_0_and_are_sent_again_until_one_is_acknowledged():
    peer = member()
    peer.exchange()
    for message in (b"one", b"two", b"three"):
        signal_handle.send(peer.handle, message)
        (packet,) = peer.packets()
        if message == b"two":
            lost = packet.counter
    for i in range(4):
        peer.handle.send_datagram(b"later %d" % i)
        peer.packets()
    later = [number for number in peer.received if number != lost]
    peer.send(ack_of(later))
    assert signals_in(peer.frames()) == [(1, b"two")]
    peer.acknowledge()
    assert signals_in(peer.exchange()) == []


@pytest.mark.spec("SG-3")
def test_a_number_is_given_to_the_node_once():
    peer = member()
    peer.send(signal(5, b"five"), signal(3, b"three"), signal(5, b"again"))
    assert signal_handle.take(peer.handle) == [b"five", b"three"]
    peer.send(signal(3, b"again"), signal(4, b"four"))
    assert signal_handle.take(peer.handle) == [b"four"]
    peer.send(signal(5 + WINDOW, b"far"), signal(5, b"again"))
    assert signal_handle.take(peer.handle) == [b"far"]
    peer.send(signal(6, b"six"), signal(0, b"too old"))
    assert signal_handle.take(peer.handle) == [b"six"]


@pytest.mark.spec("SG-4")
def test_no_more_than_32_signals_are_on_their_way():
    peer = member()
    peer.exchange()
    taken = 0
    while signal_handle.send(peer.handle, b"x"):
        taken += 1
    assert taken == MOST_WAITING
    peer.exchange()
    assert signal_handle.send(peer.handle, b"x")


@pytest.mark.spec("SG-4")
def test_no_number_is_64_above_one_that_is_not_acknowledged():
    peer = member()
    peer.exchange()
    signal_handle.send(peer.handle, b"first")
    numbers, with_first = set(), set()
    sent = 0
    while True:
        for packet in peer.packets():
            inside = dict(signals_in(ref.read_frames(packet.payload)))
            numbers |= inside.keys()
            if 0 in inside:  # it is sent again whenever it seems to be lost
                with_first.add(packet.counter)
        if others := peer.received - with_first:
            peer.send(ack_of(others))
        if not signal_handle.send(peer.handle, b"x"):
            break
        sent += 1
    assert sent == max(numbers) == WINDOW - 1


@pytest.mark.spec("SG-5")
def test_signals_that_nobody_takes_are_dropped_and_counted():
    peer = member()
    for number in range(MOST_WAITING + 3):
        peer.send(signal(number, b"%d" % number))
    assert signal_handle.take(peer.handle) == [b"%d" % number for number in range(MOST_WAITING)]
    assert peer.node.counter("signals_dropped") == 3


@pytest.mark.spec("SG-6")
@pytest.mark.parametrize(
    "frame",
    [
        signal(0, bytes(MOST_BYTES + 1)),
        ref.varint(SIGNAL) + b"\0",
        ref.varint(SIGNAL) + b"\1\x40",
        observed(0, 0, PEER_AT, cut=1),
        observed(0, 0, PEER_AT, more=b"\0"),
        observed(0, 0, IPV6_AT, cut=1),
        ref.varint(OBSERVED_ADDRESS) + b"\1\0",
    ],
    ids=["long", "empty", "half a number", "short", "more", "short ipv6", "no path"],
)
def test_what_cannot_be_read_closes_the_connection(frame):
    peer = member()
    peer.exchange()
    peer.send(frame)
    assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("SG-7")
def test_a_kind_that_is_not_known_is_ignored():
    from interpeer._reach import signals

    known = {kind.KIND for kind in signals._KINDS.values()}
    for kind in set(range(256)) - known:
        assert signals.parse(bytes([kind]) + bytes(40)) is None


@pytest.mark.spec("SG-8")
def test_a_peer_is_told_where_its_packets_come_from_once_for_each_path():
    peer = Peer(Node(observe=1)).call(MAX_PATHS=4)
    number, *report = reports_in(peer.frames(peer.node.wait(SECOND)))[-1]  # the one of the handshake is lost
    assert report == [0, PEER_AT[0][12:], PEER_AT[1]] and number > 0
    assert reports_in(peer.exchange()) == []
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    peer.exchange()
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=2, source=ELSEWHERE)
    told = reports_in(prove(peer, 2, ELSEWHERE))
    assert [report for _, *report in told if report[0] == 2] == [[2, ELSEWHERE[0][12:], ELSEWHERE[1]]]
    assert [number for number, *_ in told] == sorted({number for number, *_ in told})


def prove(peer, path, source):
    """Answer the node's challenges from an address, and acknowledge; return the frames that it says."""
    frames = []
    for _ in range(20):
        said = peer.frames(peer.node.wait(20 * MS))
        frames += said
        answers = [ref.path_response(frame.data) for frame in said if frame.kind == ref.PATH_CHALLENGE]
        peer.send(
            *answers, *(ack_of(numbers, path=on) for on, numbers in peer.received_on.items() if numbers), path=path, source=source
        )
    return frames


@pytest.mark.spec("SG-8")
def test_a_node_without_a_network_reports_nothing_and_takes_nothing():
    peer = Peer(Node()).call()
    peer.send(signal(0, b"x"), observed(0, 0, ELSEWHERE), signal(0, bytes(MOST_BYTES + 1)))
    assert signal_handle.take(peer.handle) == [] and signal_handle.observed(peer.handle) is None
    assert not {SIGNAL, OBSERVED_ADDRESS} & {frame.kind for frame in peer.exchange(2 * SECOND)}


@pytest.mark.spec("SG-9")
def test_the_newest_report_counts_unless_it_cannot_be():
    peer = member()
    assert signal_handle.observed(peer.handle) is None
    peer.send(observed(4, 0, ELSEWHERE))
    assert signal_handle.observed(peer.handle) == ELSEWHERE
    peer.send(observed(3, 0, PEER_AT))
    assert signal_handle.observed(peer.handle) == ELSEWHERE
    peer.send(observed(6, 0, (PEER_AT[0], 0, 0)), observed(6, 0, VIRTUAL_AT))
    assert signal_handle.observed(peer.handle) == ELSEWHERE
    peer.send(observed(5, 0, IPV6_AT))
    assert signal_handle.observed(peer.handle) == IPV6_AT
