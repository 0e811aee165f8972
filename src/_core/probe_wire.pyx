"""Python doors into wire and protection: bytes to what they say and back, packets sealed and opened."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.probe cimport exact, room
from interpeer._core.protection cimport (
    UNPROTECT_FORGED, UNPROTECT_REPLAY, UNPROTECT_RESERVED, UNPROTECT_SHORT, RecvKeys, SendKeys, protect,
    recv_keys_forget_previous, recv_keys_init, recv_keys_update, recv_keys_wipe, send_keys_init, send_keys_update,
    send_keys_wipe, unprotect)
from interpeer._core.replay cimport ReplayWindow, replay_init
from interpeer._core.wire cimport (
    FRAME_CHANNEL, FRAME_CHANNELS_END, FRAME_CHANNEL_MAX_DATA, FRAME_CHANNEL_RESET, FRAME_CHANNEL_STOP, FRAME_DROPPED,
    FRAME_MAX_CHANNELS, FRAME_MESSAGES, FRAME_REPAIR,
    CHALLENGE_BYTES, CID_BYTES, FRAME_ACK, FRAME_ACK_ECN, FRAME_CLOSE, FRAME_CLOSE_APP, FRAME_DATAGRAM,
    FRAME_DATAGRAM_LEN, FRAME_MAX_DATA, FRAME_MAX_STREAMS, FRAME_MAX_STREAM_DATA, FRAME_NEW_CONNECTION_ID,
    FRAME_PATH_ABANDON, FRAME_PATH_CHALLENGE, FRAME_PATH_RESPONSE, FRAME_PATH_STATUS, FRAME_PING, FRAME_REKEY,
    FRAME_REKEY_ANSWER, FRAME_RESET_STREAM, FRAME_RETIRE_CONNECTION_ID, FRAME_STOP_SENDING, FRAME_STREAM, HEADER_BYTES,
    PARSE_END, PARSE_OK, RESET_TOKEN_BYTES, Frame, Parameters, Reader, ack_next, parse_frame, parse_parameters,
    varint_bytes, write_parameters)
from interpeer._core.wire cimport read_varint as core_read_varint
from interpeer._core.wire cimport write_varint as core_write_varint


def write_varint(uint64_t value):
    out = room(varint_bytes(value))
    end = core_write_varint(out.p, value)
    assert end - out.p == out.n
    return out.first(out.n)


def read_varint(bytes text):
    """Return the value and how many bytes it took, or None."""
    cdef uint64_t value
    cdef Reader r
    source = exact(text)
    r.p, r.end = source.p, source.p + source.n
    if core_read_varint(&r, &value) != PARSE_OK:
        assert r.p == source.p, "a failed read has moved"
        return None
    return value, r.p - source.p


# --- frames ---

cdef bytes data_of(const Frame *f):
    return <bytes>f.data[:f.bytes]


cdef list ranges_of(Frame *f):
    cdef uint64_t low, high
    ranges = []
    while ack_next(f, &low, &high) == PARSE_OK:
        ranges.append((low, high))
    assert f.rest.p == f.rest.end, "an ACK frame has other ranges than were checked"
    return ranges


cdef tuple frame_of(Frame *f):
    """Return the frame's name and its fields."""
    if f.type & ~<uint64_t>7 == FRAME_STREAM:
        return "stream", f.id, f.offset, data_of(f), bool(f.fin)
    if f.type == FRAME_ACK or f.type == FRAME_ACK_ECN:
        ecn = tuple([f.ecn[i] for i in range(3)]) if f.type == FRAME_ACK_ECN else None
        return "ack", f.path, f.delay_us, ranges_of(f), ecn
    if f.type == FRAME_DATAGRAM or f.type == FRAME_DATAGRAM_LEN:
        return "datagram", data_of(f)
    if f.type == FRAME_PING:
        return ("ping",)
    if f.type == FRAME_RESET_STREAM:
        return "reset_stream", f.id, f.value, f.offset
    if f.type == FRAME_STOP_SENDING:
        return "stop_sending", f.id, f.value
    if f.type == FRAME_CLOSE:
        return "close", f.value, data_of(f)
    if f.type == FRAME_CLOSE_APP:
        return "close_app", f.value, data_of(f)
    if f.type == FRAME_MAX_DATA:
        return "max_data", f.value
    if f.type == FRAME_MAX_STREAM_DATA:
        return "max_stream_data", f.id, f.value
    if f.type == FRAME_MAX_STREAMS:
        return "max_streams", f.value
    if f.type == FRAME_REKEY:
        return "rekey", f.value, data_of(f)
    if f.type == FRAME_REKEY_ANSWER:
        return "rekey_answer", f.value, data_of(f)
    return path_frame_of(f)


cdef tuple path_frame_of(Frame *f):
    if f.type == FRAME_NEW_CONNECTION_ID:
        token = <bytes>(f.data + CID_BYTES)[:RESET_TOKEN_BYTES]
        return "new_connection_id", f.path, f.id, <bytes>f.data[:CID_BYTES], token
    if f.type == FRAME_RETIRE_CONNECTION_ID:
        return "retire_connection_id", f.path, f.id
    if f.type == FRAME_PATH_CHALLENGE:
        return "path_challenge", <bytes>f.data[:CHALLENGE_BYTES]
    if f.type == FRAME_PATH_RESPONSE:
        return "path_response", <bytes>f.data[:CHALLENGE_BYTES]
    if f.type == FRAME_PATH_ABANDON:
        return "path_abandon", f.path, f.value
    if f.type == FRAME_PATH_STATUS:
        return "path_status", f.path, f.id, f.value
    if f.type >= FRAME_MESSAGES and f.type < FRAME_CHANNELS_END:
        return "messages", f.id, f.offset, f.within, data_of(f), bool(f.fin)
    if f.type == FRAME_CHANNEL:
        c = f.capabilities
        return "channel", f.id, f.value, c.flags, c.priority, c.deadline_us, c.fec_data, c.fec_repair
    if f.type == FRAME_MAX_CHANNELS:
        return "max_channels", f.value
    if f.type == FRAME_CHANNEL_MAX_DATA:
        return "channel_max_data", f.id, f.value
    if f.type == FRAME_CHANNEL_RESET:
        return "channel_reset", f.id, f.value, f.offset
    if f.type == FRAME_CHANNEL_STOP:
        return "channel_stop", f.id, f.value
    if f.type == FRAME_DROPPED:
        return "dropped", f.id, f.offset, f.within, f.bytes, f.value, f.count
    if f.type == FRAME_REPAIR:
        return "repair", f.id, data_of(f)
    return "ignorable", f.type, data_of(f)


def parse(bytes payload):
    """Return the frames of a payload, and whether it could be read to its end."""
    cdef Reader r
    cdef Frame f
    cdef int result = PARSE_OK
    source = exact(payload)
    r.p, r.end = source.p, source.p + source.n
    frames = []
    while True:
        memset(&f, 0xA5, sizeof(Frame))
        result = parse_frame(&r, &f)
        assert source.p <= r.p <= r.end, "the parser has left the payload"
        if result != PARSE_OK:
            return frames, result == PARSE_END
        frames.append(frame_of(&f))


# --- transport parameters ---

NUMBERS = (
    "max_data", "max_stream_data", "max_streams", "max_datagram", "idle_timeout_ms", "max_ack_delay_us", "max_udp_payload",
    "receive_buffer", "max_paths", "max_channels", "max_message")


def read_parameters(bytes text):
    """Return the parameters by name, or None."""
    cdef Parameters p
    source = exact(text)
    if parse_parameters(source.p, source.n, &p) != PARSE_OK:
        return None
    return parameters_to_dict(&p)


cdef dict parameters_to_dict(const Parameters *p):
    return {
        "suites": bytes([p.suites[i] for i in range(8) if p.suites[i]]),
        "protocol": <bytes>p.protocol[:p.protocol_bytes],
        "max_data": p.max_data, "max_stream_data": p.max_stream_data, "max_streams": p.max_streams,
        "max_datagram": p.max_datagram, "idle_timeout_ms": p.idle_timeout_ms, "max_ack_delay_us": p.max_ack_delay_us,
        "max_udp_payload": p.max_udp_payload, "receive_buffer": p.receive_buffer, "max_paths": p.max_paths,
        "max_channels": p.max_channels, "max_message": p.max_message,
        "reset_token": <bytes>p.reset_token[:16] if p.has_reset_token else None,
        "connection_id": p.connection_id, "refusal": p.refusal, "reason": <bytes>p.reason[:p.reason_bytes],
    }


cdef int parameters_from_dict(dict values, Parameters *p) except -1:
    """Fill in what `values` has; what it points to must live as long as it is used."""
    cdef bytes suites = values.get("suites", b""), protocol = values.get("protocol", b""), reason = values.get("reason", b"")
    cdef bytes token = values.get("reset_token")
    memset(p, 0, sizeof(Parameters))
    memcpy(p.suites, <const uint8_t *>suites, len(suites))
    p.protocol, p.protocol_bytes = <const uint8_t *>protocol, <uint32_t>len(protocol)
    p.reason, p.reason_bytes = <const uint8_t *>reason, <uint32_t>len(reason)
    p.max_data = values.get("max_data", 0)
    p.max_stream_data = values.get("max_stream_data", 0)
    p.max_streams = values.get("max_streams", 0)
    p.max_datagram = values.get("max_datagram", 0)
    p.idle_timeout_ms = values.get("idle_timeout_ms", 0)
    p.max_ack_delay_us = values.get("max_ack_delay_us", 0)
    p.max_udp_payload = values.get("max_udp_payload", 0)
    p.receive_buffer = values.get("receive_buffer", 0)
    p.max_paths = values.get("max_paths", 0)
    p.max_channels = values.get("max_channels", 0)
    p.max_message = values.get("max_message", 0)
    p.has_reset_token = token is not None
    if token is not None:
        memcpy(p.reset_token, <const uint8_t *>token, 16)
    p.connection_id = values.get("connection_id", 0)
    p.refusal = values.get("refusal", 0)
    return 0


def encode_parameters(dict values, Py_ssize_t space=1024):
    """Return the bytes, or None when `space` may not be enough."""
    cdef Parameters p
    parameters_from_dict(values, &p)
    out = room(space)
    return out.first(write_parameters(out.p, out.n, &p))


# --- packet protection ---

PROBLEMS = {UNPROTECT_SHORT: "short", UNPROTECT_REPLAY: "replay", UNPROTECT_FORGED: "forged", UNPROTECT_RESERVED: "reserved"}


cdef class Sealer:
    """The sending keys of one direction."""

    cdef SendKeys keys

    def __cinit__(self, int suite, bytes secret):
        assert len(secret) == 32
        if send_keys_init(&self.keys, suite, exact(secret).p) != 0:
            raise ValueError(f"suite {suite} is not available")

    def __dealloc__(self):
        send_keys_wipe(&self.keys)

    def protect(self, bytes payload, uint64_t cid, uint32_t path, uint64_t counter):
        source, out = exact(payload), room(HEADER_BYTES + len(payload) + self.keys.aead.tag_bytes)
        return out.first(protect(&self.keys, out.p, source.p, source.n, cid, path, counter))

    def update(self):
        assert send_keys_update(&self.keys) == 0

    @property
    def epoch(self):
        return self.keys.epoch

    @property
    def sealed(self):
        return self.keys.sealed


cdef class Opener:
    """The receiving keys of one direction and the replay window of one path."""

    cdef RecvKeys keys
    cdef ReplayWindow window

    def __cinit__(self, int suite, bytes secret):
        assert len(secret) == 32
        replay_init(&self.window)
        if recv_keys_init(&self.keys, suite, exact(secret).p) != 0:
            raise ValueError(f"suite {suite} is not available")

    def __dealloc__(self):
        recv_keys_wipe(&self.keys)

    def unprotect(self, bytes packet, uint32_t path):
        """Return payload, counter and whether the peer has moved to the next epoch; or a problem's name."""
        cdef uint64_t counter = 0
        cdef bint is_update = False
        source = exact(packet)
        n = unprotect(&self.keys, &self.window, source.p, source.n, path, &counter, &is_update)
        if n < 0:
            return PROBLEMS[n]
        assert HEADER_BYTES + n <= source.n
        return <bytes>source.p[HEADER_BYTES:HEADER_BYTES + n], counter, bool(is_update)

    def update(self):
        assert recv_keys_update(&self.keys) == 0

    def forget_previous(self):
        recv_keys_forget_previous(&self.keys)

    @property
    def epoch(self):
        return self.keys.epoch

    @property
    def forged(self):
        return self.keys.forged

    @property
    def has_previous(self):
        return self.keys.previous.suite != 0

    @property
    def window_state(self):
        """Return everything that the replay window remembers."""
        return self.window.next, tuple([self.window.bits[i] for i in range(129)])
