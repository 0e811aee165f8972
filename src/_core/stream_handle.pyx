"""What Python holds of a stream: its verbs and readers; the rules are those of connection_handle.

Two ways pass memory of the application without a copy: `lend` sends from a buffer until it is acknowledged, `post`
receives into one while nobody runs here. Both hold the buffer, so that it cannot move or go away meanwhile.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.buffer cimport recv_buffer_post, recv_buffer_unpost
from interpeer._core.channels cimport conn_set_priority
from interpeer._core.conn cimport (
    CONN_OPEN, Conn, conn_ease, conn_finish_stream, conn_lend_stream, conn_read_stream, conn_reset_stream, conn_send_buffer,
    conn_stop_stream, conn_write_stream)
from interpeer._core.engine cimport Engine
from interpeer._core.entry cimport kick_from_destructor, leave, take_lock, wire_code
from interpeer._core.stream cimport (
    RECV_COMPLETE, RECV_IN_TOLD, RECV_OPEN, RECV_READ, RECV_RESET, RECV_RESET_TOLD, RECV_SIZE_KNOWN, SEND_DONE,
    SEND_FINISHING, SEND_OPEN, STREAM_EVENT_ACKED, STREAM_EVENT_READABLE, STREAM_EVENT_WRITABLE, Stream, recv_input,
    stream_readable)
from interpeer._core.wire cimport PRIORITIES

cdef enum:                          # how the receiving side stands
    READING_MORE = 0                # something can be read, or may come
    READING_END = 1                 # everything has been read
    READING_RESET = 2               # the peer gave its side up
    READING_STOPPED = 3             # we have stopped reading
    READING_OVER = 4                # so is the connection

# numbers for the layer above
READABLE = STREAM_EVENT_READABLE
WRITABLE = STREAM_EVENT_WRITABLE
ACKED = STREAM_EVENT_ACKED

MORE, END, RESET, STOPPED, OVER = READING_MORE, READING_END, READING_RESET, READING_STOPPED, READING_OVER

cdef enum:
    COPY_BYTES = 262144             # copied under the lock at a time


cdef object MADE_HERE = object()    # nobody else has it: a handle of nothing would be read all the same


cdef StreamHandle wrap_stream(Engine engine, object connection, Stream *s):
    """Return a new handle of a stream; until it goes away it holds the stream and the connection."""
    cdef StreamHandle stream = StreamHandle.__new__(StreamHandle, MADE_HERE)
    stream.engine = engine
    stream.connection = connection
    stream.stream = s
    stream.id = s.id
    return stream


cdef inline void move_buffer(Py_buffer *to, Py_buffer *from_) noexcept:
    """Move a buffer's reference. None stays behind: the garbage collector visits those that a handle has."""
    memcpy(to, from_, sizeof(Py_buffer))
    memset(from_, 0, sizeof(Py_buffer))


cdef bint is_readable(const Conn *c, const Stream *s) noexcept nogil:
    """Tell whether something can be read, or no more will come."""
    return (stream_readable(s) != 0 or c.state > CONN_OPEN or s.is_stopped
            or (s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN))


cdef uint64_t copy_some(Conn *c, Stream *s, uint8_t *out, uint64_t n) noexcept nogil:
    """Copy up to `n` bytes to the application, as many as may be copied under the lock at a time; return how many."""
    return conn_read_stream(c, s, out, n if n < COPY_BYTES else COPY_BYTES) if n else 0


@cython.final
@cython.no_gc_clear             # the destructor needs the engine and the connection
cdef class StreamHandle:
    """A stream of the engine. Made by a ConnectionHandle, never directly."""

    def __cinit__(self, key=None):
        if key is not MADE_HERE:
            raise TypeError("a stream's handle is made by open_stream and accept_stream of its connection's")
        self.stream = NULL
        self.has_loan = False
        self.has_post = False

    def __dealloc__(self):
        if self.stream == NULL:
            return
        if self.has_loan or self.has_post:
            # the memory goes away with us, so the stream cannot go on using it; in a forked child nobody uses it
            if not self.engine.is_forked():
                self.engine.lock()
                recv_buffer_unpost(&self.stream.in_)
                if self.has_loan:
                    conn_reset_stream(<Conn *>self.stream.conn, self.stream, 0)
                self.engine.unlock()
            if self.has_loan:
                PyBuffer_Release(&self.loan)
            if self.has_post:
                PyBuffer_Release(&self.posted)
        self.engine.let_go_of_stream(self.stream)
        kick_from_destructor(self.engine)

    cdef Conn *enter(self) except NULL:
        take_lock(self.engine)
        return <Conn *>self.stream.conn

    # --- readers: each is right for one moment, and only one that cannot change any more is right for the next ---

    @property
    def bytes_accepted(self):
        """Return how many bytes have been taken from the application."""
        self.enter()
        end = self.stream.out.end
        leave(self.engine)
        return end

    @property
    def bytes_acked(self):
        """Return up to where the peer's transport has everything."""
        self.enter()
        start = self.stream.out.start
        leave(self.engine)
        return start

    @property
    def priority(self):
        """Return the class: 0 is the most urgent."""
        self.enter()
        priority = self.stream.priority
        leave(self.engine)
        return priority

    @priority.setter
    def priority(self, uint8_t priority):
        cdef Conn *c
        if priority >= PRIORITIES:
            raise ValueError(f"a class of urgency is below {PRIORITIES}, not {priority}")
        c = self.enter()
        conn_set_priority(c, self.stream, priority)
        leave(self.engine)

    @property
    def can_write(self):
        """Tell whether the sending side is open and so is the connection."""
        cdef Conn *c = self.enter()
        cdef bint can_write = self.stream.send_state == SEND_OPEN and c.state == CONN_OPEN
        leave(self.engine)
        return can_write

    @property
    def is_finished(self):
        """Tell whether our side was finished, whether or not that is acknowledged."""
        self.enter()
        state = self.stream.send_state
        leave(self.engine)
        return state == SEND_FINISHING or state == SEND_DONE

    @property
    def is_acked(self):
        """Tell whether our side was finished and the peer's transport has all of it."""
        self.enter()
        state = self.stream.send_state
        leave(self.engine)
        return state == SEND_DONE

    @property
    def is_at_end(self):
        """Tell whether everything the peer sent has been read."""
        return self.reading() == READING_END

    @property
    def bytes_readable(self):
        self.enter()
        n = stream_readable(self.stream)
        leave(self.engine)
        return n

    @property
    def reset_code(self):
        """Return the code with which the peer gave its side up, or None."""
        self.enter()
        state, code = self.stream.recv_state, self.stream.peer_code
        leave(self.engine)
        return code if state == RECV_RESET or state == RECV_RESET_TOLD else None

    @property
    def stop_code(self):
        """Return the code with which the peer asked us to stop, or None."""
        self.enter()
        was_stopped, code = self.stream.was_stopped, self.stream.peer_stop_code
        leave(self.engine)
        return code if was_stopped else None

    def reading(self):
        """Tell, for one moment, whether something can be read or may come (MORE), or why not (END, RESET, STOPPED, OVER)."""
        cdef Conn *c = self.enter()
        cdef uint8_t state = self.stream.recv_state
        cdef int result = READING_MORE
        if stream_readable(self.stream) == 0:
            if state == RECV_READ or state == RECV_COMPLETE:
                result = READING_END
            elif self.stream.is_stopped:        # even where the peer has answered that by a reset
                result = READING_STOPPED
            elif state == RECV_RESET or state == RECV_RESET_TOLD:
                result = READING_RESET
            elif c.state > CONN_OPEN:
                result = READING_OVER
        leave(self.engine)
        return result

    def has_acked(self, uint64_t mark):
        """Tell whether the peer's transport has everything below `mark`, and the end if our side is finished; None: it
        never will, since our side was given up, by us, by the peer's wish, or with the connection."""
        self.enter()
        state, start = self.stream.send_state, self.stream.out.start
        leave(self.engine)
        if state > SEND_DONE:
            return None
        return start >= mark and state != SEND_FINISHING

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
                leave(self.engine)
                done += step
                if step < COPY_BYTES or done == n:
                    return done
        finally:
            PyBuffer_Release(&view)

    def lend(self, data):
        """Send a buffer without copying it; False if the stream cannot be written. One loan at a time.

        The buffer is given back by return_loan, once it is acknowledged or the stream is reset."""
        cdef Conn *c
        cdef Py_buffer view
        cdef bint is_taken = False, is_busy
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            c = self.enter()
            is_busy = self.has_loan
            if not is_busy:
                is_taken = conn_lend_stream(c, self.stream, <const uint8_t *>view.buf, view.len)
            if is_taken:
                move_buffer(&self.loan, &view)
                self.loan_end = self.stream.out.end
                self.has_loan = True
            leave(self.engine)
            if is_busy:
                raise RuntimeError("another buffer is being sent on this stream")
        finally:
            if not is_taken:
                PyBuffer_Release(&view)
        return is_taken

    def return_loan(self):
        """Release the lent buffer. If it is not acknowledged, the stream is reset, since it cannot go on."""
        cdef Py_buffer view
        cdef Conn *c = self.enter()
        cdef bint has_loan = self.has_loan
        if has_loan:
            move_buffer(&view, &self.loan)
            self.has_loan = False
            if self.stream.out.start < self.loan_end:
                conn_reset_stream(c, self.stream, 0)
        leave(self.engine, True)
        if has_loan:
            PyBuffer_Release(&view)

    def finish(self):
        """End our side behind what was written."""
        cdef Conn *c = self.enter()
        if c.state == CONN_OPEN:
            conn_finish_stream(c, self.stream)
        leave(self.engine)

    def reset(self, code):
        """Give our side up; what is not acknowledged is forgotten."""
        cdef uint64_t number = wire_code(code)
        cdef Conn *c = self.enter()
        conn_reset_stream(c, self.stream, number)
        leave(self.engine, True)

    def stop(self, code):
        """Read no more, and ask the peer to stop."""
        cdef uint64_t number = wire_code(code)
        cdef Conn *c = self.enter()
        conn_stop_stream(c, self.stream, number)
        leave(self.engine, True)

    def read(self, Py_ssize_t most, Py_ssize_t least=1):
        """Return up to `most` bytes; None when fewer than `least` have arrived, or none (`reading` tells why)."""
        cdef Conn *c
        cdef uint64_t n, done = 0
        cdef bytes out = None
        if most < 0:
            raise ValueError(f"cannot read {most} bytes")
        c = self.enter()
        n = stream_readable(self.stream)
        try:
            if n > <uint64_t>most:
                n = most
            if n and n >= <uint64_t>least:
                out = PyBytes_FromStringAndSize(NULL, n)
                done = copy_some(c, self.stream, <uint8_t *>PyBytes_AS_STRING(out), n)
        finally:
            leave(self.engine)
        if out is None or done == n:
            return out
        done += self.copy_rest(<uint8_t *>PyBytes_AS_STRING(out) + done, n - done)
        return out if done == n else out[:done]

    def readinto(self, buffer, Py_ssize_t start=0):
        """Copy what has arrived into a writable buffer from `start` on; return how many bytes, 0 when none has."""
        cdef Py_buffer view
        cdef uint64_t n, done
        cdef Conn *c
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= start <= view.len:
                raise ValueError(f"start {start} lies outside of {view.len} bytes")
            c = self.enter()
            n = stream_readable(self.stream)
            if n > <uint64_t>(view.len - start):
                n = view.len - start
            done = copy_some(c, self.stream, <uint8_t *>view.buf + start, n)
            leave(self.engine)
            if done < n:
                done += self.copy_rest(<uint8_t *>view.buf + start + done, n - done)
        finally:
            PyBuffer_Release(&view)
        return done

    cdef uint64_t copy_rest(self, uint8_t *out, uint64_t n) except? 0xFFFFFFFFFFFFFFFF:
        """Go on copying, and let others have the lock in between; less is copied if the peer gives the stream up."""
        cdef uint64_t done = 0, step
        cdef Conn *c
        while done < n:
            c = self.enter()
            step = copy_some(c, self.stream, out + done, n - done)
            leave(self.engine)
            if step == 0:
                break
            done += step
        return done

    def post(self, buffer, Py_ssize_t start, uint64_t mark):
        """Receive into a buffer from `start` on while nobody runs here; READABLE tells of `mark` bytes, or of the end, or
        of some that came out of order and have to be read.

        True if waiting makes no sense: something can be read, or no more will come. Otherwise `unpost` ends it."""
        cdef Conn *c
        cdef Stream *s = self.stream
        cdef Py_buffer view
        cdef bint is_posted = False, is_busy
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= start <= view.len:
                raise ValueError(f"start {start} lies outside of {view.len} bytes")
            c = self.enter()
            is_busy = self.has_post
            is_posted = not is_busy and not is_readable(c, s)
            if is_posted:
                recv_buffer_post(&s.in_, <uint8_t *>view.buf + start, view.len - start)
                s.read_mark = mark
                s.wanted |= STREAM_EVENT_READABLE
                conn_ease(c)
                move_buffer(&self.posted, &view)
                self.has_post = True
            leave(self.engine)
            if is_busy:
                raise RuntimeError("another task is reading this stream")
        finally:
            if not is_posted:
                PyBuffer_Release(&view)
        return not is_posted

    def unpost(self):
        """End what `post` began; return how many bytes have come. Harmless without it."""
        cdef Py_buffer view
        cdef uint64_t filled = 0
        cdef bint has_post
        self.enter()
        has_post = self.has_post
        if has_post:
            filled = recv_buffer_unpost(&self.stream.in_)
            move_buffer(&view, &self.posted)
            self.has_post = False
        leave(self.engine)
        if has_post:
            PyBuffer_Release(&view)
        return filled

    def told(self):
        """Note that the application knows of the peer's reset: the receiving side is over."""
        self.enter()
        recv_input(self.stream, RECV_IN_TOLD)
        leave(self.engine)

    def want_readable(self):
        """Ask to be told when something can be read, or no more will come. True if that is so."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = is_readable(c, s)
        if not is_so:
            s.wanted |= STREAM_EVENT_READABLE
            conn_ease(c)
        leave(self.engine)
        return is_so

    def want_writable(self):
        """Ask to be told when there is room to write, or never will be. True if that is so."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = (s.out.end - s.out.start <= conn_send_buffer(c) // 2
                           or s.send_state != SEND_OPEN or c.state > CONN_OPEN)
        if not is_so:
            s.wanted |= STREAM_EVENT_WRITABLE
        leave(self.engine)
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
        leave(self.engine)
        return is_so
