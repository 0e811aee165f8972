"""One stream: two state machines, one for each direction, over the buffers that hold its bytes.

A stream knows nothing of packets: the connection asks it for the next piece to send, tells it what became of each
piece, and hands it what arrived. Lost pieces go before new ones. Windows are raised by what the application has
read, never by the highest offset seen (aioquic#589), and double while the reader keeps up with the sender.

The tables are docs/spec, chapter 7: [state][input] -> next state; NOT_ALLOWED where the input cannot happen.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.buffer cimport (
    BUFFER_GAPS, BUFFER_OK, BlockPools, recv_buffer_clear, recv_buffer_init, recv_buffer_read, recv_buffer_write,
    send_buffer_at, send_buffer_clear, send_buffer_init, send_buffer_release)
from interpeer._core.links cimport link_init
from interpeer._core.rangeset cimport (
    ranges_add, ranges_drop_lowest, ranges_free, ranges_init, ranges_remove, ranges_search)
from interpeer._core.wire cimport CODE_FINAL_SIZE, CODE_FLOW_CONTROL, CODE_GAPS, CODE_INTERNAL, DEFAULT_PRIORITY

cdef enum:
    NOT_ALLOWED = 0xFF

cdef uint8_t[5][4] SEND_TABLE = [
    # FINISH          ALL_ACKED    RESET            RESET_ACKED
    [SEND_FINISHING,  NOT_ALLOWED, SEND_RESETTING,  NOT_ALLOWED],      # OPEN
    [SEND_FINISHING,  SEND_DONE,   SEND_RESETTING,  NOT_ALLOWED],      # FINISHING
    [SEND_DONE,       SEND_DONE,   SEND_DONE,       NOT_ALLOWED],      # DONE
    [SEND_RESETTING,  NOT_ALLOWED, SEND_RESETTING,  SEND_RESET],       # RESETTING
    [SEND_RESET,      NOT_ALLOWED, SEND_RESET,      SEND_RESET],       # RESET
]

cdef uint8_t[6][5] RECV_TABLE = [
    # SIZE            COMPLETE       READ_ALL     RESET            TOLD
    [RECV_SIZE_KNOWN, NOT_ALLOWED,   NOT_ALLOWED, RECV_RESET,      NOT_ALLOWED],        # OPEN
    [RECV_SIZE_KNOWN, RECV_COMPLETE, NOT_ALLOWED, RECV_RESET,      NOT_ALLOWED],        # SIZE_KNOWN
    [RECV_COMPLETE,   RECV_COMPLETE, RECV_READ,   RECV_COMPLETE,   NOT_ALLOWED],        # COMPLETE
    [RECV_READ,       RECV_READ,     RECV_READ,   RECV_READ,       RECV_READ],          # READ
    [RECV_RESET,      NOT_ALLOWED,   NOT_ALLOWED, RECV_RESET,      RECV_RESET_TOLD],    # RESET
    [RECV_RESET_TOLD, NOT_ALLOWED,   NOT_ALLOWED, RECV_RESET_TOLD, RECV_RESET_TOLD],    # RESET_TOLD
]


cdef int send_input(Stream *s, int event) noexcept nogil:
    """Move the sending side. Return 0, or -1 and no change where the table has NOT_ALLOWED."""
    cdef uint8_t to = SEND_TABLE[s.send_state][event]
    if to == NOT_ALLOWED:
        return -1
    s.send_state = to
    return 0


cdef int recv_input(Stream *s, int event) noexcept nogil:
    """Move the receiving side. Return 0, or -1 and no change where the table has NOT_ALLOWED."""
    cdef uint8_t to = RECV_TABLE[s.recv_state][event]
    if to == NOT_ALLOWED:
        return -1
    s.recv_state = to
    return 0


cdef void stream_init(Stream *s, uint64_t id, BlockPools *pools, uint64_t send_limit, uint64_t window) noexcept nogil:
    memset(s, 0, sizeof(Stream))
    s.id = id
    link_init(&s.sendable, s)
    link_init(&s.eventful, s)
    send_buffer_init(&s.out, pools)
    recv_buffer_init(&s.in_, pools, MAX_GAPS)
    ranges_init(&s.acked, OWN_RANGES)
    ranges_init(&s.lost, OWN_RANGES)
    s.send_limit = send_limit
    s.final_size = <uint64_t>SIZE_UNKNOWN
    s.window = window
    s.recv_limit = window
    s.read_mark = 1
    s.priority = DEFAULT_PRIORITY


cdef void stream_clear(Stream *s) noexcept nogil:
    """Release everything it holds."""
    send_buffer_clear(&s.out)
    recv_buffer_clear(&s.in_)
    ranges_free(&s.acked)
    ranges_free(&s.lost)


# --- sending ---

cdef bint stream_has_data(const Stream *s) noexcept nogil:
    """Tell whether there is a piece to send, the connection's credit permitting."""
    if s.send_state != SEND_OPEN and s.send_state != SEND_FINISHING:
        return False
    if s.lost.count or (s.sent < s.out.end and s.sent < s.send_limit):
        return True
    return s.send_state == SEND_FINISHING and not s.fin_sent and s.sent == s.out.end


cdef uint64_t stream_next(const Stream *s, uint64_t credit, uint64_t *offset) noexcept nogil:
    """Return how many bytes may be sent at `offset`: first what was lost, then what is new and allowed.

    `credit` is how many new bytes the connection may send. 0 with `offset` at the end means that only FIN is left."""
    cdef uint64_t end
    if s.lost.count:
        offset[0] = s.lost.ranges[0].start
        return s.lost.ranges[0].end - offset[0]
    offset[0] = s.sent
    end = s.out.end if s.out.end < s.send_limit else s.send_limit
    if s.sent >= end:
        return 0
    return end - s.sent if end - s.sent < credit else credit


cdef void stream_copy(Stream *s, uint64_t offset, uint8_t *out, uint64_t n) noexcept nogil:
    """Copy bytes that stream_next has offered."""
    cdef const uint8_t *data
    cdef uint64_t piece
    while n:
        piece = send_buffer_at(&s.out, offset, &data)
        if piece > n:
            piece = n
        memcpy(out, data, piece)
        out += piece
        offset += piece
        n -= piece


cdef bint stream_mark_sent(Stream *s, uint64_t offset, uint64_t n) noexcept nogil:
    """Note that a piece goes out. Return whether it carries FIN."""
    if offset == s.sent:
        s.sent += n
    else:
        ranges_remove(&s.lost, offset, offset + n)
    if s.send_state == SEND_FINISHING and offset + n == s.out.end:
        s.fin_sent = True
        return True
    return False


cdef void stream_handle_acked(Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil:
    cdef uint64_t end = offset + n
    s.is_announced = True
    if s.send_state != SEND_OPEN and s.send_state != SEND_FINISHING:
        return
    stream_mark_acked(s, offset, end)
    if fin:
        s.fin_acked = True
    stream_settle(s)


cdef void stream_mark_acked(Stream *s, uint64_t offset, uint64_t end) noexcept nogil:
    """Keep nothing of a piece any more: it has arrived, or was given up."""
    if s.lost.count:
        ranges_remove(&s.lost, offset, end)
    if offset <= s.out.start:
        while s.acked.count and s.acked.ranges[0].start <= end:
            if s.acked.ranges[0].end > end:
                end = s.acked.ranges[0].end
            ranges_drop_lowest(&s.acked)
        send_buffer_release(&s.out, end)
    else:
        ranges_add(&s.acked, offset, end)


cdef void stream_settle(Stream *s) noexcept nogil:
    """End the side when its end and everything before it are acknowledged."""
    if s.fin_acked and s.out.start == s.out.end and s.undone == 0:
        send_input(s, SEND_IN_ALL_ACKED)


cdef void stream_handle_lost(Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil:
    """Queue a piece again, but for what has been acknowledged since."""
    cdef uint64_t end = offset + n
    cdef uint32_t i
    if s.send_state != SEND_OPEN and s.send_state != SEND_FINISHING:
        return
    if fin and not s.fin_acked:
        s.fin_sent = False
    if n == 0:
        if not s.is_announced:
            s.pending |= PENDING_ANNOUNCE
        return
    if offset < s.out.start:
        offset = s.out.start
    ranges_add(&s.lost, offset, end)
    i = ranges_search(&s.acked, offset)
    while i < s.acked.count and s.acked.ranges[i].start < end:
        ranges_remove(&s.lost, s.acked.ranges[i].start, s.acked.ranges[i].end)
        i += 1


cdef void stream_finish(Stream *s) noexcept nogil:
    """End our side behind what has been written."""
    send_input(s, SEND_IN_FINISH)


cdef void stream_reset(Stream *s, uint64_t code) noexcept nogil:
    """Give up our side; what is not acknowledged is forgotten."""
    cdef uint8_t before = s.send_state
    send_input(s, SEND_IN_RESET)
    if s.send_state == SEND_RESETTING and before != SEND_RESETTING:
        s.reset_code = code
        s.pending |= PENDING_RESET
        s.pending &= ~<uint8_t>PENDING_ANNOUNCE
        send_buffer_clear(&s.out)
        ranges_free(&s.lost)
        ranges_free(&s.acked)


# --- receiving ---

cdef int stream_handle_data(Stream *s, uint64_t offset, const uint8_t *data, uint64_t n, bint fin, uint64_t credit,
                            uint64_t *grown) noexcept nogil:
    """Take a piece. Return STREAM_OK or the code of the rule that the peer has broken.

    `grown` is how much of the connection's `credit` the piece uses: by how much the highest byte moves."""
    cdef uint64_t end = offset + n
    cdef int result
    grown[0] = 0
    if s.final_size != <uint64_t>SIZE_UNKNOWN:
        if end > s.final_size or (fin and end != s.final_size):
            return CODE_FINAL_SIZE
    elif fin and end < s.highest:
        return CODE_FINAL_SIZE
    if end > s.recv_limit:
        return CODE_FLOW_CONTROL
    if end > s.highest:
        if end - s.highest > credit:
            return CODE_FLOW_CONTROL
        grown[0] = end - s.highest
        s.highest = end
    if fin:
        s.final_size = end
        recv_input(s, RECV_IN_SIZE)
    if s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN:
        return STREAM_OK
    if s.is_stopped:
        if grown[0] and s.recv_state == RECV_OPEN:
            ask_to_stop(s)
        discard(s)
        return STREAM_OK
    result = recv_buffer_write(&s.in_, offset, data, n)
    if result != BUFFER_OK:
        return CODE_GAPS if result == BUFFER_GAPS else CODE_INTERNAL
    if s.in_.ready == s.final_size:
        recv_input(s, RECV_IN_COMPLETE)
        if s.in_.read == s.final_size and s.in_.posted != NULL:
            recv_input(s, RECV_IN_READ_ALL)
    return STREAM_OK


cdef int stream_handle_reset(Stream *s, uint64_t code, uint64_t final_size, uint64_t credit,
                             uint64_t *grown, uint64_t *dropped) noexcept nogil:
    """Take the peer's RESET_STREAM. `dropped` is what will never be read: it counts as consumed."""
    grown[0] = 0
    dropped[0] = 0
    if s.final_size != <uint64_t>SIZE_UNKNOWN:
        if final_size != s.final_size:
            return CODE_FINAL_SIZE
    elif final_size < s.highest:
        return CODE_FINAL_SIZE
    if final_size > s.recv_limit or final_size - s.highest > credit:
        return CODE_FLOW_CONTROL
    if s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN:
        return STREAM_OK
    grown[0] = final_size - s.highest
    dropped[0] = final_size - s.in_.read
    s.highest = final_size
    s.final_size = final_size
    s.peer_code = code
    recv_input(s, RECV_IN_RESET)
    if s.is_stopped:
        recv_input(s, RECV_IN_TOLD)
    recv_buffer_clear(&s.in_)
    s.in_.read = final_size
    s.in_.ready = final_size
    return STREAM_OK


cdef uint64_t stream_read(Stream *s, uint8_t *out, uint64_t n) noexcept nogil:
    """Copy up to `n` bytes to the application. Return how many; the last byte ends the machine."""
    n = recv_buffer_read(&s.in_, out, n)
    if s.recv_state == RECV_COMPLETE and s.in_.read == s.final_size:
        recv_input(s, RECV_IN_READ_ALL)
    return n


cdef uint64_t stream_stop(Stream *s, uint64_t code, bint at_once) noexcept nogil:
    """Read no more. Return the bytes dropped.

    Ask the peer to stop, if it has not ended its side: at once, or only when it turns out that it has more to say."""
    cdef uint64_t dropped = s.highest - s.in_.read
    if s.is_stopped:
        return 0
    s.is_stopped = True
    if s.recv_state == RECV_RESET:
        recv_input(s, RECV_IN_TOLD)
        return 0
    if s.recv_state == RECV_OPEN:
        s.stop_code = code
        if at_once or dropped or s.highest == s.recv_limit:
            ask_to_stop(s)
    s.pending &= ~<uint8_t>PENDING_MAX_DATA
    discard(s)
    return dropped


cdef void ask_to_stop(Stream *s) noexcept nogil:
    if not s.was_told_to_stop:
        s.was_told_to_stop = True
        s.pending |= PENDING_STOP


cdef void discard(Stream *s) noexcept nogil:
    """Drop what a stopped stream holds, and end it once its size is known."""
    recv_buffer_clear(&s.in_)
    s.in_.read = s.highest
    s.in_.ready = s.highest
    if s.recv_state == RECV_SIZE_KNOWN:
        recv_input(s, RECV_IN_COMPLETE)
    if s.recv_state == RECV_COMPLETE:
        recv_input(s, RECV_IN_READ_ALL)


cdef bint stream_raise_limit(Stream *s, uint64_t now_ns, uint64_t rtt_ns, uint64_t max_window) noexcept nogil:
    """Allow more once half of the window is read; double the window if that took less than two round trips, or two of
    the reader's pauses. Return whether MAX_STREAM_DATA is to be sent."""
    if rtt_ns < READER_PAUSE_NS:
        rtt_ns = READER_PAUSE_NS
    if s.recv_state != RECV_OPEN or s.is_stopped or s.recv_limit - s.in_.read > s.window // 2:
        return False
    if s.window_ns and now_ns - s.window_ns < 2 * rtt_ns and s.window < max_window:
        s.window = s.window * 2 if s.window * 2 < max_window else max_window
    s.window_ns = now_ns
    s.recv_limit = s.in_.read + s.window
    return True
