from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.path cimport Path
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.wire cimport Frame

cdef enum:                          # results of paths_open
    OPEN_OK = 0
    OPEN_NO_MEMORY = -1
    OPEN_TOO_MANY = -2              # as many as both ends allow are there
    OPEN_NO_ID = -3                 # the peer has given us no connection id for it, or not yet
    OPEN_NOT_NOW = -4               # the connection is not open

cdef enum:
    PATH_SILENCE_NS = 30000000000   # a path that says nothing for so long is given up, if there is another
    TIER_DIRECT = 0                 # proven; and one more where one of the ends keeps it for when no other works
    TIER_TUNNEL = 2                 # likewise, over TCP
    TIER_RELAYED = 4                # likewise, through a relay: however short its round trip
    TIER_SUSPECT = 6
    TIER_LEGLESS = 7                # its relay is gone, but may have been its last hope
    TIER_UNUSABLE = 8               # not proven (again)
    TIER_GONE = 9                   # abandoned: anything is better

cdef Path *paths_add(Conn *c, uint32_t id, const Endpoint *remote, const uint8_t *local) noexcept nogil
cdef Path *paths_find(const Conn *c, uint64_t id) noexcept nogil
cdef uint32_t paths_live(const Conn *c) noexcept nogil
cdef int paths_may_open(const Conn *c) noexcept nogil
cdef int paths_open(Conn *c, const Endpoint *remote, const uint8_t *local, Path **out) noexcept nogil
cdef Path *paths_accept(Conn *c, uint32_t id, const Datagrams *from_) noexcept nogil
cdef int paths_abandon(Conn *c, Path *p, int reason) noexcept nogil
cdef void paths_set_standby(Conn *c, Path *p, bint is_standby) noexcept nogil
cdef int paths_tier(const Path *p) noexcept nogil
cdef bint paths_is_faster(const Path *p, const Path *than) noexcept nogil
cdef Path *paths_prefer(Conn *c) noexcept nogil
cdef void paths_follow(Conn *c, Path *p, const Datagrams *from_, uint32_t bytes, uint64_t now_ns) noexcept nogil
cdef void paths_give_credit(Path *p, const Endpoint *source, uint32_t bytes) noexcept nogil
cdef void paths_heard(Conn *c, Path *p) noexcept nogil
cdef void paths_silent(Conn *c, Path *p) noexcept nogil
cdef void paths_lose_relay(Conn *c, Path *p) noexcept nogil
cdef void paths_nudge(Conn *c, const uint8_t *gone, uint32_t count) noexcept nogil
cdef void paths_rotate_cid(Conn *c, Path *p) noexcept nogil
cdef void paths_notify(Conn *c, const Path *p, int kind, int reason) noexcept nogil

cdef uint64_t paths_longest_pto_ns(const Conn *c) noexcept nogil
cdef uint64_t paths_deadline_ns(const Conn *c) noexcept nogil
cdef void paths_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil
cdef void paths_tidy(Conn *c, uint64_t now_ns) noexcept nogil

cdef uint64_t paths_handle_frame(Conn *c, Path *p, const Frame *f, const Datagrams *from_, uint64_t now_ns) noexcept nogil
