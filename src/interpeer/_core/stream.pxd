from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.buffer cimport BlockPools, RecvBuffer, SendBuffer
from interpeer._core.links cimport Link
from interpeer._core.rangeset cimport RangeSet

cdef enum:
    MAX_GAPS = 1000                 # in one stream, held by the receiver
    OWN_RANGES = 1 << 24            # of our own data, so only our own windows bound them
    READER_PAUSE_NS = 20000000      # a reader that pauses so long, as in a busy program, shall not stop the sender
    SIZE_UNKNOWN = -1
    UNDONE_BYTES = 32               # memory for a message that was given up and is not settled
    STREAM_OK = 0                   # other results are CODE_*: the peer broke a rule

cdef enum:                          # states of the sending side (docs/spec, chapter 7)
    SEND_OPEN = 0                   # the application may write
    SEND_FINISHING = 1              # finished; not everything is acknowledged
    SEND_DONE = 2                   # everything is acknowledged
    SEND_RESETTING = 3              # given up; the peer has not acknowledged that
    SEND_RESET = 4
    SEND_STATES = 5

cdef enum:                          # inputs of the sending side
    SEND_IN_FINISH = 0
    SEND_IN_ALL_ACKED = 1
    SEND_IN_RESET = 2               # by the application, or because the peer said STOP_SENDING
    SEND_IN_RESET_ACKED = 3

cdef enum:                          # states of the receiving side
    RECV_OPEN = 0
    RECV_SIZE_KNOWN = 1             # the end is known; data are missing
    RECV_COMPLETE = 2               # everything is here; not everything is read
    RECV_READ = 3
    RECV_RESET = 4                  # the peer gave up; the application does not know
    RECV_RESET_TOLD = 5
    RECV_STATES = 6

cdef enum:                          # inputs of the receiving side
    RECV_IN_SIZE = 0
    RECV_IN_COMPLETE = 1
    RECV_IN_READ_ALL = 2
    RECV_IN_RESET = 3
    RECV_IN_TOLD = 4                # the application was told, or does not care any more (stop)

cdef enum:                          # Stream.pending: control frames to be sent
    PENDING_ANNOUNCE = 0x01         # an empty STREAM frame, so that the peer knows the stream at once
    PENDING_MAX_DATA = 0x02
    PENDING_RESET = 0x04
    PENDING_STOP = 0x08
    PENDING_DROPPED = 0x10          # of a channel: messages that were given up

cdef enum:                          # Stream.events, and what the application waits for (Stream.wanted)
    STREAM_EVENT_READABLE = 0x01    # something to read, `read_mark` bytes in a posted buffer, the end, or a reset
    STREAM_EVENT_WRITABLE = 0x02    # room to write, or the stream cannot be written any more
    STREAM_EVENT_ACKED = 0x04       # everything up to `acked_mark` is acknowledged, or never will be

cdef struct Stream:
    uint64_t id                     # on the wire; a channel's has CHANNEL_KEY besides
    void *channel                   # the Channel whose messages it carries, or NULL: a plain stream
    uint8_t priority                # class: 0 is the most urgent
    void *conn                      # the Conn it belongs to
    Link sendable                   # in the connection's list of streams with something to send
    Link eventful                   # in the connection's list of streams with events
    uint8_t send_state
    uint8_t recv_state
    uint8_t pending
    uint8_t events
    uint8_t wanted
    bint is_queued_for_data         # in the list of its class, not in that for control frames
    bint is_released                # the application has let go of it
    Stream *next_released           # in the engine's stack of streams that were let go of
    bint is_stopped                 # the application reads no more: data are dropped as they come
    bint was_told_to_stop           # STOP_SENDING was sent, or is about to be
    bint was_stopped                # the peer reads no more; its code is in peer_stop_code

    SendBuffer out
    uint64_t sent                   # everything below has been sent at least once
    uint64_t send_limit             # the peer's MAX_STREAM_DATA
    RangeSet acked                  # acknowledged beyond out.start
    RangeSet lost                   # to be sent again
    bint fin_sent
    bint fin_acked
    bint is_announced               # the peer has acknowledged some frame of it
    uint64_t reset_code             # of our RESET_STREAM
    uint64_t acked_mark
    uint32_t undone                 # messages given up, and not settled with the peer

    RecvBuffer in_
    uint64_t highest                # one past the highest byte received
    uint64_t final_size             # SIZE_UNKNOWN until FIN or RESET_STREAM
    uint64_t recv_limit             # what we allowed with MAX_STREAM_DATA
    uint64_t window                 # how much we allow beyond what is read; grows with the reader's speed
    uint64_t window_ns              # when the limit was last raised
    uint64_t read_mark
    uint64_t held                   # what the connection's window is larger by, since this is not read, or cannot be yet
    uint64_t peer_code              # of the peer's RESET_STREAM
    uint64_t stop_code              # of our STOP_SENDING
    uint64_t peer_stop_code         # of the peer's

cdef int send_input(Stream *s, int event) noexcept nogil
cdef int recv_input(Stream *s, int event) noexcept nogil
cdef void stream_init(Stream *s, uint64_t id, BlockPools *pools, uint64_t send_limit, uint64_t window) noexcept nogil
cdef void stream_clear(Stream *s) noexcept nogil

cdef bint stream_has_data(const Stream *s) noexcept nogil
cdef uint64_t stream_next(const Stream *s, uint64_t credit, uint64_t *offset) noexcept nogil
cdef void stream_copy(Stream *s, uint64_t offset, uint8_t *out, uint64_t n) noexcept nogil
cdef bint stream_mark_sent(Stream *s, uint64_t offset, uint64_t n) noexcept nogil
cdef void stream_handle_acked(Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil
cdef void stream_handle_lost(Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil
cdef void stream_finish(Stream *s) noexcept nogil
cdef void stream_reset(Stream *s, uint64_t code) noexcept nogil

cdef int stream_handle_data(Stream *s, uint64_t offset, const uint8_t *data, uint64_t n, bint fin, uint64_t credit,
                            uint64_t *grown) noexcept nogil
cdef int stream_handle_reset(Stream *s, uint64_t code, uint64_t final_size, uint64_t credit,
                             uint64_t *grown, uint64_t *dropped) noexcept nogil
cdef void stream_settle(Stream *s) noexcept nogil
cdef void stream_mark_acked(Stream *s, uint64_t offset, uint64_t end) noexcept nogil
cdef uint64_t stream_read(Stream *s, uint8_t *out, uint64_t n) noexcept nogil
cdef uint64_t stream_stop(Stream *s, uint64_t code, bint at_once) noexcept nogil
cdef bint stream_raise_limit(Stream *s, uint64_t now_ns, uint64_t rtt_ns, uint64_t max_window) noexcept nogil

cdef inline uint64_t stream_readable(const Stream *s) noexcept nogil:
    return s.in_.ready - s.in_.read

cdef inline uint64_t stream_waiting(const Stream *s) noexcept nogil:
    """Return what our side keeps: bytes that are not acknowledged, and messages given up that are not settled."""
    return s.out.end - s.out.start + s.undone * <uint64_t>UNDONE_BYTES

cdef inline bint stream_is_over(const Stream *s) noexcept nogil:
    return ((s.send_state == SEND_DONE or s.send_state == SEND_RESET)
            and (s.recv_state == RECV_READ or s.recv_state == RECV_RESET_TOLD))
