from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.slab cimport Datagrams
from interpeer._core.table cimport Table

cdef enum:
    LEG_BYTES = 8                   # of the leg's id in front of a relayed datagram
    MAX_LEGS = 65536                # of an engine: a relay for thousands, and 10 MiB
    FORWARD_BYTES = 1048576         # waiting to be forwarded: what one batch of receiving can bring; made at the first use
    FORWARD_RUNS = 256              # likewise, in so many runs

cdef struct Bucket:                 # what may pass
    double bytes_per_s              # infinite: as much as comes
    double burst                    # bytes that may pass at once
    double tokens
    uint64_t updated_ns             # when `tokens` was right; 0: never yet

cdef struct Pair:                   # two legs joined by us
    Bucket bucket                   # both ways together
    uint64_t last_ns                # when something last came for either
    uint64_t dropped_rate           # packets that were more than its rate, or than what all pairs have
    uint64_t dropped_queue          # ... that found no room to wait
    uint64_t dropped_size           # ... that were too large for the interface
    uint64_t dropped_way            # ... that the other connection had no proven path for

cdef struct Leg:
    uint64_t id
    void *conn                      # the Conn that it belongs to
    Leg *next                       # another one of that connection; or of those that are gone
    Leg *other                      # what it is joined to; NULL: it ends here, and what comes on it is for us
    Pair *pair                      # owned by the two together; NULL: as above
    bint is_first                   # of the two
    uint64_t bytes                  # forwarded of what came on it
    uint64_t packets

cdef struct Forwards:               # runs of packets on their way from one connection to another: a ring
    uint8_t *bytes                  # FORWARD_BYTES; owned; NULL: nothing was ever forwarded
    Datagrams *runs                 # FORWARD_RUNS; owned
    uint32_t head                   # where the next run goes
    uint32_t tail                   # where the oldest one lies
    uint32_t first                  # the oldest run
    uint32_t count
    uint32_t given                  # of the oldest, those in a batch that is being sent: their bytes must stay
    uint32_t last_packets           # in the newest run

cdef struct Relay:                  # the legs of an engine
    Table legs
    Bucket total                    # what all pairs have together
    Forwards forwards
    Leg *gone                       # removed because a connection ended, and not told yet; owned
    Leg *last_gone

cdef Relay *relay_new(uint64_t secret) noexcept nogil
cdef void relay_free(Relay *r) noexcept nogil
cdef Leg *relay_find(const Relay *r, uint64_t id) noexcept nogil
cdef Leg *relay_add(Relay *r, uint64_t id, void *conn, Leg **legs) noexcept nogil
cdef int relay_join(Leg *a, Leg *b, double bytes_per_s, double burst) noexcept nogil
cdef void relay_take_out(Relay *r, Leg *leg) noexcept nogil
cdef void relay_note_gone(Relay *r, Leg *leg) noexcept nogil
cdef void bucket_set(Bucket *b, double bytes_per_s, double burst) noexcept nogil
cdef uint32_t bucket_admit(Bucket *b, uint32_t bytes, uint32_t segment, uint64_t now_ns) noexcept nogil

cdef uint32_t forwards_push(Forwards *f, const Datagrams *run) noexcept nogil
cdef const Datagrams *forwards_next(Forwards *f) noexcept nogil
cdef void forwards_release(Forwards *f) noexcept nogil


cdef inline bint forwards_wait(const Forwards *f) noexcept nogil:
    """Tell whether there is a run that is in no batch yet."""
    return f.count > f.given


cdef inline uint32_t packets_of(uint32_t bytes, uint32_t segment) noexcept nogil:
    return (bytes + segment - 1) // segment
