"""Python doors into conn, ingress and egress: one connection whose peer is the test.

What it sends comes back opened, frame by frame; what the test sends is sealed with the peer's keys, so that it may
break every rule that an authentic peer can break.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from interpeer._core.cids cimport LOCAL_SENT, LocalCid
from interpeer._core.conn cimport (
    CONN_IN_ANSWERED, Conn, conn_accept_stream, conn_find_stream, conn_finish_stream, conn_free, conn_input, conn_new,
    conn_open_stream, conn_read_stream, conn_release_stream, conn_start, conn_wake, conn_write_stream)
from interpeer._core.context cimport ENTROPY_BYTES, Context, context_free, context_init, entropy_add
from interpeer._core.datagram cimport MESSAGES_OK, messages_next_bytes, messages_pop, messages_push
from interpeer._core.deadlines cimport conn_deadline_ns, conn_handle_timeout
from interpeer._core.egress cimport TRANSMIT_MORE, conn_transmit
from interpeer._core.ingress cimport conn_handle_packet
from interpeer._core.links cimport unlink
from interpeer._core.path cimport Path
from interpeer._core.paths cimport (
    OPEN_NO_ID, OPEN_NOT_NOW, OPEN_OK, OPEN_TOO_MANY, paths_abandon, paths_add, paths_deadline_ns, paths_find,
    paths_handle_frame, paths_handle_timeout, paths_heard, paths_open, paths_set_standby, paths_silent, paths_tidy,
    paths_tier)
from interpeer._core.probe cimport exact, room
from interpeer._core.probe_wire cimport parameters_from_dict
from interpeer._core.probe_wire import PROBLEMS, Opener, Sealer, parse
from interpeer._core.slab cimport (
    MAX_SEGMENTS, MAX_UDP_PAYLOAD, Datagrams, Endpoint, SendBatch, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.stream cimport Stream
from interpeer._core.wire cimport CID_FLAG, FRAME_PATH_RESPONSE, Frame, Parameters

STATE_NAMES = ("dialing", "open", "closing", "draining", "closed")
PATH_STATE_NAMES = ("validating", "active", "suspect", "abandoned")
OPENED = {OPEN_TOO_MANY: "too many", OPEN_NO_ID: "no id", OPEN_NOT_NOW: "not now"}
PATH_EVENT_NAMES = ("opened", "proven", "moved", "returned", "suspect", "recovered", "abandoned", "preferred")
INPUT_NAMES = ("answered", "failed", "close", "violation", "peer close", "reset", "silence", "drained")


cdef class Lone:
    """A connection in the state OPEN, with keys and limits but without an engine."""

    cdef Context context
    cdef Conn *conn
    cdef SendBatch batch
    cdef readonly object sealer, opener     # the peer's keys
    cdef uint64_t next_number               # of the peer's next packet
    cdef Datagrams from_                    # where the peer is

    def __cinit__(self, *, dict limits, dict peer, int suite=1, bint is_initiator=True, uint64_t now_ns=1):
        cdef Endpoint remote
        cdef Parameters p
        ours, theirs = b"o" * 32, b"t" * 32
        memset(&remote, 1, sizeof(Endpoint))
        context_init(&self.context)
        self.context.limits = limits
        self.sealer, self.opener = Sealer(suite, theirs), Opener(suite, ours)
        self.conn = conn_new(&self.context)
        assert self.conn != NULL and send_batch_init(&self.batch) == 0
        c = self.conn
        c.is_initiator = is_initiator
        self.from_.remote = remote
        assert paths_add(c, 0, &remote, self.from_.local) != NULL
        c.path.remote_cid = <uint64_t>CID_FLAG << 56 | 2
        c.first_cid.cid, c.first_cid.conn, c.first_cid.state = <uint64_t>CID_FLAG << 56 | 1, <void *>c, LOCAL_SENT
        c.local_cids = &c.first_cid
        parameters_from_dict(peer, &p)
        assert conn_start(c, suite, exact(ours).p, exact(theirs).p, &p, now_ns) == 0
        conn_input(c, CONN_IN_ANSWERED)

    def __dealloc__(self):
        if self.conn != NULL:
            conn_free(self.conn)
        send_batch_free(&self.batch)
        context_free(&self.context)

    # --- packets ---

    def give_entropy(self, bytes random):
        assert entropy_add(&self.context.entropy, <const uint8_t *>random, <uint32_t>len(random)) <= ENTROPY_BYTES

    def feed(self, bytes payload, uint64_t now_ns, *, number=None, int ecn=0):
        """Send frames as the peer; return "ok" or why the packet was dropped."""
        if number is None:
            number = self.next_number
        self.next_number = max(self.next_number, number + 1)
        return self.feed_packet(self.sealer.protect(payload, <uint64_t>CID_FLAG << 56 | 1, 0, number), now_ns, ecn=ecn)

    def feed_packet(self, bytes packet, uint64_t now_ns, *, int ecn=0):
        source = exact(packet)
        self.from_.ecn = ecn
        result = conn_handle_packet(self.conn, 0, source.p, <uint32_t>source.n, &self.from_, now_ns)
        return PROBLEMS[result] if result else "ok"

    def transmit_packets(self, uint64_t now_ns):
        """Return the packets that may go now: (bytes, ecn) each."""
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
                    packets.append((<bytes>d.data[at:at + n], d.ecn))
        return packets

    def transmit(self, uint64_t now_ns):
        """Return what may go now, as the peer reads it: (number, frames, bytes) of each packet."""
        packets = []
        for packet, _ecn in self.transmit_packets(now_ns):
            payload, number, is_update = self.opener.unprotect(packet, 0)
            if is_update:
                self.opener.update()
            frames, is_complete = parse(payload)
            assert is_complete, "we have sent something that cannot be read"
            packets.append((number, frames, len(packet)))
        return packets

    # --- time ---

    def handle_timeout(self, uint64_t now_ns):
        conn_handle_timeout(self.conn, now_ns)

    @property
    def deadline_ns(self):
        return conn_deadline_ns(self.conn)

    # --- verbs ---

    cdef Stream *find(self, uint64_t id) except NULL:
        s = conn_find_stream(self.conn, id)
        if s == NULL:
            raise KeyError(id)
        return s

    def open_stream(self):
        """Return the stream's id, or None."""
        s = conn_open_stream(self.conn)
        return s.id if s != NULL else None

    def accept_stream(self):
        s = conn_accept_stream(self.conn)
        return s.id if s != NULL else None

    def write(self, uint64_t id, bytes data):
        source = exact(data)
        return conn_write_stream(self.conn, self.find(id), source.p, source.n)

    def finish(self, uint64_t id):
        conn_finish_stream(self.conn, self.find(id))

    def read(self, uint64_t id, uint64_t n=1 << 20):
        out = room(n)
        return out.first(conn_read_stream(self.conn, self.find(id), out.p, n))

    def release(self, uint64_t id):
        conn_release_stream(self.conn, self.find(id))

    def send_datagram(self, bytes data):
        source = exact(data)
        conn_wake(self.conn)
        return messages_push(&self.conn.messages_out, source.p, <uint32_t>source.n) == MESSAGES_OK

    def recv_datagram(self):
        if self.conn.messages_in.count == 0:
            return None
        out = room(messages_next_bytes(&self.conn.messages_in))
        messages_pop(&self.conn.messages_in, out.p)
        return out.first(out.n)

    # --- paths ---

    cdef Path *path_of(self, uint32_t id) except NULL:
        p = paths_find(self.conn, id)
        if p == NULL:
            raise KeyError(id)
        return p

    def issue(self, uint32_t path):
        """Give the peer an id for a path, as the engine does."""
        id = <LocalCid *>calloc(1, sizeof(LocalCid))
        id.cid, id.conn, id.path, id.state = <uint64_t>CID_FLAG << 56 | 1000 + path, <void *>self.conn, path, LOCAL_SENT
        id.next = self.conn.local_cids
        self.conn.local_cids = id

    def open_path(self, uint8_t host):
        """Return its id, or why there is none."""
        cdef Endpoint remote
        cdef Path *p = NULL
        memset(&remote, host, sizeof(Endpoint))
        result = paths_open(self.conn, &remote, self.from_.local, &p)
        return p.id if result == OPEN_OK else OPENED[result]

    def prove_path(self, uint32_t id, uint64_t now_ns):
        """Let the right answer to its challenge come."""
        cdef Frame f
        p = self.path_of(id)
        p.validation.is_drawn = True
        memset(&f, 0, sizeof(Frame))
        f.type, f.data = FRAME_PATH_RESPONSE, p.validation.challenge
        assert paths_handle_frame(self.conn, p, &f, &self.from_, now_ns) == 0

    def abandon_path(self, uint32_t id, int reason):
        """Return whether it may be given up."""
        return paths_abandon(self.conn, self.path_of(id), reason) == 0

    def set_standby(self, uint32_t id, bint is_standby):
        paths_set_standby(self.conn, self.path_of(id), is_standby)

    def set_rtt(self, uint32_t id, uint64_t rtt_ns):
        self.path_of(id).recovery.rtt.min_ns = rtt_ns

    def path_is_silent(self, uint32_t id):
        paths_silent(self.conn, self.path_of(id))

    def path_is_heard(self, uint32_t id):
        paths_heard(self.conn, self.path_of(id))

    def path_timeout(self, uint64_t now_ns):
        paths_handle_timeout(self.conn, now_ns)
        paths_tidy(self.conn, now_ns)

    @property
    def path_deadline_ns(self):
        return paths_deadline_ns(self.conn)

    @property
    def paths(self):
        """Return the state of each path and how good it is for data (0 is best), by id."""
        c = self.conn
        return {c.paths[i].id: (PATH_STATE_NAMES[c.paths[i].state], paths_tier(c.paths[i])) for i in range(c.path_count)}

    @property
    def preferred_path(self):
        return self.conn.path.id

    def path_events(self):
        """Take what is to be told of paths: (path, what) each, and how many there was no room for."""
        e = self.conn.path_events
        if e == NULL:
            return [], 0
        found = [(e.events[(e.first + i) % 16].path, PATH_EVENT_NAMES[e.events[(e.first + i) % 16].kind]) for i in range(e.count)]
        e.first, e.count = (e.first + e.count) % 16, 0
        return found, e.dropped

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
