"""Chapter 14 of the specification: several paths, their connection ids, and the proof of addresses."""

import pytest

from interpeer._core import path_handle
from tests.spec import reference as ref
from tests.spec.paths import (
    ANY,
    HUGE,
    PATH_FRAMES,
    QUESTION,
    accepted,
    calling,
    challenge_in,
    opening,
    paths,
    paths_of,
    preferred,
    proven_opening,
    settle,
    settle_all,
    states,
)
from tests.spec.peer import ELSEWHERE, MS, PEER_AT, SECOND, Node, Peer, ack_of
from tests.spec.reference import PROTOCOL_ERROR

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
