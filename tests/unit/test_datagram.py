"""Bounded queues of datagrams."""

import pytest

from interpeer._core.probe_memory import Queue


def test_messages_come_out_as_they_went_in():
    queue = Queue(4096)
    messages = [b"", b"x", b"yy" * 600, b""]
    assert all(queue.push(message) for message in messages)
    assert [queue.pop() for _ in range(5)] == [*messages, None]


def test_ring_wraps_anywhere():
    """Every position of a message and of its length against the ring's end."""
    for shift in range(64):
        queue, expected = Queue(4096), []
        queue.push(bytes(4096 - 64 + shift - 4))
        queue.pop()
        for i in range(30):
            message = bytes([i]) * i
            assert queue.push(message)
            expected.append(message)
        assert [queue.pop() for _ in expected] == expected


def test_what_does_not_fit_is_refused_and_what_waits_stays():
    queue = Queue(4096)
    assert queue.push(bytes(2000)) and queue.push(bytes(2000)) and not queue.push(bytes(85))
    assert queue.push(bytes(84)) and queue.used == 4096
    assert not queue.push(b"")
    assert len(queue) == 3 and queue.dropped == 0
    assert not Queue(4096).push(bytes(4093))


@pytest.mark.row("S13")
def test_oldest_message_gives_way_and_is_counted():
    queue = Queue(4096)
    for i in range(100):
        assert queue.push_dropping(bytes([i]) * 996)
    assert queue.dropped == 96
    assert [queue.pop()[0] for _ in range(4)] == [96, 97, 98, 99]
    assert not queue.push_dropping(bytes(4093)) and queue.dropped == 97


@pytest.mark.parametrize(("asked", "limit"), [(0, 4096), (4096, 4096), (4097, 8192), (2**31, 2**31)])
def test_limit_is_rounded_up_to_a_power_of_two(asked, limit):
    queue = Queue(asked)
    assert queue.limit == limit and queue.capacity == 0


@pytest.mark.parametrize("asked", [2**31 + 1, 2**32 - 1, 2**32, 2**64 - 1])
def test_limit_beyond_two_gibibytes_is_cut(asked):
    assert Queue(asked).limit == 2**31


def test_empty_queue_gives_its_memory_back_when_asked():
    queue = Queue(65536)
    queue.push(bytes(10_000))
    queue.trim()
    assert queue.capacity == 16384 and queue.pop() == bytes(10_000)
    queue.trim()
    assert queue.capacity == 0 and queue.push(b"again") and queue.pop() == b"again"
