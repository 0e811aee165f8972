"""The receiving side of a channel: messages out of the bytes of a stream (docs/spec, chapter 16).

Messages lie in the receive buffer as they came, each behind its header. Ordered ones are delivered where reading stands,
unordered ones as soon as they are complete. Two bits of the header, which are zero on the wire, say here what has become of a
message: queued for delivery, or gone (delivered, or given up by the peer). So nothing is kept for a message but its own
bytes and four in a queue; the windows of the stream and the connection bound both.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from interpeer._core.buffer cimport (
    BUFFER_GAPS, BUFFER_OK, recv_buffer_change, recv_buffer_copy, recv_buffer_has, recv_buffer_read, recv_buffer_skip,
    recv_buffer_write)
from interpeer._core.channel cimport Channel, channel_of
from interpeer._core.fec cimport (
    FEC_INVALID, FEC_OK, FecRepair, fec_decoder_add, fec_decoder_poll, fec_decoder_repair, fec_parse_repair)
from interpeer._core.rangeset cimport (
    RANGES_FULL, ranges_add, ranges_drop_lowest, ranges_search)
from interpeer._core.repairs cimport FEC_RECEIVE_WINDOW, PLACE_BYTES, PROTECTED_BYTES, Repairs
from interpeer._core.stream cimport (
    RECV_COMPLETE, RECV_IN_COMPLETE, RECV_IN_READ_ALL, RECV_OPEN, RECV_SIZE_KNOWN, STREAM_OK, recv_input,
    stream_handle_data)
from interpeer._core.wire cimport (
    CODE_FINAL_SIZE, CODE_FLOW_CONTROL, CODE_FRAME_ENCODING, CODE_GAPS, CODE_INTERNAL, CODE_MESSAGE_SIZE, CODE_PROTOCOL,
    MESSAGE_HEADER_SIZE, Frame, read_u64, write_u64)

cdef enum:
    FIRST_QUEUED = 8
    OFFSET_BITS = 62                # as a frame can tell
    SIZE_MASK = 0x1FFFFFFF          # of a header's first word
    IS_GONE = 0x20000000            # zero on the wire
    IS_QUEUED = 0x40000000          # zero on the wire

cdef uint32_t IS_UNORDERED = 0x80000000


cdef inline uint32_t read_u32(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline uint32_t word_at(const Stream *s, uint64_t offset) noexcept nogil:
    cdef uint8_t bytes[4]
    recv_buffer_copy(&s.in_, offset, bytes, 4)
    return read_u32(bytes)


cdef inline void set_word(Stream *s, uint64_t offset, uint32_t value) noexcept nogil:
    cdef uint8_t bytes[4]
    cdef int i
    for i in range(4):
        bytes[i] = <uint8_t>(value >> (24 - 8 * i))
    recv_buffer_change(&s.in_, offset, bytes, 4)


cdef inline uint64_t end_of(uint64_t start, uint32_t word) noexcept nogil:
    return start + MESSAGE_HEADER_SIZE + (word & SIZE_MASK)


# --- what arrives ---

cdef uint64_t check_headers(const Frame *f, uint64_t max_message) noexcept nogil:
    """Return 0 for a frame that begins with a message's header if all headers in it are right, otherwise a code."""
    cdef uint64_t at = 0
    cdef uint32_t word
    while at < f.bytes:
        if f.bytes - at < MESSAGE_HEADER_SIZE:
            return CODE_FRAME_ENCODING
        word = read_u32(f.data + at)
        if word & (IS_GONE | IS_QUEUED):
            return CODE_FRAME_ENCODING
        if (word & SIZE_MASK) > max_message:
            return CODE_MESSAGE_SIZE
        at = end_of(at, word)
    return 0


cdef int channel_handle_messages(Stream *s, const Frame *f, uint64_t credit, uint64_t max_message,
                                 uint64_t *grown) noexcept nogil:
    """Take a MESSAGES frame. Return STREAM_OK or the code of the rule that the peer has broken."""
    cdef Repairs *r = channel_of(s).repairs
    cdef int code = take_messages(s, f, credit, max_message, grown)
    if code == STREAM_OK and r != NULL and r.is_decoding:
        code = note_for_repairs(s, f, credit, max_message, grown)
    return code


cdef int take_messages(Stream *s, const Frame *f, uint64_t credit, uint64_t max_message, uint64_t *grown) noexcept nogil:
    cdef uint64_t start = f.offset - f.within, end
    cdef uint32_t word
    cdef int code
    grown[0] = 0
    if f.within == 0:
        code = <int>check_headers(f, max_message)
        if code:
            return code
    elif start >= s.in_.read and recv_buffer_has(&s.in_, start, start + MESSAGE_HEADER_SIZE):
        word = word_at(s, start)
        if not word & IS_GONE and f.offset + f.bytes > end_of(start, word):
            return CODE_PROTOCOL    # only the message that it begins in
    code = stream_handle_data(s, f.offset, f.data, f.bytes, f.fin, credit, grown)
    if code != STREAM_OK or s.is_stopped:
        return code
    end = f.offset + f.bytes
    while start < end and start >= s.in_.read and recv_buffer_has(&s.in_, start, start + MESSAGE_HEADER_SIZE):
        word = word_at(s, start)
        if not note_message(s, start, word):
            return CODE_INTERNAL
        if word & IS_GONE and start == s.in_.read:
            pass_gone(s)            # it was given up before its head came
        start = end_of(start, word)
    return STREAM_OK


cdef bint note_message(Stream *s, uint64_t start, uint32_t word) noexcept nogil:
    """Queue an unordered message that is complete, and note how far one reaches that is not. False without memory."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t end = end_of(start, word)
    if not recv_buffer_has(&s.in_, start, end):
        if end > ch.expected:
            ch.expected = end
        return True
    if word & IS_UNORDERED and not word & (IS_QUEUED | IS_GONE):
        if not push(ch, <uint32_t>start):
            return False
        set_word(s, start, word | IS_QUEUED)
    return True


cdef bint push(Channel *ch, uint32_t start) noexcept nogil:
    cdef uint32_t capacity, i
    cdef uint32_t *grown
    if ch.queue_count == ch.queue_capacity:
        capacity = ch.queue_capacity * 2 if ch.queue_capacity else FIRST_QUEUED
        grown = <uint32_t *>malloc(capacity * sizeof(uint32_t))
        if grown == NULL:
            return False
        for i in range(ch.queue_count):
            grown[i] = ch.queue[(ch.queue_first + i) & (ch.queue_capacity - 1)]
        free(ch.queue)
        ch.queue = grown
        ch.queue_capacity = capacity
        ch.queue_first = 0
    ch.queue[(ch.queue_first + ch.queue_count) & (ch.queue_capacity - 1)] = start
    ch.queue_count += 1
    return True


cdef inline void pop(Channel *ch) noexcept nogil:
    ch.queue_first = (ch.queue_first + 1) & (ch.queue_capacity - 1)
    ch.queue_count -= 1


# --- what repairs bring (docs/spec, chapter 17) ---

cdef int note_for_repairs(Stream *s, const Frame *f, uint64_t credit, uint64_t max_message, uint64_t *grown) noexcept nogil:
    """Let the decoder know of the messages that this frame has made whole, and take those that it recovers."""
    cdef uint64_t start = f.offset - f.within, end = f.offset + f.bytes
    cdef uint32_t word
    cdef int code
    while start < end and start >= s.in_.read and recv_buffer_has(&s.in_, start, start + MESSAGE_HEADER_SIZE):
        word = word_at(s, start)
        if not word & IS_GONE and recv_buffer_has(&s.in_, start, end_of(start, word)):
            note_symbol(s, start, word)
            code = take_recovered(s, credit, max_message, grown)
            if code != STREAM_OK:
                return code
        start = end_of(start, word)
    return STREAM_OK


cdef void note_symbol(Stream *s, uint64_t start, uint32_t word) noexcept nogil:
    """Give the decoder a message; a large one is not protected, and empty to it."""
    cdef uint8_t symbol[1116]       # PLACE_BYTES + PROTECTED_BYTES
    cdef uint64_t n = MESSAGE_HEADER_SIZE + (word & SIZE_MASK)
    cdef uint64_t number = number_of(s, word_at(s, start + 4))
    if n > PROTECTED_BYTES:
        fec_decoder_add(&channel_of(s).repairs.decoder, number, NULL, 0)
        return
    write_u64(symbol, start)
    recv_buffer_copy(&s.in_, start, symbol + PLACE_BYTES, n)
    symbol[PLACE_BYTES] &= <uint8_t>~((IS_GONE | IS_QUEUED) >> 24)
    fec_decoder_add(&channel_of(s).repairs.decoder, number, symbol, <uint32_t>n + PLACE_BYTES)


cdef int channel_handle_repair(Stream *s, const Frame *f, uint64_t credit, uint64_t max_message,
                               uint64_t *grown) noexcept nogil:
    """Take a REPAIR frame. Return STREAM_OK or the code of the rule that the peer has broken."""
    cdef Repairs *r = channel_of(s).repairs
    cdef FecRepair repair
    grown[0] = 0
    if fec_parse_repair(f.data, f.bytes, &repair) != FEC_OK:
        return CODE_FRAME_ENCODING
    if r == NULL or not r.is_decoding or s.is_stopped or s.recv_state > RECV_SIZE_KNOWN:
        return STREAM_OK
    if fec_decoder_repair(&r.decoder, &repair) == FEC_INVALID:
        return CODE_FRAME_ENCODING
    return take_recovered(s, credit, max_message, grown)


cdef int take_recovered(Stream *s, uint64_t credit, uint64_t max_message, uint64_t *grown) noexcept nogil:
    """Take the messages that were recovered as if they had come in a frame each."""
    cdef Channel *ch = channel_of(s)
    cdef Frame f
    cdef const uint8_t *symbol
    cdef uint64_t number, more, end
    cdef uint32_t n
    cdef bint is_missing
    cdef int code
    memset(&f, 0, sizeof(Frame))
    while fec_decoder_poll(&ch.repairs.decoder, &number, &symbol, &n):
        if n < PLACE_BYTES + MESSAGE_HEADER_SIZE:
            continue                # one that was not protected
        f.offset = read_u64(symbol)
        f.data = symbol + PLACE_BYTES
        f.bytes = n - PLACE_BYTES
        end = f.offset + f.bytes
        if f.offset >> OFFSET_BITS or end_of(0, read_u32(f.data)) != f.bytes or read_u32(f.data + 4) != <uint32_t>number:
            return CODE_FRAME_ENCODING
        is_missing = f.offset >= s.in_.read and not recv_buffer_has(&s.in_, f.offset, end)
        code = take_messages(s, &f, credit - grown[0], max_message, &more)
        if code != STREAM_OK:
            return code
        grown[0] += more
        ch.counters.repaired += 1 if is_missing else 0
    return STREAM_OK


cdef inline uint64_t number_of(const Stream *s, uint32_t low) noexcept nogil:
    """Return the number of which the header has the lower half: the nearest to that of the last message."""
    cdef uint64_t last = channel_of(s).last_number
    return last + <uint64_t><int32_t>(low - <uint32_t>last)


cdef int channel_handle_dropped(Stream *s, const Frame *f, uint64_t credit, uint64_t *grown, uint64_t *freed) noexcept nogil:
    """Take a DROPPED frame: wait for these messages no longer. `freed` is by how much reading moves on."""
    cdef uint64_t head = f.offset - f.within, end = f.offset + f.bytes, read = s.in_.read, told = end
    cdef uint32_t word
    cdef int result
    grown[0] = 0
    freed[0] = 0
    if f.bytes == 0:
        note_gone(s, f.value, f.count)
        note_absent(s, f.value, f.count)
        return STREAM_OK
    if end > s.recv_limit:
        return CODE_FLOW_CONTROL
    if end > s.final_size:
        return CODE_FINAL_SIZE
    if end > s.highest:
        if end - s.highest > credit:
            return CODE_FLOW_CONTROL
        grown[0] = end - s.highest
        s.highest = end
    if s.recv_state != RECV_OPEN and s.recv_state != RECV_SIZE_KNOWN or end <= read:
        return STREAM_OK
    if s.is_stopped:
        s.in_.read = s.highest
        s.in_.ready = s.highest
        return STREAM_OK
    if head >= read and recv_buffer_has(&s.in_, head, head + MESSAGE_HEADER_SIZE):
        word = word_at(s, head)
        if recv_buffer_has(&s.in_, head, end_of(head, word)) and (not word & IS_GONE or end_of(head, word) >= end):
            return STREAM_OK        # it has come all the same, and may have been delivered; or we know
    if head < read:                 # reading has passed a piece of it
        head = read
    if recv_buffer_has(&s.in_, head, head + MESSAGE_HEADER_SIZE):
        word = word_at(s, head)
        if word & IS_GONE and end_of(head, word) > told:
            told = end_of(head, word)
    if told - head < MESSAGE_HEADER_SIZE:
        return STREAM_OK            # no sender leaves so little
    result = bury(s, head, f.offset, end, told)
    if result != BUFFER_OK:
        return CODE_GAPS if result == BUFFER_GAPS else CODE_INTERNAL
    if f.count:
        note_gone(s, f.value, 1)
    channel_of(s).expected = 0
    pass_gone(s)
    if s.in_.ready == s.final_size:
        recv_input(s, RECV_IN_COMPLETE)
    freed[0] = s.in_.read - read
    return STREAM_OK


cdef int bury(Stream *s, uint64_t head, uint64_t start, uint64_t end, uint64_t told) noexcept nogil:
    """Wait no longer for a piece of a message, which needs no memory.

    Its pieces come in any order, and overlap when they are told again. So there is one header for all of them, where the message
    begins or reading stands in it: it reaches to the end of the furthest one that was `told`, and is passed when everything below
    has come or was told, too."""
    cdef uint8_t header[8]
    cdef int result
    memset(header, 0, MESSAGE_HEADER_SIZE)
    result = recv_buffer_write(&s.in_, head, header, MESSAGE_HEADER_SIZE)
    if result == BUFFER_OK:
        result = recv_buffer_skip(&s.in_, start, end)
    if result == BUFFER_OK:
        set_word(s, head, IS_GONE | <uint32_t>(told - head - MESSAGE_HEADER_SIZE))
    return result


cdef void note_gone(Stream *s, uint64_t number, uint64_t count) noexcept nogil:
    """Count messages that the peer has given up, each once, and keep their numbers for the application."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t end = number + count, at = number
    cdef uint32_t i = ranges_search(&ch.gone, number)
    while i < ch.gone.count and ch.gone.ranges[i].start < end:
        if ch.gone.ranges[i].start > at:
            ch.counters.peer_dropped += ch.gone.ranges[i].start - at
        at = ch.gone.ranges[i].end
        i += 1
    if at < end:
        ch.counters.peer_dropped += end - at
    while ranges_add(&ch.gone, number, end) == RANGES_FULL:
        ranges_drop_lowest(&ch.gone)


cdef void note_absent(Stream *s, uint64_t number, uint64_t count) noexcept nogil:
    """Let the decoder know of messages that were never sent, and so are empty in repairs."""
    cdef Repairs *r = channel_of(s).repairs
    cdef uint64_t end = number + count
    if r == NULL or not r.is_decoding:
        return
    if count > FEC_RECEIVE_WINDOW:
        number = end - FEC_RECEIVE_WINDOW
    while number < end and number < r.decoder.base + FEC_RECEIVE_WINDOW:
        fec_decoder_add(&r.decoder, number, NULL, 0)
        number += 1


cdef void pass_gone(Stream *s) noexcept nogil:
    """Move reading behind messages that are gone."""
    cdef uint32_t word
    while s.in_.ready - s.in_.read >= MESSAGE_HEADER_SIZE:
        word = word_at(s, s.in_.read)
        if not word & IS_GONE or end_of(s.in_.read, word) > s.in_.ready:
            break
        recv_buffer_read(&s.in_, NULL, MESSAGE_HEADER_SIZE + (word & SIZE_MASK))
    if s.recv_state == RECV_COMPLETE and s.in_.read == s.final_size:
        recv_input(s, RECV_IN_READ_ALL)


cdef void channel_forget_received(Stream *s) noexcept nogil:
    """Nothing is read any more, or the peer has given its side up."""
    cdef Channel *ch = channel_of(s)
    ch.queue_count = 0
    ch.expected = 0


# --- what the application reads ---

cdef bint channel_has_message(Stream *s) noexcept nogil:
    cdef InMessage m
    return channel_next_message(s, &m)


cdef bint channel_next_message(Stream *s, InMessage *out) noexcept nogil:
    """Find the next message to be delivered: unordered ones first, which have waited for nothing. Return whether there is."""
    cdef Channel *ch = channel_of(s)
    cdef uint32_t word = 0
    while ch.queue_count:
        out.start = s.in_.read + <uint32_t>(ch.queue[ch.queue_first] - <uint32_t>s.in_.read)
        if recv_buffer_has(&s.in_, out.start, out.start + MESSAGE_HEADER_SIZE):
            word = word_at(s, out.start)
            if recv_buffer_has(&s.in_, out.start, end_of(out.start, word)):
                break
        pop(ch)                     # reading has passed it: the peer has sent messages that overlap
    if ch.queue_count == 0:
        out.start = s.in_.read
        if s.in_.ready - s.in_.read < MESSAGE_HEADER_SIZE:
            return False
        word = word_at(s, out.start)
        if word & (IS_GONE | IS_QUEUED) or end_of(out.start, word) > s.in_.ready:
            return False
    out.bytes = word & SIZE_MASK
    out.number = number_of(s, word_at(s, out.start + 4))
    return True


cdef uint64_t channel_take_message(Stream *s, const InMessage *m, uint8_t *out) noexcept nogil:
    """Copy the message that channel_next_message has found to `out`, and take it away. Return by how much reading moves on."""
    cdef Channel *ch = channel_of(s)
    cdef uint64_t read = s.in_.read
    recv_buffer_copy(&s.in_, m.start + MESSAGE_HEADER_SIZE, out, m.bytes)
    if ch.queue_count:
        pop(ch)
    if m.start == read:             # whatever lies there, it is read once
        recv_buffer_read(&s.in_, NULL, MESSAGE_HEADER_SIZE + m.bytes)
    else:
        set_word(s, m.start, IS_GONE | <uint32_t>m.bytes)
    ch.last_number = m.number
    ch.counters.messages_received += 1
    ch.counters.bytes_received += m.bytes
    pass_gone(s)
    return s.in_.read - read
