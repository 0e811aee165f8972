"""What the connections of one engine share: limits, counters, memory pools, lists, and random bytes from outside."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from interpeer._core.buffer cimport LARGE_BLOCK, SMALL_BLOCK
from interpeer._core.channel cimport Channel
from interpeer._core.crypto cimport wipe
from interpeer._core.links cimport link_init
from interpeer._core.loss cimport FrameRecord
from interpeer._core.relay cimport relay_free
from interpeer._core.slab cimport pool_free, pool_init
from interpeer._core.stream cimport Stream
from interpeer._core.trace cimport trace_free

cdef enum:                          # free blocks kept for the next use; more go back to the system
    KEEP_SMALL = 1024               # 4 MiB
    KEEP_LARGE = 64                 # 4 MiB
    KEEP_STREAMS = 256
    KEEP_RECORDS = 1024
    KEEP_CHANNELS = 256


cdef void context_init(Context *x) noexcept nogil:
    memset(x, 0, sizeof(Context))
    pool_init(&x.blocks.small, SMALL_BLOCK, KEEP_SMALL)
    pool_init(&x.blocks.large, LARGE_BLOCK, KEEP_LARGE)
    pool_init(&x.streams, sizeof(Stream), KEEP_STREAMS)
    pool_init(&x.records, sizeof(FrameRecord), KEEP_RECORDS)
    pool_init(&x.channels, sizeof(Channel), KEEP_CHANNELS)
    link_init(&x.ready, NULL)
    link_init(&x.eventful, NULL)


cdef void context_free(Context *x) noexcept nogil:
    """Give the pools back. The connections are gone by now."""
    pool_free(&x.blocks.small)
    pool_free(&x.blocks.large)
    pool_free(&x.streams)
    pool_free(&x.records)
    trace_free(x.trace)
    relay_free(x.relay)
    pool_free(&x.channels)
    free(x.spare_packet)
    wipe(&x.entropy, sizeof(Entropy))


cdef int entropy_take(Entropy *e, uint8_t *out, uint32_t n) noexcept nogil:
    """Take `n` bytes that nobody else gets. Return 0, or -1 when there are too few: try again after the next turn."""
    cdef uint8_t *from_
    if n > e.left:
        return -1
    from_ = e.bytes + (ENTROPY_BYTES - e.left)
    memcpy(out, from_, n)
    memset(from_, 0, n)
    e.left -= n
    return 0


cdef uint32_t entropy_add(Entropy *e, const uint8_t *bytes, uint32_t n) noexcept nogil:
    """Add fresh bytes, up to ENTROPY_BYTES in all. Return how many were taken."""
    if n > ENTROPY_BYTES - e.left:
        n = ENTROPY_BYTES - e.left
    memcpy(e.bytes + (ENTROPY_BYTES - e.left - n), bytes, n)
    e.left += n
    return n
