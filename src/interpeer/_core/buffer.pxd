from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.rangeset cimport RangeSet
from interpeer._core.slab cimport Pool

cdef enum:
    SMALL_BLOCK = 4096              # received data, and small writes
    LARGE_BLOCK = 65536             # writes of more than a few packets
    HEADROOM = 64                   # in front of a chunk's data: a packet's frame headers are put there for sealing
    BUFFER_OK = 0
    BUFFER_NO_MEMORY = -1
    BUFFER_GAPS = -2                # more gaps than are kept

cdef struct BlockPools:             # of an engine; shared by all its buffers
    Pool small
    Pool large


cdef inline uint64_t blocks_bytes(const BlockPools *p) noexcept nogil:
    """Return how much is in use."""
    return <uint64_t>p.small.live * SMALL_BLOCK + <uint64_t>p.large.live * LARGE_BLOCK


cdef struct Chunk:                  # a piece of what is to be sent
    uint64_t offset                 # of its first byte in the stream
    uint64_t bytes
    uint8_t *data
    uint8_t *block                  # HEADROOM before `data`; owned; NULL: lent by the application, not ours to free
    uint32_t capacity               # bytes that fit behind `data`; 0 when lent

cdef struct SendBuffer:             # bytes written and not yet acknowledged
    BlockPools *pools               # not owned
    Chunk *chunks                   # ring, oldest at `first`; owned
    uint32_t first
    uint32_t count
    uint32_t capacity               # a power of two, or 0
    uint32_t hint                   # chunk (counted from `first`) of the last look-up
    uint64_t start                  # offset of the first byte still kept
    uint64_t end                    # offset after the last byte written

cdef struct Draft:                  # bytes for a SendBuffer that are copied while nobody waits for it
    uint8_t **blocks                # LARGE_BLOCKs with HEADROOM; owned until they are attached
    uint32_t count
    uint32_t attached               # of these, from the first on
    uint64_t bytes

cdef struct RecvBuffer:             # bytes received and not yet read
    BlockPools *pools               # not owned
    uint8_t **blocks                # ring of SMALL_BLOCKs by offset, NULL where nothing has come yet; owned
    uint32_t slots                  # a power of two, or 0
    uint64_t read                   # offset of the first byte not yet read
    uint64_t ready                  # everything below has been received
    RangeSet beyond                 # received past `ready`
    uint8_t *posted                 # memory of a reader that waits: what comes in order goes there; NULL: none
    uint64_t posted_bytes           # its size
    uint64_t posted_filled

cdef void send_buffer_init(SendBuffer *b, BlockPools *pools) noexcept nogil
cdef void send_buffer_clear(SendBuffer *b) noexcept nogil
cdef uint64_t send_buffer_append(SendBuffer *b, const uint8_t *data, uint64_t n) noexcept nogil
cdef int send_buffer_lend(SendBuffer *b, const uint8_t *data, uint64_t n) noexcept nogil
cdef int send_buffer_attach(SendBuffer *b, Draft *d) noexcept nogil
cdef int draft_take(Draft *d, BlockPools *pools, uint64_t n) noexcept nogil
cdef void draft_fill(Draft *d, const uint8_t *data) noexcept nogil
cdef void draft_give(Draft *d, BlockPools *pools) noexcept nogil
cdef uint64_t send_buffer_at(SendBuffer *b, uint64_t offset, const uint8_t **data) noexcept nogil
cdef uint8_t *send_buffer_own(SendBuffer *b, uint64_t offset, uint64_t n) noexcept nogil
cdef void send_buffer_release(SendBuffer *b, uint64_t offset) noexcept nogil

cdef void recv_buffer_init(RecvBuffer *b, BlockPools *pools, uint32_t max_gaps) noexcept nogil
cdef void recv_buffer_clear(RecvBuffer *b) noexcept nogil
cdef int recv_buffer_write(RecvBuffer *b, uint64_t offset, const uint8_t *data, uint64_t n) noexcept nogil
cdef void recv_buffer_post(RecvBuffer *b, uint8_t *out, uint64_t n) noexcept nogil
cdef uint64_t recv_buffer_unpost(RecvBuffer *b) noexcept nogil
cdef uint64_t recv_buffer_read(RecvBuffer *b, uint8_t *out, uint64_t n) noexcept nogil
cdef bint recv_buffer_has(const RecvBuffer *b, uint64_t start, uint64_t end) noexcept nogil
cdef int recv_buffer_skip(RecvBuffer *b, uint64_t start, uint64_t end) noexcept nogil
cdef void recv_buffer_copy(const RecvBuffer *b, uint64_t offset, uint8_t *out, uint64_t n) noexcept nogil
cdef void recv_buffer_change(RecvBuffer *b, uint64_t offset, const uint8_t *data, uint64_t n) noexcept nogil
