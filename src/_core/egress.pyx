"""What goes out on a connection: which packets may be sent, and how they lie in a batch.

Packets are built where they will be sent from, one behind the other: as long as they have equal sizes they form one
message for the kernel (GSO). What they carry is composed elsewhere. Congestion control, pacing and the peer's limits
decide whether there is a packet at all; an acknowledgement alone is never held back. It is one file because every packet,
of data, proof, probe or close, is begun, sealed and noted by the same few functions in it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset

from interpeer._core.builder cimport Builder
from interpeer._core.carrier cimport carrier_direct, lead_bytes
from interpeer._core.cc cimport cc_handle_sent
from interpeer._core.channels cimport channels_count_deadlines, channels_raise_limit
from interpeer._core.compose cimport compose_ack, compose_copy, compose_frames, compose_ping, compose_proof
from interpeer._core.conn cimport (
    CLOSED_LOCALLY, CONN_CLOSING, CONN_DRAINING, CONN_OPEN, CONN_PENDING_CLOSE, CONN_PENDING_IDS,
    CONN_PENDING_MAX_DATA, CONN_PENDING_MAX_STREAMS, SCHEDULE_AGGREGATE, SCHEDULE_REDUNDANT, Conn, conn_commit,
    conn_data_granted, conn_data_is_due, conn_fail, conn_has_sendable, conn_set_waiting)
from interpeer._core.context cimport entropy_take
from interpeer._core.keys cimport keys_drive, keys_may_seal
from interpeer._core.loss cimport (
    SENT_COPIED, SENT_ELICITING, SENT_MTU_PROBE, SentPacket, recovery_add, recovery_mark_app_limited, recovery_pto_ns,
    recovery_sent, recovery_skip)
from interpeer._core.pacing cimport PACING_QUANTUM_NS, pacing_release_ns
from interpeer._core.path cimport (
    ECN_FAILED, LOCAL_RTT_NS, PATH_ACTIVE, PATH_PENDING_PING, PING_EVERY, Path, Validation, path_asks_previous,
    path_challenge_is_due, path_challenge_sent, path_is_from, path_is_live, path_is_proven, path_write_ack)
from interpeer._core.paths cimport TIER_UNUSABLE, paths_is_faster, paths_tidy, paths_tier
from interpeer._core.pmtud cimport pmtud_count, pmtud_is_due, pmtud_poll, pmtud_sent
from interpeer._core.protection cimport protect
from interpeer._core.slab cimport (
    MAX_SEGMENTS, MAX_UDP_PAYLOAD, SEND_BATCH_BYTES, SEND_ENTRIES, SLOT_BYTES, Datagrams, Endpoint, SendBatch)
from interpeer._core.stream cimport READER_PAUSE_NS
from interpeer._core.tracing cimport tracing_sent
from interpeer._core.wire cimport (
    BASE_DATAGRAM_BYTES, CHALLENGE_BYTES, CODE_INTERNAL, CODE_PROTOCOL, FRAME_CLOSE, FRAME_CLOSE_APP, FRAME_PADDING,
    FRAME_PATH_CHALLENGE, FRAME_PATH_RESPONSE, FRAME_PING, HEADER_BYTES, write_varint)

cdef enum:
    CLOSE_PTOS = 3                  # closing lasts so many probe time-outs (RFC 9000, 10.2)
    LEAST_PAYLOAD_BYTES = 9         # of what asks for an acknowledgement: it pays for a PATH_CHALLENGE, if we have moved
    FIRST_PACKET_BYTES = 400        # an initiator's first packets are padded to this: it pays for several PINGs
    MAX_UNSETTLED = 65536           # packets remembered beside what is in flight: acknowledgements between unanswered PINGs
    RUN_GAP_NS = 100000             # between runs of packets of two connections that have more to send, at the least,
    RUNS_PER_RTT = 4                # ... but so many runs in a round trip each
    PROBE_PTOS = 3                  # a probe of the MTU is given up after so many probe time-outs
    PROBE_NS = 1000000000           # ... and not before (RFC 8899, 5.1.1: PROBE_TIMER)
    CLOSE_ROOM = 17                 # a CLOSE frame without its reason: a type and two varints


cdef int conn_transmit(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Build as many packets as may be sent now and as fit in the batch."""
    cdef Path *p
    cdef Path *taken = NULL         # by the last packet with data
    cdef uint32_t i
    if c.state == CONN_CLOSING or c.state == CONN_DRAINING:
        conn_set_waiting(c, False)
        return transmit_close(c, batch, now_ns)
    if c.state != CONN_OPEN:
        return TRANSMIT_DONE        # it may never have had a path
    if c.path_count > 1:
        paths_tidy(c, now_ns)
    keys_drive(c, now_ns)
    raise_limits(c, now_ns)
    if c.channels != NULL:
        channels_count_deadlines(c, now_ns)
    for i in range(c.path_count):
        c.paths[i].paced_until_ns = 0       # where nothing is to be sent (any more), nothing is held back
    for i in range(c.path_count):
        if transmit_proof(c, c.paths[i], batch, now_ns) == TRANSMIT_MORE:
            return TRANSMIT_MORE
        if pmtud_is_due(&c.paths[i].mtu) and not probe_mtu(c, c.paths[i], batch, now_ns):
            return TRANSMIT_MORE
    conn_set_waiting(c, False)
    while c.state == CONN_OPEN and has_data(c):
        p = choose_path(c, now_ns)
        if p == NULL:
            conn_set_waiting(c, True)
            end_run(c, taken, now_ns)
            break
        if is_full(batch, p):
            return TRANSMIT_MORE
        if build_packet(c, p, batch, now_ns, True) != 0:
            break
        taken = p
    note_nothing_to_send(c, now_ns)
    for i in range(c.path_count):
        p = c.paths[i]
        while c.state == CONN_OPEN and p.ack_now and path_is_proven(p):
            if is_full(batch, p):
                return TRANSMIT_MORE
            if build_packet(c, p, batch, now_ns, False) != 0:
                break
    if c.state == CONN_CLOSING:
        return transmit_close(c, batch, now_ns)
    return TRANSMIT_DONE


cdef int transmit_proof(Conn *c, Path *p, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Answer the peer's challenge, and have an address proved. To one that has proved nothing goes nothing but that and
    acknowledgements, and no more than came from there; without credit the peer has to say more, and will, as it probes."""
    cdef Validation *v = p.validation
    cdef bint is_answered_there = v != NULL and path_is_from(p, &p.answer.remote)
    if v == NULL and not p.answer.is_owed:
        return TRANSMIT_DONE
    if is_full(batch, NULL):
        return TRANSMIT_MORE
    if p.answer.is_owed and not is_answered_there:
        p.answer.is_owed = False
        build_lone(c, p, batch, FRAME_PATH_RESPONSE, p.answer.data, &p.answer.remote, p.answer.local, now_ns)
    if v == NULL or not draw_challenge(c, v):
        return TRANSMIT_DONE
    if path_asks_previous(p, now_ns):
        if is_full(batch, NULL):
            return TRANSMIT_MORE
        v.previous_tries = v.tries + 1
        build_lone(c, p, batch, FRAME_PATH_CHALLENGE, v.previous_challenge, &v.previous, v.previous_local, now_ns)
    if not p.answer.is_owed and not path_challenge_is_due(p, now_ns):
        return TRANSMIT_DONE
    if most_bytes(p) < HEADER_BYTES + 2 * (1 + CHALLENGE_BYTES) + c.send.aead.tag_bytes \
            and (p.answer.is_owed or most_bytes(p) < HEADER_BYTES + 1 + CHALLENGE_BYTES + c.send.aead.tag_bytes):
        if path_challenge_is_due(p, now_ns):
            path_challenge_sent(p, now_ns, recovery_pto_ns(&c.path.recovery, c.peer_ack_delay_ns))    # as good as lost
        return TRANSMIT_DONE
    if is_full(batch, NULL):
        return TRANSMIT_MORE
    build_packet(c, p, batch, now_ns, False)
    return TRANSMIT_DONE


cdef bint draw_challenge(Conn *c, Validation *v) noexcept nogil:
    """See that there is something to ask; without random bytes there is not."""
    if not v.is_drawn:
        v.is_drawn = entropy_take(&c.context.entropy, v.challenge, CHALLENGE_BYTES) == 0 \
            and entropy_take(&c.context.entropy, v.previous_challenge, CHALLENGE_BYTES) == 0
    return v.is_drawn


cdef void build_lone(Conn *c, Path *p, SendBatch *batch, uint8_t type, const uint8_t *data, const Endpoint *remote,
                     const uint8_t *local, uint64_t now_ns) noexcept nogil:
    """Send a challenge or its answer by itself, to an address that need not be the path's. Nobody waits for its
    acknowledgement: what counts is the answer."""
    cdef SentPacket *sent = recovery_add(&p.recovery, now_ns)
    cdef uint64_t number = p.recovery.next - 1
    cdef uint32_t lead = lead_bytes(remote)
    cdef uint8_t *start = batch.buffer + batch.used + lead
    cdef Py_ssize_t bytes
    cdef Datagrams *d
    if sent == NULL:
        conn_fail(c, CODE_INTERNAL, b"out of memory")
        return
    start[HEADER_BYTES] = type
    memcpy(start + HEADER_BYTES + 1, data, CHALLENGE_BYTES)
    if c.context.trace != NULL:
        tracing_sent(c, p, number, sent.flags, start + HEADER_BYTES, 1 + CHALLENGE_BYTES, 0)
    bytes = protect(&c.send, start, start + HEADER_BYTES, 1 + CHALLENGE_BYTES, p.remote_cid, p.id, number)
    if bytes < 0:
        conn_fail(c, CODE_INTERNAL, b"a packet cannot be sealed")
        return
    sent.bytes = <uint16_t>bytes
    recovery_sent(&p.recovery, sent)
    p.packets_sent += 1
    p.bytes_sent += bytes
    d = add_entry(c, batch, NULL, lead + <uint32_t>bytes, remote, local)
    if d != NULL:
        d.ecn = 0
    batch.run = 0


cdef void end_run(Conn *c, Path *p, uint64_t now_ns) noexcept nogil:
    """Where many connections have data that may not go yet, let a while pass until this one's go on: those who send a packet
    for each acknowledgement, in turns, would have a message for the kernel, and an acknowledgement, for every packet."""
    cdef uint64_t pause_ns, most_ns
    if p == NULL:
        return
    pause_ns = c.context.waiting * <uint64_t>RUN_GAP_NS
    most_ns = p.recovery.rtt.smoothed_ns // RUNS_PER_RTT
    if pause_ns > most_ns:
        pause_ns = most_ns
    if pause_ns > PACING_QUANTUM_NS:
        p.next_run_ns = now_ns + pause_ns
        if p.paced_until_ns < p.next_run_ns:
            p.paced_until_ns = p.next_run_ns


cdef Path *choose_path(Conn *c, uint64_t now_ns) noexcept nogil:
    """Return the path that the next packet takes; NULL: none may send now."""
    cdef Path *p
    cdef Path *best = NULL
    cdef uint32_t i
    cdef int tier
    if c.path_count == 1:
        p = c.path
        return p if path_is_proven(p) and is_released(c, p, now_ns) else NULL
    for i in range(c.path_count):
        p = c.paths[i]
        if path_is_proven(p) and path_is_live(p) and (p.pto_probes or p.pending & PATH_PENDING_PING):
            return p
    tier = paths_tier(c.path)
    if tier >= TIER_UNUSABLE:
        return NULL
    if c.scheduler != SCHEDULE_AGGREGATE or is_released(c, c.path, now_ns):
        return c.path if is_released(c, c.path, now_ns) else NULL
    for i in range(c.path_count):
        p = c.paths[i]
        if p != c.path and paths_tier(p) == tier and is_released(c, p, now_ns) \
                and (best == NULL or paths_is_faster(p, best)):
            best = p
    return best
cdef bint probe_mtu(Conn *c, Path *p, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Send the probe that the search for the path's MTU wants, if it wants one now. Return False if there is no room for it.

    It is a message of its own and carries nothing, so that nothing else depends on whether it passes. It may exceed the
    congestion window, of which it is a small part: only as a whole it can go, and data would never leave as much room."""
    cdef Builder b
    cdef uint64_t number, wait_ns
    cdef Py_ssize_t bytes
    cdef uint32_t size
    if p.pto_probes or p.state != PATH_ACTIVE:
        return True
    size = pmtud_poll(&p.mtu, now_ns, p.cc.window)
    if size == 0:
        return True
    if batch.count == SEND_ENTRIES or batch.used + MAX_UDP_PAYLOAD > SEND_BATCH_BYTES:
        return False
    if begin_packet(&b, c, p, batch, size, now_ns) != 0:
        return True
    number = p.recovery.next - 1
    b.at = write_varint(b.at, FRAME_PING)       # of its own: one that is pending has to arrive
    memset(b.at, FRAME_PADDING, b.end - b.at)
    b.at = b.end
    b.is_eliciting = True
    b.sent.flags |= SENT_MTU_PROBE
    bytes = seal(&b, number)
    if bytes < 0:
        conn_fail(c, CODE_INTERNAL, b"a packet cannot be sealed")
        return True
    finish_packet(&b, <uint32_t>bytes)
    batch.run = 0
    enter(batch, p, <uint32_t>bytes)
    batch.run = 0
    wait_ns = PROBE_PTOS * recovery_pto_ns(&p.recovery, c.peer_ack_delay_ns)
    pmtud_sent(&p.mtu, number, now_ns + (wait_ns if wait_ns > PROBE_NS else PROBE_NS))
    c.context.counters.mtu_probes_sent += 1
    return True


cdef bint is_full(const SendBatch *batch, const Path *p) noexcept nogil:
    """Tell whether there is neither room in a message that any packet of this path fits in, nor for another message. NULL:
    the packet goes by itself."""
    cdef const Datagrams *last = NULL
    cdef uint32_t most
    if batch.count:
        last = <const Datagrams *>&batch.entries[batch.count - 1]
    if p != NULL and batch.run and batch.run < MAX_SEGMENTS and last.owner == <void *>p:
        most = p.packet_bytes + p.mtu.lead
        if last.segment == most and last.bytes + most <= MAX_UDP_PAYLOAD:
            return batch.used + most > SEND_BATCH_BYTES
    return batch.count == SEND_ENTRIES or batch.used + MAX_UDP_PAYLOAD > SEND_BATCH_BYTES


cdef bint has_data(Conn *c) noexcept nogil:
    """Tell whether anything waits that asks for an acknowledgement, and has to go now.

    Connection ids are not wanted at once: they go with an acknowledgement that is due anyway."""
    cdef uint32_t i
    if c.pending & ~<uint32_t>CONN_PENDING_IDS or c.messages_out.count or conn_has_sendable(c):
        return True
    for i in range(c.path_count):
        if c.paths[i].pto_probes:
            return True
    return c.pending and (c.path.ack_now or not c.path.unacked)


cdef bint is_released(Conn *c, Path *p, uint64_t now_ns) noexcept nogil:
    """Tell whether congestion control and pacing let a packet go now; a probe always may."""
    p.paced_until_ns = 0
    if p.pto_probes or p.pending & PATH_PENDING_PING:
        return True
    if now_ns < p.next_run_ns:
        p.paced_until_ns = p.next_run_ns
        return False
    if p.recovery.bytes_in_flight + p.packet_bytes > p.cc.window or queued_bytes(p) > c.peer_receive_buffer:
        return False
    p.paced_until_ns = pacing_release_ns(&p.cc, now_ns, p.recovery.rtt.smoothed_ns)
    return p.paced_until_ns == 0


cdef void note_nothing_to_send(Conn *c, uint64_t now_ns) noexcept nogil:
    """Where neither the window nor pacing holds anything back, the rate at which data are delivered is not the path's."""
    cdef Path *p
    cdef uint32_t i
    for i in range(c.path_count):
        p = c.paths[i]
        if p.paced_until_ns <= now_ns and p.recovery.bytes_in_flight + p.packet_bytes <= p.cc.window:
            recovery_mark_app_limited(&p.recovery)


cdef uint64_t queued_bytes(const Path *p) noexcept nogil:
    """Return how much of what is in flight waits in queues, as the round trip tells; the last queue is the peer's socket.

    More than fits there would be lost, if that is where it waits. On longer paths it waits in the network, where whoever
    kept to less would be pushed aside by everybody who fills the queue."""
    cdef uint64_t smoothed = p.recovery.rtt.smoothed_ns, least = p.recovery.rtt.min_ns
    if smoothed <= least or least > LOCAL_RTT_NS:
        return 0
    return <uint64_t>(p.recovery.bytes_in_flight * (<double>(smoothed - least) / smoothed))


cdef void raise_limits(Conn *c, uint64_t now_ns) noexcept nogil:
    """Set the connection's new limits as far as the application has read; the window doubles for a fast reader."""
    cdef uint64_t rtt_ns = c.path.recovery.rtt.smoothed_ns, most = c.context.limits.max_connection_window, granted
    if rtt_ns < READER_PAUSE_NS:
        rtt_ns = READER_PAUSE_NS
    if c.pending & CONN_PENDING_MAX_DATA and conn_data_is_due(c):
        if c.data_window_ns and now_ns - c.data_window_ns < 2 * rtt_ns:
            c.data_window = c.data_window * 2 if c.data_window * 2 < most else most
        c.data_window_ns = now_ns
        granted = conn_data_granted(c, c.data_window)
        if granted > c.data_allowed:
            c.data_allowed = granted
            conn_commit(c, granted - c.data_consumed)
        else:
            c.pending &= ~<uint32_t>CONN_PENDING_MAX_DATA
    if c.pending & CONN_PENDING_MAX_STREAMS:
        c.peer_open_limit = c.peer_done + c.context.limits.max_streams
    if c.channels != NULL:
        channels_raise_limit(c)


# --- one packet ---

cdef int build_packet(Conn *c, Path *p, SendBatch *batch, uint64_t now_ns, bint with_data) noexcept nogil:
    """Build, seal and enter one packet. Return 0, or -1 when there was nothing to put in it after all."""
    cdef Builder b
    cdef uint64_t number
    if begin_packet(&b, c, p, batch, most_bytes(p), now_ns) != 0:
        return -1
    number = p.recovery.next - 1
    if not path_is_proven(p):
        compose_proof(&b)
    compose_ack(&b)
    b.repeatable = b.at
    if with_data and paths_tier(p) <= paths_tier(c.path):
        compose_frames(&b)
    elif p.pto_probes or p.pending & PATH_PENDING_PING or (p.bare_acks >= PING_EVERY and p.recovery.eliciting_in_flight == 0
                                                           and path_is_proven(p)):
        compose_ping(&b)            # one at a time: a later one would put the probe time-out of the first off
    if b.at == b.start + HEADER_BYTES:
        p.recovery.next = number    # nothing to say: the number is not used
        return -1
    pad(&b)
    if c.scheduler == SCHEDULE_REDUNDANT and c.path_count > 1 and b.is_repeatable and b.at > b.repeatable:
        return send_on_all(&b, batch, number)
    return send_packet(&b, batch, number)


cdef int begin_packet(Builder *b, Conn *c, Path *p, SendBatch *batch, uint32_t most, uint64_t now_ns) noexcept nogil:
    """Start a packet of at most so many bytes at the end of the batch, with the path's next number. Return 0, or -1 when the
    connection has failed."""
    if keys_may_seal(c) != 0:
        return -1
    if p.recovery.next - p.recovery.base > MAX_UNSETTLED + 4 * p.recovery.eliciting_in_flight:
        conn_fail(c, CODE_PROTOCOL, b"nothing is acknowledged")
        return -1
    maybe_skip_number(c, p)
    b.c = c
    b.path = p
    b.now_ns = now_ns
    b.start = batch.buffer + batch.used + lead_bytes(&p.remote)
    b.at = b.start + HEADER_BYTES
    b.end = b.start + most - c.send.aead.tag_bytes
    b.tail = NULL
    b.tail_bytes = 0
    b.is_eliciting = False
    b.is_repeatable = True
    b.sent = recovery_add(&p.recovery, now_ns)
    if b.sent == NULL:
        conn_fail(c, CODE_INTERNAL, b"out of memory")
        return -1
    return 0


cdef int send_packet(Builder *b, SendBatch *batch, uint64_t number) noexcept nogil:
    """Seal what was composed, account for it, and enter it in the batch."""
    cdef Py_ssize_t bytes = seal(b, number)
    if bytes < 0:
        conn_fail(b.c, CODE_INTERNAL, b"a packet cannot be sealed")
        return -1
    finish_packet(b, <uint32_t>bytes)
    enter(batch, b.path, <uint32_t>bytes)
    return 0


cdef int send_on_all(Builder *b, SendBatch *batch, uint64_t number) noexcept nogil:
    """Send what was composed for one path, but for its acknowledgements, on all others that are as good."""
    cdef Conn *c = b.c
    cdef Builder copy
    cdef Path *p
    cdef uint8_t *frames = c.context.spare_packet
    cdef size_t n = b.at - b.repeatable
    cdef uint64_t copy_number
    cdef uint32_t i
    if frames == NULL:
        frames = c.context.spare_packet = <uint8_t *>malloc(SLOT_BYTES)
        if frames == NULL:
            c.context.counters.no_memory += 1
            return send_packet(b, batch, number)
    memcpy(frames, b.repeatable, n)
    if send_packet(b, batch, number) != 0:
        return -1
    for i in range(c.path_count):
        p = c.paths[i]
        if p == b.path or paths_tier(p) != paths_tier(b.path) or is_full(batch, p) or not is_released(c, p, b.now_ns):
            continue
        if begin_packet(&copy, c, p, batch, most_bytes(p), b.now_ns) != 0:
            return -1
        copy_number = p.recovery.next - 1
        compose_ack(&copy)
        if copy.at + n > copy.end:
            copy.at = copy.start + HEADER_BYTES     # it was not said: the next packet says it
            p.ack_now = True
        if copy.at + n > copy.end or compose_copy(&copy, b, frames, n) != 0:
            p.recovery.next = copy_number
            continue
        if send_packet(&copy, batch, copy_number) != 0:
            return -1
        copy.sent.flags |= SENT_COPIED
        b.sent.flags |= SENT_COPIED
    return 0


cdef inline uint32_t most_bytes(const Path *p) noexcept nogil:
    """Return how large the next packet may be: to an address that has proved nothing goes no more than came from there, unless
    the application has chosen it.

    Of the two packets of a probe time-out the second has the base size: if it is the only one of all that arrives, it is
    their size that keeps the others from arriving."""
    cdef const Validation *v = p.validation
    cdef uint32_t most = p.mtu.base if p.pto_probes == 1 else p.packet_bytes
    if v == NULL or (p.is_opener and not v.has_previous) or v.credit_bytes > most:
        return most
    return <uint32_t>v.credit_bytes


cdef void pad(Builder *b) noexcept nogil:
    """Leave a peer that does not know our address (any more) enough to answer with. A new path has to carry full packets."""
    cdef uint32_t least = HEADER_BYTES + LEAST_PAYLOAD_BYTES + b.c.send.aead.tag_bytes if b.is_eliciting else 0
    cdef uint8_t *to
    if b.tail != NULL:
        return
    if not path_is_proven(b.path):
        if b.path.is_opener and not b.path.validation.has_previous:
            least = BASE_DATAGRAM_BYTES
    elif b.c.is_initiator and not b.c.is_confirmed:
        least = FIRST_PACKET_BYTES
    to = b.start + least - b.c.send.aead.tag_bytes
    if least and b.at < to:
        memset(b.at, FRAME_PADDING, to - b.at)
        b.at = to


cdef Py_ssize_t seal(Builder *b, uint64_t number) noexcept nogil:
    """Seal what was built. Stream data that fill the rest of the packet are sealed from the stream's buffer, not copied
    first: the frames before them are put in front of them there, over bytes that are put back."""
    cdef Path *p = b.path
    cdef uint8_t saved[64]
    cdef uint8_t *payload = b.start + HEADER_BYTES
    cdef size_t n = b.at - payload
    cdef Py_ssize_t bytes
    if b.c.context.trace != NULL:
        tracing_sent(b.c, p, number, b.sent.flags, payload, n, b.tail_bytes)
    if b.tail == NULL:
        return protect(&b.c.send, b.start, payload, n, p.remote_cid, p.id, number)
    memcpy(saved, b.tail - n, n)
    memcpy(b.tail - n, payload, n)
    bytes = protect(&b.c.send, b.start, b.tail - n, n + b.tail_bytes, p.remote_cid, p.id, number)
    memcpy(b.tail - n, saved, n)
    return bytes


cdef void finish_packet(Builder *b, uint32_t bytes) noexcept nogil:
    """Account for a packet that is ready."""
    cdef Conn *c = b.c
    cdef Path *p = b.path
    b.sent.bytes = bytes
    if b.is_eliciting:
        b.sent.flags |= SENT_ELICITING
        cc_handle_sent(&p.cc, b.now_ns, bytes, p.recovery.bytes_in_flight, p.recovery.app_limited != 0)
        pmtud_count(&p.mtu, bytes)
        p.bare_acks = 0
        if p.pto_probes:
            p.pto_probes -= 1
        if c.waiting_since_ns == 0:
            c.waiting_since_ns = b.now_ns
    else:
        p.bare_acks += 1
    recovery_sent(&p.recovery, b.sent)
    p.last_sent_ns = b.now_ns
    count_sent(p, bytes)


cdef inline void count_sent(Path *p, uint32_t bytes) noexcept nogil:
    p.packets_sent += 1
    p.bytes_sent += bytes
    if p.validation != NULL:
        p.validation.credit_bytes -= bytes if bytes < p.validation.credit_bytes else p.validation.credit_bytes


cdef void enter(SendBatch *batch, Path *p, uint32_t bytes) noexcept nogil:
    """Put the packet that was built at the end of the buffer into the last message, or start another one."""
    cdef Datagrams *d = &batch.entries[batch.count - 1] if batch.count else NULL
    cdef Conn *c = <Conn *>p.conn
    cdef uint32_t lead = lead_bytes(&p.remote)
    cdef uint8_t ecn = 0
    if p.ecn_state != ECN_FAILED:
        ecn = 2
        p.ecn_sent += 1
    bytes += lead
    if batch.run and batch.run < MAX_SEGMENTS and d.owner == <void *>p and d.ecn == ecn and bytes <= d.segment \
            and d.bytes + bytes <= MAX_UDP_PAYLOAD:
        if lead:
            memcpy(batch.buffer + batch.used, d.data, lead)     # the same leg
        batch.used += bytes
        d.bytes += bytes
        batch.run = batch.run + 1 if bytes == d.segment else 0
        return
    d = add_entry(c, batch, p, bytes, &p.remote, p.local)
    if d != NULL:
        d.ecn = ecn
        d.cid = c.local_cids.cid
        d.path = p.id


cdef Datagrams *add_entry(Conn *c, SendBatch *batch, void *owner, uint32_t bytes, const Endpoint *remote,
                          const uint8_t *local) noexcept nogil:
    """Start another message with what was built at the end of the buffer; there is room for it. NULL: there is no way to its
    address any more, and so it is lost."""
    cdef Datagrams *d = &batch.entries[batch.count]
    d.data = batch.buffer + batch.used
    if not carrier_direct(c.context, d, remote, local):
        batch.run = 0
        return NULL
    batch.used += bytes
    batch.count += 1
    batch.run = 1
    d.owner = owner
    d.bytes = bytes
    d.segment = bytes
    d.ttl = 0
    d.is_too_big = False
    d.cid = 0
    return d


cdef void maybe_skip_number(Conn *c, Path *p) noexcept nogil:
    """Leave a packet number out now and then, where the peer cannot foresee it."""
    cdef uint32_t draw
    if c.skip_countdown:
        c.skip_countdown -= 1
        return
    if c.context.limits.skip_every == 0 or entropy_take(&c.context.entropy, <uint8_t *>&draw, sizeof(draw)) != 0:
        return
    c.skip_countdown = 1 + draw % (2 * c.context.limits.skip_every)
    recovery_skip(&p.recovery)


# --- closing ---

cdef int transmit_close(Conn *c, SendBatch *batch, uint64_t now_ns) noexcept nogil:
    """Set how long closing lasts, and send the CLOSE frame if one is due, in a packet of its own.

    Before it goes what was received up to an application's end: the peer may wait for nothing but that."""
    cdef Builder b
    cdef Path *p = c.path
    cdef Py_ssize_t bytes
    cdef uint64_t number
    if c.close_deadline_ns == 0:
        c.close_deadline_ns = now_ns + CLOSE_PTOS * recovery_pto_ns(&p.recovery, c.peer_ack_delay_ns)
    if not c.pending & CONN_PENDING_CLOSE:
        return TRANSMIT_DONE
    if most_bytes(p) < HEADER_BYTES + CLOSE_ROOM + c.close_reason_bytes + c.send.aead.tag_bytes:
        c.pending = 0
        return TRANSMIT_DONE
    if is_full(batch, p):
        return TRANSMIT_MORE
    c.pending = 0
    number = p.recovery.next
    p.recovery.next += 1
    p.recovery.base = p.recovery.next
    b.start = batch.buffer + batch.used + lead_bytes(&p.remote)
    b.at = b.start + HEADER_BYTES
    if c.closed_by == CLOSED_LOCALLY:
        b.end = b.start + most_bytes(p) - c.send.aead.tag_bytes - CLOSE_ROOM - c.close_reason_bytes
        b.at = path_write_ack(p, b.at, b.end, now_ns)
    b.at = write_varint(b.at, FRAME_CLOSE_APP if c.close_is_app else FRAME_CLOSE)
    b.at = write_varint(write_varint(b.at, c.close_code), c.close_reason_bytes)
    if c.close_reason_bytes:        # otherwise it may be NULL
        memcpy(b.at, c.close_reason, c.close_reason_bytes)
    b.at += c.close_reason_bytes
    if c.context.trace != NULL:
        tracing_sent(c, p, number, 0, b.start + HEADER_BYTES, b.at - b.start - HEADER_BYTES, 0)
    bytes = protect(&c.send, b.start, b.start + HEADER_BYTES, b.at - b.start - HEADER_BYTES, p.remote_cid, p.id, number)
    if bytes > 0:
        count_sent(p, <uint32_t>bytes)
        enter(batch, p, <uint32_t>bytes)
    return TRANSMIT_DONE
