"""Python doors into channel and inbox: one channel, both sides of it, without a connection.

Offsets are those of the send buffer where the core counts in these, and those on the wire in what is told to the peer.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.channel cimport (
    Channel, Dropped, Piece, channel_append, channel_clear, channel_count_deadlines, channel_dropped_acked,
    channel_dropped_lost, channel_expire, channel_handle_acked, channel_handle_lost, channel_has_data, channel_init,
    channel_key, channel_mark_sent, channel_must_pass, channel_next_dropped, channel_pass, channel_piece, channel_reset,
    channel_unsent, channel_wire_sent)
from interpeer._core.inbox cimport (
    InMessage, channel_handle_dropped, channel_handle_messages, channel_next_message, channel_take_message)
from interpeer._core.probe cimport exact, room
from interpeer._core.probe_memory cimport Pools
from interpeer._core.stream cimport Stream, stream_clear, stream_copy, stream_finish, stream_init
from interpeer._core.wire cimport Frame


@cython.no_gc_clear             # the destructor needs the pools
cdef class Courier:
    cdef Stream stream
    cdef Channel channel
    cdef readonly Pools pools

    def __cinit__(self, *, int flags=3, uint64_t deadline_us=0, uint64_t send_limit=1 << 40, uint64_t window=1 << 20):
        self.pools = Pools()
        stream_init(&self.stream, channel_key(0), &self.pools.pools, send_limit, window)
        channel_init(&self.stream, &self.channel)
        self.channel.is_announced = True
        self.set(flags, deadline_us)

    def __dealloc__(self):
        channel_clear(&self.stream)
        stream_clear(&self.stream)

    # --- sending ---

    def set(self, int flags, uint64_t deadline_us=0):
        self.channel.capabilities.flags = flags
        self.channel.capabilities.deadline_us = deadline_us

    def number_from(self, uint64_t number):
        """Let the next message have this number; none was sent yet."""
        assert self.channel.count == 0
        self.channel.first_number = number

    def send(self, bytes data):
        source = exact(data)
        assert channel_append(&self.stream, source.p, source.n, NULL) == 0

    def finish(self):
        stream_finish(&self.stream)

    def reset(self, uint64_t code):
        channel_reset(&self.stream, code)

    def raise_send_limit(self, uint64_t limit):
        self.stream.send_limit = limit

    def piece(self, uint64_t left=1200, *, uint64_t most=1200, uint64_t credit=1 << 40, bint may_begin=True):
        """Send the next frame: return the offset in the buffer, that on the wire, how far within, data, FIN; or None."""
        cdef Piece p
        if not channel_has_data(&self.stream) or not channel_piece(&self.stream, left, most, credit, may_begin, &p):
            return None
        out = room(p.bytes)
        stream_copy(&self.stream, p.offset, out.p, p.bytes)
        fin = bool(channel_mark_sent(&self.stream, &p))
        return p.offset, p.wire, p.within, out.first(p.bytes), fin

    def acked(self, uint64_t offset, uint64_t n, bint fin=False):
        channel_handle_acked(&self.stream, offset, n, fin)

    def lost(self, uint64_t offset, uint64_t n, bint fin=False, bint is_lost=True):
        """Return how many messages were given up."""
        return channel_handle_lost(&self.stream, offset, n, fin, is_lost)

    def count_deadlines(self, uint64_t now_ns):
        return bool(channel_count_deadlines(&self.stream, now_ns))

    def expire(self, uint64_t now_ns):
        """Return how many messages were late."""
        return channel_expire(&self.stream, now_ns)

    def next_dropped(self):
        """Tell the peer: return offset on the wire, within, size, number and count of a DROPPED frame, or None."""
        cdef Dropped d
        if not channel_next_dropped(&self.stream, &d):
            return None
        return d.wire, d.within, d.bytes, d.number, d.count

    def dropped_acked(self, uint64_t number, uint32_t what, uint32_t size=0):
        channel_dropped_acked(&self.stream, number, what, size)

    def dropped_lost(self, uint64_t number, uint32_t what, bint was_begun):
        channel_dropped_lost(&self.stream, number, what, was_begun)

    def pass_over(self, uint64_t credit):
        """Return how many bytes of a message that was given up are passed over; None: there is none."""
        return channel_pass(&self.stream, credit) if channel_must_pass(&self.stream) else None

    @property
    def due_ns(self):
        return self.channel.due_ns

    @property
    def unsent(self):
        """Return how much of a message that was begun is not sent yet."""
        return channel_unsent(&self.stream)

    @property
    def wire_sent(self):
        return channel_wire_sent(&self.stream)

    @property
    def unsettled(self):
        """Return how many messages are remembered."""
        return self.channel.count

    # --- receiving ---

    def messages(self, uint64_t offset, bytes data, *, uint64_t within=0, bint fin=False, uint64_t credit=1 << 40,
                 uint64_t max_message=1 << 24):
        """Take a MESSAGES frame; return the code of the rule that is broken, 0 for none, and how much credit is used."""
        cdef Frame f
        cdef uint64_t grown = 0
        source = exact(data)
        memset(&f, 0, sizeof(Frame))
        f.offset, f.within, f.data, f.bytes, f.fin = offset, within, source.p, source.n, fin
        code = channel_handle_messages(&self.stream, &f, credit, max_message, &grown)
        return code, grown

    def dropped(self, uint64_t offset, uint64_t within, uint64_t size, uint64_t number, uint64_t count=1, *,
                uint64_t credit=1 << 40):
        """Take a DROPPED frame; return the code, how much credit is used, and by how much reading moves on."""
        cdef Frame f
        cdef uint64_t grown = 0, freed = 0
        memset(&f, 0, sizeof(Frame))
        f.offset, f.within, f.bytes, f.value, f.count = offset, within, size, number, count
        code = channel_handle_dropped(&self.stream, &f, credit, &grown, &freed)
        return code, grown, freed

    def take(self):
        """Return the number and the bytes of the next message, and by how much reading moves on; or None."""
        cdef InMessage m
        if not channel_next_message(&self.stream, &m):
            return None
        out = room(m.bytes)
        freed = channel_take_message(&self.stream, &m, out.p)
        return m.number, out.first(m.bytes), freed

    def last_number(self, uint64_t number):
        """Let the last message that was delivered have had this number."""
        self.channel.last_number = number

    @property
    def expected(self):
        """Return the end of the message furthest on of which only a part is there; 0: none."""
        return self.channel.expected

    @property
    def gone(self):
        """Return the ranges of numbers that the peer has given up."""
        ranges = &self.channel.gone
        return [(ranges.ranges[i].start, ranges.ranges[i].end) for i in range(ranges.count)]

    # --- both ---

    @property
    def states(self):
        return self.stream.send_state, self.stream.recv_state

    @property
    def counters(self):
        return dict(self.channel.counters)
