"""Connection ids beside the first: issued, given up, replaced (docs/spec, chapter 14)."""

import pytest

from tests.spec import reference as ref
from tests.spec.paths import HUGE, QUESTION, accepted, calling, challenge_in, settle, settle_all
from tests.spec.peer import BY_ERROR, BY_RESET, ELSEWHERE, MS, Node, Peer
from tests.spec.reference import CONNECTION_ID_ERROR, PROTOCOL_ERROR

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
