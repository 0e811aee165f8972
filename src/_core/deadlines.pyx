"""When a connection has to be looked at again, and what is due then (docs/spec, chapters 5 and 9).

Deadlines are computed from what the connection knows and never stored twice, so that none can be forgotten; the engine
asks after every turn, and keeps one timer for each connection.
"""

from libc.stdint cimport uint64_t

from interpeer._core.conn cimport (
    CLOSED_BY_SILENCE, CONN_CLOSING, CONN_DRAINING, CONN_IN_DRAINED, CONN_IN_SILENCE, CONN_OPEN, CONN_PENDING_PING,
    Conn, conn_close_info, conn_input, conn_wake)
from interpeer._core.datagram cimport messages_trim
from interpeer._core.delivery cimport conn_handle_probe_timeout, conn_handle_recovery_timeout
from interpeer._core.loss cimport recovery_deadline, recovery_pto_ns
from interpeer._core.path cimport Path
from interpeer._core.protection cimport recv_keys_forget_previous

cdef enum:
    IDLE_PTOS = 3                   # the idle time-out is never shorter than so many probe time-outs (RFC 9000, 10.1)


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    """Return the earlier of two deadlines, 0 being never."""
    return b if a == 0 or (b and b < a) else a


cdef uint64_t idle_deadline_ns(const Conn *c) noexcept nogil:
    cdef uint64_t since = c.last_received_ns, timeout = c.idle_timeout_ns
    cdef uint64_t least = IDLE_PTOS * recovery_pto_ns(&c.path.recovery, c.peer_ack_delay_ns)
    if timeout == 0:
        return 0
    if c.waiting_since_ns > since:
        since = c.waiting_since_ns
    return since + (timeout if timeout > least else least)


cdef uint64_t keep_alive_ns(const Conn *c) noexcept nogil:
    cdef uint64_t since = c.last_received_ns if c.last_received_ns > c.last_sent_ns else c.last_sent_ns
    if c.context.limits.keep_alive_ns == 0 or c.pending & CONN_PENDING_PING:
        return 0
    return since + c.context.limits.keep_alive_ns


cdef uint64_t conn_deadline_ns(const Conn *c) noexcept nogil:
    """Return when conn_handle_timeout is due; 0: never. A dialling connection's is the handshake's business."""
    cdef uint64_t deadline
    if c.state == CONN_CLOSING or c.state == CONN_DRAINING:
        return c.close_deadline_ns
    if c.state != CONN_OPEN:
        return 0
    deadline = earlier(idle_deadline_ns(c), keep_alive_ns(c))
    if c.path.is_proven:            # until then acknowledgements go at once, or have to wait for credit
        deadline = earlier(deadline, c.path.ack_deadline_ns)
    if c.pto_probes == 0:
        deadline = earlier(deadline, recovery_deadline(&c.path.recovery, c.peer_ack_delay_ns))
    deadline = earlier(deadline, c.path.mtu.probe_deadline_ns)
    deadline = earlier(deadline, c.paced_until_ns)
    return earlier(deadline, c.previous_until_ns)


cdef void conn_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil:
    """Do whatever is due by now."""
    cdef Path *p = &c.path
    cdef uint64_t deadline
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
    if p.ack_deadline_ns and p.ack_deadline_ns <= now_ns:
        p.ack_now = True
    deadline = recovery_deadline(&p.recovery, c.peer_ack_delay_ns)
    if deadline and deadline <= now_ns:
        conn_handle_recovery_timeout(c, now_ns)
    if p.mtu.probe_deadline_ns and p.mtu.probe_deadline_ns <= now_ns:
        conn_handle_probe_timeout(c)
    deadline = keep_alive_ns(c)
    if deadline and deadline <= now_ns:
        c.pending |= CONN_PENDING_PING
        messages_trim(&c.messages_out)
        messages_trim(&c.messages_in)
