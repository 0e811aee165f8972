"""Python doors into what keeps things: rangeset, replay, table, timers, slab, buffer, datagram."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from interpeer._core.buffer cimport (
    BUFFER_GAPS, BUFFER_OK, HEADROOM, LARGE_BLOCK, SMALL_BLOCK, RecvBuffer, SendBuffer, recv_buffer_clear,
    recv_buffer_init, recv_buffer_post, recv_buffer_read, recv_buffer_unpost, recv_buffer_write, send_buffer_append,
    send_buffer_at, send_buffer_clear, send_buffer_init, send_buffer_lend, send_buffer_own, send_buffer_release)
from interpeer._core.datagram cimport (
    MESSAGES_OK, Messages, messages_free, messages_init, messages_next_bytes, messages_pop, messages_push,
    messages_push_dropping, messages_trim)
from interpeer._core.probe cimport Exact, exact, room
from interpeer._core.rangeset cimport (
    RANGES_FULL, RangeSet, ranges_add, ranges_contain, ranges_drop_lowest, ranges_free, ranges_init, ranges_remove)
from interpeer._core.replay cimport ReplayWindow, replay_accept, replay_init, replay_is_new
from interpeer._core.slab cimport (
    RECV_SLOTS, SEND_BATCH_BYTES, SLOT_BYTES, Pool, RecvBatch, SendBatch, pool_free, pool_give, pool_init, pool_take,
    recv_batch_free, recv_batch_init, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.table cimport Table, table_find, table_free, table_init, table_put, table_remove
from interpeer._core.timers cimport Timer, Timers, timer_set, timers_due, timers_free, timers_init, timers_next_ns


cdef class Ranges:
    cdef RangeSet set

    def __cinit__(self, uint32_t limit):
        ranges_init(&self.set, limit)

    def __dealloc__(self):
        ranges_free(&self.set)

    def add(self, uint64_t start, uint64_t end):
        """Return whether the set had room."""
        return ranges_add(&self.set, start, end) != RANGES_FULL

    def remove(self, uint64_t start, uint64_t end):
        return ranges_remove(&self.set, start, end) != RANGES_FULL

    def drop_lowest(self):
        ranges_drop_lowest(&self.set)

    def __contains__(self, uint64_t value):
        return bool(ranges_contain(&self.set, value))

    def __iter__(self):
        return iter([(self.set.ranges[i].start, self.set.ranges[i].end) for i in range(self.set.count)])

    @property
    def capacity(self):
        return self.set.capacity


cdef class Replay:
    cdef ReplayWindow window

    def __cinit__(self):
        replay_init(&self.window)

    def is_new(self, uint64_t counter):
        return bool(replay_is_new(&self.window, counter))

    def accept(self, uint64_t counter):
        replay_accept(&self.window, counter)

    @property
    def next(self):
        return self.window.next


cdef class Map:
    """A Table whose values are numbers."""

    cdef Table table

    def __cinit__(self):
        table_init(&self.table, 0)

    def __dealloc__(self):
        table_free(&self.table)

    def find(self, uint64_t key):
        """Return the value; 0 where there is none."""
        return <uintptr_t>table_find(&self.table, key)

    def put(self, uint64_t key, uintptr_t value):
        assert table_put(&self.table, key, <void *>value) == 0

    def remove(self, uint64_t key):
        return <uintptr_t>table_remove(&self.table, key)

    def __len__(self):
        return self.table.count

    @property
    def capacity(self):
        return self.table.capacity


cdef class Clock:
    """Timers by index."""

    cdef Timers timers
    cdef Timer *entries
    cdef readonly uint32_t count

    def __cinit__(self, uint32_t count):
        timers_init(&self.timers)
        self.count = count
        self.entries = <Timer *>calloc(count, sizeof(Timer))
        if self.entries == NULL:
            raise MemoryError
        for i in range(count):
            self.entries[i].owner = &self.entries[i]

    def __dealloc__(self):
        timers_free(&self.timers)
        free(self.entries)

    def set(self, uint32_t index, uint64_t deadline_ns):
        assert index < self.count
        assert timer_set(&self.timers, &self.entries[index], deadline_ns) == 0

    def due(self, uint64_t now_ns):
        """Return the index of a timer whose time has come, or None."""
        cdef Timer *timer = timers_due(&self.timers, now_ns)
        if timer == NULL:
            return None
        assert timer.owner == <void *>timer and timer.deadline_ns == 0 and timer.place == 0
        return timer - self.entries

    @property
    def next_ns(self):
        return timers_next_ns(&self.timers)

    def __len__(self):
        return self.timers.count


cdef class Blocks:
    """A pool; blocks go by their address."""

    cdef Pool pool
    cdef Table blocks               # those that are taken, by their address

    def __cinit__(self, uint32_t block_bytes, uint32_t keep):
        pool_init(&self.pool, block_bytes, keep)
        table_init(&self.blocks, 0)

    def __dealloc__(self):
        for i in range(self.blocks.capacity):
            if self.blocks.keys[i]:
                free(self.blocks.values[i])
        table_free(&self.blocks)
        pool_free(&self.pool)

    @property
    def taken(self):
        """Return the addresses of the blocks that were not given back."""
        return {self.blocks.keys[i] for i in range(self.blocks.capacity) if self.blocks.keys[i]}

    def take(self):
        cdef void *block = pool_take(&self.pool)
        assert block != NULL and table_find(&self.blocks, <uintptr_t>block) == NULL
        memset(block, 0x5A, self.pool.block_bytes)
        assert table_put(&self.blocks, <uintptr_t>block, block) == 0
        return <uintptr_t>block

    def give(self, uintptr_t block):
        assert table_remove(&self.blocks, block) != NULL
        pool_give(&self.pool, <void *>block)

    def give_nothing(self):
        pool_give(&self.pool, NULL)

    def trim(self):
        pool_free(&self.pool)

    @property
    def kept(self):
        return self.pool.kept

    @property
    def live(self):
        return self.pool.live


def use_batches():
    """Fill every byte that the batches own, so that a sanitizer sees it if one is missing; return the sizes."""
    cdef RecvBatch received
    cdef SendBatch sent
    assert recv_batch_init(&received) == 0 and send_batch_init(&sent) == 0
    for i in range(RECV_SLOTS):
        memset(received.slots[i].data, 1, SLOT_BYTES)
    memset(sent.buffer, 1, SEND_BATCH_BYTES + SLOT_BYTES)
    sent.used, sent.count, sent.sent, sent.run = 1, 2, 3, 4
    send_batch_clear(&sent)
    state = sent.used, sent.count, sent.sent, sent.run
    recv_batch_free(&received)
    send_batch_free(&sent)
    assert received.buffer == NULL and sent.buffer == NULL
    return RECV_SLOTS, SLOT_BYTES, SEND_BATCH_BYTES, state


# --- buffers ---

cdef class Pools:
    """The block pools that buffers share."""

    def __cinit__(self, uint32_t keep=8):
        pool_init(&self.pools.small, SMALL_BLOCK, keep)
        pool_init(&self.pools.large, LARGE_BLOCK, keep)

    def __dealloc__(self):
        pool_free(&self.pools.small)
        pool_free(&self.pools.large)

    @property
    def live(self):
        """Return how many small and large blocks are handed out."""
        return self.pools.small.live, self.pools.large.live


@cython.no_gc_clear             # the destructor needs the pools
cdef class Outgoing:
    """A SendBuffer. What is lent to it is kept here as long as the buffer may read it."""

    cdef readonly Pools pools
    cdef SendBuffer buffer
    cdef list lent

    def __cinit__(self, Pools pools not None):
        self.pools = pools
        self.lent = []
        send_buffer_init(&self.buffer, &pools.pools)

    def __dealloc__(self):
        send_buffer_clear(&self.buffer)

    def append(self, bytes data):
        source = exact(data)
        return send_buffer_append(&self.buffer, source.p, source.n)

    def lend(self, bytes data):
        source = exact(data)
        self.lent.append(source)
        assert send_buffer_lend(&self.buffer, source.p, source.n) == BUFFER_OK

    def at(self, uint64_t offset):
        """Return the bytes that lie in one piece from `offset` on."""
        cdef const uint8_t *data = NULL
        n = send_buffer_at(&self.buffer, offset, &data)
        return <bytes>data[:n] if n else b""

    def own(self, uint64_t offset, uint64_t n):
        """Return `n` bytes if they lie in one piece of the buffer's own memory, otherwise None.

        The room before them is used, and put back, as packets do."""
        cdef uint8_t *data = send_buffer_own(&self.buffer, offset, n)
        if data == NULL:
            return None
        before = <bytes>(data - HEADROOM)[:HEADROOM]
        memset(data - HEADROOM, 0xEE, HEADROOM)
        found = <bytes>data[:n]
        for i in range(HEADROOM):
            (data - HEADROOM)[i] = before[i]
        return found

    def release(self, uint64_t offset):
        send_buffer_release(&self.buffer, offset)

    def clear(self):
        send_buffer_clear(&self.buffer)

    @property
    def start(self):
        return self.buffer.start

    @property
    def end(self):
        return self.buffer.end

    @property
    def chunks(self):
        return self.buffer.count


@cython.no_gc_clear             # the destructor needs the pools
cdef class Incoming:
    """A RecvBuffer, and the memory that a waiting reader has posted."""

    cdef readonly Pools pools
    cdef RecvBuffer buffer
    cdef Exact posted

    def __cinit__(self, Pools pools not None, uint32_t max_gaps):
        self.pools = pools
        recv_buffer_init(&self.buffer, &pools.pools, max_gaps)

    def __dealloc__(self):
        recv_buffer_clear(&self.buffer)

    def write(self, uint64_t offset, bytes data):
        """Return "ok" or "gaps"."""
        source = exact(data)
        result = recv_buffer_write(&self.buffer, offset, source.p, source.n)
        assert result == BUFFER_OK or result == BUFFER_GAPS
        return "ok" if result == BUFFER_OK else "gaps"

    def read(self, uint64_t n):
        out = room(n)
        return out.first(recv_buffer_read(&self.buffer, out.p, n))

    def skip(self, uint64_t n):
        return recv_buffer_read(&self.buffer, NULL, n)

    def post(self, Py_ssize_t n):
        self.posted = room(n)
        recv_buffer_post(&self.buffer, self.posted.p, n)

    def unpost(self):
        """Return what has come since post()."""
        return self.posted.first(recv_buffer_unpost(&self.buffer))

    def clear(self):
        recv_buffer_clear(&self.buffer)

    @property
    def first_unread(self):
        return self.buffer.read

    @property
    def ready(self):
        return self.buffer.ready

    @property
    def gaps(self):
        return self.buffer.beyond.count

    @property
    def slots(self):
        return self.buffer.slots


cdef class Queue:
    """Messages."""

    cdef Messages messages

    def __cinit__(self, uint64_t limit):
        messages_init(&self.messages, limit)

    def __dealloc__(self):
        messages_free(&self.messages)

    def push(self, bytes message):
        """Return whether there was room."""
        source = exact(message)
        return messages_push(&self.messages, source.p, <uint32_t>source.n) == MESSAGES_OK

    def push_dropping(self, bytes message):
        source = exact(message)
        return messages_push_dropping(&self.messages, source.p, <uint32_t>source.n) == MESSAGES_OK

    def pop(self):
        """Return the oldest message, or None."""
        if self.messages.count == 0:
            return None
        out = room(messages_next_bytes(&self.messages))
        messages_pop(&self.messages, out.p)
        return out.first(out.n)

    def trim(self):
        messages_trim(&self.messages)

    def __len__(self):
        return self.messages.count

    @property
    def used(self):
        return self.messages.used

    @property
    def limit(self):
        return self.messages.limit

    @property
    def capacity(self):
        return self.messages.capacity

    @property
    def dropped(self):
        return self.messages.dropped
