"""Chapter 19 of the specification: fresh keys by time."""

import pytest

from interpeer._core import control
from interpeer._core.probe_rekey import Machine
from tests.spec import reference as ref
from tests.spec.document import paragraph
from tests.spec.peer import MS, SECOND, Node, Peer, ack_of
from tests.spec.reference import AEAD_LIMIT, BAD_IDENTITY, PROTOCOL_ERROR

E, OTHER_E = bytes(range(32)), bytes(range(32, 64))
INTERVAL_NS = 120 * SECOND


def agreements(peer, *, is_initiator):
    return ref.Agreements(peer.identity, peer.node.identity.public, peer.send_keys, peer.receive_keys, is_initiator=is_initiator)


def asking(**limits):
    """Return a peer that is to ask, its view of the agreements, and nothing left to say on either side."""
    peer = Peer(Node(**limits)).call()
    peer.exchange()
    return peer, agreements(peer, is_initiator=True)


def asked(*, IDLE_TIMEOUT=30_000, **limits):  # noqa: N803 - as the parameter is called
    """Return a peer that the node has called, its view of the agreements, and the node's REKEY."""
    peer = Peer(Node(**limits)).be_called(IDLE_TIMEOUT=IDLE_TIMEOUT)
    peer.exchange()
    (frame,) = use_until_asked(peer)
    return peer, agreements(peer, is_initiator=False), frame


def use_until_asked(peer, *, every_ns=5 * SECOND, most_ns=INTERVAL_NS + 5 * SECOND, epoch=0):
    """Let the peer send datagrams, until there is a REKEY; return it, or nothing."""
    end_ns = peer.node.now_ns + most_ns
    while peer.node.now_ns < end_ns:
        peer.send(ref.datagram(b"use"), epoch=epoch)
        peer.handle.recv_datagram()
        found = [frame for frame in peer.frames() if frame.kind == ref.REKEY]
        if found:
            return found
        peer.frames(peer.node.wait(every_ns))
    return []


def answer_of(peer):
    (frame,) = peer.told()
    assert frame.kind == ref.REKEY_ANSWER
    return frame


def agree(peer, view, *, epoch=0, ephemeral=E):
    """Ask, take the answer, go on to the fresh epoch, and see the node follow."""
    peer.send(ref.rekey(epoch + 1, view.message(ephemeral)), epoch=epoch)
    answer = answer_of(peer)
    view.noise.read_message(answer.data)
    view.finish(epoch + 1, answer.value)
    peer.send(ack_all(peer), epoch=epoch)
    peer.send(ref.ping(), epoch=epoch + 1)
    peer.packets()
    return answer.value


def rekeys(peer):
    return peer.handle.stats()["rekeys"]


# --- when ---


@pytest.mark.spec("KU-4")
@pytest.mark.parametrize("limits", [{}, {"rekey_ns": 16 * SECOND}], ids=["default", "configured"])
def test_an_initiator_asks_after_some_time_of_use(limits):
    interval_ns = limits.get("rekey_ns", INTERVAL_NS)
    peer = Peer(Node(**limits)).be_called()
    peer.exchange()
    start_ns = peer.node.now_ns
    assert len(use_until_asked(peer, every_ns=SECOND)) == 1
    assert interval_ns * 7 // 8 <= peer.node.now_ns - start_ns <= interval_ns + SECOND


@pytest.mark.spec("KU-4")
def test_sending_is_use_as_well():
    peer = Peer(Node(rekey_ns=8 * SECOND)).be_called()
    peer.exchange()
    stream = peer.handle.open_stream()
    frames = []
    for _ in range(10):
        stream.write(b"use")
        frames += peer.exchange(SECOND)
        peer.node.wait(1 * SECOND)
    assert [frame.kind for frame in frames if frame.kind != ref.STREAM] == [ref.REKEY]


@pytest.mark.spec("KU-5")
def test_probes_and_acknowledgements_are_not_use():
    peer = Peer(Node(keep_alive_ns=2 * SECOND, rekey_ns=20 * SECOND)).be_called()
    peer.exchange()
    kinds = set()
    for _ in range(100):
        peer.send(ref.ping())
        kinds |= {frame.kind for frame in peer.frames(peer.node.wait(SECOND))}
        peer.acknowledge()
    assert kinds <= {ref.ACK, ref.PING} and rekeys(peer) == 0
    for _ in range(20):
        kinds |= {frame.kind for frame in peer.frames(peer.node.wait(5 * SECOND))}
        peer.acknowledge()
    assert kinds == {ref.ACK, ref.PING} and rekeys(peer) == 0


@pytest.mark.spec("KU-6")
@pytest.mark.parametrize(("after_ns", "is_right"), [(999 * MS, False), (1000 * MS, True)])
def test_a_responder_does_not_let_itself_be_asked_too_often(after_ns, is_right):
    peer, view = asking()
    start_ns = peer.node.now_ns
    agree(peer, view)
    assert rekeys(peer) == 1
    peer.node.now_ns = start_ns + after_ns
    if is_right:
        assert agree(peer, view, epoch=1, ephemeral=OTHER_E) == 2 and rekeys(peer) == 2
    else:
        peer.send(ref.rekey(2, view.message(OTHER_E)), epoch=1)
        assert peer.closed_with() == PROTOCOL_ERROR


# --- what ---


@pytest.mark.spec("KU-7", "KU-8", "KU-11")
@pytest.mark.parametrize("suite", ref.SUITES)
def test_a_responder_agrees_as_an_independent_implementation_does(suite):
    node = Node(suites=(control.SUITE_NAMES[suite],))
    peer = Peer(node, suite=suite).call()
    peer.exchange()
    view = agreements(peer, is_initiator=True)
    for epoch in range(6):  # each bound to the one before
        agree(peer, view, epoch=epoch, ephemeral=bytes([epoch]) * 32)
        assert rekeys(peer) == epoch + 1 and peer.receive_keys.epoch == epoch + 1
        peer.send(ref.datagram(b"%d" % epoch), epoch=epoch + 1)
        assert peer.handle.recv_datagram() == b"%d" % epoch
        peer.handle.send_datagram(b"to you")
        assert [frame.data for frame in peer.told()] == [b"to you"]
        peer.node.wait(2 * SECOND)
    stats = peer.handle.stats()
    assert stats["key_epoch"] == stats["peer_key_epoch"] == 6


@pytest.mark.spec("KU-7", "KU-8", "KU-10")
def test_an_initiator_agrees_as_an_independent_implementation_does():
    peer = Peer(Node()).be_called()
    peer.exchange()
    view = agreements(peer, is_initiator=False)
    for epoch in range(4):
        (frame,) = use_until_asked(peer, epoch=epoch)
        assert frame.value == epoch + 1
        answer = view.answer(frame.data, bytes([epoch]) * 32)
        view.finish(epoch + 1, epoch + 1)
        peer.send(ack_all(peer), ref.rekey_answer(epoch + 1, answer), epoch=epoch)
        (packet,) = peer.packets()
        assert packet.epoch == epoch + 1 and ref.PING in [frame.kind for frame in ref.read_frames(packet.payload)]
        peer.send(ack_all(peer), ref.datagram(b"%d" % epoch), epoch=epoch + 1)
        assert peer.handle.recv_datagram() == b"%d" % epoch and rekeys(peer) == epoch + 1


def ack_all(peer):
    return ack_of(peer.received)


@pytest.mark.row("P10")
def test_no_number_is_used_twice_across_agreements_and_key_updates():
    peer, numbers = Peer(Node(key_update_packets=5)).call(), []
    peer.exchange()
    view = agreements(peer, is_initiator=True)
    for epoch in range(4):
        for i in range(8):
            peer.handle.send_datagram(b"%d" % i)
            numbers += [packet.counter for packet in peer.packets()]
            peer.send(ack_all(peer), epoch=epoch)
        numbers += [packet.counter for packet in peer.packets(peer.node.wait(2 * SECOND))]
        peer.send(ref.rekey(epoch + 1, view.message(E)), epoch=epoch)
        (packet,) = peer.packets()
        (answer,) = [frame for frame in ref.read_frames(packet.payload) if frame.kind == ref.REKEY_ANSWER]
        assert answer.value == packet.epoch + 1
        view.noise.read_message(answer.data)
        view.finish(epoch + 1, answer.value)
        peer.send(ack_all(peer), epoch=epoch)
        peer.send(ref.ping(), epoch=epoch + 1)
        numbers += [packet.counter, *(packet.counter for packet in peer.packets())]
    assert rekeys(peer) == 4 and peer.receive_keys.epoch >= 8, "with updates between"
    assert numbers == sorted(set(numbers))


@pytest.mark.spec("KU-7", "KU-8")
def test_vectors_are_those_of_both_implementations():
    vectors = {name: bytes.fromhex(value) for name, value in paragraph("KU-20").tables()[0][1:]}
    seeds, secrets, ephemerals = ([bytes(range(n, n + 32)) for n in (start, start + 32)] for start in (0, 0x40, 0x80))
    ends = [Machine(seed, not side, secrets[side], secrets[not side]) for side, seed in enumerate(seeds)]
    views = [
        ref.Agreements(
            ref.Identity(seeds[side]), ref.Identity(seeds[not side]).public, ref.PacketKeys(1, secrets[side]),
            ref.PacketKeys(1, secrets[not side]), is_initiator=not side,
        )
        for side in (0, 1)
    ]  # fmt: skip
    assert {end.secrets[2] for end in ends} == {view.chain for view in views} == {vectors["first chain"]}
    assert ref.blake(32, b"interpeer bind", views[0].chain) == vectors["prologue"]
    question = views[0].message(ephemerals[0])
    assert ends[0].ask(ends[1].static, ephemerals[0]) == 0
    assert ends[0].write() == ref.rekey(1, question) == vectors["REKEY"]
    answer = views[1].answer(question, ephemerals[1])
    assert ends[1].handle_init(1, question) == ends[1].answer(ends[0].static, ephemerals[1]) == 0
    assert ends[1].write() == ref.rekey_answer(1, answer) == vectors["REKEY_ANSWER"]
    assert ends[0].handle_answer(1, answer) == 0
    views[0].noise.read_message(answer)
    protocol = views[0].noise.noise_protocol
    assert bytes(protocol.cipher_state_encrypt.k) == vectors["initiator's fresh secret"]
    assert bytes(protocol.cipher_state_decrypt.k) == vectors["responder's fresh secret"]
    for end, view in zip(ends, views, strict=True):
        view.finish(1, 1)
        end.turn() if end is ends[0] else end.follow()
    ends[1].turn()
    for side, name in enumerate(("initiator", "responder")):
        assert ends[side].secrets[0] == views[side].send.secrets[1] == vectors[f"{name}'s secret of epoch 1"]
        assert ends[side].secrets[2] == views[side].chain == vectors["next chain"]


@pytest.mark.spec("KU-7")
def test_a_message_of_another_session_is_not_accepted():
    (_, elsewhere), (peer, view) = asking(), asking()
    elsewhere.chain = bytes(32)
    peer.send(ref.rekey(1, elsewhere.message(E)))
    assert peer.closed_with() == PROTOCOL_ERROR
    peer, view = asking()
    agree(peer, view)
    view.chain = ref.blake(32, b"interpeer root" + peer.receive_keys.secrets[0], peer.send_keys.secrets[0])
    peer.node.wait(2 * SECOND)
    peer.send(ref.rekey(2, view.message(OTHER_E)), epoch=1)
    assert peer.closed_with() == PROTOCOL_ERROR


# --- how ---


@pytest.mark.spec("KU-3")
def test_a_sender_stays_in_the_epoch_that_its_message_follows():
    peer, view = asking(key_update_packets=4)
    peer.send(ref.rekey(1, view.message(E)))
    answer = answer_of(peer)
    assert answer.value == 1
    for i in range(12):
        peer.handle.send_datagram(b"%d" % i)
        (packet,) = peer.packets()
        assert packet.epoch == 0
        peer.acknowledge()
    view.noise.read_message(answer.data)
    view.finish(1, 1)
    peer.send(ref.ping(), epoch=1)
    assert {packet.epoch for packet in peer.packets()} == {1}

    peer, view, frame = asked(key_update_packets=50, rekey_ns=8 * SECOND)
    for i in range(60):
        peer.handle.send_datagram(b"%d" % i)
        assert {packet.epoch for packet in peer.packets()} == {0} and frame.value == 1
        peer.acknowledge()


@pytest.mark.spec("KU-10")
def test_an_initiator_leaves_its_epoch_only_when_that_is_acknowledged():
    peer = Peer(Node(key_update_packets=20, rekey_ns=8 * SECOND)).be_called()
    peer.exchange()
    view = agreements(peer, is_initiator=False)
    (frame,) = use_until_asked(peer, every_ns=SECOND // 5)
    assert frame.value == 2 and peer.receive_keys.epoch == 1, "nothing of epoch 1 is acknowledged yet"
    answer = view.answer(frame.data, E)
    view.finish(1, 2)
    peer.send(ref.rekey_answer(1, answer))
    for _ in range(5):
        peer.send(ref.ping())
        assert {packet.epoch for packet in peer.packets(peer.node.wait(100 * MS))} == {1}
    peer.acknowledge()
    assert {packet.epoch for packet in peer.packets()} == {2}


@pytest.mark.row("P12")
@pytest.mark.spec("KU-11")
def test_a_responder_does_not_go_first():
    peer, view = asking()
    peer.send(ref.rekey(1, view.message(E)))
    answer = answer_of(peer)
    peer.acknowledge()
    for i in range(5):
        peer.handle.send_datagram(b"%d" % i)
        assert {packet.epoch for packet in peer.packets()} == {0}
        peer.send(ref.ping(), ack_all(peer))
    view.noise.read_message(answer.data)
    view.finish(1, 1)
    forged = bytearray(peer.packet(ref.ping(), epoch=1))
    forged[-1] ^= 1
    peer.node.hear(bytes(forged))
    peer.handle.send_datagram(b"x")
    assert {packet.epoch for packet in peer.packets()} == {0}
    peer.send(ref.ping(), epoch=1)
    assert {packet.epoch for packet in peer.packets()} == {1}


@pytest.mark.spec("KU-12")
def test_what_is_unasked_for_or_from_the_wrong_end_ends_the_connection():
    peer, view = asking()
    peer.send(ref.rekey_answer(1, bytes(48)))
    assert peer.closed_with() == PROTOCOL_ERROR
    peer, view = asking()
    peer.send(ref.rekey(2, view.message(E)))
    assert peer.closed_with() == PROTOCOL_ERROR
    peer = Peer(Node()).be_called()
    peer.exchange()
    peer.send(ref.rekey_answer(1, bytes(48)))
    assert peer.closed_with() == PROTOCOL_ERROR
    peer = Peer(Node()).be_called()
    peer.exchange()
    peer.send(ref.rekey(1, agreements(peer, is_initiator=True).message(E)))
    assert peer.closed_with() == PROTOCOL_ERROR
    peer, view, frame = asked()
    peer.send(ref.rekey_answer(2, view.answer(frame.data, E)))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.row("P12")
@pytest.mark.spec("KU-13")
def test_messages_that_were_overtaken_are_ignored():
    peer, view = asking()
    message = view.message(E)
    peer.send(ref.rekey(1, message))
    answer = answer_of(peer)
    view.noise.read_message(answer.data)
    view.finish(1, 1)
    late = peer.packet(ref.rekey(1, message))
    peer.acknowledge()
    peer.send(ref.ping(), epoch=1)
    peer.node.hear(late)
    peer.send(ref.rekey(0, bytes(96)), ref.rekey(1, bytes(96)), epoch=1)
    peer.exchange(SECOND)
    assert peer.handle.is_open and rekeys(peer) == 1

    peer, view, frame = asked()
    answer = view.answer(frame.data, E)
    view.finish(1, 1)
    late = peer.packet(ref.rekey_answer(1, answer))
    peer.send(ack_all(peer), ref.rekey_answer(1, answer))
    peer.packets()
    peer.send(ref.rekey_answer(1, answer))
    peer.send(ref.ping(), ack_all(peer), epoch=1)
    peer.node.hear(late)
    peer.send(ref.rekey_answer(1, bytes(48)), ref.rekey_answer(0, bytes(48)), epoch=1)
    peer.packets()
    assert peer.handle.is_open and rekeys(peer) == 1


@pytest.mark.spec("KU-14")
def test_one_question_has_one_answer():
    peer, view = asking()
    message = view.message(E)
    peer.send(ref.rekey(1, message))
    answer = answer_of(peer)
    for _ in range(3):
        peer.send(ref.rekey(1, message))
        assert answer_of(peer) == answer
    peer.send(ref.rekey(1, view.message(OTHER_E)))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.row("S11")
def test_messages_of_an_agreement_have_one_size_and_are_never_kept_in_pieces():
    """No stream carries handshakes, so none has gaps: one message is one frame, and one too many ends the connection."""
    peer, view = asking()
    message = view.message(E)
    before = control.live_objects(peer.node.engine)
    asked_for = ref.rekey(1, message)
    for _ in range(200):
        peer.send(*[asked_for] * 10)
        assert sum(frame.kind == ref.REKEY_ANSWER for frame in peer.frames()) <= 1
    after = control.live_objects(peer.node.engine)
    assert all(after[name] <= before[name] + 1 for name in after if name != "records")
    for size in range(1, len(asked_for)):
        cut, _ = asking()
        cut.send(asked_for[:size])
        assert cut.closed_with() == ref.FRAME_ENCODING


@pytest.mark.spec("KU-15")
def test_a_message_that_noise_does_not_accept_ends_the_connection():
    for at in (0, 40, 90):
        peer, view = asking()
        message = bytearray(view.message(E))
        message[at] ^= 1
        peer.send(ref.rekey(1, bytes(message)))
        assert peer.closed_with() == PROTOCOL_ERROR
    for bad in (bytes(48), b"\x01" * 48):
        peer, _, _ = asked()
        peer.send(ref.rekey_answer(1, bad))
        assert peer.closed_with() == PROTOCOL_ERROR
    peer, view = asking()
    peer.send(ref.rekey(1, bytes(96)))
    assert peer.closed_with() == PROTOCOL_ERROR


@pytest.mark.spec("KU-16")
def test_a_responder_agrees_with_nobody_but_the_peer_of_the_handshake():
    peer, view = asking()
    peer.send(ref.rekey(1, view.message(E, secret=ref.Identity(bytes([9]) * 32).secret)))
    assert peer.closed_with() == BAD_IDENTITY


@pytest.mark.spec("KU-17")
def test_a_message_that_is_lost_is_sent_again():
    peer, view = asking()
    peer.send(ref.rekey(1, view.message(E)))
    first = answer_of(peer)
    again = [frame for frame in peer.frames(peer.node.wait(2 * SECOND)) if frame.kind == ref.REKEY_ANSWER]
    assert again and set(again) == {first}

    peer, view, first = asked()
    again = [frame for frame in peer.frames(peer.node.wait(2 * SECOND)) if frame.kind == ref.REKEY]
    assert again and set(again) == {first}


@pytest.mark.spec("KU-18")
@pytest.mark.parametrize("acknowledged", [True, False])
def test_old_keys_are_not_used_for_ever_when_there_is_no_answer(acknowledged):
    peer, _, _ = asked()
    start_ns = peer.node.now_ns
    if acknowledged:
        peer.acknowledge()
    frames = []
    while peer.handle.is_open and peer.node.now_ns < start_ns + 100 * SECOND:
        frames += peer.frames(peer.node.wait(100 * MS))
        if peer.handle.is_open:
            peer.send(ack_all(peer) if acknowledged else ref.ping())
    if acknowledged:  # otherwise lost messages are repeated besides
        assert [frame.kind for frame in frames if frame.kind in (ref.REKEY, ref.CLOSE)] == [ref.REKEY] * 2 + [ref.CLOSE]
    assert frames[-1].value == AEAD_LIMIT
    assert 60 * SECOND <= peer.node.now_ns - start_ns <= 61 * SECOND


@pytest.mark.spec("KU-18")
def test_a_responder_does_not_wait_for_ever_for_fresh_keys():
    peer, view = asking()
    peer.send(ref.rekey(1, view.message(E)))
    start_ns = peer.node.now_ns
    while peer.handle.is_open and peer.node.now_ns < start_ns + 100 * SECOND:
        frames = peer.frames(peer.node.wait(100 * MS))
        if peer.handle.is_open:
            peer.send(ref.ping(), ack_all(peer))
    assert frames[-1].value == AEAD_LIMIT
    assert 60 * SECOND <= peer.node.now_ns - start_ns <= 61 * SECOND


@pytest.mark.spec("KU-5")
def test_an_agreement_and_its_repetitions_are_no_use():
    """The first two packets with each message are lost, and the last step is said again; then there is silence for hours."""
    peer, view, frame = asked(keep_alive_ns=10 * SECOND, IDLE_TIMEOUT=0, idle_timeout_ns=0)
    assert [f for f in peer.frames(peer.node.wait(3 * SECOND)) if f.kind == ref.REKEY]
    peer.send(ref.rekey_answer(1, view.answer(frame.data, E)), ack_all(peer))
    view.finish(1, 1)
    assert peer.frames(peer.node.wait(30 * SECOND)), "it turns, and says so again"
    peer.send(ref.ping(), ack_all(peer), epoch=1)
    assert rekeys(peer) == 1
    for _ in range(100):
        said = peer.frames(peer.node.wait(60 * SECOND))
        assert not [f for f in said if f.kind == ref.REKEY]
        peer.send(ack_all(peer), epoch=1)


@pytest.mark.spec("KU-21")
def test_a_peer_that_sleeps_refuses_nothing():
    """Ten minutes without a word, which the idle time-out allows: the agreement goes on where it was."""
    peer, view, frame = asked(idle_timeout_ns=900 * SECOND, IDLE_TIMEOUT=900_000)
    peer.frames(peer.node.wait(600 * SECOND))
    assert peer.handle.is_open
    peer.send(ref.rekey_answer(1, view.answer(frame.data, E)), ack_all(peer))
    view.finish(1, 1)
    assert peer.frames()
    peer.send(ref.ping(), epoch=1)
    assert peer.handle.is_open and rekeys(peer) == 1


@pytest.mark.spec("KU-18")
def test_a_step_that_comes_late_is_in_time():
    peer, view, frame = asked()
    for _ in range(590):
        peer.frames(peer.node.wait(100 * MS))
        peer.send(ack_all(peer))
    answer = view.answer(frame.data, E)
    view.finish(1, 1)
    peer.send(ref.rekey_answer(1, answer))
    for _ in range(590):
        peer.frames(peer.node.wait(100 * MS))
        peer.send(ack_all(peer))
    peer.send(ref.ping(), epoch=1)
    assert peer.handle.is_open and rekeys(peer) == 1
