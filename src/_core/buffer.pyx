"""The bytes of a stream while they wait: to be acknowledged on one side, to be read on the other.

Both are addressed by stream offset. What is to be sent is a queue of chunks, copied from the application or lent by it
(send_array). What has been received lies in equal blocks at its own offset, so that a fragment costs one copy wherever
it belongs, memory never exceeds the window the peer was given and a block for each stream, and of overlapping fragments
the first one stays.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from interpeer._core.rangeset cimport (
    RANGES_FULL, RANGES_OK, ranges_add, ranges_drop_lowest, ranges_free, ranges_init, ranges_search)
from interpeer._core.slab cimport Pool, pool_give, pool_take

cdef enum:
    FIRST_CHUNKS = 4
    FIRST_SLOTS = 4


# --- sending ---

cdef void send_buffer_init(SendBuffer *b, BlockPools *pools) noexcept nogil:
    memset(b, 0, sizeof(SendBuffer))
    b.pools = pools


cdef inline Chunk *chunk_at(const SendBuffer *b, uint32_t i) noexcept nogil:
    return &b.chunks[(b.first + i) & (b.capacity - 1)]


cdef inline Pool *pool_of(const SendBuffer *b, uint32_t capacity) noexcept nogil:
    return &b.pools.large if capacity == LARGE_BLOCK - HEADROOM else &b.pools.small


cdef void send_buffer_clear(SendBuffer *b) noexcept nogil:
    """Forget everything that is kept; offsets stay."""
    send_buffer_release(b, b.end)
    free(b.chunks)
    b.chunks = NULL
    b.capacity = 0
    b.first = 0


cdef Chunk *add_chunk(SendBuffer *b) noexcept nogil:
    cdef uint32_t capacity, i
    cdef Chunk *grown
    if b.count == b.capacity:
        capacity = b.capacity * 2 if b.capacity else FIRST_CHUNKS
        grown = <Chunk *>malloc(capacity * sizeof(Chunk))
        if grown == NULL:
            return NULL
        for i in range(b.count):
            grown[i] = chunk_at(b, i)[0]
        free(b.chunks)
        b.chunks = grown
        b.capacity = capacity
        b.first = 0
    b.count += 1
    return chunk_at(b, b.count - 1)


cdef uint64_t send_buffer_append(SendBuffer *b, const uint8_t *data, uint64_t n) noexcept nogil:
    """Copy `n` bytes behind what is there. Return how many were taken: all, or fewer without memory."""
    cdef uint64_t taken = 0, room
    cdef Chunk *c = chunk_at(b, b.count - 1) if b.count else NULL
    cdef uint8_t *block
    cdef uint32_t capacity
    while taken < n:
        if c == NULL or c.bytes >= c.capacity:
            capacity = (LARGE_BLOCK if n - taken > SMALL_BLOCK else SMALL_BLOCK) - HEADROOM
            block = <uint8_t *>pool_take(pool_of(b, capacity))
            if block == NULL:
                break
            c = add_chunk(b)
            if c == NULL:
                pool_give(pool_of(b, capacity), block)
                break
            c.offset = b.end
            c.bytes = 0
            c.block = block
            c.data = block + HEADROOM
            c.capacity = capacity
        room = c.capacity - c.bytes
        if room > n - taken:
            room = n - taken
        memcpy(c.data + c.bytes, data + taken, room)
        c.bytes += room
        b.end += room
        taken += room
    return taken


cdef enum:
    DRAFT_BYTES = LARGE_BLOCK - HEADROOM


cdef int draft_take(Draft *d, BlockPools *pools, uint64_t n) noexcept nogil:
    """Take blocks for so many bytes. Return BUFFER_OK or BUFFER_NO_MEMORY."""
    cdef uint32_t wanted = <uint32_t>((n + DRAFT_BYTES - 1) // DRAFT_BYTES)
    d.bytes = n
    d.count = 0
    d.attached = 0
    d.blocks = <uint8_t **>malloc(wanted * sizeof(uint8_t *))
    while d.blocks != NULL and d.count < wanted:
        d.blocks[d.count] = <uint8_t *>pool_take(&pools.large)
        if d.blocks[d.count] == NULL:
            draft_give(d, pools)
            return BUFFER_NO_MEMORY
        d.count += 1
    return BUFFER_OK if d.blocks != NULL else BUFFER_NO_MEMORY


cdef inline uint64_t draft_bytes_of(const Draft *d, uint32_t i) noexcept nogil:
    return DRAFT_BYTES if i + 1 < d.count else d.bytes - <uint64_t>i * DRAFT_BYTES


cdef void draft_fill(Draft *d, const uint8_t *data) noexcept nogil:
    """Copy the bytes. Nobody else knows of the blocks: this is the part that needs no lock."""
    cdef uint32_t i
    for i in range(d.count):
        memcpy(d.blocks[i] + HEADROOM, data + <uint64_t>i * DRAFT_BYTES, draft_bytes_of(d, i))


cdef int send_buffer_attach(SendBuffer *b, Draft *d) noexcept nogil:
    """Put what was copied behind what is there. Return BUFFER_OK, or BUFFER_NO_MEMORY when a part of it is not."""
    cdef Chunk *c
    while d.attached < d.count:
        c = add_chunk(b)
        if c == NULL:
            return BUFFER_NO_MEMORY
        c.offset = b.end
        c.bytes = draft_bytes_of(d, d.attached)
        c.block = d.blocks[d.attached]
        c.data = c.block + HEADROOM
        c.capacity = DRAFT_BYTES
        b.end += c.bytes
        d.attached += 1
    return BUFFER_OK


cdef void draft_give(Draft *d, BlockPools *pools) noexcept nogil:
    """Give back what was not attached."""
    while d.count > d.attached:
        d.count -= 1
        pool_give(&pools.large, d.blocks[d.count])
    free(d.blocks)
    d.blocks = NULL


cdef int send_buffer_lend(SendBuffer *b, const uint8_t *data, uint64_t n) noexcept nogil:
    """Queue memory of the application without a copy; it must stay as it is until `start` has passed it."""
    cdef Chunk *c
    if n == 0:
        return BUFFER_OK            # a chunk of nothing would never be passed
    c = add_chunk(b)
    if c == NULL:
        return BUFFER_NO_MEMORY
    c.offset = b.end
    c.bytes = n
    c.data = <uint8_t *>data
    c.block = NULL
    c.capacity = 0
    b.end += n
    return BUFFER_OK


cdef Chunk *find_chunk(SendBuffer *b, uint64_t offset) noexcept nogil:
    """Return the chunk that holds the byte at `offset`; NULL where none does."""
    cdef uint32_t i = b.hint, low, high
    cdef Chunk *c
    if offset < b.start or offset >= b.end:
        return NULL
    if i < b.count:
        c = chunk_at(b, i)
        if offset >= c.offset + c.bytes and i + 1 < b.count:
            i += 1
            c = chunk_at(b, i)
    if i >= b.count or not c.offset <= offset < c.offset + c.bytes:
        low, high = 0, b.count - 1
        while low < high:
            i = (low + high + 1) >> 1
            if chunk_at(b, i).offset <= offset:
                low = i
            else:
                high = i - 1
        i = low
        c = chunk_at(b, i)
    b.hint = i
    return c


cdef uint64_t send_buffer_at(SendBuffer *b, uint64_t offset, const uint8_t **data) noexcept nogil:
    """Point `data` at the byte at `offset` and return how many follow in one piece; 0 past the end."""
    cdef Chunk *c = find_chunk(b, offset)
    if c == NULL:
        return 0
    data[0] = c.data + (offset - c.offset)
    return c.offset + c.bytes - offset


cdef uint8_t *send_buffer_own(SendBuffer *b, uint64_t offset, uint64_t n) noexcept nogil:
    """Return where `n` bytes from `offset` on lie in one piece of our own memory, with HEADROOM of it before; or NULL."""
    cdef Chunk *c = find_chunk(b, offset)
    if c == NULL or c.block == NULL or offset + n > c.offset + c.bytes:
        return NULL
    return c.data + (offset - c.offset)


cdef void send_buffer_release(SendBuffer *b, uint64_t offset) noexcept nogil:
    """Let go of the chunks that lie wholly below `offset`: everything there is acknowledged."""
    cdef Chunk *c
    if offset <= b.start:
        return
    b.start = offset
    while b.count:
        c = chunk_at(b, 0)
        if c.offset + c.bytes > offset:
            return
        if c.block != NULL:
            pool_give(pool_of(b, c.capacity), c.block)
        b.first = (b.first + 1) & (b.capacity - 1)
        b.count -= 1
        if b.hint:
            b.hint -= 1


# --- receiving ---

cdef void recv_buffer_init(RecvBuffer *b, BlockPools *pools, uint32_t max_gaps) noexcept nogil:
    memset(b, 0, sizeof(RecvBuffer))
    b.pools = pools
    ranges_init(&b.beyond, max_gaps)


cdef void recv_buffer_clear(RecvBuffer *b) noexcept nogil:
    """Forget everything that has not been read."""
    drop_slots(b)
    ranges_free(&b.beyond)


cdef void drop_slots(RecvBuffer *b) noexcept nogil:
    cdef uint32_t i
    for i in range(b.slots):
        pool_give(&b.pools.small, b.blocks[i])
    free(b.blocks)
    b.blocks = NULL
    b.slots = 0


cdef int grow_slots(RecvBuffer *b, uint64_t blocks) noexcept nogil:
    """Make the ring hold `blocks` blocks from the one that is being read."""
    cdef uint32_t slots = b.slots if b.slots else FIRST_SLOTS
    cdef uint64_t first = b.read // SMALL_BLOCK, i
    cdef uint8_t **grown
    while slots < blocks:
        slots *= 2
    if slots == b.slots:
        return BUFFER_OK
    grown = <uint8_t **>calloc(slots, sizeof(uint8_t *))
    if grown == NULL:
        return BUFFER_NO_MEMORY
    for i in range(first, first + b.slots):
        grown[i & (slots - 1)] = b.blocks[i & (b.slots - 1)]
    free(b.blocks)
    b.blocks = grown
    b.slots = slots
    return BUFFER_OK


cdef int copy_in(RecvBuffer *b, uint64_t offset, const uint8_t *data, uint64_t n) noexcept nogil:
    """Copy to where the bytes belong; the ring is large enough."""
    cdef uint64_t within, step
    cdef uint8_t **block
    while n:
        block = &b.blocks[(offset // SMALL_BLOCK) & (b.slots - 1)]
        if block[0] == NULL:
            block[0] = <uint8_t *>pool_take(&b.pools.small)
            if block[0] == NULL:
                return BUFFER_NO_MEMORY
        within = offset % SMALL_BLOCK
        step = SMALL_BLOCK - within
        if step > n:
            step = n
        memmove(block[0] + within, data, step)      # not memcpy: gcc would inline it as a slow rep movs
        offset += step
        data += step
        n -= step
    return BUFFER_OK


cdef int recv_buffer_write(RecvBuffer *b, uint64_t offset, const uint8_t *data, uint64_t n) noexcept nogil:
    """Keep a fragment; what has been received before stays as it is. The caller has checked the window.

    Return BUFFER_OK, BUFFER_GAPS (nothing kept) or BUFFER_NO_MEMORY (the fragment counts as not received)."""
    cdef uint64_t end = offset + n, at, stop
    cdef uint32_t i
    if n == 0 or end <= b.ready:
        return BUFFER_OK
    if offset < b.ready:
        data += b.ready - offset
        offset = b.ready
    if b.posted != NULL and offset == b.ready and b.read == b.ready and b.beyond.count == 0:
        stop = min_u64(end - offset, b.posted_bytes - b.posted_filled)
        memmove(b.posted + b.posted_filled, data, stop)
        b.posted_filled += stop
        b.read += stop
        b.ready += stop
        if b.ready == end:
            return BUFFER_OK
        data += stop
        offset += stop
    if make_slots(b, end) != BUFFER_OK:
        return BUFFER_NO_MEMORY
    if b.beyond.count == 0 and offset == b.ready:
        if copy_in(b, offset, data, end - offset) != BUFFER_OK:
            return BUFFER_NO_MEMORY
        b.ready = end
        return BUFFER_OK
    # copy what lies between the ranges that are there already
    at = offset
    i = ranges_search(&b.beyond, at)
    while at < end:
        if i < b.beyond.count and b.beyond.ranges[i].start <= at:
            at = b.beyond.ranges[i].end
            i += 1
            continue
        stop = b.beyond.ranges[i].start if i < b.beyond.count and b.beyond.ranges[i].start < end else end
        if copy_in(b, at, data + (at - offset), stop - at) != BUFFER_OK:
            return BUFFER_NO_MEMORY
        at = stop
    return note_received(b, offset, end)


cdef int make_slots(RecvBuffer *b, uint64_t end) noexcept nogil:
    """See that the ring has a slot for every block up to `end`."""
    cdef uint64_t blocks = (end - 1) // SMALL_BLOCK - b.read // SMALL_BLOCK + 1
    return grow_slots(b, blocks) if blocks > b.slots else BUFFER_OK


cdef int note_received(RecvBuffer *b, uint64_t offset, uint64_t end) noexcept nogil:
    """Count a range as received, which does not begin below `ready`."""
    cdef int result
    if offset == b.ready:
        b.ready = end
    else:
        result = ranges_add(&b.beyond, offset, end)
        if result != RANGES_OK:
            return BUFFER_GAPS if result == RANGES_FULL else BUFFER_NO_MEMORY
    while b.beyond.count and b.beyond.ranges[0].start <= b.ready:
        if b.beyond.ranges[0].end > b.ready:
            b.ready = b.beyond.ranges[0].end
        ranges_drop_lowest(&b.beyond)
    return BUFFER_OK


cdef inline uint64_t min_u64(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef void recv_buffer_post(RecvBuffer *b, uint8_t *out, uint64_t n) noexcept nogil:
    """Let what comes in order go straight to a reader's memory. Only while nothing waits to be read."""
    b.posted = out
    b.posted_bytes = n
    b.posted_filled = 0


cdef uint64_t recv_buffer_unpost(RecvBuffer *b) noexcept nogil:
    """Take the reader's memory back; return how many bytes have come. They count as read."""
    cdef uint64_t filled = b.posted_filled
    b.posted = NULL
    b.posted_bytes = 0
    b.posted_filled = 0
    return filled


cdef uint64_t recv_buffer_read(RecvBuffer *b, uint8_t *out, uint64_t n) noexcept nogil:
    """Copy up to `n` bytes in order to `out` (NULL: only step over them). Return how many; emptied blocks are freed."""
    cdef uint64_t done = 0, within, step
    cdef uint8_t **block
    if n > b.ready - b.read:
        n = b.ready - b.read
    while done < n:
        block = &b.blocks[(b.read // SMALL_BLOCK) & (b.slots - 1)]
        within = b.read % SMALL_BLOCK
        step = SMALL_BLOCK - within
        if step > n - done:
            step = n - done
        if out != NULL:
            memmove(out + done, block[0] + within, step)
        b.read += step
        done += step
        if b.read % SMALL_BLOCK == 0 or (b.read == b.ready and b.beyond.count == 0):
            # an empty buffer keeps no block; what comes next takes one again at the same offset
            pool_give(&b.pools.small, block[0])
            block[0] = NULL
    if b.read == b.ready and b.beyond.count == 0 and b.slots > FIRST_SLOTS:
        drop_slots(b)
    return done


# --- messages, which may be read out of order ---

cdef bint recv_buffer_has(const RecvBuffer *b, uint64_t start, uint64_t end) noexcept nogil:
    """Tell whether all of a range, which is not empty and not read, has been received."""
    cdef uint32_t i
    if end <= b.ready:
        return True
    i = ranges_search(&b.beyond, start)
    return i < b.beyond.count and b.beyond.ranges[i].start <= start and end <= b.beyond.ranges[i].end


cdef int recv_buffer_skip(RecvBuffer *b, uint64_t start, uint64_t end) noexcept nogil:
    """Count a range as received that will never come, and keep no memory for it. Results as of recv_buffer_write."""
    if start < b.ready:
        start = b.ready
    if start >= end:
        return BUFFER_OK
    if make_slots(b, end) != BUFFER_OK:
        return BUFFER_NO_MEMORY
    return note_received(b, start, end)


cdef void recv_buffer_copy(const RecvBuffer *b, uint64_t offset, uint8_t *out, uint64_t n) noexcept nogil:
    """Copy a range that has come and is not read; it stays. What was skipped reads as zeros."""
    cdef uint64_t within, step
    cdef const uint8_t *block
    while n:
        within = offset % SMALL_BLOCK
        step = min_u64(SMALL_BLOCK - within, n)
        block = b.blocks[(offset // SMALL_BLOCK) & (b.slots - 1)]
        if block == NULL:
            memset(out, 0, step)
        else:
            memmove(out, block + within, step)
        offset += step
        out += step
        n -= step


cdef void recv_buffer_change(RecvBuffer *b, uint64_t offset, const uint8_t *data, uint64_t n) noexcept nogil:
    """Write over bytes that have come and are not read; not over what was skipped."""
    cdef uint64_t i
    cdef uint8_t *block
    for i in range(offset, offset + n):
        block = b.blocks[(i // SMALL_BLOCK) & (b.slots - 1)]
        if block != NULL:
            block[i % SMALL_BLOCK] = data[i - offset]
