from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.cids cimport LocalCid
from interpeer._core.conn cimport Conn, Handle
from interpeer._core.registry cimport Registry
from interpeer._core.relay cimport Leg
from interpeer._core.slab cimport Datagrams, Endpoint, RecvBatch, SendBatch
from interpeer._core.stream cimport Stream

cdef enum:                          # Event.kind
    EVENT_CONNECTION = 0            # something happened to a connection: `events`
    EVENT_STREAM = 1                # ... to one of its streams: `stream`, `events`
    EVENT_INCOMING = 2              # a peer has opened a connection; its handle has no object yet
    EVENT_ASK = 3                   # may this peer come in? `id`, `identity`, `protocol`
    EVENT_RAW = 4                   # an answer that was expected; told by control alone, since it is larger than these
    EVENT_TUNNEL = 5                # packets to be written to a tunnel; likewise
    EVENT_LEG_GONE = 8              # a leg has ended with its connection, or that of the leg it was joined to: `stream` is its id

cdef struct Event:
    int kind
    Handle *handle
    void *object                    # the weak reference of a handle, once it has one; a strong reference to that, of ours
    uint32_t events
    uint64_t stream
    uint32_t id
    uint16_t protocol
    uint8_t identity[32]

cdef class Engine:
    cdef Registry registry
    cdef uint64_t last_cid          # of the packet before: most packets come in runs
    cdef LocalCid *last_id          # what is found by it
    cdef void *released_handles     # stacks of what destructors have let go of; pushed on without the lock
    cdef void *released_streams
    cdef uint64_t now_ns            # of the last handle_* or poll_*
    cdef void *mutex
    cdef long waiters               # threads that wait for the lock; whoever holds it long looks here
    cdef bint is_kicked             # `kick` was called, and no turn has come since
    cdef object kick                # called without arguments when a verb has made something to send; under the lock
    cdef long generation            # of the process it belongs to

    cdef void lock(self) noexcept nogil
    cdef bint try_lock(self) noexcept nogil
    cdef void lock_waiting(self) noexcept nogil
    cdef void unlock(self) noexcept nogil
    cdef bint is_forked(self) noexcept nogil

    cdef void set_now(self, uint64_t now_ns) noexcept nogil
    cdef void handle_batch(self, RecvBatch *batch, uint64_t now_ns) noexcept nogil
    cdef void handle_message(self, const Datagrams *d, uint64_t now_ns) noexcept nogil
    cdef bint has_mail(self) noexcept nogil
    cdef void handle_mail(self, uint64_t now_ns) noexcept nogil
    cdef uint32_t take_posted(self) noexcept nogil
    cdef void handle_timeout(self, uint64_t now_ns) noexcept nogil
    cdef bint poll_transmit(self, SendBatch *batch, uint64_t now_ns) noexcept nogil
    cdef bint fill(self, SendBatch *batch, uint64_t now_ns) noexcept nogil
    cdef bint divert(self, SendBatch *batch) noexcept nogil
    cdef void handle_tunnelled(self, uint64_t now_ns) noexcept nogil
    cdef void refuse(self, const Datagrams *d) noexcept nogil
    cdef void handle_refusals(self, const SendBatch *batch) noexcept nogil
    cdef uint64_t poll_timeout(self) noexcept nogil
    cdef uint64_t next_deadline_ns(self) noexcept nogil
    cdef bint has_events(self) noexcept nogil
    cdef int poll_events(self, Event *out, int room) noexcept nogil

    cdef Handle *dial(self, const uint8_t *identity, const uint8_t *peer_key, const uint8_t *protocol,
                      uint32_t protocol_bytes, const Endpoint *candidates, int count) noexcept nogil
    cdef void let_go_of_handle(self, Handle *handle) noexcept nogil
    cdef void let_go_of_stream(self, Stream *s) noexcept nogil

    cdef void handle_run(self, const Datagrams *d, uint32_t at, uint32_t end, uint64_t now_ns) noexcept nogil
    cdef bint handle_early(self, uint64_t leg) noexcept nogil
    cdef void sort_message(self, const Datagrams *d, uint64_t now_ns) noexcept nogil
    cdef uint32_t handle_legs(self, const Datagrams *d, uint32_t at, uint32_t end, uint64_t now_ns) noexcept nogil
    cdef void unwrap(self, const Leg *leg, const Datagrams *d, uint32_t at, uint32_t end, uint32_t segment,
                     uint64_t now_ns) noexcept nogil
    cdef void handle_datagram(self, uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil
    cdef void handle_stun(self, const uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil
    cdef void handle_probe(self, const uint8_t *p, uint32_t n, const Datagrams *from_) noexcept nogil
    cdef void offer(self, const uint8_t *token, uint32_t token_bytes, const uint8_t *p, uint32_t n, const Datagrams *from_,
                    uint64_t *dropped) noexcept nogil
    cdef bint is_forwarding(self) noexcept nogil
    cdef bint has_gone_legs(self) noexcept nogil
    cdef bint transmit_replies(self, SendBatch *batch) noexcept nogil
    cdef void settle(self, Conn *c) noexcept nogil
    cdef void take_back(self) noexcept nogil
