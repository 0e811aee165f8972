"""What becomes of a connection's packets: acknowledged, lost, or neither for too long (docs/spec, chapter 9).

Loss tells of every packet once. What it carried and still matters is queued again here, never the packet itself: a
range of a stream that has been acknowledged meanwhile, or a limit that has been raised, is not repeated.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.channels cimport (
    conn_handle_channel_acked, conn_handle_dropped_acked, conn_handle_message_acked, conn_lose_piece,
    conn_requeue_channel)
from interpeer._core.cids cimport (
    LOCAL_SENT, LOCAL_UNSENT, REMOTE_FREE, REMOTE_RETIRED, REMOTE_RETIRING, LocalCid, RemoteCid, local_cid_find,
    remote_cids_find)
from interpeer._core.conn cimport (
    CONN_OPEN, CONN_PENDING_IDS, CONN_PENDING_MAX_CHANNELS, CONN_PENDING_MAX_DATA, CONN_PENDING_MAX_STREAMS,
    CONN_PENDING_PATHS, CONN_PENDING_REKEY, CONN_PENDING_SIGNALS, Conn, conn_find_stream, conn_report_observed,
    conn_settle_stream, conn_stream_changed, conn_wake)
from interpeer._core.loss cimport (
    RECORD_CHANNEL, RECORD_DROPPED, RECORD_MAX_CHANNELS, RECORD_MAX_STREAM_DATA, RECORD_NEW_CID, RECORD_OBSERVED,
    RECORD_PATH_ABANDON, RECORD_PATH_STATUS, RECORD_RESET_STREAM, RECORD_RETIRE_CID, RECORD_SIGNAL,
    RECORD_STOP_SENDING, RECORD_STREAM, SENT_COPIED, SENT_FIN, SENT_MAX_DATA, SENT_MAX_STREAMS, SENT_MTU_PROBE,
    SENT_REKEY, SENT_STREAM, AckOutcome, FrameRecord, SentPacket, recovery_give_up, recovery_handle_timeout,
    recovery_has_copy, recovery_oldest)
from interpeer._core.path cimport (
    ECN_FAILED, ECN_TESTING, PATH_ACTIVE, PATH_PENDING_ABANDON, PATH_PENDING_STATUS, Path, path_follow_mtu,
    path_handle_ack_acked, path_handle_outcome, path_is_from, path_is_live)
from interpeer._core.pmtud cimport (
    pmtud_handle_acked, pmtud_handle_lost, pmtud_handle_probe_acked, pmtud_handle_probe_lost, pmtud_handle_refused)
from interpeer._core.signals cimport signals_handle_acked, signals_handle_lost
from interpeer._core.slab cimport Endpoint, pool_give
from interpeer._core.stream cimport (
    PENDING_MAX_DATA, PENDING_RESET, PENDING_STOP, RECV_OPEN, SEND_IN_RESET_ACKED, SEND_RESETTING, Stream, send_input,
    stream_handle_acked, stream_handle_lost)
from interpeer._core.tracing cimport tracing_lost, tracing_metrics

cdef enum:
    PROBES = 2                      # packets sent for each probe time-out (RFC 9002, 6.2.4)
    ECN_BLACK_HOLE_PTOS = 3         # probe time-outs in a row before ECN is blamed


cdef void conn_on_acked(void *owner, uint64_t number, const SentPacket *p) noexcept nogil:
    cdef Path *path = <Path *>owner
    cdef Conn *c = <Conn *>path.conn
    cdef FrameRecord *record = p.more
    cdef FrameRecord *following
    if number >= path.epoch_first:
        path.epoch_confirmed = True
    if p.flags & SENT_MTU_PROBE:
        pmtud_handle_probe_acked(&path.mtu, number)
        path_follow_mtu(path)
    pmtud_handle_acked(&path.mtu, number, p.bytes)
    if p.ack_largest:
        path_handle_ack_acked(path, p.ack_largest)
    if p.flags & SENT_STREAM:
        stream_frame_acked(c, p.stream, p.offset, p.stream_bytes, (p.flags & SENT_FIN) != 0)
    while record != NULL:
        if record.kind == RECORD_STREAM:
            stream_frame_acked(c, record.stream, record.offset, record.bytes, record.fin)
        elif record.kind == RECORD_RESET_STREAM:
            reset_acked(c, record.stream)
        elif record.kind == RECORD_RETIRE_CID:
            retire_acked(c, record)
        elif record.kind == RECORD_PATH_ABANDON:
            abandon_acked(c, record.stream)
        elif record.kind == RECORD_DROPPED:
            dropped_acked(c, record)
        elif record.kind == RECORD_CHANNEL:
            channel_acked(c, record.stream)
        elif record.kind == RECORD_SIGNAL:
            signals_handle_acked(c.signals, record.offset)
        following = record.next
        pool_give(&c.context.records, record)
        record = following


cdef void stream_frame_acked(Conn *c, uint64_t id, uint64_t offset, uint64_t n, bint fin) noexcept nogil:
    cdef Stream *s = conn_find_stream(c, id)
    cdef uint8_t before
    if s != NULL and s.channel != NULL:
        conn_handle_message_acked(c, s, offset, n, fin)
    elif s != NULL:
        before = s.send_state
        stream_handle_acked(s, offset, n, fin)
        conn_settle_stream(c, s, before)


cdef void dropped_acked(Conn *c, const FrameRecord *record) noexcept nogil:
    cdef Stream *s = conn_find_stream(c, record.stream)
    if s != NULL:
        conn_handle_dropped_acked(c, s, record.offset, record.bytes, record.extent)


cdef void channel_acked(Conn *c, uint64_t id) noexcept nogil:
    cdef Stream *s = conn_find_stream(c, id)
    if s != NULL:
        conn_handle_channel_acked(c, s)


cdef void reset_acked(Conn *c, uint64_t id) noexcept nogil:
    cdef Stream *s = conn_find_stream(c, id)
    if s != NULL:
        send_input(s, SEND_IN_RESET_ACKED)
        conn_settle_stream(c, s, SEND_RESETTING)


cdef void conn_on_lost(void *owner, uint64_t number, const SentPacket *p) noexcept nogil:
    cdef Path *path = <Path *>owner
    cdef Conn *c = <Conn *>path.conn
    cdef FrameRecord *record = p.more
    cdef FrameRecord *following
    if c.context.trace != NULL and c.state == CONN_OPEN:
        tracing_lost(c, path, number, p)
    requeue(c, p, not (p.flags & SENT_COPIED and may_arrive_elsewhere(c, path, p)))
    while record != NULL:
        following = record.next
        pool_give(&c.context.records, record)
        record = following
    if p.flags & SENT_MTU_PROBE:
        pmtud_handle_probe_lost(&path.mtu, number)
    elif c.state == CONN_OPEN and path.state == PATH_ACTIVE \
            and pmtud_handle_lost(&path.mtu, number, p.bytes, path.recovery.next):
        fall_back(c, path)          # what is given up on a path that is silent tells nothing of sizes


cdef bint may_arrive_elsewhere(const Conn *c, const Path *path, const SentPacket *p) noexcept nogil:
    """Tell whether what was lost on one path is still on its way on another: a message is lost with the last of its copies."""
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i] != path and recovery_has_copy(&c.paths[i].recovery, p):
            return True
    return False


cdef void fall_back(Conn *c, Path *p) noexcept nogil:
    """Send packets of the base size, because larger ones do not arrive."""
    c.context.counters.mtu_black_holes += 1
    path_follow_mtu(p)


cdef void conn_handle_probe_timeout(Conn *c, Path *p) noexcept nogil:
    """Nothing sent after the probe of the path MTU was acknowledged either, or nothing was sent."""
    cdef uint64_t number = p.mtu.probe_number
    recovery_give_up(&p.recovery, number)
    pmtud_handle_probe_lost(&p.mtu, number)


cdef void conn_handle_refused(Conn *c, uint32_t path, const Endpoint *remote, uint32_t bytes) noexcept nogil:
    """The own interface has refused a packet as too large, and so whatever else of its size is on its way on this path, if it
    is still where it was. Others may leave by other interfaces."""
    cdef uint32_t i
    if c.state != CONN_OPEN:
        return
    for i in range(c.path_count):
        if c.paths[i].id == path and path_is_live(c.paths[i]) and (path_is_from(c.paths[i], remote) or c.paths[i].mtu.lead):
            handle_refused_on(c, c.paths[i], bytes - c.paths[i].mtu.lead)
            conn_wake(c)


cdef void handle_refused_on(Conn *c, Path *p, uint32_t bytes) noexcept nogil:
    cdef uint64_t probe = p.mtu.probe_number
    cdef bint has_probe = p.mtu.probe_deadline_ns != 0
    if pmtud_handle_refused(&p.mtu, bytes, p.recovery.next):
        fall_back(c, p)
        send_probes(c, p)           # their acknowledgement tells what is lost
    elif has_probe and p.mtu.probe_deadline_ns == 0:
        recovery_give_up(&p.recovery, probe)


cdef void requeue(Conn *c, const SentPacket *p, bint is_lost) noexcept nogil:
    """See that everything a packet carried that still matters is sent again: it `is_lost`, or may be."""
    cdef FrameRecord *record = p.more
    if c.state != CONN_OPEN:
        return
    if p.flags & SENT_STREAM:
        requeue_frame(c, RECORD_STREAM, p.stream, p.offset, p.stream_bytes, (p.flags & SENT_FIN) != 0, is_lost)
    while record != NULL:
        requeue_frame(c, record.kind, record.stream, record.offset, record.bytes, record.fin, is_lost)
        record = record.next
    if p.flags & SENT_MAX_DATA:
        c.pending |= CONN_PENDING_MAX_DATA
    if p.flags & SENT_MAX_STREAMS:
        c.pending |= CONN_PENDING_MAX_STREAMS
    if p.flags & SENT_REKEY:
        c.pending |= CONN_PENDING_REKEY
    conn_wake(c)


cdef void retire_acked(Conn *c, const FrameRecord *record) noexcept nogil:
    cdef RemoteCid *id = remote_cids_find(&c.remote_cids, <uint32_t>record.stream, <uint32_t>record.offset)
    if id != NULL and (id.state == REMOTE_RETIRED or id.state == REMOTE_RETIRING):
        id.state = REMOTE_FREE
        c.ids_changed = True


cdef void abandon_acked(Conn *c, uint64_t id) noexcept nogil:
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i].id == id:
            c.paths[i].awaits_abandon_ack = False


cdef void requeue_path_frame(Conn *c, uint8_t kind, uint64_t path, uint64_t number) noexcept nogil:
    """Tell it again, as far as it still holds."""
    cdef LocalCid *ours
    cdef RemoteCid *theirs
    cdef uint32_t i
    if kind == RECORD_NEW_CID:
        ours = local_cid_find(c.local_cids, <uint32_t>path, <uint32_t>number)
        if ours != NULL and ours.state == LOCAL_SENT:
            ours.state = LOCAL_UNSENT
            c.pending |= CONN_PENDING_IDS
        return
    if kind == RECORD_RETIRE_CID:
        theirs = remote_cids_find(&c.remote_cids, <uint32_t>path, <uint32_t>number)
        if theirs != NULL and theirs.state == REMOTE_RETIRED:
            theirs.state = REMOTE_RETIRING
            c.pending |= CONN_PENDING_IDS
        return
    for i in range(c.path_count):
        if c.paths[i].id == path:
            c.paths[i].pending |= PATH_PENDING_STATUS if kind == RECORD_PATH_STATUS else PATH_PENDING_ABANDON
            c.pending |= CONN_PENDING_PATHS


cdef void report_again(Conn *c, uint64_t path) noexcept nogil:
    """A report of the peer's address is lost: where it is now is told instead."""
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i].id == path and path_is_live(c.paths[i]):
            conn_report_observed(c, c.paths[i])


cdef void requeue_frame(Conn *c, uint8_t kind, uint64_t id, uint64_t offset, uint64_t n, bint fin,
                        bint is_lost) noexcept nogil:
    cdef Stream *s
    if RECORD_NEW_CID <= kind <= RECORD_PATH_ABANDON:
        requeue_path_frame(c, kind, id, offset)
        return
    if kind == RECORD_SIGNAL:
        if signals_handle_lost(c.signals, offset):
            c.pending |= CONN_PENDING_SIGNALS
        return
    if kind == RECORD_OBSERVED:
        report_again(c, id)
        return
    if kind == RECORD_MAX_CHANNELS:
        c.pending |= CONN_PENDING_MAX_CHANNELS
        return
    s = conn_find_stream(c, id)
    if s == NULL:
        return
    if s.channel != NULL and kind == RECORD_STREAM:
        conn_lose_piece(c, s, offset, n, fin, is_lost)
        return
    if kind == RECORD_CHANNEL or kind == RECORD_DROPPED:
        conn_requeue_channel(c, s, kind, offset, <uint32_t>n, fin)
        return
    if kind == RECORD_STREAM:
        stream_handle_lost(s, offset, n, fin)
    elif kind == RECORD_MAX_STREAM_DATA and s.recv_state == RECV_OPEN and not s.is_stopped:
        s.pending |= PENDING_MAX_DATA
    elif kind == RECORD_RESET_STREAM and s.send_state == SEND_RESETTING:
        s.pending |= PENDING_RESET
    elif kind == RECORD_STOP_SENDING and s.recv_state == RECV_OPEN:
        s.pending |= PENDING_STOP
    conn_stream_changed(c, s)


cdef void requeue_oldest(Conn *c, const Path *path) noexcept nogil:
    """Queue what the oldest packets in flight carried, so that probes have something useful to say."""
    cdef uint64_t number = 0
    cdef const SentPacket *p = recovery_oldest(&path.recovery, &number)
    cdef int left = PROBES
    while p != NULL and left:
        requeue(c, p, False)
        left -= 1
        number += 1
        p = recovery_oldest(&path.recovery, &number)


cdef void send_probes(Conn *c, Path *p) noexcept nogil:
    p.pto_probes = PROBES
    requeue_oldest(c, p)


cdef void conn_probe_again(Conn *c, Path *p) noexcept nogil:
    """The peer is there again, or somewhere else: probe at once, since a time-out has grown while nothing came through."""
    p.recovery.pto_count = 0
    if p.recovery.eliciting_in_flight:
        send_probes(c, p)


cdef void conn_count_lost(Conn *c, Path *p, uint64_t packets) noexcept nogil:
    p.packets_lost += packets
    c.context.counters.packets_lost += packets


cdef void conn_handle_recovery_timeout(Conn *c, Path *p, uint64_t now_ns) noexcept nogil:
    cdef AckOutcome outcome
    recovery_handle_timeout(&p.recovery, now_ns, c.peer_ack_delay_ns, &outcome)
    if outcome.lost_packets:
        conn_count_lost(c, p, outcome.lost_packets)
        path_handle_outcome(p, NULL, &outcome, p.recovery.bytes_in_flight, now_ns)
    elif p.recovery.loss_time_ns == 0 and outcome.lost_mtu_probes == 0:
        send_probes(c, p)
        if p.ecn_state == ECN_TESTING and p.recovery.pto_count >= ECN_BLACK_HOLE_PTOS:
            p.ecn_state = ECN_FAILED
    if c.context.trace != NULL:
        tracing_metrics(c, p)
