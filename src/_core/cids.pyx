"""Connection ids of one connection: those that the peer puts on packets to us, and those that it has given us.

Each belongs to one path and has a number there. Who uses an id gives it up when it likes, by telling its number; who has
issued it then issues another. There is no way to make the other end give ids up, so none to make it queue that
(CVE-2024-22189), and everything that a peer can make us keep has a fixed size.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    TOKEN_BYTES = 16


cdef void remote_cids_free(RemoteCids *r) noexcept nogil:
    free(r.entries)
    r.entries = NULL
    r.capacity = 0


cdef int remote_cids_add(RemoteCids *r, uint32_t path, uint32_t sequence, uint64_t cid, const uint8_t *token) noexcept nogil:
    """Keep an id as a spare one; the same again changes nothing. A token of zeros is none. Return CIDS_*."""
    cdef uint8_t[16] nothing
    cdef RemoteCid *room = NULL
    cdef RemoteCid *e
    cdef uint32_t i
    memset(nothing, 0, TOKEN_BYTES)
    for i in range(r.capacity):
        e = &r.entries[i]
        if e.state == REMOTE_FREE:
            if room == NULL and not e.is_watched:
                room = e            # otherwise the engine still knows the token that is there
        elif e.path == path and e.sequence == sequence:
            return CIDS_OK if e.cid == cid and memcmp(e.token, token, TOKEN_BYTES) == 0 else CIDS_CONFLICT
        elif e.cid == cid:
            return CIDS_CONFLICT
    if room == NULL:
        if r.capacity == MAX_REMOTE_CIDS:
            return CIDS_TOO_MANY
        room = grow(r)
        if room == NULL:
            return CIDS_NO_MEMORY
    room.cid = cid
    room.path = path
    room.sequence = sequence
    memcpy(room.token, token, TOKEN_BYTES)
    room.has_token = memcmp(token, nothing, TOKEN_BYTES) != 0
    room.state = REMOTE_SPARE
    return CIDS_OK


cdef RemoteCid *grow(RemoteCids *r) noexcept nogil:
    """Make room for more; return the first free entry, or NULL without memory."""
    cdef uint32_t before = r.capacity, after = before * 2 if before else FIRST_REMOTE_CIDS
    cdef RemoteCid *grown
    if after > MAX_REMOTE_CIDS:
        after = MAX_REMOTE_CIDS
    grown = <RemoteCid *>realloc(r.entries, after * sizeof(RemoteCid))
    if grown == NULL:
        return NULL
    memset(grown + before, 0, (after - before) * sizeof(RemoteCid))
    r.entries = grown
    r.capacity = after
    return grown + before


cdef RemoteCid *remote_cids_find(const RemoteCids *r, uint32_t path, uint32_t sequence) noexcept nogil:
    cdef uint32_t i
    for i in range(r.capacity):
        if r.entries[i].state != REMOTE_FREE and r.entries[i].path == path and r.entries[i].sequence == sequence:
            return &r.entries[i]
    return NULL


cdef RemoteCid *remote_cids_spare(const RemoteCids *r, uint32_t path) noexcept nogil:
    """Return the spare id of a path with the lowest number, or NULL."""
    cdef RemoteCid *found = NULL
    cdef uint32_t i
    for i in range(r.capacity):
        if r.entries[i].state == REMOTE_SPARE and r.entries[i].path == path \
                and (found == NULL or r.entries[i].sequence < found.sequence):
            found = &r.entries[i]
    return found


cdef RemoteCid *remote_cids_in_state(const RemoteCids *r, uint8_t state) noexcept nogil:
    """Return any id in this state, or NULL."""
    cdef uint32_t i
    for i in range(r.capacity):
        if r.entries[i].state == state:
            return &r.entries[i]
    return NULL


cdef LocalCid *local_cid_find(LocalCid *first, uint32_t path, uint32_t sequence) noexcept nogil:
    while first != NULL and (first.path != path or first.sequence != sequence):
        first = first.next
    return first


cdef uint32_t local_cids_count(const LocalCid *first, uint32_t path) noexcept nogil:
    """Return how many ids of a path the peer has, or is to be told, that it has not given up."""
    cdef uint32_t n = 0
    while first != NULL:
        n += first.path == path and first.state != LOCAL_LINGERING
        first = first.next
    return n
