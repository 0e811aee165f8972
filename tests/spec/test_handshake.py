"""Chapter 4 of the specification: messages, identities, response, parameters. See also test_answering.py and test_calls.py."""

import random

import pytest

from interpeer._core import control
from tests.spec import reference as ref
from tests.spec.peer import (
    BY_REFUSAL,
    CLOSED,
    DIALING,
    ELSEWHERE,
    MS,
    PROTOCOL,
    SECOND,
    Node,
    Peer,
    called,
    refusal,
)
from tests.spec.reference import NO_SUITE, PARAMETER
from tests.spec.test_packets import dropped, pto_ns

# --- the messages ---


@pytest.mark.spec("HS-3")
@pytest.mark.parametrize("kind", [ref.RESPONSE, ref.COOKIE, ref.VERSIONS])
def test_replies_to_nothing_are_dropped(kind):
    peer = Peer(Node())
    handle, init = called(peer)
    other = init[2:9] + bytes([init[9] ^ 1])
    for body in (bytes(56), bytes(190)):
        assert dropped(peer.node, "dropped_unknown", ref.header(kind, other) + body)
    # once it is answered, the call does not wait for anything
    response = peer.answer(init)
    peer.node.hear(response)
    peer.node.say()
    assert handle.is_open
    assert dropped(peer.node, "dropped_unknown", response, ref.header(kind, init[2:10]) + bytes(56))


@pytest.mark.spec("HS-5", "HS-9", "HS-10", "HS-11")
@pytest.mark.parametrize("network", [b"", b"interpeer", b"n" * 64], ids=len)
def test_an_init_is_what_an_independent_implementation_expects(network):
    peer = Peer(Node(network=network))
    handle, init = called(peer)
    assert len(init) == 1200 and init[:2] == b"\x41\1" and init[2] & 0x80
    assert init[1168:] == ref.blake(16, init[:1168], ref.mac1_key(peer.identity.public, network)) + bytes(16)
    response = peer.answer(init)
    assert (peer.remote_identity, peer.remote_static) == (peer.node.identity.id, peer.node.identity.public)
    assert peer.remote_parameters[ref.PROTOCOL] == PROTOCOL and peer.remote_parameters[ref.SUITE_LIST] == b"\1"
    peer.node.hear(response)
    assert handle.is_open


@pytest.mark.spec("HS-6")
@pytest.mark.parametrize("size", [64, 1199, 1201, 1400])
def test_an_init_of_another_size_is_dropped(size):
    peer = Peer(Node())
    body = peer.init()[:-32]
    body = (body + bytes(300))[: size - 32]
    assert dropped(peer.node, "dropped_short", ref.with_macs(body, peer.node.identity.public, b""))


@pytest.mark.spec("HS-7")
def test_an_init_with_a_connection_id_that_is_none_is_dropped():
    peer = Peer(Node())
    peer.cid = b"\x7f" + peer.cid[1:]
    assert dropped(peer.node, "dropped_short", peer.init())


@pytest.mark.spec("HS-8")
@pytest.mark.row("H4", "H12")
def test_an_init_with_a_wrong_mac1_is_dropped():
    peer = Peer(Node(network=b"one"))
    init = peer.init()
    for byte in (0, 1, 15):
        wrong = bytearray(init)
        wrong[1168 + byte] ^= 1
        assert dropped(peer.node, "dropped_mac", bytes(wrong))
    assert dropped(peer.node, "dropped_mac", peer.init(network=b"two"))
    assert dropped(peer.node, "dropped_mac", ref.with_macs(init[:1168], peer.identity.public, b"one"))
    assert peer.node.answers(init)


@pytest.mark.spec("HS-12")
@pytest.mark.row("P4")
def test_each_direction_has_a_secret_of_its_own():
    peer = Peer(Node(is_stored=False)).call()
    assert peer.send_keys.secrets[0] != peer.receive_keys.secrets[0]
    assert peer.handle.send_datagram(b"to the peer")
    (sent,) = peer.node.say()
    # what comes back to its sender is for another connection id, and does not open if that is replaced
    assert dropped(peer.node, "dropped_unknown", sent.data)
    peer.node.hear(peer.remote_cid + sent.data[8:])
    assert peer.node.counter("dropped_reserved") + peer.node.counter("dropped_forged") == 1
    assert peer.handle.recv_datagram() is None and [frame.data for frame in peer.told([sent])] == [b"to the peer"]


@pytest.mark.spec("HS-13")
def test_no_random_byte_is_used_twice():
    entropy = random.Random(1).randbytes(4096)
    node = Node(entropy=entropy)
    handles = [node.connect(Peer(node)) for _ in range(3)]
    inits = [sent.data for sent in node.say()]
    peers = [Peer(node, bytes([i]) * 32) for i in range(3, 6)]
    responses = [node.answers(peer.init())[0] for peer in peers]
    identifiers = [init[2:10] for init in inits]
    ephemerals = [init[10:42] for init in inits] + [response[10:42] for response in responses]
    for peer, response in zip(peers, responses, strict=True):
        peer.read_response(response)
        identifiers.append(peer.remote_cid)
    assert len(handles) == 3 and len(set(identifiers)) == len(set(ephemerals)) == 6
    assert control.entropy_missing(node.engine) == 6 * (8 + 32)
    # what is gone is gone: without fresh bytes there is no handshake
    while control.entropy_missing(node.engine) <= 4096 - 40:
        peers.append(Peer(node, random.Random(len(peers)).randbytes(32)))
        node.hear(peers[-1].init())
    node.say()
    assert node.answers(Peer(node, bytes([99]) * 32).init()) == []


@pytest.mark.spec("HS-14")
@pytest.mark.row("H2", "H3")
def test_a_damaged_message_leaves_the_handshake_as_it_was():
    peer = Peer(Node())
    handle, init = called(peer)
    response = peer.answer(init)
    for bit in range(10 * 8, len(response) * 8, 7):
        damaged = bytearray(response)
        damaged[bit // 8] ^= 1 << bit % 8
        assert dropped(peer.node, "dropped_handshake", bytes(damaged)), bit
    for n in range(10, len(response)):
        assert dropped(peer.node, "dropped_handshake", response[:n]), n
    assert handle.state == DIALING
    peer.node.hear(response)
    assert handle.is_open
    peer = Peer(Node())
    init = peer.init()
    for at in (10, 41, 42, 90, 500, 1167):
        damaged = bytearray(init[:1168])
        damaged[at] ^= 1
        assert dropped(peer.node, "dropped_handshake", ref.with_macs(bytes(damaged), peer.node.identity.public, b""))
    peer.read_response(peer.node.answers(init)[0])


# --- identities ---


@pytest.mark.spec("HS-15")
@pytest.mark.row("H24")
def test_an_init_that_claims_another_identity_is_dropped():
    peer = Peer(Node())
    other = ref.Identity(bytes([9]) * 32)
    for claim in (other.id, peer.node.identity.id, bytes(32), b"\2" + bytes(31)):
        assert dropped(peer.node, "dropped_identity", peer.init(claim=claim))
    assert peer.node.counter("half_open") == 0


@pytest.mark.spec("HS-16")
def test_a_response_with_another_identity_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    # the last one has the key that was called, but is not the id
    for claim in (ref.Identity(bytes([9]) * 32).id, bytes(32), ref.negated(peer.identity.id)):
        assert dropped(peer.node, "dropped_identity", peer.answer(init, claim=claim))
    peer.node.hear(peer.answer(init))
    assert handle.is_open


@pytest.mark.spec("HS-17")
@pytest.mark.row("H7")
def test_an_init_with_our_own_key_is_dropped():
    node = Node()
    mirror = Peer(node, node.identity.seed)
    for claim in (node.identity.id, ref.negated(node.identity.id)):
        assert dropped(node, "dropped_identity", mirror.init(claim=claim))


# --- the response ---


@pytest.mark.spec("HS-19")
def test_a_response_that_is_too_long_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    own = peer.parameters(PROTOCOL=None, CONNECTION_ID=peer.cid)
    room = 512 - 10 - 32 - 16 - 32 - len(own)
    too_long, longest = (own + ref.parameter(0x77, bytes(room - 4 + more)) for more in (1, 0))
    response = peer.answer(init, parameters=too_long)
    assert len(response) == 513 and dropped(peer.node, "dropped_handshake", response)
    response = peer.answer(init, parameters=longest)
    assert len(response) == 512
    peer.node.hear(response)
    assert handle.is_open


@pytest.mark.spec("HS-20")
@pytest.mark.row("H14")
def test_a_response_is_taken_from_any_address_and_that_is_the_path():
    peer = Peer(Node())
    handle, init = called(peer)
    peer.node.hear(peer.answer(init), source=ELSEWHERE)
    assert {sent.to for sent in peer.node.say()} == {ELSEWHERE} and handle.remote == ELSEWHERE


@pytest.mark.spec("HS-21")
def test_an_initiator_confirms_at_once():
    peer = Peer(Node())
    handle, init = called(peer)
    peer.node.hear(peer.answer(init))
    (confirmation,) = peer.node.say()
    assert handle.is_open and [frame.kind for frame in peer.frames([confirmation])] == [ref.PING]


@pytest.mark.spec("HS-79")
def test_an_initiators_packets_are_padded_until_it_has_received_one():
    peer = Peer(Node())
    handle, init = called(peer)
    peer.node.hear(peer.answer(init))
    assert [len(sent.data) for sent in peer.node.say()] == [400]
    handle.send_datagram(b"small")
    assert [len(sent.data) for sent in peer.node.say()] == [400]
    handle.send_datagram(bytes(500))
    assert [len(sent.data) for sent in peer.node.say()] == [16 + 3 + 500 + 16]
    peer.send(ref.ping())
    handle.send_datagram(b"small")
    (sent,) = peer.node.say()
    assert len(sent.data) < 100
    # but not to an address that may get no more than came from there
    peer = Peer(Node())
    handle, init = called(peer)
    least = peer.answer(init, parameters=ref.parameter(ref.SUITE_LIST, b"\1") + ref.parameter(ref.CONNECTION_ID, peer.cid))
    peer.node.hear(least, source=ELSEWHERE)
    (confirmation,) = peer.node.say()
    assert handle.is_open and len(confirmation.data) < len(least) < 200


@pytest.mark.spec("HS-22", "HS-23")
@pytest.mark.row("H8", "H10")
def test_a_responder_opens_nothing_before_an_authentic_packet():
    peer = Peer(Node())
    (response,) = peer.node.answers(peer.init())
    peer.read_response(response)
    whole = peer.packet(ref.datagram(b"confirmed"))
    for i in range(16, len(whole)):
        forged = bytearray(whole)
        forged[i] ^= 1
        assert peer.node.answers(bytes(forged)) == []
    assert peer.node.events() == [] and peer.node.counter("connections") == 0 and peer.node.counter("half_open") == 1
    assert peer.node.wait(5 * SECOND) == []
    peer.node.hear(whole)
    peer.handle = peer.node.incoming()
    assert peer.handle.peer_identity == peer.identity.id and peer.handle.recv_datagram() == b"confirmed"
    assert peer.node.counter("half_open") == 0 and peer.node.counter("connections") == 1


@pytest.mark.row("H9", "H8")
def test_there_are_no_early_data_and_nothing_in_a_first_message_is_delivered_however_often_it_comes():
    """They would be replayable. An init has parameters; what else is in it, or comes with it, the application never sees."""
    peer = Peer(Node())
    early = ref.parameter(0x3F, b"GET /") + ref.parameter(0x4001, ref.datagram(b"GET /") + ref.stream(0, b"GET /", fin=True))
    init = peer.init(parameters=peer.parameters() + early)
    (response,) = peer.node.answers(init)
    peer.read_response(response)
    for _ in range(20):
        assert peer.node.answers(init) == [response]
        peer.node.wait(SECOND // 4)
    assert peer.node.events() == [] and peer.node.counter("connections") == 0
    peer.send(ref.ping())
    peer.handle = peer.node.incoming()
    assert peer.handle.recv_datagram() is None and peer.handle.accept_stream() is None
    reborn = Node()  # the same identity, and no memory of what was
    for _ in range(3):
        reborn.answers(init)
    assert reborn.events() == [] and reborn.counter("connections") == 0


# --- parameters ---


@pytest.mark.spec("HS-25")
@pytest.mark.row("H21")
def test_unknown_parameters_are_skipped():
    more = b"".join(ref.parameter(kind, b"v") for kind in (*range(0x12, 0x40), 0x40, 0x4000, 2**62 - 1, 0x3E))
    peer = Peer(Node())
    peer.read_response(peer.node.answers(peer.init(parameters=more + peer.parameters() + more))[0])
    assert peer.remote_cid
    peer = Peer(Node())
    handle, init = called(peer)
    own = peer.parameters(PROTOCOL=None, CONNECTION_ID=peer.cid)
    peer.node.hear(peer.answer(init, parameters=more + own + more))
    assert handle.is_open


INVALID = {
    "twice": ref.parameter(ref.MAX_DATA, 5),
    "type cut": b"\x40",
    "size missing": b"\x20",
    "size cut": b"\x20\x40",
    "value cut": b"\x20\x05abcd",
    "value absent, huge size": b"\x20" + ref.varint(2**62 - 1),
    "type too long": ref.varint(0x20, 2) + b"\0",
    "size too long": b"\x20" + ref.varint(1, 2) + b"a",
    "number too long": ref.varint(ref.MAX_STREAMS) + b"\2" + ref.varint(5, 2),
    "number and more": ref.varint(ref.MAX_STREAMS) + b"\2\5\5",
    "number cut": ref.varint(ref.MAX_STREAMS) + b"\1\x40",
    "no number": ref.varint(ref.MAX_STREAMS) + b"\0",
    "small packets": ref.parameter(ref.MAX_UDP_PAYLOAD, 1199),
    "long delay": ref.parameter(ref.MAX_ACK_DELAY, 16_384_001),
    "short token": ref.parameter(ref.RESET_TOKEN, bytes(15)),
    "long token": ref.parameter(ref.RESET_TOKEN, bytes(17)),
    "no suites": ref.parameter(ref.SUITE_LIST, b""),
    "short id": ref.parameter(ref.CONNECTION_ID, b"\x80" + bytes(6)),
    "long id": ref.parameter(ref.CONNECTION_ID, b"\x80" + bytes(8)),
    "low id": ref.parameter(ref.CONNECTION_ID, b"\x7f" + bytes(7)),
    "refusal without a code": ref.parameter(ref.REFUSAL, b""),
    "refusal with code 0": ref.parameter(ref.REFUSAL, b"\0"),
    "long reason": ref.parameter(ref.REFUSAL, b"\1" + bytes(257)),
    "no protocol": ref.parameter(ref.PROTOCOL, b""),
    "long protocol": ref.parameter(ref.PROTOCOL, bytes(65)),
}
REPLACES = {
    "number too long": "MAX_STREAMS", "number and more": "MAX_STREAMS", "number cut": "MAX_STREAMS", "no number": "MAX_STREAMS",
    "small packets": "MAX_UDP_PAYLOAD", "long delay": "MAX_ACK_DELAY", "short token": "RESET_TOKEN",
    "long token": "RESET_TOKEN", "no suites": "SUITE_LIST", "no protocol": "PROTOCOL", "long protocol": "PROTOCOL",
    "short id": "CONNECTION_ID", "long id": "CONNECTION_ID", "low id": "CONNECTION_ID",
}  # fmt: skip


def invalid(peer, what, **changes):
    """Return parameters that would be right, were it not for their end."""
    return peer.parameters(**changes | ({REPLACES[what]: None} if what in REPLACES else {})) + INVALID[what]


@pytest.mark.spec("HS-26", "HS-28")
@pytest.mark.row("H21")
@pytest.mark.parametrize("what", INVALID)
def test_an_init_with_invalid_parameters_is_refused(what):
    peer = Peer(Node())
    parameters = invalid(peer, what)
    padding = ref.parameter(ref.PADDING, bytes(1030 - 3 - len(parameters)))  # in front, so that a cut value stays cut
    assert refusal(peer, peer.node.answers(peer.init(parameters=padding + parameters))) == (PARAMETER, b"")
    assert peer.node.counter("half_open") == 0


@pytest.mark.spec("HS-26", "HS-29")
@pytest.mark.parametrize("what", INVALID)
def test_a_response_with_invalid_parameters_is_dropped(what):
    peer = Peer(Node())
    handle, init = called(peer)
    own = {"PROTOCOL": None, "CONNECTION_ID": peer.cid}
    wrong = invalid(peer, what, **own)
    assert dropped(peer.node, "dropped_handshake", peer.answer(init, parameters=wrong))
    assert handle.state == DIALING
    peer.node.hear(peer.answer(init, parameters=peer.parameters(**own)))
    assert handle.is_open


@pytest.mark.spec("HS-29")
def test_a_response_with_neither_refusal_nor_connection_id_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    assert dropped(peer.node, "dropped_handshake", peer.answer(init, parameters=peer.parameters(PROTOCOL=None)))
    assert handle.state == DIALING


@pytest.mark.spec("HS-27")
@pytest.mark.parametrize("role", ["call", "be_called"])
def test_absent_parameters_have_their_defaults(role):
    names = ("MAX_DATA", "MAX_STREAM_DATA", "MAX_STREAMS", "MAX_DATAGRAM", "IDLE_TIMEOUT", "MAX_ACK_DELAY", "RESET_TOKEN")
    peer = getattr(Peer(Node(packet_bytes=1400, idle_timeout_ns=0, rekey_ns=1 << 62)), role)(
        MAX_UDP_PAYLOAD=None, **dict.fromkeys(names)
    )
    assert peer.handle.open_stream() is None and peer.handle.max_datagram_bytes == 0
    stats = peer.handle.stats()
    assert (stats["data_limit"], stats["packet_bytes"]) == (0, 1200)
    peer.send(ref.max_streams(1), ref.max_data(10**6))
    stream = peer.handle.open_stream()
    assert [(frame.id, frame.data) for frame in peer.told()] == [(stream.id, b"")]
    peer.send(ref.max_stream_data(stream.id, 10**6))
    stream.write(bytes(3000))
    said = peer.node.say()
    assert max(len(sent.data) for sent in said) == 1200
    # the peer has promised to acknowledge at once, so the probe time-out has no delay in it
    assert peer.node.wait(pto_ns(peer, delay_ns=0) - MS) == [] and len(peer.node.wait(2 * MS)) == 2
    # and there is no idle time-out
    peer.exchange()
    peer.node.wait(3600 * SECOND)
    assert peer.handle.is_open


@pytest.mark.spec("HS-27")
@pytest.mark.parametrize("role", ["call", "be_called"])
def test_absent_parameters_of_channels_and_paths_have_their_defaults(role):
    peer = getattr(Peer(Node()), role)(MAX_PATHS=None, MAX_CHANNELS=None, MAX_MESSAGE=None)
    assert peer.handle.max_message_bytes == 16_777_216
    peer.exchange()
    assert len(peer.path_cids) > 1, "there are ids for more paths than one"
    channels = [peer.handle.open_channel((3, 3, 0, 0, 0)) for _ in range(4097)]
    assert [channel is None for channel in channels] == [False] * 4096 + [True]


@pytest.mark.spec("HS-30", "VR-7")
@pytest.mark.parametrize(
    ("offered", "accepted", "chosen"),
    [
        ([1], [1], 1),
        ([4, 1], [1], 1),
        ([200, 255, 0, 1], [1], 1),
        ([1, 4], [4, 1], 1),
        ([4, 1], [1, 4], 4),
        ([100, 101, 102, 103, 104, 105, 106, 1], [1], 1),
        ([100, 101, 102, 103, 104, 105, 106, 107, 1], [1], None),
    ],
)
def test_the_initiators_first_suite_that_fits_is_chosen(offered, accepted, chosen):
    names = tuple(control.SUITE_NAMES[suite] for suite in accepted)
    if not set(names) <= set(control.available_suites()):
        pytest.skip("this libsodium or processor has no AEGIS")
    peer = Peer(Node(suites=names))
    answers = peer.node.answers(peer.init(parameters=peer.parameters(SUITE_LIST=bytes(offered))))
    if chosen is None:
        assert refusal(peer, answers) == (NO_SUITE, b"")
    else:
        assert peer.read_response(answers[0])[ref.SUITE_LIST] == bytes([chosen])


@pytest.mark.spec("HS-31")
@pytest.mark.row("H13")
@pytest.mark.parametrize("suite", [0, 2, 3, 4, 5, 255])
def test_an_initiator_does_not_use_a_suite_that_it_has_not_offered(suite):
    peer = Peer(Node())
    handle, init = called(peer)
    wrong = peer.parameters(PROTOCOL=None, CONNECTION_ID=peer.cid, SUITE_LIST=bytes([suite]))
    assert peer.node.answers(peer.answer(init, parameters=wrong)) == []
    assert handle.state == CLOSED and handle.closed() == (BY_REFUSAL, NO_SUITE, False, b"")
