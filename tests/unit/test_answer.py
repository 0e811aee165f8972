"""The responder: every state with every input, the table of half-open handshakes, load and its buckets."""

import pytest

from interpeer._core.probe_handshake import Answerer, Keys, half_open_bytes, step_half

SECOND = 10**9
START = 100 * SECOND
SWEEP = SECOND
KEPT = 10 * SECOND
OURS = {"suites": b"\2", "max_udp_payload": 1400, "max_data": 77}
STATES = ("free", "asking", "answered")
INPUTS = ("init", "ask", "answer", "end")


def address(*octets, port=1001):
    return bytes(10) + b"\xff\xff" + bytes(octets), port, 0


def address6(text, port=1001):
    return bytes.fromhex(text).ljust(16, b"\1"), port, 0


HERE = address(192, 0, 2, 1)


@pytest.fixture
def bob():
    return Keys(b"b" * 32)


@pytest.fixture
def answerer(bob):
    return Answerer(bob, 8)


def init_of(bob, n):
    """Return the n-th caller's keys, its init and its side of the handshake."""
    keys = Keys(n.to_bytes(32, "big"))
    return keys, *keys.write_init(bob.public_key, cid(n), OURS, b"e" * 31 + bytes([n % 256]))


def cid(n):
    return 0x80 << 56 | n


def answered(answerer, bob, n, now=START):
    """Answer the n-th caller; return the entry's id and the init."""
    _, init, _ = init_of(bob, n)
    answer = {**OURS, "connection_id": cid(1000 + n)}
    return answerer.add(init, HERE, 0, now, parameters=answer, ephemeral=b"r" * 32), init


# --- the table ---

TABLE = {
    "free": ("free", "asking", "answered", None),
    "asking": ("asking", None, "answered", "free"),
    "answered": ("answered", None, None, "free"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", INPUTS)
def test_every_input_in_every_state(state, event):
    after = step_half(STATES.index(state), INPUTS.index(event))
    assert (None if after is None else STATES[after]) == TABLE[state][INPUTS.index(event)]


def test_entry_is_no_larger_than_promised():
    actual, promised, response = half_open_bytes()
    assert actual <= promised == 512 and response == 208


# --- entries ---


def test_answered_entry_has_the_peers_parameters_and_secrets(answerer, bob):
    caller, init, calling = init_of(bob, 1)
    answer = {**OURS, "connection_id": cid(5)}
    entry = answerer.add(init, HERE, 3, START, parameters=answer, ephemeral=b"r" * 32)
    assert answerer.state(entry) == "answered" and len(answerer) == 1
    assert answerer.find_init(init) == answerer.find_cid(cid(5)) == answerer.find_peer(caller.public_key, 3) == entry
    assert answerer.find_peer(caller.public_key, 2) is answerer.find_cid(cid(6)) is None
    result, parameters = calling.read_response(answerer.response(entry), bob.identity)
    assert result == "ok" and parameters["connection_id"] == cid(5)
    assert answerer.secrets(entry) == calling.split()[::-1]
    assert answerer.parameters(entry)["max_data"] == 77


def test_entry_that_the_application_is_asked_about_is_answered_later(answerer, bob):
    caller, init, calling = init_of(bob, 1)
    entry = answerer.add(init, HERE, 0, START)
    assert answerer.state(entry) == "asking" and answerer.find_init(init) == entry
    assert answerer.find_peer(caller.public_key, 0) is None, "who waits for an answer has no session yet"
    assert answerer.answer(entry, {**OURS, "connection_id": cid(9)}, b"r" * 32, START + SECOND)
    assert answerer.state(entry) == "answered" and answerer.find_cid(cid(9)) == entry
    assert calling.read_response(answerer.response(entry), bob.identity)[0] == "ok"
    assert answerer.secrets(entry) == calling.split()[::-1]


def test_answer_now_or_later_is_the_same(bob):
    _, init, _ = init_of(bob, 1)
    answer, one, other = {**OURS, "connection_id": cid(9)}, Answerer(bob, 4), Answerer(bob, 4)
    at_once = one.add(init, HERE, 0, START, parameters=answer, ephemeral=b"r" * 32)
    later = other.add(init, HERE, 0, START)
    other.answer(later, answer, b"r" * 32, START)
    assert (one.response(at_once), one.secrets(at_once)) == (other.response(later), other.secrets(later))


def test_response_too_long_to_be_kept_leaves_no_entry(answerer, bob):
    _, init, _ = init_of(bob, 1)
    refusal = {**OURS, "refusal": 1, "reason": b"x" * 200}
    assert answerer.add(init, HERE, 0, START, parameters=refusal, ephemeral=b"r" * 32) == 0
    assert len(answerer) == 0 and answerer.find_init(init) is None


def test_removed_entry_is_found_no_more(answerer, bob):
    entry, init = answered(answerer, bob, 1)
    other, _ = answered(answerer, bob, 2)
    answerer.remove(entry)
    assert answerer.find_init(init) is answerer.find_cid(cid(1001)) is None and len(answerer) == 1
    with pytest.raises(KeyError):
        answerer.state(entry)
    assert answerer.state(other) == "answered"


@pytest.mark.row("H20")
def test_full_table_pushes_the_oldest_out(answerer, bob):
    entries = [answered(answerer, bob, n, START + n * SECOND // 2)[0] for n in range(1, 12)]
    assert len(answerer) == 8 and len(set(entries)) == 11
    for n, entry in enumerate(entries, 1):
        assert answerer.find_cid(cid(1000 + n)) == (entry if n > 3 else None)


@pytest.mark.row("H20")
def test_entries_are_forgotten_ten_seconds_after_their_response(answerer, bob):
    assert answerer.deadline_ns == 0
    first, _ = answered(answerer, bob, 1, START)
    _, init, _ = init_of(bob, 2)
    asked = answerer.add(init, HERE, 0, START + SECOND)
    assert answerer.deadline_ns == START + SWEEP
    now = START
    while now < START + KEPT:
        assert answerer.state(first) == "answered" and answerer.state(asked) == "asking"
        now = answerer.deadline_ns
        answerer.expire(now)
    assert now == START + KEPT and answerer.find_cid(cid(1001)) is None and len(answerer) == 1
    assert answerer.answer(asked, {**OURS, "connection_id": cid(9)}, b"r" * 32, now)
    answerer.expire(now + KEPT - 1)
    assert answerer.state(asked) == "answered"
    answerer.expire(answerer.deadline_ns + SWEEP)
    assert len(answerer) == 0 and answerer.deadline_ns == 0


# --- load ---


@pytest.mark.parametrize(("capacity", "loaded_from"), [(1, 1), (2, 1), (9, 5), (600, 256)])
def test_load_begins_with_half_of_the_table_and_with_256_entries(bob, capacity, loaded_from):
    answerer = Answerer(bob, capacity)
    _, init, _ = init_of(bob, 1)
    for n in range(loaded_from):
        assert not answerer.is_loaded, n
        answerer.add(init[:2] + bytes(init[2:]), HERE, 0, START)
    assert answerer.is_loaded


@pytest.mark.row("H17")
def test_each_prefix_has_40_at_once_and_20_a_second(answerer, bob):
    bob.rotate_cookie_secret(b"f" * 32, START)
    near, far = address(192, 0, 2, 200, port=9), address(192, 0, 3, 1)
    assert sum(answerer.admits(HERE, START) for _ in range(100)) == 40
    assert not answerer.admits(near, START), "the same /24, whatever the port"
    assert answerer.admits(far, START)
    assert sum(answerer.admits(near, START + i * SECOND // 100) for i in range(1, 101)) == 20
    assert sum(answerer.admits(HERE, START + 3600 * SECOND) for _ in range(100)) == 40


@pytest.mark.row("H17")
def test_prefix_of_ipv6_is_a_64(answerer, bob):
    bob.rotate_cookie_secret(b"f" * 32, START)
    assert sum(answerer.admits(address6("20010db8000000010001"), START) for _ in range(100)) == 40
    assert not answerer.admits(address6("20010db800000001ffff"), START)
    assert answerer.admits(address6("20010db8000000020001"), START)
