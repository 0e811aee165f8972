"""What relaying is made of: the rate of a pair, and the queue of what is being forwarded."""

import random

import pytest

from interpeer._core.probe_relay import QUEUE_BYTES, QUEUE_RUNS, Bucket, Queue

SECOND = 10**9
START = 1000 * SECOND


# --- a pair's rate ---


def test_the_burst_passes_at_once_and_no_more():
    bucket = Bucket(1000.0, 5000.0)
    assert bucket.admit(6000, 1000, START) == 5000
    assert bucket.admit(1000, 1000, START) == 0


def test_the_rate_refills_the_burst_and_not_more():
    bucket = Bucket(1000.0, 5000.0)
    bucket.admit(5000, 1000, START)
    assert bucket.admit(5000, 1000, START + 2 * SECOND) == 2000
    assert bucket.admit(9000, 1000, START + 10_000 * SECOND) == 5000


def test_whole_packets_pass_and_a_shorter_last_one_counts_as_what_it_is():
    bucket = Bucket(1.0, 2500.0)
    assert bucket.admit(3000, 1000, START) == 2000
    assert bucket.admit(500, 1000, START) == 500
    assert bucket.admit(1, 1, START) == 0


def test_without_a_limit_everything_passes_up_to_the_burst_at_any_time():
    bucket = Bucket(float("inf"), 65536.0)
    for n in range(3):
        assert bucket.admit(65_000, 1300, START + n) == 65_000
    assert bucket.admit(65_000, 1300, START + 2) == 0


def test_time_that_stands_still_or_goes_back_gives_nothing():
    bucket = Bucket(1e9, 1000.0)
    bucket.admit(1000, 1000, START)
    assert bucket.admit(1000, 1000, START) == 0
    assert bucket.admit(1000, 1000, START - SECOND) == 0


# --- the queue ---


def drained(queue):
    found = []
    while (taken := queue.take()) is not None:
        found.append(taken)
    return found


def test_packets_that_come_one_by_one_leave_as_one_message():
    queue = Queue()
    for byte in b"abc":
        assert queue.push(bytes([byte]) * 100, 100) == 100
    assert queue.push(b"d" * 40, 40) == 40  # of another size
    assert drained(queue) == [(b"a" * 100 + b"b" * 100 + b"c" * 100, 100, 1, 0), (b"d" * 40, 40, 1, 0)]


@pytest.mark.parametrize("other", [{"leg": 2}, {"ecn": 3}])
def test_packets_of_another_leg_or_with_another_mark_are_messages_of_their_own(other):
    queue = Queue()
    queue.push(b"a" * 100, 100)
    queue.push(b"b" * 100, 100, **other)
    assert [taken[0] for taken in drained(queue)] == [b"a" * 100, b"b" * 100]


def test_nothing_is_glued_to_a_run_whose_last_packet_is_short():
    queue = Queue()
    queue.push(b"a" * 150, 100)
    queue.push(b"b" * 100, 100)
    assert len(drained(queue)) == 2


def test_nothing_is_glued_to_what_is_being_sent():
    queue = Queue()
    queue.push(b"a" * 100, 100)
    assert queue.take()[0] == b"a" * 100
    queue.push(b"b" * 100, 100)
    assert queue.peek_again(0) == b"a" * 100
    assert queue.take()[0] == b"b" * 100


@pytest.mark.parametrize(("segment", "packets"), [(10, 200), (1000, 100), (65_507, 2)])
def test_a_run_is_cut_where_a_message_is_full(segment, packets):
    queue, data = Queue(), random.Random(1).randbytes(segment * packets)
    assert queue.push(data, segment) == len(data)
    found = drained(queue)
    assert b"".join(taken[0] for taken in found) == data
    assert all(len(taken[0]) <= 65_507 and len(taken[0]) <= 64 * segment for taken in found)
    assert len(found) > 1


def test_what_does_not_fit_is_refused_and_there_is_room_again_when_it_was_sent():
    queue = Queue()
    sizes = [queue.push(bytes([n]) * 60_000, 60_000) for n in range(30)]
    assert sum(sizes) == QUEUE_BYTES // 60_000 * 60_000
    queue.take()
    assert queue.push(b"x" * 60_000, 60_000) == 0, "it is being sent, and not released"
    queue.release()
    assert queue.push(b"x" * 50_000, 50_000) == 50_000


def test_there_are_no_more_runs_than_are_counted():
    queue = Queue()
    assert sum(queue.push(b"a" * 10, 10, leg=n) for n in range(2 * QUEUE_RUNS)) == 10 * QUEUE_RUNS
    assert len(drained(queue)) == QUEUE_RUNS
    queue.release()
    assert not queue.waits and queue.push(b"a" * 10, 10) == 10


def test_whatever_comes_and_goes_is_kept_in_order_and_whole(seed):
    """Against a list: pushes, messages taken and kept until they are released, in any order."""
    chance, queue = random.Random(seed), Queue()
    expected, held, pushed = [], [], 0
    for step in range(20_000):
        what = chance.random()
        if what < 0.5:
            segment = chance.choice([50, 1200, 1208, 9000, 65_000])
            data = step.to_bytes(4, "big") * (segment * chance.randint(1, max(1, 60_000 // segment)) // 4)
            leg = chance.randint(1, 3)
            taken = queue.push(data, segment, leg=leg)
            assert taken % segment == 0 or taken == len(data)
            pushed += taken
            if taken:
                expected.append((leg, data[:taken]))
        elif what < 0.9:
            found = queue.take()
            if found is None:
                assert not queue.waits
                continue
            data, leg = found[0], found[2]
            held.append(data)
            while data:  # a message may hold several pushes, or a part of one
                of_leg, first = expected[0]
                assert of_leg == leg and (first.startswith(data) or data.startswith(first))
                n = min(len(first), len(data))
                data = data[n:]
                expected[0] = of_leg, first[n:]
                if not expected[0][1]:
                    expected.pop(0)
        else:
            for back, data in enumerate(reversed(held)):
                assert queue.peek_again(back) == data
            queue.release()
            held.clear()
    assert pushed > 10 * QUEUE_BYTES
