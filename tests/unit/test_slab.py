"""Pools of equal blocks, and the batches."""

from interpeer._core import probe_memory


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


def test_batches_own_every_byte_they_promise():
    slots, slot_bytes, send_bytes, cleared = probe_memory.use_batches()
    assert slots * slot_bytes == 1 << 20 and slot_bytes > 65507 and send_bytes >= 4 * 65507
    assert cleared == (0, 0, 0, 0)
