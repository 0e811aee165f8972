from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    TRACE_RECORDS = 65536           # kept until Python takes them, 7.5 MiB; what comes then is counted and left out
    TRACE_RIPE = 4096               # from so many on Python is asked to take them
    TRACE_FRAMES = 256              # of one packet; more small ones than that are cut off, and the packet says so
    TRACE_KEYS = 1024               # two for each new connection, and as many turns of handshakes as Python is late
    TRACE_VALUES = 12

cdef enum:                          # TraceRecord.kind, and what its values are
    TRACE_STARTED = 1               # local id, remote id, suite, is initiator, remote address (2), port, local address (2)
    TRACE_SENT = 2                  # number, bytes of the packet, epoch, frames that follow, is cut off, mark: is an MTU probe
    TRACE_RECEIVED = 3              # the same, and the ECN field as mark
    TRACE_FRAME = 4                 # type, id, value, offset, bytes, path, delay_us, ranges, fin, within, count (add_frame)
    TRACE_RANGES = 5                # up to six pairs of the ACK frame before: lowest, highest; (1, 0) where there is none
    TRACE_ECN = 6                   # counts of the ACK frame before
    TRACE_LOST = 7                  # number, bytes, is by time and not by order, is an MTU probe
    TRACE_DROPPED = 8               # why (UNPROTECT_*, its sign turned), bytes
    TRACE_METRICS = 9               # window, in flight, four RTTs, pacing, PTOs, packet bytes, ECN state | phase << 8
    TRACE_KEY = 10                  # is ours, epoch
    TRACE_STATE = 11                # before, after, input, closed by, code, is the application's
    TRACE_PATH = 12                 # PATH_EVENT_*, PATH_REASON_*, remote address (2), port

cdef enum:                          # phases of congestion control, as far as every controller has them
    PHASE_SLOW_START = 0
    PHASE_AVOIDANCE = 1
    PHASE_RECOVERY = 2

cdef struct TraceRecord:            # one fact; Python reads it as "=QIIQ12Q"
    uint64_t time_ns
    uint32_t connection             # Conn.trace_id
    uint32_t path
    uint64_t kind
    uint64_t values[12]

cdef struct TraceKey:               # a secret, for the key log alone; Python reads it as "=QQQQ32s16s"
    uint64_t cid                    # on the packets that it protects
    uint64_t other_cid              # on those of the other direction
    uint64_t suite
    uint64_t epoch                  # the first that it protects; the secrets of the next are derived from it
    uint8_t secret[32]
    uint8_t mask_key[16]

cdef struct Trace:                  # of one engine, made when it is switched on
    uint64_t now_ns                 # of the engine's last call
    uint32_t connections            # that have a trace_id
    uint32_t count
    uint64_t overflowed             # packets and events that found no room
    TraceRecord *records            # owned; NULL: keys alone are wanted
    TraceKey *keys                  # owned; NULL: not wanted
    uint32_t key_count
    uint64_t keys_overflowed

cdef Trace *trace_new(bint with_records, bint with_keys) noexcept nogil
cdef void trace_free(Trace *t) noexcept nogil
cdef bint trace_is_ripe(const Trace *t) noexcept nogil
cdef TraceRecord *trace_add(Trace *t, uint32_t connection, uint32_t path, uint64_t kind) noexcept nogil
cdef void trace_event(Trace *t, uint32_t connection, uint32_t path, uint64_t kind, uint64_t a, uint64_t b, uint64_t c,
                      uint64_t d, uint64_t e, uint64_t f) noexcept nogil
cdef void trace_packet(Trace *t, uint32_t connection, uint32_t path, uint64_t kind, uint64_t number, uint64_t bytes,
                       uint64_t epoch, uint8_t mark, const uint8_t *payload, size_t n, size_t tail_bytes) noexcept nogil
cdef void trace_key(Trace *t, uint64_t cid, uint64_t other_cid, uint64_t suite, uint64_t epoch, const uint8_t *secret,
                    const uint8_t *mask_key) noexcept nogil
