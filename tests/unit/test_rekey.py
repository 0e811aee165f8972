"""The machine that agrees on fresh keys: its table, its clock, and the keys that two of them come to."""

import itertools

import pytest

from interpeer._core.probe_rekey import INPUTS, STATES, Machine

SECOND = 10**9
INTERVAL = 120 * SECOND
LEAST_DUE = INTERVAL - INTERVAL // 8
ALLOWED = {
    ("idle", "due"): "asking",
    ("idle", "init"): "asked",
    ("asking", "answer"): "turning",
    ("turning", "answer"): "turning",
    ("turning", "turned"): "waiting",
    ("waiting", "answer"): "waiting",
    ("waiting", "peer turned"): "idle",
    ("asked", "init"): "asked",
    ("asked", "answered"): "answering",
    ("answering", "init"): "answering",
    ("answering", "peer turned"): "following",
    ("following", "turned"): "idle",
}
PROTOCOL, IDENTITY = 0x07, 0x14


def two(**kwargs):
    """Return both ends of a session."""
    first, second = b"i" * 32, b"r" * 32
    return Machine(bytes([1]) * 32, True, first, second, **kwargs), Machine(bytes([2]) * 32, False, second, first)


def message(frame):
    return frame[1], frame[2:]  # epochs below 64


def agree(a, b, now_ns=0, ephemeral=b"\7" * 32):
    """Let the initiator `a` and `b` come to fresh keys."""
    assert a.ask(b.static, ephemeral, now_ns) == 0
    assert b.handle_init(*message(a.write()), now_ns) == 0
    assert b.answer(a.static, bytes(reversed(ephemeral)), now_ns) == 0
    assert a.handle_answer(*message(b.write()), now_ns) == 0
    a.turn(now_ns)
    b.follow(now_ns)
    b.turn(now_ns)
    a.follow(now_ns)


@pytest.mark.parametrize(("state", "event"), [*itertools.product(STATES, INPUTS)])
def test_machine_does_what_the_table_says(state, event):
    assert two()[0].step(state, event) == ALLOWED.get((state, event))


# --- when ---


def test_time_counts_from_the_first_use():
    a, _ = two(interval_ns=INTERVAL)
    assert not a.use(100, 50 * SECOND)
    due_ns = a.state["due_ns"]
    assert 50 * SECOND + LEAST_DUE <= due_ns <= 50 * SECOND + INTERVAL
    assert not a.use(100, due_ns - 1)
    assert a.use(100, due_ns)


def test_many_bytes_make_it_due_at_once():
    a, _ = two(interval_ns=INTERVAL)
    assert not a.use(2**36 - 1, 1)
    assert a.use(1, 2)


def test_due_times_of_different_sessions_differ():
    times = set()
    for i in range(20):
        a = Machine(bytes([1]) * 32, True, bytes([i]) * 32, b"r" * 32, interval_ns=INTERVAL)
        a.use(1, 0)
        times.add(a.state["due_ns"])
    assert len(times) > 10 and all(LEAST_DUE <= t <= INTERVAL for t in times)


@pytest.mark.parametrize(("side", "interval_ns"), [(0, 0), (1, 0)])
def test_nothing_is_due_for_a_responder_or_without_an_interval(side, interval_ns):
    end = two(interval_ns=interval_ns)[side]
    assert not any(end.use(2**35, i * INTERVAL) for i in range(10))


def test_nothing_is_due_while_an_agreement_is_under_way():
    a, b = two(interval_ns=INTERVAL)
    a.use(1, 1)
    assert a.use(1, INTERVAL + 1)
    a.ask(b.static, b"e" * 32)
    assert not a.use(2**36, 2 * INTERVAL)


# --- what ---


def test_both_ends_come_to_the_same_keys_and_others_than_before():
    a, b = two(interval_ns=INTERVAL)
    seen = set()
    for i in range(5):
        a.use(1, i * INTERVAL)
        agree(a, b, i * INTERVAL, bytes([i]) * 32)
        ours, _, chain = a.secrets
        theirs, _, their_chain = b.secrets
        assert chain == their_chain and a.epochs == b.epochs == (i + 1, i + 1)
        assert a.state == b.state | {"due_ns": 0} and a.state["count"] == i + 1
        assert a.state["state"] == "idle" and not a.state["has_exchange"] and a.state["deadline_ns"] == 0
        assert a.state["fresh_ns"] == i * INTERVAL and a.state["used_bytes"] == 0
        seen |= {ours, theirs, chain}
    assert len(seen) == 15
    a.update()
    assert a.secrets[0] == b.secrets[1], "what b expects next is where a goes by use alone"


def test_other_ephemeral_keys_give_other_secrets():
    pairs = [two(), two()]
    for (a, b), ephemeral in zip(pairs, (b"1" * 32, b"2" * 32), strict=True):
        agree(a, b, 0, ephemeral)
    assert not set(pairs[0][0].secrets) & set(pairs[1][0].secrets)


def test_the_same_exchange_gives_other_secrets_in_another_session():
    """What is agreed is mixed into what was there."""
    found = []
    for first, second in ((b"i" * 32, b"r" * 32), (b"j" * 32, b"s" * 32)):
        a = Machine(bytes([1]) * 32, True, first, second)
        b = Machine(bytes([2]) * 32, False, second, first)
        agree(a, b)
        found.append(set(a.secrets) | set(b.secrets))
    assert not found[0] & found[1]


def test_key_updates_before_and_after_do_not_disturb():
    a, b = two()
    for _ in range(3):
        a.update()
        b.follow()
    b.update()
    a.follow()
    agree(a, b)
    assert a.epochs == (4, 2) and b.epochs == (2, 4) and a.state["count"] == b.state["count"] == 1
    a.update()
    b.follow()
    assert a.epochs[0] == b.epochs[1] == 5


# --- how ---


def test_messages_are_there_only_while_they_mean_something():
    a, b = two()
    assert a.write() is None and b.write() is None
    a.ask(b.static, b"e" * 32)
    first = a.write()
    assert first[:2] == b"\x1e\1" and len(first) == 98 and a.write() == first
    b.handle_init(*message(first))
    assert b.write() is None
    b.answer(a.static, b"f" * 32)
    second = b.write()
    assert second[:2] == b"\x1f\1" and len(second) == 50 and b.write() == second
    a.handle_answer(*message(second))
    assert a.write() is None
    b.follow()
    assert b.write() is None


def test_a_repeated_first_message_changes_nothing():
    a, b = two()
    a.ask(b.static, b"e" * 32)
    first = message(a.write())
    b.handle_init(*first)
    assert b.handle_init(*first) == 0 and b.state["state"] == "asked"
    b.answer(a.static, b"f" * 32)
    answer, secrets = b.write(), b.secrets
    assert b.handle_init(*first) == 0 and b.state["state"] == "answering"
    assert b.write() == answer and b.secrets == secrets
    assert b.handle_init(first[0], bytes(96)) == PROTOCOL


def test_a_repeated_answer_changes_nothing():
    a, b = two()
    a.ask(b.static, b"e" * 32)
    b.handle_init(*message(a.write()))
    b.answer(a.static, b"f" * 32)
    answer = message(b.write())
    a.handle_answer(*answer)
    secrets = a.secrets
    assert a.handle_answer(*answer) == 0 and a.handle_answer(answer[0], bytes(48)) == 0
    assert a.secrets == secrets and a.state["state"] == "turning"
    a.turn()
    turned = a.secrets
    assert a.handle_answer(*answer) == 0 and a.secrets == turned and a.state["state"] == "waiting"


def test_the_old_and_the_too_new_are_told_apart():
    a, b = two()
    a.update()
    b.follow()
    assert b.handle_init(1, bytes(96)) == 0 and b.handle_init(0, bytes(96)) == 0
    assert b.handle_init(3, bytes(96)) == PROTOCOL and b.state["state"] == "idle" and not b.state["has_exchange"]
    assert a.handle_answer(0, bytes(48)) == 0 and a.handle_answer(1, bytes(48)) == PROTOCOL
    assert a.handle_init(1, bytes(96)) == PROTOCOL and b.handle_answer(1, bytes(48)) == PROTOCOL


def test_a_peer_that_goes_on_with_old_keys_breaks_its_promise():
    a, b = two()
    a.ask(b.static, b"e" * 32)
    b.handle_init(*message(a.write()))
    b.follow()
    assert b.answer(a.static, b"f" * 32) == PROTOCOL


def test_another_static_key_is_refused():
    a, b = two()
    a.ask(b.static, b"e" * 32)
    b.handle_init(*message(a.write()))
    before = b.secrets
    assert b.answer(b"\5" * 32, b"f" * 32) == IDENTITY and b.secrets == before


def test_the_responder_counts_the_time_between_questions():
    a, b = two()
    agree(a, b, 5 * SECOND)
    a.ask(b.static, b"z" * 32)
    question = message(a.write())
    assert b.handle_init(*question, 6 * SECOND - 1) == PROTOCOL and not b.state["has_exchange"]
    assert b.handle_init(*question, 6 * SECOND) == 0


def test_each_step_is_tried_three_times():
    a, b = two()
    a.ask(b.static, b"e" * 32, 10 * SECOND)
    assert a.state["deadline_ns"] == 30 * SECOND
    assert a.timeout(30 * SECOND) and a.state["deadline_ns"] == 50 * SECOND
    assert a.timeout(90 * SECOND) and a.state["deadline_ns"] == 110 * SECOND, "after a suspension there is time as well"
    assert not a.timeout(110 * SECOND)


def test_a_step_waits_as_long_as_nothing_comes_from_the_peer():
    a, b = two()
    a.ask(b.static, b"e" * 32, 10 * SECOND)
    for _ in range(10):
        now_ns = a.state["deadline_ns"]
        assert a.timeout(now_ns, heard_ns=10 * SECOND - 1)
    assert a.timeout(now_ns + 20 * SECOND, heard_ns=now_ns)
    assert a.timeout(now_ns + 40 * SECOND, heard_ns=now_ns + 20 * SECOND)
    assert not a.timeout(now_ns + 60 * SECOND, heard_ns=now_ns + 40 * SECOND)
