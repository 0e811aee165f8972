"""Python doors into the mechanisms of the transport: loss, path, stream. Acknowledgements go in and out as frames."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.buffer cimport BUFFER_OK, recv_buffer_post, recv_buffer_unpost, send_buffer_append, send_buffer_lend
from interpeer._core.controller cimport CONTROLLER_CUBIC
from interpeer._core.loss cimport (
    LOSS_OK, LOSS_PROTOCOL, SENT_ELICITING, SENT_STREAM, AckOutcome, Recovery, SentPacket, recovery_add, recovery_deadline,
    recovery_free, recovery_handle_ack, recovery_handle_timeout, recovery_init, recovery_oldest, recovery_pto_ns,
    recovery_seed_rtt, recovery_sent, recovery_skip)
from interpeer._core.path cimport (
    Path, path_free, path_handle_ack_acked, path_handle_ecn, path_handle_number, path_init, path_write_ack)
from interpeer._core.probe cimport Exact, exact, room
from interpeer._core.probe_memory cimport Pools
from interpeer._core.slab cimport Endpoint
from interpeer._core.stream cimport (
    RECV_STATES, SEND_STATES, Stream, recv_input, send_input, stream_clear, stream_copy, stream_finish, stream_handle_acked,
    stream_handle_data, stream_handle_lost, stream_handle_reset, stream_has_data, stream_init, stream_is_over,
    stream_mark_sent, stream_next, stream_raise_limit, stream_read, stream_readable, stream_reset, stream_stop)
from interpeer._core.wire cimport FRAME_ACK, FRAME_ACK_ECN, PARSE_OK, Frame, Reader, parse_frame


cdef int parse_ack_frame(Exact source, Frame *f) except -1:
    """Read the ACK frame that `source` consists of; `f` points into it."""
    cdef Reader r
    r.p, r.end = source.p, source.p + source.n
    assert parse_frame(&r, f) == PARSE_OK and r.p == r.end and f.type in (FRAME_ACK, FRAME_ACK_ECN)
    return 0


# --- loss ---

cdef void note_acked(void *owner, uint64_t number, const SentPacket *packet) noexcept nogil:
    with gil:
        (<Recoverer>owner).fates.append(("acked", number))


cdef void note_lost(void *owner, uint64_t number, const SentPacket *packet) noexcept nogil:
    with gil:
        (<Recoverer>owner).fates.append(("lost", number))


cdef dict outcome_to_dict(const AckOutcome *o):
    return {
        "acked_bytes": o.acked_bytes, "acked_packets": o.acked_packets, "largest_moved": bool(o.largest_moved),
        "newest_acked_sent_ns": o.newest_acked_sent_ns, "has_rtt": bool(o.has_rtt), "lost_bytes": o.lost_bytes,
        "lost_packets": o.lost_packets, "newest_lost_sent_ns": o.newest_lost_sent_ns, "is_persistent": bool(o.is_persistent),
        "rate": o.rate, "is_rate_app_limited": bool(o.is_rate_app_limited), "prior_delivered": o.prior_delivered,
        "prior_in_flight": o.prior_in_flight, "lost_since": o.lost_since, "lost_prior_in_flight": o.lost_prior_in_flight,
        "lost_lost_since": o.lost_lost_since,
    }


cdef class Recoverer:
    """A Recovery; `fates` collects what its owner is told."""

    cdef Recovery recovery
    cdef readonly list fates

    def __cinit__(self):
        self.fates = []
        recovery_init(&self.recovery, <void *>self, note_acked, note_lost)

    def __dealloc__(self):
        self.fates = []             # recovery_free tells of packets that are still on their way
        recovery_free(&self.recovery)

    def send(self, uint64_t now_ns, uint32_t n, bint is_eliciting):
        """Return the packet's number."""
        cdef SentPacket *p = recovery_add(&self.recovery, now_ns)
        assert p != NULL
        p.bytes = n
        if is_eliciting:
            p.flags |= SENT_ELICITING | SENT_STREAM
        recovery_sent(&self.recovery, p)
        return self.recovery.next - 1

    def skip(self):
        """Leave a number out, and return it."""
        assert recovery_skip(&self.recovery) == LOSS_OK
        return self.recovery.next - 1

    def ack(self, bytes frame, uint64_t now_ns, uint64_t max_ack_delay_ns):
        """Return the outcome, or None for an acknowledgement of what was never sent."""
        cdef Frame f
        cdef AckOutcome outcome
        source = exact(frame)
        parse_ack_frame(source, &f)
        if recovery_handle_ack(&self.recovery, &f, now_ns, max_ack_delay_ns, &outcome) == LOSS_PROTOCOL:
            return None
        return outcome_to_dict(&outcome)

    def timeout(self, uint64_t now_ns, uint64_t max_ack_delay_ns=0):
        cdef AckOutcome outcome
        recovery_handle_timeout(&self.recovery, now_ns, max_ack_delay_ns, &outcome)
        return outcome_to_dict(&outcome)

    def seed_rtt(self, uint64_t sample_ns):
        recovery_seed_rtt(&self.recovery, sample_ns)

    def deadline(self, uint64_t max_ack_delay_ns):
        return recovery_deadline(&self.recovery, max_ack_delay_ns)

    def pto_ns(self, uint64_t max_ack_delay_ns):
        return recovery_pto_ns(&self.recovery, max_ack_delay_ns)

    def oldest_sent_ns(self):
        """Return when the oldest packet was sent that waits for an acknowledgement and carries something, or None."""
        cdef uint64_t number = 0
        cdef const SentPacket *p = recovery_oldest(&self.recovery, &number)
        return p.sent_ns if p != NULL else None

    def free(self):
        recovery_free(&self.recovery)

    @property
    def rtt(self):
        """Return latest, smoothed, variance, least; in ns."""
        rtt = self.recovery.rtt
        return rtt.latest_ns, rtt.smoothed_ns, rtt.variance_ns, rtt.min_ns

    @property
    def state(self):
        return {
            "bytes_in_flight": self.recovery.bytes_in_flight, "eliciting_in_flight": self.recovery.eliciting_in_flight,
            "largest_acked": self.recovery.largest_acked - 1, "loss_time_ns": self.recovery.loss_time_ns,
            "pto_count": self.recovery.pto_count,
        }

    @property
    def kept(self):
        """Return how many packets are remembered, and for how many there is room."""
        return self.recovery.next - self.recovery.base, self.recovery.capacity


# --- a path's acknowledgements and ECN ---

cdef class Acknowledger:
    cdef Path path

    def __cinit__(self, uint32_t id=0):
        cdef Endpoint nowhere
        memset(&nowhere, 0, sizeof(Endpoint))
        path_init(&self.path, id, &nowhere, 1200, CONTROLLER_CUBIC, note_acked, note_lost)

    def __dealloc__(self):
        path_free(&self.path)

    def got(self, uint64_t number, *, bint eliciting=True, int ecn=0, uint64_t now_ns=1, uint64_t max_ack_delay_ns=5000000):
        path_handle_number(&self.path, number, eliciting, ecn, now_ns, max_ack_delay_ns)

    def write_ack(self, Py_ssize_t space, uint64_t now_ns=1):
        out = room(space)
        return out.first(path_write_ack(&self.path, out.p, out.p + out.n, now_ns) - out.p)

    def ack_acked(self, uint64_t largest):
        path_handle_ack_acked(&self.path, largest)

    def check_ecn(self, bytes frame, uint64_t newly_acked_packets):
        """Return whether the path has marked packets since the last acknowledgement."""
        cdef Frame f
        source = exact(frame)
        parse_ack_frame(source, &f)
        return bool(path_handle_ecn(&self.path, &f, newly_acked_packets))

    @property
    def owed(self):
        """Return packets without an acknowledgement, whether one is due now, and when it will be."""
        return self.path.unacked, bool(self.path.ack_now), self.path.ack_deadline_ns

    @property
    def ranges(self):
        received = &self.path.received
        return [(received.ranges[i].start, received.ranges[i].end) for i in range(received.count)]

    @property
    def ecn_state(self):
        return ("testing", "capable", "failed")[self.path.ecn_state]

    @property
    def ecn_sent(self):
        return self.path.ecn_sent

    @ecn_sent.setter
    def ecn_sent(self, uint64_t packets):
        self.path.ecn_sent = packets

    @property
    def ecn_received(self):
        return tuple([self.path.ecn_received[i] for i in range(3)])

    @ecn_received.setter
    def ecn_received(self, counts):
        for i in range(3):
            self.path.ecn_received[i] = counts[i]


# --- streams ---

def step_send(int state, int event):
    """Return the sending side's next state, or None where the input is not allowed."""
    cdef Stream s
    assert 0 <= state < SEND_STATES
    s.send_state = state
    result = send_input(&s, event)
    assert result == 0 or s.send_state == state
    return s.send_state if result == 0 else None


def step_recv(int state, int event):
    """Return the receiving side's next state, or None where the input is not allowed."""
    cdef Stream s
    assert 0 <= state < RECV_STATES
    s.recv_state = state
    result = recv_input(&s, event)
    assert result == 0 or s.recv_state == state
    return s.recv_state if result == 0 else None


@cython.no_gc_clear             # the destructor needs the pools
cdef class Flow:
    """A Stream, both sides of it."""

    cdef Stream stream
    cdef readonly Pools pools
    cdef list lent
    cdef Exact posted

    def __cinit__(self, uint64_t send_limit=1 << 40, uint64_t window=1 << 20, Pools pools=None):
        self.pools = pools if pools is not None else Pools()
        self.lent = []
        stream_init(&self.stream, 0, &self.pools.pools, send_limit, window)

    def __dealloc__(self):
        stream_clear(&self.stream)

    # sending

    def write(self, bytes data):
        source = exact(data)
        return send_buffer_append(&self.stream.out, source.p, source.n)

    def lend(self, bytes data):
        source = exact(data)
        self.lent.append(source)
        assert send_buffer_lend(&self.stream.out, source.p, source.n) == BUFFER_OK

    def finish(self):
        stream_finish(&self.stream)

    def reset(self, uint64_t code):
        stream_reset(&self.stream, code)

    def raise_send_limit(self, uint64_t limit):
        self.stream.send_limit = limit

    @property
    def has_data(self):
        return bool(stream_has_data(&self.stream))

    def next(self, uint64_t credit):
        """Return offset and length of the piece to be sent."""
        cdef uint64_t offset = 0
        n = stream_next(&self.stream, credit, &offset)
        return offset, n

    def send(self, uint64_t credit, uint64_t most):
        """Take the next piece, of at most so many bytes; return offset, data, whether it ends the stream."""
        cdef uint64_t offset = 0
        cdef uint64_t n = min(stream_next(&self.stream, credit, &offset), most)
        out = room(n)
        stream_copy(&self.stream, offset, out.p, n)
        fin = bool(stream_mark_sent(&self.stream, offset, n))
        return offset, out.first(n), fin

    def acked(self, uint64_t offset, uint64_t n, bint fin):
        stream_handle_acked(&self.stream, offset, n, fin)

    def lost(self, uint64_t offset, uint64_t n, bint fin):
        stream_handle_lost(&self.stream, offset, n, fin)

    # receiving

    def data(self, uint64_t offset, bytes data, bint fin=False, uint64_t credit=1 << 40):
        """Return the code of the rule that is broken, 0 for none, and how much of the credit is used."""
        cdef uint64_t grown = 0
        source = exact(data)
        code = stream_handle_data(&self.stream, offset, source.p, source.n, fin, credit, &grown)
        return code, grown

    def peer_reset(self, uint64_t code, uint64_t final_size, uint64_t credit=1 << 40):
        """Return the code of the rule that is broken, how much of the credit is used, and the bytes that will not be read."""
        cdef uint64_t grown = 0, dropped = 0
        result = stream_handle_reset(&self.stream, code, final_size, credit, &grown, &dropped)
        return result, grown, dropped

    def read(self, uint64_t n):
        out = room(n)
        return out.first(stream_read(&self.stream, out.p, n))

    def post(self, Py_ssize_t n):
        self.posted = room(n)
        recv_buffer_post(&self.stream.in_, self.posted.p, n)

    def unpost(self):
        return self.posted.first(recv_buffer_unpost(&self.stream.in_))

    def stop(self, uint64_t code):
        return stream_stop(&self.stream, code, True)

    def told(self, int event):
        """Give the receiving side an input."""
        return recv_input(&self.stream, event)

    def raise_limit(self, uint64_t now_ns, uint64_t rtt_ns, uint64_t max_window):
        return bool(stream_raise_limit(&self.stream, now_ns, rtt_ns, max_window))

    # readers

    @property
    def states(self):
        return self.stream.send_state, self.stream.recv_state

    @property
    def is_over(self):
        return bool(stream_is_over(&self.stream))

    @property
    def pending(self):
        return self.stream.pending

    @property
    def readable(self):
        return stream_readable(&self.stream)

    @property
    def sent(self):
        return self.stream.sent

    @property
    def acked_to(self):
        return self.stream.out.start

    @property
    def written(self):
        return self.stream.out.end

    @property
    def highest(self):
        return self.stream.highest

    @property
    def recv_limit(self):
        return self.stream.recv_limit

    @property
    def window(self):
        return self.stream.window

    @property
    def peer_code(self):
        return self.stream.peer_code

    @property
    def codes(self):
        """Return the codes of our RESET_STREAM and our STOP_SENDING."""
        return self.stream.reset_code, self.stream.stop_code
