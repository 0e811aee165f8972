"""Chapter 3 of the specification: packets and packet protection."""

import itertools
import struct
from collections import Counter

import pytest

from interpeer._core import control, probe
from tests.spec import reference as ref
from tests.spec.peer import DIALING, ELSEWHERE, MS, PEER_AT, SECOND, Node, Peer
from tests.spec.reference import AEAD_LIMIT

SUITES = [number for number, name in control.SUITE_NAMES.items() if name in control.available_suites()]
WINDOW = 8192


def dropped(node, what, *datagrams, source=PEER_AT):
    """Tell whether each datagram is counted as dropped for this reason, and nothing else happens."""
    before = node.counters()
    said = node.answers(*datagrams, source=source)
    after = node.counters()
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    del changed["packets_received"], changed["bytes_received"]
    return said == [] and changed == {what: len(datagrams)}


@pytest.mark.spec("PK-2")
def test_datagrams_of_no_known_kind_are_dropped_without_an_answer():
    node = Node()
    stun = bytes([0x3F, 1, 0, 0]) + struct.pack(">I", 0x2112A442) + bytes(12)
    assert dropped(node, "dropped_stun", stun)
    assert dropped(node, "dropped_short", b"", b"\0", stun[:19], b"\x80" + bytes(14))
    for first in (*range(0x41), *range(0x45, 0x80)):
        assert dropped(node, "dropped_short", bytes([first]) + bytes(99)), first
    for first in range(0x41, 0x45):
        assert dropped(node, "dropped_short", bytes([first]) + bytes(8)), first


def busy(peer, rounds, size=3000):
    """Let the node send for some round trips, acknowledge everything, and return the packets."""
    stream = peer.handle.open_stream()
    packets = []
    for _ in range(rounds):
        stream.write(bytes(size))
        packets += peer.packets(peer.node.wait(20 * MS))
        peer.acknowledge()
    stream.finish()
    return packets + peer.packets(peer.node.wait(20 * MS))


@pytest.mark.spec("PK-4")
def test_a_sender_leaves_the_reserved_flags_zero():
    packets = busy(Peer(Node(key_update_packets=2)).call(), 6)
    assert max(packet.epoch for packet in packets) >= 5
    assert all(packet.flags == packet.epoch & 3 for packet in packets)


@pytest.mark.spec("PK-5")
@pytest.mark.parametrize("bit", range(2, 8))
def test_a_packet_with_reserved_flags_is_dropped_and_the_connection_lives(bit):
    peer = Peer(Node()).call()
    assert dropped(peer.node, "dropped_reserved", peer.packet(ref.ping(), flags=1 << bit))
    peer.send(ref.ping())
    assert peer.handle.is_open and peer.frames(peer.node.wait(100 * MS))


@pytest.mark.spec("PK-6")
def test_a_packet_without_room_for_a_sample_is_dropped():
    peer = Peer(Node()).call()
    whole = peer.packet()
    assert len(whole) == 32
    for n in range(16, 32):
        assert dropped(peer.node, "dropped_short", whole[:n]), n
    assert peer.node.answers(whole) == [] and peer.handle.stats()["packets_received"] == 2


@pytest.mark.spec("PK-7")
def test_no_packet_is_larger_than_the_receiver_takes():
    peer = Peer(Node(packet_bytes=9000)).call(MAX_UDP_PAYLOAD=1300)
    stream = peer.handle.open_stream()
    stream.write(bytes(20_000))
    assert peer.handle.send_datagram(bytes(peer.handle.max_datagram_bytes))
    said = peer.node.say()
    assert len(said) > 5 and max(len(sent.data) for sent in said) == 1300


@pytest.mark.spec("PK-9")
@pytest.mark.parametrize("entropy", [bytes(4000), b"\x7f" * 4000], ids=["zeros", "ones"])
def test_every_connection_id_has_its_highest_bit_set(entropy):
    peer = Peer(Node(entropy=entropy))
    handle = peer.node.connect(peer)
    assert handle.state == DIALING and peer.node.say()[0].data[2] & 0x80
    peer = Peer(Node(entropy=entropy)).call()
    assert peer.remote_cid[0] & 0x80


@pytest.mark.spec("PK-10")
def test_a_packet_is_taken_from_any_address():
    peer = Peer(Node()).call()
    peer.send(ref.stream(0, b"abc"), source=ELSEWHERE)
    assert peer.handle.accept_stream().read(3) == b"abc"


# --- proven addresses ---


def confirmed(*inits_from, first_from, seed=bytes([1]) * 32):
    """Return a peer whose init came from these addresses, and its first packet from that one; and the size of that."""
    peer = Peer(Node(seed))
    init = peer.init()
    answers = [peer.node.answers(init, source=source)[0] for source in inits_from]
    peer.read_response(answers[0])
    peer.node.now_ns += 20 * MS
    packet = peer.packet(ref.ping(), bytes(300))
    peer.node.hear(packet, source=first_from)
    peer.handle = peer.node.incoming()
    return peer, len(packet)


def said_when_much_is_to_be_said(peer, ns=5 * SECOND):
    """Return how many bytes the node sends to each address, without an acknowledgement, having much to send."""
    peer.stream = peer.stream or peer.handle.open_stream()
    peer.stream.write(bytes(100_000))
    sent = Counter()
    for datagram in peer.node.wait(ns):
        sent[datagram.to] += len(datagram.data)
        peer.open(datagram.data)
    return sent


@pytest.mark.spec("PK-35")
@pytest.mark.row("N2")
def test_a_responder_sends_no_more_than_it_got_to_where_nobody_has_proved_to_be():
    peer, got = confirmed(PEER_AT, first_from=ELSEWHERE)
    sent = said_when_much_is_to_be_said(peer)
    assert sent.keys() == {ELSEWHERE} and 0 < sent[ELSEWHERE] <= got
    # packets from elsewhere allow nothing there; each from there as much as it has
    late = peer.packet(bytes(1000), counter=7)
    peer.node.hear(peer.packet(bytes(1000), counter=8), source=ELSEWHERE)
    got += 1032
    sent += said_when_much_is_to_be_said(peer)
    peer.node.hear(late, source=PEER_AT)
    sent += said_when_much_is_to_be_said(peer)
    assert sent[ELSEWHERE] <= got
    for counter in range(9, 12):
        more = peer.packet(ref.ping(), bytes(200), counter=counter)
        peer.node.hear(more, source=ELSEWHERE)
        got += len(more)
        before = sent[ELSEWHERE]
        sent += said_when_much_is_to_be_said(peer)
        assert before < sent[ELSEWHERE] <= got and sent.keys() == {ELSEWHERE}
    peer.handle.close(0, bytes(256))
    sent += Counter({datagram.to: len(datagram.data) for datagram in peer.node.wait(5 * SECOND)})
    assert sent[ELSEWHERE] <= got


@pytest.mark.spec("PK-35")
@pytest.mark.row("H14", "N2")
def test_an_initiator_sends_no_more_than_it_got_to_where_it_has_not_called():
    peer = Peer(Node())
    peer.handle = peer.node.connect(peer)
    (init,) = peer.node.say()
    response = peer.answer(init.data)
    peer.node.hear(response, source=ELSEWHERE)
    sent = said_when_much_is_to_be_said(peer)
    assert sent.keys() == {ELSEWHERE} and 0 < sent[ELSEWHERE] <= len(response)


@pytest.mark.spec("PK-36")
@pytest.mark.row("N2")
@pytest.mark.parametrize(
    ("inits_from", "is_proven"),
    [([PEER_AT], True), ([PEER_AT] * 3, True), ([PEER_AT, ELSEWHERE], False), ([ELSEWHERE, PEER_AT], False)],
)
def test_a_response_that_went_to_several_addresses_proves_none(inits_from, is_proven):
    peer, got = confirmed(*inits_from, first_from=PEER_AT)
    assert (said_when_much_is_to_be_said(peer)[PEER_AT] <= got) == (not is_proven)


@pytest.mark.spec("PK-37")
@pytest.mark.row("H15", "N2")
@pytest.mark.parametrize("is_named", [False, True])
def test_a_response_from_where_the_peers_own_call_came_from_proves_nothing(is_named):
    peer = next(p for p in (Peer(Node(), bytes([i]) * 32) for i in range(2, 99)) if p.node.identity.public < p.identity.public)
    peer.handle = peer.node.connect(peer, PEER_AT, *[ELSEWHERE] * is_named)
    (init,) = peer.node.say()
    caller = Peer(peer.node, peer.identity.seed)
    peer.node.hear(caller.init(), source=ELSEWHERE)
    assert [(sent.to, sent.data) for sent in peer.node.say()] == [(ELSEWHERE, init.data)]
    response = peer.answer(init.data)
    peer.node.hear(response, source=ELSEWHERE)
    assert (said_when_much_is_to_be_said(peer)[ELSEWHERE] <= len(response)) == (not is_named)


@pytest.mark.spec("PK-12")
@pytest.mark.parametrize("limits", [{}, {"key_update_packets": 2}, {"skip_every": 1}], ids=["plain", "key updates", "skipping"])
def test_counters_start_at_0_and_none_is_used_twice(limits):
    peer = Peer(Node(**limits)).call()
    packets = busy(peer, 3)
    # nothing is acknowledged now, so that the node repeats what it sends
    stream = peer.handle.open_stream()
    stream.write(bytes(5000))
    packets += peer.packets(peer.node.wait(3 * SECOND))
    counters = [packet.counter for packet in packets]
    assert counters[0] in (0, 1) and len(counters) > 15
    assert all(before < after for before, after in itertools.pairwise(counters))


@pytest.mark.spec("PK-13")
def test_a_replayed_packet_is_dropped():
    peer = Peer(Node()).call()
    packets = [peer.packet(ref.datagram(b"%d" % i)) for i in range(20)]
    peer.node.hear(*packets)
    peer.node.say()
    assert dropped(peer.node, "dropped_replayed", *packets)
    assert peer.handle.recv_datagrams(100) == [b"%d" % i for i in range(20)]


@pytest.mark.spec("PK-14")
@pytest.mark.parametrize("newest", [WINDOW - 1, WINDOW, 100_000, 2**56 - 1])
def test_a_packet_that_was_overtaken_by_a_whole_window_is_accepted(newest):
    peer = Peer(Node()).call()
    for counter in (newest, newest - 1, newest - 64, newest - WINDOW + 2, newest - WINDOW + 1):
        if counter > 0:  # the first packet has confirmed
            peer.send(ref.datagram(b"%d" % counter), counter=counter)
            assert peer.handle.recv_datagram() == b"%d" % counter


@pytest.mark.spec("PK-15")
def test_a_packet_older_than_the_window_is_dropped():
    peer = Peer(Node()).call()
    peer.send(counter=100_000)
    for counter in (1, 100_000 - WINDOW - 64, 100_000 - WINDOW - 1, 100_000 - WINDOW):
        assert dropped(peer.node, "dropped_replayed", peer.packet(ref.ping(), counter=counter)), counter


@pytest.mark.spec("PK-16")
def test_a_forged_packet_with_a_great_counter_shuts_nothing_out():
    peer = Peer(Node()).call()
    for counter in (5, 10**6, 2**56 - 1):
        forged = bytearray(peer.packet(ref.datagram(b"forged"), counter=counter))
        forged[-1] ^= 1
        assert dropped(peer.node, "dropped_forged", bytes(forged))
    for i in range(1, 10):  # 5 among them
        peer.send(ref.datagram(b"%d" % i), counter=i)
    assert peer.handle.recv_datagrams(100) == [b"%d" % i for i in range(1, 10)]


@pytest.mark.spec("PK-17")
def test_a_packet_with_any_bit_flipped_is_dropped():
    peer = Peer(Node(is_stored=False)).call()
    for bit in range(33 * 8):
        packet = bytearray(peer.packet(ref.ping()))
        packet[bit // 8] ^= 0x80 >> bit % 8
        before = peer.node.counters()
        assert peer.node.answers(bytes(packet)) == [], bit
        after = peer.node.counters()
        reasons = [name for name in after if name.startswith("dropped") and after[name] != before[name]]
        assert len(reasons) == 1, (bit, reasons)
    assert peer.handle.stats()["packets_received"] == 1
    peer.send(ref.ping())
    assert peer.handle.stats()["packets_received"] == 2


# --- protection ---


@pytest.mark.spec("PK-19", "PK-20", "PK-22", "PK-23", "PK-25")
@pytest.mark.parametrize("role", ["call", "be_called"])
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: control.SUITE_NAMES[suite])
def test_packets_of_every_suite_and_epoch_agree_with_an_independent_implementation(suite, role):
    node = Node(suites=(control.SUITE_NAMES[suite],), key_update_packets=3)
    peer = getattr(Peer(node, suite=suite), role)()
    assert peer.handle.suite == peer.suite == suite
    epochs = set()
    for i in range(12):
        assert peer.handle.send_datagram(b"to the peer %d" % i)
        peer.send(ref.datagram(b"to the node %d" % i), epoch=i // 3)
        packets = peer.packets(node.wait(20 * MS))
        epochs |= {packet.epoch for packet in packets}
        messages = [frame.data for packet in packets for frame in ref.read_frames(packet.payload) if frame.data]
        assert messages == [b"to the peer %d" % i]
        assert peer.handle.recv_datagrams(10) == [b"to the node %d" % i]
        peer.send(ref.ack(max(peer.received), len(peer.received) - 1), epoch=i // 3)
    assert epochs >= {0, 1, 2, 3} and peer.handle.stats()["peer_key_epoch"] == 3


@pytest.mark.spec("PK-21")
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: control.SUITE_NAMES[suite])
def test_nonce_holds_path_and_counter_behind_zeros(suite):
    key_bytes, nonce_bytes, tag_bytes = ref.SUITES[suite]
    key, iv = bytes(range(32)), bytes(range(100, 132))
    seal = probe.Key(control.SUITE_NAMES[suite], key, iv)
    for path, counter in ((0, 0), (0, 1), (1, 0), (0x01020304, 0x05060708090A0B), (2**32 - 1, 2**56 - 1)):
        place = bytes(nonce_bytes - 12) + struct.pack(">IQ", path, counter)
        nonce = bytes(a ^ b for a, b in zip(iv, place, strict=False))
        expected = ref.seal(suite, key[:key_bytes], nonce, b"text", b"header")
        assert seal.seal(b"text", b"header", path, counter) == expected
        assert len(expected) == 4 + tag_bytes


@pytest.mark.row("P11")
@pytest.mark.spec("PK-24")
def test_too_many_forgeries_end_the_connection():
    peer = Peer(Node(forgery_limit=5)).call()
    whole = peer.packet(ref.ping())
    for i in range(5):
        assert peer.handle.is_open
        peer.node.hear(whole[:-1] + bytes([whole[-1] ^ 1 + i]))
    assert peer.closed_with() == AEAD_LIMIT


# --- change of key ---


@pytest.mark.spec("PK-26")
def test_a_sender_changes_its_key_when_it_is_used_up():
    packets = busy(Peer(Node(key_update_packets=10)).call(), 12)
    for epoch in range(3):
        # acknowledgements come with each round trip of up to 4 packets
        assert 10 <= sum(packet.epoch == epoch for packet in packets) <= 14, epoch


@pytest.mark.spec("PK-27")
def test_a_sender_keeps_its_key_until_a_packet_of_the_epoch_is_acknowledged():
    peer = Peer(Node(key_update_packets=2)).call()
    stream = peer.handle.open_stream()
    stream.write(bytes(20_000))
    packets = peer.packets(peer.node.wait(1 * SECOND))
    assert len(packets) > 8 and {packet.epoch for packet in packets} == {0}
    peer.acknowledge(packets[0].counter)
    packets = peer.packets(peer.node.wait(5 * SECOND))
    assert len(packets) > 3 and {packet.epoch for packet in packets} == {1}
    # an acknowledgement of the epoch before is not enough
    peer.acknowledge(*range(packets[0].counter))
    packets = peer.packets(peer.node.wait(10 * SECOND))
    assert len(packets) > 3 and {packet.epoch for packet in packets} == {1}


@pytest.mark.row("P10")
@pytest.mark.spec("PK-28")
def test_a_sender_that_cannot_change_its_key_in_time_ends_the_connection():
    peer = Peer(Node(key_update_packets=2, key_limit_packets=8)).call()
    stream = peer.handle.open_stream()
    stream.write(bytes(100_000))
    said = peer.node.wait(20 * SECOND)
    packets = peer.packets(said)
    assert len(packets) == 9, "eight packets, and one that says why there are no more"
    (last,) = ref.read_frames(packets[-1].payload)
    assert (last.kind, last.value) == (ref.CLOSE, AEAD_LIMIT)


@pytest.mark.spec("PK-29")
def test_a_receiver_follows_to_the_next_epoch_at_once():
    peer = Peer(Node()).call()
    for epoch in range(1, 10):
        peer.send(ref.datagram(b"%d" % epoch), epoch=epoch)
        assert peer.handle.recv_datagram() == b"%d" % epoch
        assert peer.handle.stats()["peer_key_epoch"] == epoch


@pytest.mark.spec("PK-30")
def test_a_forged_packet_of_the_next_epoch_changes_nothing():
    peer = Peer(Node()).call()
    for counter in (1, 2, 3):
        forged = bytearray(peer.packet(ref.ping(), epoch=1, counter=counter))
        forged[-1] ^= 1  # behind the sample of the mask: the header is read as it was written
        assert dropped(peer.node, "dropped_forged", bytes(forged))
        assert peer.handle.stats()["peer_key_epoch"] == 0
    peer.send(ref.datagram(b"true"), counter=4)
    assert peer.handle.recv_datagram() == b"true"


def pto_ns(peer, *, delay_ns=5 * MS):
    """Return the node's probe time-out."""
    stats = peer.handle.stats()
    return stats["rtt_ns"] + max(4 * stats["rtt_variance_ns"], MS) + delay_ns


@pytest.mark.spec("PK-31")
def test_packets_that_a_change_of_key_has_overtaken_are_still_read():
    peer = Peer(Node()).call()
    late = [peer.packet(ref.datagram(b"late %d" % i)) for i in range(2)]
    peer.send(ref.ping(), epoch=1)
    peer.node.hear(late[0])
    peer.node.wait(3 * pto_ns(peer) - MS)
    peer.node.hear(late[1])
    assert peer.handle.recv_datagrams(9) == [b"late 0", b"late 1"]


@pytest.mark.spec("PK-32")
def test_packets_of_the_epoch_before_are_dropped_three_probe_timeouts_later():
    peer = Peer(Node()).call()
    late = peer.packet(ref.datagram(b"late"))
    peer.send(ref.ping(), epoch=1)
    peer.node.wait(3 * pto_ns(peer) + MS)
    assert dropped(peer.node, "dropped_reserved", late)


@pytest.mark.spec("PK-33")
def test_packets_of_any_other_epoch_are_dropped():
    peer = Peer(Node()).call()
    assert dropped(peer.node, "dropped_reserved", peer.packet(ref.ping(), epoch=2), peer.packet(ref.ping(), epoch=3))
    peer.send(ref.ping(), epoch=1)
    peer.node.say()
    assert dropped(peer.node, "dropped_reserved", peer.packet(ref.ping(), epoch=3))
