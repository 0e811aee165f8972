"""What Python holds of a connection: its verbs and readers.

A handle keeps its connection alive in the engine, and hands it back when it is destroyed. Every method takes the
engine's lock for a few instructions (a copy, at most), changes the machines, and leaves the sending to the next turn,
for which it kicks the driver. Nothing here waits. `want` says what the caller would wait for: it returns what has come
true already, and otherwise an event will tell.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from interpeer._core.channel_handle cimport read_capabilities, wrap_channel
from interpeer._core.channel cimport Channel
from interpeer._core.channels cimport conn_accept_channel, conn_next_channel, conn_open_channel
from interpeer._core.conn cimport (
    CLOSED_LOCALLY, CONN_EVENT_CHANNEL, CONN_EVENT_CHANNEL_ROOM, CONN_EVENT_CLOSED, CONN_EVENT_DATAGRAM,
    CONN_EVENT_DATAGRAM_ROOM, CONN_EVENT_FLUSHED, CONN_EVENT_IDS, CONN_EVENT_OPEN, CONN_EVENT_PATH, CONN_EVENT_SIGNAL,
    CONN_EVENT_STREAM, CONN_EVENT_STREAM_ROOM, CONN_IN_CLOSE, CONN_OPEN, Conn, Handle, conn_accept_stream,
    conn_close_info, conn_input, conn_max_datagram, conn_open_stream, conn_wake)
from interpeer._core.datagram cimport MESSAGES_OK, messages_next_bytes, messages_pop, messages_push
from interpeer._core.dial cimport Candidate, Dial
from interpeer._core.engine cimport Engine
from interpeer._core.entry cimport kick_from_destructor, leave, take_lock, wire_code
from interpeer._core.pacing cimport pacing_rate
from interpeer._core.path cimport Path
from interpeer._core.paths cimport OPEN_NOT_NOW, OPEN_NO_ID, paths_may_open, paths_nudge
from interpeer._core.pmtud cimport pmtud_want
from interpeer._core.registry cimport registry_leave_backlog
from interpeer._core.slab cimport Endpoint
from interpeer._core.stream cimport Stream, stream_readable
from interpeer._core.stream_handle cimport wrap_stream
from interpeer._core.wire cimport Capabilities
from interpeer.errors import DatagramTooLarge

# numbers for the layer above
EVENT_OPEN = CONN_EVENT_OPEN
EVENT_CLOSED = CONN_EVENT_CLOSED
EVENT_STREAM = CONN_EVENT_STREAM
EVENT_STREAM_ROOM = CONN_EVENT_STREAM_ROOM
EVENT_DATAGRAM = CONN_EVENT_DATAGRAM
EVENT_DATAGRAM_ROOM = CONN_EVENT_DATAGRAM_ROOM
EVENT_FLUSHED = CONN_EVENT_FLUSHED
EVENT_PATH = CONN_EVENT_PATH
EVENT_IDS = CONN_EVENT_IDS
EVENT_CHANNEL = CONN_EVENT_CHANNEL
EVENT_CHANNEL_ROOM = CONN_EVENT_CHANNEL_ROOM
EVENT_SIGNAL = CONN_EVENT_SIGNAL


cdef struct Figures:                # what stats() tells
    uint64_t rtt_ns
    uint64_t min_rtt_ns
    uint64_t latest_rtt_ns
    uint64_t rtt_variance_ns
    uint64_t window_bytes
    uint64_t bytes_in_flight
    uint64_t controller
    uint64_t congestion_events
    uint64_t pacing_bytes_per_s
    uint64_t packets_sent
    uint64_t packets_received
    uint64_t packets_lost
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t packet_bytes
    uint64_t ecn
    uint64_t ecn_ce
    uint64_t key_epoch
    uint64_t peer_key_epoch
    uint64_t rekeys
    uint64_t key_age_ns
    uint64_t data_sent
    uint64_t data_limit
    uint64_t data_received
    uint64_t data_allowed
    uint64_t streams
    uint64_t open_channels
    uint64_t datagrams_queued
    uint64_t datagrams_waiting
    uint64_t datagrams_dropped


cdef uint64_t age_ns(const Conn *c) noexcept nogil:
    """Return how old the keys were that the last packet was under: the time since they were agreed."""
    cdef uint64_t last = c.last_received_ns if c.last_received_ns > c.last_sent_ns else c.last_sent_ns
    return last - c.rekey.fresh_ns if last > c.rekey.fresh_ns else 0


cdef struct ChannelFigures:         # what channel_stats() tells of a stream
    uint64_t id
    uint64_t is_ours
    uint64_t queued_bytes           # written and never sent
    uint64_t unacked_bytes          # sent and not acknowledged
    uint64_t readable_bytes         # received in order and not read
    uint64_t bytes_sent
    uint64_t bytes_received         # up to the highest
    uint64_t send_limit
    uint64_t recv_limit
    uint64_t is_channel             # of messages; otherwise a stream
    uint64_t priority
    uint64_t dropped                # messages given up here
    uint64_t late                   # of these, for their deadlines


cdef void fill_channel(const Conn *c, const Stream *s, ChannelFigures *out) noexcept nogil:
    out.id = s.id & ~(<uint64_t>1 << 61)
    out.is_ours = (s.id & 1) == (0 if c.is_initiator else 1)
    out.queued_bytes = s.out.end - s.sent if s.out.end > s.sent else 0
    out.unacked_bytes = s.sent - s.out.start if s.sent > s.out.start else 0
    out.readable_bytes = stream_readable(s)
    out.bytes_sent = s.sent
    out.bytes_received = s.highest
    out.send_limit = s.send_limit
    out.recv_limit = s.recv_limit
    out.is_channel = s.channel != NULL
    out.priority = s.priority
    out.dropped = (<const Channel *>s.channel).counters.dropped if s.channel != NULL else 0
    out.late = (<const Channel *>s.channel).counters.late if s.channel != NULL else 0


cdef object MADE_HERE = object()    # nobody else has it: a handle of nothing would be read all the same


cdef ConnectionHandle new_handle(Engine engine):
    """Return a handle of no connection yet: `attach_handle` gives it one."""
    cdef ConnectionHandle handle = ConnectionHandle.__new__(ConnectionHandle, MADE_HERE)
    handle.engine = engine
    return handle


cdef void attach_handle(ConnectionHandle handle, Handle *core, object reference) noexcept:
    """Let a handle hold a connection, which finds it again by a weak reference to it. Under the lock."""
    Py_INCREF(reference)
    core.object = <void *>reference
    handle.handle = core


@cython.final
@cython.no_gc_clear             # the destructor needs the engine
cdef class ConnectionHandle:
    """A connection of the engine. Made by connect() and by events(), never directly."""

    def __cinit__(self, key=None):
        if key is not MADE_HERE:
            raise TypeError("a connection's handle is made by connect() and events() of control")
        self.handle = NULL
        self.owner = None

    def __dealloc__(self):
        cdef PyObject *reference
        if self.handle == NULL:
            return
        if not self.engine.is_forked():
            self.engine.lock()              # events() may be looking at it
            reference = <PyObject *>self.handle.object
            self.handle.object = NULL
            self.engine.unlock()
            Py_XDECREF(reference)
        self.engine.let_go_of_handle(self.handle)
        kick_from_destructor(self.engine)

    cdef Conn *enter(self) except NULL:
        take_lock(self.engine)
        return self.handle.conn

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
        cdef Conn *c = self.enter()
        cdef Endpoint remote
        memset(&remote, 0, sizeof(Endpoint))
        if c.path != NULL:
            remote = c.path.remote
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
        cdef Figures figures
        cdef Conn *c = self.enter()
        cdef Path *p = c.path
        memset(&figures, 0, sizeof(Figures))
        if p != NULL:                       # a call that is not answered has none
            figures.rtt_ns = p.recovery.rtt.smoothed_ns
            figures.min_rtt_ns = p.recovery.rtt.min_ns
            figures.latest_rtt_ns = p.recovery.rtt.latest_ns
            figures.rtt_variance_ns = p.recovery.rtt.variance_ns
            figures.window_bytes = p.cc.window
            figures.bytes_in_flight = p.recovery.bytes_in_flight
            figures.congestion_events = p.cc.congestion_events
            figures.pacing_bytes_per_s = <uint64_t>pacing_rate(&p.cc, p.recovery.rtt.smoothed_ns)
            figures.packets_sent = p.packets_sent
            figures.packets_received = p.packets_received
            figures.packets_lost = p.packets_lost
            figures.bytes_sent = p.bytes_sent
            figures.bytes_received = p.bytes_received
            figures.packet_bytes = p.packet_bytes
            figures.ecn = p.ecn_state
            figures.ecn_ce = p.ecn_ce
        figures.controller = c.controller
        figures.key_epoch = c.send.epoch
        figures.peer_key_epoch = c.recv.epoch
        figures.rekeys = c.rekey.count
        figures.key_age_ns = age_ns(c)
        figures.data_sent = c.data_sent
        figures.data_limit = c.data_limit
        figures.data_received = c.data_received
        figures.data_allowed = c.data_allowed
        figures.open_channels = c.channels.count if c.channels != NULL else 0
        figures.streams = c.streams.count - figures.open_channels
        figures.datagrams_queued = c.messages_out.count
        figures.datagrams_waiting = c.messages_in.count
        figures.datagrams_dropped = c.messages_in.dropped
        leave(self.engine)
        return figures                      # by name

    def channel_stats(self):
        """Return figures of each stream, in no order. Raises MemoryError."""
        cdef ChannelFigures *figures
        cdef Conn *c = self.enter()
        cdef uint32_t i, n = 0, count = c.streams.count
        figures = <ChannelFigures *>malloc(count * sizeof(ChannelFigures) + 1)
        if figures != NULL:
            for i in range(c.streams.capacity):
                if c.streams.keys[i]:
                    fill_channel(c, <Stream *>c.streams.values[i], &figures[n])
                    n += 1
        leave(self.engine)
        if figures == NULL:
            raise MemoryError
        try:
            return [figures[i] for i in range(n)]
        finally:
            free(figures)

    # --- verbs ---

    def take(self):
        """Note that the application has taken an incoming connection off the backlog."""
        cdef Conn *c = self.enter()
        registry_leave_backlog(&self.engine.registry, c)
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
        if events & CONN_EVENT_IDS and paths_may_open(c) != OPEN_NO_ID and paths_may_open(c) != OPEN_NOT_NOW:
            now |= CONN_EVENT_IDS
        if events & CONN_EVENT_DATAGRAM and c.messages_in.count:
            now |= CONN_EVENT_DATAGRAM
        if events & CONN_EVENT_DATAGRAM_ROOM and c.messages_out.used <= c.messages_out.limit // 2:
            now |= CONN_EVENT_DATAGRAM_ROOM
        if events & CONN_EVENT_FLUSHED and c.finishing == 0:
            now |= CONN_EVENT_FLUSHED
        if events & CONN_EVENT_CHANNEL and conn_next_channel(c) != NULL:
            now |= CONN_EVENT_CHANNEL
        if events & CONN_EVENT_CHANNEL_ROOM and (c.channels == NULL or c.channels.opened < c.channel_limit):
            now |= CONN_EVENT_CHANNEL_ROOM
        if not now:
            c.wanted |= events
        leave(self.engine)
        return now

    def close(self, code, bytes reason not None):
        """Close, telling the peer; nothing more is sent. Harmless on a connection that is over."""
        cdef uint64_t number = wire_code(code)
        cdef Conn *c = self.enter()
        conn_close_info(c, CLOSED_LOCALLY, number, True, <const uint8_t *>PyBytes_AS_STRING(reason),
                        <uint32_t>PyBytes_GET_SIZE(reason))
        conn_input(c, CONN_IN_CLOSE)
        leave(self.engine, True)

    def nudge(self, bytes gone not None=b""):
        """Send something on every path at once, and leave no more from addresses that are gone, 16 bytes each.

        For when this machine's addresses or routes have changed. Harmless on a connection that is not open."""
        cdef Conn *c
        if PyBytes_GET_SIZE(gone) % 16:
            raise ValueError(f"addresses have 16 bytes each, and these are {len(gone)} together")
        c = self.enter()
        if c.state == CONN_OPEN:
            paths_nudge(c, <const uint8_t *>PyBytes_AS_STRING(gone), <uint32_t>(PyBytes_GET_SIZE(gone) // 16))
        leave(self.engine)

    def open_stream(self):
        """Open a stream and announce it; None while the peer allows no more, or when the connection is not open."""
        cdef Conn *c = self.enter()
        cdef Stream *s = conn_open_stream(c) if c.state == CONN_OPEN else NULL
        leave(self.engine)
        return wrap_stream(self.engine, self, s) if s != NULL else None

    def accept_stream(self):
        """Return the peer's next stream, or None."""
        cdef Conn *c = self.enter()
        cdef Stream *s = conn_accept_stream(c)
        leave(self.engine)
        return wrap_stream(self.engine, self, s) if s != NULL else None

    @property
    def max_message_bytes(self):
        """Return how large a message the peer takes on a channel; 0 when it knows no channels."""
        cdef Conn *c = self.enter()
        cdef uint64_t most = c.max_message_peer if c.channel_limit else 0
        leave(self.engine)
        return most

    def open_channel(self, tuple capabilities not None):
        """Open a channel and announce it; None while the peer allows no more, or when the connection is not open."""
        cdef Capabilities values
        cdef Conn *c
        cdef Stream *s
        read_capabilities(capabilities, &values)
        c = self.enter()
        s = conn_open_channel(c, &values) if c.state == CONN_OPEN else NULL
        leave(self.engine)
        return wrap_channel(self.engine, self, s) if s != NULL else None

    def accept_channel(self):
        """Return the peer's next channel, or None."""
        cdef Conn *c = self.enter()
        cdef Stream *s = conn_accept_channel(c)
        leave(self.engine)
        return wrap_channel(self.engine, self, s) if s != NULL else None

    def send_datagram(self, data):
        """Queue a datagram; False when the queue is full or the connection is not open. Raise DatagramTooLarge."""
        cdef Conn *c
        cdef Py_buffer view
        cdef Py_ssize_t n
        cdef int result
        if PyBytes_CheckExact(data):
            n = PyBytes_GET_SIZE(data)
            c = self.enter()
            result = push(c, <const uint8_t *>PyBytes_AS_STRING(data), n)
            leave(self.engine)
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            n = view.len
            try:
                c = self.enter()
                result = push(c, <const uint8_t *>view.buf, n)
                leave(self.engine)
            finally:
                PyBuffer_Release(&view)
        if result == TOO_LARGE:
            raise DatagramTooLarge(f"a datagram of {n} bytes; at most {self.max_datagram_bytes} fit in a packet")
        return result == MESSAGES_OK

    def send_datagrams(self, messages):
        """Queue datagrams until one does not fit; return how many were queued. Raise DatagramTooLarge for the first."""
        cdef tuple items = tuple(messages)  # nobody else can change it meanwhile
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
        if <uint64_t>n <= c.max_datagram_peer:
            pmtud_want(&c.path.mtu)
            conn_wake(c)
        return TOO_LARGE
    result = messages_push(&c.messages_out, data, <uint32_t>n)
    if result == MESSAGES_OK:
        conn_wake(c)
    return result


cdef bint all_bytes(tuple items):
    for item in items:
        if not PyBytes_CheckExact(item):
            return False
    return True
