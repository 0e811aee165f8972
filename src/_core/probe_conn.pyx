"""Python doors into conn, ingress and egress: one connection whose peer is the test.

What the test sends is sealed with the peer's keys, thousands of packets in the time of one handshake in Python.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.conn cimport CONN_IN_ANSWERED, Conn, conn_free, conn_input, conn_new, conn_start
from interpeer._core.context cimport ENTROPY_BYTES, Context, context_free, context_init, entropy_add
from interpeer._core.deadlines cimport conn_deadline_ns, conn_handle_timeout
from interpeer._core.delivery cimport conn_on_acked, conn_on_lost
from interpeer._core.egress cimport TRANSMIT_MORE, conn_transmit
from interpeer._core.ingress cimport conn_handle_packet
from interpeer._core.links cimport unlink
from interpeer._core.path cimport path_init
from interpeer._core.probe cimport exact
from interpeer._core.probe_wire cimport parameters_from_dict
from interpeer._core.probe_wire import PROBLEMS, Sealer
from interpeer._core.slab cimport (
    MAX_SEGMENTS, MAX_UDP_PAYLOAD, Datagrams, Endpoint, SendBatch, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.wire cimport CID_FLAG, Parameters

STATE_NAMES = ("dialing", "open", "closing", "draining", "closed")
INPUT_NAMES = ("answered", "failed", "close", "violation", "peer close", "reset", "silence", "drained")

cdef enum:
    SUITE = 1


cdef class Lone:
    """A connection in the state OPEN, with keys and limits but without an engine."""

    cdef Context context
    cdef Conn *conn
    cdef SendBatch batch
    cdef object sealer              # with the peer's keys
    cdef uint64_t next_number       # of the peer's next packet

    def __cinit__(self, *, dict limits, dict peer, uint64_t now_ns):
        cdef Endpoint remote
        cdef Parameters p
        ours, theirs = b"o" * 32, b"t" * 32
        memset(&remote, 1, sizeof(Endpoint))
        context_init(&self.context)
        self.context.limits = limits
        self.sealer = Sealer(SUITE, theirs)
        self.conn = conn_new(&self.context)
        assert self.conn != NULL and send_batch_init(&self.batch) == 0
        c = self.conn
        assert path_init(&c.path, 0, &remote, self.context.limits.packet_bytes, 0, c, conn_on_acked, conn_on_lost) == 0
        c.path.is_proven = True
        c.path.local_cid, c.path.remote_cid = <uint64_t>CID_FLAG << 56 | 1, <uint64_t>CID_FLAG << 56 | 2
        parameters_from_dict(peer, &p)
        assert conn_start(c, SUITE, exact(ours).p, exact(theirs).p, &p, now_ns) == 0
        conn_input(c, CONN_IN_ANSWERED)

    def __dealloc__(self):
        if self.conn != NULL:
            conn_free(self.conn)
        send_batch_free(&self.batch)
        context_free(&self.context)

    # --- packets ---

    def give_entropy(self, bytes random):
        assert entropy_add(&self.context.entropy, <const uint8_t *>random, <uint32_t>len(random)) <= ENTROPY_BYTES

    def feed(self, bytes payload, uint64_t now_ns):
        """Send frames as the peer; return "ok" or why the packet was dropped."""
        number = self.next_number
        self.next_number += 1
        source = exact(self.sealer.protect(payload, self.conn.path.local_cid, 0, number))
        result = conn_handle_packet(self.conn, source.p, source.n, 0, now_ns)
        return PROBLEMS[result] if result else "ok"

    def transmit(self, uint64_t now_ns):
        """Return the packets that may go now."""
        cdef bint more = True
        cdef uint32_t i, at, n
        cdef Datagrams *d
        packets = []
        while more:
            send_batch_clear(&self.batch)
            more = conn_transmit(self.conn, &self.batch, now_ns) == TRANSMIT_MORE
            unlink(&self.conn.ready)
            assert not more or self.batch.count
            for i in range(self.batch.count):
                d = &self.batch.entries[i]
                assert 0 < d.bytes <= MAX_UDP_PAYLOAD and d.bytes <= d.segment * MAX_SEGMENTS
                for at in range(0, d.bytes, d.segment):
                    n = min(d.segment, d.bytes - at)
                    packets.append(<bytes>d.data[at:at + n])
        return packets

    # --- time ---

    def handle_timeout(self, uint64_t now_ns):
        conn_handle_timeout(self.conn, now_ns)

    @property
    def deadline_ns(self):
        return conn_deadline_ns(self.conn)

    # --- the machine ---

    def step(self, str state, str event):
        """Put the machine into a state and give it an input; return whether it is allowed, and the state after it."""
        self.conn.state = STATE_NAMES.index(state)
        is_allowed = conn_input(self.conn, INPUT_NAMES.index(event)) == 0
        return is_allowed, self.state

    @property
    def state(self):
        return STATE_NAMES[self.conn.state]

    @property
    def closed(self):
        """Return the code and the reason."""
        c = self.conn
        return c.close_code, <bytes>c.close_reason[:c.close_reason_bytes]

    @property
    def unsettled(self):
        """Return how many packets it remembers."""
        return self.conn.path.recovery.next - self.conn.path.recovery.base
