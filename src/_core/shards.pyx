"""What the engines of one node share: which of them a datagram is for, mail between them, handshakes that have to meet.

A node with several shards has as many engines, each with a thread and, where the system can spread datagrams over
sockets, with sockets of its own. A connection stays in the shard where it began, whose number is in its connection ids.
Steering by the kernel is a hint: whoever gets a datagram looks where it belongs, and passes on what is another's. Every
lock here is held for a copy at most, and nothing else is locked under it.
"""

from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock, WAIT_LOCK)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from interpeer._core.crypto cimport KEY_BYTES
from interpeer._core.slab cimport Datagrams
from interpeer._core.wire cimport CID_FLAG, MESSAGE_INIT, MESSAGE_VERSIONS, read_u64

cdef extern from "platform.h" nogil:
    long atomic_load_long(long *at)
    long atomic_sum_long(long *at, long value)
    long atomic_swap_long(long *at, long value)

cdef enum:
    SHARD_BITS = 0x7F               # of the first two bytes of a connection id, whose XOR is the shard
    CID_AT = 2                      # of a handshake message: the receiver's connection id, or in an init the sender's
    RANDOM_AT = 8                   # of an init: the last two bytes of that, which differ from call to call

cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15


cdef Shards *shards_new(uint32_t count, uint64_t secret) noexcept:
    """Return what `count` engines will share, each of which leaves it once; NULL without memory."""
    cdef Shards *s = <Shards *>calloc(1, sizeof(Shards))
    cdef uint32_t i
    if s == NULL:
        return NULL
    s.users = count
    s.count = count
    s.secret = secret
    s.mutex = <void *>PyThread_allocate_lock()
    s.meetings = <Meeting *>calloc(MEETING_SETS * MEETING_WAYS, sizeof(Meeting))
    for i in range(count):
        s.boxes[i].mutex = <void *>PyThread_allocate_lock()
        if s.boxes[i].mutex == NULL or s.mutex == NULL or s.meetings == NULL:
            s.users = 1
            shards_leave(s)
            return NULL
    return s


cdef void shards_leave(Shards *s) noexcept:
    """An engine is gone; the last one frees what they shared."""
    cdef uint32_t i
    if atomic_sum_long(&s.users, -1):
        return
    for i in range(s.count):
        free(s.boxes[i].filling)
        free(s.boxes[i].emptying)
        if s.boxes[i].mutex != NULL:
            PyThread_free_lock(<PyThread_type_lock>s.boxes[i].mutex)
    if s.mutex != NULL:
        PyThread_free_lock(<PyThread_type_lock>s.mutex)
    free(s.meetings)
    free(s)


# --- which shard ---

cdef uint32_t shard_of(const uint8_t *p, uint32_t n, uint32_t count) noexcept nogil:
    """Return the shard that a datagram is for (docs/spec, chapter 3). `steering_program` says the same to the kernel."""
    if n >= 2 and p[0] & CID_FLAG:
        return ((p[0] ^ p[1]) & SHARD_BITS) % count
    if n < RANDOM_AT + 2 or not MESSAGE_INIT <= p[0] <= MESSAGE_VERSIONS:
        return 0
    if p[0] == MESSAGE_INIT:
        return (<uint32_t>p[RANDOM_AT] << 8 | p[RANDOM_AT + 1]) % count
    return ((p[CID_AT] ^ p[CID_AT + 1]) & SHARD_BITS) % count


cdef enum:                          # instructions of the classic packet filter (linux/bpf_common.h)
    LOAD_HALF = 0x28
    LOAD_BYTE = 0x30
    TO_X = 0x07
    XOR_X = 0xAC
    AND = 0x54
    MODULO = 0x94
    JUMP_EQUAL = 0x15
    JUMP_GREATER = 0x25
    JUMP_NOT_LESS = 0x35
    JUMP_SET = 0x45
    RETURN = 0x06
    RETURN_A = 0x16


cdef inline uint32_t step(Step *steps, uint32_t at, uint16_t code, uint32_t value, uint8_t if_true,
                          uint8_t if_false) noexcept nogil:
    steps[at].code = code
    steps[at].value = value
    steps[at].if_true = if_true
    steps[at].if_false = if_false
    return at + 1


cdef uint32_t of_cid(Step *steps, uint32_t at, uint32_t cid_at, uint32_t count) noexcept nogil:
    """Write the steps that find the shard of a connection id."""
    at = step(steps, at, LOAD_BYTE, cid_at, 0, 0)
    at = step(steps, at, TO_X, 0, 0, 0)
    at = step(steps, at, LOAD_BYTE, cid_at + 1, 0, 0)
    at = step(steps, at, XOR_X, 0, 0, 0)
    at = step(steps, at, AND, SHARD_BITS, 0, 0)
    at = step(steps, at, MODULO, count, 0, 0)
    return step(steps, at, RETURN_A, 0, 0, 0)


cdef uint32_t steering_program(Step *steps, uint32_t count) noexcept nogil:
    """Write what `shard_of` does as a program of the classic packet filter; return its length, STEERING_STEPS at the most.

    A load beyond the end of the datagram ends the program with 0."""
    cdef uint32_t at = 0
    at = step(steps, at, LOAD_BYTE, 0, 0, 0)
    at = step(steps, at, JUMP_SET, CID_FLAG, 15, 0)                 # to the connection id in front
    at = step(steps, at, JUMP_NOT_LESS, MESSAGE_INIT, 0, 13)
    at = step(steps, at, JUMP_GREATER, MESSAGE_VERSIONS, 12, 0)
    at = step(steps, at, JUMP_EQUAL, MESSAGE_INIT, 8, 0)
    at = step(steps, at, LOAD_HALF, RANDOM_AT, 0, 0)                # too short a reply is shard 0's
    at = of_cid(steps, at, CID_AT, count)
    at = step(steps, at, LOAD_HALF, RANDOM_AT, 0, 0)
    at = step(steps, at, MODULO, count, 0, 0)
    at = step(steps, at, RETURN_A, 0, 0, 0)
    at = step(steps, at, RETURN, 0, 0, 0)
    return of_cid(steps, at, 0, count)


cdef long shards_connections(Shards *s) noexcept nogil:
    """Return how many connections the node has."""
    cdef long total = 0
    cdef uint32_t i
    for i in range(s.count):
        total += atomic_load_long(&s.connections[i])
    return total


# --- mail ---

cdef inline void take(void *mutex) noexcept nogil:
    PyThread_acquire_lock(<PyThread_type_lock>mutex, WAIT_LOCK)


cdef inline void give(void *mutex) noexcept nogil:
    PyThread_release_lock(<PyThread_type_lock>mutex)


cdef uint32_t mail_bytes(uint32_t bytes) noexcept nogil:
    """Return what a message takes in a mailbox."""
    return (<uint32_t>sizeof(Mail) + bytes + 7) & ~<uint32_t>7


cdef int shards_post(Shards *s, uint32_t to, const Datagrams *from_, uint8_t *data, uint32_t bytes, uint32_t segment,
                     uint32_t seen) noexcept nogil:
    """Copy packets of one message into another shard's mailbox. Return POST_*; whoever was first wakes that shard."""
    cdef Mailbox *box = &s.boxes[to]
    cdef Mail *mail
    cdef long used
    take(box.mutex)
    used = box.used
    if box.filling == NULL:
        box.filling = <uint8_t *>malloc(MAILBOX_BYTES)
    if box.filling == NULL or used + mail_bytes(bytes) > MAILBOX_BYTES:
        give(box.mutex)
        return POST_FULL
    mail = <Mail *>(box.filling + used)
    mail.datagrams = from_[0]
    mail.datagrams.data = <uint8_t *>(mail + 1)
    mail.datagrams.bytes = bytes
    mail.datagrams.segment = segment
    mail.seen = seen
    memcpy(mail.datagrams.data, data, bytes)
    atomic_swap_long(&box.used, used + mail_bytes(bytes))
    give(box.mutex)
    return POST_ADDED if used else POST_FIRST


cdef bint shards_have_mail(Shards *s, uint32_t shard) noexcept nogil:
    return atomic_load_long(&s.boxes[shard].used) != 0


cdef uint32_t shards_collect(Shards *s, uint32_t shard, uint8_t **mail) noexcept nogil:
    """Take all the mail of a shard, which alone may ask; return its bytes. It stays readable until the next call."""
    cdef Mailbox *box = &s.boxes[shard]
    cdef uint32_t used
    take(box.mutex)
    used = <uint32_t>box.used
    mail[0] = box.filling
    box.filling = box.emptying
    box.emptying = mail[0]
    atomic_swap_long(&box.used, 0)
    give(box.mutex)
    return used


# --- handshakes that have to meet ---

cdef inline Meeting *set_of(Shards *s, const uint8_t *peer_key, uint16_t protocol) noexcept nogil:
    cdef uint64_t hash = (read_u64(peer_key) ^ s.secret ^ protocol) * GOLDEN
    return &s.meetings[(hash >> 32) % MEETING_SETS * MEETING_WAYS]


cdef inline bint is_meeting(const Meeting *m, int kind, const uint8_t *peer_key, uint16_t protocol,
                            uint64_t now_ns) noexcept nogil:
    return (m.kind == kind and m.protocol == protocol and now_ns < m.until_ns
            and memcmp(m.peer_key, peer_key, KEY_BYTES) == 0)


cdef void note(Meeting *ways, int kind, uint32_t shard, const uint8_t *peer_key, uint16_t protocol, uint64_t now_ns,
               uint64_t until_ns) noexcept nogil:
    """Remember a handshake, in the place of the same one, or of that which ends first."""
    cdef Meeting *m = ways
    cdef uint32_t i
    for i in range(MEETING_WAYS):
        if ways[i].shard == shard and is_meeting(&ways[i], kind, peer_key, protocol, now_ns):
            m = &ways[i]
            break
        if ways[i].until_ns < m.until_ns:
            m = &ways[i]
    memcpy(m.peer_key, peer_key, KEY_BYTES)
    m.until_ns = until_ns
    m.protocol = protocol
    m.shard = <uint8_t>shard
    m.kind = <uint8_t>kind


cdef uint32_t shards_note_call(Shards *s, const uint8_t *peer_key, uint16_t protocol, uint64_t now_ns,
                               uint64_t until_ns) noexcept nogil:
    """Choose the shard that calls a peer: the one that the peer has just called, so that both calls meet there, otherwise
    the one with the fewest connections. Inits of that peer find it until `until_ns`."""
    cdef Meeting *ways = set_of(s, peer_key, protocol)
    cdef uint32_t i, chosen = 0
    cdef long least = -1, connections
    for i in range(s.count):
        connections = atomic_load_long(&s.connections[i])
        if least < 0 or connections < least:
            least = connections
            chosen = i
    take(s.mutex)
    for i in range(MEETING_WAYS):
        if is_meeting(&ways[i], MEETING_ANSWER, peer_key, protocol, now_ns):
            chosen = ways[i].shard
    note(ways, MEETING_CALL, chosen, peer_key, protocol, now_ns, until_ns)
    give(s.mutex)
    return chosen


cdef int shards_note_answer(Shards *s, uint32_t shard, const uint8_t *peer_key, uint16_t protocol, uint32_t seen,
                            uint64_t now_ns, uint64_t until_ns) noexcept nogil:
    """Return a shard that calls the peer whose init has come to `shard`, and that has not seen the init yet; -1: there is
    none, and calls of ours find the init here until `until_ns`."""
    cdef Meeting *ways = set_of(s, peer_key, protocol)
    cdef uint32_t i
    cdef int found = -1
    take(s.mutex)
    for i in range(MEETING_WAYS):
        if is_meeting(&ways[i], MEETING_CALL, peer_key, protocol, now_ns) and not seen >> ways[i].shard & 1:
            found = ways[i].shard
    if found < 0:
        note(ways, MEETING_ANSWER, shard, peer_key, protocol, now_ns, until_ns)
    give(s.mutex)
    return found
