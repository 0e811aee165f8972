from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.answer cimport Answering, HalfOpen
from interpeer._core.conn cimport Conn, Handle
from interpeer._core.context cimport Context
from interpeer._core.early cimport Early
from interpeer._core.handshake cimport NodeKeys
from interpeer._core.links cimport Link
from interpeer._core.raw cimport Raw
from interpeer._core.shards cimport Shards
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.table cimport Table
from interpeer._core.timers cimport Timers
from interpeer._core.tunnel cimport Tunnels
from interpeer._core.wire cimport Parameters

cdef enum:
    MAX_PROTOCOLS = 32              # that a node offers
    NO_PROTOCOL = 0xFFFF            # one that we do not offer
    MAX_REPLIES = 64                # handshake messages waiting to be sent; more are dropped, as a network would
    MAX_ASKS = 64                   # questions to the application that wait for it

cdef enum:                          # whom we let in
    ALLOW_ANYBODY = 0
    ALLOW_LISTED = 1
    ALLOW_ASK = 2                   # the application decides

cdef enum:
    STUN_CREDITS = 256              # addresses that are remembered for what they have paid for STUN; by hash

cdef struct Reply:                  # a handshake message on its way out
    Endpoint remote
    uint8_t local[16]
    uint16_t bytes
    uint8_t data[512]

cdef struct Ask:                    # may this peer come in?
    uint32_t id                     # of the HalfOpen
    uint16_t protocol
    uint8_t identity[32]

cdef struct Protocol:
    uint8_t name[64]
    uint32_t bytes

cdef struct Rate:                   # a token bucket
    double tokens
    uint64_t updated_ns

cdef struct StunCredit:             # of an address that has asked by STUN
    uint8_t address[16]
    uint8_t bytes                   # received from there, and neither answered nor too many

cdef struct Registry:               # everything an engine holds
    Context context
    NodeKeys keys
    Answering answering
    Timers timers
    Table by_cid                    # a LocalCid of each connection id that we have given out
    Table by_token                  # connections by the first bytes of the peer's reset tokens
    Table allowed                   # identities (32 bytes each, owned) by their first bytes
    Link dialing                    # connections that we have called for, until their peers are seen to have confirmed them
    Link live                       # all others
    uint32_t connections
    uint32_t backlog                # incoming connections that the application has not taken
    uint32_t max_backlog
    int policy                      # ALLOW_*
    bint is_closed                  # nothing comes in any more
    Protocol protocols[32]
    uint32_t protocol_count
    uint8_t suites[8]               # offered and accepted, in order of preference
    Reply replies[64]
    uint32_t first_reply
    uint32_t reply_count
    Ask asks[64]
    uint32_t ask_count
    Raw *raw                        # owned; NULL: none has been sent or expected
    Tunnels *tunnels                # owned; NULL: there never was one
    Rate resets
    Rate versions
    Rate cookies
    Rate wasted                     # inits that were read and came to nothing
    Rate stun_answers
    StunCredit stun_credits[256]
    Rate strays                     # packets of unknown connections that another shard may know
    Shards *shards                  # shared with the other engines of the node; NULL: there are none
    uint32_t shard                  # the number of this one
    uint32_t seen                   # shards that have looked at the datagram under way, a bit each; 0: it came by itself
    Early *early                    # calls that came before their legs; owned; NULL: there have been none
    uint32_t posted                 # shards to be woken for mail, a bit each

cdef void registry_init(Registry *r) noexcept nogil
cdef void registry_free(Registry *r) noexcept nogil
cdef bint registry_new_cid(Registry *r, uint64_t *cid) noexcept nogil
cdef int registry_list_first_cid(Registry *r, Conn *c, uint64_t cid) noexcept nogil
cdef void registry_tend_ids(Registry *r, Conn *c) noexcept nogil
cdef bint registry_is_reset_of(const Conn *c, const uint8_t *token) noexcept nogil
cdef int registry_add(Registry *r, Conn *c) noexcept nogil
cdef void registry_remove(Registry *r, Conn *c) noexcept nogil
cdef void registry_retire(Registry *r, Conn *c) noexcept nogil
cdef void registry_count_connection(Registry *r, int change) noexcept nogil
cdef bint registry_has_room(Registry *r) noexcept nogil
cdef bint registry_take_place(Registry *r) noexcept nogil
cdef void registry_leave_backlog(Registry *r, Conn *c) noexcept nogil
cdef bint registry_pass(Registry *r, uint32_t to, const Datagrams *from_, uint8_t *data, uint32_t bytes,
                        uint32_t segment, uint32_t seen) noexcept nogil
cdef int registry_start_path(Registry *r, Conn *c, const Endpoint *remote, const uint8_t *local,
                             uint64_t local_cid, uint64_t remote_cid) noexcept nogil
cdef void registry_parameters(Registry *r, Parameters *out, uint64_t cid) noexcept nogil
cdef uint16_t registry_protocol(const Registry *r, const uint8_t *name, uint32_t n) noexcept nogil
cdef bint registry_allows(const Registry *r, const uint8_t *identity) noexcept nogil
cdef int registry_allow(Registry *r, const uint8_t *identity) noexcept nogil
cdef double share_of(const Registry *r, double per_second) noexcept nogil
cdef Reply *registry_reply(Registry *r, const Datagrams *to) noexcept nogil
cdef bint rate_has(Rate *rate, double per_second, uint64_t now_ns) noexcept nogil
cdef bint rate_allows(Rate *rate, double per_second, uint64_t now_ns) noexcept nogil
