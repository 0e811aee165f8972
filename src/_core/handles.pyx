"""What Python holds of the core: verbs and readers of connections and streams.

A handle keeps its connection or stream alive in the engine, and hands it back when it is destroyed. Every method
takes the engine's lock for a few instructions (a copy, at most), changes the machines, and leaves the sending to the
next turn, for which it kicks the driver. Nothing here waits. `want` says what the caller would wait for: it returns
True if that is so already, and otherwise an event will tell.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from interpeer._core.buffer cimport recv_buffer_post, recv_buffer_unpost
from interpeer._core.conn cimport (
    CLOSED_LOCALLY, CONN_EVENT_CLOSED, CONN_EVENT_DATAGRAM, CONN_EVENT_DATAGRAM_ROOM, CONN_EVENT_FLUSHED,
    CONN_EVENT_OPEN, CONN_EVENT_STREAM, CONN_EVENT_STREAM_ROOM, CONN_IN_CLOSE, CONN_OPEN, Conn, conn_accept_stream,
    conn_close_info, conn_finish_stream, conn_input, conn_lend_stream, conn_max_datagram, conn_open_stream,
    conn_read_stream, conn_reset_stream, conn_send_buffer, conn_stop_stream, conn_wake, conn_write_stream)
from interpeer._core.datagram cimport MESSAGES_OK, messages_next_bytes, messages_pop, messages_push
from interpeer._core.dial cimport Candidate, Dial
from interpeer._core.engine cimport Engine
from interpeer._core.links cimport first_link
from interpeer._core.path cimport Path
from interpeer._core.slab cimport Endpoint
from interpeer._core.stream cimport (
    RECV_COMPLETE, RECV_IN_TOLD, RECV_OPEN, RECV_READ, RECV_RESET, RECV_RESET_TOLD, RECV_SIZE_KNOWN, SEND_DONE,
    SEND_FINISHING, SEND_OPEN, STREAM_EVENT_ACKED, STREAM_EVENT_READABLE, STREAM_EVENT_WRITABLE, Stream, recv_input,
    stream_readable)
from interpeer.errors import DatagramTooLarge, ForkedError

# numbers for the layer above
EVENT_OPEN = CONN_EVENT_OPEN
EVENT_CLOSED = CONN_EVENT_CLOSED
EVENT_STREAM = CONN_EVENT_STREAM
EVENT_STREAM_ROOM = CONN_EVENT_STREAM_ROOM
EVENT_DATAGRAM = CONN_EVENT_DATAGRAM
EVENT_DATAGRAM_ROOM = CONN_EVENT_DATAGRAM_ROOM
EVENT_FLUSHED = CONN_EVENT_FLUSHED
READABLE = STREAM_EVENT_READABLE
WRITABLE = STREAM_EVENT_WRITABLE
ACKED = STREAM_EVENT_ACKED

cdef enum:
    COPY_BYTES = 262144             # copied under the lock at a time


cdef int take_lock(Engine engine) except -1:
    """Take the engine's lock, which whoever holds it gives back within a turn, and without needing the GIL.

    So the GIL is kept while waiting, and while copying: among busy threads it takes 5 to 10 ms to get it back."""
    if engine.is_forked():
        raise ForkedError("this process is a fork of the one that owns the node: open a node of its own")
    if not engine.try_lock():
        engine.lock_waiting()
    return 0


cdef int leave(Engine engine) except -1:
    """Give the lock back, and ask for a turn if there is something to send."""
    cdef bint kick = not engine.is_kicked and first_link(&engine.registry.context.ready) != NULL
    if kick:
        engine.is_kicked = True
    engine.unlock()
    if kick and engine.on_kick is not None:
        engine.on_kick()
    return 0


cdef void kick_from_destructor(Engine engine) noexcept:
    """Ask for the turn that takes back what was let go of; nobody is told if that cannot be."""
    if engine.on_kick is not None and not engine.is_forked():
        try:
            engine.on_kick()
        except Exception:
            pass


@cython.final
@cython.no_gc_clear             # the destructor needs the engine
cdef class ConnectionHandle:
    """A connection of the engine. Made by connect() and by events(), never directly."""

    def __cinit__(self, Engine engine not None):
        self.engine = engine
        self.handle = NULL
        self.owner = None

    def __dealloc__(self):
        if self.handle != NULL:
            self.handle.object = NULL
            self.engine.let_go_of_handle(self.handle)
            kick_from_destructor(self.engine)

    cdef Conn *enter(self) except NULL:
        take_lock(self.engine)
        return self.handle.conn

    cdef StreamHandle wrap(self, Stream *s):
        cdef StreamHandle stream = StreamHandle.__new__(StreamHandle)
        stream.connection = self
        stream.stream = s
        stream.id = s.id
        return stream

    # --- readers; no Python object is made under the lock that could start the garbage collector ---

    @property
    def state(self):
        """Return the state's number: 0 dialling, 1 open, 2 closing, 3 draining, 4 closed."""
        cdef uint8_t state = self.enter().state
        leave(self.engine)
        return state

    @property
    def is_open(self):
        return self.state == CONN_OPEN

    @property
    def is_initiator(self):
        cdef bint is_initiator = self.enter().is_initiator
        leave(self.engine)
        return is_initiator

    @property
    def peer_identity(self):
        """Return the peer's Ed25519 key, 32 bytes."""
        cdef uint8_t identity[32]
        memcpy(identity, self.enter().peer_identity, sizeof(identity))
        leave(self.engine)
        return <bytes>identity[:32]

    @property
    def protocol(self):
        """Return the index of the protocol in the list that the node offers, or 65535 for one it does not."""
        cdef uint32_t protocol = self.enter().protocol
        leave(self.engine)
        return protocol

    @property
    def suite(self):
        """Return the cipher's number: 1 ChaCha20-Poly1305, 2 AES-256-GCM, 3 AEGIS-128L, 4 AEGIS-256."""
        cdef uint8_t suite = self.enter().suite
        leave(self.engine)
        return suite

    @property
    def max_datagram_bytes(self):
        """Return how large a datagram may be; 0 when none can be sent."""
        cdef uint32_t most = conn_max_datagram(self.enter())
        leave(self.engine)
        return most

    @property
    def remote(self):
        """Return the peer's address: 16 bytes, port, scope."""
        cdef Endpoint remote = self.enter().path.remote
        leave(self.engine)
        return <bytes>remote.address[:16], remote.port, remote.scope

    def closed(self):
        """Return (by, code, is_application's, reason) of a connection that is over or closing, otherwise None."""
        cdef Conn *c = self.enter()
        cdef int by = c.closed_by
        cdef uint64_t code = c.close_code
        cdef bint is_app = c.close_is_app
        cdef uint8_t reason[256]        # MAX_REASON_BYTES
        cdef uint32_t n = c.close_reason_bytes
        if n:
            memcpy(reason, c.close_reason, n)
        leave(self.engine)
        return (by, code, bool(is_app), <bytes>reason[:n]) if by else None

    def dial_report(self):
        """Return, for each address that was called in vain: (16 bytes, port, scope), inits sent, asked for a cookie."""
        cdef Candidate candidates[16]
        cdef Conn *c = self.enter()
        cdef Dial *d = <Dial *>c.dial
        cdef int count = d.count if d != NULL else 0
        if d != NULL:
            memcpy(candidates, d.candidates, sizeof(candidates))
        leave(self.engine)
        return [((<bytes>candidates[i].address.address[:16], candidates[i].address.port, candidates[i].address.scope),
                 candidates[i].sent, bool(candidates[i].has_cookie)) for i in range(count)]

    def stats(self):
        """Return figures of the path and of flow control; times in ns."""
        cdef Conn c = self.enter()[0]
        cdef Path *p = &c.path
        leave(self.engine)
        return {
            "rtt_ns": p.recovery.rtt.smoothed_ns, "min_rtt_ns": p.recovery.rtt.min_ns,
            "latest_rtt_ns": p.recovery.rtt.latest_ns, "rtt_variance_ns": p.recovery.rtt.variance_ns,
            "window_bytes": p.cc.window, "bytes_in_flight": p.recovery.bytes_in_flight,
            "congestion_events": p.cc.congestion_events, "packets_sent": p.packets_sent,
            "packets_received": p.packets_received, "packets_lost": p.packets_lost, "bytes_sent": p.bytes_sent,
            "bytes_received": p.bytes_received, "packet_bytes": p.packet_bytes, "ecn": p.ecn_state,
            "ecn_ce": p.ecn_ce, "key_epoch": c.send.epoch, "peer_key_epoch": c.recv.epoch,
            "data_sent": c.data_sent, "data_limit": c.data_limit, "data_received": c.data_received,
            "data_allowed": c.data_allowed, "streams": c.streams.count,
            "datagrams_queued": c.messages_out.count, "datagrams_waiting": c.messages_in.count,
            "datagrams_dropped": c.messages_in.dropped,
        }

    # --- verbs ---

    def take(self):
        """Note that the application has taken an incoming connection off the backlog."""
        cdef Conn *c = self.enter()
        if c.in_backlog:
            c.in_backlog = False
            self.engine.registry.backlog -= 1
        leave(self.engine)

    def want(self, int events):
        """Ask to be told of any of these events; return those that have come true already, and then nothing is asked."""
        cdef Conn *c = self.enter()
        cdef int now = 0
        if c.state > CONN_OPEN:
            now = events
        if events & CONN_EVENT_OPEN and c.state == CONN_OPEN:
            now |= CONN_EVENT_OPEN
        if events & CONN_EVENT_STREAM and c.accepted < c.peer_opened:
            now |= CONN_EVENT_STREAM
        if events & CONN_EVENT_STREAM_ROOM and c.opened < c.open_limit:
            now |= CONN_EVENT_STREAM_ROOM
        if events & CONN_EVENT_DATAGRAM and c.messages_in.count:
            now |= CONN_EVENT_DATAGRAM
        if events & CONN_EVENT_DATAGRAM_ROOM and c.messages_out.used <= c.messages_out.limit // 2:
            now |= CONN_EVENT_DATAGRAM_ROOM
        if events & CONN_EVENT_FLUSHED and c.finishing == 0:
            now |= CONN_EVENT_FLUSHED
        if not now:
            c.wanted |= events
        leave(self.engine)
        return now

    def close(self, uint64_t code, bytes reason):
        """Close, telling the peer; nothing more is sent. Harmless on a connection that is over."""
        cdef Conn *c = self.enter()
        conn_close_info(c, CLOSED_LOCALLY, code, True, <const uint8_t *>PyBytes_AS_STRING(reason),
                        <uint32_t>PyBytes_GET_SIZE(reason))
        conn_input(c, CONN_IN_CLOSE)
        leave(self.engine)

    def open_stream(self):
        """Open a stream and announce it; None while the peer allows no more, or when the connection is not open."""
        cdef Conn *c = self.enter()
        cdef Stream *s = conn_open_stream(c) if c.state == CONN_OPEN else NULL
        leave(self.engine)
        return self.wrap(s) if s != NULL else None

    def accept_stream(self):
        """Return the peer's next stream, or None."""
        cdef Conn *c = self.enter()
        cdef Stream *s = conn_accept_stream(c)
        leave(self.engine)
        return self.wrap(s) if s != NULL else None

    def send_datagram(self, data):
        """Queue a datagram; False when the queue is full or the connection is not open. Raise DatagramTooLarge."""
        cdef Conn *c
        cdef Py_buffer view
        cdef int result
        if PyBytes_CheckExact(data):
            c = self.enter()
            result = push(c, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            leave(self.engine)
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            try:
                c = self.enter()
                result = push(c, <const uint8_t *>view.buf, view.len)
                leave(self.engine)
            finally:
                PyBuffer_Release(&view)
        if result == TOO_LARGE:
            raise DatagramTooLarge(f"a datagram of {len(data)} bytes; at most {self.max_datagram_bytes} fit in a packet")
        return result == MESSAGES_OK

    def send_datagrams(self, messages):
        """Queue datagrams until one does not fit; return how many were queued. Raise DatagramTooLarge for the first."""
        cdef list items = messages if type(messages) is list else list(messages)
        cdef Py_ssize_t sent = 0, n = len(items)
        cdef Conn *c
        cdef int result = MESSAGES_OK
        if all_bytes(items):
            c = self.enter()
            while sent < n:
                result = push(c, <const uint8_t *>PyBytes_AS_STRING(items[sent]), PyBytes_GET_SIZE(items[sent]))
                if result != MESSAGES_OK:
                    break
                sent += 1
            leave(self.engine)
            if result == TOO_LARGE and sent == 0:
                self.send_datagram(items[0])
            return sent
        while sent < n:
            try:
                if not self.send_datagram(items[sent]):
                    break
            except DatagramTooLarge:
                if sent == 0:
                    raise
                break
            sent += 1
        return sent

    def recv_datagram(self):
        """Return the oldest datagram, or None."""
        cdef Conn *c
        cdef bytes message = None
        c = self.enter()
        try:
            if c.messages_in.count:
                message = PyBytes_FromStringAndSize(NULL, messages_next_bytes(&c.messages_in))
                messages_pop(&c.messages_in, <uint8_t *>PyBytes_AS_STRING(message))
        finally:
            leave(self.engine)
        return message

    def recv_datagrams(self, Py_ssize_t most):
        """Return up to `most` datagrams, oldest first; an empty list when there are none."""
        cdef bytes message
        cdef list messages = []
        cdef Conn *c = self.enter()
        try:
            while c.messages_in.count and len(messages) < most:
                message = PyBytes_FromStringAndSize(NULL, messages_next_bytes(&c.messages_in))
                messages_pop(&c.messages_in, <uint8_t *>PyBytes_AS_STRING(message))
                messages.append(message)
        finally:
            leave(self.engine)
        return messages


cdef enum:
    TOO_LARGE = -10
    NOT_OPEN = -11


cdef int push(Conn *c, const uint8_t *data, Py_ssize_t n) noexcept:
    """Queue one datagram; MESSAGES_*, TOO_LARGE or NOT_OPEN."""
    cdef int result
    if c.state != CONN_OPEN:
        return NOT_OPEN
    if n > conn_max_datagram(c):
        return TOO_LARGE
    result = messages_push(&c.messages_out, data, <uint32_t>n)
    if result == MESSAGES_OK:
        conn_wake(c)
    return result


cdef bint all_bytes(list items):
    for item in items:
        if not PyBytes_CheckExact(item):
            return False
    return True


cdef bint is_readable(const Conn *c, const Stream *s) noexcept nogil:
    """Tell whether something can be read, or no more will come."""
    return (stream_readable(s) != 0 or c.state > CONN_OPEN or s.is_stopped
            or (s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN))


@cython.final
@cython.no_gc_clear             # the destructor needs the engine
cdef class StreamHandle:
    """A stream of the engine. Made by a ConnectionHandle, never directly."""

    def __cinit__(self):
        self.stream = NULL
        self.has_loan = False
        self.has_post = False

    def __dealloc__(self):
        if self.stream == NULL:
            return
        if (self.has_loan or self.has_post) and not self.connection.engine.is_forked():
            # the memory goes away with us, so the stream cannot go on using it
            self.connection.engine.lock()
            recv_buffer_unpost(&self.stream.in_)
            if self.has_loan:
                conn_reset_stream(<Conn *>self.stream.conn, self.stream, 0)
            self.connection.engine.unlock()
            if self.has_loan:
                PyBuffer_Release(&self.loan)
            if self.has_post:
                PyBuffer_Release(&self.posted)
        self.connection.engine.let_go_of_stream(self.stream)
        kick_from_destructor(self.connection.engine)

    cdef Conn *enter(self) except NULL:
        take_lock(self.connection.engine)
        return <Conn *>self.stream.conn

    # --- readers ---

    @property
    def bytes_accepted(self):
        """Return how many bytes have been taken from the application."""
        return self.stream.out.end

    @property
    def bytes_acked(self):
        """Return up to where the peer's transport has everything."""
        return self.stream.out.start

    @property
    def can_write(self):
        """Tell whether the sending side is open and so is the connection."""
        return self.stream.send_state == SEND_OPEN and (<Conn *>self.stream.conn).state == CONN_OPEN

    @property
    def is_finished(self):
        """Tell whether our side was finished, whether or not that is acknowledged."""
        return self.stream.send_state == SEND_FINISHING or self.stream.send_state == SEND_DONE

    @property
    def is_reset(self):
        """Tell whether our side was given up, by us, by the peer's wish, or with the connection."""
        return self.stream.send_state > SEND_DONE

    @property
    def is_acked(self):
        """Tell whether our side was finished and the peer's transport has all of it."""
        return self.stream.send_state == SEND_DONE

    @property
    def is_at_end(self):
        """Tell whether everything the peer sent has been read."""
        cdef uint8_t state = self.stream.recv_state
        return state == RECV_READ or (state == RECV_COMPLETE and stream_readable(self.stream) == 0)

    @property
    def bytes_readable(self):
        return stream_readable(self.stream)

    @property
    def reset_code(self):
        """Return the code with which the peer gave its side up, or None."""
        cdef uint8_t state = self.stream.recv_state
        return self.stream.peer_code if state == RECV_RESET or state == RECV_RESET_TOLD else None

    @property
    def stop_code(self):
        """Return the code with which the peer asked us to stop, or None."""
        return self.stream.peer_stop_code if self.stream.was_stopped else None

    @property
    def is_stopped(self):
        """Tell whether we have stopped reading."""
        return bool(self.stream.is_stopped)

    # --- verbs ---

    def write(self, data, Py_ssize_t start=0):
        """Copy bytes from `start` on, as many as there is room for; return how many."""
        cdef Py_buffer view
        cdef uint64_t done = 0, n, step
        cdef Conn *c
        cdef const uint8_t *p
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= view.len:
                raise ValueError(f"start {start} lies outside of {view.len} bytes")
            n = view.len - start
            p = <const uint8_t *>view.buf + start
            while True:
                c = self.enter()
                step = n - done if n - done < COPY_BYTES else COPY_BYTES
                step = conn_write_stream(c, self.stream, p + done, step)
                leave(self.connection.engine)
                done += step
                if step < COPY_BYTES or done == n:
                    return done
        finally:
            PyBuffer_Release(&view)

    def lend(self, data):
        """Send a buffer without copying it; False if the stream cannot be written. One loan at a time.

        The buffer is given back by return_loan, once it is acknowledged or the stream is reset."""
        cdef Conn *c
        cdef bint is_taken
        if self.has_loan:
            raise RuntimeError("another buffer is being sent on this stream")
        PyObject_GetBuffer(data, &self.loan, PyBUF_SIMPLE)
        try:
            c = self.enter()
            is_taken = conn_lend_stream(c, self.stream, <const uint8_t *>self.loan.buf, self.loan.len)
            self.loan_end = self.stream.out.end
            self.has_loan = is_taken
            leave(self.connection.engine)
        finally:
            if not self.has_loan:
                PyBuffer_Release(&self.loan)
        return is_taken

    def return_loan(self):
        """Release the lent buffer. If it is not acknowledged, the stream is reset, since it cannot go on."""
        cdef Conn *c
        if not self.has_loan:
            return
        c = self.enter()
        if self.stream.out.start < self.loan_end:
            conn_reset_stream(c, self.stream, 0)
        leave(self.connection.engine)
        self.has_loan = False
        PyBuffer_Release(&self.loan)

    def finish(self):
        """End our side behind what was written."""
        cdef Conn *c = self.enter()
        if c.state == CONN_OPEN:
            conn_finish_stream(c, self.stream)
        leave(self.connection.engine)

    def reset(self, uint64_t code):
        """Give our side up; what is not acknowledged is forgotten."""
        cdef Conn *c = self.enter()
        conn_reset_stream(c, self.stream, code)
        leave(self.connection.engine)

    def stop(self, uint64_t code):
        """Read no more, and ask the peer to stop."""
        cdef Conn *c = self.enter()
        conn_stop_stream(c, self.stream, code)
        leave(self.connection.engine)

    def read(self, Py_ssize_t most):
        """Return up to `most` bytes; None when nothing has arrived (or ever will: see is_at_end and reset_code)."""
        cdef Conn *c = self.enter()
        cdef uint64_t n = stream_readable(self.stream)
        cdef bytes out = None
        try:
            if n > <uint64_t>most:
                n = most
            if n:
                out = PyBytes_FromStringAndSize(NULL, n)
                conn_read_stream(c, self.stream, <uint8_t *>PyBytes_AS_STRING(out), n)
        finally:
            leave(self.connection.engine)
        return out

    def readinto(self, buffer, Py_ssize_t start=0):
        """Copy what has arrived into a writable buffer from `start` on; return how many bytes, 0 when none has."""
        cdef Py_buffer view
        cdef uint64_t n
        cdef Conn *c
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= start <= view.len:
                raise ValueError(f"start {start} lies outside of {view.len} bytes")
            c = self.enter()
            n = stream_readable(self.stream)
            if n > <uint64_t>(view.len - start):
                n = view.len - start
            if n:
                conn_read_stream(c, self.stream, <uint8_t *>view.buf + start, n)
            leave(self.connection.engine)
        finally:
            PyBuffer_Release(&view)
        return n

    def post(self, buffer, Py_ssize_t start, uint64_t mark):
        """Receive into a buffer from `start` on while nobody runs here; READABLE tells of `mark` bytes, or of the end, or
        of some that came out of order and have to be read.

        True if waiting makes no sense: something can be read, or no more will come. Otherwise `unpost` ends it."""
        cdef Conn *c
        cdef Stream *s
        if self.has_post:
            raise RuntimeError("another task is reading this stream")
        PyObject_GetBuffer(buffer, &self.posted, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= start <= self.posted.len:
                raise ValueError(f"start {start} lies outside of {self.posted.len} bytes")
            c = self.enter()
            s = self.stream
            self.has_post = not is_readable(c, s)
            if self.has_post:
                recv_buffer_post(&s.in_, <uint8_t *>self.posted.buf + start, self.posted.len - start)
                s.read_mark = mark
                s.wanted |= STREAM_EVENT_READABLE
            leave(self.connection.engine)
        finally:
            if not self.has_post:
                PyBuffer_Release(&self.posted)
        return not self.has_post

    def unpost(self):
        """End what `post` began; return how many bytes have come. Harmless without it."""
        cdef uint64_t filled = 0
        if self.has_post:
            self.enter()
            filled = recv_buffer_unpost(&self.stream.in_)
            leave(self.connection.engine)
            self.has_post = False
            PyBuffer_Release(&self.posted)
        return filled

    def told(self):
        """Note that the application knows of the peer's reset: the receiving side is over."""
        self.enter()
        recv_input(self.stream, RECV_IN_TOLD)
        leave(self.connection.engine)

    def want_readable(self):
        """Ask to be told when something can be read, or no more will come. True if that is so."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = is_readable(c, s)
        if not is_so:
            s.wanted |= STREAM_EVENT_READABLE
        leave(self.connection.engine)
        return is_so

    def want_writable(self):
        """Ask to be told when there is room to write, or never will be. True if that is so."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = (s.out.end - s.out.start <= conn_send_buffer(c) // 2
                           or s.send_state != SEND_OPEN or c.state > CONN_OPEN)
        if not is_so:
            s.wanted |= STREAM_EVENT_WRITABLE
        leave(self.connection.engine)
        return is_so

    def want_acked(self, uint64_t mark):
        """Ask to be told when everything below `mark`, and FIN if it was sent, is acknowledged. True if that is so."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = (s.out.start >= mark and s.send_state != SEND_FINISHING) or s.send_state > SEND_FINISHING \
            or c.state > CONN_OPEN
        if not is_so:
            s.acked_mark = mark
            s.wanted |= STREAM_EVENT_ACKED
        leave(self.connection.engine)
        return is_so
