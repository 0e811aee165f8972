"""Frames, and what keeps numbers: ranges, replay window, table, timers."""

import pytest

from interpeer._core import probe_loops


def varint(value: int) -> bytes:
    return value.to_bytes(1, "big") if value < 64 else (value | 0x4000).to_bytes(2, "big")


def numbers(*values: int) -> bytes:
    return b"".join(map(varint, values))


PAYLOADS = {  # by what they have: bytes, and how many frames
    "stream": (numbers(0x0E, 4, 5000, 1000) + bytes(1000), 1),
    "datagrams": (16 * (numbers(0x17, 64) + bytes(64)), 16),
    "ack": (numbers(0x02, 0, 9000, 100, 0, 500), 1),
    "ack-32": (numbers(0x02, 0, 9000, 100, 31, 5) + 31 * numbers(2, 3), 1),
}


# --- frames ---


@pytest.mark.parametrize("payload", PAYLOADS)
def test_parse_frames(repeat, payload):
    content, frames = PAYLOADS[payload]
    repeat(lambda n: probe_loops.parse_payload(content, n) // frames * n)


@pytest.mark.parametrize("ranges", [1, 32])
def test_write_ack(repeat, ranges):
    repeat(lambda n: probe_loops.write_ack(ranges, n))


# --- ranges and replay ---


@pytest.mark.parametrize("order", ["in_order", "with_gaps", "swapped"])
def test_add_to_ranges(repeat, order):
    repeat(getattr(probe_loops, f"ranges_{order}"))


def test_replay_window_in_order(repeat):
    repeat(probe_loops.replay_in_order)


# --- table and timers ---

sizes = pytest.mark.parametrize("size", [100, 100_000])


@sizes
def test_find_in_table(repeat, size):
    repeat(probe_loops.Lookup(size).find)


@sizes
def test_put_in_table_and_remove(repeat, size):
    repeat(probe_loops.Lookup(size).put_and_remove)


@sizes
def test_move_a_timer(repeat, size):
    repeat(probe_loops.Deadlines(size).move)
