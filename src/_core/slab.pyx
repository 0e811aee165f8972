"""Memory of the hot path: batches of packets, and pools of equal blocks.

Everything here is made once and used again; a packet costs no allocation. A batch is the unit in which packets cross
between system calls (udp), the protocol (engine) and the simulator: an array of messages over one buffer.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef int recv_batch_init(RecvBatch *batch) noexcept nogil:
    """Allocate the buffer; each slot's `data` points at its own SLOT_BYTES. Return 0, or -1 without memory."""
    cdef uint32_t i
    memset(batch, 0, sizeof(RecvBatch))
    batch.buffer = <unsigned char *>malloc(RECV_SLOTS * SLOT_BYTES)
    if batch.buffer == NULL:
        return -1
    for i in range(RECV_SLOTS):
        batch.slots[i].data = batch.buffer + <size_t>i * SLOT_BYTES
    return 0


cdef void recv_batch_free(RecvBatch *batch) noexcept nogil:
    free(batch.buffer)
    memset(batch, 0, sizeof(RecvBatch))


cdef int send_batch_init(SendBatch *batch) noexcept nogil:
    """Allocate the buffer. Return 0, or -1 without memory."""
    memset(batch, 0, sizeof(SendBatch))
    batch.buffer = <unsigned char *>malloc(SEND_BATCH_BYTES + SLOT_BYTES)
    return 0 if batch.buffer != NULL else -1


cdef void send_batch_free(SendBatch *batch) noexcept nogil:
    free(batch.buffer)
    memset(batch, 0, sizeof(SendBatch))


cdef void send_batch_clear(SendBatch *batch) noexcept nogil:
    batch.used = 0
    batch.count = 0
    batch.sent = 0
    batch.run = 0
    batch.too_big = 0


cdef void pool_init(Pool *pool, uint32_t block_bytes, uint32_t keep) noexcept nogil:
    pool.free_blocks = NULL
    pool.block_bytes = block_bytes
    pool.kept = 0
    pool.keep = keep
    pool.live = 0


cdef void *pool_take(Pool *pool) noexcept nogil:
    """Return a block with undefined contents, or NULL without memory."""
    cdef void *block
    if pool.kept:
        pool.kept -= 1
        block = pool.free_blocks[pool.kept]
    else:
        block = malloc(pool.block_bytes)
        if block == NULL:
            return NULL
    pool.live += 1
    return block


cdef void pool_give(Pool *pool, void *block) noexcept nogil:
    if block == NULL:
        return
    pool.live -= 1
    if pool.free_blocks == NULL:
        pool.free_blocks = <void **>malloc(pool.keep * sizeof(void *))
    if pool.kept >= pool.keep or pool.free_blocks == NULL:
        free(block)
        return
    pool.free_blocks[pool.kept] = block
    pool.kept += 1


cdef void pool_free(Pool *pool) noexcept nogil:
    """Give the kept blocks back to the system. Blocks handed out stay their owners'."""
    while pool.kept:
        pool.kept -= 1
        free(pool.free_blocks[pool.kept])
    free(pool.free_blocks)
    pool.free_blocks = NULL
