"""Tunnels: packets on their way to and from a byte stream that Python reads and writes (docs/spec, chapter 26).

A packet for a tunnel's virtual address is put behind those that wait for it, as the frame that the stream will carry, so
that Python writes many with one call and never looks at one. What comes is cut at the frames' lengths, and waits in the
inbox for the engine's next turn. Both ends of that are bounded: a full queue drops what comes last, and congestion
control slows down for it, as for any queue.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from interpeer._core.slab cimport Datagrams, endpoint_id
from interpeer._core.table cimport table_find, table_free, table_init, table_put, table_remove

cdef enum:
    FIRST_ROOM = 4096               # of a queue or of the inbox; doubles up to its limit


cdef Tunnels *tunnels_new() noexcept nogil:
    """Return a node's tunnels, of which there are none yet; NULL without memory."""
    cdef Tunnels *t = <Tunnels *>calloc(1, sizeof(Tunnels))
    if t != NULL:
        table_init(&t.by_number, 0)     # we choose the numbers
    return t


cdef void tunnels_free(Tunnels *t) noexcept nogil:
    if t == NULL:
        return
    while t.count:
        tunnels_remove(t, t.tunnels[0].number)
    table_free(&t.by_number)
    free(t.inbox)
    free(t)


cdef Tunnel *tunnels_find(const Tunnels *t, uint64_t number) noexcept nogil:
    return <Tunnel *>table_find(&t.by_number, number) if t != NULL and number else NULL


cdef int tunnels_add(Tunnels *t, uint64_t number) noexcept nogil:
    """Begin a tunnel; numbers begin with 1. Return TUNNEL_*."""
    cdef Tunnel *tunnel
    if number == 0 or tunnels_find(t, number) != NULL:
        return TUNNEL_TAKEN
    if t.count == MAX_TUNNELS:
        return TUNNEL_FULL
    tunnel = <Tunnel *>calloc(1, sizeof(Tunnel))
    if tunnel == NULL or table_put(&t.by_number, number, tunnel) != 0:
        free(tunnel)
        return TUNNEL_NO_MEMORY
    tunnel.number = number
    t.tunnels[t.count] = tunnel
    t.count += 1
    return TUNNEL_OK


cdef void tunnels_remove(Tunnels *t, uint64_t number) noexcept nogil:
    """End a tunnel with what waits for it; harmless where there is none."""
    cdef Tunnel *tunnel = tunnels_find(t, number)
    cdef uint32_t i
    if tunnel == NULL:
        return
    table_remove(&t.by_number, number)
    for i in range(t.count):
        if t.tunnels[i] == tunnel:
            t.count -= 1
            t.tunnels[i] = t.tunnels[t.count]
            break
    t.dropped += tunnel.dropped
    free(tunnel.queue)
    free(tunnel)


cdef bint make_room(uint8_t **buffer, uint32_t *room, uint32_t used, uint32_t more, uint32_t limit) noexcept nogil:
    """See that there is room for more bytes behind those in use. Return whether there is."""
    cdef uint32_t wanted = room[0] if room[0] else FIRST_ROOM
    cdef uint8_t *moved
    if used + more > limit:
        return False
    while wanted < used + more:
        wanted *= 2
    if wanted != room[0] or buffer[0] == NULL:
        moved = <uint8_t *>realloc(buffer[0], wanted)
        if moved == NULL:
            return False
        buffer[0] = moved
        room[0] = wanted
    return True


# --- out ---

cdef void tunnels_push(Tunnels *t, const Datagrams *d) noexcept nogil:
    """Put the packets of a message, each of MAX_FRAME_BYTES at the most, behind those that wait for its tunnel."""
    cdef Tunnel *tunnel = tunnels_find(t, endpoint_id(d.remote.address))
    cdef uint32_t at = 0, n
    if tunnel == NULL:
        t.dropped += 1
        return
    while at < d.bytes:
        n = d.segment if d.segment < d.bytes - at else d.bytes - at
        if make_room(&tunnel.queue, &tunnel.room, tunnel.used, FRAME_HEADER_BYTES + n, MAX_QUEUE_BYTES):
            tunnel.queue[tunnel.used] = <uint8_t>(n >> 8)
            tunnel.queue[tunnel.used + 1] = <uint8_t>n
            memcpy(tunnel.queue + tunnel.used + FRAME_HEADER_BYTES, d.data + at, n)
            tunnel.used += FRAME_HEADER_BYTES + n
        else:
            tunnel.dropped += 1
        at += n
    if not tunnel.is_held:
        t.is_ready = True


cdef void tunnels_hold(Tunnels *t, Tunnel *tunnel, bint is_held) noexcept nogil:
    """Keep what is for a tunnel until it can be written to, or no more."""
    tunnel.is_held = is_held
    if not is_held and tunnel.used:
        t.is_ready = True


cdef Tunnel *tunnels_next_ready(Tunnels *t) noexcept nogil:
    """Return a tunnel that something is to be written to now; NULL: there is none."""
    cdef uint32_t i
    if t.is_ready:
        for i in range(t.count):
            if t.tunnels[i].used and not t.tunnels[i].is_held:
                return t.tunnels[i]
    t.is_ready = False
    return NULL


cdef void tunnels_emptied(Tunnels *t, Tunnel *tunnel) noexcept nogil:
    """What waited was taken: start anew, and keep no more memory than a quiet tunnel needs."""
    tunnel.used = 0
    if tunnel.room > KEPT_QUEUE_BYTES:
        free(tunnel.queue)
        tunnel.queue = NULL
        tunnel.room = 0


# --- in ---

cdef Py_ssize_t frames_check(const uint8_t *p, size_t n) noexcept nogil:
    """Return how many bytes of a stream are whole frames; -1: what follows them is none, and never will be."""
    cdef size_t at = 0, length
    while n - at >= FRAME_HEADER_BYTES:
        length = <size_t>p[at] << 8 | p[at + 1]
        if length == 0 or length > MAX_FRAME_BYTES:
            return -1
        if n - at - FRAME_HEADER_BYTES < length:
            break
        at += FRAME_HEADER_BYTES + length
    return <Py_ssize_t>at


cdef void tunnels_deliver(Tunnels *t, uint64_t number, const uint8_t *frames, size_t n) noexcept nogil:
    """Put the packets of whole frames into the inbox, for the engine's next turn."""
    cdef size_t at = 0
    cdef uint32_t used = <uint32_t>t.inbox_used
    cdef Letter letter
    letter.number = number
    while at < n:
        letter.bytes = <uint32_t>frames[at] << 8 | frames[at + 1]
        at += FRAME_HEADER_BYTES
        if make_room(&t.inbox, &t.inbox_room, used, <uint32_t>sizeof(Letter) + letter.bytes, MAX_INBOX_BYTES):
            memcpy(t.inbox + used, &letter, sizeof(Letter))
            memcpy(t.inbox + used + sizeof(Letter), frames + at, letter.bytes)
            used += <uint32_t>sizeof(Letter) + letter.bytes
        else:
            t.dropped += 1
        at += letter.bytes
    t.inbox_used = used
