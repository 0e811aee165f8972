"""The initiator: every state with every input, whom it calls and when, what it believes (docs/spec, chapter 4)."""

import pytest

from interpeer._core.probe_handshake import Dialer, Keys, mac1_of, open_sealed_reply, step_dial
from tests.spec import reference as ref

MS = 1_000_000
SECOND = 1000 * MS
TIMEOUT = 10 * SECOND
START = 100 * SECOND
CID = 0x80 << 56 | 7
OURS = {"suites": b"\2\1", "max_udp_payload": 1400}
ANSWER = {"suites": b"\2", "max_udp_payload": 1300, "connection_id": 0x81 << 56}
REFUSAL = {"suites": b"\2", "refusal": 9, "reason": b"no"}
STATES = ("calling", "doubtful", "answered", "refused", "mismatched", "timed out")
INPUTS = ("answer", "refusal", "versions", "cookie", "deadline")


def address(n, port=1001):
    return bytes(10) + b"\xff\xff" + bytes([192, 0, 2, n]), port, 0


@pytest.fixture
def alice():
    return Keys(b"a" * 32)


@pytest.fixture
def bob():
    return Keys(b"b" * 32)


@pytest.fixture
def dialer(alice, bob):
    """A call to bob at one address, which began at START."""
    dialer = Dialer(alice)
    assert dialer.prepare(bob.public_key, CID, OURS, b"e" * 32)
    dialer.add_candidate(address(1))
    dialer.begin(START, TIMEOUT)
    return dialer


def respond(bob, init, parameters=ANSWER):
    result, answering = bob.read_init(init)
    assert result == "ok"
    return answering.write_response(CID, parameters, b"r" * 32), answering


# --- the table ---

TABLE = {
    "calling": ("answered", "refused", "doubtful", "calling", "timed out"),
    "doubtful": ("answered", "refused", "doubtful", "calling", "mismatched"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", INPUTS)
def test_every_input_in_every_state(state, event):
    after, has_moved = step_dial(STATES.index(state), INPUTS.index(event))
    expected = TABLE[state][INPUTS.index(event)] if state in TABLE else state  # what is over stays as it is
    assert (STATES[after], has_moved) == (expected, expected != state)


# --- whom to call, and when ---


def calls(dialer, until):
    """Let time pass; return when each address was called."""
    found, now = [], START
    while now <= until:
        while (due := dialer.poll(now)) is not None:
            found.append((now, due[1]))
        dialer.handle_timeout(now)
        if dialer.is_over:
            break
        assert now < dialer.deadline_ns, "a deadline has passed and nothing was done"
        now = dialer.deadline_ns
    return found


def test_one_address_is_called_again_with_pauses_that_double_up_to_a_second(dialer):
    times = [(now - START) // MS for now, _ in calls(dialer, START + TIMEOUT)]
    assert times == [0, 250, 750, *range(1750, 10_000, 1000)]
    assert dialer.state == "timed out" and dialer.deadline_ns == 0 and dialer.poll(START + 2 * TIMEOUT) is None


def test_addresses_take_turns_50_ms_apart(dialer):
    for n in (2, 3):
        assert dialer.add_candidate(address(n)) == n - 1
    found = [((now - START) // MS, who[0][-1]) for now, who in calls(dialer, START + SECOND)]
    assert found == [(0, 1), (50, 2), (100, 3), (350, 1), (400, 2), (450, 3), (950, 1), (1000, 2)]
    assert [sent for _, sent, _ in dialer.candidates] == [3, 3, 2]


@pytest.mark.row("N4")
def test_no_more_than_sixteen_addresses_and_each_once(dialer):
    for n in range(2, 17):
        assert dialer.add_candidate(address(n)) == n - 1
    assert dialer.add_candidate(address(17)) is None
    assert dialer.add_candidate(address(1, port=1002)) is None
    assert dialer.add_candidate(address(5)) == 4 and len(dialer.candidates) == 16


def test_without_an_address_only_the_timeout_is_due(alice, bob):
    dialer = Dialer(alice)
    dialer.prepare(bob.public_key, CID, OURS, b"e" * 32)
    dialer.begin(START, TIMEOUT)
    assert dialer.poll(START) is None and dialer.deadline_ns == START + TIMEOUT


@pytest.mark.row("H5")
def test_key_that_is_no_good_is_refused(alice):
    assert not Dialer(alice).prepare(bytes(32), CID, OURS, b"e" * 32)


# --- answers ---


def test_answer_ends_the_call_and_both_sides_have_the_same_secrets(dialer, bob):
    init, to = dialer.poll(START)
    response, answering = respond(bob, init)
    assert to == address(1)
    result, parameters = dialer.handle_response(response, bob.identity, START + MS)
    assert result == "ok" and parameters["connection_id"] == ANSWER["connection_id"]
    assert dialer.state == "answered" and dialer.split() == answering.split()[::-1]


@pytest.mark.row("H14")
def test_second_response_is_ignored(dialer, bob):
    init, _ = dialer.poll(START)
    response, _ = respond(bob, init)
    dialer.handle_response(response, bob.identity, START)
    secrets = dialer.split()
    for again in (response, respond(bob, init, REFUSAL)[0]):
        assert dialer.handle_response(again, bob.identity, START + MS)[0] == "open"
    assert dialer.state == "answered" and dialer.split() == secrets


def test_refusal_ends_the_call_and_tells_why(dialer, bob):
    response, _ = respond(bob, dialer.poll(START)[0], REFUSAL)
    result, parameters = dialer.handle_response(response, bob.identity, START)
    assert (result, parameters["refusal"], parameters["reason"]) == ("ok", 9, b"no")
    assert dialer.state == "refused" and dialer.is_over


@pytest.mark.row("H2", "H3", "H21")
def test_responses_that_cannot_be_used_leave_the_call_as_it_was(dialer, alice, bob):
    init, _ = dialer.poll(START)
    response, _ = respond(bob, init)
    no_cid, _ = respond(bob, init, {"suites": b"\2", "max_udp_payload": 1300})
    mallory = Keys(b"m" * 32)
    other, _ = mallory.read_init(mallory_init := alice.write_init(mallory.public_key, CID, OURS, b"e" * 32)[0])
    assert other == "ok" and mallory_init != init
    for message, who, problem in (
        (response[:-1], bob, "open"),
        (b"", bob, "open"),
        (response[:60] + bytes([response[60] ^ 1]) + response[61:], bob, "open"),
        (respond(mallory, mallory_init)[0], mallory, "open"),
        (response, mallory, "identity"),
        (no_cid, bob, "parameter"),
    ):
        assert dialer.handle_response(message, who.identity, START)[0] == problem
        assert dialer.state == "calling"
    assert dialer.handle_response(response, bob.identity, START)[0] == "ok"


@pytest.mark.row("H15")
def test_held_call_sets_answers_aside_for_a_second_and_only_once(dialer, bob):
    response, _ = respond(bob, dialer.poll(START)[0])
    dialer.hold(START)
    assert dialer.handle_response(response, bob.identity, START + SECOND - 1)[0] == "open"
    dialer.hold(START + SECOND - 1)
    assert dialer.handle_response(response, bob.identity, START + SECOND)[0] == "ok"


# --- cookies ---


@pytest.fixture
def cookie_reply(dialer, bob):
    bob.rotate_cookie_secret(b"f" * 32, START)
    return bob.write_cookie_reply(dialer.poll(START)[0], address(1), b"n" * 24)


def test_cookie_makes_the_call_again_at_once_and_is_shown(dialer, bob, cookie_reply):
    index = dialer.handle_cookie(cookie_reply, address(1))
    assert index == 0 and dialer.state == "calling"
    init = dialer.stamp(index, START)
    assert bob.has_mac1(init) and bob.has_mac2(init, address(1), START)
    assert bob.has_mac2(dialer.poll(START + 250 * MS)[0], address(1), START)


def test_only_the_address_that_asked_is_shown_its_cookie(dialer, bob, cookie_reply):
    dialer.add_candidate(address(2))
    dialer.handle_cookie(cookie_reply, address(1))
    assert [has_cookie for _, _, has_cookie in dialer.candidates] == [True, False]
    assert not bob.has_mac2(dialer.stamp(1, START), address(1), START)


@pytest.mark.row("H19")
def test_cookies_that_are_not_for_us_are_dropped(dialer, alice, bob, cookie_reply):
    other = alice.write_init(bob.public_key, CID, OURS, b"x" * 32)[0]
    for reply, source in (
        (cookie_reply, address(2)),  # we have not called there
        (cookie_reply, address(1, port=1)),
        (cookie_reply[:-1], address(1)),
        (cookie_reply[:-1] + bytes([cookie_reply[-1] ^ 1]), address(1)),
        (bob.write_cookie_reply(other, address(1), b"n" * 24), address(1)),
        (bob.write_versions_reply(dialer.stamp(0, START), b"n" * 24), address(1)),  # no cookie: one byte
    ):
        assert dialer.handle_cookie(reply, source) is None
    assert dialer.candidates[0][2] is False


def test_only_the_first_cookie_makes_a_call_at_once(dialer, bob, cookie_reply):
    assert dialer.handle_cookie(cookie_reply, address(1)) == 0
    assert dialer.handle_cookie(cookie_reply, address(1)) is None
    bob.rotate_cookie_secret(b"g" * 32, START + 121 * SECOND)
    later = bob.write_cookie_reply(dialer.stamp(0, START), address(1), b"n" * 24)
    assert dialer.handle_cookie(later, address(1)) is None
    assert bob.has_mac2(dialer.stamp(0, START), address(1), START + 121 * SECOND)


# --- versions ---


def versions(bob, init, *numbers):
    return ref.seal_reply(ref.header(ref.VERSIONS, init[2:10]), bytes(numbers), b"n" * 24, mac1_of(init), bob.public_key, b"")


@pytest.mark.row("H23")
def test_list_of_versions_is_believed_after_a_second_without_an_answer(dialer, bob):
    init, _ = dialer.poll(START)
    assert dialer.handle_versions(versions(bob, init, 2, 3), START + MS) == "ok"
    assert dialer.state == "doubtful"
    assert dialer.handle_versions(versions(bob, init, 2, 3), START + 900 * MS) == "ok"
    dialer.handle_timeout(START + MS + SECOND - 1)
    assert not dialer.is_over
    dialer.handle_timeout(START + MS + SECOND)
    assert dialer.state == "mismatched"


@pytest.mark.row("H23")
def test_answer_after_a_list_of_versions_counts(dialer, bob):
    init, _ = dialer.poll(START)
    dialer.handle_versions(versions(bob, init, 2), START)
    assert dialer.handle_response(respond(bob, init)[0], bob.identity, START + 999 * MS)[0] == "ok"
    assert dialer.state == "answered"


def test_doubt_does_not_outlast_the_call(dialer, bob):
    init, _ = dialer.poll(START)
    dialer.handle_versions(versions(bob, init, 2), START + TIMEOUT - MS)
    dialer.handle_timeout(START + TIMEOUT)
    assert dialer.state == "mismatched"


@pytest.mark.row("H23")
def test_cookie_ends_the_doubt_and_the_call_has_its_whole_time_again(dialer, bob, cookie_reply):
    init = dialer.stamp(0, START)
    dialer.handle_versions(versions(bob, init, 2), START)
    assert dialer.handle_cookie(cookie_reply, address(1)) == 0 and dialer.state == "calling"
    calls(dialer, START + TIMEOUT - 1)
    assert dialer.state == "calling"
    dialer.handle_timeout(START + TIMEOUT)
    assert dialer.state == "timed out"


@pytest.mark.row("H23")
def test_lists_that_cannot_be_true_are_dropped(dialer, bob):
    init, _ = dialer.poll(START)
    good = versions(bob, init, 2)
    for reply, problem in (
        (versions(bob, init, 2, 1), "parameter"),  # it speaks ours
        (good[:-1], "open"),
        (good[:-1] + bytes([good[-1] ^ 1]), "open"),
        (versions(Keys(b"m" * 32), init, 2), "open"),
        (versions(bob, init, *range(2, 19)), "open"),
    ):
        assert dialer.handle_versions(reply, START) == problem and dialer.state == "calling"
    assert open_sealed_reply(good, Keys(b"a" * 32).sealing_key(bob.public_key), mac1_of(init)) == b"\2"


def test_nothing_moves_a_call_that_is_over(dialer, bob, cookie_reply):
    init = dialer.stamp(0, START)
    dialer.handle_response(respond(bob, init)[0], bob.identity, START)
    assert dialer.handle_cookie(cookie_reply, address(1)) is None
    assert dialer.handle_versions(versions(bob, init, 2), START) == "open"
    dialer.handle_timeout(START + TIMEOUT)
    assert dialer.state == "answered"
