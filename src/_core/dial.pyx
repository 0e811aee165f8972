"""The initiator's side of the handshake: whom to call, when to call again, when to give up (docs/spec, chapter 4).

One first message serves every candidate address and every retransmission, so whichever way the answer comes, it is the
answer. The machine ends in one of four ways; the connection that dials learns which.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from interpeer._core.crypto cimport MAC_BYTES, wipe
from interpeer._core.handshake cimport (
    HANDSHAKE_OK, HANDSHAKE_OPEN, HANDSHAKE_PARAMETER, NodeKeys, ResponseMessage, mac1_key_of, open_reply,
    read_response, sealing_key_of, stamp_init, write_init)
from interpeer._core.slab cimport Endpoint
from interpeer._core.wire cimport INIT_BYTES, INIT_MACS_BYTES, VERSION, Parameters

# [state][input] -> next state
cdef uint8_t[6][5] TABLE = [
    # ANSWER           REFUSAL          VERSIONS         COOKIE           DEADLINE
    [DIAL_ANSWERED,   DIAL_REFUSED,    DIAL_DOUBTFUL,   DIAL_CALLING,    DIAL_TIMED_OUT],       # CALLING
    [DIAL_ANSWERED,   DIAL_REFUSED,    DIAL_DOUBTFUL,   DIAL_CALLING,    DIAL_MISMATCHED],      # DOUBTFUL
    [DIAL_ANSWERED,   DIAL_ANSWERED,   DIAL_ANSWERED,   DIAL_ANSWERED,   DIAL_ANSWERED],        # ANSWERED
    [DIAL_REFUSED,    DIAL_REFUSED,    DIAL_REFUSED,    DIAL_REFUSED,    DIAL_REFUSED],         # REFUSED
    [DIAL_MISMATCHED, DIAL_MISMATCHED, DIAL_MISMATCHED, DIAL_MISMATCHED, DIAL_MISMATCHED],      # MISMATCHED
    [DIAL_TIMED_OUT,  DIAL_TIMED_OUT,  DIAL_TIMED_OUT,  DIAL_TIMED_OUT,  DIAL_TIMED_OUT],       # TIMED_OUT
]


cdef int dial_input(Dial *d, int event) noexcept nogil:
    """Move the machine; return whether it has moved."""
    cdef uint8_t before = d.state
    d.state = TABLE[d.state][event]
    return d.state != before


cdef bint dial_is_over(const Dial *d) noexcept nogil:
    return d.state > DIAL_DOUBTFUL


cdef Dial *dial_new() noexcept nogil:
    """Return a machine with no candidates and no init yet; NULL without memory."""
    cdef Dial *d = <Dial *>calloc(1, sizeof(Dial))
    if d != NULL:
        d.retry_ns = FIRST_RETRY_NS
    return d


cdef int dial_prepare(Dial *d, const NodeKeys *k, const uint8_t *peer_key, uint64_t cid, const Parameters *parameters,
                      const uint8_t *ephemeral) noexcept nogil:
    """Write the init for the owner of an X25519 key. Return 0, or -1 for a key that is no good."""
    mac1_key_of(k, peer_key, d.mac1_key)
    sealing_key_of(k, peer_key, d.sealing_key)
    if write_init(k, &d.noise, d.init, peer_key, cid, parameters, ephemeral) != 0:
        return -1
    d.cid = cid
    return 0


cdef void dial_free(Dial *d) noexcept nogil:
    if d != NULL:
        wipe(d, sizeof(Dial))
        free(d)


cdef void dial_begin(Dial *d, uint64_t now_ns, uint64_t timeout_ns) noexcept nogil:
    """Start calling; the first init is due at once."""
    d.next_ns = now_ns
    d.deadline_ns = now_ns + timeout_ns


cdef Candidate *find_candidate(Dial *d, const Endpoint *address) noexcept nogil:
    cdef int i
    for i in range(d.count):
        if memcmp(&d.candidates[i].address, address, sizeof(Endpoint)) == 0:
            return &d.candidates[i]
    return NULL


cdef Candidate *dial_add_candidate(Dial *d, const Endpoint *address) noexcept nogil:
    """Add an address, or find it among those there are; NULL when there are too many."""
    cdef Candidate *candidate = find_candidate(d, address)
    if candidate != NULL or d.count == MAX_CANDIDATES:
        return candidate
    d.candidates[d.count].address = address[0]
    d.count += 1
    return &d.candidates[d.count - 1]


cdef Candidate *dial_add_caller(Dial *d, const Endpoint *address) noexcept nogil:
    """Add the address that the peer's own call came from, if it is a new one.

    Anybody can replay that call in anybody's name, so it gets one message of ours for each of its own."""
    cdef Candidate *candidate = find_candidate(d, address)
    if candidate == NULL:
        candidate = dial_add_candidate(d, address)
        if candidate != NULL:
            candidate.is_callers = True
    return candidate


cdef bint dial_has_called(Dial *d, const Endpoint *address) noexcept nogil:
    """Tell whether the application has named this address, and an init has gone there."""
    cdef Candidate *candidate = find_candidate(d, address)
    return candidate != NULL and candidate.sent and not candidate.is_callers


cdef Candidate *dial_poll(Dial *d, uint64_t now_ns) noexcept nogil:
    """Return the candidate that an init is due to be sent to now, or NULL; each is returned once when due."""
    cdef Candidate *candidate
    if dial_is_over(d) or now_ns < d.next_ns or d.count == 0:
        return NULL
    candidate = &d.candidates[d.turn]
    if candidate.is_callers:        # there is no other: the application has named none
        candidate = NULL
    d.turn += 1
    while d.turn < d.count and d.candidates[d.turn].is_callers:
        d.turn += 1
    if d.turn < d.count:
        d.next_ns = now_ns + CANDIDATE_GAP_NS
    else:
        d.turn = 0
        d.next_ns = now_ns + d.retry_ns
        d.retry_ns = d.retry_ns * 2 if d.retry_ns * 2 < MAX_RETRY_NS else MAX_RETRY_NS
    return candidate


cdef void dial_stamp(Dial *d, Candidate *candidate, uint64_t now_ns) noexcept nogil:
    """Make `init` ready for a candidate: with the cookie it asked for, if it has."""
    cdef const uint8_t *cookie = NULL
    if candidate.has_cookie:
        cookie = candidate.cookie
    stamp_init(d.init, d.mac1_key, cookie)
    candidate.sent += 1
    d.sent += 1
    d.last_sent_ns = now_ns


cdef void dial_hold(Dial *d, uint64_t now_ns) noexcept nogil:
    """Set answers aside for a while: the peer's own handshake wins (glare), and has been answered."""
    if not d.was_held:
        d.was_held = True
        d.hold_until_ns = now_ns + HOLD_NS


cdef int dial_handle_response(Dial *d, const uint8_t *message, size_t bytes, const uint8_t *identity,
                              ResponseMessage *out, uint64_t now_ns) noexcept nogil:
    """Take a response to our init. Return HANDSHAKE_*; unless it is HANDSHAKE_OK, nothing has happened.

    After HANDSHAKE_OK the machine is ANSWERED, and `noise` ready to be split; or REFUSED, as `out` says."""
    cdef Noise before = d.noise
    cdef int result = HANDSHAKE_OPEN
    if not dial_is_over(d) and now_ns >= d.hold_until_ns:
        result = read_response(&d.noise, message, bytes, identity, out)
        if result == HANDSHAKE_OK and not out.parameters.refusal and not out.parameters.connection_id:
            result = HANDSHAKE_PARAMETER
        if result != HANDSHAKE_OK:
            d.noise = before
        else:
            dial_input(d, DIAL_IN_REFUSAL if out.parameters.refusal else DIAL_IN_ANSWER)
    wipe(&before, sizeof(Noise))
    return result


cdef Candidate *dial_handle_cookie(Dial *d, const uint8_t *message, size_t bytes, const Endpoint *source) noexcept nogil:
    """Take a cookie. Return the candidate to call again at once, or NULL if the reply is not for us.

    It comes from where we called. From there it makes us call again at once only the first time: it is sealed with what
    anybody knows who saw the init."""
    cdef uint8_t text[16]
    cdef Candidate *candidate = find_candidate(d, source)
    cdef bint had_cookie
    if candidate == NULL or dial_is_over(d):
        return NULL
    if open_reply(text, message, bytes, d.sealing_key, d.init + INIT_BYTES - INIT_MACS_BYTES) != MAC_BYTES:
        return NULL
    had_cookie = candidate.has_cookie
    memcpy(candidate.cookie, text, MAC_BYTES)
    candidate.has_cookie = True
    dial_input(d, DIAL_IN_COOKIE)
    d.doubt_ns = 0                  # whoever wants a cookie of us speaks our version
    return NULL if had_cookie or candidate.is_callers else candidate


cdef int dial_handle_versions(Dial *d, const uint8_t *message, size_t bytes, uint64_t now_ns) noexcept nogil:
    """Take a list of versions. It is sealed, but not by the peer's secret: doubt, and wait for a true answer."""
    cdef uint8_t text[16]
    cdef Py_ssize_t i, n
    if dial_is_over(d):
        return HANDSHAKE_OPEN
    n = open_reply(text, message, bytes, d.sealing_key, d.init + INIT_BYTES - INIT_MACS_BYTES)
    if n < 0:
        return HANDSHAKE_OPEN
    for i in range(n):
        if text[i] == VERSION:
            return HANDSHAKE_PARAMETER      # it speaks ours: a downgrade, or nonsense
    if d.state == DIAL_CALLING:
        dial_input(d, DIAL_IN_VERSIONS)
        d.doubt_ns = now_ns + DOUBT_NS
    return HANDSHAKE_OK


cdef inline uint64_t end_ns(const Dial *d) noexcept nogil:
    """Return when the call is given up."""
    return d.doubt_ns if d.doubt_ns and d.doubt_ns < d.deadline_ns else d.deadline_ns


cdef void dial_handle_timeout(Dial *d, uint64_t now_ns) noexcept nogil:
    if now_ns >= end_ns(d):
        dial_input(d, DIAL_IN_DEADLINE)


cdef uint64_t dial_deadline_ns(const Dial *d) noexcept nogil:
    """Return when something is due; 0 when the machine is over."""
    if dial_is_over(d):
        return 0
    if d.count == 0 or end_ns(d) < d.next_ns:
        return end_ns(d)
    return d.next_ns
