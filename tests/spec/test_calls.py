"""Chapter 4 of the specification, continued: cookies and versions as the initiator sees them, its calls, and glare."""

import itertools

import pytest

from interpeer._core import control
from tests.spec import reference as ref
from tests.spec.peer import (
    BY_PEER_ERROR,
    BY_SILENCE,
    BY_VERSION,
    CLOSED,
    DIALING,
    ELSEWHERE,
    MS,
    NODE_AT,
    PEER_AT,
    PROTOCOL,
    SECOND,
    UNREACHABLE,
    Node,
    Peer,
    Sent,
    answered,
    called,
    endpoint,
    stranger,
)
from tests.spec.reference import BUSY, REFUSED
from tests.spec.test_packets import dropped

NONCE = bytes(range(24))


def reply(peer, init, kind, text, *, mac1=None, responder=None, head=None):
    """Seal a cookie or versions reply to the node's init."""
    head = head or ref.header(kind, init[2:10])
    return ref.seal_reply(head, text, NONCE, mac1 or init[1168:1184], responder or peer.identity.public, peer.node.network)


# --- cookies ---


@pytest.mark.spec("HS-48", "HS-55", "HS-49")
def test_an_initiator_shows_its_first_cookie_at_once():
    peer = Peer(Node(network=b"net"))
    handle = peer.node.connect(peer, PEER_AT, ELSEWHERE)
    init, same = (sent.data for sent in peer.node.wait(60 * MS))
    assert init == same
    cookie = bytes(range(16))
    peer.node.hear(reply(peer, init, ref.COOKIE, cookie))
    (again,) = peer.node.say()
    assert again.to == PEER_AT and again.data[:1184] == init[:1184]
    assert again.data[1184:] == ref.blake(16, again.data[:1184], cookie)
    # the other address has given no cookie
    said = peer.node.wait(310 * MS)
    assert [(sent.to, sent.data) for sent in said] == [(PEER_AT, again.data), (ELSEWHERE, init)]
    peer.node.hear(peer.answer(init), source=ELSEWHERE)
    assert handle.is_open


@pytest.mark.spec("HS-78")
def test_a_cookie_from_where_nobody_was_called_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    answer = reply(peer, init, ref.COOKIE, bytes(range(16)))
    assert dropped(peer.node, "dropped_handshake", answer, answer, source=ELSEWHERE)
    assert {(sent.to, sent.data) for sent in peer.node.wait(5 * SECOND)} == {(PEER_AT, init)}
    assert handle.state == DIALING


@pytest.mark.spec("HS-54")
@pytest.mark.row("H19")
def test_a_forged_cookie_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    cookie = bytes(range(16))
    for forged in (
        reply(peer, init, ref.COOKIE, cookie, mac1=bytes(16)),
        reply(peer, init, ref.COOKIE, cookie, responder=peer.node.identity.public),
        reply(peer, init, ref.COOKIE, cookie[:15]),
        reply(peer, init, ref.COOKIE, cookie + b"\0"),
        reply(peer, init, ref.VERSIONS, cookie).replace(b"\x44", b"\x43", 1),
        reply(peer, init, ref.COOKIE, cookie)[:-1] + b"\0",
        reply(peer, init, ref.COOKIE, cookie)[:49],
        ref.header(ref.COOKIE, init[2:10]),
    ):
        assert dropped(peer.node, "dropped_handshake", forged)
    assert handle.dial_report() == [(PEER_AT, 1, False)]


@pytest.mark.spec("HS-56")
def test_only_the_first_cookie_makes_a_call_and_the_newest_is_shown():
    peer = Peer(Node())
    handle, init = called(peer)
    first, newest = bytes(range(16)), bytes(16)
    answers = [reply(peer, init, ref.COOKIE, cookie) for cookie in (first, first, first, newest)]
    assert [len(peer.node.answers(answer)) for answer in answers] == [1, 0, 0, 0]
    (regular,) = peer.node.wait(250 * MS)
    assert regular.data[1184:] == ref.blake(16, regular.data[:1184], newest)
    assert handle.state == DIALING


# --- calls ---


@pytest.mark.spec("HS-59", "HS-60", "HS-61")
def test_one_init_goes_to_each_of_sixteen_addresses_in_turn():
    node = Node()
    addresses = [endpoint("10.0.0.1", 1000 + i) for i in range(20)]
    handle = node.connect(Peer(node), *addresses)
    start_ns = node.now_ns
    said = node.wait(4 * SECOND)
    assert [sent.to for sent in said[:32]] == addresses[:16] * 2 and {sent.to for sent in said} == set(addresses[:16])
    assert len({sent.data for sent in said}) == 1
    gaps = [50 * MS] * 15 + [250 * MS] + [50 * MS] * 15 + [500 * MS]
    assert [sent.at_ns - start_ns for sent in said[:33]] == [sum(gaps[:i]) for i in range(33)]
    assert handle.state == DIALING


@pytest.mark.spec("HS-61")
def test_pauses_between_rounds_double_up_to_a_second():
    node = Node(connect_timeout_ns=30 * SECOND)
    handle = node.connect(Peer(node))
    at = [sent.at_ns for sent in node.wait(12 * SECOND)]
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert pauses == [ms * MS for ms in (250, 500, *[1000] * 11)]
    assert handle.state == DIALING


@pytest.mark.spec("HS-58", "HS-62")
def test_an_initiator_gives_up_when_its_time_is_over():
    node = Node(connect_timeout_ns=3 * SECOND)
    handle = node.connect(Peer(node))
    node.wait(3 * SECOND - MS)
    assert handle.state == DIALING
    node.wait(2 * MS)
    assert handle.state == CLOSED and handle.closed()[0] == UNREACHABLE
    assert node.wait(20 * SECOND) == []
    assert handle.dial_report() == [(PEER_AT, 5, False)]


# --- versions ---


@pytest.mark.spec("HS-63", "HS-64")
@pytest.mark.row("H12")
@pytest.mark.parametrize("version", [0, 2, 255])
@pytest.mark.parametrize("size", [64, 65, 148, 1200, 1400])
def test_an_init_of_another_version_is_told_ours(version, size):
    peer = Peer(Node(network=b"net"))
    body = ref.header(ref.INIT, peer.cid, version) + bytes(size - 42)
    init = ref.with_macs(body, peer.node.identity.public, b"net")
    (answer,) = peer.node.answers(init)
    assert answer[:10] == ref.header(ref.VERSIONS, peer.cid) and len(answer) <= len(init)
    assert ref.open_reply(answer, init[-32:-16], peer.node.identity.public, b"net") == bytes([1])
    assert peer.node.counter("half_open") == 0


@pytest.mark.spec("HS-64")
@pytest.mark.parametrize("size", [42, 63])
def test_an_init_of_another_version_that_is_too_small_is_dropped(size):
    peer = Peer(Node())
    body = ref.header(ref.INIT, peer.cid, 2) + bytes(size - 42)
    assert dropped(peer.node, "dropped_mac", ref.with_macs(body, peer.node.identity.public, b""))


@pytest.mark.spec("HS-65")
def test_an_init_of_another_version_with_a_wrong_mac1_is_dropped():
    peer = Peer(Node(network=b"one"))
    body = ref.header(ref.INIT, peer.cid, 2) + bytes(1158)
    public = peer.node.identity.public
    for wrong in (ref.with_macs(body, public, b"two"), ref.with_macs(body, peer.identity.public, b"one"), body + bytes(32)):
        assert dropped(peer.node, "dropped_mac", wrong)


@pytest.mark.spec("HS-66")
def test_versions_replies_have_a_rate():
    peer = Peer(Node())
    init = ref.with_macs(ref.header(ref.INIT, peer.cid, 2) + bytes(22), peer.node.identity.public, b"")
    assert sum(len(peer.node.answers(init)) for _ in range(120)) == 100
    peer.node.now_ns += SECOND // 2
    assert sum(len(peer.node.answers(init)) for _ in range(120)) == 50


@pytest.mark.spec("HS-67")
@pytest.mark.row("H23")
def test_a_forged_versions_reply_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    for forged in (
        reply(peer, init, ref.VERSIONS, b"\2", mac1=bytes(16)),
        reply(peer, init, ref.VERSIONS, b"\2", responder=peer.node.identity.public),
        reply(peer, init, ref.VERSIONS, bytes(range(2, 19))),
        reply(peer, init, ref.COOKIE, b"\2").replace(b"\x43", b"\x44", 1),
        ref.header(ref.VERSIONS, init[2:10]) + bytes(39),
    ):
        assert dropped(peer.node, "dropped_handshake", forged)
    peer.node.wait(5 * SECOND)
    assert handle.state == DIALING


@pytest.mark.spec("HS-68")
@pytest.mark.row("H23")
def test_a_versions_reply_that_lists_our_version_is_dropped():
    peer = Peer(Node())
    handle, init = called(peer)
    assert dropped(peer.node, "dropped_handshake", reply(peer, init, ref.VERSIONS, b"\2\1\3"))
    peer.node.wait(5 * SECOND)
    assert handle.state == DIALING


@pytest.mark.spec("HS-69", "HS-70", "HS-58", "VR-3")
@pytest.mark.row("H23")
@pytest.mark.parametrize("version", [2, 77])
@pytest.mark.parametrize("is_true", [False, True])
def test_a_versions_reply_is_believed_after_a_second_without_a_response(is_true, version):
    peer = Peer(Node())
    handle, init = called(peer)
    head = ref.header(ref.VERSIONS, init[2:10], version)
    assert peer.node.answers(reply(peer, init, ref.VERSIONS, bytes([2, 77]), head=head)) == []
    peer.node.wait(SECOND - MS)
    assert handle.state == DIALING
    if not is_true:
        peer.node.hear(peer.answer(init))
        assert handle.is_open
    peer.node.wait(2 * MS)
    if is_true:
        assert handle.state == CLOSED and handle.closed() == (BY_VERSION, 0, False, b"")


# --- glare ---


def pair(protocols=((PROTOCOL,), (PROTOCOL,))):
    """Return two nodes and their addresses, that with the lower key first."""
    nodes = sorted((Node(bytes([i]) * 32, protocols=protocols[i]) for i in range(2)), key=lambda node: node.identity.public)
    return nodes[0], nodes[1]


LOW_AT, HIGH_AT, LOW_REALLY_AT = NODE_AT, PEER_AT, ELSEWHERE


def call(node, other, at, protocol=PROTOCOL):
    """Let a node call another; return the handle and the init."""
    handle = control.connect(node.engine, other.identity.id, [at], protocol)
    (init,) = node.say()
    return handle, init.data


def kinds(said: list[Sent]) -> list[int]:
    return [sent.data[0] for sent in said]


@pytest.mark.spec("HS-72", "HS-74")
@pytest.mark.row("H15")
def test_the_lower_key_does_not_answer_but_calls_where_the_other_is():
    low, high = pair()
    low_handle, low_init = call(low, high, HIGH_AT)
    _, high_init = call(high, low, LOW_AT)
    low.hear(high_init, source=ELSEWHERE)
    (sent,) = low.say()
    assert (sent.to, sent.data) == (ELSEWHERE, low_init)
    assert low.counter("half_open") == 0 and low_handle.state == DIALING


@pytest.mark.spec("HS-80")
@pytest.mark.row("H15")
def test_where_the_others_call_came_from_gets_one_init_for_each_of_its_own():
    low, high = pair()
    low_handle, low_init = call(low, high, HIGH_AT)
    high_handle, high_init = call(high, low, LOW_AT)
    for _ in range(3):
        low.hear(high_init, source=ELSEWHERE)
        assert [(sent.to, sent.data) for sent in low.say()] == [(ELSEWHERE, low_init)]
    # neither a cookie nor the rounds bring more
    cookie = bytes(range(16))
    answer = reply(Peer(low, high.identity.seed), low_init, ref.COOKIE, cookie)
    assert dropped(low, "dropped_handshake", answer, source=ELSEWHERE)
    assert {sent.to for sent in low.wait(5 * SECOND)} == {HIGH_AT}
    low.hear(high_init, source=ELSEWHERE)
    (sent,) = low.say()
    assert sent.to == ELSEWHERE and sent.data[1184:] == ref.blake(16, sent.data[:1184], cookie)
    assert low_handle.state == high_handle.state == DIALING


@pytest.mark.spec("HS-73", "HS-75", "HS-76")
@pytest.mark.row("H15")
def test_the_higher_key_answers_and_takes_that_connection_for_its_own():
    low, high = pair()
    control.allow_listed(high.engine, [])  # it lets nobody in, but for whom it calls itself
    low_handle, low_init = call(low, high, HIGH_AT)
    high_handle, high_init = call(high, low, LOW_AT)
    high.hear(low_init, source=LOW_REALLY_AT)
    (response,) = high.say()
    assert response.data[0] == ref.RESPONSE and response.to == LOW_REALLY_AT
    # somebody has answered its own init, too late; it is set aside
    mirror = Peer(high, low.identity.seed)
    assert dropped(high, "dropped_handshake", mirror.answer(high_init))
    low.hear(response.data, source=HIGH_AT)
    (confirmation,) = low.say()
    assert low_handle.is_open and high_handle.state == DIALING
    high.hear(confirmation.data, source=LOW_REALLY_AT)
    assert high_handle.is_open and not high_handle.is_initiator and high_handle.remote == LOW_REALLY_AT
    assert [event[:2] for event in high.events()] == [(control.CONNECTION, high_handle)]
    high.say()
    assert (low.counter("connections"), high.counter("connections")) == (1, 1)
    # it is one and the same connection, and the call is over
    assert low_handle.send_datagram(b"once")
    for sent in low.say():
        high.hear(sent.data, source=LOW_REALLY_AT)
    assert high_handle.recv_datagram() == b"once"
    assert not any(kind == ref.INIT for kind in kinds(high.wait(15 * SECOND)))


@pytest.mark.spec("HS-75")
@pytest.mark.row("H15", "H8")
def test_the_higher_key_waits_for_the_other_handshake_once_only():
    low, high = pair()
    _, low_init = call(low, high, HIGH_AT)
    high_handle, high_init = call(high, low, LOW_AT)
    high.hear(low_init)
    high.say()
    mirror = Peer(high, low.identity.seed)
    response = mirror.answer(high_init)
    high.now_ns += SECOND - MS
    assert dropped(high, "dropped_handshake", response)
    # another init, a replay for instance, gives no more time
    again = Peer(high, low.identity.seed)
    assert high.answers(again.init())[0][0] == ref.RESPONSE
    high.now_ns += 2 * MS
    high.hear(response)
    assert high_handle.is_open and high_handle.is_initiator


def turned_away(low_handle, code=REFUSED):
    return low_handle.closed() == (BY_PEER_ERROR, code, False, b"")


@pytest.mark.spec("HS-81")
@pytest.mark.row("H15")
@pytest.mark.parametrize("policy", ["anybody", "listed", "strangers are not", "asked", "there is no room"])
def test_who_was_answered_for_a_call_that_has_ended_since_needs_to_be_welcome(policy):
    low, high = pair()
    if policy in ("listed", "strangers are not"):
        control.allow_listed(high.engine, [low.identity.id] if policy == "listed" else [])
    elif policy == "asked":
        control.allow_asking(high.engine)
    low_handle, low_init = call(low, high, HIGH_AT)
    high_handle, _ = call(high, low, LOW_AT)
    high.hear(low_init)
    (response,) = high.say()
    high_handle.close(0, b"")
    high.say()
    high.events()
    if policy == "there is no room":
        control.refuse_all(high.engine)
    low.hear(response.data, source=HIGH_AT)
    for sent in low.say():
        high.hear(sent.data)
    low.hear(*(sent.data for sent in high.say()))
    low.say()
    is_welcome = policy in ("anybody", "listed")
    assert [event[0] for event in high.events()] == [control.INCOMING] * is_welcome
    code = BUSY if policy == "there is no room" else REFUSED
    assert turned_away(low_handle, code) == (not is_welcome) and low_handle.is_open == is_welcome


@pytest.mark.spec("HS-82", "HS-83")
@pytest.mark.row("H15")
@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_call_that_was_answered_is_not_given_up_for_the_others(is_confirmed):
    peer = Peer(Node())
    handle, init = called(peer)
    peer.node.hear(peer.answer(init))
    peer.frames()
    if is_confirmed:
        peer.send(ref.ping())
        peer.frames()
    for age_ns in (0, 9 * SECOND):
        peer.node.wait(age_ns)
        said = peer.node.answers(Peer(peer.node).init())
        if is_confirmed:
            assert [data[0] for data in said] == [ref.RESPONSE]
            return
        (packet,) = said
        assert [frame.kind for frame in ref.read_frames(peer.open(packet).payload)] == [ref.PING]
        assert handle.is_open
    peer.node.wait(SECOND)
    assert [data[0] for data in peer.node.answers(Peer(peer.node).init())] == [ref.RESPONSE]
    assert handle.closed()[0] == BY_SILENCE, "for the reason of CN-31"


@pytest.mark.spec("HS-72", "HS-73")
def test_calls_for_different_protocols_do_not_meet():
    protocols = ((b"a/1", b"b/1"), (b"a/1", b"b/1"))
    low, high = pair(protocols)
    low_handle, _ = call(low, high, HIGH_AT, b"a/1")
    high_handle, high_init = call(high, low, LOW_AT, b"b/1")
    low.hear(high_init, source=HIGH_AT)
    (response,) = low.say()
    high.hear(response.data, source=LOW_AT)
    assert high_handle.is_open and low_handle.state == DIALING


@pytest.mark.spec("HS-77")
def test_a_call_waits_for_a_handshake_that_the_same_peer_has_begun():
    node = Node()
    peer = Peer(node)
    answered(peer)
    handle = node.connect(peer)
    assert node.wait(SECOND - MS) == []
    assert kinds(node.wait(2 * MS)) == [ref.INIT]
    assert handle.state == DIALING
    # if that is confirmed meanwhile, it is the connection that was called for
    node = Node()
    peer = Peer(node)
    answered(peer)
    handle = node.connect(peer)
    assert node.wait(SECOND // 2) == []
    peer.send(ref.ping())
    assert handle.is_open and not handle.is_initiator and node.counter("connections") == 2
    node.say()
    assert node.counter("connections") == 1
    # so too if it is confirmed before anything of the call has been sent
    node = Node()
    peer = Peer(node)
    answered(peer)
    handle = node.connect(peer)
    peer.send(ref.ping())
    assert handle.is_open and not handle.is_initiator
    assert [event[:2] for event in node.events()] == [(control.CONNECTION, handle)]
    assert ref.INIT not in kinds(node.wait(15 * SECOND)) and node.counter("connections") == 1
    # or answered only then
    low, high = pair()
    low_handle, low_init = call(low, high, HIGH_AT)
    high_handle = control.connect(high.engine, low.identity.id, [LOW_AT], PROTOCOL)
    (response, *more) = high.answers(low_init)
    assert response[0] == ref.RESPONSE and not more
    assert high.wait(SECOND - MS) == [] and low_handle.state == high_handle.state == DIALING
    # another peer's handshake holds nothing up
    node = Node()
    answered(stranger(node, 5))
    handle = node.connect(Peer(node, bytes([6]) * 32))
    assert kinds(node.say()) == [ref.INIT]
