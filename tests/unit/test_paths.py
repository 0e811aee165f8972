"""The proof of a path's address, and the paths of a connection: how many, which one, and what is told of them."""

import itertools

import pytest

from interpeer import Config
from interpeer._core.probe_conn import Lone
from interpeer._core.probe_paths import PATH_INPUT_NAMES, PATH_STATE_NAMES, Prover
from tests.models import wire

MS, SECOND = 1_000_000, 1_000_000_000
PTO = 50 * MS
RIGHT, BEFORE = b"question", b"previous"
LOCAL, PEER, SILENT = 1, 2, 3  # reasons
PROTOCOL, CONNECTION_ID = 7, 11
PEERS = {
    "suites": b"\1", "idle_timeout_ms": 30_000, "max_ack_delay_us": 5000, "max_udp_payload": 65_507, "max_data": 1 << 40,
    "max_paths": 4,
}  # fmt: skip
PING = b"\x01"


# --- proof ---


@pytest.fixture
def prover():
    prover = Prover()
    prover.move()
    return prover


def test_a_challenge_is_due_at_once_and_then_with_growing_pauses_of_two_seconds_at_most(prover):
    now = 10 * SECOND
    assert prover.is_due(now)
    pauses = []
    for _ in range(6):
        prover.ask(RIGHT, now, PTO)
        pauses.append(prover.next_ns - now)
        assert not prover.is_due(prover.next_ns - 1)
        now = prover.next_ns
        assert prover.is_due(now) == (len(pauses) < 6), "six in all"
    assert pauses == [PTO, 2 * PTO, 4 * PTO, 8 * PTO, 16 * PTO, 32 * PTO]
    for _ in range(3):
        prover.ask(RIGHT, now, 10 * SECOND)
        assert prover.next_ns - now == 10 * SECOND, "but never less than the path's own time-out"
    prover.ask(RIGHT, now, 100 * MS)
    assert prover.next_ns - now == 2 * SECOND


@pytest.mark.parametrize(("rtt_ns", "gap_ns"), [(40 * MS, 20 * MS), (10 * MS, 5 * MS), (MS, 5 * MS)])
def test_a_peer_that_speaks_hurries_challenges_but_not_more_than_once_in_half_a_round_trip(prover, rtt_ns, gap_ns):
    prover.set_rtt(rtt_ns)
    for _ in range(10):  # beyond the six as well: who waits for us shall not wait in vain
        prover.ask(RIGHT, SECOND, PTO)
        assert not prover.is_due(SECOND + gap_ns - 1, unacked=1) and prover.is_due(SECOND + gap_ns, unacked=1)
        assert not prover.is_due(SECOND + gap_ns)


def test_only_the_right_answer_proves_and_that_to_the_question_before_leads_back(prover):
    assert prover.answer(bytes(8)) == "strange", "nothing was asked yet"
    prover.ask(RIGHT, SECOND, PTO, previous=BEFORE)
    for wrong in (bytes(8), RIGHT[:7] + b"?", b"?" + RIGHT[1:], RIGHT[::-1]):
        assert prover.answer(wrong) == "strange" and prover.state == "validating"
    assert prover.answer(BEFORE) == "returns" and prover.state == "validating"
    assert prover.answer(RIGHT) == "proves" and prover.state == "active" and not prover.is_validating
    assert prover.answer(RIGHT) == "strange", "it was answered before"


def test_who_moves_on_while_a_proof_is_under_way_begins_anew(prover):
    for _ in range(6):
        prover.ask(RIGHT, SECOND, PTO)
    prover.move()
    assert prover.is_due(0) and prover.answer(RIGHT) == "strange" and prover.answer(bytes(8)) == "strange"


@pytest.mark.parametrize("event", PATH_INPUT_NAMES)
def test_a_proof_lasts_as_long_as_its_state(prover, event):
    prover.input(event)
    assert prover.is_validating == (prover.state == "validating")
    for later in PATH_INPUT_NAMES:
        if later != "moved":  # which begins one
            prover.input(later)
            assert prover.is_validating == (prover.state == "validating")
    assert prover.state == PATH_STATE_NAMES[3] and not any(map(prover.input, PATH_INPUT_NAMES))


# --- the paths of a connection ---


def lone(*, most=4, theirs=4, is_initiator=True):
    limits = Config(max_paths=most).core_limits()
    lone = Lone(limits=limits, peer={**PEERS, "max_paths": theirs}, is_initiator=is_initiator, now_ns=1)
    lone.give_entropy(bytes(range(256)) * 4)
    assert lone.feed(PING, SECOND) == "ok"
    return lone


def give_id(lone, path, sequence=0, cid=None):
    cid = (1 << 63 | 1000 * path + sequence) if cid is None else cid
    return lone.feed(wire.write_frame(("new_connection_id", path, sequence, cid.to_bytes(8, "big") + bytes(16))), SECOND)


def ready(lone, path):
    """Let both ends have an id for a path."""
    give_id(lone, path)
    lone.issue(path)


def opened(lone, host=9):
    """Open a path and let its address be proven; return its id."""
    path = max(known for known in lone.paths if known % 2 == 0) + 2
    ready(lone, path)
    assert lone.open_path(host) == path
    lone.prove_path(path, SECOND)
    return path


def states(lone):
    return {path: state for path, (state, _) in lone.paths.items()}


@pytest.mark.parametrize(
    ("most", "theirs", "allowed"), [(4, 4, 4), (4, 2, 2), (2, 4, 2), (1, 4, 1), (4, 1, 1), (4, 0, 1), (4, 9, 4)]
)
def test_there_are_as_many_as_both_ends_keep(most, theirs, allowed):
    paths = lone(most=most, theirs=theirs)
    for n in range(1, allowed):
        assert opened(paths) == 2 * n
    if allowed > 1:
        ready(paths, 2 * allowed)
    assert paths.open_path(9) == "too many" and len(paths.paths) == allowed


def test_each_end_counts_its_own_ids_and_needs_one_of_the_peer_and_one_of_ours():
    for is_initiator in (True, False):
        paths, first = lone(is_initiator=is_initiator), 2 if is_initiator else 1
        assert paths.open_path(9) == "no id"
        give_id(paths, first + 2)
        give_id(paths, 3 - first)
        assert paths.open_path(9) == "no id", "those are for others"
        give_id(paths, first)
        assert paths.open_path(9) == "no id", "the peer has none to answer with"
        paths.issue(first)
        assert paths.open_path(9) == first
        paths.issue(first + 2)
        assert paths.open_path(8) == first + 2


def test_a_room_is_free_again_when_the_abandoned_path_is_forgotten_and_its_number_is_not_used_again():
    paths = lone()
    for _ in range(3):
        opened(paths)
    assert paths.abandon_path(4, PEER) and states(paths)[4] == "abandoned"
    ready(paths, 8)
    assert paths.open_path(9) == "too many", "its packets may still come"
    paths.path_timeout(SECOND)
    paths.path_timeout(SECOND + 1)
    assert 4 in paths.paths
    paths.path_timeout(100 * SECOND)
    assert 4 not in paths.paths
    assert paths.open_path(9) == 8


def test_the_last_one_is_not_given_up_and_one_is_given_up_once():
    paths = lone()
    assert not paths.abandon_path(0, LOCAL) and states(paths) == {0: "active"}
    two = opened(paths)
    paths.path_events()
    assert paths.abandon_path(0, LOCAL) and paths.abandon_path(0, PEER)
    assert paths.path_events() == ([(0, "abandoned"), (two, "preferred")], 0)
    assert not paths.abandon_path(two, LOCAL) and paths.preferred_path == two


def test_a_path_that_is_not_proven_is_not_preferred_even_if_it_is_the_last_one_that_lives():
    paths = lone()
    ready(paths, 2)
    paths.open_path(9)
    assert paths.abandon_path(0, LOCAL) and states(paths) == {0: "abandoned", 2: "validating"}
    assert paths.preferred_path == 2 and paths.paths[2][1] == 8
    paths.prove_path(2, SECOND)
    assert paths.paths[2] == ("active", 0)


@pytest.mark.parametrize(("other_ns", "preferred"), [(0, 0), (100 * MS, 0), (88 * MS, 0), (10 * MS, 2)])
def test_a_path_must_be_clearly_faster_to_be_taken_instead(other_ns, preferred):
    paths = lone()
    paths.set_rtt(0, 100 * MS)
    opened(paths)
    paths.set_rtt(2, other_ns)
    paths.path_is_heard(2)
    assert paths.preferred_path == preferred


def test_one_on_standby_is_used_when_no_other_is_good():
    paths = lone()
    opened(paths)
    paths.set_standby(0, True)
    assert paths.preferred_path == 2 and paths.paths == {0: ("active", 1), 2: ("active", 0)}
    paths.path_is_silent(2)
    assert states(paths)[2] == "suspect" and paths.preferred_path == 0
    paths.path_is_heard(2)
    assert paths.preferred_path == 2
    paths.set_standby(2, True)
    assert paths.preferred_path == 2, "neither is better"
    paths.set_standby(0, False)
    assert paths.preferred_path == 0


def test_a_silent_path_is_left_for_a_better_one_and_taken_back_when_it_is_heard():
    paths = lone()
    paths.set_rtt(0, 10 * MS)
    opened(paths)
    paths.set_rtt(2, 100 * MS)
    paths.path_events()
    paths.path_is_silent(0)
    assert states(paths)[0] == "suspect" and paths.preferred_path == 2
    paths.path_is_silent(0)
    paths.path_is_silent(2)
    assert states(paths)[2] == "active", "there is no better one to go to"
    paths.path_is_heard(0)
    assert paths.preferred_path == 0
    assert paths.path_events() == ([(0, "suspect"), (2, "preferred"), (0, "recovered"), (0, "preferred")], 0)


def test_a_lone_path_is_never_suspect():
    paths = lone()
    paths.path_is_silent(0)
    assert states(paths) == {0: "active"}


def test_events_that_nobody_takes_are_bounded_and_counted():
    paths = lone()
    paths.set_rtt(0, 10 * MS)
    opened(paths)
    paths.set_rtt(2, 100 * MS)
    for _ in range(100):
        paths.path_is_silent(0)
        paths.path_is_heard(0)
    events, dropped = paths.path_events()
    assert len(events) == 16 and events[:2] == [(2, "opened"), (2, "proven")] and dropped == 400 + 2 - 16
    paths.path_is_silent(0)
    assert paths.path_events()[0] == [(0, "suspect"), (2, "preferred")], "there is room again, wherever the ring stands"


# --- frames about them ---


@pytest.mark.parametrize(
    ("path", "sequence", "cid", "code"),
    [(2, 0, None, 0), (15, 0, None, 0), (16, 0, None, 0), (17, 0, None, CONNECTION_ID), (18, 0, None, CONNECTION_ID),
     (2, 2**32 - 1, None, 0), (2, 2**32, None, CONNECTION_ID), (2, 0, 5, CONNECTION_ID), (2**31, 0, None, PROTOCOL)],
)  # fmt: skip
def test_an_id_is_for_a_path_that_may_come_soon(path, sequence, cid, code):
    paths = lone()
    give_id(paths, path, sequence, cid)
    assert paths.state == ("closing" if code else "open") and paths.closed[0] == code


@pytest.mark.parametrize(("frames", "standby"), [([(0, 0)], True), ([(0, 0), (1, 1)], False), ([(1, 1), (0, 0)], False),
                                                 ([(0, 0), (0, 1)], True), ([(2**32, 0)], False)])  # fmt: skip
def test_the_newest_status_counts_once(frames, standby):
    paths = lone()
    two = opened(paths)
    for sequence, status in frames:
        assert paths.feed(wire.write_frame(("path_status", two, sequence, status)), SECOND) == "ok"
    assert paths.paths[two] == ("active", int(standby)) and paths.state == "open"


def test_paths_that_are_skipped_take_their_ids_along_and_make_room():
    """Again and again: the numbers go on, and nothing is left of those before."""
    paths = lone(is_initiator=False)
    for path in itertools.islice(itertools.count(2, 2), 200):
        for sequence in range(3):
            give_id(paths, path, sequence)
        assert paths.feed(wire.write_frame(("path_abandon", path, 0)), SECOND) == "ok"
    assert paths.state == "open" and states(paths) == {0: "active"}
