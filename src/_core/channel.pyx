"""The sending side of a channel: messages over the bytes of a stream (docs/spec, chapter 16).

A channel is a stream whose bytes are messages, each behind a header of eight bytes, and so has its states, buffers and
limits. Besides, it knows where each message begins that is not settled with the peer, since messages can be given up:
when one is lost that is not to be repeated, or is not acknowledged at its deadline. One that was not
begun then takes no room on the wire: offsets there are less than those in the send buffer by what was skipped. One that was
begun keeps its room, and what was not sent of it is passed over. The peer is told by DROPPED frames, which are repeated
until they are acknowledged, so that it waits for nothing.

What arrives is the business of `inbox`.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from interpeer._core.buffer cimport BUFFER_OK, Draft, send_buffer_append, send_buffer_attach
from interpeer._core.fec cimport fec_encoder_forget
from interpeer._core.links cimport link_init, unlink
from interpeer._core.rangeset cimport (
    RANGES_OK, RangeSet, ranges_add, ranges_free, ranges_init, ranges_remove, ranges_search)
from interpeer._core.repairs cimport (
    PLACE_BYTES, PROTECTED_BYTES, repairs_free, repairs_of, repairs_protect, repairs_stop)
from interpeer._core.stream cimport (
    OWN_RANGES, PENDING_ANNOUNCE, PENDING_DROPPED, SEND_FINISHING, SEND_OPEN, stream_copy, stream_handle_acked,
    stream_handle_lost, stream_mark_acked, stream_reset, stream_settle)
from interpeer._core.wire cimport CAN_ORDER, CAN_RESEND, MESSAGE_HEADER_SIZE, write_u64

cdef enum:
    FIRST_MESSAGES = 8
    BOTH = 0x03                     # CAN_RESEND | CAN_ORDER: frames may begin and end anywhere between two such messages


cdef void channel_init(Stream *s, Channel *ch) noexcept nogil:
    """Make a stream carry messages; `ch` is its from now on."""
    memset(ch, 0, sizeof(Channel))
    s.channel = ch
    link_init(&ch.dated, s)
    link_init(&ch.fresh_link, s)
    ranges_init(&ch.known, OWN_RANGES)
    ranges_init(&ch.gone, MAX_DROPPED_RANGES)


cdef void channel_clear(Stream *s) noexcept nogil:
    """Release everything that it holds beside its stream; the Channel itself is the caller's."""
    cdef Channel *ch = channel_of(s)
    forget_messages(s)
    free(ch.messages)
    free(ch.queue)
    repairs_free(&ch.repairs)
    ranges_free(&ch.gone)


cdef void forget_messages(Stream *s) noexcept nogil:
    """Settle everything that is on its way, since our side is over."""
    cdef Channel *ch = channel_of(s)
    unlink(&ch.dated)
    unlink(&ch.fresh_link)
    s.pending &= ~<uint8_t>PENDING_DROPPED
    if ch.repairs != NULL:
        repairs_stop(ch.repairs)
    ranges_free(&ch.known)
    s.undone = 0
    ch.count = 0
    ch.fresh = 0
    ch.untold = 0
    ch.due_ns = 0


cdef inline OutMessage *message_at(const Channel *ch, uint32_t i) noexcept nogil:
    return &ch.messages[(ch.first + i) & (ch.capacity - 1)]


cdef inline uint64_t end_of(const Stream *s, uint32_t i) noexcept nogil:
    cdef const Channel *ch = channel_of(s)
    return message_at(ch, i + 1).start if i + 1 < ch.count else s.out.end


cdef inline bint is_unknown(const Channel *ch, uint32_t i) noexcept nogil:
    """Tell whether a message was given up, and the peer may not know."""
    return message_at(ch, i).state == MESSAGE_DROPPED or message_at(ch, i).state == MESSAGE_TOLD


cdef uint32_t find_message(const Stream *s, uint64_t offset) noexcept nogil:
    """Return the index of the message that has the byte at `offset`, which must be in one."""
    cdef const Channel *ch = channel_of(s)
    cdef uint32_t low = 0, high = ch.count - 1, middle
    while low < high:
        middle = (low + high + 1) >> 1
        if message_at(ch, middle).start <= offset:
            low = middle
        else:
            high = middle - 1
    return low


# --- what the application sends ---

cdef int channel_append(Stream *s, const uint8_t *data, uint64_t n, Draft *draft) noexcept nogil:
    """Queue a message as a whole, which is in `draft` already if there is one. Return 0, or -1 without memory, and then the side
    is reset: it has a part of one."""
    cdef Channel *ch = channel_of(s)
    cdef uint8_t header[8]
    cdef OutMessage *m
    cdef uint64_t number = ch.first_number + ch.count
    if ch.count == ch.capacity and grow_messages(ch) != 0:
        return -1
    write_u32(header, <uint32_t>n | (0 if ch.capabilities.flags & CAN_ORDER else <uint32_t>1 << 31))
    write_u32(header + 4, <uint32_t>number)
    m = message_at(ch, ch.count)
    m.start = s.out.end
    m.shift = 0
    m.deadline_ns = ch.capabilities.deadline_us * 1000
    m.told = 0
    m.was_begun = False
    m.state = MESSAGE_LIVE
    m.flags = ch.capabilities.flags
    if send_buffer_append(&s.out, header, MESSAGE_HEADER_SIZE) != MESSAGE_HEADER_SIZE \
            or (draft != NULL and send_buffer_attach(&s.out, draft) != BUFFER_OK) \
            or (draft == NULL and send_buffer_append(&s.out, data, n) != n):
        channel_reset(s, 0)
        return -1
    ch.count += 1
    if m.deadline_ns or ch.fresh:
        ch.fresh += 1
    ch.counters.messages_sent += 1
    ch.counters.bytes_sent += n
    return 0


cdef inline void write_u32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 24)
    p[1] = <uint8_t>(value >> 16)
    p[2] = <uint8_t>(value >> 8)
    p[3] = <uint8_t>value


cdef int grow_messages(Channel *ch) noexcept nogil:
    cdef uint32_t capacity = ch.capacity * 2 if ch.capacity else FIRST_MESSAGES, i
    cdef OutMessage *grown = <OutMessage *>malloc(capacity * sizeof(OutMessage))
    if grown == NULL:
        return -1
    for i in range(ch.count):
        grown[i] = message_at(ch, i)[0]
    free(ch.messages)
    ch.messages = grown
    ch.capacity = capacity
    ch.first = 0
    return 0


cdef void channel_reset(Stream *s, uint64_t code) noexcept nogil:
    """Give our side up."""
    stream_reset(s, code)
    forget_messages(s)
    if not channel_of(s).is_announced:
        s.pending |= PENDING_ANNOUNCE


# --- what is sent next ---

cdef bint channel_has_data(const Stream *s) noexcept nogil:
    """Tell whether there is a piece to send, the connection's credit permitting."""
    if s.send_state != SEND_OPEN and s.send_state != SEND_FINISHING:
        return False
    if channel_of(s).repairs != NULL and channel_of(s).repairs.owed:
        return True
    if s.lost.count or (s.sent < s.out.end and channel_wire_sent(s) < s.send_limit):
        return True
    return s.send_state == SEND_FINISHING and not s.fin_sent and s.sent == s.out.end


cdef bint channel_piece(Stream *s, uint64_t room, uint64_t most, uint64_t credit, bint may_begin, Piece *out) noexcept nogil:
    """Find what goes into the next frame: several whole messages, or a part of one. Return whether there is a piece.

    There is `room` in this packet, and `most` in an empty one. `credit` is how much the connection lets go that is new;
    `may_begin` says that a message may be begun that is larger than that."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t limit, end
    cdef uint32_t i
    cdef OutMessage *m
    out.is_new = s.lost.count == 0
    out.offset = s.sent if out.is_new else s.lost.ranges[0].start
    out.within = 0
    out.bytes = 0
    out.wire = channel_wire_sent(s)
    if out.is_new and channel_must_pass(s):
        return False
    if out.offset == s.out.end:     # nothing but the end is left, if that
        return s.send_state == SEND_FINISHING and not s.fin_sent
    i = find_message(s, out.offset)
    m = message_at(ch, i)
    end = end_of(s, i)
    out.within = out.offset - m.start
    if out.is_new:
        limit = s.send_limit - out.wire if s.send_limit > out.wire else 0
        if out.within == 0 and not may_begin and end - m.start > credit:
            return False            # it would hold up, half sent, what others have begun
        if credit < limit:
            limit = credit
        if limit > s.out.end - s.sent:
            limit = s.out.end - s.sent
    else:
        out.wire = out.offset - m.shift
        limit = s.lost.ranges[0].end - out.offset
    if limit > room:
        limit = room
    if out.within:
        out.bytes = limit if limit < end - out.offset else end - out.offset
    else:
        out.bytes = whole_messages(s, i, limit, out.is_new)
        if out.bytes == 0:
            # a small one that may be lost goes in one piece; no frame ends inside of a header
            if (m.flags & BOTH != BOTH and end - m.start > room and end - m.start <= most) or limit < MESSAGE_HEADER_SIZE:
                return False
            out.bytes = limit
    return out.bytes > 0


cdef uint64_t whole_messages(const Stream *s, uint32_t i, uint64_t limit, bint is_new) noexcept nogil:
    """Return the size of the messages from the i-th on that go into one frame, 0 when not even the first fits."""
    cdef const Channel *ch = channel_of(s)
    cdef uint64_t start = message_at(ch, i).start, shift = message_at(ch, i).shift, bytes = 0
    while i < ch.count and message_at(ch, i).state == MESSAGE_LIVE and (is_new or message_at(ch, i).shift == shift) \
            and end_of(s, i) - start <= limit:
        bytes = end_of(s, i) - start
        i += 1
    return bytes


cdef bint channel_mark_sent(Stream *s, const Piece *p) noexcept nogil:
    """Note that a piece goes out. Return whether it carries FIN."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t end = p.offset + p.bytes
    cdef uint32_t i
    if p.is_new:
        if p.bytes:
            i = find_message(s, p.offset)
            while i < ch.count and message_at(ch, i).start < end:
                if message_at(ch, i).start >= p.offset:
                    message_at(ch, i).shift = ch.skipped
                    message_at(ch, i).was_begun = True
                if end_of(s, i) <= end:
                    protect(s, i)
                i += 1
        s.sent = end
        skip_dropped(s)
    else:
        ranges_remove(&s.lost, p.offset, end)
    if s.send_state == SEND_FINISHING and end == s.out.end:
        s.fin_sent = True
        return True
    return False


cdef void protect(Stream *s, uint32_t i) noexcept nogil:
    """Let repairs cover a message, of which the last has gone out: before, the peer may not allow for it."""
    cdef Channel *ch = channel_of(s)
    cdef uint8_t symbol[1116]       # PLACE_BYTES + PROTECTED_BYTES
    cdef uint64_t start = message_at(ch, i).start, n = end_of(s, i) - start
    if ch.capabilities.fec_data == 0 or ch.capabilities.fec_repair == 0 or start < s.out.start:
        # not wanted; or the peer has a part of it, which is not kept: begin anew behind it
        if ch.repairs != NULL:
            repairs_stop(ch.repairs)
    elif n <= PROTECTED_BYTES and repairs_of(&ch.repairs) != NULL:
        write_u64(symbol, start - message_at(ch, i).shift)
        stream_copy(s, start, symbol + PLACE_BYTES, n)
        repairs_protect(ch.repairs, ch.first_number + i, symbol, <uint32_t>n + PLACE_BYTES, &ch.capabilities)


cdef void skip_dropped(Stream *s) noexcept nogil:
    """Step over messages that were given up before they were begun: they take no room on the wire."""
    cdef Channel *ch = channel_of(s)
    cdef uint32_t i
    while s.sent < s.out.end and ch.count:
        i = find_message(s, s.sent)
        if message_at(ch, i).state == MESSAGE_LIVE or message_at(ch, i).was_begun:
            return
        ch.skipped += end_of(s, i) - s.sent
        s.sent = end_of(s, i)


cdef uint64_t channel_unsent(const Stream *s) noexcept nogil:
    """Return how much of a message that was begun has not been sent yet."""
    cdef uint32_t i
    if s.sent >= s.out.end or channel_of(s).count == 0 or s.send_state > SEND_FINISHING:
        return 0
    i = find_message(s, s.sent)
    return end_of(s, i) - s.sent if s.sent > message_at(channel_of(s), i).start else 0


# --- what becomes of it ---

cdef void channel_handle_acked(Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil:
    stream_handle_acked(s, offset, n, fin)
    pop_settled(s)


cdef void pop_settled(Stream *s) noexcept nogil:
    """Forget the oldest messages that the peer has, or knows to have been given up."""
    cdef Channel *ch = channel_of(s)
    while ch.count:
        if end_of(s, 0) > s.out.start or end_of(s, 0) > s.sent or is_unknown(ch, 0):
            break
        ch.first = (ch.first + 1) & (ch.capacity - 1)
        ch.count -= 1
        ch.first_number += 1
        if ch.untold_from:
            ch.untold_from -= 1
    if ch.fresh > ch.count:
        ch.fresh = ch.count
    if ch.count == 0:
        ch.due_ns = 0
        ch.latest_ns = 0
        ch.is_mixed = False
    if ch.repairs != NULL and ch.repairs.is_encoding:
        fec_encoder_forget(&ch.repairs.encoder, oldest_wanted(ch))
    stream_settle(s)


cdef uint64_t oldest_wanted(const Channel *ch) noexcept nogil:
    """Return the number of the oldest message that a repair may still be of use for."""
    cdef uint32_t i = 0
    while i < ch.count and message_at(ch, i).state != MESSAGE_LIVE:
        i += 1
    return ch.first_number + i


cdef uint32_t channel_handle_lost(Stream *s, uint64_t offset, uint64_t n, bint fin, bint is_lost) noexcept nogil:
    """Queue a piece again, or give up the messages in it that are not to be repeated; return how many these are.

    Without `is_lost` it may still arrive: then only what would be repeated anyway is queued."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t end = offset + n, from_
    cdef uint32_t i, dropped = 0
    if s.send_state != SEND_OPEN and s.send_state != SEND_FINISHING:
        return 0
    if fin:
        stream_handle_lost(s, end, 0, True)
    if offset < s.out.start:
        offset = s.out.start
    if offset >= end or ch.count == 0:
        return 0
    i = find_message(s, offset)
    while i < ch.count and message_at(ch, i).start < end:
        if message_at(ch, i).state == MESSAGE_LIVE:
            from_ = message_at(ch, i).start
            if message_at(ch, i).flags & CAN_RESEND:
                from_ = from_ if from_ > offset else offset
                stream_handle_lost(s, from_, (end if end < end_of(s, i) else end_of(s, i)) - from_, False)
            elif is_lost and not is_acked(s, i, offset, end):
                drop_message(s, i)
                dropped += 1
        i += 1
    pop_settled(s)
    return dropped


cdef bint is_acked(const Stream *s, uint32_t i, uint64_t offset, uint64_t end) noexcept nogil:
    """Tell whether the i-th message's share of a range has been acknowledged meanwhile."""
    if end_of(s, i) <= s.out.start:
        return True
    if message_at(channel_of(s), i).start > offset:
        offset = message_at(channel_of(s), i).start
    if end_of(s, i) < end:
        end = end_of(s, i)
    if offset < s.out.start:
        offset = s.out.start
    return end <= offset or reach(&s.acked, offset) >= end


cdef inline uint64_t reach(const RangeSet *set, uint64_t offset) noexcept nogil:
    """Return up to where the set has everything from `offset` on."""
    cdef uint32_t i = ranges_search(set, offset)
    return set.ranges[i].end if i < set.count and set.ranges[i].start <= offset else offset


cdef void drop_message(Stream *s, uint32_t i) noexcept nogil:
    """Give a message up: nothing of it is sent any more, and the peer is to be told."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t start = message_at(ch, i).start, end = end_of(s, i)
    set_untold(s, i)
    ch.counters.dropped += 1
    s.undone += 1
    ranges_remove(&s.lost, start, end)
    skip_dropped(s)
    stream_mark_acked(s, start, end)


# --- deadlines ---

cdef bint channel_count_deadlines(Stream *s, uint64_t now_ns) noexcept nogil:
    """Count the deadlines of messages that are new from this turn; return whether there are any."""
    cdef Channel *ch = channel_of(s)
    cdef OutMessage *m
    while ch.fresh:
        m = message_at(ch, ch.count - ch.fresh)
        ch.fresh -= 1
        if m.deadline_ns:
            m.deadline_ns += now_ns
            if m.deadline_ns < ch.latest_ns:
                ch.is_mixed = True
            else:
                ch.latest_ns = m.deadline_ns
            if ch.due_ns == 0 or m.deadline_ns < ch.due_ns:
                ch.due_ns = m.deadline_ns
    return ch.due_ns != 0


cdef uint32_t channel_expire(Stream *s, uint64_t now_ns) noexcept nogil:
    """Give up the messages that are late; return how many. `due_ns` is then that of the next one."""
    cdef Channel *ch = channel_of(s)
    cdef OutMessage *m
    cdef uint32_t i, late = 0
    if ch.due_ns == 0 or ch.due_ns > now_ns:
        return 0
    ch.due_ns = 0
    for i in range(ch.count - ch.fresh):
        m = message_at(ch, i)
        if m.state != MESSAGE_LIVE or m.deadline_ns == 0:
            continue
        if m.deadline_ns <= now_ns:
            if not is_acked(s, i, m.start, end_of(s, i)):
                drop_message(s, i)
                late += 1
        elif ch.due_ns == 0 or m.deadline_ns < ch.due_ns:
            ch.due_ns = m.deadline_ns
            if not ch.is_mixed:
                break
    ch.counters.late += late
    pop_settled(s)
    return late


# --- telling the peer ---

cdef bint channel_must_pass(const Stream *s) noexcept nogil:
    """Tell whether what is next is the rest of a message that was begun and given up."""
    cdef const Channel *ch = channel_of(s)
    return s.sent < s.out.end and ch.count and message_at(ch, find_message(s, s.sent)).state != MESSAGE_LIVE


cdef uint64_t channel_pass(Stream *s, uint64_t credit) noexcept nogil:
    """Pass over the rest of such a message, as far as `credit` and the channel's limit go. Return how many bytes.

    Its header has told how long it is, so the next one cannot begin sooner: the peer could take it for a part of this."""
    cdef uint32_t i = find_message(s, s.sent)
    cdef uint64_t rest = end_of(s, i) - s.sent, n = rest
    cdef uint64_t limit = s.send_limit - channel_wire_sent(s) if s.send_limit > channel_wire_sent(s) else 0
    if n > credit:
        n = credit
    if n > limit:
        n = limit
    if n < rest:                    # the peer puts a header before each piece
        if rest < 2 * MESSAGE_HEADER_SIZE or n < MESSAGE_HEADER_SIZE:
            return 0
        if n > rest - MESSAGE_HEADER_SIZE:
            n = rest - MESSAGE_HEADER_SIZE
    s.sent += n
    set_untold(s, i)
    skip_dropped(s)
    return n


cdef void set_untold(Stream *s, uint32_t i) noexcept nogil:
    cdef Channel *ch = channel_of(s)
    if message_at(ch, i).state != MESSAGE_DROPPED:
        message_at(ch, i).state = MESSAGE_DROPPED
        ch.untold += 1
    if ch.untold == 1 or i < ch.untold_from:
        ch.untold_from = i
    s.pending |= PENDING_DROPPED


cdef void set_told(Stream *s, uint32_t i, uint8_t state) noexcept nogil:
    """Nothing more is to be told of it now: frames are on their way, or the peer knows."""
    cdef Channel *ch = channel_of(s)
    if message_at(ch, i).state == MESSAGE_DROPPED:
        ch.untold -= 1
        if ch.untold == 0:
            s.pending &= ~<uint8_t>PENDING_DROPPED
    message_at(ch, i).state = state


cdef bint channel_next_dropped(Stream *s, Dropped *out) noexcept nogil:
    """Find what the next DROPPED frame tells, and note that it is told. Return whether there is anything."""
    cdef Channel *ch = channel_of(s)
    cdef OutMessage *m
    cdef uint64_t end
    cdef uint32_t i = ch.untold_from
    out.wire = 0
    out.within = 0
    out.bytes = 0
    out.count = 0
    while ch.untold and message_at(ch, i).state != MESSAGE_DROPPED:
        i += 1
    if ch.untold == 0:
        return False
    out.number = ch.first_number + i
    m = message_at(ch, i)
    if m.was_begun:
        end = end_of(s, i) if end_of(s, i) < s.sent else s.sent
        if end < end_of(s, i) and end_of(s, i) - end < MESSAGE_HEADER_SIZE:
            end = end_of(s, i) - MESSAGE_HEADER_SIZE  # a header goes before the rest
        if end < m.start + m.told + MESSAGE_HEADER_SIZE:
            s.pending &= ~<uint8_t>PENDING_DROPPED
            return False            # channel_pass will say when there is more
        out.within = m.told
        out.wire = m.start - m.shift + m.told
        out.bytes = end - m.start - m.told
        out.count = 1 if end == end_of(s, i) else 0
        m.told = <uint32_t>(end - m.start)
        set_told(s, i, MESSAGE_TOLD)
        i += 1
    while out.bytes == 0 and i < ch.count and message_at(ch, i).state == MESSAGE_DROPPED \
            and not message_at(ch, i).was_begun:
        set_told(s, i, MESSAGE_TOLD)
        out.count += 1
        i += 1
    ch.untold_from = i
    return True


cdef void channel_dropped_acked(Stream *s, uint64_t number, uint32_t count_or_within, uint32_t bytes) noexcept nogil:
    """The peer knows of these messages, or of a piece of one that has so many `bytes`.

    Frames are not counted: one of them goes several times, in probes and copies, and each may be acknowledged."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t last = number + (1 if bytes else count_or_within)
    cdef uint32_t i
    while number < last:
        if ch.first_number <= number < ch.first_number + ch.count:
            i = <uint32_t>(number - ch.first_number)
            if is_unknown(ch, i) and (bytes == 0 or note_known(s, i, count_or_within, bytes)):
                set_told(s, i, MESSAGE_SETTLED)
                s.undone -= 1
        number += 1
    pop_settled(s)


cdef bint note_known(Stream *s, uint32_t i, uint32_t within, uint32_t bytes) noexcept nogil:
    """Note that the peer knows of a piece of a message; return whether it knows of all of it now."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t start = message_at(ch, i).start, end = end_of(s, i)
    if bytes < end - start:
        if ranges_add(&ch.known, start + within, start + within + bytes) != RANGES_OK:
            tell_again(s, i, within)
        if reach(&ch.known, start) < end:
            return False
    ranges_remove(&ch.known, start, end)
    return True


cdef void channel_dropped_lost(Stream *s, uint64_t number, uint32_t count_or_within, bint was_begun) noexcept nogil:
    """Tell of them again; of a message in pieces from that one on."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t last = number + (1 if was_begun else count_or_within)
    cdef uint32_t i
    while number < last:
        if ch.first_number <= number < ch.first_number + ch.count:
            i = <uint32_t>(number - ch.first_number)
            if is_unknown(ch, i):
                if was_begun:
                    tell_again(s, i, count_or_within)
                else:
                    set_untold(s, i)
        number += 1


cdef void tell_again(Stream *s, uint32_t i, uint32_t within) noexcept nogil:
    """Go back to where the piece of a message begins that was lost, or where that begins of which the peer does not know."""
    cdef OutMessage *m = message_at(channel_of(s), i)
    cdef uint64_t known = reach(&channel_of(s).known, m.start + within) - m.start
    if known < m.told:
        m.told = <uint32_t>known
        set_untold(s, i)
