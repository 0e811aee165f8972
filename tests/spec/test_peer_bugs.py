"""Bugs that other implementations have had, each named after its report, tried against this one.

What a bug was about may not exist here; then the test tries what comes closest, and says so. Those of paths are in
test_paths.py; tests/unit/test_rows.py has the list of them all.
"""

import itertools
import random
from types import SimpleNamespace

import pytest

from interpeer._core import control
from tests.spec import reference as ref
from tests.spec.peer import (
    CLOSING,
    DIALING,
    ELSEWHERE,
    MS,
    OPEN,
    SECOND,
    Node,
    Peer,
    ack_of,
    answered,
    called,
    endpoint,
    refusal,
    stranger,
)
from tests.spec.test_answering import loaded
from tests.spec.test_frames import connected

SUITES = {"chacha20-poly1305": 1, "aes-256-gcm": 2, "aegis-128l": 3, "aegis-256": 4}
GARBAGE = 300


def still_works(peer):
    """See that a connection does what it is there for."""
    assert peer.handle.state == OPEN
    peer.send(ref.datagram(b"still here?"))
    peer.exchange(SECOND)
    assert peer.handle.recv_datagram() == b"still here?"


def memory(node):
    live = control.live_objects(node.engine)
    return live["small_blocks"] * 4096 + live["large_blocks"] * 65_536


# --- the first messages ---


@pytest.mark.row("H21")
def test_cve_2026_31812_truncated_parameters_of_the_first_message():
    """quinn: a varint that is cut inside the parameters of the first packet ended the program."""
    peer = Peer(Node())
    whole = peer.parameters()
    tries = [whole[:n] for n in range(len(whole))]
    tries += [whole + bytes([kind, first]) for kind in (3, 7, 0x3F, 0x40, 0x80, 0xC0, 0xFF) for first in (0x40, 0x80, 0xC0, 0xFF)]
    for parameters in tries:
        peer.node.hear(peer.init(parameters=parameters), source=peer.at)
        peer.node.say()
    peer.node.wait(20 * SECOND)
    assert control.live_objects(peer.node.engine)["half_open"] == 0
    still_works(peer.call())


@pytest.mark.row("H14", "H18")
def test_cve_2024_45311_refusal_after_a_cookie():
    """quinn: to refuse a first message that came after a retry mixed its connection ids up."""
    node = loaded()
    peer = stranger(node, 1)
    (cookie,) = node.answers(peer.init(), source=peer.at)
    assert cookie[0] == ref.COOKIE
    secret = ref.open_reply(cookie, peer.mac1, node.identity.public, node.network)
    peer.cid = b"\x80" + bytes(7)  # another id than the one that the cookie was asked with
    peer.init(parameters=peer.parameters(PROTOCOL=b"unknown/1"))
    (answer,) = node.answers(peer.with_cookie(secret), source=peer.at)
    assert answer[2:10] == peer.cid
    assert list(peer.read_response(answer)) == [ref.REFUSAL]


@pytest.mark.row("H24")
@pytest.mark.parametrize("claim", ["another's", "garbage", "its own, negated"])
def test_rustsec_2022_0009_identity_that_is_not_the_keys(claim):
    """libp2p (also RUSTSEC-2019-0004, dotnet-libp2p#192): a claim of an identity was not checked against the key."""
    peer, victim = Peer(Node()), ref.Identity(bytes([9]) * 32)
    claims = {"another's": victim.id, "garbage": bytes(range(32)), "its own, negated": ref.negated(victim.id)}
    before = peer.node.counter("dropped_identity") + peer.node.counter("dropped_handshake")
    peer.node.hear(peer.init(claim=claims[claim]), source=peer.at)
    answers = peer.node.say()
    assert peer.node.counter("dropped_identity") + peer.node.counter("dropped_handshake") == before + 1 or answers
    assert all(list(peer.read_response(sent.data)) == [ref.REFUSAL] for sent in answers)
    assert not [event for event in peer.node.events() if event[0] == control.INCOMING]


@pytest.mark.row("H8", "H24")
def test_specs_355_what_was_said_in_one_handshake_is_no_proof_in_another():
    """libp2p: the signature under a static key was not bound to the session, so that one that had leaked was good for ever."""
    peer = Peer(Node())
    handle, init = called(peer)
    response = peer.answer(init)
    peer.node.hear(response)
    assert handle.is_open
    peer.node.say()
    again = peer.node.connect(peer, endpoint("192.0.2.99", 9), protocol=b"other/1")
    (sent,) = (sent for sent in peer.node.say() if sent.data[0] == ref.INIT)
    for replayed in (response, response[:2] + sent.data[2:10] + response[10:]):
        peer.node.hear(replayed)
        assert again.state == DIALING
    peer.node.hear(peer.answer(sent.data))
    assert again.is_open


@pytest.mark.row("H4", "H6")
def test_py_libp2p_1182_an_ed25519_key_is_no_x25519_key():
    """py-libp2p: the bytes of one were taken for the other. Who calls the bytes of an id as they are hears nothing."""
    peer = Peer(Node())
    right = peer.node.identity
    peer.node.identity = SimpleNamespace(id=right.id, public=right.id)
    wrong = peer.init()
    peer.node.identity = right
    assert peer.node.answers(wrong, source=peer.at) == [] and peer.node.counter("dropped_mac") == 1
    still_works(peer.call())


@pytest.mark.row("H21")
def test_cve_2025_49140_padding_longer_than_what_it_is_in():
    """pion: padding that claimed to be longer than the packet ended the program."""
    for size in (1031, 16_384, (1 << 62) - 1):
        peer = Peer(Node())
        own = peer.parameters()
        padding = ref.varint(ref.PADDING) + ref.varint(size)
        whole = own + padding + bytes(1030 - len(own) - len(padding))
        assert refusal(peer, peer.node.answers(peer.init(parameters=whole))) == (ref.PARAMETER, b"")
        still_works(peer.call())


@pytest.mark.row("R1", "H16")
def test_utp_drdos_a_first_message_in_a_victims_name_is_answered_once_and_by_less():
    """BitTorrent's uTP: who was asked in another's name sent that other data, again and again."""
    peer = Peer(Node())
    init = peer.init()
    peer.node.hear(init, source=ELSEWHERE)
    said = peer.node.wait(60 * SECOND)
    assert [sent.to for sent in said] == [ELSEWHERE] and 7 * len(said[0].data) < len(init)


@pytest.mark.row("H2", "S11")
def test_cve_2022_29189_fragments_of_handshake_messages():
    """pion: fragments of handshake messages were kept without bound. Here a message is one datagram, and a piece is none."""
    peer = Peer(Node())
    init = peer.init()
    before = control.live_objects(peer.node.engine)
    for at in range(0, len(init), 100):
        for n in (1, 50, 100, 1199):
            peer.node.hear(init[at : at + n], source=peer.at)
    # what looks like a packet of a lost connection may be told so, in fewer bytes
    assert all(len(sent.data) == 40 for sent in peer.node.say())
    assert control.live_objects(peer.node.engine) == before
    still_works(peer.call())


@pytest.mark.row("H14", "S11")
def test_picoquic_1745_handshake_data_after_the_handshake():
    """picoquic: handshake data were buffered without bound once the handshake was over."""
    peer = Peer(Node())
    init = peer.init()
    (response,) = peer.node.answers(init, source=peer.at)
    peer.read_response(response)
    peer.send(ref.ping())
    peer.handle = peer.node.incoming()
    peer.frames()
    before = control.live_objects(peer.node.engine)
    said = 0
    for _ in range(GARBAGE):
        peer.node.hear(init, response, source=peer.at)
        said += sum(len(sent.data) for sent in peer.node.say())
    assert said <= GARBAGE * (len(init) + len(response))
    after = control.live_objects(peer.node.engine)
    assert after["half_open"] <= before["half_open"] + 1 and after["connections"] == before["connections"]
    still_works(peer)


@pytest.mark.row("H20")
def test_cve_2023_36435_handshakes_that_fail_leave_nothing():
    """msquic: memory leaked with each connection that failed."""
    node = Node()
    before = control.live_objects(node.engine)
    for i in range(200):
        peer = stranger(node, i)
        wrong = peer.parameters(PROTOCOL=b"unknown/1") if i % 2 else peer.parameters()[: i % 30]
        node.hear(peer.init(parameters=wrong), source=peer.at)
        node.say()
        node.now_ns += 20 * MS
    node.wait(60 * SECOND)
    node.events()
    assert control.live_objects(node.engine) == before


# --- the first packets ---


@pytest.mark.row("H14")
def test_cve_2023_46239_frames_in_any_order():
    """quic-go: frames of the handshake in an order that nobody expected ended the program."""
    frames = [
        ref.ping(),
        ref.stream(0, b"data", fin=True),
        ref.datagram(b"message"),
        ref.max_data(1 << 41),
        ref.stop_sending(0, 1),
    ]
    for order in itertools.permutations(frames):
        peer = Peer(Node())
        answered(peer)
        peer.send(*order)
        peer.handle = peer.node.incoming()
        assert peer.handle.state == OPEN and peer.handle.recv_datagram() == b"message"


@pytest.mark.row("H14", "P14")
@pytest.mark.parametrize("app", [True, False])
def test_cve_2024_32650_close_as_the_first_packet(app):
    """rustls: an alert that closes, in the middle of the handshake, made an endless loop."""
    peer = Peer(Node())
    answered(peer)
    peer.send(ref.close(0, b"changed my mind", app=app))
    peer.node.wait(60 * SECOND)
    peer.node.events()
    peer.node.say()
    assert control.live_objects(peer.node.engine)["half_open"] == 0
    assert peer.node.exchange.poll_timeout() == 0, "nothing is due any more"


@pytest.mark.row("P3", "H14")
def test_cve_2025_59530_packets_that_do_not_open_around_the_end_of_the_handshake():
    """quic-go: a packet that could not be decrypted yet was queued, and ended the program after the handshake."""
    node = Node()
    peer = Peer(node)
    handle, init = called(peer)
    noise = random.Random(1)
    for n in range(GARBAGE):
        node.hear(init[2:10] + noise.randbytes(24 + n), source=peer.at)
    node.now_ns += 20 * MS
    node.hear(peer.answer(init, parameters=peer.parameters(PROTOCOL=None, CONNECTION_ID=peer.cid)), source=peer.at)
    for n in range(GARBAGE):
        node.hear(init[2:10] + noise.randbytes(24 + n), source=peer.at)
    peer.handle = handle
    node.events()
    peer.frames()
    peer.acknowledge()
    still_works(peer)
    assert node.counter("dropped_unknown") == GARBAGE, "before there were keys"
    assert node.counter("dropped_forged") + node.counter("dropped_reserved") + node.counter("dropped_replayed") == GARBAGE


# --- packets ---


@pytest.mark.row("P3")
@pytest.mark.parametrize("name", ["CVE-2024-58265 (snow)", "CVE-2021-4239 (flynn/noise)"])
def test_cve_2024_58265_garbage_advances_no_nonce(name):
    """A packet that does not open moved the receiver's nonce on, so that no true one did after it; at the end it wrapped."""
    peer = connected()
    genuine = peer.packet(ref.datagram(b"genuine"))
    for n in range(GARBAGE):
        forged = bytearray(peer.packet(ref.ping(), counter=(1 << 56) - 1 - n if n % 2 else 1000 + n))
        forged[-1] ^= 1
        peer.node.hear(bytes(forged), source=peer.at)
    assert peer.node.counter("dropped_forged") == GARBAGE and peer.node.say() == []
    peer.node.hear(genuine, source=peer.at)
    assert peer.handle.recv_datagram() == b"genuine"
    still_works(peer)


@pytest.mark.row("P15", "P6")
@pytest.mark.parametrize("suite", SUITES)
def test_cve_2025_4432_any_sample_of_the_mask(suite):
    """ring: one sample for header protection in 2^32 made a counter overflow."""
    if suite not in control.available_suites():
        pytest.skip(f"{suite} is not available on this machine")
    peer = Peer(Node(suites=(suite,)), suite=SUITES[suite]).call()
    for byte in (0x00, 0x7F, 0x80, 0xFF):
        for n in (32, 33, 48, 64, 1200):
            peer.node.hear(peer.remote_cid + bytes([byte]) * (n - 8), source=peer.at)
    peer.frames()
    still_works(peer)


@pytest.mark.row("P10")
def test_cve_2026_26014_no_nonce_is_used_twice():
    """pion: nonces were drawn, and met. Here they are counters: what is lost is sent again under a new one."""
    if "aes-256-gcm" not in control.available_suites():
        pytest.skip("aes-256-gcm is not available on this machine")
    peer = Peer(Node(suites=("aes-256-gcm",)), suite=ref.AES_256_GCM).call()
    stream = peer.handle.open_stream()
    stream.write(bytes(40_000))
    seen = set()
    for turn in range(200):
        said = peer.node.wait(20 * MS)
        numbers = [peer.receive_keys.open(sent.data).counter for sent in said]
        assert not seen & set(numbers) and len(numbers) == len(set(numbers))
        seen |= set(numbers)
        if numbers and turn % 3 == 0:  # the others are lost
            peer.send(ack_of(numbers[::2]))
    assert len(seen) > 40


# --- frames ---


@pytest.mark.row("P8")
@pytest.mark.parametrize("kind", [0x30, 0x37, 0x3E, 0x3F])
def test_cve_2023_42805_unknown_frame_type(kind):
    """quinn: a frame of a type that nobody knows ended the program. Here it ends the connection, by name."""
    peer = connected()
    other = Peer(peer.node, bytes([3]) * 32, at=endpoint("198.51.100.8", 2003)).call()
    peer.send(ref.varint(kind) + bytes(20))
    peer.closed_with()
    assert peer.handle.state == CLOSING
    still_works(other)


@pytest.mark.row("P16", "S8")
def test_cve_2022_29190_things_of_no_length():
    """pion (also iroh 1.1): something of length zero was looked at again and again. A packet full of such things ends."""
    peer = connected()
    empty = [ref.stream(0, b""), ref.datagram(b""), ref.stream(2, b"", 0), bytes(1)]
    for frame in empty:
        peer.send(*[frame] * (1000 // len(frame)))
        peer.node.hear(b"", source=peer.at)
    assert peer.handle.state == OPEN
    assert all(message == b"" for message in peer.handle.recv_datagrams(10_000))
    assert len(peer.node.say()) <= len(empty)
    still_works(peer)


@pytest.mark.row("P9")
@pytest.mark.parametrize("length", [1 << 30, (1 << 62) - 1])
def test_ghsa_xqvc_92cf_94j4_lengths_that_nobody_can_mean(length):
    """py-libp2p: the length in front of a message was believed, and as much allocated."""
    for head in (
        ref.numbers(ref.STREAM | ref.LEN, 0, length),
        ref.numbers(ref.DATAGRAM_LEN, length),
        ref.numbers(ref.CLOSE, 0, length),
    ):
        peer = connected()
        before = memory(peer.node)
        peer.send(head + bytes(100))
        peer.closed_with()
        assert memory(peer.node) <= before


@pytest.mark.row("C4")
def test_aioquic_549_ack_ranges():
    """aioquic: with enough numbers left out an acknowledgement did not fit any more, and was tried again for ever."""
    peer = connected()
    for _ in range(2000):
        peer.counter += 2
        peer.send(ref.ping())
        for sent in peer.node.say():
            assert len(sent.data) <= 1200
    assert len(peer.node.wait(SECOND)) < 20
    still_works(peer)


# --- streams ---


@pytest.mark.row("S2")
def test_cve_2026_25800_fragments_with_gaps():
    """quinn: the pieces of a stream whose start is withheld took many times their own memory."""
    peer = connected()
    before = memory(peer.node)
    for offset in range(1, 500_000, 2):
        peer.send(ref.stream(0, b"x", offset))
        if peer.handle.state != OPEN:
            break
    assert peer.handle.state == CLOSING, "after so many gaps as are kept"
    assert memory(peer.node) - before <= 2 * 512 * 1024


@pytest.mark.row("S1", "S5")
def test_aioquic_501_data_far_ahead():
    """aioquic: handshake data with holes far ahead were buffered up to where they were. Streams are what has offsets here."""
    for offset in (0x1000_0000, 1 << 40, (1 << 62) - 2):
        peer = connected()
        before = memory(peer.node)
        peer.send(ref.stream(0, b"x", offset))
        assert peer.closed_with() == ref.FLOW_CONTROL
        assert memory(peer.node) <= before


@pytest.mark.row("S6")
def test_aioquic_589_window_by_highest_offset():
    """aioquic: the window doubled with the highest offset that was seen, read or not."""
    peer = connected()
    window = ref.number(peer.remote_parameters[ref.MAX_STREAM_DATA])
    for step in range(1, 20):
        peer.send(ref.stream(0, b"x", window * step // 20))
        peer.send(ref.stream(4 * step, b"", 0))
    limits = [frame for frame in peer.frames(peer.node.wait(SECOND)) if frame.kind in (ref.MAX_DATA, ref.MAX_STREAM_DATA)]
    assert limits == []
    peer.send(ref.stream(0, b"x", window))
    assert peer.closed_with() == ref.FLOW_CONTROL


@pytest.mark.row("S6", "S7")
def test_cve_2022_23492_streams_without_back_pressure():
    """libp2p (yamux and mplex; also CVE-2024-32984): streams were opened without end, and each was kept."""
    peer = connected(max_streams=50)
    for n in range(50):
        peer.send(ref.stream(2 * n, b"x" * 100))
        peer.send(ref.reset_stream(2 * n, 1, 100))
    assert peer.handle.state == OPEN
    assert control.live_objects(peer.node.engine)["streams"] <= 50
    peer.exchange(SECOND)
    peer.send(ref.stream(100, b"one more"))
    assert peer.closed_with() == ref.STREAM_LIMIT


@pytest.mark.row("S1")
def test_cve_2026_32314_first_frame_larger_than_the_window():
    """rust-yamux: a stream whose first frame had more than its window ended the program."""
    peer = connected(stream_window=1000)
    peer.send(ref.stream(0, bytes(1001), fin=True))
    assert peer.closed_with() == ref.FLOW_CONTROL


# --- recovery ---


@pytest.mark.row("C9")
def test_cve_2025_29785_a_path_probe_that_is_lost():
    """quic-go: the loss of a probe of the path ended the program. The probes here are those of its MTU."""
    peer = connected(max_packet_bytes=65_507)
    stream = peer.handle.open_stream()
    probes = []
    for _ in range(50):
        stream.write(bytes(20_000))
        numbers = []
        for sent in peer.node.wait(20 * MS):
            opened = peer.open(sent.data)
            (probes if len(sent.data) > 1200 else numbers).append(opened.counter)
        if numbers:
            peer.send(ack_of(numbers))
    assert len(probes) > 3 and peer.handle.stats()["packet_bytes"] == 1200
    peer.send(ack_of(probes))  # after all
    assert peer.handle.stats()["packet_bytes"] == 1200
    still_works(peer)
