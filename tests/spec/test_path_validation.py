"""Paths that are opened, proved and followed (docs/spec, chapter 14)."""

import itertools

import pytest

from interpeer._core import control, path_handle
from tests.spec import reference as ref
from tests.spec.paths import (
    ANY,
    QUESTION,
    THIRD,
    accepted,
    calling,
    challenge_in,
    opening,
    preferred,
    proven_opening,
    settle,
    settle_all,
    states,
)
from tests.spec.peer import BY_ERROR, ELSEWHERE, MS, NODE_AT, PEER_AT, SECOND, SUITE_NAMES, Node, Peer, endpoint

# --- opening ---


@pytest.mark.spec("PA-17")
def test_a_node_that_was_called_opens_the_odd_paths_in_order_and_one_that_has_called_the_even_ones():
    peer = calling()
    assert [proven_opening(peer), proven_opening(peer, THIRD)] == [1, 3]
    peer = Peer(Node()).be_called(MAX_PATHS=4)
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    settle(peer)
    assert [proven_opening(peer), proven_opening(peer, THIRD)] == [2, 4]


@pytest.mark.spec("PA-17")
def test_a_packet_that_opens_the_receivers_own_path_is_dropped():
    peer = calling()
    before = peer.node.counter("dropped_unknown")
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=1, source=ELSEWHERE)
    assert states(peer) == {0: "active"} and peer.node.counter("dropped_unknown") == before + 1


@pytest.mark.spec("PA-18")
@pytest.mark.row("N11")
def test_a_path_is_not_opened_without_an_id_of_the_peer():
    peer = Peer(Node()).call(MAX_PATHS=4)
    assert path_handle.open_path(peer.handle, ELSEWHERE, ANY) == (path_handle.NO_ID, None)
    peer.send(peer.new_cid(1, 0))
    assert opening(peer) == 1


@pytest.mark.spec("PA-19")
def test_a_path_is_opened_by_a_challenge_in_a_full_packet():
    peer = calling()
    path = opening(peer)
    (sent,) = (sent for sent in peer.node.say() if sent.to == ELSEWHERE)
    assert len(sent.data) == 1200 and peer.own_cids[sent.data[:8]] == path == 1
    assert [frame.kind for frame in peer.frames([sent])] == [ref.PATH_CHALLENGE]
    assert peer.open(sent.data).counter == 0


@pytest.mark.spec("PA-20")
def test_a_path_that_the_peer_opens_is_taken_and_challenged():
    peer = calling()
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=2, source=ELSEWHERE)
    assert states(peer) == {0: "active", 2: "validating"}
    said = [sent for sent in peer.node.say() if sent.to == ELSEWHERE]
    assert {frame.kind for frame in peer.frames(said)} >= {ref.PATH_RESPONSE, ref.PATH_CHALLENGE}


@pytest.mark.spec("PA-53")
@pytest.mark.parametrize("most", [2, 3, 4])
def test_a_responder_gives_way_when_both_open_the_last_path_at_once(most):
    peer = calling(max_paths=most)
    for path in range(2, 2 * most - 2, 2):
        accepted(peer, path, source=endpoint("203.0.113.1", path))
    own = opening(peer, THIRD)
    assert [sent for sent in peer.node.say() if sent.to == THIRD]
    last = 2 * most - 2
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=last, source=ELSEWHERE)
    if most == 4:  # what was given up has its place for a while
        peer.frames(peer.node.wait(SECOND))
        peer.acknowledge_all()
        peer.frames(peer.node.wait(3 * SECOND))
        peer.send(ref.path_challenge(QUESTION), bytes(1000), path=last, source=ELSEWHERE)
    assert states(peer)[last] == "validating"
    assert states(peer).get(own, "abandoned") == "abandoned"
    frames = peer.frames(peer.node.wait(SECOND))
    if most < 4:
        assert any(frame.kind == ref.PATH_ABANDON and frame.path == own for frame in frames)
    assert peer.handle.is_open


@pytest.mark.spec("PA-53")
def test_a_responder_keeps_a_path_that_the_initiator_has_taken():
    peer = calling(max_paths=2)
    own = opening(peer, THIRD)
    peer.node.say()
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=own, source=THIRD)
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=2, source=ELSEWHERE)
    assert states(peer) == {0: "active", own: "validating"}


@pytest.mark.spec("PA-53")
def test_an_initiator_does_not_give_way():
    peer = Peer(Node(max_paths=2)).be_called(MAX_PATHS=2)
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    settle(peer)
    own = opening(peer, THIRD)
    peer.node.say()
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=1, source=ELSEWHERE)
    assert states(peer) == {0: "active", own: "validating"} and own == 2


@pytest.mark.spec("PA-21")
def test_packets_of_a_path_that_is_gone_are_dropped():
    peer = accepted(calling())
    late = peer.packet(ref.datagram(bytes(100)), path=2)
    peer.send(ref.path_abandon(2))
    settle_all(peer, 100)
    assert states(peer) == {0: "active"}
    before = peer.node.counters()
    peer.node.hear(late, source=ELSEWHERE)
    after = peer.node.counters()
    assert peer.handle.recv_datagram() is None and after["dropped_unknown"] == before["dropped_unknown"] + 1
    assert after["resets_sent"] == before["resets_sent"] + 1, "its id is nobody's any more"


# --- proof of an address ---


@pytest.mark.spec("PA-22")
@pytest.mark.parametrize("source", [PEER_AT, ELSEWHERE])
def test_a_challenge_is_answered_to_where_it_came_from_and_no_larger(source):
    peer = calling()
    packet = peer.packet(ref.path_challenge(QUESTION))
    if source == ELSEWHERE:  # it was overtaken there, so that the path does not move
        peer.send(ref.ping())
        peer.node.say()
    peer.node.hear(packet, source=source)
    answers = [
        sent
        for sent in peer.node.say()
        if any(
            frame.kind == ref.PATH_RESPONSE and frame.data == QUESTION for frame in ref.read_frames(peer.open(sent.data).payload)
        )
    ]
    assert [sent.to for sent in answers] == [source] and len(answers[0].data) <= len(packet)


@pytest.mark.spec("PA-23", "PA-24")
@pytest.mark.row("N3")
@pytest.mark.parametrize("answer", ["wrong", "of another path", "right"])
def test_only_the_right_answer_on_the_same_path_proves_an_address(answer):
    peer = calling()
    path = opening(peer)
    asked = challenge_in(peer, [sent for sent in peer.node.say() if sent.to == ELSEWHERE])
    if answer == "wrong":
        peer.send(ref.path_response(bytes([asked[0] ^ 1]) + asked[1:]), path=path, source=ELSEWHERE)
    elif answer == "of another path":
        peer.send(ref.path_response(asked))
    else:
        peer.send(ref.path_response(asked), path=path, source=ELSEWHERE)
    assert states(peer)[path] == ("active" if answer == "right" else "validating") and peer.handle.is_open


@pytest.mark.spec("PA-22")
def test_challenges_cannot_be_foreseen():
    asked = set()
    for seed in range(20):
        peer = Peer(Node(bytes([seed + 5]) * 32)).call(MAX_PATHS=4)
        peer.send(peer.new_cid(1, 0))
        peer.node.say()
        opening(peer)
        asked.add(challenge_in(peer, [sent for sent in peer.node.say() if sent.to == ELSEWHERE]))
    assert len(asked) == 20


@pytest.mark.spec("PA-25", "PA-26")
@pytest.mark.row("N3")
def test_a_challenge_is_repeated_with_growing_pauses_and_the_path_is_given_up_when_none_is_answered():
    peer = calling()
    path = opening(peer)
    peer.node.say()
    times = [peer.node.now_ns]
    for sent in peer.node.wait(15 * SECOND):
        if sent.to == ELSEWHERE:
            assert [frame.kind for frame in peer.frames([sent])] == [ref.PATH_CHALLENGE]
            times.append(sent.at_ns)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == 6 and all(later >= 2 * sooner for sooner, later in itertools.pairwise(pauses))
    assert path not in states(peer) or states(peer)[path] == "abandoned"
    assert preferred(peer) == 0 and peer.handle.is_open


def test_cve_2025_29785_a_lost_path_probe_is_sent_again():
    peer = calling()
    path = opening(peer)
    first = challenge_in(peer, [sent for sent in peer.node.say() if sent.to == ELSEWHERE])
    again = challenge_in(peer, [sent for sent in peer.node.wait(2 * SECOND) if sent.to == ELSEWHERE])
    assert again == first
    peer.acknowledge_all()
    peer.send(ref.path_response(again), path=path, source=ELSEWHERE)
    assert states(peer)[path] == "active"


@pytest.mark.spec("PA-27")
def test_to_an_address_that_is_not_proven_goes_nothing_of_use():
    peer = calling()
    stream = peer.handle.open_stream()
    settle(peer)
    peer.send(ref.ping(), bytes(200), source=ELSEWHERE)
    stream.write(bytes(50_000))
    peer.handle.send_datagram(b"message")
    said = peer.node.wait(3 * SECOND)
    there = [sent for sent in said if sent.to == ELSEWHERE]
    kinds = {frame.kind for frame in peer.frames(there)}
    assert ref.PATH_CHALLENGE in kinds
    assert kinds <= {ref.PATH_CHALLENGE, ref.PATH_RESPONSE, ref.PING, ref.ACK, ref.ACK_ECN}


@pytest.mark.row("N2", "P16", "C3")
def test_cve_2023_49295_a_flood_of_challenges_is_not_remembered():
    """Acknowledgements are withheld, so that the answers could pile up: only the last question of a turn is answered."""
    peer = calling()
    peer.handle.open_stream().write(b"never acknowledged")
    peer.node.say()
    answers = 0
    for _ in range(30):
        for i in range(100):
            peer.send(ref.path_challenge(i.to_bytes(8, "big")))
        answers += sum(frame.kind == ref.PATH_RESPONSE for frame in peer.frames())
    assert answers == 30 and peer.handle.is_open


FLOODS = {
    "challenges": lambda peer, n: [ref.path_challenge((100 * n + i).to_bytes(8, "big")) for i in range(100)],
    "answers": lambda peer, n: [ref.path_response((100 * n + i).to_bytes(8, "big")) for i in range(100)],
    "statuses": lambda peer, n: [ref.path_status(i % 3, 100 * n + i, i & 1) for i in range(100)],
    "ids": lambda peer, n: [peer.new_cid(i % 3, 100 * n + i) for i in range(30)],
    "one id": lambda peer, n: [ref.new_connection_id(1, 0, b"\x80" + bytes(7))] * 30,
    "giving up spare ids": lambda peer, n: [ref.retire_connection_id(0, n + 1)] * 100,
    "giving up ids of a path to come": lambda peer, n: [ref.retire_connection_id(2, n)] * 100,
    "giving up ids of the other side's": lambda peer, n: [ref.retire_connection_id(1, n)] * 100,
    "giving up paths": lambda peer, n: [ref.path_abandon(2 * n + 2)] * 100,
}


@pytest.mark.row("C3", "N11")
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_about_paths_with_acknowledgements_withheld_queues_nothing(flood):
    """The window is full and stays so: what waits to be said is what there is room for, or the peer is shown the door."""
    peer = calling()
    stream = peer.handle.open_stream()
    stream.write(bytes(100_000))
    peer.node.wait(20 * MS)
    before = control.live_objects(peer.node.engine)
    heard = said = 0
    for n in range(500):
        packet = peer.packet(*FLOODS[flood](peer, n))
        peer.node.hear(packet, source=PEER_AT)
        heard += len(packet)
        said += sum(len(sent.data) for sent in peer.node.say())
        after = control.live_objects(peer.node.engine)
        assert after["connection_ids"] <= 12 and after["small_blocks"] <= before["small_blocks"]
        if not peer.handle.is_open:
            break
    assert said <= heard
    assert after["records"] <= before["records"] + 8, "what is on its way is remembered, and no more"
    if not peer.handle.is_open:
        assert peer.handle.closed()[0] == BY_ERROR
        return
    frames = peer.frames(peer.node.wait(2 * SECOND))
    assert len(frames) < 100, "nothing has piled up"
    peer.acknowledge()
    peer.send(ref.datagram(b"still here?"))
    assert peer.handle.recv_datagram() == b"still here?"


# --- following ---


@pytest.mark.spec("PA-28", "PA-30")
@pytest.mark.row("N12")
def test_a_path_follows_its_newest_packet_once_the_address_is_proven():
    peer = calling()
    peer.send(ref.datagram(b"from elsewhere"), source=ELSEWHERE)
    assert peer.handle.recv_datagram() == b"from elsewhere"
    said = peer.node.say()
    assert {sent.to for sent in said} == {PEER_AT, ELSEWHERE}, "both are asked"
    asked = challenge_in(peer, [sent for sent in said if sent.to == ELSEWHERE])
    assert asked != challenge_in(peer, [sent for sent in said if sent.to == PEER_AT])
    assert states(peer) == {0: "validating"} and peer.handle.remote == ELSEWHERE
    peer.send(ref.path_response(asked), source=ELSEWHERE)
    assert states(peer) == {0: "active"}
    peer.handle.open_stream().write(b"data")
    assert {sent.to for sent in peer.node.say()} == {ELSEWHERE}


@pytest.mark.spec("PA-55")
def test_the_address_before_is_asked_as_often_as_the_new_one():
    """The first two questions to it are lost; the third is answered."""
    peer = calling()
    peer.send(ref.ping(), bytes(400), source=ELSEWHERE)
    said = peer.node.wait(4 * SECOND)
    times = {to: [sent.at_ns for sent in said if sent.to == to and challenges_in(peer, sent)] for to in (PEER_AT, ELSEWHERE)}
    assert len(times[PEER_AT]) >= 4 and times[PEER_AT] == times[ELSEWHERE]
    asked = {challenge for sent in said if sent.to == PEER_AT for challenge in challenges_in(peer, sent)}
    assert len(asked) == 1
    said += peer.node.wait(10 * SECOND)
    assert sum(bool(challenges_in(peer, sent)) for sent in said if sent.to == PEER_AT) == 6
    assert peer.handle.remote == PEER_AT


def challenges_in(peer, sent):
    return [frame.data for frame in peer.frames([sent]) if frame.kind == ref.PATH_CHALLENGE]


@pytest.mark.spec("PA-55")
def test_haste_for_the_new_address_is_none_for_the_one_before():
    peer = calling()
    peer.send(ref.ping(), bytes(400), source=ELSEWHERE)
    said = peer.node.say()
    for _ in range(5):
        peer.node.now_ns += 10 * MS
        peer.send(ref.ping(), bytes(100), source=ELSEWHERE)
        said += peer.node.say()
    assert sum(sent.to == ELSEWHERE and bool(challenges_in(peer, sent)) for sent in said) > 2
    assert sum(sent.to == PEER_AT and bool(challenges_in(peer, sent)) for sent in said) == 1


@pytest.mark.spec("PA-52")
@pytest.mark.parametrize("suite", [ref.CHACHA20_POLY1305, ref.AEGIS_256])
def test_whatever_asks_for_an_acknowledgement_pays_for_a_challenge(suite):
    """The node's smallest packets, turned round: a peer that says as much from elsewhere is asked at once."""
    node = Node(keep_alive_ns=5 * SECOND, suites=(SUITE_NAMES[suite],))
    peer = Peer(node, suite=suite).call()
    settle(peer)
    pings = [sent for sent in node.wait(6 * SECOND) if [f.kind for f in peer.frames([sent])].count(ref.PING)]
    peer.handle.send_datagram(b"x")
    smallest = pings + node.say()
    for port, sent in enumerate(smallest, 1):
        payload = peer.open(sent.data).payload
        assert len(payload) == 9
        settle(peer)
        peer.at = endpoint("203.0.113.1", port)
        peer.send(payload)
        (there,) = (sent for sent in node.say() if sent.to == peer.at)
        assert challenges_in(peer, there) and len(there.data) <= len(sent.data)
        peer.send(ref.path_response(*challenges_in(peer, there)))
        assert states(peer) == {0: "active"}
    assert len(smallest) >= 2


@pytest.mark.spec("PA-29")
def test_a_path_does_not_follow_a_packet_that_was_overtaken():
    peer = calling()
    old = peer.packet(ref.datagram(b"old"))
    peer.send(ref.ping())
    peer.node.hear(old, source=ELSEWHERE)
    assert peer.handle.recv_datagram() == b"old" and states(peer) == {0: "active"} and peer.handle.remote == PEER_AT


@pytest.mark.spec("PA-31")
@pytest.mark.row("N2")
@pytest.mark.parametrize("how", ["a newer packet", "the answer from there", "no answer at all"])
def test_a_path_returns_to_where_the_peer_still_is(how):
    """An attacker has copied a packet, and the copy was faster."""
    peer = calling()
    peer.send(ref.ping(), source=ELSEWHERE)
    said = peer.node.say()
    assert peer.handle.remote == ELSEWHERE
    if how == "a newer packet":
        peer.send(ref.ping())
    elif how == "the answer from there":
        asked = challenge_in(peer, [sent for sent in said if sent.to == PEER_AT])
        peer.send(ref.path_response(asked))
    else:
        peer.node.wait(20 * SECOND)
    assert peer.handle.remote == PEER_AT and states(peer) == {0: "active"}


@pytest.mark.parametrize("bytes_of", [0, 1, 12])
def test_a_copy_too_small_to_pay_for_a_challenge_does_not_hold_a_path_up_nor_spins(bytes_of):
    peer = calling()
    packet = peer.packet(*[b"\1"] * bytes_of)
    peer.node.hear(packet, source=ELSEWHERE)
    turns, end_ns = 0, peer.node.now_ns + 20 * SECOND
    sent = sum(len(s.data) for s in peer.node.say() if s.to == ELSEWHERE)
    while (deadline := peer.node.exchange.poll_timeout()) and deadline < end_ns:
        peer.node.now_ns = max(peer.node.now_ns, deadline)
        peer.node.exchange.handle_timeout(peer.node.now_ns)
        sent += sum(len(s.data) for s in peer.node.say() if s.to == ELSEWHERE)
        turns += 1
        assert turns < 100, "it is awake all the time"
    assert sent <= len(packet) and peer.handle.remote == PEER_AT


@pytest.mark.spec("PA-32")
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_congestion_control_starts_anew_at_another_address_but_not_at_another_port(is_elsewhere):
    peer = grown()
    before = peer.handle.stats()
    to = ELSEWHERE if is_elsewhere else endpoint("198.51.100.7", 2003)
    peer.handle.open_stream().write(b"on its way")
    peer.frames(peer.node.say())
    peer.send(ref.ping(), bytes(200), source=to)
    asked = challenge_in(peer, [sent for sent in peer.node.say() if sent.to == to])
    peer.node.now_ns += 300 * MS
    peer.send(ref.path_response(asked), source=to)
    after = peer.handle.stats()
    assert (after["window_bytes"] < before["window_bytes"]) == is_elsewhere
    assert after["min_rtt_ns"] == (300 * MS if is_elsewhere else before["min_rtt_ns"])
    peer.node.now_ns += 20 * MS
    peer.acknowledge()  # what was sent before, too
    assert peer.handle.stats()["latest_rtt_ns"] == (300 * MS if is_elsewhere else 320 * MS)


def grown():
    """Return a peer to which a window has grown."""
    peer = calling()
    stream = peer.handle.open_stream()
    for _ in range(8):
        stream.write(bytes(100_000))
        peer.frames(peer.node.say())
        peer.node.now_ns += 20 * MS
        peer.acknowledge(at=NODE_AT)
    peer.exchange()
    return peer


@pytest.mark.spec("PA-15", "PA-32")
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_another_address_of_the_own_end_is_another_way_with_another_id(is_elsewhere):
    peer = grown()
    before = peer.handle.stats()
    peer.send(ref.ping(), at=THIRD if is_elsewhere else NODE_AT)
    after = peer.handle.stats()
    assert (after["window_bytes"] < before["window_bytes"]) == is_elsewhere
    assert (after["min_rtt_ns"] == 0) == is_elsewhere
    said = peer.node.wait(10 * MS)
    assert {peer.open(sent.data).path for sent in said} == {0}
    assert (said[0].data[:8] != peer.cid) == is_elsewhere


@pytest.mark.spec("PA-32")
def test_an_address_of_ours_that_was_given_up_by_a_time_out_is_still_known():
    """When probes go unanswered the system chooses where packets leave from, most often the same address."""
    peer = grown()
    before = peer.handle.stats()
    peer.handle.open_stream().write(b"nobody hears it")
    peer.frames(peer.node.wait(SECOND))
    assert path_handle.paths(peer.handle)[0]["pto_count"] >= 2
    peer.send(ref.ping(), at=NODE_AT)
    assert peer.handle.stats()["window_bytes"] == before["window_bytes"]
    peer.frames(peer.node.wait(2 * SECOND))
    peer.send(ref.ping(), at=THIRD)
    assert peer.handle.stats()["window_bytes"] < before["window_bytes"]
