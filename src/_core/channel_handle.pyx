"""What Python holds of a channel: its verbs and readers; the rules are those of connection_handle.

Messages cross in batches where there are several: a list in, a list out, and the lock is taken once for each.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.buffer cimport Draft, draft_fill, draft_give, draft_take
from interpeer._core.channel cimport Channel, ChannelCounters, channel_of, channel_wire_id
from interpeer._core.channels cimport (
    SEND_NO_MEMORY, SEND_TAKEN, conn_may_send, conn_message_was_read, conn_send_message, conn_set_channel)
from interpeer._core.conn cimport (
    CONN_OPEN, Conn, conn_ease, conn_finish_stream, conn_reset_stream, conn_send_buffer, conn_stop_stream)
from interpeer._core.engine cimport Engine
from interpeer._core.entry cimport kick_from_destructor, leave, take_lock, wire_code
from interpeer._core.inbox cimport InMessage, channel_has_message, channel_next_message, channel_take_message
from interpeer._core.rangeset cimport Range
from interpeer._core.stream cimport (
    RECV_COMPLETE, RECV_IN_TOLD, RECV_OPEN, RECV_READ, RECV_RESET, RECV_RESET_TOLD, RECV_SIZE_KNOWN, SEND_DONE,
    SEND_FINISHING, SEND_OPEN, STREAM_EVENT_ACKED, STREAM_EVENT_READABLE, STREAM_EVENT_WRITABLE, Stream, recv_input,
    stream_waiting)
from interpeer._core.wire cimport Capabilities

cdef enum:                          # how the receiving side stands
    READING_MORE = 0                # a message waits, or may come
    READING_END = 1                 # the peer has closed its side, and all messages have been taken
    READING_RESET = 2               # the peer gave its side up
    READING_STOPPED = 3             # we have stopped reading
    READING_OVER = 4                # so is the connection

# numbers for the layer above
READABLE = STREAM_EVENT_READABLE
WRITABLE = STREAM_EVENT_WRITABLE
ACKED = STREAM_EVENT_ACKED

MORE, END, RESET, STOPPED, OVER = READING_MORE, READING_END, READING_RESET, READING_STOPPED, READING_OVER

cdef enum:
    NUMBERS = 64                    # ranges of them that the application is told
    MESSAGES_AT_A_TIME = 16384
    ASIDE_BYTES = 262144            # from so many on a message is copied without the lock: below, that takes microseconds
    BATCH_BYTES = 4194304           # copied under the lock at a time, but for a larger message


cdef object MADE_HERE = object()    # nobody else has it: a handle of nothing would be read all the same


cdef ChannelHandle wrap_channel(Engine engine, object connection, Stream *s):
    """Return a new handle of a channel; until it goes away it holds the channel and the connection."""
    cdef ChannelHandle channel = ChannelHandle.__new__(ChannelHandle, MADE_HERE)
    channel.engine = engine
    channel.connection = connection
    channel.stream = s
    channel.id = channel_wire_id(s)
    channel.key = s.id
    return channel


cdef int read_capabilities(tuple values, Capabilities *out) except -1:
    """Convert (flags, class, deadline in us, FEC's messages, FEC's repairs)."""
    out.flags, out.priority, out.deadline_us, out.fec_data, out.fec_repair = values
    return 0


cdef bint has_come(Conn *c, Stream *s) noexcept nogil:
    """Tell whether a message can be taken, or no more will come."""
    return (channel_has_message(s) or c.state > CONN_OPEN or s.is_stopped
            or (s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN))


@cython.final
@cython.no_gc_clear             # the destructor needs the engine and the connection
cdef class ChannelHandle:
    """A channel of the engine. Made by a ConnectionHandle, never directly."""

    def __cinit__(self, key=None):
        if key is not MADE_HERE:
            raise TypeError("a channel's handle is made by open_channel and accept_channel of its connection's")
        self.stream = NULL

    def __dealloc__(self):
        if self.stream == NULL:
            return
        self.engine.let_go_of_stream(self.stream)
        kick_from_destructor(self.engine)

    cdef Conn *enter(self) except NULL:
        take_lock(self.engine)
        return <Conn *>self.stream.conn

    # --- readers; no Python object is made under the lock that could start the garbage collector ---

    @property
    def capabilities(self):
        """Return with what we send: flags, class, deadline in us, FEC's messages and repairs."""
        cdef Capabilities now
        self.enter()
        now = channel_of(self.stream).capabilities
        leave(self.engine)
        return now.flags, now.priority, now.deadline_us, now.fec_data, now.fec_repair

    @property
    def peer_capabilities(self):
        """Return with what the peer sends, as far as it has told; otherwise None."""
        cdef Capabilities now
        cdef bint has_theirs
        self.enter()
        now = channel_of(self.stream).theirs
        has_theirs = channel_of(self.stream).has_theirs
        leave(self.engine)
        return (now.flags, now.priority, now.deadline_us, now.fec_data, now.fec_repair) if has_theirs else None

    @property
    def can_send(self):
        """Tell whether the sending side is open and so is the connection."""
        cdef Conn *c = self.enter()
        cdef bint can_send = self.stream.send_state == SEND_OPEN and c.state == CONN_OPEN
        leave(self.engine)
        return can_send

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

    @property
    def own_reset_code(self):
        """Return the code with which our side was given up, or None."""
        self.enter()
        state, code = self.stream.send_state, self.stream.reset_code
        leave(self.engine)
        return code if state > SEND_DONE else None

    @property
    def number(self):
        """Return the number of the message that was taken last, from 0; None before the first."""
        cdef uint64_t number, count
        self.enter()
        number, count = channel_of(self.stream).last_number, channel_of(self.stream).counters.messages_received
        leave(self.engine)
        return number if count else None

    def dropped(self):
        """Return how many messages we have given up, how many the peer has, and the newest ranges of the latter's numbers."""
        cdef Range ranges[NUMBERS]
        cdef uint32_t n, i, skip
        cdef Channel *ch
        self.enter()
        ch = channel_of(self.stream)
        n = ch.gone.count if ch.gone.count < NUMBERS else NUMBERS
        skip = ch.gone.count - n
        for i in range(n):
            ranges[i] = ch.gone.ranges[skip + i]
        ours, theirs = ch.counters.dropped, ch.counters.peer_dropped
        leave(self.engine)
        return ours, theirs, tuple([(ranges[i].start, ranges[i].end) for i in range(n)])

    def stats(self):
        """Return figures by name."""
        cdef ChannelCounters counters
        cdef uint64_t queued, queued_bytes, waiting_bytes
        self.enter()
        counters = channel_of(self.stream).counters
        queued = channel_of(self.stream).count
        queued_bytes = self.stream.out.end - self.stream.out.start
        waiting_bytes = self.stream.in_.ready - self.stream.in_.read
        leave(self.engine)
        return {**counters, "queued": queued, "queued_bytes": queued_bytes, "waiting_bytes": waiting_bytes}

    def reading(self):
        """Tell, for one moment, whether a message waits or may come (MORE), or why not (END, RESET, STOPPED, OVER)."""
        cdef Conn *c = self.enter()
        cdef uint8_t state = self.stream.recv_state
        cdef int result = READING_MORE
        if not channel_has_message(self.stream):
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

    def has_acked(self):
        """Tell whether the peer's transport has everything that was sent, or knows it to be given up; None: it never will."""
        self.enter()
        state, waiting, count = self.stream.send_state, stream_waiting(self.stream), channel_of(self.stream).count
        leave(self.engine)
        if state > SEND_DONE:
            return None
        return waiting == 0 and count == 0 and state != SEND_FINISHING

    # --- verbs ---

    def set(self, tuple values not None):
        """Send with other capabilities from the next message on."""
        cdef Capabilities capabilities
        cdef Conn *c
        read_capabilities(values, &capabilities)
        c = self.enter()
        conn_set_channel(c, self.stream, &capabilities)
        leave(self.engine)

    def send(self, data):
        """Queue a message. Return SEND_*: 0 taken, 1 no room at present, negative: an error."""
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            return self.queue(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.queue(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int queue(self, const uint8_t *data, uint64_t n) except? -100:
        """Take a message; a large one is copied while other connections, and other threads, go on."""
        cdef Conn *c = self.enter()
        cdef Draft draft
        cdef int result
        if n < ASIDE_BYTES:
            result = conn_send_message(c, self.stream, data, n, NULL)
            leave(self.engine)
            return result
        result = conn_may_send(c, self.stream, n)
        if result == SEND_TAKEN and draft_take(&draft, &c.context.blocks, n) != 0:
            result = SEND_NO_MEMORY
            c.context.counters.no_memory += 1
        leave(self.engine)
        if result != SEND_TAKEN:
            return result
        with nogil:
            draft_fill(&draft, data)
        c = self.enter()
        result = conn_send_message(c, self.stream, data, n, &draft)
        draft_give(&draft, &c.context.blocks)
        leave(self.engine)
        return result

    def send_many(self, list messages not None, Py_ssize_t start):
        """Queue messages from `start` on until one is not taken; return how many were, and what became of the next."""
        cdef tuple items = tuple(messages[start:start + MESSAGES_AT_A_TIME])  # nobody else can change it meanwhile
        cdef Py_ssize_t sent = 0, n = len(items), copied
        cdef Conn *c
        cdef int result = SEND_TAKEN
        while sent < n and result == SEND_TAKEN:
            if not PyBytes_CheckExact(items[sent]) or PyBytes_GET_SIZE(items[sent]) >= ASIDE_BYTES:
                result = self.send(items[sent])
                sent += result == SEND_TAKEN
                continue
            copied = 0
            c = self.enter()
            while sent < n and copied < ASIDE_BYTES and PyBytes_CheckExact(items[sent]) \
                    and PyBytes_GET_SIZE(items[sent]) < ASIDE_BYTES:
                result = conn_send_message(c, self.stream, <const uint8_t *>PyBytes_AS_STRING(items[sent]),
                                           PyBytes_GET_SIZE(items[sent]), NULL)
                if result != SEND_TAKEN:
                    break
                copied += PyBytes_GET_SIZE(items[sent])
                sent += 1
            leave(self.engine)
        return sent, result

    def recv(self):
        """Return the next message, or None."""
        cdef InMessage m
        cdef bytes message = None
        cdef Conn *c = self.enter()
        try:
            if channel_next_message(self.stream, &m):
                message = PyBytes_FromStringAndSize(NULL, m.bytes)
                conn_message_was_read(c, self.stream, channel_take_message(
                    self.stream, &m, <uint8_t *>PyBytes_AS_STRING(message)))
        finally:
            leave(self.engine)
        return message

    def recv_many(self, Py_ssize_t most, bint is_numbered):
        """Return up to `most` messages, or pairs of number and message; an empty list when there are none."""
        cdef InMessage m
        cdef bytes message
        cdef list messages = [], numbers = []
        cdef uint64_t freed = 0, bytes_taken = 0
        cdef Conn *c = self.enter()
        try:
            while len(messages) < most and bytes_taken < BATCH_BYTES and channel_next_message(self.stream, &m):
                message = PyBytes_FromStringAndSize(NULL, m.bytes)
                messages.append(message)
                if is_numbered:
                    numbers.append(m.number)
                freed += channel_take_message(self.stream, &m, <uint8_t *>PyBytes_AS_STRING(message))
                bytes_taken += m.bytes
            conn_message_was_read(c, self.stream, freed)
        finally:
            leave(self.engine)
        return list(zip(numbers, messages)) if is_numbered else messages

    def finish(self):
        """End our side behind what was sent."""
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

    def told(self):
        """Note that the application knows of the peer's reset: the receiving side is over."""
        self.enter()
        recv_input(self.stream, RECV_IN_TOLD)
        leave(self.engine)

    def want_readable(self):
        """Ask to be told when a message can be taken, or no more will come. True if that is so."""
        cdef Conn *c = self.enter()
        cdef bint is_so = has_come(c, self.stream)
        if not is_so:
            self.stream.wanted |= STREAM_EVENT_READABLE
            conn_ease(c)
        leave(self.engine)
        return is_so

    def want_writable(self):
        """Ask to be told when there is room again, or never will be. True if that is so."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = (stream_waiting(s) <= conn_send_buffer(c) // 2
                           or s.send_state != SEND_OPEN or c.state > CONN_OPEN)
        if not is_so:
            s.wanted |= STREAM_EVENT_WRITABLE
        leave(self.engine)
        return is_so

    def want_acked(self):
        """Ask to be told when everything that was sent is settled. True if that is so, or never will be."""
        cdef Conn *c = self.enter()
        cdef Stream *s = self.stream
        cdef bint is_so = (s.out.start >= s.out.end and s.undone == 0 and s.send_state != SEND_FINISHING) \
            or s.send_state > SEND_FINISHING or c.state > CONN_OPEN
        if not is_so:
            s.acked_mark = s.out.end
            s.wanted |= STREAM_EVENT_ACKED
        leave(self.engine)
        return is_so
