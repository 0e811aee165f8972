from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.handshake cimport NodeKeys, ResponseMessage
from interpeer._core.noise cimport Noise
from interpeer._core.slab cimport Endpoint
from interpeer._core.wire cimport Parameters

cdef enum:
    MAX_CANDIDATES = 16             # addresses tried for one peer
    CANDIDATE_GAP_NS = 50000000     # between two addresses of one round (RFC 8305 has 250 ms for TCP)
    FIRST_RETRY_NS = 250000000      # between the first two rounds; doubles
    MAX_RETRY_NS = 1000000000       # twelve rounds in ten seconds: 30 % loss each way fails once in 3000
    DOUBT_NS = 1000000000           # how long a true answer may still come after a versions reply
    HOLD_NS = 1000000000            # how long the loser of a glare leaves its own handshake alone

cdef enum:                          # states (docs/spec, chapter 4)
    DIAL_CALLING = 0
    DIAL_DOUBTFUL = 1               # somebody says that the peer does not speak our version
    DIAL_ANSWERED = 2
    DIAL_REFUSED = 3
    DIAL_MISMATCHED = 4
    DIAL_TIMED_OUT = 5
    DIAL_STATES = 6

cdef enum:                          # inputs
    DIAL_IN_ANSWER = 0
    DIAL_IN_REFUSAL = 1
    DIAL_IN_VERSIONS = 2
    DIAL_IN_COOKIE = 3
    DIAL_IN_DEADLINE = 4

cdef struct Candidate:
    Endpoint address
    uint32_t sent                   # first messages sent to it
    bint has_cookie
    bint is_callers                 # the peer's own call came from there: it is called when that comes, and only then
    uint8_t cookie[16]

cdef struct Dial:
    uint8_t state
    Noise noise
    uint8_t init[1200]
    uint8_t mac1_key[32]
    uint8_t sealing_key[32]
    uint64_t cid                    # ours, in the init; 0: the init is not written yet
    uint8_t protocol[64]            # name of the application's protocol
    uint32_t protocol_bytes
    Candidate candidates[16]
    uint8_t count
    uint8_t turn                    # the candidate that is next
    uint32_t sent
    Candidate *urgent               # to be called at once, out of turn; one of the above, or NULL
    uint64_t next_ns                # when the next init is due
    uint64_t retry_ns               # pause before the next round
    uint64_t deadline_ns            # the application's
    uint64_t doubt_ns               # DOUBTFUL ends then; otherwise 0
    uint64_t last_sent_ns
    uint64_t hold_until_ns          # answers are set aside until then; 0: not (glare)
    bint was_held                   # once is enough: a replayed init must not hold it again and again

cdef Dial *dial_new() noexcept nogil
cdef int dial_prepare(Dial *d, const NodeKeys *k, const uint8_t *peer_key, uint64_t cid, const Parameters *parameters,
                      const uint8_t *ephemeral) noexcept nogil
cdef void dial_free(Dial *d) noexcept nogil
cdef int dial_input(Dial *d, int event) noexcept nogil
cdef bint dial_is_over(const Dial *d) noexcept nogil
cdef void dial_begin(Dial *d, uint64_t now_ns, uint64_t timeout_ns) noexcept nogil
cdef Candidate *dial_add_candidate(Dial *d, const Endpoint *address) noexcept nogil
cdef Candidate *dial_add_caller(Dial *d, const Endpoint *address) noexcept nogil
cdef bint dial_has_called(Dial *d, const Endpoint *address) noexcept nogil
cdef Candidate *dial_poll(Dial *d, uint64_t now_ns) noexcept nogil
cdef void dial_stamp(Dial *d, Candidate *candidate, uint64_t now_ns) noexcept nogil
cdef void dial_hold(Dial *d, uint64_t now_ns) noexcept nogil
cdef int dial_handle_response(Dial *d, const uint8_t *message, size_t bytes, const uint8_t *identity,
                              ResponseMessage *out, uint64_t now_ns) noexcept nogil
cdef Candidate *dial_handle_cookie(Dial *d, const uint8_t *message, size_t bytes, const Endpoint *source) noexcept nogil
cdef int dial_handle_versions(Dial *d, const uint8_t *message, size_t bytes, uint64_t now_ns) noexcept nogil
cdef void dial_handle_timeout(Dial *d, uint64_t now_ns) noexcept nogil
cdef uint64_t dial_deadline_ns(const Dial *d) noexcept nogil
