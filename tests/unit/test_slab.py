"""Pools of equal blocks, and the batches."""

import gc

import pytest

from interpeer._core import probe_channel, probe_memory, probe_transport


def test_block_given_back_is_used_again():
    pool = probe_memory.Blocks(64, 4)
    first = pool.take()
    pool.give(first)
    assert pool.take() == first and pool.live == 1


def test_no_more_blocks_are_kept_than_asked_for():
    pool = probe_memory.Blocks(64, 4)
    taken = [pool.take() for _ in range(10)]
    assert len(set(taken)) == 10 and pool.live == 10
    for block in taken:
        pool.give(block)
    assert (pool.live, pool.kept) == (0, 4)
    pool.trim()
    assert pool.kept == 0
    pool.give(pool.take())
    assert (pool.live, pool.kept) == (0, 1)


def test_giving_nothing_changes_nothing():
    pool = probe_memory.Blocks(64, 4)
    pool.take()
    pool.give_nothing()
    assert (pool.live, pool.kept) == (1, 0)


def blocks():
    pool = probe_memory.Blocks(64, 4)
    for _ in range(20):
        pool.take()
    return pool


def outgoing():
    buffer = probe_memory.Outgoing(probe_memory.Pools())
    buffer.append(bytes(10_000))
    return buffer


def incoming():
    buffer = probe_memory.Incoming(probe_memory.Pools(), 4)
    buffer.write(100, bytes(10_000))
    return buffer


def courier():
    channel = probe_channel.Courier()
    channel.send(bytes(10_000))
    return channel


def flow():
    stream = probe_transport.Flow()
    stream.write(bytes(10_000))
    return stream


@pytest.mark.parametrize("make", [blocks, outgoing, incoming, courier, flow])
def test_what_holds_blocks_may_be_part_of_a_cycle(make):
    """The collector clears what it finds, and destructors run afterwards: they must not need what was cleared."""
    cycle = [make()]
    cycle.append(cycle)
    del cycle
    assert gc.collect() > 0


def test_batches_own_every_byte_they_promise():
    slots, slot_bytes, send_bytes, cleared = probe_memory.use_batches()
    assert slots * slot_bytes == 1 << 20 and slot_bytes > 65507 and send_bytes >= 4 * 65507
    assert cleared == (0, 0, 0, 0)
