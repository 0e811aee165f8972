"""Chapter 14 of the specification: several paths, their connection ids, and the proof of addresses."""

import itertools

import pytest

from interpeer._core import control, path_handle
from tests.spec import reference as ref
from tests.spec.peer import BY_ERROR, BY_RESET, ELSEWHERE, MS, NODE_AT, PEER_AT, SECOND, SUITE_NAMES, Node, Peer, ack_of, endpoint
from tests.spec.reference import CONNECTION_ID_ERROR, PROTOCOL_ERROR

QUESTION = b"question"
THIRD = endpoint("203.0.113.77", 7007)
ANY = bytes(16)
HUGE = 2**62 - 1
PATH_FRAMES = [ref.NEW_CONNECTION_ID, ref.RETIRE_CONNECTION_ID, ref.PATH_ABANDON, ref.PATH_STATUS]


def calling(*, most=4, **limits):
    """Return a peer that has called the node; each has given the other ids for path 0 and for the next of both sides."""
    peer = Peer(Node(**limits)).call(MAX_PATHS=most)
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    settle(peer)
    return peer


def settle(peer):
    """Acknowledge what the node says until it is quiet; return the frames that say something."""
    return [frame for frame in peer.exchange() if frame.kind != ref.PING]


def paths(peer):
    return {figures["id"]: figures for figures in path_handle.paths(peer.handle)}


def states(peer):
    """Return the state of each path by its id."""
    return {path: path_handle.STATES[figures["state"]] for path, figures in paths(peer).items()}


def preferred(peer):
    return next(path for path, figures in paths(peer).items() if figures["is_preferred"])


def challenge_in(peer, said):
    """Return what the node asks in what it has said."""
    return next(frame.data for frame in peer.frames(said) if frame.kind == ref.PATH_CHALLENGE)


def accepted(peer, path=2, source=ELSEWHERE):
    """Let the peer open a path and prove where it is."""
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=path, source=source)
    asked = challenge_in(peer, peer.node.say())
    peer.node.now_ns += 20 * MS
    peer.send(ref.path_response(asked), path=path, source=source)
    peer.send(peer.new_cid(path, 1), peer.new_cid(path + 2, 0))
    assert states(peer)[path] == "active"
    settle_all(peer)
    return peer


def settle_all(peer, rounds=6):
    """Acknowledge all that is said on any path, a few times; return the frames."""
    frames = []
    for _ in range(rounds):
        frames += peer.frames(peer.node.wait(10 * MS))
        peer.node.now_ns += 10 * MS
        if any(peer.received_on.values()):
            peer.acknowledge_all()
    return frames


def opening(peer, to=ELSEWHERE):
    """Let the node open a path; return its id."""
    result, path = path_handle.open_path(peer.handle, to, ANY)
    assert result == path_handle.OPENED
    return path


def proven_opening(peer, to=ELSEWHERE):
    """Let the node open a path, and answer its challenge."""
    path = opening(peer, to)
    said = [sent for sent in peer.node.say() if sent.to == to]
    peer.node.now_ns += 20 * MS
    peer.send(ref.path_response(challenge_in(peer, said)), path=path, source=to)
    peer.send(peer.new_cid(path, 1), peer.new_cid(path + 2, 0))
    settle_all(peer)
    assert states(peer)[path] == "active"
    return path


def paths_of(peer, said):
    """Return on which paths the node has sent frames of streams."""
    found = set()
    for sent in said:
        opened = peer.open(sent.data)
        if any(frame.kind == ref.STREAM for frame in ref.read_frames(opened.payload)):
            found.add(opened.path)
    return found


# --- terms ---


@pytest.mark.spec("PA-3")
@pytest.mark.parametrize(("ours", "theirs"), [(4, 2), (2, 4), (1, 4), (4, 1), (4, 0)])
def test_there_are_no_more_paths_than_both_ends_keep(ours, theirs):
    peer = calling(most=theirs, max_paths=ours) if min(ours, theirs) > 1 else Peer(Node(max_paths=ours)).call(MAX_PATHS=theirs)
    assert ref.number(peer.remote_parameters.get(ref.MAX_PATHS, b"\4")) == ours
    if min(ours, theirs) > 1:
        accepted(peer)
        assert len(paths(peer)) == 2
    assert path_handle.open_path(peer.handle, ELSEWHERE, ANY) == (path_handle.TOO_MANY, None)


@pytest.mark.spec("PA-4")
@pytest.mark.parametrize("frame", [
    ref.new_connection_id(0, 1, b"\x80abcdefg"), ref.retire_connection_id(0, 0), ref.path_abandon(0), ref.path_status(0, 0, 0),
], ids=[f"{kind:#x}" for kind in PATH_FRAMES])  # fmt: skip
def test_who_keeps_one_path_is_told_nothing_of_others(frame):
    peer = Peer(Node()).call()
    assert [f for f in peer.frames() if f.kind in PATH_FRAMES] == []
    peer.send(frame)
    assert peer.closed_with() == PROTOCOL_ERROR


# --- connection ids ---


@pytest.mark.spec("PA-8")
def test_two_ids_are_there_for_each_path_and_one_for_the_next_of_both_sides():
    peer = calling()
    assert {path: sorted(ids) for path, ids in peer.path_cids.items()} == {0: [1], 1: [0], 2: [0]}
    accepted(peer)
    assert {path: sorted(ids) for path, ids in peer.path_cids.items()} == {0: [1], 1: [0], 2: [0, 1], 4: [0]}
    every = [cid for ids in peer.path_cids.values() for cid in ids.values()]
    assert len(set(every)) == len(every) and all(cid[0] & 0x80 for cid in every)


@pytest.mark.spec("PA-9")
@pytest.mark.parametrize(
    ("path", "sequence", "cid", "code"),
    [
        pytest.param(0, 2, b"\x70abcdefg", CONNECTION_ID_ERROR, id="not an id"),
        pytest.param(0, 1, b"\x80changed", CONNECTION_ID_ERROR, id="another id"),
        pytest.param(0, 2**32 + 2, b"\x80abcdefg", CONNECTION_ID_ERROR, id="too great a number"),
        pytest.param(2 + 16, 0, b"\x80abcdefg", CONNECTION_ID_ERROR, id="far ahead"),
        pytest.param(1 + 16, 0, b"\x80abcdefg", CONNECTION_ID_ERROR, id="far ahead of us"),
        pytest.param(HUGE, 0, b"\x80abcdefg", PROTOCOL_ERROR, id="no path"),
    ],
)
def test_an_id_that_cannot_be_ends_the_connection(path, sequence, cid, code):
    """All that is wrong with each of them is what it is named after."""
    peer = calling()
    peer.send(ref.new_connection_id(path, sequence, cid))
    assert peer.closed_with() == code


@pytest.mark.spec("PA-9")
@pytest.mark.parametrize(("path", "sequence"), [(0, 2), (2, 1)])
def test_one_id_for_two_numbers_ends_the_connection(path, sequence):
    peer = calling()
    used = next(cid for cid, of in peer.own_cids.items() if of == 0 and cid != peer.cid)
    peer.send(ref.new_connection_id(path, sequence, used))
    assert peer.closed_with() == CONNECTION_ID_ERROR


@pytest.mark.spec("PA-10")
@pytest.mark.row("N11", "C3")
def test_cve_2024_22189_a_flood_of_connection_ids_ends_the_connection():
    """Nothing is queued for them, and no more are kept than could be of use."""
    peer = calling()
    for sequence in range(2, 100):
        peer.send(peer.new_cid(0, sequence))
        if not peer.handle.is_open:
            break
    assert peer.closed_with() == CONNECTION_ID_ERROR and sequence <= 24
    assert peer.handle.closed()[0] == BY_ERROR


@pytest.mark.spec("PA-11")
@pytest.mark.row("N11")
def test_kubo_7526_an_id_that_comes_again_changes_nothing():
    peer = Peer(Node()).call(MAX_PATHS=4)
    frames = [peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0)]
    peer.send(*frames)
    settle(peer)
    for _ in range(50):
        peer.send(*frames)
    peer.send(ref.new_connection_id(0, 0, peer.cid, ref.reset_token(peer.identity.seed, peer.cid)))
    assert settle(peer) == [frame for frame in peer.frames() if frame.kind == ref.RETIRE_CONNECTION_ID] == []
    assert peer.handle.is_open


@pytest.mark.spec("PA-12", "PA-13")
def test_an_id_that_is_given_up_is_replaced_and_still_read_for_a_while():
    peer = calling()
    first, second = peer.remote_cid, peer.path_cids[0][1]
    peer.send(ref.retire_connection_id(0, 0), cid=second)
    assert [(frame.path, frame.id) for frame in settle(peer) if frame.kind == ref.NEW_CONNECTION_ID] == [(0, 2)]
    peer.send(ref.datagram(b"overtaken"), cid=first)
    assert peer.handle.recv_datagram() == b"overtaken"
    # the next one that is given up takes its place
    peer.send(ref.retire_connection_id(0, 1), cid=peer.path_cids[0][2])
    settle(peer)
    before = peer.node.counter("dropped_unknown")
    peer.send(ref.datagram(b"too late"), cid=first)
    assert peer.handle.recv_datagram() is None and peer.node.counter("dropped_unknown") == before + 1
    peer.send(ref.datagram(b"overtaken"), cid=second)
    assert peer.handle.recv_datagram() == b"overtaken"


@pytest.mark.spec("PA-14")
@pytest.mark.row("N11")
@pytest.mark.parametrize(("path", "sequence"), [(0, 2), (0, HUGE), (2, 1), (4, 0), (3, 0)])
def test_to_give_up_an_id_that_was_never_issued_ends_the_connection(path, sequence):
    peer = calling()
    peer.send(ref.retire_connection_id(path, sequence))
    assert peer.closed_with() == CONNECTION_ID_ERROR


@pytest.mark.spec("PA-15")
def test_with_a_change_of_key_goes_another_id_and_the_old_one_is_given_up_until_that_is_acknowledged():
    peer = calling(key_update_packets=10)
    stream = peer.handle.open_stream()
    ids, given_up = set(), []
    for _ in range(12):
        stream.write(bytes(2000))
        said = peer.node.say()
        ids |= {sent.data[:8] for sent in said}
        given_up += [(frame.path, frame.id) for frame in peer.frames(said) if frame.kind == ref.RETIRE_CONNECTION_ID]
        peer.node.now_ns += 20 * MS
        peer.acknowledge()
    assert ids == {cid for cid, path in peer.own_cids.items() if path == 0} and set(given_up) == {(0, 0)}


@pytest.mark.spec("PA-16")
def test_a_reset_with_the_token_of_any_id_in_use_ends_the_connection_and_no_other_does():
    tokens = [bytes([i]) * 16 for i in range(1, 4)]
    peer = Peer(Node()).call(MAX_PATHS=4)
    peer.send(peer.new_cid(0, 1, tokens[0]), peer.new_cid(1, 0), peer.new_cid(2, 0, tokens[1]), peer.new_cid(2, 1, tokens[2]))
    settle(peer)
    accepted_without_more(peer)
    for unused in (tokens[0], tokens[2], bytes(16)):
        peer.node.hear(b"\x80" + bytes(23) + unused)
        assert peer.handle.is_open
    peer.node.hear(b"\x80" + bytes(23) + tokens[1])
    assert peer.handle.closed()[0] == BY_RESET


def accepted_without_more(peer):
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=2, source=ELSEWHERE)
    peer.send(ref.path_response(challenge_in(peer, peer.node.say())), path=2, source=ELSEWHERE)
    settle_all(peer)


def test_a_token_is_forgotten_with_its_id_even_if_another_takes_its_place_at_once():
    """The engine looks connections up by tokens: one that is left behind would lead to one that is gone."""
    tokens = [bytes([i]) * 16 for i in range(1, 40)]
    peer = Peer(Node(key_update_packets=4)).call(MAX_PATHS=4)
    peer.send(peer.new_cid(0, 1, tokens[1]), peer.new_cid(1, 0), peer.new_cid(2, 0))
    stream, sequence, told = peer.handle.open_stream(), 1, 0
    for _ in range(40):
        stream.write(bytes(2000))
        retired = [frame for frame in peer.frames(peer.node.say()) if frame.kind == ref.RETIRE_CONNECTION_ID]
        peer.node.now_ns += 20 * MS
        more = []
        for _ in retired:
            sequence, told = sequence + 1, told + 1
            more.append(peer.new_cid(0, sequence, tokens[sequence % 39]))
        peer.send(ref.ack(max(peer.received), len(peer.received) - 1), *more)
    assert told > 3
    settle(peer)
    for token in tokens[: sequence - 1]:
        peer.node.hear(b"\x80" + bytes(23) + token)
    assert peer.handle.is_open


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


# --- sending ---


@pytest.mark.spec("PA-33")
def test_data_take_the_best_paths_only():
    peer = accepted(calling())
    stream = peer.handle.open_stream()
    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["aggregate"])
    stream.write(bytes(30_000))
    assert paths_of(peer, peer.node.wait(10 * MS)) == {0, 2}
    peer.acknowledge_all()
    path_handle.set_standby(peer.handle, 2, True)
    settle_all(peer)
    stream.write(bytes(30_000))
    assert paths_of(peer, peer.node.wait(10 * MS)) == {0}


@pytest.mark.spec("PA-34")
def test_a_copy_for_another_path_has_neither_datagrams_nor_acknowledgements_of_the_first():
    peer = accepted(calling())
    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["redundant"])
    peer.handle.send_datagram(b"once")
    streams = [peer.handle.open_stream() for _ in range(2)]
    streams[0].write(b"first")
    kinds = [(frame.kind, frame.data) for frame in peer.frames()]
    assert kinds.count((ref.DATAGRAM_LEN, b"once")) + kinds.count((ref.DATAGRAM, b"once")) == 1
    streams[1].write(b"twice")
    assert [frame.data for frame in peer.told()].count(b"twice") == 2


@pytest.mark.spec("PA-54")
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_message_on_several_paths_is_given_up_when_all_its_copies_are_lost(first, arrives):
    peer = accepted(calling())
    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["redundant"])
    channel = peer.handle.open_channel((2, 3, 0, 0, 0))  # ordered, not repeated
    settle_all(peer)
    channel.send(b"message")
    sent = {opened.path: opened.counter for opened in peer.packets()}
    assert set(sent) == {0, 2}
    second = 2 - first
    lose(peer, first, sent[first])
    assert not dropped_in(peer) and channel.dropped()[0] == 0
    if arrives:
        peer.send(ref.ack(sent[second], path=second))
    else:
        lose(peer, second, sent[second])
    assert dropped_in(peer) != arrives and channel.dropped()[0] == (not arrives)


def lose(peer, path, counter):
    """Acknowledge what comes later on a path, and not this."""
    later = {number for number in peer.received_on[path] if number > counter}
    while len(later) < 4:
        peer.handle.send_datagram(b"later")
        path_handle.set_standby(peer.handle, 2 - path, True)
        later |= {opened.counter for opened in peer.packets() if opened.path == path and opened.counter > counter}
    path_handle.set_standby(peer.handle, 2 - path, False)
    peer.send(ack_of(later, path=path))


def dropped_in(peer):
    return any(frame.kind == ref.DROPPED for frame in peer.frames())


@pytest.mark.spec("PA-35")
def test_an_acknowledgement_may_come_by_any_path():
    peer = accepted(calling())
    stream = peer.handle.open_stream()
    stream.write(b"data")
    peer.frames()
    assert sum(f["bytes_in_flight"] for f in paths(peer).values()) > 0
    peer.acknowledge_all(path=2, source=ELSEWHERE)
    assert sum(f["bytes_in_flight"] for f in paths(peer).values()) == 0 and peer.handle.is_open


@pytest.mark.spec("PA-35")
def test_an_acknowledgement_is_of_the_path_that_it_names_and_of_no_other():
    peer = accepted(calling())
    of = preferred(peer)
    other = 2 - of
    peer.handle.open_stream().write(b"data")
    peer.frames()
    path_handle.set_standby(peer.handle, of, True)
    assert preferred(peer) == other and paths(peer)[of]["bytes_in_flight"] > 0
    peer.send(ack_of(peer.received_on[of], path=of), path=other, source=(PEER_AT, ELSEWHERE)[other // 2])
    assert paths(peer)[of]["bytes_in_flight"] == 0 and peer.handle.is_open


@pytest.mark.spec("PA-36", "PA-37")
def test_the_newest_status_counts():
    peer = accepted(calling())
    peer.send(ref.path_status(0, 5, 0))
    assert paths(peer)[0]["peer_standby"] and preferred(peer) == 2
    peer.send(ref.path_status(0, 4, 1))
    assert paths(peer)[0]["peer_standby"]
    peer.send(ref.path_status(0, 6, 1))
    assert not paths(peer)[0]["peer_standby"]
    path_handle.set_standby(peer.handle, 2, True)
    path_handle.set_standby(peer.handle, 2, False)
    (told,) = [frame for frame in settle_all(peer) if frame.kind == ref.PATH_STATUS]
    assert (told.path, told.id, told.value) == (2, 2, 1)


def test_a_status_that_came_before_its_path_is_told_again():
    peer = calling()
    path = opening(peer)
    path_handle.set_standby(peer.handle, path, True)
    said = peer.node.say()
    asked = challenge_in(peer, [sent for sent in said if sent.to == ELSEWHERE])
    peer.frames([sent for sent in said if sent.to != ELSEWHERE])
    peer.acknowledge_all()
    peer.send(ref.path_response(asked), path=path, source=ELSEWHERE)
    assert [(f.path, f.value) for f in settle_all(peer) if f.kind == ref.PATH_STATUS] == [(path, 0)]


# --- silence ---


def silenced(peer, data=b"on its way"):
    """Let the preferred path fall silent with data on the way, another one being there; return what was said elsewhere."""
    stream = peer.handle.open_stream()
    dead = preferred(peer)
    stream.write(data)
    peer.node.say()
    elsewhere = []
    for _ in range(200):
        elsewhere += [sent for sent in peer.node.wait(10 * MS) if peer.own_cids[sent.data[:8]] != dead]
        if states(peer)[dead] != "active":
            break
    return dead, elsewhere + peer.node.wait(10 * MS)


@pytest.mark.spec("PA-38")
def test_what_is_on_its_way_on_a_silent_path_goes_another_way():
    peer = accepted(calling())
    dead, said = silenced(peer)
    assert states(peer)[dead] == "suspect" and preferred(peer) != dead
    said = [sent for sent in said if peer.own_cids[sent.data[:8]] != dead]
    assert [frame.data for frame in peer.told(said) if frame.kind == ref.STREAM] == [b"on its way"]


@pytest.mark.spec("PA-38")
def test_all_that_is_on_its_way_on_a_silent_path_goes_another_way_not_only_what_probes_repeat():
    peer = accepted(calling())
    data = bytes(range(250)) * 36
    dead, said = silenced(peer, data)
    frames = peer.told([sent for sent in said if peer.own_cids[sent.data[:8]] != dead])
    pieces = {frame.offset: frame.data for frame in frames if frame.kind == ref.STREAM}
    assert b"".join(pieces[offset] for offset in sorted(pieces)) == data


@pytest.mark.spec("PA-39")
def test_a_suspect_path_that_is_heard_of_again_is_active():
    peer = accepted(calling())
    dead, said = silenced(peer)
    peer.frames(said)
    probes = [sent for sent in peer.node.wait(3 * SECOND) if peer.own_cids[sent.data[:8]] == dead]
    assert probes
    peer.frames(probes)
    peer.acknowledge_all()
    assert states(peer)[dead] == "active"


@pytest.mark.spec("PA-40")
def test_a_path_that_is_silent_for_long_is_given_up_but_not_the_last():
    peer = accepted(calling(idle_timeout_ns=600 * SECOND))
    dead, said = silenced(peer)
    for _ in range(45):
        alive = [sent for sent in said if peer.own_cids[sent.data[:8]] != dead]
        peer.frames(alive)
        other = next(path for path in states(peer) if path != dead)
        peer.acknowledge_all(path=other, source=paths(peer)[other]["remote"])
        peer.send(ref.ping(), path=other, source=paths(peer)[other]["remote"])
        said = peer.node.wait(SECOND)
    assert dead not in states(peer) or states(peer)[dead] == "abandoned"
    assert states(peer)[other] == "active" and peer.handle.is_open


# --- giving up ---


@pytest.mark.spec("PA-41", "PA-42")
def test_a_path_that_is_given_up_is_told_of_until_that_is_acknowledged_and_used_no_more():
    peer = accepted(calling())
    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["aggregate"])
    assert path_handle.abandon_path(peer.handle, 2)
    said = peer.node.say()
    assert [(frame.path, frame.kind) for frame in peer.told(said)] == [(2, ref.PATH_ABANDON)]
    peer.received_on[0].discard(max(peer.received_on[0]))  # that packet is lost
    stream = peer.handle.open_stream()
    for _ in range(3):
        stream.write(bytes(3000))
    said = peer.node.wait(50 * MS)
    assert {peer.own_cids[sent.data[:8]] for sent in said} == {0}
    frames = peer.frames(said)
    peer.acknowledge()
    frames += peer.frames(peer.node.wait(2 * SECOND))
    assert ref.PATH_ABANDON in {frame.kind for frame in frames}
    peer.acknowledge()
    settle(peer)
    peer.node.wait(5 * SECOND)
    assert states(peer) == {0: "active"}


@pytest.mark.spec("PA-42")
def test_what_was_on_its_way_on_a_path_that_is_given_up_goes_another_way():
    peer = accepted(calling())
    stream = peer.handle.open_stream()
    stream.write(b"on its way")
    used = paths_of(peer, peer.node.say()).pop()
    assert path_handle.abandon_path(peer.handle, used)
    said = peer.node.say()
    assert paths_of(peer, said) == {0, 2} - {used}
    peer.acknowledge_all()


@pytest.mark.spec("PA-43")
def test_packets_of_a_path_that_was_given_up_are_still_read_for_a_while():
    peer = accepted(calling())
    late = peer.packet(ref.datagram(b"late"), path=2)
    peer.send(ref.path_abandon(2))
    peer.node.say()
    peer.node.hear(late, source=ELSEWHERE)
    assert peer.handle.recv_datagram() == b"late"


@pytest.mark.spec("PA-44")
def test_a_path_that_the_peer_gives_up_is_given_up():
    peer = accepted(calling())
    path_handle.set_standby(peer.handle, 2, True)
    peer.send(ref.path_abandon(2))
    assert states(peer)[2] == "abandoned"
    settle_all(peer, 100)
    assert states(peer) == {0: "active"}, "it is forgotten, whatever was still to be said of it"
    peer.send(ref.path_abandon(2))
    assert peer.handle.is_open, "told again"


@pytest.mark.spec("PA-45")
def test_who_gives_up_the_last_path_ends_the_connection():
    peer = calling()
    peer.send(ref.path_abandon(0))
    assert peer.closed_with() == PROTOCOL_ERROR
    peer = calling()
    assert not path_handle.abandon_path(peer.handle, 0)


@pytest.mark.spec("PA-46")
def test_a_path_that_was_given_up_before_anything_of_it_came_is_skipped():
    peer = calling()
    peer.send(ref.path_abandon(2))
    frames = settle(peer)
    assert [(f.path, f.id) for f in frames if f.kind == ref.NEW_CONNECTION_ID] == [(4, 0)]
    before = peer.node.counter("dropped_unknown")
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=2, source=ELSEWHERE)
    assert states(peer) == {0: "active"} and peer.node.counter("dropped_unknown") == before + 1
    peer.node.say()  # a stateless reset
    peer.send(peer.new_cid(4, 0))
    assert states(accepted(peer, 4))[4] == "active"


@pytest.mark.spec("PA-47")
@pytest.mark.parametrize("path", [1, 18, 19, HUGE])
def test_to_give_up_a_path_that_cannot_be_ends_the_connection(path):
    peer = calling()
    peer.send(ref.path_abandon(path))
    assert peer.closed_with() == PROTOCOL_ERROR


def test_a_path_in_use_is_given_up_while_the_other_is_not_proven():
    """What is preferred must never be a path that is forgotten."""
    peer = calling()
    path = opening(peer)
    said = peer.node.say()
    assert path_handle.abandon_path(peer.handle, 0)
    assert preferred(peer) == path
    peer.node.wait(10 * SECOND)
    asked = challenge_in(peer, [sent for sent in said if sent.to == ELSEWHERE])
    peer.send(ref.path_response(asked), path=path, source=ELSEWHERE)
    stream = peer.handle.open_stream()
    stream.write(b"goes on")
    said = peer.node.say()
    assert {sent.to for sent in said} == {ELSEWHERE} and b"goes on" in [frame.data for frame in peer.frames(said)]


# --- keys ---


@pytest.mark.spec("PA-49")
def test_an_epoch_is_left_when_it_is_confirmed_on_every_path_that_has_used_it():
    peer = accepted(calling(key_update_packets=20))
    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["redundant"])
    stream = peer.handle.open_stream()
    for _ in range(30):
        stream.write(b"data")
        peer.frames()
        peer.node.now_ns += MS
        peer.send(ref.ack(max(peer.received_on[0])), path=0)
    assert peer.handle.stats()["key_epoch"] == 0
    peer.acknowledge_all()
    stream.write(b"data")
    peer.frames()
    assert peer.handle.stats()["key_epoch"] == 1


@pytest.mark.spec("PA-49")
def test_a_path_that_nothing_uses_is_asked_to_confirm_the_epoch():
    """Of proofs and acknowledgements a peer acknowledges nothing: the epoch would be left never, and the connection end."""
    peer = calling(key_update_packets=20)
    path = proven_opening(peer)
    assert preferred(peer) == 0
    stream = peer.handle.open_stream()
    asked = []
    for _ in range(30):
        stream.write(b"data")
        asked += [opened for opened in peer.packets() if opened.path == path]
        peer.node.now_ns += 10 * MS
        peer.acknowledge_all()
    assert peer.handle.stats()["key_epoch"] == 1
    assert [frame.kind for opened in asked for frame in ref.read_frames(opened.payload)] == [ref.PING]
