"""Chapter 5 of the specification: closing, idle time-out, stateless reset."""

import pytest

from interpeer._core.connection_handle import EVENT_CLOSED, EVENT_OPEN
from tests.spec import reference as ref
from tests.spec.peer import (
    BY_PEER,
    BY_PEER_ERROR,
    BY_RESET,
    BY_SILENCE,
    CLOSED,
    CLOSING,
    DIALING,
    DRAINING,
    ELSEWHERE,
    LOCALLY,
    MS,
    OPEN,
    SECOND,
    Node,
    Peer,
    answered,
    called,
    stranger,
)
from tests.spec.reference import FRAME_ENCODING
from tests.spec.test_packets import dropped, pto_ns


def closing():
    """Return a peer whose node has closed the connection, and the CLOSE."""
    peer = Peer(Node()).call()
    peer.handle.close(5, b"enough")
    return peer, peer.node.say()


# --- states ---


@pytest.mark.spec("CN-2")
def test_each_way_of_a_connection_ends_as_the_table_says():
    peer = Peer(Node())
    handle, init = called(peer)
    assert handle.state == DIALING
    peer.node.hear(peer.answer(init))
    assert handle.state == OPEN and [event[2] for event in peer.node.events()] == [EVENT_OPEN]
    peer.node.say()
    handle.close(0, b"")
    assert handle.state == CLOSING and [event[2] for event in peer.node.events()] == [EVENT_CLOSED]
    handle.close(1, b"again")
    assert handle.state == CLOSING
    peer.send(ref.close(0))
    assert handle.state == DRAINING
    peer.send(ref.close(0), ref.ping())
    handle.close(2, b"again")
    assert handle.state == DRAINING
    peer.node.wait(10 * SECOND)
    assert handle.state == CLOSED
    handle.close(3, b"again")
    assert handle.state == CLOSED and handle.closed() == (LOCALLY, 0, True, b"")


@pytest.mark.spec("CN-2", "CN-9")
def test_a_close_of_the_peer_is_told_and_not_answered():
    for app, by in ((True, BY_PEER), (False, BY_PEER_ERROR)):
        peer = Peer(Node()).call()
        stream = peer.handle.open_stream()
        stream.write(bytes(100_000))
        assert peer.handle.send_datagram(b"unsent")
        peer.send(ref.ping(), ref.close(77, b"bye", app=app))
        assert peer.handle.state == DRAINING and peer.handle.closed() == (by, 77, app, b"bye")
        assert peer.node.say() == []
        for _ in range(20):
            peer.send(ref.ping())
            assert peer.node.say() == []
        assert peer.node.wait(10 * SECOND) == [] and peer.handle.state == CLOSED


@pytest.mark.spec("CN-2", "CN-9")
def test_a_close_that_crosses_ours_takes_its_place():
    peer = Peer(Node()).call()
    peer.handle.close(3, b"bye")
    peer.send(ref.close(0))
    assert peer.handle.state == DRAINING and peer.handle.closed() == (LOCALLY, 3, True, b"bye")
    assert peer.node.wait(10 * SECOND) == []


# --- closing ---


@pytest.mark.spec("CN-4", "CN-5", "CN-6")
@pytest.mark.parametrize("by", ["application", "violation"])
def test_close_is_sent_at_once_and_alone_and_is_the_last_word(by):
    peer = Peer(Node()).call()
    peer.send(ref.ping(), ref.stream(0, b"unread"))  # an acknowledgement is owed
    stream = peer.handle.open_stream()
    stream.write(bytes(50_000))
    assert peer.handle.send_datagram(b"unsent")
    if by == "application":
        peer.handle.close(5, b"enough")
        expected = (ref.CLOSE_APP, 5, b"enough")
    else:
        peer.send(ref.max_data(5), b"\x3f")
        expected = (ref.CLOSE, FRAME_ENCODING, b"a frame cannot be read")
    said = peer.node.say()
    (packet,) = peer.packets(said)
    *before, frame = ref.read_frames(packet.payload)
    assert (frame.kind, frame.value, frame.data) == expected
    # only an application's end says what was received up to it
    assert [frame.kind for frame in before] == ([ref.ACK] if by == "application" else [])
    # whatever the application or the peer do now
    assert peer.handle.open_stream() is None and stream.write(b"more") == 0 and not peer.handle.send_datagram(b"more")
    stream.reset(1)
    for _ in range(8):
        peer.send(ref.ping(), ref.stream(0, b"more", 6))
        said += peer.node.say()
    said += peer.node.wait(10 * SECOND)
    assert {frame.kind for frame in peer.frames(said)} == {expected[0], *(frame.kind for frame in before)}


@pytest.mark.spec("CN-7", "CN-8")
@pytest.mark.row("P14")
def test_packets_while_closing_are_answered_with_close_ever_more_rarely():
    peer, _ = closing()
    answered_at = []
    for i in range(1, 70):
        peer.send(ref.ping())
        said = peer.node.say()
        if said:
            acknowledgement, frame = peer.frames(said)
            assert acknowledgement.kind == ref.ACK
            assert (frame.kind, frame.value, frame.data) == (ref.CLOSE_APP, 5, b"enough")
            answered_at.append(i)
    assert answered_at == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.spec("CN-10")
@pytest.mark.parametrize("state", [CLOSING, DRAINING])
def test_a_closed_connection_is_forgotten_after_three_probe_timeouts(state):
    peer = Peer(Node(is_stored=False)).call()
    timeout_ns = 3 * pto_ns(peer)
    if state == CLOSING:
        peer.handle.close(0, b"")
    else:
        peer.send(ref.close(0))
    peer.node.say()
    peer.node.wait(timeout_ns - MS)
    assert peer.handle.state == state
    late = peer.packet(ref.ping())
    peer.node.wait(2 * MS)
    assert peer.handle.state == CLOSED and dropped(peer.node, "dropped_unknown", late)
    del peer.handle
    peer.node.say()
    assert peer.node.counter("connections") == 0


@pytest.mark.spec("CN-11")
@pytest.mark.parametrize("end", ["close", "peer", "reset", "silence"])
def test_what_was_received_can_be_read_after_the_end(end):
    peer = Peer(Node()).call()
    peer.send(ref.stream(0, b"hello "), ref.stream(0, b"world", 6), ref.stream(0, b"beyond a gap", 20))
    stream = peer.handle.accept_stream()
    assert stream.read(3) == b"hel"
    if end == "close":
        peer.handle.close(0, b"")
    elif end == "peer":
        peer.send(ref.close(0))
    elif end == "reset":
        peer.node.hear(bytes([0x80]) + bytes(23) + ref.reset_token(peer.identity.seed, peer.cid))
    peer.node.wait(60 * SECOND)
    assert peer.handle.state == CLOSED
    assert stream.read(100) == b"lo world" and stream.read(100) is None


# --- idle time-out ---


@pytest.mark.spec("CN-14", "CN-15")
@pytest.mark.parametrize(
    ("own_s", "theirs_ms", "timeout_s"),
    [(30, 30_000, 30), (30, 7_000, 7), (7, 30_000, 7), (0, 9_000, 9), (9, 0, 9), (9, None, 9), (20, 2**62 - 1, 20), (0, 0, None)],
)
def test_a_connection_ends_silently_after_the_smaller_idle_timeout(own_s, theirs_ms, timeout_s):
    peer = Peer(Node(idle_timeout_ns=own_s * SECOND)).call(IDLE_TIMEOUT=theirs_ms)
    peer.node.wait(SECOND)
    peer.send(ref.ack(0, delay_us=0) if peer.received else ref.numbers())
    start_ns = peer.node.now_ns
    assert peer.node.wait((timeout_s or 3600) * SECOND - MS) == [] and peer.handle.is_open
    if timeout_s:
        assert peer.node.wait(2 * MS) == []
        assert peer.handle.state == CLOSED and peer.handle.closed() == (BY_SILENCE, 0, False, b"")
        assert peer.node.now_ns == start_ns + timeout_s * SECOND + MS


@pytest.mark.spec("CN-16")
def test_the_first_packet_after_a_silence_starts_the_time_anew_and_later_ones_do_not():
    peer = Peer(Node(idle_timeout_ns=10 * SECOND)).call()
    peer.node.wait(9 * SECOND)
    stream = peer.handle.open_stream()
    assert peer.node.wait(5 * SECOND) and peer.handle.is_open
    stream.write(b"another packet that asks for an answer")
    peer.node.wait(5 * SECOND - MS)
    assert peer.handle.is_open
    peer.node.wait(2 * MS)
    assert peer.handle.closed() == (BY_SILENCE, 0, False, b"")


@pytest.mark.spec("CN-31")
@pytest.mark.parametrize("idle_s", [0, 5, 30])
def test_an_initiator_that_hears_nothing_behind_the_response_gives_up_after_ten_seconds(idle_s):
    peer = Peer(Node(idle_timeout_ns=idle_s * SECOND))
    peer.handle = peer.node.connect(peer)
    (init,) = peer.node.say()
    peer.node.now_ns += 20 * MS
    peer.node.hear(peer.answer(init.data, parameters=peer.parameters(PROTOCOL=None, CONNECTION_ID=peer.cid, IDLE_TIMEOUT=0)))
    peer.node.wait((idle_s or 10) * SECOND - 100 * MS if idle_s < 10 else 10 * SECOND - 100 * MS)
    assert peer.handle.is_open
    peer.node.wait(300 * MS)
    assert peer.handle.closed() == (BY_SILENCE, 0, False, b"")


@pytest.mark.spec("CN-17")
def test_forged_and_replayed_packets_do_not_keep_a_connection_alive():
    peer = Peer(Node(idle_timeout_ns=10 * SECOND)).call()
    old = peer.packet(ref.ping())
    peer.node.hear(old)
    peer.node.say()
    for _ in range(11):
        forged = bytearray(peer.packet(ref.ping()))
        forged[-1] ^= 1
        peer.node.hear(bytes(forged), old)
        peer.node.wait(SECOND)
    assert peer.handle.closed() == (BY_SILENCE, 0, False, b"")


@pytest.mark.spec("CN-18")
def test_the_idle_timeout_is_never_shorter_than_three_probe_timeouts():
    peer = Peer(Node(idle_timeout_ns=MS)).call()
    timeout_ns = 3 * pto_ns(peer)
    assert timeout_ns > 100 * MS
    peer.node.wait(timeout_ns - MS)
    assert peer.handle.is_open
    peer.node.wait(2 * MS)
    assert peer.handle.state == CLOSED


def test_keep_alive_pings_after_a_silence():
    peer = Peer(Node(keep_alive_ns=10 * SECOND)).be_called()
    peer.exchange()
    peer.send()
    for _ in range(5):
        assert peer.node.wait(10 * SECOND - MS) == []
        said = peer.node.wait(2 * MS)
        assert [frame.kind for frame in peer.frames(said) if frame.kind != ref.ACK] == [ref.PING]
        peer.acknowledge()
    assert peer.handle.is_open


# --- stateless reset ---


def stray(size, cid=b"\x80cid cid"):
    return cid + bytes(size - 8)


@pytest.mark.spec("CN-23", "CN-24")
@pytest.mark.row("P13")
def test_a_packet_for_an_unknown_connection_is_answered_by_a_smaller_reset():
    node = Node()
    for size in (41, 42, 100, 1200, 65_507):
        (answer,) = node.answers(stray(size))
        assert len(answer) == 40 and answer[0] & 0x80 and answer[24:] == ref.reset_token(node.identity.seed, b"\x80cid cid")
    for size in (16, 32, 39, 40):
        assert dropped(node, "dropped_unknown", stray(size))
    # nothing else is told by it
    first, second = (node.answers(stray(41))[0] for _ in range(2))
    assert first[:24] != second[:24]


@pytest.mark.spec("CN-25")
@pytest.mark.row("P13")
def test_resets_have_a_rate():
    node = Node()
    assert sum(len(node.answers(stray(41))) for _ in range(150)) == 100
    node.now_ns += SECOND // 2
    assert sum(len(node.answers(stray(41))) for _ in range(150)) == 50


@pytest.mark.spec("CN-26")
def test_a_node_without_a_stored_seed_neither_promises_nor_sends_resets():
    node = Node(is_stored=False)
    assert dropped(node, "dropped_unknown", stray(41))
    peer = Peer(node).call()
    assert ref.RESET_TOKEN not in peer.remote_parameters
    peer = Peer(Node()).call()
    assert peer.remote_parameters[ref.RESET_TOKEN] == ref.reset_token(peer.node.identity.seed, peer.remote_cid)


@pytest.mark.spec("CN-27")
def test_a_call_that_is_not_answered_gives_no_token_away():
    peer = Peer(Node())
    handle, init = called(peer)
    assert dropped(peer.node, "dropped_unknown", stray(1000, cid=init[2:10]))
    peer.node.hear(peer.answer(init))
    assert handle.is_open


@pytest.mark.spec("CN-28")
@pytest.mark.parametrize("role", ["call", "be_called"])
@pytest.mark.parametrize("size", [40, 41, 1200])
def test_a_reset_of_the_peer_ends_the_connection_without_a_word(role, size):
    peer = getattr(Peer(Node()), role)()
    token = ref.reset_token(peer.identity.seed, peer.cid)
    reset = stray(size)[:-16] + token
    for wrong in (reset[:-1] + bytes([token[-1] ^ 1]), reset[1:] if size == 40 else reset + b"\0", reset[:-16] + token[::-1]):
        peer.node.hear(wrong, source=ELSEWHERE)
        peer.node.say()
        assert peer.handle.is_open
    assert peer.node.answers(reset) == []
    assert peer.handle.state == CLOSED and peer.handle.closed() == (BY_RESET, 0, False, b"")
    assert peer.node.wait(10 * SECOND) == []


@pytest.mark.spec("CN-28")
def test_a_restarted_node_tells_its_peer_at_once():
    peer_node, node = Node(bytes([5]) * 32), Node()
    handle = peer_node.connect(Peer(node, node.identity.seed))
    (init,) = peer_node.say()
    (response,) = node.answers(init.data)
    peer_node.hear(response)
    (confirmation,) = peer_node.say()
    node.hear(confirmation.data)
    node.incoming()
    restarted = Node()
    assert handle.is_open and handle.send_datagram(b"are you there? " * 3)
    (question,) = peer_node.say()
    (reset,) = restarted.answers(question.data)
    peer_node.hear(reset)
    assert handle.closed() == (BY_RESET, 0, False, b"")


def test_a_packet_for_a_connection_just_let_go_of_is_unknown():
    peer = Peer(Node()).call()
    peer.send(ref.ping())
    peer.node.say()
    late = peer.packet(ref.ping())
    peer.node.now_ns += 31 * SECOND
    peer.node.exchange.handle_timeout(peer.node.now_ns)
    assert peer.handle.state == CLOSED
    peer.node.events()
    del peer.handle
    peer.node.say()  # it is freed here
    assert dropped(peer.node, "dropped_unknown", late)


@pytest.mark.spec("ER-3")
def test_an_error_of_one_connection_leaves_the_others_alone():
    node = Node()
    peers = [Peer(node, bytes([i]) * 32).call() for i in range(3, 6)]
    peers[0].send(b"\x3f")
    peers[1].send(ref.close(1))
    node.say()
    assert [peer.handle.state for peer in peers] == [CLOSING, DRAINING, OPEN]
    peers[2].send(ref.datagram(b"unharmed"))
    assert peers[2].handle.recv_datagram() == b"unharmed"
    node.wait(SECOND)
    answered(stranger(node, 9))
