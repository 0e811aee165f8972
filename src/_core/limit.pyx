"""What this machine could do at most: UDP in batches with the same ciphers and nothing else. The yardstick of benchmarks.

No streams, no recovery, no pacing, one memory buffer sent over and over: each packet is a counter of 8 bytes, sealed text
and a tag. A window of packets keeps the receiver's buffer from overflowing; a packet that is lost stays lost and counted.
The key is a constant, since nothing here is secret. Each end runs in a process of its own (interpeer._limit).
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.crypto cimport Aead, SUITE_NONE, aead_free, aead_init, aead_open, aead_seal, suite_is_available
from interpeer._core.slab cimport (
    MAX_SEGMENTS, MAX_UDP_PAYLOAD, RECV_SLOTS, SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, Endpoint, RecvBatch, SendBatch,
    recv_batch_free, recv_batch_init, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.udp cimport (
    UDP_CAN_GRO, UDP_CAN_GSO, UDP_WOULD_BLOCK, Udp, udp_clock_ns, udp_close, udp_local, udp_open, udp_recv, udp_send,
    udp_wait)

from array import array

from interpeer._core.udp import parse_disabled

cdef enum:
    HEADER_BYTES = 8
    TAG_ROOM = 32                   # the longest tag
    KERNEL_PACKET_BYTES = 2048      # what a packet of one page takes of a receive buffer, seen as half by the system
    WINDOW_BYTES = 4194304
    ACK_PATIENCE_MS = 500           # for a window that does not move: the acknowledgement or all packets were lost

cdef uint64_t LAST = <uint64_t>1 << 63     # in a counter: nothing follows

SUITES = {"none": 0, "chacha20-poly1305": 1, "aes-256-gcm": 2, "aegis-128l": 3, "aegis-256": 4}


def suites():
    """Return the names of the ciphers that can be measured here, "none" among them."""
    return [name for name, suite in SUITES.items() if suite == SUITE_NONE or suite_is_available(suite)]


cdef struct Tally:
    uint64_t packets
    uint64_t text_bytes             # of those that were opened
    uint64_t bad                    # packets that did not open
    uint64_t stalls                 # times the sender gave up on the packets under way


@cython.final
cdef class Limit:
    """One end of a measurement on 127.0.0.1: a socket, a cipher and one size of packet.

    `text_bytes` are carried by each packet, which is larger by a header of 8 bytes and the tag. `disable` takes the words of
    INTERPEER_DISABLE. Raises ValueError for a cipher that is not available here, and TimeoutError from a measurement in
    which the other end does nothing for `patience` seconds."""

    cdef Udp udp
    cdef Aead aead
    cdef int suite
    cdef uint32_t text_bytes, packet_bytes
    cdef int patience_ms
    cdef uint64_t counter           # of the next packet to send
    cdef Tally tally
    cdef RecvBatch incoming
    cdef SendBatch outgoing

    def __cinit__(self, str suite, int text_bytes, *, str disable="", double patience=10.0):
        cdef uint8_t key[32]
        cdef Endpoint at
        cdef int result
        self.udp.fd = -1
        if suite not in suites():
            raise ValueError(f"cannot measure {suite!r}: expected one of {', '.join(suites())}")
        if not 0 < text_bytes <= MAX_UDP_PAYLOAD - HEADER_BYTES - TAG_ROOM:
            raise ValueError(f"expected 1 to {MAX_UDP_PAYLOAD - HEADER_BYTES - TAG_ROOM} bytes of text, not {text_bytes}")
        self.suite = SUITES[suite]
        self.patience_ms = <int>(patience * 1000)
        memset(key, 1, 32)
        if self.suite != SUITE_NONE and aead_init(&self.aead, self.suite, key, key) != 0:
            raise MemoryError("no memory for the key")
        self.text_bytes = text_bytes
        self.packet_bytes = HEADER_BYTES + self.text_bytes + self.aead.tag_bytes
        if recv_batch_init(&self.incoming) < 0 or send_batch_init(&self.outgoing) < 0:
            raise MemoryError("no memory for the batches of a socket")
        memset(self.outgoing.buffer, 0, SEND_BATCH_BYTES)
        write_loopback(&at, 0)
        result = udp_open(&self.udp, &at, parse_disabled(disable))
        if result < 0:
            raise OSError(-result, "cannot open a UDP socket on 127.0.0.1")

    def __dealloc__(self):
        udp_close(&self.udp)
        aead_free(&self.aead)
        recv_batch_free(&self.incoming)
        send_batch_free(&self.outgoing)

    @property
    def port(self):
        """The port of 127.0.0.1 that this end is bound to."""
        cdef Endpoint at
        cdef int result = udp_local(&self.udp, &at)
        if result < 0:
            raise OSError(-result, "the socket has no address")
        return at.port

    @property
    def packet_size(self):
        """Bytes of each packet: header, text and tag."""
        return self.packet_bytes

    @property
    def has_offload(self):
        """Whether the system cuts and glues super-datagrams for this socket."""
        return bool(self.udp.can & UDP_CAN_GSO and self.udp.can & UDP_CAN_GRO)

    cdef uint64_t window(self, uint64_t bytes) noexcept:
        """Return how many packets may be under way: so many bytes, but no more than the receiver's buffer holds."""
        cdef uint64_t held = self.udp.receive_buffer_bytes // (self.packet_bytes if self.has_offload else KERNEL_PACKET_BYTES)
        return max(min(bytes // self.packet_bytes, held), <uint64_t>MAX_SEGMENTS)

    def send(self, int port, double seconds, *, window_bytes=WINDOW_BYTES):
        """Send to the other end as fast as its acknowledgements allow. Return packets, stalls, and seconds until the last was
        acknowledged: the receiver's own clock would leave out what waited in its buffer before it first ran."""
        cdef Endpoint to
        cdef uint64_t start_ns = udp_clock_ns()
        cdef int result
        cdef uint64_t window = self.window(window_bytes)
        cdef uint64_t duration_ns = <uint64_t>(seconds * 1e9)
        write_loopback(&to, port)
        with nogil:
            result = self.run_sender(&to, duration_ns, window)
        self.complain(result)
        return {"packets": self.counter, "stalls": self.tally.stalls, "seconds": (udp_clock_ns() - start_ns) / 1e9}

    def receive(self, *, window_bytes=WINDOW_BYTES):
        """Take what the other end sends until it says that it is done. Return packets, text bytes and bad packets."""
        cdef int result
        cdef uint64_t ack_every = self.window(window_bytes) // 4
        with nogil:
            result = self.run_receiver(ack_every)
        self.complain(result)
        return {"packets": self.tally.packets, "text_bytes": self.tally.text_bytes, "bad": self.tally.bad}

    def ping(self, int port, int count, *, bint is_spinning=False):
        """Send a packet, wait for its echo, and again. Return the round-trip times in nanoseconds."""
        cdef Endpoint to
        cdef int result
        times = array("Q", bytes(8 * count))
        cdef uint64_t[::1] view = times
        write_loopback(&to, port)
        with nogil:
            result = self.run_ping(&to, view, is_spinning)
        self.complain(result)
        return times

    def echo(self, *, bint is_spinning=False):
        """Send each packet that comes back, opened and sealed anew, until the other end says that it is done."""
        cdef int result
        with nogil:
            result = self.run_echo(is_spinning)
        self.complain(result)

    cdef complain(self, int result):
        if result == 0:
            raise TimeoutError(f"the other end did nothing for {self.patience_ms / 1000.0:g} s")
        if result < 0:
            raise OSError(-result, "the measurement failed in a system call")

    # --- both ends in C: 1 done, 0 the other end is gone, or a negative errno ---

    cdef inline void seal(self, uint8_t *packet, uint64_t counter) noexcept nogil:
        memcpy(packet, &counter, HEADER_BYTES)
        if self.suite != SUITE_NONE:
            aead_seal(&self.aead, packet + HEADER_BYTES, packet + HEADER_BYTES, self.text_bytes, packet, HEADER_BYTES, 0, counter)

    cdef inline uint64_t open(self, uint8_t *packet, uint32_t bytes) noexcept nogil:
        """Count the packet and return its counter; 0 for a bad one."""
        cdef uint64_t counter = 0
        cdef Py_ssize_t text = <Py_ssize_t>bytes - HEADER_BYTES
        if text >= 0:
            memcpy(&counter, packet, HEADER_BYTES)
            if self.suite != SUITE_NONE:
                text = aead_open(&self.aead, packet + HEADER_BYTES, text, packet, HEADER_BYTES, 0, counter)
        if text < 0:
            self.tally.bad += 1
            return 0
        self.tally.packets += 1
        self.tally.text_bytes += text
        return counter

    cdef void add_entry(self, const Endpoint *to, uint32_t packets, uint64_t flag) noexcept nogil:
        cdef uint32_t i
        cdef Datagrams *entry = &self.outgoing.entries[self.outgoing.count]
        memset(entry, 0, sizeof(Datagrams))
        entry.data = self.outgoing.buffer + self.outgoing.used
        entry.bytes = packets * self.packet_bytes
        entry.segment = self.packet_bytes
        entry.remote = to[0]
        for i in range(packets):
            self.seal(entry.data + i * self.packet_bytes, self.counter | flag)
            self.counter += 1
        self.outgoing.used += entry.bytes
        self.outgoing.count += 1

    cdef int flush(self) noexcept nogil:
        """Send the whole batch, and wait where the socket is full."""
        cdef int result = udp_send(&self.udp, &self.outgoing)
        while result == UDP_WOULD_BLOCK:
            result = udp_wait(&self.udp, True, self.patience_ms)
            if result <= 0:
                return result
            result = udp_send(&self.udp, &self.outgoing)
        send_batch_clear(&self.outgoing)
        return 1 if result == 0 else result

    cdef int run_sender(self, const Endpoint *to, uint64_t duration_ns, uint64_t window) noexcept nogil:
        # not more at once than half the window: an acknowledgement may lag by a quarter
        cdef uint32_t each = <uint32_t>min(<uint64_t>MAX_SEGMENTS, <uint64_t>MAX_UDP_PAYLOAD // self.packet_bytes, window // 2)
        cdef uint64_t acknowledged = 0, end_ns = udp_clock_ns() + duration_ns
        cdef int result, _
        while udp_clock_ns() < end_ns:
            while (self.outgoing.count < SEND_ENTRIES and self.counter + each <= acknowledged + window
                    and self.outgoing.used + each * self.packet_bytes <= SEND_BATCH_BYTES):
                self.add_entry(to, each, 0)
            if self.outgoing.count:
                result = self.flush()
                if result <= 0:
                    return result
            if self.counter + each > acknowledged + window:
                result = udp_wait(&self.udp, False, ACK_PATIENCE_MS)
                if result < 0:
                    return result
                if result == 0:
                    self.tally.stalls += 1
                    acknowledged = self.counter
            if self.counter > acknowledged + window // 2:
                result = self.read_acks(&acknowledged)
                if result < 0:
                    return result
        for _ in range(self.patience_ms // ACK_PATIENCE_MS + 1):
            self.add_entry(to, 1, LAST)
            result = self.flush()
            if result <= 0:
                return result
            while not acknowledged & LAST:
                result = udp_wait(&self.udp, False, ACK_PATIENCE_MS)
                if result > 0:
                    result = self.read_acks(&acknowledged)
                if result < 0:
                    return result
                if result == 0:
                    break
            if acknowledged & LAST:
                return 1
        return 0

    cdef int read_acks(self, uint64_t *acknowledged) noexcept nogil:
        """Return how many messages were read, or a negative errno."""
        cdef uint64_t next_counter
        cdef int result = udp_recv(&self.udp, &self.incoming), i
        for i in range(result):
            if self.incoming.slots[i].bytes >= HEADER_BYTES:    # the last of those that GRO glued together is the newest
                memcpy(&next_counter, self.incoming.slots[i].data + self.incoming.slots[i].bytes - HEADER_BYTES, HEADER_BYTES)
                acknowledged[0] = max(acknowledged[0], next_counter)
        return result

    cdef int acknowledge(self, const Endpoint *to, uint64_t next_counter) noexcept nogil:
        cdef Datagrams *entry = &self.outgoing.entries[0]
        memset(entry, 0, sizeof(Datagrams))
        memcpy(self.outgoing.buffer, &next_counter, HEADER_BYTES)
        entry.data = self.outgoing.buffer
        entry.bytes = entry.segment = HEADER_BYTES
        entry.remote = to[0]
        self.outgoing.count = 1
        return self.flush()

    cdef int run_receiver(self, uint64_t ack_every) noexcept nogil:
        cdef uint64_t next_counter = 0, acknowledged = 0
        cdef Endpoint sender
        cdef int result, i
        while True:
            result = udp_recv(&self.udp, &self.incoming)
            if result < 0:
                return result
            for i in range(result):
                next_counter = max(next_counter, self.open_all(&self.incoming.slots[i]) + 1)
                sender = self.incoming.slots[i].remote
            if next_counter >= acknowledged + ack_every:
                acknowledged = next_counter
                result = self.acknowledge(&sender, next_counter)
                if result <= 0 or next_counter & LAST:
                    return result
            elif result < RECV_SLOTS:
                result = udp_wait(&self.udp, False, self.patience_ms)
                if result <= 0:
                    return result

    cdef uint64_t open_all(self, const Datagrams *message) noexcept nogil:
        """Open each packet of a message; return the counter of the last that opened."""
        cdef uint32_t offset = 0, bytes
        cdef uint64_t counter = 0
        while offset < message.bytes:
            bytes = min(message.segment, message.bytes - offset)
            counter = max(counter, self.open(message.data + offset, bytes))
            offset += bytes
        return counter

    cdef int take_one(self, bint is_spinning) noexcept nogil:
        """Wait for a message by sleeping in the kernel or by asking it over and over. Return 1, 0 or a negative errno."""
        cdef uint64_t end_ns = 0, turns = 0
        cdef int result = 0
        while result == 0:
            if not is_spinning:
                result = udp_wait(&self.udp, False, self.patience_ms)
                if result <= 0:
                    return result
            result = udp_recv(&self.udp, &self.incoming)
            turns += 1
            if is_spinning and turns & 255 == 0:
                yield_thread()          # the other end may have no processor of its own
            if is_spinning and turns & 4095 == 0:
                if end_ns == 0:
                    end_ns = udp_clock_ns() + <uint64_t>self.patience_ms * 1000000
                elif udp_clock_ns() > end_ns:
                    return 0
        return result

    cdef int run_ping(self, const Endpoint *to, uint64_t[::1] times, bint is_spinning) noexcept nogil:
        cdef Py_ssize_t i, count = times.shape[0]
        cdef uint64_t before
        cdef int result
        for i in range(count + 1):
            before = udp_clock_ns()
            self.add_entry(to, 1, LAST if i == count else 0)
            result = self.flush()
            if result > 0:
                result = self.take_one(is_spinning)
            if result <= 0:
                return result
            self.open_all(&self.incoming.slots[0])
            if i < count:
                times[i] = udp_clock_ns() - before
        return 1

    cdef int run_echo(self, bint is_spinning) noexcept nogil:
        cdef uint64_t counter
        cdef int result
        while True:
            result = self.take_one(is_spinning)
            if result <= 0:
                return result
            counter = self.open_all(&self.incoming.slots[0])
            self.add_entry(&self.incoming.slots[0].remote, 1, counter & LAST)
            result = self.flush()
            if result <= 0 or counter & LAST:
                return result


cdef extern from "platform.h" nogil:
    void yield_thread()


cdef void write_loopback(Endpoint *at, int port) noexcept nogil:
    memset(at, 0, sizeof(Endpoint))
    at.address[10] = at.address[11] = 0xFF
    at.address[12] = 127
    at.address[15] = 1
    at.port = <uint16_t>port
