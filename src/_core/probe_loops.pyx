"""Loops over functions of the core, for micro-benchmarks: what takes nanoseconds cannot be timed one call at a time.

Each `run(n)` does its work `n` times without the GIL and returns how often it went as it should, which is `n`.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from interpeer._core.controller cimport CONTROLLER_CUBIC
from interpeer._core.crypto cimport Aead, aead_free, aead_init, aead_open, aead_seal
from interpeer._core.engine cimport Engine
from interpeer._core.path cimport Path, path_free, path_handle_number, path_init, path_write_ack
from interpeer._core.probe cimport Exact, exact, room
from interpeer._core.probe import SUITES
from interpeer._core.protection cimport (
    RecvKeys, SendKeys, protect, recv_keys_init, recv_keys_wipe, send_keys_init, send_keys_wipe, unprotect)
from interpeer._core.rangeset cimport RANGES_OK, RangeSet, ranges_add, ranges_drop_lowest, ranges_free, ranges_init
from interpeer._core.replay cimport ReplayWindow, replay_accept, replay_init, replay_is_new
from interpeer._core.slab cimport (
    RECV_SLOTS, Datagrams, Endpoint, RecvBatch, SendBatch, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.table cimport Table, table_find, table_free, table_init, table_put, table_remove
from interpeer._core.timers cimport Timer, Timers, timer_set, timers_free, timers_init
from interpeer._core.wire cimport HEADER_BYTES, PARSE_OK, Frame, Reader, parse_frame

cdef uint64_t CID = <uint64_t>0x80 << 56


cdef int endpoint_from(tuple address, Endpoint *out) except -1:
    cdef bytes packed = address[0]
    memset(out, 0, sizeof(Endpoint))
    memcpy(out.address, <const uint8_t *>packed, 16)
    out.port, out.scope = address[1], address[2]
    return 0


cdef inline uint64_t scatter(uint64_t i) noexcept nogil:
    """Return a number that looks random, and another one for each `i`."""
    i = (i ^ i >> 31) * <uint64_t>0x7FB5D329728EA185
    return i ^ i >> 27


cdef class Sealing:
    """One AEAD over the same text, sealed or opened in place. Opening copies the ciphertext first."""

    cdef Aead aead
    cdef Exact text, sealed, header

    def __cinit__(self, str suite, Py_ssize_t text_bytes):
        key, iv = exact(bytes(32)), exact(bytes(32))
        if aead_init(&self.aead, SUITES[suite], key.p, iv.p) != 0:
            raise ValueError(f"{suite} is not available")
        self.text, self.header = room(text_bytes + 32), exact(bytes(HEADER_BYTES))
        self.sealed = room(text_bytes + self.aead.tag_bytes)
        assert aead_seal(&self.aead, self.sealed.p, self.text.p, text_bytes, self.header.p, HEADER_BYTES, 0, 0) > 0

    def __dealloc__(self):
        aead_free(&self.aead)

    def seal(self, uint64_t n):
        cdef uint64_t done = 0, i
        cdef size_t text_bytes = self.text.n - 32
        cdef uint8_t *text = self.text.p
        cdef uint8_t *header = self.header.p
        with nogil:
            for i in range(n):
                done += aead_seal(&self.aead, text, text, text_bytes, header, HEADER_BYTES, 0, i) > 0
        return done

    def open(self, uint64_t n):
        cdef uint64_t done = 0, _i
        cdef size_t sealed_bytes = self.sealed.n
        cdef uint8_t *text = self.text.p
        cdef uint8_t *header = self.header.p
        cdef uint8_t *sealed = self.sealed.p
        with nogil:
            for _i in range(n):
                memcpy(text, sealed, sealed_bytes)
                done += aead_open(&self.aead, text, sealed_bytes, header, HEADER_BYTES, 0, 0) >= 0
        return done


cdef class Protecting:
    """Whole packets: header, mask, AEAD, replay window."""

    cdef SendKeys sender
    cdef RecvKeys receiver
    cdef ReplayWindow window
    cdef uint64_t counter
    cdef Exact packet

    def __cinit__(self, str suite, Py_ssize_t packet_bytes):
        secret = exact(bytes(32))
        assert send_keys_init(&self.sender, SUITES[suite], secret.p) == 0
        assert recv_keys_init(&self.receiver, SUITES[suite], secret.p) == 0
        replay_init(&self.window)
        self.packet = room(packet_bytes)

    def __dealloc__(self):
        send_keys_wipe(&self.sender)
        recv_keys_wipe(&self.receiver)

    def run(self, uint64_t n):
        """Protect and unprotect."""
        cdef uint64_t done = 0, _i, number = 0
        cdef bint is_update
        cdef Py_ssize_t sealed
        cdef uint8_t *packet = self.packet.p
        cdef size_t payload_bytes = self.packet.n - HEADER_BYTES - self.sender.aead.tag_bytes
        with nogil:
            for _i in range(n):
                sealed = protect(&self.sender, packet, packet + HEADER_BYTES, payload_bytes, CID, 0, self.counter)
                done += unprotect(&self.receiver, &self.window, packet, sealed, 0, &number, &is_update) >= 0
                self.counter += 1
        return done


def parse_payload(bytes payload, uint64_t n):
    """Read all frames of a payload `n` times; return how many frames it has."""
    cdef Reader r
    cdef Frame f
    cdef uint64_t frames = 0, _i
    source = exact(payload)
    with nogil:
        for _i in range(n):
            r.p = source.p
            r.end = source.p + source.n
            while parse_frame(&r, &f) == PARSE_OK:
                frames += 1
    return frames // n


def write_ack(uint32_t ranges, uint64_t n):
    """Write an ACK frame with so many ranges."""
    cdef Path p
    cdef Endpoint nowhere
    cdef uint64_t done = 0, i, _i
    out = room(1200)
    memset(&nowhere, 0, sizeof(Endpoint))
    path_init(&p, 0, &nowhere, 1200, CONTROLLER_CUBIC, NULL, NULL)
    for i in range(ranges):
        path_handle_number(&p, 100 * i, True, 0, 1, 1)
    with nogil:
        for _i in range(n):
            done += path_write_ack(&p, out.p, out.p + 1200, 1) > out.p
    path_free(&p)
    return done


def ranges_in_order(uint64_t n):
    """Add numbers one after the other: the last range grows."""
    cdef RangeSet s
    cdef uint64_t done = 0, i
    ranges_init(&s, 64)
    with nogil:
        for i in range(n):
            done += ranges_add(&s, i, i + 1) == RANGES_OK
    ranges_free(&s)
    return done


def ranges_with_gaps(uint64_t n):
    """Add every other number; beyond 64 ranges the lowest gives way."""
    cdef RangeSet s
    cdef uint64_t done = 0, i
    ranges_init(&s, 64)
    with nogil:
        for i in range(n):
            if s.count == 64:
                ranges_drop_lowest(&s)
            done += ranges_add(&s, 2 * i, 2 * i + 1) == RANGES_OK
    ranges_free(&s)
    return done


def ranges_swapped(uint64_t n):
    """Add numbers in pairs, the greater first: each second one closes a gap."""
    cdef RangeSet s
    cdef uint64_t done = 0, i
    ranges_init(&s, 64)
    with nogil:
        for i in range(n):
            done += ranges_add(&s, i ^ 1, (i ^ 1) + 1) == RANGES_OK
    ranges_free(&s)
    return done


def replay_in_order(uint64_t n):
    cdef ReplayWindow w
    cdef uint64_t done = 0, i
    replay_init(&w)
    with nogil:
        for i in range(n):
            done += replay_is_new(&w, i)
            replay_accept(&w, i)
    return done


cdef class Lookup:
    """A table with so many keys."""

    cdef Table table
    cdef uint64_t count

    def __cinit__(self, uint64_t count):
        cdef uint64_t i
        table_init(&self.table, 0)
        self.count = count
        for i in range(1, count + 1):
            assert table_put(&self.table, scatter(i), <void *>self) == 0

    def __dealloc__(self):
        table_free(&self.table)

    def find(self, uint64_t n):
        cdef uint64_t done = 0, i, count = self.count
        with nogil:
            for i in range(n):
                done += table_find(&self.table, scatter(1 + i % count)) != NULL
        return done

    def put_and_remove(self, uint64_t n):
        cdef uint64_t done = 0, i, key, count = self.count
        with nogil:
            for i in range(n):
                key = scatter(count + 1 + i)
                table_put(&self.table, key, <void *>self)
                done += table_remove(&self.table, key) != NULL
        return done


cdef class Deadlines:
    """A heap with so many timers."""

    cdef Timers timers
    cdef Timer *entries
    cdef uint32_t count
    cdef uint64_t now_ns

    def __cinit__(self, uint32_t count):
        cdef uint32_t i
        timers_init(&self.timers)
        self.count = count
        self.entries = <Timer *>calloc(count, sizeof(Timer))
        if self.entries == NULL:
            raise MemoryError
        for i in range(count):
            timer_set(&self.timers, &self.entries[i], 1 + scatter(i) % 1000000000)

    def __dealloc__(self):
        timers_free(&self.timers)
        free(self.entries)

    def move(self, uint64_t n):
        """Move one timer after the other to where packets would: a little later, or much."""
        cdef uint64_t done = 0, i
        with nogil:
            for i in range(n):
                self.now_ns += 1000
                done += timer_set(&self.timers, &self.entries[scatter(i) % self.count],
                                  self.now_ns + 1 + scatter(i + n) % 1000000000) == 0
        return done


LEFT_AT, RIGHT_AT = (b"\1" * 16, 1, 0), (b"\2" * 16, 2, 0)


cdef class Wire:
    """Two engines and nothing between them: what one sends, the other gets at once, from the memory it was built in.

    Their addresses are LEFT_AT and RIGHT_AT."""

    cdef Engine left, right
    cdef Endpoint left_address, right_address
    cdef SendBatch batch
    cdef RecvBatch received
    cdef readonly uint64_t packets          # carried so far

    def __cinit__(self, Engine left not None, Engine right not None):
        self.left, self.right = left, right
        endpoint_from(LEFT_AT, &self.left_address)
        endpoint_from(RIGHT_AT, &self.right_address)
        memset(&self.received, 0, sizeof(RecvBatch))
        assert send_batch_init(&self.batch) == 0

    def __dealloc__(self):
        send_batch_free(&self.batch)

    def exchange(self, uint64_t now_ns):
        """Let both send until neither has anything more to say now."""
        with nogil:
            while self.carry(self.left, self.right, &self.left_address, now_ns) \
                    + self.carry(self.right, self.left, &self.right_address, now_ns):
                pass

    def handle_timeout(self, uint64_t now_ns):
        self.left.handle_timeout(now_ns)
        self.right.handle_timeout(now_ns)

    cdef uint32_t carry(self, Engine sender, Engine receiver, const Endpoint *source, uint64_t now_ns) noexcept nogil:
        """Carry one batch; return its messages."""
        cdef uint32_t i
        cdef Datagrams *d
        send_batch_clear(&self.batch)
        sender.poll_transmit(&self.batch, now_ns)
        self.received.count = 0
        for i in range(self.batch.count):
            d = &self.received.slots[self.received.count]
            d[0] = self.batch.entries[i]
            d.remote = source[0]
            memset(d.local, 0, sizeof(d.local))
            self.packets += (d.bytes + d.segment - 1) // d.segment
            self.received.count += 1
            if self.received.count == RECV_SLOTS or i + 1 == self.batch.count:
                receiver.handle_batch(&self.received, now_ns)
                self.received.count = 0
        return self.batch.count
