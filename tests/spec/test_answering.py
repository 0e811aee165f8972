"""Chapter 4 of the specification, continued: refusals, half-open entries, and cookies as the responder asks for them."""

import pytest

from interpeer._core import control
from tests.spec import reference as ref
from tests.spec.peer import (
    BY_REFUSAL,
    CLOSED,
    MS,
    PROTOCOL,
    SECOND,
    Node,
    Peer,
    answered,
    called,
    endpoint,
    refusal,
    stranger,
)
from tests.spec.reference import BUSY, NO_SUITE, PARAMETER, REFUSED, UNKNOWN_PROTOCOL

# --- refusals ---


@pytest.mark.spec("HS-33")
@pytest.mark.parametrize("protocol", [b"test/2", b"test", b"test/11", b"x" * 64, None], ids=str)
def test_an_unknown_protocol_is_refused_by_name(protocol):
    peer = Peer(Node(protocols=(PROTOCOL, b"other/1")))
    answers = peer.node.answers(peer.init(parameters=peer.parameters(PROTOCOL=protocol)))
    assert refusal(peer, answers) == (UNKNOWN_PROTOCOL, protocol or b"")


@pytest.mark.spec("HS-34")
def test_who_is_not_on_the_list_is_refused():
    node = Node()
    friend, stranger = Peer(node, bytes([3]) * 32), Peer(node, bytes([4]) * 32)
    control.allow_listed(node.engine, [friend.identity.id])
    assert refusal(stranger, node.answers(stranger.init())) == (REFUSED, b"")
    # the other id of the same key is another id
    assert refusal(friend, node.answers(friend.init(claim=ref.negated(friend.identity.id)))) == (REFUSED, b"")
    friend.call()


@pytest.mark.spec("HS-35")
def test_who_finds_no_room_is_told_that_we_are_busy():
    node = Node(max_connections=2)
    peers = [Peer(node, bytes([i]) * 32) for i in range(3, 6)]
    for peer in peers[:2]:
        peer.call()
    assert refusal(peers[2], node.answers(peers[2].init())) == (BUSY, b"")
    node = Node(backlog=1)
    peers = [Peer(node, bytes([i]) * 32) for i in range(3, 6)]
    peers[0].read_response(node.answers(peers[0].init())[0])
    peers[0].send(ref.ping())  # it is confirmed, and the application does not take it
    assert refusal(peers[1], node.answers(peers[1].init())) == (BUSY, b"")
    node.incoming()
    peers[2].read_response(node.answers(peers[2].init())[0])
    node = Node()
    control.refuse_all(node.engine)
    peer = Peer(node)
    assert refusal(peer, node.answers(peer.init())) == (BUSY, b"")


@pytest.mark.spec("HS-36")
def test_who_offers_no_suite_that_fits_is_told_so():
    peer = Peer(Node())
    for offered in (b"\4", b"\0", b"\5\6\7", None):
        answers = peer.node.answers(peer.init(parameters=peer.parameters(SUITE_LIST=offered)))
        assert refusal(peer, answers) == (NO_SUITE, b"")


@pytest.mark.spec("HS-37")
@pytest.mark.parametrize(
    ("policy", "changes", "code"),
    [
        (None, {"MAX_UDP_PAYLOAD": 1}, PARAMETER),
        (None, {"PROTOCOL": b"other"}, UNKNOWN_PROTOCOL),
        (lambda engine: control.allow_listed(engine, []), {}, REFUSED),
        (control.refuse_all, {}, BUSY),
        (None, {"SUITE_LIST": b"\5"}, NO_SUITE),
    ],
)
@pytest.mark.parametrize("is_asking", [False, True])
def test_nothing_is_kept_of_who_is_refused(policy, changes, code, is_asking):
    node = Node()
    if is_asking:
        control.allow_asking(node.engine)
    if policy:
        policy(node.engine)
    before = control.live_objects(node.engine)
    peer = Peer(node)
    init = peer.init(parameters=peer.parameters(**changes))
    first, again = node.answers(init), node.answers(init)
    assert refusal(peer, first)[0] == code
    assert [answer[:10] for answer in again] == [first[0][:10]] and again != first  # it was read anew
    assert control.live_objects(node.engine) == before and node.events() == []
    assert node.exchange.poll_timeout() == 0


@pytest.mark.spec("HS-38")
def test_a_refused_initiator_gives_up_and_tells_why():
    peer = Peer(Node())
    handle, init = called(peer)
    no = ref.parameter(ref.REFUSAL, ref.varint(UNKNOWN_PROTOCOL) + b"test/1 \xc3\xa4")
    assert peer.node.answers(peer.answer(init, parameters=no)) == []
    assert handle.closed() == (BY_REFUSAL, UNKNOWN_PROTOCOL, False, b"test/1 \xc3\xa4")
    assert handle.state == CLOSED and peer.node.wait(20 * SECOND) == []


@pytest.mark.spec("HS-39")
@pytest.mark.parametrize("is_welcome", [True, False])
def test_nothing_is_answered_before_the_application_has_decided(is_welcome):
    node = Node()
    control.allow_asking(node.engine)
    peer = Peer(node)
    init = peer.init()
    assert node.answers(init, init) == [] and node.wait(SECOND) == []
    ((kind, question, identity, protocol),) = node.events()
    assert (kind, identity, protocol) == (control.ASK, peer.identity.id, 0)
    control.decide(node.engine, question, is_welcome)
    answers = [sent.data for sent in node.say()]
    if is_welcome:
        peer.read_response(answers[0])
        peer.send(ref.ping())
        assert node.incoming().peer_identity == peer.identity.id
    else:
        assert refusal(peer, answers) == (REFUSED, b"")
        assert node.counter("half_open") == 0


# --- half-open entries ---


@pytest.mark.spec("HS-42")
@pytest.mark.row("H20")
def test_half_open_entries_are_bounded_and_the_oldest_gives_way():
    node = Node(max_half_open=8)
    peers = [stranger(node, i) for i in range(12)]
    for i, peer in enumerate(peers):
        answered(peer)
        node.now_ns += 50 * MS
        assert node.counter("half_open") == min(i + 1, 8)
    for peer in peers:
        peer.send(ref.ping())
    assert {event[1].peer_identity for event in node.events()} == {peer.identity.id for peer in peers[4:]}


@pytest.mark.spec("HS-87")
@pytest.mark.row("H20")
def test_an_entry_has_time_to_be_confirmed():
    """A third caller at two entries is not answered, and is when it calls again, into an entry that was confirmed."""
    node = Node(max_half_open=2)
    first, second, third = (stranger(node, i) for i in range(3))
    answered(first)
    answered(second)
    cookie = cookie_from(third)
    node.now_ns += 299 * MS
    assert node.answers(third.with_cookie(cookie), source=third.at) == [] and node.counter("dropped_limited") == 1
    second.send(ref.ping())
    assert len(node.answers(third.with_cookie(cookie), source=third.at)) == 1
    first.send(ref.ping())
    assert {event[1].peer_identity for event in node.events()} == {first.identity.id, second.identity.id}


@pytest.mark.spec("HS-42")
def test_free_entries_are_used_before_any_is_pushed_out():
    node = Node(max_half_open=4)
    slow, *quick = (stranger(node, i) for i in range(8))
    answered(slow)
    for peer in quick:
        node.now_ns += SECOND
        answered(peer)
        peer.send(ref.ping())
    slow.send(ref.ping())
    assert slow.identity.id in {event[1].peer_identity for event in node.events()}


@pytest.mark.spec("HS-43")
def test_half_open_entries_expire():
    for age_ns, is_kept in ((8 * SECOND, True), (12 * SECOND, False)):
        peer = Peer(Node())
        answered(peer)
        assert peer.node.wait(age_ns) == []
        assert peer.node.counter("half_open") == is_kept
        peer.send(ref.ping())
        assert peer.node.counter("connections_accepted") == is_kept
    # each response gives ten seconds more
    peer = Peer(Node())
    answered(peer)
    init = ref.with_macs(peer.body, peer.node.identity.public, b"")
    for _ in range(3):
        peer.node.wait(8 * SECOND)
        assert len(peer.node.answers(init)) == 1
    peer.node.wait(12 * SECOND)
    assert peer.node.counter("half_open") == 0


@pytest.mark.spec("HS-44", "HS-45")
@pytest.mark.row("H16")
def test_the_same_init_is_answered_again_with_the_same_response_as_often_as_it_comes():
    peer = Peer(Node())
    init = peer.init()
    answers = []
    for i in range(40):
        source = endpoint("10.0.0.1", 1000 + i)
        peer.node.hear(init, source=source)
        said = peer.node.say()
        assert all(sent.to == source for sent in said)
        answers += [sent.data for sent in said]
    assert len(answers) == 40 and len(set(answers)) == 1
    assert peer.node.counter("half_open") == 1


@pytest.mark.spec("HS-85")
@pytest.mark.parametrize("limits", [{"backlog": 2}, {"max_connections": 2}])
def test_whoever_confirms_when_there_is_no_room_any_more_is_told_that_it_is_busy(limits):
    node = Node(**limits)
    peers = [stranger(node, i) for i in range(5)]
    for peer in peers:
        answered(peer)
    ends = []
    for peer in peers:
        node.hear(peer.packet(ref.ping()), source=peer.at)
        ends += [(frame.kind, frame.value) for frame in peer.told(node.say()) if frame.kind in (ref.CLOSE, ref.CLOSE_APP)]
    assert ends == [(ref.CLOSE, BUSY)] * 3
    assert [event[0] for event in node.events()] == [control.INCOMING] * 2


def test_a_node_with_the_largest_limits_answers_in_the_room_that_an_entry_has():
    largest = dict.fromkeys(("connection_window", "stream_window", "max_streams", "max_datagram", "receive_buffer"), 1 << 61)
    largest |= {"max_paths": 3, "max_channels": 1 << 20, "max_message": 1 << 28}  # as Config has them, but for the defaults
    node = Node(idle_timeout_ns=2**63, max_ack_delay_ns=16_384_000_000, **largest)
    assert len(answered(Peer(node))) == 208


@pytest.mark.spec("HS-27")
def test_what_absence_says_already_is_left_out_of_a_response():
    peer = Peer(Node())
    answered(peer)
    said = peer.remote_parameters
    assert not said.keys() & {ref.MAX_PATHS, ref.MAX_CHANNELS, ref.MAX_MESSAGE}
    other = Peer(Node(max_paths=1, max_channels=4095, max_message=(1 << 24) + 1, receive_buffer=5))
    answered(other)
    more = other.remote_parameters
    assert [ref.number(more[kind]) for kind in (ref.MAX_PATHS, ref.MAX_CHANNELS, ref.MAX_MESSAGE)] == [1, 4095, (1 << 24) + 1]
    assert all(more[kind] == said[kind] for kind in said.keys() - {ref.CONNECTION_ID, ref.RESET_TOKEN})


# --- cookies ---


def loaded(*, entries=4, **options):
    """Return a node that asks strangers for cookies, having half of its entries in use."""
    node = Node(max_half_open=entries, **options)
    for i in range(entries // 2):
        answered(stranger(node, 1000 + i), with_cookie=False)
    return node


def cookie_from(peer, source=None):
    """Get a cookie for the last init."""
    (answer,) = peer.node.answers(peer.init(), source=source or peer.at)
    assert answer[:10] == ref.header(ref.COOKIE, peer.cid) and len(answer) == 66
    return ref.open_reply(answer, peer.mac1, peer.node.identity.public, peer.node.network)


@pytest.mark.spec("HS-47", "HS-49")
@pytest.mark.row("H16")
def test_under_load_a_stranger_gets_a_cookie_and_nothing_else():
    node = loaded(network=b"net")
    peer = Peer(node)
    assert len(cookie_from(peer)) == 16
    # a mac2 that is wrong is none
    for cookie in (None, bytes(16)):
        (answer,) = node.answers(peer.with_cookie(cookie) if cookie else peer.init())
        assert answer[0] == ref.COOKIE
    assert node.counter("half_open") == 2 and node.counter("cookies_sent") == 3
    # even what could not be decrypted: no Diffie-Hellman was done
    noise = ref.header(ref.INIT, peer.cid) + bytes(1158)
    assert node.answers(ref.with_macs(noise, node.identity.public, b"net"))[0][0] == ref.COOKIE
    assert node.counter("dropped_handshake") == 0


@pytest.mark.spec("HS-86")
@pytest.mark.row("H16")
def test_in_a_flood_a_stranger_gets_a_cookie_when_it_repeats_its_init():
    node = loaded()
    init = Peer(node).init()
    sources = [endpoint(f"10.{i >> 8}.{i & 255}.1", 5000) for i in range(2100)]
    answers = [node.answers(init, source=source) for source in sources]
    assert [len(said) for said in answers] == [1] * 2000 + [0] * 100
    before = control.live_objects(node.engine)
    for i in (2000, 2050, 2099):
        ((answer,), nothing) = (
            node.answers(init, source=sources[i]),
            node.answers(init, source=(*sources[i][:1], sources[i][1] + 1, 0)),
        )
        assert answer[0] == ref.COOKIE and nothing == [], "from another port it is another's"
    assert control.live_objects(node.engine) == before
    node.now_ns += SECOND // 100
    assert sum(len(node.answers(init, source=endpoint(f"11.0.{i}.1", 5000))) for i in range(30)) == 20


@pytest.mark.spec("HS-47")
def test_load_begins_with_256_entries():
    node = Node()
    for i in range(256):
        answered(stranger(node, i), with_cookie=False)
    assert len(cookie_from(Peer(node))) == 16


def wasted(node, i, kind):
    """Answer an init whose mac1 is right, and that comes to nothing."""
    peer = stranger(node, i)
    if kind == "refused":
        return node.answers(peer.init(parameters=peer.parameters(PROTOCOL=b"another/1")), source=peer.at)
    return node.answers(ref.with_macs(peer.init()[:1000] + bytes(168), node.identity.public, b""), source=peer.at)


@pytest.mark.spec("HS-84")
@pytest.mark.row("H16")
@pytest.mark.parametrize(("kind", "what"), [("not authentic", []), ("refused", [ref.RESPONSE])])
def test_load_begins_when_inits_come_to_nothing(kind, what):
    node = Node()
    assert all([answer[0] for answer in wasted(node, i, kind)] == what for i in range(100))
    before = node.counters()
    for i in range(100, 200):
        assert [answer[0] for answer in wasted(node, i, kind)] == [ref.COOKIE]
    after = node.counters()
    assert {name for name in after if after[name] != before[name]} == {"cookies_sent", "packets_received", "bytes_received"}
    peer = Peer(node)
    assert answered(peer)[0] == ref.RESPONSE and node.counter("cookies_sent") == 101
    # who has a cookie wastes what comes back, too
    node.wait(SECOND // 10)
    assert [[answer[0] for answer in wasted(node, i, kind)] for i in range(200, 211)] == [what] * 10 + [[ref.COOKIE]]


@pytest.mark.spec("HS-50")
@pytest.mark.row("H18")
@pytest.mark.parametrize("source", [endpoint("198.51.100.7", 2003), endpoint("198.51.100.8", 2002)], ids=["port", "address"])
def test_a_cookie_is_good_for_one_address_and_port(source):
    peer = Peer(loaded())
    cookie = cookie_from(peer)
    (answer,) = peer.node.answers(peer.with_cookie(cookie), source=source)
    assert answer[0] == ref.COOKIE
    (answer,) = peer.node.answers(peer.with_cookie(cookie))
    assert answer[0] == ref.RESPONSE


def keep_loaded(node, first):
    """Fill the half-open entries again."""
    for i in range(2):
        peer = stranger(node, first + i)
        peer.node.hear(peer.init(), source=peer.at)
    node.say()
    assert node.counter("half_open") == 2


@pytest.mark.spec("HS-51")
@pytest.mark.row("H18")
@pytest.mark.parametrize("rotate", [False, True])
def test_a_cookie_is_good_for_two_minutes(rotate):
    node = loaded()
    cookie_from(stranger(node, 1))  # makes the secret
    node.wait(119 * SECOND)
    keep_loaded(node, 2000)
    peer = Peer(node)
    cookie = cookie_from(peer)
    node.wait(119 * SECOND)
    keep_loaded(node, 3000)
    if rotate:
        cookie_from(stranger(node, 2))
    (answer,) = node.answers(peer.with_cookie(cookie))
    assert answer[0] == ref.RESPONSE


@pytest.mark.spec("HS-52")
@pytest.mark.row("H18")
@pytest.mark.parametrize("later_s", [240, 1000])
@pytest.mark.parametrize("rotate", [False, True])
def test_a_cookie_of_a_secret_that_is_too_old_is_none(rotate, later_s):
    node = loaded()
    peer = Peer(node)
    cookie = cookie_from(peer)
    node.wait(later_s * SECOND)
    keep_loaded(node, 2000)
    if rotate:
        cookie_from(stranger(node, 2))
    (answer,) = node.answers(peer.with_cookie(cookie))
    assert answer[0] == ref.COOKIE


@pytest.mark.spec("HS-53")
@pytest.mark.row("H17")
@pytest.mark.parametrize(
    ("near", "far"),
    [
        (lambda i: endpoint(f"203.0.113.{i}", 5000 + i), endpoint("203.0.114.1", 5000)),
        (
            lambda i: (bytes.fromhex("20010db800000001") + bytes([i] * 8), 5000, 0),
            (bytes.fromhex("20010db800000002") + bytes(8), 1, 0),
        ),
    ],
    ids=["IPv4", "IPv6"],
)
def test_under_load_each_network_is_let_in_at_a_rate(near, far):
    node = loaded(entries=200)

    def is_let_in(i, at):
        peer = Peer(node, i.to_bytes(32, "big"), at=at)
        cookie = cookie_from(peer)
        answers = node.answers(peer.with_cookie(cookie), source=at)
        assert [answer[0] for answer in answers] in ([], [ref.RESPONSE])
        return bool(answers)

    assert [is_let_in(i, near(i)) for i in range(1, 43)] == [True] * 40 + [False] * 2
    assert is_let_in(100, far)
    node.now_ns += SECOND
    assert [is_let_in(i, near(i)) for i in range(43, 65)] == [True] * 20 + [False] * 2
