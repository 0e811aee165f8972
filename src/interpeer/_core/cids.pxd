from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_REMOTE_CIDS = 24            # of a peer, kept at once: for four paths and two to come, in use, spare and just given up
    FIRST_REMOTE_CIDS = 4           # room for so many is made first
    CIDS_OK = 0
    CIDS_TOO_MANY = -1
    CIDS_CONFLICT = -2              # the same number, or the same id, with something else
    CIDS_NO_MEMORY = -3

cdef enum:                          # LocalCid.state
    LOCAL_UNSENT = 0                # the peer is to be told
    LOCAL_SENT = 1
    LOCAL_LINGERING = 2             # the peer has given it up; packets that were overtaken may still have it

cdef enum:                          # RemoteCid.state
    REMOTE_FREE = 0                 # nothing is here
    REMOTE_SPARE = 1
    REMOTE_USED = 2                 # on the packets of its path
    REMOTE_RETIRING = 3             # not used any more; the peer is to be told
    REMOTE_RETIRED = 4              # it was told, and has not acknowledged that

cdef struct LocalCid:               # a connection id on packets to us
    uint64_t cid
    void *conn                      # the Conn it belongs to
    LocalCid *next                  # another one of the same connection
    uint32_t path                   # the path's id; the path may not exist yet
    uint32_t sequence               # counts the ids of one path
    uint8_t token[16]               # of our stateless reset; zeros: none
    uint8_t state

cdef struct RemoteCid:              # one on packets to the peer
    uint64_t cid
    uint32_t path
    uint32_t sequence
    uint8_t token[16]               # of a stateless reset by the peer
    bint has_token
    bint is_watched                 # the engine knows the token
    uint8_t state

cdef struct RemoteCids:
    RemoteCid *entries              # owned; no order
    uint32_t capacity

cdef void remote_cids_free(RemoteCids *r) noexcept nogil
cdef int remote_cids_add(RemoteCids *r, uint32_t path, uint32_t sequence, uint64_t cid, const uint8_t *token) noexcept nogil
cdef RemoteCid *remote_cids_find(const RemoteCids *r, uint32_t path, uint32_t sequence) noexcept nogil
cdef RemoteCid *remote_cids_spare(const RemoteCids *r, uint32_t path) noexcept nogil
cdef RemoteCid *remote_cids_in_state(const RemoteCids *r, uint8_t state) noexcept nogil
cdef LocalCid *local_cid_find(LocalCid *first, uint32_t path, uint32_t sequence) noexcept nogil
cdef uint32_t local_cids_count(const LocalCid *first, uint32_t path) noexcept nogil
