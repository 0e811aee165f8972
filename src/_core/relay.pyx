"""What relaying is made of (docs/spec, chapter 21): legs, the rate of a pair, and the queue of what is being forwarded.

A leg is an id in front of datagrams between a relay and a peer. At the peer it ends; at the relay it is joined to another
one. Nothing here knows what a connection is, nor sends anything. The queue is a ring of bytes: a run of equal packets lies
in it in one piece, is sent from where it lies, and stays until the batch that it went with has been sent.
"""

from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from interpeer._core.slab cimport MAX_SEGMENTS, MAX_UDP_PAYLOAD, Datagrams, Endpoint
from interpeer._core.table cimport table_find, table_free, table_init, table_put, table_remove


# --- legs ---

cdef Relay *relay_new(uint64_t secret) noexcept nogil:
    """Return a table without legs; peers choose ids, but do not know how they are hashed. NULL without memory."""
    cdef Relay *r = <Relay *>calloc(1, sizeof(Relay))
    if r != NULL:
        table_init(&r.legs, secret)
        bucket_set(&r.total, INFINITY, INFINITY)
    return r


cdef void relay_free(Relay *r) noexcept nogil:
    cdef Leg *leg
    cdef uint32_t i
    if r == NULL:
        return
    for i in range(r.legs.capacity):
        leg = <Leg *>r.legs.values[i] if r.legs.keys[i] else NULL   # an empty slot may repeat a value
        if leg != NULL and leg.is_first:
            free(leg.pair)
    for i in range(r.legs.capacity):
        if r.legs.keys[i]:
            free(r.legs.values[i])
    table_free(&r.legs)
    while r.gone != NULL:
        leg = r.gone
        r.gone = leg.next
        free(leg)
    free(r.forwards.bytes)
    free(r.forwards.runs)
    free(r)


cdef Leg *relay_find(const Relay *r, uint64_t id) noexcept nogil:
    return <Leg *>table_find(&r.legs, id) if r != NULL else NULL


cdef Leg *relay_add(Relay *r, uint64_t id, void *conn, Leg **legs) noexcept nogil:
    """Add a leg to those of a connection, with an id that is not in use. NULL without memory, or when there are too many."""
    cdef Leg *leg
    if r.legs.count >= MAX_LEGS:
        return NULL
    leg = <Leg *>calloc(1, sizeof(Leg))
    if leg == NULL or table_put(&r.legs, id, leg) != 0:
        free(leg)
        return NULL
    leg.id = id
    leg.conn = conn
    leg.next = legs[0]
    legs[0] = leg
    return leg


cdef int relay_join(Leg *a, Leg *b, double bytes_per_s, double burst) noexcept nogil:
    """Let packets pass between two legs, at this rate. Return 0, or -1 without memory."""
    cdef Pair *pair = <Pair *>calloc(1, sizeof(Pair))
    if pair == NULL:
        return -1
    bucket_set(&pair.bucket, bytes_per_s, burst)
    a.pair = b.pair = pair
    a.other = b
    b.other = a
    a.is_first = True
    return 0


cdef void relay_take_out(Relay *r, Leg *leg) noexcept nogil:
    """Let nothing find a leg any more, nor pass to the one it is joined to, which is left alone. It is the caller's then."""
    table_remove(&r.legs, leg.id)
    if leg.pair != NULL:
        free(leg.pair)
        leg.other.pair = NULL
        leg.other.other = NULL
        leg.other.is_first = False
        leg.pair = NULL
        leg.other = NULL


cdef void relay_note_gone(Relay *r, Leg *leg) noexcept nogil:
    """Keep a leg that was taken out until the application has been told."""
    leg.next = NULL
    if r.gone == NULL:
        r.gone = leg
    else:
        r.last_gone.next = leg
    r.last_gone = leg


cdef void bucket_set(Bucket *b, double bytes_per_s, double burst) noexcept nogil:
    """Change what may pass from now on; what has passed counts as before."""
    b.bytes_per_s = bytes_per_s
    b.burst = burst


cdef uint32_t bucket_admit(Bucket *b, uint32_t bytes, uint32_t segment, uint64_t now_ns) noexcept nogil:
    """Take tokens for a run of packets; return how many of its bytes may pass, in whole packets."""
    cdef uint32_t packets
    if b.updated_ns == 0:
        b.tokens = b.burst
    elif now_ns > b.updated_ns:
        b.tokens += (now_ns - b.updated_ns) / 1e9 * b.bytes_per_s
        if not b.tokens < b.burst:
            b.tokens = b.burst
    b.updated_ns = now_ns
    if b.tokens < bytes:
        packets = <uint32_t>(b.tokens / segment)
        bytes = packets * segment
    b.tokens -= bytes
    return bytes


# --- what waits to be forwarded ---

cdef bint have_room(Forwards *f) noexcept nogil:
    """Make the ring, the first time. False without memory."""
    if f.bytes == NULL:
        f.bytes = <unsigned char *>malloc(FORWARD_BYTES)
    if f.runs == NULL:
        f.runs = <Datagrams *>malloc(FORWARD_RUNS * sizeof(Datagrams))
    return f.bytes != NULL and f.runs != NULL


cdef bint place(Forwards *f, uint32_t bytes) noexcept nogil:
    """Move the head to where so many bytes can lie in one piece, if there is such a place."""
    if f.count == 0:
        f.head = f.tail = 0
    if f.count == FORWARD_RUNS:
        return False
    if f.head < f.tail or (f.count and f.head == f.tail):
        return f.head + bytes < f.tail
    if f.head + bytes <= FORWARD_BYTES:
        return True
    if bytes >= f.tail:
        return False
    f.head = 0
    return True


cdef bint continues(const Forwards *f, const Datagrams *run) noexcept nogil:
    """Tell whether a run is more of the newest one, behind it, and fits in one message with it."""
    cdef const Datagrams *last
    if not forwards_wait(f):
        return False
    last = &f.runs[(f.first + f.count - 1) % FORWARD_RUNS]
    return last.cid == run.cid and last.segment == run.segment and last.ecn == run.ecn \
        and last.bytes == f.last_packets * last.segment and last.bytes + run.bytes <= MAX_UDP_PAYLOAD \
        and f.last_packets + packets_of(run.bytes, run.segment) <= MAX_SEGMENTS \
        and last.data + last.bytes == f.bytes + f.head and f.head + run.bytes <= FORWARD_BYTES \
        and (f.head > f.tail or f.head + run.bytes < f.tail) \
        and memcmp(&last.remote, &run.remote, sizeof(Endpoint)) == 0 and memcmp(last.local, run.local, 16) == 0


cdef uint32_t forwards_push(Forwards *f, const Datagrams *run) noexcept nogil:
    """Copy a run, in as many messages as it needs. Return how many of its bytes found room, in whole packets."""
    cdef Datagrams *last
    cdef uint32_t at = 0, n, most = MAX_UDP_PAYLOAD // run.segment
    if not have_room(f):
        return 0
    most = run.segment * (1 if most == 0 else most if most < MAX_SEGMENTS else MAX_SEGMENTS)
    if continues(f, run):
        last = &f.runs[(f.first + f.count - 1) % FORWARD_RUNS]
        memcpy(f.bytes + f.head, run.data, run.bytes)
        last.bytes += run.bytes
        f.last_packets += packets_of(run.bytes, run.segment)
        f.head += run.bytes
        return run.bytes
    while at < run.bytes:
        n = run.bytes - at if run.bytes - at < most else most
        if not place(f, n):
            break
        last = &f.runs[(f.first + f.count) % FORWARD_RUNS]
        last[0] = run[0]
        last.data = f.bytes + f.head
        last.bytes = n
        memcpy(last.data, run.data + at, n)
        f.last_packets = packets_of(n, run.segment)
        f.count += 1
        f.head += n
        at += n
    return at


cdef const Datagrams *forwards_next(Forwards *f) noexcept nogil:
    """Return the next run to be sent, whose bytes stay until forwards_release; NULL: there is none."""
    if not forwards_wait(f):
        return NULL
    f.given += 1
    return &f.runs[(f.first + f.given - 1) % FORWARD_RUNS]


cdef void forwards_release(Forwards *f) noexcept nogil:
    """What was given has been sent."""
    f.first = (f.first + f.given) % FORWARD_RUNS
    f.count -= f.given
    f.given = 0
    if f.count:
        f.tail = <uint32_t>(f.runs[f.first].data - f.bytes)
