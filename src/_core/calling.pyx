"""The initiator's part of a handshake: inits to where the peer may be, what comes back, and the connection that it makes.

What each message says and when it is sent is `dial`'s business; here it meets the registry (docs/spec, chapter 4).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.answer cimport HalfOpen, answering_forget_glare, answering_has_glare, half_open_find_peer
from interpeer._core.carrier cimport carrier_direct, lead_bytes
from interpeer._core.conn cimport (
    CLOSED_BY_REFUSAL, CLOSED_BY_VERSION, CLOSED_UNREACHABLE, CONN_IN_ANSWERED, CONN_IN_FAILED, CONN_PENDING_PING,
    Conn, conn_close_info, conn_input, conn_start, conn_wake)
from interpeer._core.context cimport entropy_take
from interpeer._core.crypto cimport KEY_BYTES, wipe
from interpeer._core.dial cimport (
    DIAL_MISMATCHED, DIAL_REFUSED, HOLD_NS, Candidate, Dial, dial_begin, dial_free, dial_handle_cookie,
    dial_handle_response, dial_handle_timeout, dial_has_called, dial_is_over, dial_poll, dial_prepare, dial_stamp)
from interpeer._core.handshake cimport HANDSHAKE_IDENTITY, HANDSHAKE_OK, ResponseMessage
from interpeer._core.loss cimport recovery_seed_rtt
from interpeer._core.noise cimport noise_split
from interpeer._core.path cimport path_doubt
from interpeer._core.registry cimport (
    Registry, registry_add, registry_list_first_cid, registry_new_cid, registry_parameters, registry_start_path)
from interpeer._core.relay cimport LEG_BYTES
from interpeer._core.slab cimport SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, SendBatch
from interpeer._core.tracing cimport tracing_secrets
from interpeer._core.wire cimport CODE_IDENTITY, CODE_NO_SUITE, INIT_BYTES, Parameters


cdef void calling_claim(Registry *r, Conn *c) noexcept nogil:
    """Have a new call take over what the same peer has called us for, once that is confirmed: which may be before the init of
    this call is written."""
    cdef HalfOpen *h = half_open_find_peer(&r.answering, c.peer_key, c.protocol)
    while h != NULL:                # all of them: it may have called and given up before it called again
        h.glare = c
        h = half_open_find_peer(&r.answering, c.peer_key, c.protocol)


cdef bint calling_transmit(Registry *r, Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Send the inits that are due. Return whether the batch is full."""
    cdef Dial *d = <Dial *>c.dial
    cdef Candidate *candidate
    cdef Datagrams *entry
    cdef uint32_t lead
    cdef uint8_t any_of_ours[16]
    memset(any_of_ours, 0, sizeof(any_of_ours))
    if d.cid == 0 and not begin_dial(r, c, d, now_ns):
        return False
    while True:
        if batch.count == SEND_ENTRIES or batch.used + INIT_BYTES + LEG_BYTES > SEND_BATCH_BYTES:
            return True
        candidate = d.urgent
        d.urgent = NULL
        if candidate == NULL or dial_is_over(d):
            candidate = dial_poll(d, now_ns)
        if candidate == NULL:
            return False
        dial_stamp(d, candidate, now_ns)
        entry = &batch.entries[batch.count]
        memset(entry, 0, sizeof(Datagrams))
        entry.data = batch.buffer + batch.used
        lead = lead_bytes(&candidate.address)
        entry.bytes = INIT_BYTES + lead
        entry.segment = entry.bytes
        if not carrier_direct(&r.context, entry, &candidate.address, any_of_ours):
            continue
        memcpy(entry.data + lead, d.init, INIT_BYTES)
        batch.used += entry.bytes
        batch.count += 1
        batch.run = 0


cdef bint begin_dial(Registry *r, Conn *c, Dial *d, uint64_t now_ns) noexcept nogil:
    """Write the init; without random bytes, next turn, which is due at once. A peer that is just calling us is given time
    to finish."""
    cdef Parameters ours
    cdef uint8_t ephemeral[32]
    cdef uint64_t cid
    if d.deadline_ns == 0:
        dial_begin(d, now_ns, r.context.limits.connect_timeout_ns)
    if not registry_new_cid(r, &cid) or entropy_take(&r.context.entropy, ephemeral, KEY_BYTES) != 0:
        return False
    registry_parameters(r, &ours, cid)
    memcpy(ours.suites, r.suites, sizeof(ours.suites))
    ours.protocol = d.protocol
    ours.protocol_bytes = d.protocol_bytes
    if dial_prepare(d, &r.keys, c.peer_key, cid, &ours, ephemeral) != 0 or registry_list_first_cid(r, c, cid) != 0:
        conn_close_info(c, CLOSED_UNREACHABLE, CODE_IDENTITY, False, NULL, 0)
        conn_input(c, CONN_IN_FAILED)
        return False
    wipe(ephemeral, KEY_BYTES)
    if answering_has_glare(&r.answering, c):
        d.next_ns = now_ns + HOLD_NS
    return True


cdef void calling_handle_response(Registry *r, Conn *c, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                  uint64_t now_ns) noexcept nogil:
    cdef Dial *d = <Dial *>c.dial
    cdef ResponseMessage response
    cdef Parameters *theirs = &response.parameters
    cdef int result = dial_handle_response(d, p, n, c.peer_identity, &response, now_ns)
    if result != HANDSHAKE_OK:
        if result == HANDSHAKE_IDENTITY:
            r.context.counters.dropped_identity += 1
        else:
            r.context.counters.dropped_handshake += 1
        return
    if d.state == DIAL_REFUSED:
        conn_close_info(c, CLOSED_BY_REFUSAL, theirs.refusal, False, theirs.reason, theirs.reason_bytes)
        conn_input(c, CONN_IN_FAILED)
        return
    if not is_offered(r, theirs.suites[0]) or open_session(r, c, d, theirs, from_, n, now_ns) != 0:
        conn_close_info(c, CLOSED_BY_REFUSAL, CODE_NO_SUITE, False, NULL, 0)
        conn_input(c, CONN_IN_FAILED)


cdef bint is_offered(const Registry *r, uint8_t suite) noexcept nogil:
    cdef size_t i
    for i in range(sizeof(r.suites)):
        if suite and r.suites[i] == suite:
            return True
    return False


cdef int open_session(Registry *r, Conn *c, Dial *d, const Parameters *theirs, const Datagrams *from_,
                      uint32_t bytes, uint64_t now_ns) noexcept nogil:
    """Turn an answered call into an open connection, whose first packet goes out at once."""
    cdef uint8_t send_secret[32]
    cdef uint8_t recv_secret[32]
    cdef int result = noise_split(&d.noise, send_secret, recv_secret)
    if result == 0:
        result = registry_start_path(r, c, &from_.remote, from_.local, d.cid, theirs.connection_id)
    if result == 0:
        c.is_initiator = True
        result = conn_start(c, theirs.suites[0], send_secret, recv_secret, theirs, now_ns)
    if result == 0 and not dial_has_called(d, &from_.remote):
        result = path_doubt(c.path, bytes)
    if result == 0:
        result = registry_add(r, c)
    if result == 0 and r.context.trace != NULL:
        tracing_secrets(c, send_secret, recv_secret)
    wipe(send_secret, KEY_BYTES)
    wipe(recv_secret, KEY_BYTES)
    if result != 0:
        return -1
    if d.sent == 1:
        recovery_seed_rtt(&c.path.recovery, now_ns - d.last_sent_ns)
    c.dial = NULL
    dial_free(d)
    answering_forget_glare(&r.answering, c)     # what the peer calls for besides is a connection of its own
    c.pending |= CONN_PENDING_PING  # confirms the keys to the responder, which keeps no connection until then
    conn_input(c, CONN_IN_ANSWERED)
    r.context.counters.connections_opened += 1
    return 0


cdef void calling_handle_cookie(Registry *r, Conn *c, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                uint64_t now_ns) noexcept nogil:
    cdef Dial *d = <Dial *>c.dial
    cdef Candidate *candidate = dial_handle_cookie(d, p, n, &from_.remote)
    if candidate == NULL:
        r.context.counters.dropped_handshake += 1
    else:
        d.urgent = candidate
        conn_wake(c)


cdef void calling_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil:
    """Give up when it is time to."""
    cdef Dial *d = <Dial *>c.dial
    dial_handle_timeout(d, now_ns)
    if dial_is_over(d):
        conn_close_info(c, CLOSED_BY_VERSION if d.state == DIAL_MISMATCHED else CLOSED_UNREACHABLE, 0, False, NULL, 0)
        conn_input(c, CONN_IN_FAILED)
