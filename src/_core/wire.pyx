"""Reading and writing what is on the wire: variable-length integers, frames, transport parameters.

A parser checks the length first, allocates nothing, raises nothing, never reads at or past `end`, and answers
PARSE_ERROR to whatever is not exactly as the specification has it (docs/spec, chapter 6). Where a frame is written
is the business of the packet builder; the layouts it needs are here so that each pair stands together.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    VARINT_MAX_BITS = 62


cdef int read_varint(Reader *r, uint64_t *value) noexcept nogil:
    """Read a variable-length integer; longer forms than needed are errors, so that each value has one encoding."""
    cdef const uint8_t *p = r.p
    cdef Py_ssize_t left = r.end - p
    cdef size_t n
    cdef uint64_t v
    if left <= 0:
        return PARSE_ERROR
    n = <size_t>1 << (p[0] >> 6)
    if left < <Py_ssize_t>n:
        return PARSE_ERROR
    if n == 1:
        v = p[0]
    elif n == 2:
        v = <uint64_t>(p[0] & 0x3F) << 8 | p[1]
    elif n == 4:
        v = <uint64_t>(p[0] & 0x3F) << 24 | <uint64_t>p[1] << 16 | <uint64_t>p[2] << 8 | p[3]
    else:
        v = read_u64(p) & ~(<uint64_t>0xC0 << 56)
    if varint_bytes(v) != n:
        return PARSE_ERROR
    r.p = p + n
    value[0] = v
    return PARSE_OK


cdef inline int read_two(Reader *r, uint64_t *first, uint64_t *second) noexcept nogil:
    if read_varint(r, first) != PARSE_OK:
        return PARSE_ERROR
    return read_varint(r, second)


cdef inline int read_three(Reader *r, uint64_t *first, uint64_t *second, uint64_t *third) noexcept nogil:
    if read_two(r, first, second) != PARSE_OK:
        return PARSE_ERROR
    return read_varint(r, third)


cdef inline int take(Reader *r, uint64_t n, const uint8_t **data) noexcept nogil:
    """Step over `n` bytes."""
    if n > <uint64_t>(r.end - r.p):
        return PARSE_ERROR
    data[0] = r.p
    r.p += n
    return PARSE_OK


cdef int parse_frame(Reader *r, Frame *f) noexcept nogil:
    """Read the next frame. Return PARSE_OK, PARSE_END or PARSE_ERROR; padding is stepped over in one go."""
    while r.p < r.end and r.p[0] == FRAME_PADDING:
        r.p += 1
    if r.p == r.end:
        return PARSE_END
    if read_varint(r, &f.type) != PARSE_OK:
        return PARSE_ERROR
    if FRAME_STREAM <= f.type < FRAME_STREAM + 8:
        return parse_stream(r, f)
    if f.type == FRAME_DATAGRAM:
        f.bytes = <uint64_t>(r.end - r.p)
        return take(r, f.bytes, &f.data)
    if f.type == FRAME_DATAGRAM_LEN:
        return read_bytes(r, f)
    if f.type == FRAME_ACK or f.type == FRAME_ACK_ECN:
        return parse_ack(r, f)
    if f.type == FRAME_PING:
        return PARSE_OK
    if f.type == FRAME_MAX_DATA or f.type == FRAME_MAX_STREAMS:
        return read_varint(r, &f.value)
    if f.type == FRAME_MAX_STREAM_DATA or f.type == FRAME_STOP_SENDING:
        return read_two(r, &f.id, &f.value)
    if f.type == FRAME_RESET_STREAM:
        return read_three(r, &f.id, &f.value, &f.offset)
    if f.type == FRAME_CLOSE or f.type == FRAME_CLOSE_APP:
        if read_varint(r, &f.value) != PARSE_OK:
            return PARSE_ERROR
        return read_bytes(r, f)
    if f.type == FRAME_PATH_CHALLENGE or f.type == FRAME_PATH_RESPONSE:
        return take(r, CHALLENGE_BYTES, &f.data)
    if f.type == FRAME_NEW_CONNECTION_ID:
        if read_two(r, &f.path, &f.id) != PARSE_OK:
            return PARSE_ERROR
        return take(r, CID_BYTES + RESET_TOKEN_BYTES, &f.data)
    if f.type == FRAME_RETIRE_CONNECTION_ID:
        return read_two(r, &f.path, &f.id)
    if f.type == FRAME_PATH_ABANDON:
        return read_two(r, &f.path, &f.value)
    if f.type == FRAME_PATH_STATUS:
        return read_three(r, &f.path, &f.id, &f.value)
    if f.type == FRAME_REKEY or f.type == FRAME_REKEY_ANSWER:
        f.bytes = REKEY_MESSAGE_BYTES if f.type == FRAME_REKEY else REKEY_ANSWER_MESSAGE_BYTES
        return PARSE_ERROR if read_varint(r, &f.value) != PARSE_OK else take(r, f.bytes, &f.data)
    if FRAME_CHANNEL <= f.type < FRAME_CHANNELS_END:
        return parse_channel_frame(r, f)
    if f.type >= FRAME_IGNORABLE:
        return read_bytes(r, f)
    return PARSE_ERROR


cdef inline int read_bytes(Reader *r, Frame *f) noexcept nogil:
    """Read a length and as many bytes."""
    if read_varint(r, &f.bytes) != PARSE_OK:
        return PARSE_ERROR
    return take(r, f.bytes, &f.data)


cdef inline int parse_stream(Reader *r, Frame *f) noexcept nogil:
    f.offset = 0
    f.fin = f.type & STREAM_FIN
    if read_varint(r, &f.id) != PARSE_OK:
        return PARSE_ERROR
    if f.type & STREAM_OFF and read_varint(r, &f.offset) != PARSE_OK:
        return PARSE_ERROR
    if f.type & STREAM_LEN:
        if read_bytes(r, f) != PARSE_OK:
            return PARSE_ERROR
    else:
        f.bytes = <uint64_t>(r.end - r.p)
        take(r, f.bytes, &f.data)
    return PARSE_OK if f.offset + f.bytes < <uint64_t>1 << VARINT_MAX_BITS else PARSE_ERROR


cdef int parse_channel_frame(Reader *r, Frame *f) noexcept nogil:
    if f.type >= FRAME_MESSAGES:
        return parse_messages(r, f)
    if f.type == FRAME_MAX_CHANNELS:
        return read_varint(r, &f.value)
    if f.type == FRAME_CHANNEL_MAX_DATA or f.type == FRAME_CHANNEL_STOP:
        return read_two(r, &f.id, &f.value)
    if f.type == FRAME_CHANNEL_RESET:
        return read_three(r, &f.id, &f.value, &f.offset)
    if f.type == FRAME_CHANNEL:
        return parse_channel(r, f)
    if f.type == FRAME_DROPPED:
        return parse_dropped(r, f)
    if f.type == FRAME_REPAIR:
        return PARSE_ERROR if read_varint(r, &f.id) != PARSE_OK else read_bytes(r, f)
    return PARSE_ERROR


cdef int parse_channel(Reader *r, Frame *f) noexcept nogil:
    cdef uint64_t flags, priority, fec_data, fec_repair
    if read_three(r, &f.id, &f.value, &flags) != PARSE_OK \
            or read_two(r, &priority, &f.capabilities.deadline_us) != PARSE_OK \
            or read_two(r, &fec_data, &fec_repair) != PARSE_OK:
        return PARSE_ERROR
    if flags & ~<uint64_t>CAPABILITY_FLAGS or priority >= PRIORITIES or fec_data > MAX_FEC_WINDOW or fec_repair > MAX_FEC_WINDOW:
        return PARSE_ERROR
    f.capabilities.flags = <uint8_t>flags
    f.capabilities.priority = <uint8_t>priority
    f.capabilities.fec_data = <uint8_t>fec_data
    f.capabilities.fec_repair = <uint8_t>fec_repair
    return PARSE_OK


cdef int parse_dropped(Reader *r, Frame *f) noexcept nogil:
    """Several messages that were not begun, or a piece of one that was: where its header was, or would be another."""
    if read_three(r, &f.id, &f.offset, &f.within) != PARSE_OK or read_three(r, &f.bytes, &f.value, &f.count) != PARSE_OK:
        return PARSE_ERROR
    if f.bytes == 0 and (f.count == 0 or f.offset or f.within):
        return PARSE_ERROR
    if f.bytes and (f.count > 1 or f.bytes < MESSAGE_HEADER_SIZE or f.within > f.offset or 0 < f.within < MESSAGE_HEADER_SIZE):
        return PARSE_ERROR
    if (f.offset + f.bytes) >> VARINT_MAX_BITS or (f.value + f.count) >> VARINT_MAX_BITS:
        return PARSE_ERROR
    return PARSE_OK


cdef int parse_messages(Reader *r, Frame *f) noexcept nogil:
    f.fin = f.type & STREAM_FIN
    if read_three(r, &f.id, &f.offset, &f.within) != PARSE_OK:
        return PARSE_ERROR
    if f.type & STREAM_LEN:
        if read_bytes(r, f) != PARSE_OK:
            return PARSE_ERROR
    else:
        f.bytes = <uint64_t>(r.end - r.p)
        take(r, f.bytes, &f.data)
    # no frame begins inside of a message's header
    if f.within > f.offset or 0 < f.within < MESSAGE_HEADER_SIZE:
        return PARSE_ERROR
    return PARSE_OK if f.offset + f.bytes < <uint64_t>1 << VARINT_MAX_BITS else PARSE_ERROR


cdef int parse_ack(Reader *r, Frame *f) noexcept nogil:
    """Read path, largest, delay, count of further ranges; the ranges are read by ack_next and checked here."""
    cdef uint64_t first, gap, length, low, _
    if read_two(r, &f.path, &f.value) != PARSE_OK or read_two(r, &f.delay_us, &f.ranges) != PARSE_OK:
        return PARSE_ERROR
    if f.ranges >= MAX_ACK_RANGES:
        return PARSE_ERROR
    f.rest = r[0]
    f.ranges += 1
    if read_varint(r, &first) != PARSE_OK or first > f.value:
        return PARSE_ERROR
    low = f.value - first
    for _ in range(1, f.ranges):
        if read_two(r, &gap, &length) != PARSE_OK:
            return PARSE_ERROR
        # a gap of g means g + 1 numbers missing (RFC 9000, 19.3.1), and the next range has length + 1 numbers
        if gap + 2 > low or length > low - gap - 2:
            return PARSE_ERROR
        low -= gap + 2 + length
    f.rest.end = r.p
    f.offset = f.value + 1
    memset(f.ecn, 0, sizeof(f.ecn))
    if f.type == FRAME_ACK_ECN:
        return read_three(r, &f.ecn[0], &f.ecn[1], &f.ecn[2])
    return PARSE_OK


cdef int ack_next(Frame *f, uint64_t *low, uint64_t *high) noexcept nogil:
    """Step to the next lower range of an ACK frame that parse_ack has checked: numbers low to high, both included."""
    cdef uint64_t gap, length
    if f.ranges == 0:
        return PARSE_END
    f.ranges -= 1
    if f.offset == f.value + 1:
        high[0] = f.value
    else:
        read_varint(&f.rest, &gap)
        high[0] = f.offset - gap - 2
    read_varint(&f.rest, &length)
    low[0] = high[0] - length
    f.offset = low[0]
    return PARSE_OK


# --- transport parameters ---

cdef void absent_parameters(Parameters *out) noexcept nogil:
    """Fill in what parameters count as that are not there."""
    memset(out, 0, sizeof(Parameters))
    out.max_udp_payload = BASE_DATAGRAM_BYTES
    out.max_paths = ABSENT_MAX_PATHS
    out.max_channels = ABSENT_MAX_CHANNELS
    out.max_message = ABSENT_MAX_MESSAGE


cdef int parse_parameters(const uint8_t *p, size_t n, Parameters *out) noexcept nogil:
    """Read type-length-value triples. Unknown types are skipped; a repeated, malformed or absurd one is an error."""
    cdef Reader r
    cdef Reader value
    cdef uint64_t type, length
    cdef uint32_t seen = 0
    cdef const uint8_t *data
    absent_parameters(out)
    r.p = p
    r.end = p + n
    while r.p < r.end:
        if read_two(&r, &type, &length) != PARSE_OK:
            return PARSE_ERROR
        if take(&r, length, &data) != PARSE_OK:
            return PARSE_ERROR
        if type == PARAM_PADDING or type >= PARAMS_KNOWN or PARAM_MAX_PATHS < type < PARAM_MAX_CHANNELS:
            continue
        if seen >> type & 1:
            return PARSE_ERROR
        seen |= <uint32_t>1 << type
        value.p = data
        value.end = r.p
        if parse_parameter(type, &value, out) != PARSE_OK:
            return PARSE_ERROR
    return PARSE_OK


cdef int parse_parameter(uint64_t type, Reader *v, Parameters *out) noexcept nogil:
    cdef size_t n = v.end - v.p
    cdef uint64_t *number = NULL
    if type == PARAM_SUITES:
        # a preference we have no room for is lower than eight others
        memcpy(out.suites, v.p, n if n < sizeof(out.suites) else sizeof(out.suites))
        return PARSE_OK if n else PARSE_ERROR
    if type == PARAM_PROTOCOL:
        out.protocol = v.p
        out.protocol_bytes = n
        return PARSE_OK if 0 < n <= MAX_PROTOCOL_BYTES else PARSE_ERROR
    if type == PARAM_RESET_TOKEN:
        if n != sizeof(out.reset_token):
            return PARSE_ERROR
        memcpy(out.reset_token, v.p, n)
        out.has_reset_token = True
        return PARSE_OK
    if type == PARAM_CONNECTION_ID:
        if n != CID_BYTES or not v.p[0] & CID_FLAG:
            return PARSE_ERROR
        out.connection_id = read_u64(v.p)
        return PARSE_OK
    if type == PARAM_REFUSAL:
        if read_varint(v, &out.refusal) != PARSE_OK or out.refusal == 0:
            return PARSE_ERROR
        out.reason = v.p
        out.reason_bytes = v.end - v.p
        return PARSE_OK if out.reason_bytes <= MAX_REASON_BYTES else PARSE_ERROR
    number = number_of(type, out)
    if read_varint(v, number) != PARSE_OK or v.p != v.end:
        return PARSE_ERROR
    if type == PARAM_MAX_UDP_PAYLOAD:
        return PARSE_OK if number[0] >= BASE_DATAGRAM_BYTES else PARSE_ERROR
    if type == PARAM_MAX_ACK_DELAY:
        return PARSE_OK if number[0] <= MAX_ACK_DELAY_US else PARSE_ERROR
    if type == PARAM_IDLE_TIMEOUT and number[0] > MAX_IDLE_TIMEOUT_MS:
        number[0] = MAX_IDLE_TIMEOUT_MS
    return PARSE_OK


cdef uint64_t *number_of(uint64_t type, Parameters *p) noexcept nogil:
    """Return where the parameter of a numeric type is kept; NULL for the other types."""
    if type == PARAM_MAX_DATA:
        return &p.max_data
    if type == PARAM_MAX_STREAM_DATA:
        return &p.max_stream_data
    if type == PARAM_MAX_STREAMS:
        return &p.max_streams
    if type == PARAM_MAX_DATAGRAM:
        return &p.max_datagram
    if type == PARAM_IDLE_TIMEOUT:
        return &p.idle_timeout_ms
    if type == PARAM_MAX_ACK_DELAY:
        return &p.max_ack_delay_us
    if type == PARAM_MAX_UDP_PAYLOAD:
        return &p.max_udp_payload
    if type == PARAM_RECEIVE_BUFFER:
        return &p.receive_buffer
    if type == PARAM_MAX_PATHS:
        return &p.max_paths
    if type == PARAM_MAX_CHANNELS:
        return &p.max_channels
    if type == PARAM_MAX_MESSAGE:
        return &p.max_message
    return NULL


cdef inline uint8_t *write_bytes_parameter(uint8_t *p, uint64_t type, const uint8_t *data, size_t n) noexcept nogil:
    p = write_varint(write_varint(p, type), n)
    memcpy(p, data, n)
    return p + n


cdef uint8_t *write_numbers(uint8_t *p, const Parameters *in_) noexcept nogil:
    """Write the numbers that are not what absence says: what a response has in excess is an attacker's gain (HS-27)."""
    cdef Parameters absent
    cdef const uint64_t *number
    cdef uint64_t type
    absent_parameters(&absent)
    for type in range(PARAM_MAX_DATA, PARAMS_KNOWN):
        number = number_of(type, <Parameters *>in_)
        if number != NULL and number[0] != number_of(type, &absent)[0]:
            p = write_varint(write_varint(write_varint(p, type), varint_bytes(number[0])), number[0])
    return p


cdef Py_ssize_t write_parameters(uint8_t *p, size_t room, const Parameters *in_) noexcept nogil:
    """Write every parameter that is set. Return the bytes written, or -1 if `room` may not be enough."""
    cdef uint8_t *start = p
    cdef uint8_t cid[8]
    cdef size_t n = 0
    if room < 200 + <size_t>in_.protocol_bytes + in_.reason_bytes:
        return -1
    if in_.refusal:
        n = varint_bytes(in_.refusal)
        p = write_varint(write_varint(p, PARAM_REFUSAL), n + in_.reason_bytes)
        p = write_varint(p, in_.refusal)
        if in_.reason_bytes:        # otherwise it may be NULL
            memcpy(p, in_.reason, in_.reason_bytes)
        return p + in_.reason_bytes - start
    while n < sizeof(in_.suites) and in_.suites[n]:
        n += 1
    p = write_bytes_parameter(p, PARAM_SUITES, in_.suites, n)
    if in_.protocol_bytes:
        p = write_bytes_parameter(p, PARAM_PROTOCOL, in_.protocol, in_.protocol_bytes)
    p = write_numbers(p, in_)
    if in_.has_reset_token:
        p = write_bytes_parameter(p, PARAM_RESET_TOKEN, in_.reset_token, sizeof(in_.reset_token))
    if in_.connection_id:
        write_u64(cid, in_.connection_id)
        p = write_bytes_parameter(p, PARAM_CONNECTION_ID, cid, CID_BYTES)
    return p - start
