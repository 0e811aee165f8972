"""When a connection has to be looked at again, and what is due then (docs/spec, chapters 5 and 9).

Deadlines are computed from what the connection knows and never stored twice, so that none can be forgotten; the engine
asks after every turn, and keeps one timer for each connection.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.carrier cimport carrier_ask
from interpeer._core.channels cimport channels_expire
from interpeer._core.conn cimport (
    CLOSED_BY_SILENCE, CONN_CLOSING, CONN_DRAINING, CONN_IN_DRAINED, CONN_IN_SILENCE, CONN_OPEN, CONN_PENDING_PATHS,
    Conn, conn_close_info, conn_input, conn_wake)
from interpeer._core.datagram cimport messages_trim
from interpeer._core.delivery cimport conn_handle_probe_timeout, conn_handle_recovery_timeout
from interpeer._core.keys cimport keys_handle_timeout
from interpeer._core.loss cimport recovery_deadline, recovery_pto_ns
from interpeer._core.path cimport PATH_PENDING_PING, SUSPECT_PTOS, Path, path_is_live, path_is_proven
from interpeer._core.paths cimport paths_deadline_ns, paths_handle_timeout, paths_longest_pto_ns, paths_silent
from interpeer._core.protection cimport recv_keys_forget_previous
from interpeer._core.slab cimport ENDPOINT_LEG, endpoint_kind

cdef enum:
    QUIET_PTOS = 3                  # data that cease for so long make us ask
    ASKED_RTTS = 2                  # the responder leaves it to the initiator to keep a path open, and waits so much longer
    LEAST_QUIET_NS = 100000000      # ... but not sooner: most silences mean nothing
    UNCONFIRMED_NS = 10000000000    # without a word behind the response: the responder has forgotten the call (HALF_OPEN_NS)
    IDLE_PTOS = 3                   # the idle time-out is never shorter than so many probe time-outs (RFC 9000, 10.1)


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    """Return the earlier of two deadlines, 0 being never."""
    return b if a == 0 or (b and b < a) else a


cdef uint64_t idle_deadline_ns(const Conn *c) noexcept nogil:
    cdef uint64_t since = c.last_received_ns, timeout = c.idle_timeout_ns
    cdef uint64_t least = IDLE_PTOS * paths_longest_pto_ns(c)
    if not c.is_confirmed and (timeout == 0 or timeout > <uint64_t>UNCONFIRMED_NS):
        timeout = UNCONFIRMED_NS
    if timeout == 0:
        return 0
    if c.waiting_since_ns > since:
        since = c.waiting_since_ns
    return since + (timeout if timeout > least else least)


cdef uint64_t ping_deadline_ns(const Conn *c, const Path *p) noexcept nogil:
    """Return when silence is to be broken on a path: to keep it open on the way; or soon, where data have ceased to come, for
    the peer may be sending them to where we are not any more (a NAT has forgotten us) and hear nothing of it."""
    cdef uint64_t since = p.last_received_ns if p.last_received_ns > p.last_sent_ns else p.last_sent_ns
    cdef uint64_t quiet_ns = QUIET_PTOS * recovery_pto_ns(&p.recovery, c.peer_ack_delay_ns)
    if p.pending & PATH_PENDING_PING or not path_is_live(p) or not path_is_proven(p):
        return 0
    if p.data_ns and p.recovery.eliciting_in_flight == 0:
        return p.data_ns + (quiet_ns if quiet_ns > LEAST_QUIET_NS else LEAST_QUIET_NS)
    if not c.is_initiator:
        since += ASKED_RTTS * p.recovery.rtt.smoothed_ns    # if the initiator asks, we need not
    if p.keep_alive_ns:
        return since + p.keep_alive_ns
    return since + c.context.limits.keep_alive_ns if c.context.limits.keep_alive_ns else 0


cdef uint64_t path_deadline_ns(const Conn *c, const Path *p) noexcept nogil:
    cdef uint64_t deadline = ping_deadline_ns(c, p)
    if path_is_proven(p):           # until then acknowledgements go at once, or have to wait for credit
        deadline = earlier(deadline, p.ack_deadline_ns)
    if p.pto_probes == 0:
        deadline = earlier(deadline, recovery_deadline(&p.recovery, c.peer_ack_delay_ns))
    deadline = earlier(deadline, p.mtu.probe_deadline_ns)
    return earlier(deadline, p.paced_until_ns)


cdef uint64_t conn_deadline_ns(const Conn *c) noexcept nogil:
    """Return when conn_handle_timeout is due; 0: never. A dialling connection's is the handshake's business."""
    cdef uint64_t deadline
    cdef uint32_t i
    if c.state == CONN_CLOSING or c.state == CONN_DRAINING:
        return c.close_deadline_ns
    if c.state != CONN_OPEN:
        return 0
    deadline = earlier(idle_deadline_ns(c), paths_deadline_ns(c))
    for i in range(c.path_count):
        deadline = earlier(deadline, path_deadline_ns(c, c.paths[i]))
    deadline = earlier(deadline, c.rekey.deadline_ns)
    if c.channels != NULL:
        deadline = earlier(deadline, c.channels.due_ns)
    return earlier(deadline, c.previous_until_ns)


cdef void conn_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil:
    """Do whatever is due by now."""
    cdef uint64_t deadline
    cdef uint32_t i
    if c.state == CONN_CLOSING or c.state == CONN_DRAINING:
        if c.close_deadline_ns and c.close_deadline_ns <= now_ns:
            conn_input(c, CONN_IN_DRAINED)
        return
    if c.state != CONN_OPEN:
        return
    conn_wake(c)
    deadline = idle_deadline_ns(c)
    if deadline and deadline <= now_ns:
        conn_close_info(c, CLOSED_BY_SILENCE, 0, False, NULL, 0)
        conn_input(c, CONN_IN_SILENCE)
        return
    if c.previous_until_ns and c.previous_until_ns <= now_ns:
        recv_keys_forget_previous(&c.recv)
        c.previous_until_ns = 0
    if c.rekey.deadline_ns and c.rekey.deadline_ns <= now_ns:
        keys_handle_timeout(c, now_ns)
    paths_handle_timeout(c, now_ns)
    for i in range(c.path_count):
        handle_path_timeout(c, c.paths[i], now_ns)
    channels_expire(c, now_ns)


cdef void handle_path_timeout(Conn *c, Path *p, uint64_t now_ns) noexcept nogil:
    cdef uint64_t deadline
    if p.ack_deadline_ns and p.ack_deadline_ns <= now_ns:
        p.ack_now = True
    deadline = recovery_deadline(&p.recovery, c.peer_ack_delay_ns)
    if deadline and deadline <= now_ns:
        conn_handle_recovery_timeout(c, p, now_ns)
        if p.recovery.pto_count and endpoint_kind(p.remote.address) == ENDPOINT_LEG:
            carrier_ask(c.context, p)
        if p.recovery.pto_count >= SUSPECT_PTOS:
            if c.path_count > 1:
                paths_silent(c, p)
            memset(p.local, 0, sizeof(p.local))     # our address may be what fails: the system knows a better one, or the same
    if p.mtu.probe_deadline_ns and p.mtu.probe_deadline_ns <= now_ns:
        conn_handle_probe_timeout(c, p)
    deadline = ping_deadline_ns(c, p)
    if deadline and deadline <= now_ns:
        p.data_ns = 0
        p.pending |= PATH_PENDING_PING
        c.pending |= CONN_PENDING_PATHS
        messages_trim(&c.messages_out)
        messages_trim(&c.messages_in)
