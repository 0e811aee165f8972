"""Engine and sockets in one turn without the GIL: receive, handle, transmit, until nothing comes or the time is up.

Clock and entropy enter the protocol here and nowhere else. The pump runs on the event loop, one turn for each time a
descriptor becomes readable, or on a thread of its own (`run`), where busy Python threads cannot starve it.
"""

cimport cython
from libc.errno cimport ENOPROTOOPT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.context cimport ENTROPY_BYTES, Entropy, entropy_add
from interpeer._core.control cimport read_endpoint
from interpeer._core.crypto cimport random_bytes, wipe
from interpeer._core.engine cimport Engine
from interpeer._core.entry cimport begin_alone, end_alone, take_lock
from interpeer._core.shards cimport MAX_SHARDS, STEERING_STEPS, Step, steering_program
from interpeer._core.slab cimport (
    ENDPOINT_SOCKET, Datagrams, Endpoint, endpoint_id, endpoint_is_ipv4, endpoint_kind, endpoint_virtual, recv_batch_free,
    recv_batch_init, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.udp cimport (
    UDP_CAN_PKTINFO, UDP_WOULD_BLOCK, Udp, UdpCounters, udp_adopt, udp_clock_ns, udp_close, udp_counters_add, udp_join, udp_local,
    udp_open, udp_recv, udp_send, udp_steer)
from interpeer._core.udp import words_of

cdef extern from "platform.h" nogil:
    long atomic_load_long(long *at)
    void atomic_add_long(long *at, long value)
    long atomic_swap_long(long *at, long value)

cdef extern from "pump_sys.h" nogil:
    int pump_timer_open()
    int pump_timer_set(int fd, uint64_t at_ns)
    void pump_timer_clear(int fd)
    void pump_timer_close(int fd)
    uint32_t pump_wait(const int64_t *fds, int count, uint32_t reading, uint32_t writing, int64_t timeout_ns)
    void pump_signal(int64_t fd)
    void pump_drain(int64_t fd)

EVENTS, MORE, BLOCKED, DEADLINE = TURN_EVENTS, TURN_MORE, TURN_BLOCKED, TURN_DEADLINE
ALL_SOCKETS = (1 << SOCKET_SLOTS) - 1
TIMER = 1 << SOCKET_SLOTS
MOST_ADOPTED = MAX_ADOPTED


def now_ns():
    """Return the pump's clock: monotonic, in nanoseconds."""
    return udp_clock_ns()


@cython.final
@cython.no_gc_clear             # the destructor needs the engine
cdef class Pump:
    """Drive an engine over real sockets."""

    def __cinit__(self, Engine engine not None, *, uint64_t spin_ns=0, bint with_timer=True):
        self.engine = engine
        cdef int i
        for i in range(SOCKET_SLOTS):
            self.sockets[i].fd = -1
        self.count = 0
        self.reading = 0
        self.changes = 0
        self.claimed = self.arriving = self.leaving = 0
        self.is_blocked = False
        self.blocked = 0
        self.armed_ns = 0
        self.deadline_ns = 0
        self.spin_ns = spin_ns
        self.turns = 0
        self.timer_uses = 0
        self.stopping = 0
        self.users = 0
        self.timer_fd = pump_timer_open() if with_timer else -1
        if recv_batch_init(&self.received) != 0 or send_batch_init(&self.batch) != 0:
            raise MemoryError

    def __dealloc__(self):
        if self.engine is not None:         # otherwise __cinit__ has not begun, and every field is 0
            self.close()
        recv_batch_free(&self.received)
        send_batch_free(&self.batch)

    # --- sockets ---

    def open(self, address, uint32_t disabled):
        """Listen at (16 bytes, port, scope), IPv6 or mapped IPv4; return the port. Raises OSError.

        `disabled` is what udp.parse_disabled makes of INTERPEER_DISABLE."""
        cdef Endpoint at
        cdef int result
        if self.count == MAX_SOCKETS:
            raise ValueError("a node listens with one socket for each family")
        read_endpoint(address, &at)
        result = udp_open(&self.sockets[self.count], &at, disabled)
        if result < 0:
            raise OSError(-result, "cannot listen there")
        udp_local(&self.sockets[self.count], &at)
        self.reading |= <uint32_t>1 << self.count
        self.count += 1
        return at.port

    def join(self, Pump first not None, uint32_t disabled):
        """Open sockets at the addresses of another pump's, so that each gets a part of what comes. Raises OSError.

        Where the system cannot do that, the other's sockets serve this one to send, and it receives by mail alone."""
        cdef int i, result
        for i in range(first.count):
            result = udp_join(&self.sockets[i], &first.sockets[i], disabled)
            if result == 0:
                self.reading |= <uint32_t>1 << i
            elif result != -ENOPROTOOPT:
                raise OSError(-result, "cannot listen beside another shard")
            else:
                result = udp_adopt(&self.sockets[i], first.sockets[i].fd, disabled)
                if result < 0:
                    raise OSError(-result, "cannot send by another shard's socket")
            self.count = i + 1

    def steer(self, uint32_t shards, uint32_t disabled):
        """Let the system steer to the sockets of each shard what is the shard's; if it cannot, they pass it on themselves."""
        cdef Step steps[STEERING_STEPS]
        cdef uint32_t n = steering_program(steps, shards)
        cdef int i
        for i in range(self.count):
            udp_steer(&self.sockets[i], steps, n, disabled)

    def know_shards(self, list descriptors not None):
        """Take the descriptors that wake the pump of each shard, by a byte. Not while `run` runs."""
        for i, descriptor in enumerate(descriptors[:MAX_SHARDS]):
            self.wakes[i] = descriptor

    def adopt(self, int64_t descriptor, uint64_t number, bint is_read, uint32_t disabled):
        """Take over a bound, non-blocking socket, which is closed with the pump: what comes to it, if it `is_read`, has come to
        the virtual address of this number, and what is to leave from there leaves by it. From any thread, with the next turn.

        Return the bit for `turn`. Raises OSError, and ValueError when there are MAX_ADOPTED already."""
        cdef Udp adopted
        cdef int slot = MAX_SOCKETS, result = udp_adopt(&adopted, descriptor, disabled | UDP_CAN_PKTINFO)
        if result < 0:
            raise OSError(-result, "cannot adopt this socket")
        take_lock(self.engine)
        while slot < SOCKET_SLOTS and self.claimed >> slot & 1:
            slot += 1
        if slot < SOCKET_SLOTS:
            adopted.owns_fd = True
            self.arrivals[slot] = adopted
            self.arriving_numbers[slot] = number
            self.claimed |= <uint32_t>1 << slot
            self.arriving |= <uint32_t>1 << slot
            self.arriving_to_read = self.arriving_to_read & ~(<uint32_t>1 << slot) | <uint32_t>is_read << slot
            atomic_add_long(&self.changes, 1)
        self.engine.unlock()
        if slot == SOCKET_SLOTS:
            udp_close(&adopted)
            raise ValueError(f"{MAX_ADOPTED} sockets are adopted already")
        return 1 << slot

    def release(self, uint64_t number):
        """Close an adopted socket, with the next turn; return whether there is one of this number. From any thread."""
        cdef int slot
        cdef bint is_found = False
        take_lock(self.engine)
        for slot in range(MAX_SOCKETS, SOCKET_SLOTS):
            if not self.claimed >> slot & 1:
                continue
            if self.arriving >> slot & 1 and self.arriving_numbers[slot] == number:
                self.arriving &= ~(<uint32_t>1 << slot)
                udp_close(&self.arrivals[slot])
            elif not self.arriving >> slot & 1 and self.numbers[slot] == number:
                self.leaving |= <uint32_t>1 << slot
                atomic_add_long(&self.changes, 1)
            else:
                continue
            self.claimed &= ~(<uint32_t>1 << slot)
            is_found = True
        self.engine.unlock()
        return is_found

    cdef void make_changes(self) noexcept nogil:
        """Close the sockets that were released, and take in those that were adopted."""
        cdef int slot
        self.engine.lock()
        atomic_swap_long(&self.changes, 0)
        for slot in range(MAX_SOCKETS, SOCKET_SLOTS):
            if self.leaving >> slot & 1:
                udp_counters_add(&self.departed, &self.sockets[slot].counters)
                memset(&self.sockets[slot].counters, 0, sizeof(UdpCounters))
                udp_close(&self.sockets[slot])
                self.reading &= ~(<uint32_t>1 << slot)
                if self.blocked == slot:
                    self.blocked = 0        # what it did not take is lost, and what is behind goes on
            if self.arriving >> slot & 1:
                self.sockets[slot] = self.arrivals[slot]
                self.numbers[slot] = self.arriving_numbers[slot]
                self.reading |= self.arriving_to_read & <uint32_t>1 << slot
        self.arriving = self.leaving = 0
        self.engine.unlock()

    def close(self):
        """Close sockets and timer; in a forked child nothing, since they belong to the parent."""
        if self.engine.is_forked():
            return
        self.close_sockets()
        if self.timer_fd >= 0:
            pump_timer_close(self.timer_fd)
        self.timer_fd = -1

    def close_sockets(self):
        """Close the sockets alone, to open others."""
        cdef int i
        self.make_changes()
        for i in range(SOCKET_SLOTS):
            udp_close(&self.sockets[i])
        self.claimed = 0
        self.count = 0
        self.reading = 0

    def descriptors(self):
        """Return the sockets' descriptors, in the order in which they were opened."""
        return [self.sockets[i].fd for i in range(self.count)]

    @property
    def blocked_descriptor(self):
        """Return the descriptor of the socket that is full, after a turn that says so."""
        return self.sockets[self.blocked].fd

    @property
    def timer_descriptor(self):
        """Return a descriptor that is readable when a turn is due; -1 where there is none and the loop's timers must do."""
        return self.timer_fd

    def counters(self):
        """Return what the sockets have counted, added up, and the turns, up to the last one."""
        cdef UdpCounters told[SOCKET_SLOTS + 1]
        cdef bint is_alone = self.engine.is_forked()    # a copy, whose lock may be held for ever
        if not is_alone:
            self.engine.lock_waiting()
        told = self.told
        turns, timer_uses = self.told_turns, self.told_timer_uses
        if not is_alone:
            self.engine.unlock()
        totals = {"turns": turns, "timer_uses": timer_uses}
        for i in range(SOCKET_SLOTS + 1):
            for name, value in told[i].items():
                totals[name] = totals.get(name, 0) + value
        return totals

    def capabilities(self):
        """Return, for each socket, what it can do and how large its buffers are."""
        return [{"can": sorted(words_of(self.sockets[i].can)), "receive_buffer_bytes": self.sockets[i].receive_buffer_bytes,
                 "send_buffer_bytes": self.sockets[i].send_buffer_bytes, "is_ipv6": bool(self.sockets[i].is_ipv6)}
                for i in range(self.count)]

    # --- turns ---

    def turn(self, uint32_t readable):
        """Take what has come to the sockets whose bits are set, and send what is due. Return TURN_* bits.

        In a forked child nothing: its loop has inherited the callbacks, but keys and sockets belong to the parent."""
        cdef int result
        if self.engine.is_forked():
            return 0
        begin_alone(&self.users)
        with nogil:
            result = self.turn_nogil(readable)
        end_alone(&self.users)
        return result

    cdef int turn_nogil(self, uint32_t readable) noexcept nogil:
        cdef uint64_t start_ns = udp_clock_ns(), now_ns = start_ns, active_ns = start_ns
        cdef int result = 0
        self.turns += 1
        if atomic_load_long(&self.changes):
            self.make_changes()
        if readable >> SOCKET_SLOTS & 1 and self.timer_fd >= 0:
            pump_timer_clear(self.timer_fd)
            self.armed_ns = 0
            self.timer_uses += 1
        self.add_entropy()
        self.engine.registry.context.is_pressed = False
        while True:
            readable = self.receive(readable, now_ns)
            self.transmit(now_ns)
            now_ns = udp_clock_ns()
            if readable:
                active_ns = now_ns
                if self.engine.registry.context.is_pressed:
                    break                   # the descriptor stays readable; on a loop the application runs in between
                if now_ns - start_ns > TURN_BUDGET_NS:
                    result |= TURN_MORE
                    break
            elif self.spin_ns == 0 or now_ns - active_ns > self.spin_ns or self.has_events or self.is_blocked:
                break
            else:
                readable = self.reading
        if self.is_blocked:
            result |= TURN_BLOCKED
        self.arm(now_ns)
        if self.has_events:
            result |= TURN_EVENTS
        if self.timer_fd < 0:
            result |= TURN_DEADLINE
        return result

    cdef void add_entropy(self) noexcept nogil:
        """Keep the engine supplied with fresh random bytes."""
        cdef uint8_t fresh[4096]
        cdef Entropy *entropy = &self.engine.registry.context.entropy
        if entropy.left >= ENTROPY_LOW:
            return
        random_bytes(fresh, ENTROPY_BYTES)
        self.engine.lock()
        entropy_add(entropy, fresh, ENTROPY_BYTES)
        self.engine.unlock()
        wipe(fresh, ENTROPY_BYTES)

    cdef int receive(self, uint32_t readable, uint64_t now_ns) noexcept nogil:
        """Take a batch from each socket whose bit is set; return the bits of those where it is worth looking again.

        After a packet alone there is seldom another, and the descriptor would tell; in a bulk transfer there is."""
        cdef int i, n, k
        cdef uint32_t posted, more = 0
        if self.engine.has_mail():
            self.deliver(now_ns)
        readable &= self.reading
        for i in range(SOCKET_SLOTS):
            if not readable >> i & 1:
                continue
            n = udp_recv(&self.sockets[i], &self.received)
            if n <= 0:
                continue
            if i >= MAX_SOCKETS:
                for k in range(n):
                    endpoint_virtual(self.received.slots[k].local, ENDPOINT_SOCKET, self.numbers[i])
            self.engine.lock()
            self.engine.handle_batch(&self.received, now_ns)
            posted = self.engine.take_posted()
            self.engine.unlock()
            if posted:
                self.wake_others(posted)
            if n > 1 or self.received.slots[0].bytes > LONE_PACKET_BYTES:
                more |= 1 << i
        return more

    cdef void deliver(self, uint64_t now_ns) noexcept nogil:
        """Take what other shards have passed on, some of which may go further."""
        cdef uint32_t posted
        self.engine.lock()
        self.engine.handle_mail(now_ns)
        posted = self.engine.take_posted()
        self.engine.unlock()
        self.wake_others(posted)

    cdef void wake_others(self, uint32_t posted) noexcept nogil:
        cdef int i
        for i in range(MAX_SHARDS):
            if posted >> i & 1:
                pump_signal(self.wakes[i])

    cdef void transmit(self, uint64_t now_ns) noexcept nogil:
        """Do what is due, and send until there is nothing more or a socket is full."""
        cdef bint more = True
        if self.is_blocked and not self.send_batch():
            self.engine.lock()
            self.engine.handle_timeout(now_ns)      # otherwise what is due would stay due, turn after turn
            self.engine.unlock()
            return
        self.take_refusals()
        while more:
            send_batch_clear(&self.batch)
            self.engine.lock()
            self.engine.handle_timeout(now_ns)
            more = self.engine.poll_transmit(&self.batch, now_ns)
            self.has_events = self.engine.has_events()
            self.engine.unlock()
            if not self.send_batch():
                return
            more |= self.take_refusals()

    cdef bint take_refusals(self) noexcept nogil:
        """Let the engine know which packets were too large for their interface; tell whether there were any."""
        if self.batch.too_big == 0:
            return False
        self.engine.lock()
        self.engine.handle_refusals(&self.batch)
        self.engine.unlock()
        self.batch.too_big = 0
        return True

    cdef bint send_batch(self) noexcept nogil:
        """Give the batch to the sockets that it leaves by. Return False when one is full: the rest is kept."""
        cdef uint32_t count = self.batch.count, end
        cdef int i, result
        self.is_blocked = False
        while self.batch.sent < count:
            i = self.slot_for(&self.batch.entries[self.batch.sent])
            end = self.batch.sent + 1
            while end < count and self.slot_for(&self.batch.entries[end]) == i:
                end += 1
            if i < 0:
                self.batch.sent = end       # no socket of that family, or an adopted one that is gone: as good as lost
                continue
            self.batch.count = end
            result = udp_send(&self.sockets[i], &self.batch)
            self.batch.count = count
            if result == UDP_WOULD_BLOCK:
                self.is_blocked = True
                self.blocked = i
                return False
            if result < 0:
                self.batch.sent = end       # the socket is unusable: as good as lost
        return True

    cdef int slot_for(self, const Datagrams *d) noexcept nogil:
        """Return by which socket a message leaves; -1: there is none."""
        cdef bint is_ipv4 = endpoint_is_ipv4(&d.remote)
        cdef int i
        if endpoint_kind(d.local) == ENDPOINT_SOCKET:
            for i in range(MAX_SOCKETS, SOCKET_SLOTS):
                if self.sockets[i].fd >= 0 and self.numbers[i] == endpoint_id(d.local) and self.sockets[i].is_ipv6 != is_ipv4:
                    return i
            return -1
        for i in range(self.count):
            if self.sockets[i].is_ipv6 != is_ipv4:
                return i
        return -1

    cdef void tell_counters(self) noexcept nogil:
        """Copy the counters to where another thread may read them. Under the lock."""
        cdef int i
        self.told_turns = self.turns
        self.told_timer_uses = self.timer_uses
        for i in range(SOCKET_SLOTS):
            self.told[i] = self.sockets[i].counters
        self.told[SOCKET_SLOTS] = self.departed

    cdef void arm(self, uint64_t now_ns) noexcept nogil:
        """Set the timer to the next deadline. One that fires early costs less than moving it with every packet.

        What waits to be transmitted is no reason to come back while a socket is full: that it has room again is."""
        self.engine.lock()
        self.deadline_ns = self.engine.next_deadline_ns() if self.is_blocked else self.engine.poll_timeout()
        self.has_events = self.engine.has_events()
        self.tell_counters()
        self.engine.unlock()
        if self.timer_fd < 0 or self.deadline_ns == 0:
            return
        if self.armed_ns == 0 or self.deadline_ns < self.armed_ns:
            self.armed_ns = self.deadline_ns
            pump_timer_set(self.timer_fd, self.deadline_ns)

    # --- a thread of its own ---

    def run(self, int64_t wake_fd, int64_t notify_fd):
        """Turn until `stop`, on the calling thread. `wake_fd` becomes readable when a verb wants a turn; a byte is written
        to `notify_fd` when there are events for Python."""
        cdef int64_t fds[SOCKET_SLOTS + 1]
        cdef int i, result = 0
        cdef uint32_t ready
        cdef int64_t timeout_ns
        cdef uint64_t now
        begin_alone(&self.users)
        fds[0] = wake_fd
        with nogil:
            while not atomic_load_long(&self.stopping) and not self.engine.is_forked():
                now = udp_clock_ns()
                timeout_ns = -1
                if result & TURN_MORE:
                    timeout_ns = 0
                elif self.deadline_ns:
                    timeout_ns = <int64_t>(self.deadline_ns - now) if self.deadline_ns > now else 0
                for i in range(SOCKET_SLOTS):
                    fds[i + 1] = self.sockets[i].fd
                ready = pump_wait(fds, SOCKET_SLOTS + 1, 1 | self.reading << 1, 2 << self.blocked if self.is_blocked else 0,
                                  timeout_ns)
                if ready & 1:
                    pump_drain(wake_fd)
                result = self.turn_nogil((ready >> 1) & ((1 << SOCKET_SLOTS) - 1))
                if result & TURN_EVENTS:
                    pump_signal(notify_fd)
                while atomic_load_long(&self.engine.waiters):
                    yield_thread()          # verbs first: a lock that is taken again at once lets nobody else in
            end_alone(&self.users)

    def stop(self):
        """Make `run` return; the caller also writes to the wake descriptor."""
        atomic_add_long(&self.stopping, 1)


cdef extern from "platform.h" nogil:
    void yield_thread()
