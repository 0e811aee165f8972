"""The whole protocol of a node, without sockets, clock or entropy of its own.

Whoever drives it calls handle_batch with what arrived, handle_timeout when poll_timeout says so, poll_transmit until
the batch comes back empty, and poll_events when has_events; time comes in as an argument of the first three and moves
nowhere else. Verbs of the application (modules connection_handle and stream_handle) may come in between, from any
thread: everything happens under one lock, which is never held while Python code runs. Destructors take no lock: they
push on stacks that are emptied under it. It is one file because it is one class: what comes, what goes, what is told, each a
few lines that ask the machine concerned.
"""

from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock, WAIT_LOCK)
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

cimport cython

from interpeer._core.answer cimport HalfOpen, answering_deadline_ns, answering_expire, half_open_find_cid
from interpeer._core.binding cimport binding_handle
from interpeer._core.calling cimport calling_claim, calling_handle_timeout, calling_transmit
from interpeer._core.carrier cimport carrier_direct, carrier_has_heard, lead_bytes
from interpeer._core.cids cimport LocalCid
from interpeer._core.conn cimport (
    CLOSED_LOCALLY, CONN_CLOSED, CONN_DIALING, CONN_EVENT_OPEN, CONN_IN_CLOSE, CONN_OPEN, Conn, Handle, conn_close_info,
    conn_input, conn_new, conn_release_stream, conn_wake)
from interpeer._core.context cimport Counters
from interpeer._core.crypto cimport KEY_BYTES
from interpeer._core.deadlines cimport conn_deadline_ns, conn_handle_timeout
from interpeer._core.delivery cimport conn_handle_refused
from interpeer._core.dial cimport Dial, dial_add_candidate, dial_deadline_ns, dial_new
from interpeer._core.early cimport EARLY_BYTES, EarlyCall, early_keep, early_take
from interpeer._core.egress cimport TRANSMIT_MORE, conn_transmit
from interpeer._core.ingress cimport conn_handle_packet
from interpeer._core.links cimport Link, first_link, link_last, unlink
from interpeer._core.raw cimport (
    PROBE_BYTES, PROBE_TOKEN_AT, RAW_OK, RAW_UNEXPECTED, TOKEN_BYTES, TXID_BYTES, raw_offer, raw_transmit)
from interpeer._core.reception cimport reception_handle_first_packet, reception_handle_message, reception_handle_stray
from interpeer._core.registry cimport (
    MAX_REPLIES, Registry, Reply, registry_count_connection, registry_free, registry_init, registry_pass,
    registry_protocol, registry_retire, registry_tend_ids)
from interpeer._core.relay cimport LEG_BYTES, Leg, forwards_release, forwards_wait, packets_of, relay_find
from interpeer._core.relaying cimport relaying_end, relaying_forward, relaying_refused, relaying_transmit
from interpeer._core.shards cimport Mail, mail_bytes, shard_of, shards_collect, shards_have_mail, shards_leave
from interpeer._core.slab cimport (
    ENDPOINT_LEG, ENDPOINT_TUNNEL, SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, Endpoint, RecvBatch, SendBatch, endpoint_is_virtual,
    endpoint_kind, endpoint_set_virtual)
from interpeer._core.stream cimport Stream
from interpeer._core.stun cimport STUN_HEADER_BYTES, STUN_MAGIC
from interpeer._core.table cimport table_find
from interpeer._core.timers cimport Timer, timer_set, timers_due, timers_next_ns
from interpeer._core.trace cimport trace_is_ripe
from interpeer._core.tunnel cimport MAX_FRAME_BYTES, Letter, Tunnels, tunnels_push
from interpeer._core.wire cimport (
    CID_FLAG, HEADER_BYTES, MESSAGE_HEADER_BYTES, MESSAGE_INIT, MESSAGE_PROBE, MESSAGE_PROBE_ANSWER, MESSAGE_VERSIONS, VERSION,
    read_u64)

cdef extern from "platform.h" nogil:
    void *atomic_swap_pointer(void **at, void *value)
    int atomic_replace_pointer(void **at, void *expected, void *value)
    void *atomic_load_pointer(void **at)
    void atomic_add_long(long *at, long value)
    long atomic_load_long(long *at)

cdef extern from "fork.h" nogil:
    long fork_generation
    int watch_forks()

cdef enum:
    STUN_CLASS_HIGH = 0x01          # in the first byte: a response
    STUN_CLASS_LOW = 0x10           # in the second: an indication, or with the other an error response

watch_forks()


@cython.final
cdef class Engine:
    """The protocol machines of one node. Made and driven by a pump or by the simulator, used through handles."""

    def __cinit__(self):
        registry_init(&self.registry)
        self.last_cid = 0
        self.last_id = NULL
        self.released_handles = NULL
        self.released_streams = NULL
        self.now_ns = 0
        self.waiters = 0
        self.is_kicked = False
        self.kick = None
        self.generation = fork_generation
        self.mutex = <void *>PyThread_allocate_lock()
        if self.mutex == NULL:
            raise MemoryError

    def __dealloc__(self):
        # every handle holds the engine, so there is none left; a forked child frees its own copy and tells nobody
        self.take_back()
        registry_free(&self.registry)
        if self.registry.shards != NULL:
            shards_leave(self.registry.shards)
        if self.mutex != NULL:
            PyThread_free_lock(<PyThread_type_lock>self.mutex)

    @property
    def on_kick(self):
        """Return what is called, without arguments, when a verb has made something to send; from any thread."""
        return self.kick

    @on_kick.setter
    def on_kick(self, kick):
        # under the lock, for another thread may be about to call it; the one before goes away behind that
        if not self.is_forked():
            self.lock()
        self.kick, kick = kick, self.kick
        if not self.is_forked():
            self.unlock()

    cdef bint try_lock(self) noexcept nogil:
        return PyThread_acquire_lock(<PyThread_type_lock>self.mutex, NOWAIT_LOCK) != 0

    cdef void lock(self) noexcept nogil:
        PyThread_acquire_lock(<PyThread_type_lock>self.mutex, WAIT_LOCK)

    cdef void lock_waiting(self) noexcept nogil:
        """Take the lock and let a pump that runs turn after turn know that somebody waits for it."""
        atomic_add_long(&self.waiters, 1)
        PyThread_acquire_lock(<PyThread_type_lock>self.mutex, WAIT_LOCK)
        atomic_add_long(&self.waiters, -1)

    cdef void unlock(self) noexcept nogil:
        PyThread_release_lock(<PyThread_type_lock>self.mutex)

    cdef bint is_forked(self) noexcept nogil:
        """Tell whether this is a copy in a forked child, where keys and packet numbers are not ours to use."""
        return self.generation != fork_generation

    cdef void set_now(self, uint64_t now_ns) noexcept nogil:
        self.now_ns = now_ns
        if self.registry.context.trace != NULL:
            self.registry.context.trace.now_ns = now_ns

    # --- what arrives ---

    cdef void handle_batch(self, RecvBatch *batch, uint64_t now_ns) noexcept nogil:
        """Take a batch of datagrams from sockets; each message may be several packets glued together by GRO.

        One that says it comes from an address which stands for something else is forged."""
        cdef uint32_t i
        self.set_now(now_ns)
        for i in range(batch.count):
            if endpoint_is_virtual(batch.slots[i].remote.address):
                self.registry.context.counters.dropped_virtual += 1
            else:
                self.handle_message(&batch.slots[i], now_ns)

    cdef void handle_message(self, const Datagrams *d, uint64_t now_ns) noexcept nogil:
        """Take one message, wherever it comes from."""
        if self.registry.shards == NULL:
            self.handle_run(d, 0, d.bytes, now_ns)
        else:
            self.sort_message(d, now_ns)

    cdef void handle_run(self, const Datagrams *d, uint32_t at, uint32_t end, uint64_t now_ns) noexcept nogil:
        """Take the packets of a message that lie from `at` to `end`."""
        cdef Counters *counters = &self.registry.context.counters
        cdef bint has_legs = self.registry.context.relay != NULL and self.registry.context.relay.legs.count != 0
        cdef uint32_t n
        while True:
            n = self.handle_legs(d, at, end, now_ns) if has_legs else 0
            if n == 0:
                n = d.segment if d.segment and d.segment < end - at else end - at
                counters.packets_received += 1
                counters.bytes_received += n
                self.handle_datagram(d.data + at, n, d, now_ns)
            at += n
            if at >= end:
                break

    cdef uint32_t handle_legs(self, const Datagrams *d, uint32_t at, uint32_t end, uint64_t now_ns) noexcept nogil:
        """Take the packets from `at` on that have the same leg's id in front; return how many bytes they are, 0: none has.

        At a relay they are passed on; where the leg ends, what is behind its id is handled as if it had come from the leg. But
        only if they come from where the leg's connection is: its id is no secret of those who see packets."""
        cdef Registry *r = &self.registry
        cdef uint32_t segment = d.segment if d.segment and d.segment < end - at else end - at
        cdef uint32_t stop = at + segment
        cdef uint8_t *p = d.data + at
        cdef Leg *leg
        if segment < LEG_BYTES or not p[0] & CID_FLAG or (self.last_id != NULL and read_u64(p) == self.last_cid):
            return 0
        leg = relay_find(r.context.relay, read_u64(p))
        if leg == NULL:
            return 0
        while end - stop >= LEG_BYTES and memcmp(d.data + stop, p, LEG_BYTES) == 0:
            stop += segment if segment < end - stop else end - stop
        r.context.counters.packets_received += packets_of(stop - at, segment)
        r.context.counters.bytes_received += stop - at
        if endpoint_kind(d.remote.address) == ENDPOINT_LEG or not carrier_has_heard(<Conn *>leg.conn, d):
            r.context.counters.dropped_leg += packets_of(stop - at, segment)
        elif leg.pair != NULL:
            relaying_forward(r, leg, d, at, stop, now_ns)
        else:
            self.unwrap(leg, d, at, stop, segment, now_ns)
        return stop - at

    cdef void unwrap(self, const Leg *leg, const Datagrams *d, uint32_t at, uint32_t end, uint32_t segment,
                     uint64_t now_ns) noexcept nogil:
        """Take what has come through a relay: packets of connections and handshakes, and nothing that asks who we are."""
        cdef Datagrams inner = d[0]
        cdef uint8_t *p
        endpoint_set_virtual(&inner.remote, ENDPOINT_LEG, leg.id)
        memset(inner.local, 0, sizeof(inner.local))
        inner.interface = 0
        while at < end:
            p = d.data + at + LEG_BYTES
            if min(segment, end - at) > LEG_BYTES and (p[0] & CID_FLAG or MESSAGE_INIT <= p[0] <= MESSAGE_VERSIONS):
                self.handle_datagram(p, min(segment, end - at) - <uint32_t>LEG_BYTES, &inner, now_ns)
            else:
                self.registry.context.counters.dropped_leg += 1
            at += segment

    cdef bint handle_early(self, uint64_t leg) noexcept nogil:
        """Take the call that has come before its leg was opened; tell whether there was one."""
        cdef EarlyCall *call = early_take(self.registry.early, leg, self.now_ns)
        if call == NULL:
            return False
        self.handle_run(&call.datagram, 0, EARLY_BYTES, self.now_ns)
        return True

    cdef void sort_message(self, const Datagrams *d, uint64_t now_ns) noexcept nogil:
        """Take what is this shard's of a message, and pass the rest on, run by run: GRO glues by address alone."""
        cdef Registry *r = &self.registry
        cdef uint32_t start = 0, end, owner, segment = d.segment if d.segment else d.bytes
        if d.bytes == 0:
            self.handle_run(d, 0, 0, now_ns)
        while start < d.bytes:
            end = start
            owner = shard_of(d.data + start, min(segment, d.bytes - start), r.shards.count)
            while end < d.bytes and shard_of(d.data + end, min(segment, d.bytes - end), r.shards.count) == owner:
                end += segment
            end = min(end, d.bytes)
            if owner == r.shard:
                self.handle_run(d, start, end, now_ns)
            else:
                registry_pass(r, owner, d, d.data + start, end - start, segment, 0)
            start = end

    cdef bint has_mail(self) noexcept nogil:
        """Tell whether another shard has passed something on, or a tunnel has brought something; without the lock."""
        return (self.registry.shards != NULL and shards_have_mail(self.registry.shards, self.registry.shard)) \
            or (self.registry.tunnels != NULL and atomic_load_long(&self.registry.tunnels.inbox_used) != 0)

    cdef void handle_mail(self, uint64_t now_ns) noexcept nogil:
        """Take what other shards have passed on, and what tunnels have brought."""
        cdef Registry *r = &self.registry
        cdef uint8_t *mail
        cdef Mail *m
        cdef uint32_t at = 0, used
        self.set_now(now_ns)
        if r.tunnels != NULL and r.tunnels.inbox_used:
            self.handle_tunnelled(now_ns)
        if r.shards == NULL:
            return
        used = shards_collect(r.shards, r.shard, &mail)
        while at < used:
            m = <Mail *>(mail + at)
            r.seen = m.seen
            self.handle_run(&m.datagrams, 0, m.datagrams.bytes, now_ns)
            at += mail_bytes(m.datagrams.bytes)
        r.seen = 0

    cdef void handle_tunnelled(self, uint64_t now_ns) noexcept nogil:
        """Take the packets that tunnels have brought, as from the virtual addresses that stand for those."""
        cdef Tunnels *t = self.registry.tunnels
        cdef uint32_t at = 0, used = <uint32_t>t.inbox_used
        cdef Letter letter
        cdef Datagrams d
        memset(&d, 0, sizeof(Datagrams))
        while at < used:
            memcpy(&letter, t.inbox + at, sizeof(Letter))
            endpoint_set_virtual(&d.remote, ENDPOINT_TUNNEL, letter.number)
            d.data = t.inbox + at + sizeof(Letter)
            d.bytes = d.segment = letter.bytes
            self.handle_message(&d, now_ns)
            at += <uint32_t>sizeof(Letter) + letter.bytes
        t.inbox_used = 0

    cdef uint32_t take_posted(self) noexcept nogil:
        """Return the shards that have mail of ours since the last call and are to be woken, a bit each."""
        cdef uint32_t posted = self.registry.posted
        self.registry.posted = 0
        return posted

    cdef void handle_datagram(self, uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
        """Tell what a datagram is: STUN, a packet with a connection id, or a handshake message with a mac."""
        cdef Registry *r = &self.registry
        cdef Conn *c
        cdef HalfOpen *h
        cdef uint64_t cid
        if n >= HEADER_BYTES and p[0] & CID_FLAG:
            cid = read_u64(p)
            if cid != self.last_cid:
                self.last_id = <LocalCid *>table_find(&r.by_cid, cid)
                self.last_cid = cid
            if self.last_id != NULL:
                c = <Conn *>self.last_id.conn
                if c.state == CONN_DIALING:
                    # nobody has its keys yet, and who has seen our init must not be told the token of its reset
                    r.context.counters.dropped_unknown += 1
                else:
                    conn_handle_packet(c, self.last_id.path, p, n, from_, now_ns)
                return
            h = half_open_find_cid(&r.answering, cid)
            if h != NULL:
                reception_handle_first_packet(r, h, p, n, from_, now_ns)
                self.last_cid = 0
            elif relay_find(r.context.relay, cid) != NULL:
                r.context.counters.dropped_leg += 1     # inside another one: there is no relay behind a relay
            elif n == EARLY_BYTES and p[LEG_BYTES] == MESSAGE_INIT and r.context.limits.observe \
                    and endpoint_kind(from_.remote.address) != ENDPOINT_LEG:
                if early_keep(&r.early, cid, p, from_, now_ns) != 0:
                    r.context.counters.no_memory += 1
            else:
                reception_handle_stray(r, p, n, from_, now_ns)
        elif n >= MESSAGE_HEADER_BYTES and MESSAGE_INIT <= p[0] <= MESSAGE_VERSIONS:
            reception_handle_message(r, p, n, from_, now_ns)
            self.last_cid = 0
        elif n >= STUN_HEADER_BYTES and p[0] < 0x40 and <uint32_t>read_u64(p) == <uint32_t>STUN_MAGIC:
            self.handle_stun(p, n, from_, now_ns)
        elif n == PROBE_BYTES and MESSAGE_PROBE <= p[0] <= MESSAGE_PROBE_ANSWER:
            self.handle_probe(p, n, from_)
        else:
            r.context.counters.dropped_short += 1

    cdef void handle_stun(self, const uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
        """Take an answer to a transaction of ours, or a request (RFC 8489, 5: the class is in two bits of the type)."""
        if p[0] & STUN_CLASS_HIGH or p[1] & STUN_CLASS_LOW:
            self.offer(p + STUN_HEADER_BYTES - TXID_BYTES, TXID_BYTES, p, n, from_, &self.registry.context.counters.dropped_stun)
        else:
            binding_handle(&self.registry, p, n, from_, now_ns)

    cdef void handle_probe(self, const uint8_t *p, uint32_t n, const Datagrams *from_) noexcept nogil:
        """Take a probe whose token we have given out, or an answer to one of ours."""
        if p[1] == VERSION:
            self.offer(p + PROBE_TOKEN_AT, TOKEN_BYTES, p, n, from_, &self.registry.context.counters.dropped_probes)
        else:
            self.registry.context.counters.dropped_probes += 1

    cdef void offer(self, const uint8_t *token, uint32_t token_bytes, const uint8_t *p, uint32_t n, const Datagrams *from_,
                    uint64_t *dropped) noexcept nogil:
        """Keep what somebody waits for until Python takes it."""
        cdef int result = raw_offer(self.registry.raw, token, token_bytes, p, n, from_)
        if result == RAW_UNEXPECTED:
            dropped[0] += 1
        elif result != RAW_OK:
            self.registry.context.counters.dropped_raw += 1

    cdef void handle_timeout(self, uint64_t now_ns) noexcept nogil:
        """Do whatever is due by now."""
        cdef Timer *timer
        cdef Conn *c
        self.set_now(now_ns)
        answering_expire(&self.registry.answering, now_ns)
        timer = timers_due(&self.registry.timers, now_ns)
        while timer != NULL:
            c = <Conn *>timer.owner
            if c.state == CONN_DIALING:
                calling_handle_timeout(c, now_ns)
            else:
                conn_handle_timeout(c, now_ns)
            conn_wake(c)
            timer = timers_due(&self.registry.timers, now_ns)

    cdef uint64_t poll_timeout(self) noexcept nogil:
        """Return when handle_timeout is due: 0 never, 1 at once, since something waits to be transmitted."""
        if first_link(&self.registry.context.ready) != NULL or self.registry.reply_count or self.is_forwarding() \
                or (self.registry.raw != NULL and self.registry.raw.count) \
                or atomic_load_pointer(&self.released_streams) != NULL \
                or atomic_load_pointer(&self.released_handles) != NULL:
            return 1
        return self.next_deadline_ns()

    cdef bint is_forwarding(self) noexcept nogil:
        """Tell whether something waits to be passed on to another peer."""
        return self.registry.context.relay != NULL and forwards_wait(&self.registry.context.relay.forwards)

    cdef uint64_t next_deadline_ns(self) noexcept nogil:
        """Return when a timer expires, whatever waits to be transmitted; 0 never."""
        cdef uint64_t deadline = timers_next_ns(&self.registry.timers)
        cdef uint64_t other = answering_deadline_ns(&self.registry.answering)
        return other if deadline == 0 or (other and other < deadline) else deadline

    # --- what goes out ---

    cdef bint poll_transmit(self, SendBatch *batch, uint64_t now_ns) noexcept nogil:
        """Fill the batch with packets that may go now. Return whether there are more than fit."""
        cdef bint more = self.fill(batch, now_ns)
        if self.registry.tunnels != NULL:   # perhaps the last one is gone, and paths by it are not
            more |= self.divert(batch)
        return more

    cdef bint divert(self, SendBatch *batch) noexcept nogil:
        """Take out of the batch what goes over tunnels. Return whether some was too large, and is to be said anew."""
        cdef uint32_t i, kept = 0
        cdef bint is_refused = False
        cdef Datagrams *d
        for i in range(batch.count):
            d = &batch.entries[i]
            if endpoint_kind(d.remote.address) != ENDPOINT_TUNNEL:
                if kept != i:
                    batch.entries[kept] = d[0]
                kept += 1
            elif d.segment > MAX_FRAME_BYTES:
                self.refuse(d)
                is_refused = True
            else:
                tunnels_push(self.registry.tunnels, d)
        batch.count = kept
        batch.run = 0
        return is_refused

    cdef bint fill(self, SendBatch *batch, uint64_t now_ns) noexcept nogil:
        cdef Link *ready = &self.registry.context.ready
        cdef Link *link
        cdef Conn *c
        cdef bint is_full
        self.set_now(now_ns)
        self.is_kicked = False
        self.take_back()
        if self.registry.context.relay != NULL:
            forwards_release(&self.registry.context.relay.forwards)     # the batch before has been sent
            if relaying_transmit(&self.registry, batch):
                return True
        if self.transmit_replies(batch):
            return True
        if self.registry.raw != NULL and raw_transmit(self.registry.raw, batch):
            return True
        link = first_link(ready)
        while link != NULL:
            c = <Conn *>link.owner
            if c.ids_changed:
                registry_tend_ids(&self.registry, c)
                self.last_cid = 0
            if c.state == CONN_DIALING:
                is_full = calling_transmit(&self.registry, c, batch, now_ns)
            else:
                is_full = conn_transmit(c, batch, now_ns) == TRANSMIT_MORE
            unlink(link)
            if is_full:
                link_last(ready, link)      # the others first, then it goes on
                return True
            self.settle(c)
            link = first_link(ready)
        return self.registry.context.relay != NULL and self.registry.context.relay.forwards.given   # come again: they are sent

    cdef bint transmit_replies(self, SendBatch *batch) noexcept nogil:
        cdef Registry *r = &self.registry
        cdef Reply *reply
        cdef Datagrams *d
        while r.reply_count:
            reply = &r.replies[r.first_reply]
            if batch.count == SEND_ENTRIES or batch.used + reply.bytes + LEG_BYTES > SEND_BATCH_BYTES:
                return True
            d = &batch.entries[batch.count]
            memset(d, 0, sizeof(Datagrams))
            d.data = batch.buffer + batch.used
            if reply.bytes and carrier_direct(&r.context, d, &reply.remote, reply.local):
                d.bytes = reply.bytes + lead_bytes(&reply.remote)
                d.segment = d.bytes
                memcpy(d.data + d.bytes - reply.bytes, reply.data, reply.bytes)
                batch.used += d.bytes
                batch.count += 1
                batch.run = 0
            r.first_reply = (r.first_reply + 1) % MAX_REPLIES
            r.reply_count -= 1
        return False

    cdef void settle(self, Conn *c) noexcept nogil:
        """Set a connection's timer, or let it go if it is over."""
        cdef uint64_t deadline
        if c.legs != NULL and c.state > CONN_OPEN:
            relaying_end(&self.registry, c)
        if c.state == CONN_CLOSED:
            self.last_cid = 0       # it may be freed here
            registry_retire(&self.registry, c)
            return
        deadline = dial_deadline_ns(<Dial *>c.dial) if c.state == CONN_DIALING else conn_deadline_ns(c)
        if timer_set(&self.registry.timers, &c.timer, deadline) != 0:
            self.registry.context.counters.no_memory += 1

    cdef void handle_refusals(self, const SendBatch *batch) noexcept nogil:
        """The interface has refused packets of a batch as too large: their paths carry less than was thought."""
        cdef uint32_t i
        for i in range(batch.sent):
            if batch.entries[i].is_too_big:
                self.refuse(&batch.entries[i])

    cdef void refuse(self, const Datagrams *d) noexcept nogil:
        cdef const LocalCid *id = <const LocalCid *>table_find(&self.registry.by_cid, d.cid) if d.cid else NULL
        if id != NULL:
            conn_handle_refused(<Conn *>id.conn, d.path, &d.remote, d.segment)
        elif d.cid:
            relaying_refused(&self.registry, d)

    # --- events ---

    cdef bint has_gone_legs(self) noexcept nogil:
        return self.registry.context.relay != NULL and self.registry.context.relay.gone != NULL

    cdef bint has_events(self) noexcept nogil:
        return first_link(&self.registry.context.eventful) != NULL or self.registry.ask_count or self.has_gone_legs() \
            or (self.registry.raw != NULL and self.registry.raw.events != NULL) \
            or (self.registry.tunnels != NULL and self.registry.tunnels.is_ready) \
            or (self.registry.context.trace != NULL and trace_is_ripe(self.registry.context.trace))

    cdef int poll_events(self, Event *out, int room) noexcept nogil:
        """Write up to `room` events; return how many. Fewer than `room` means that there are no more."""
        cdef Registry *r = &self.registry
        cdef int n = 0
        cdef Link *link
        cdef Link *stream_link
        cdef Conn *c
        cdef Stream *s
        cdef Leg *leg
        while r.ask_count and n < room:
            r.ask_count -= 1
            out[n].kind = EVENT_ASK
            out[n].id = r.asks[r.ask_count].id
            out[n].protocol = r.asks[r.ask_count].protocol
            memcpy(out[n].identity, r.asks[r.ask_count].identity, KEY_BYTES)
            n += 1
        while self.has_gone_legs() and n < room:
            leg = r.context.relay.gone
            r.context.relay.gone = leg.next
            out[n].kind = EVENT_LEG_GONE
            out[n].stream = leg.id
            free(leg)
            n += 1
        link = first_link(&r.context.eventful)
        while link != NULL:
            c = <Conn *>link.owner
            if c.is_released:
                unlink(link)
                link = first_link(&r.context.eventful)
                continue
            if c.handle == NULL or c.events:
                if n == room or announce(c, &out[n]) != 0:
                    return n
                n += 1
            stream_link = first_link(&c.eventful_streams)
            while stream_link != NULL:
                if n == room:
                    return n
                s = <Stream *>stream_link.owner
                out[n].kind = EVENT_STREAM
                out[n].handle = c.handle
                out[n].stream = s.id
                out[n].events = s.events
                s.events = 0
                unlink(stream_link)
                n += 1
                stream_link = first_link(&c.eventful_streams)
            unlink(link)
            link = first_link(&r.context.eventful)
        return n

    # --- verbs that are not a connection's ---

    cdef Handle *dial(self, const uint8_t *identity, const uint8_t *peer_key, const uint8_t *protocol,
                      uint32_t protocol_bytes, const Endpoint *candidates, int count) noexcept nogil:
        """Start calling a peer; NULL without memory. The first message is written at the next poll_transmit."""
        cdef Registry *r = &self.registry
        cdef Conn *c = conn_new(&r.context)
        cdef Dial *d = dial_new()
        cdef Handle *handle = <Handle *>calloc(1, sizeof(Handle))
        cdef int i
        if c == NULL or d == NULL or handle == NULL:
            free(c)
            free(d)
            free(handle)
            return NULL
        c.dial = d
        c.handle = handle
        handle.conn = c
        memcpy(c.peer_identity, identity, KEY_BYTES)
        memcpy(c.peer_key, peer_key, KEY_BYTES)
        c.protocol = registry_protocol(r, protocol, protocol_bytes)
        memcpy(d.protocol, protocol, protocol_bytes)
        d.protocol_bytes = protocol_bytes
        for i in range(count):
            dial_add_candidate(d, &candidates[i])
        registry_count_connection(r, 1)
        link_last(&r.dialing, &c.member)
        calling_claim(r, c)
        conn_wake(c)
        return handle

    # --- what the application lets go of ---

    cdef void let_go_of_handle(self, Handle *handle) noexcept nogil:
        """Push a handle for the next poll_transmit; called by destructors, from any thread, without the lock."""
        cdef void *top
        while True:
            top = atomic_load_pointer(&self.released_handles)
            handle.next_released = <Handle *>top
            if atomic_replace_pointer(&self.released_handles, top, handle):
                return

    cdef void let_go_of_stream(self, Stream *s) noexcept nogil:
        """Push a stream for the next poll_transmit; likewise. Its connection's handle has not been let go of."""
        cdef void *top
        while True:
            top = atomic_load_pointer(&self.released_streams)
            s.next_released = <Stream *>top
            if atomic_replace_pointer(&self.released_streams, top, s):
                return

    cdef void take_back(self) noexcept nogil:
        """Empty both stacks. Handles are taken first, so that all their streams are on the other stack by then."""
        cdef Handle *handle = <Handle *>atomic_swap_pointer(&self.released_handles, NULL)
        cdef Stream *s = <Stream *>atomic_swap_pointer(&self.released_streams, NULL)
        cdef Stream *next_stream
        cdef Handle *next_handle
        cdef Conn *c
        while s != NULL:
            next_stream = s.next_released
            conn_release_stream(<Conn *>s.conn, s)
            s = next_stream
        while handle != NULL:
            next_handle = handle.next_released
            c = handle.conn
            free(handle)
            if c != NULL:
                self.last_cid = 0       # it may be freed here
                c.handle = NULL
                c.is_released = True
                release(&self.registry, c)
            handle = next_handle


cdef int announce(Conn *c, Event *out) noexcept nogil:
    """Write what happened to a connection; a new one gets its handle first. Return 0, or -1 without memory for that."""
    cdef Handle *handle = c.handle
    if handle == NULL:
        handle = <Handle *>calloc(1, sizeof(Handle))
        if handle == NULL:
            c.context.counters.no_memory += 1
            return -1
        handle.conn = c
        c.handle = handle
        out.kind = EVENT_INCOMING
        c.events &= ~CONN_EVENT_OPEN
    else:
        out.kind = EVENT_CONNECTION
    out.handle = handle
    out.events = c.events
    c.events = 0
    return 0


cdef void release(Registry *r, Conn *c) noexcept nogil:
    """The application has let go of a connection: close it if it is open, free it if it is over."""
    if c.state == CONN_CLOSED:
        registry_retire(r, c)
    else:
        conn_close_info(c, CLOSED_LOCALLY, 0, True, NULL, 0)
        conn_input(c, CONN_IN_CLOSE)
