from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# The whole wire format in one place: docs/spec 3 (packets), 4 (handshake), 6 (frames). Limits say what they protect.

cdef enum:                          # packets
    VERSION = 1
    CID_BYTES = 8                   # connection id, chosen by the receiver; its top bit is set
    HEADER_BYTES = 16               # connection id 8, flags 1, counter 7
    COUNTER_BITS = 56
    MIN_PACKET_BYTES = 32           # a header and the sample that the header mask is computed from
    BASE_DATAGRAM_BYTES = 1200      # what every path must carry (RFC 9000, 14)
    RESET_BYTES = 40                # of a stateless reset; only longer packets are answered by one
    MAX_UDP_PAYLOAD_ACCEPTED = 65507
    EPOCH_MASK = 0x03               # bits of the flags byte; the others must be zero
    CID_FLAG = 0x80                 # first bit of every connection id; handshake messages have 01, STUN has 00

cdef enum:                          # handshake messages: type 1, version 1, connection id 8, ...
    MESSAGE_INIT = 0x41
    MESSAGE_RESPONSE = 0x42
    MESSAGE_COOKIE = 0x43
    MESSAGE_VERSIONS = 0x44
    MESSAGE_PROBE = 0x45            # of a path through NATs (chapter 24); no handshake's
    MESSAGE_PROBE_ANSWER = 0x46
    MESSAGE_HEADER_BYTES = 10
    INIT_BYTES = 1200               # exactly: no reply is larger, and the path carries what we need
    INIT_MACS_BYTES = 32            # mac1 and mac2, the last bytes of an init
    INIT_PAYLOAD_BYTES = 1062       # 1200 - 10 (header) - 32 (e) - 48 (s) - 16 (tag) - 32 (macs)
    MAX_RESPONSE_BYTES = 512        # of a response; ours have about 150
    MAX_VERSIONS = 16               # listed in a versions reply
    MAX_PROTOCOL_BYTES = 64         # name of an application protocol
    MAX_REASON_BYTES = 256          # reason phrase of a close or a refusal; longer ones are cut
    MAX_ACK_DELAY_US = 16384000     # that a peer may announce, since probes wait for it (RFC 9000, 18.2: 2^14 ms)
    MAX_IDLE_TIMEOUT_MS = 0x7FFFFFFF    # 24 days; more counts as that, so that nanoseconds fit in 64 bits

cdef enum:                          # parameters in the handshake's encrypted payloads
    PARAM_PADDING = 0x00            # fills an init to its size; the one parameter that may be repeated
    PARAM_SUITES = 0x01             # init: one byte each, in order of preference; response: the one chosen
    PARAM_PROTOCOL = 0x02
    PARAM_MAX_DATA = 0x03
    PARAM_MAX_STREAM_DATA = 0x04
    PARAM_MAX_STREAMS = 0x05
    PARAM_MAX_DATAGRAM = 0x06       # largest DATAGRAM payload accepted; 0: none
    PARAM_IDLE_TIMEOUT = 0x07       # milliseconds; 0: never
    PARAM_MAX_ACK_DELAY = 0x08      # microseconds
    PARAM_MAX_UDP_PAYLOAD = 0x09
    PARAM_RESET_TOKEN = 0x0A
    PARAM_REFUSAL = 0x0B            # response: an error code and a reason, in place of everything else
    PARAM_CONNECTION_ID = 0x0C      # response: the responder's
    PARAM_RECEIVE_BUFFER = 0x0D     # bytes that the sender's socket holds until they are read
    PARAM_MAX_PATHS = 0x0E          # paths at once; 0 or 1: no other than that of the handshake
    PARAM_MAX_CHANNELS = 0x10
    PARAM_MAX_MESSAGE = 0x11        # largest message accepted on a channel
    PARAMS_KNOWN = 0x12
    ABSENT_MAX_PATHS = 4            # what a parameter counts as that is not there: the defaults of interpeer.Config, which
    ABSENT_MAX_CHANNELS = 4096      # thus cost no bytes; 1200 for MAX_UDP_PAYLOAD, 0 for the other numbers
    ABSENT_MAX_MESSAGE = 16777216

cdef enum:                          # frames
    FRAME_PADDING = 0x00
    FRAME_PING = 0x01
    FRAME_ACK = 0x02                # 0x03 with ECN counts
    FRAME_ACK_ECN = 0x03
    FRAME_RESET_STREAM = 0x04
    FRAME_STOP_SENDING = 0x05
    FRAME_CLOSE = 0x06              # by the transport
    FRAME_CLOSE_APP = 0x07          # by the application
    FRAME_STREAM = 0x08             # to 0x0F, with the three bits below
    STREAM_FIN = 0x01
    STREAM_LEN = 0x02
    STREAM_OFF = 0x04
    FRAME_MAX_DATA = 0x10
    FRAME_MAX_STREAM_DATA = 0x11
    FRAME_MAX_STREAMS = 0x12
    FRAME_DATAGRAM = 0x16           # to the end of the packet; 0x17 with its length
    FRAME_DATAGRAM_LEN = 0x17
    FRAME_NEW_CONNECTION_ID = 0x18
    FRAME_RETIRE_CONNECTION_ID = 0x19
    FRAME_PATH_CHALLENGE = 0x1A
    FRAME_PATH_RESPONSE = 0x1B
    FRAME_PATH_ABANDON = 0x1C
    FRAME_PATH_STATUS = 0x1D
    CHALLENGE_BYTES = 8             # of a PATH_CHALLENGE and its answer
    RESET_TOKEN_BYTES = 16
    FRAME_REKEY = 0x1E              # fresh keys: the sender's epoch that uses them first, and a Noise message
    FRAME_REKEY_ANSWER = 0x1F
    FRAME_CHANNEL = 0x20            # to 0x2F: channels
    FRAME_MAX_CHANNELS = 0x21
    FRAME_CHANNEL_MAX_DATA = 0x22
    FRAME_CHANNEL_RESET = 0x23
    FRAME_CHANNEL_STOP = 0x24
    FRAME_DROPPED = 0x25
    FRAME_REPAIR = 0x26
    FRAME_MESSAGES = 0x2C           # to 0x2F, with STREAM_FIN and STREAM_LEN
    FRAME_CHANNELS_END = 0x30
    FRAME_IGNORABLE = 0x40          # types from here on carry their length, and unknown ones are skipped
    FRAME_SIGNAL = 0x40             # its number, and a message for the node itself
    FRAME_OBSERVED_ADDRESS = 0x41   # number of the report, path, address, port
    MAX_ACK_RANGES = 64             # in one ACK frame, ours and theirs
    REKEY_MESSAGE_BYTES = 96        # of Noise IK's first message without a payload: e 32, s 48, tag 16
    REKEY_ANSWER_MESSAGE_BYTES = 48     # and of its second: e 32, tag 16

cdef enum:                          # error codes of CLOSE frames, RESET_STREAM uses the application's own
    CODE_NO_ERROR = 0x00
    CODE_INTERNAL = 0x01
    CODE_FRAME_ENCODING = 0x02      # a frame cannot be read
    CODE_FLOW_CONTROL = 0x03        # more data than was allowed
    CODE_STREAM_LIMIT = 0x04        # more streams than were allowed
    CODE_STREAM_STATE = 0x05        # a frame for a stream that cannot have it
    CODE_FINAL_SIZE = 0x06          # two sizes for one stream
    CODE_PROTOCOL = 0x07            # anything else that the rules forbid
    CODE_PARAMETER = 0x08           # transport parameters that cannot be read or do not fit
    CODE_AEAD_LIMIT = 0x09          # too many forged packets under one key
    CODE_GAPS = 0x0A                # more gaps in a stream than are kept
    CODE_CONNECTION_ID = 0x0B       # more connection ids than are kept, or one that cannot be
    CODE_MESSAGE_SIZE = 0x0C        # a message larger than is accepted
    CODE_REFUSED = 0x10             # the peer's policy does not let us in
    CODE_UNKNOWN_PROTOCOL = 0x11
    CODE_BUSY = 0x12                # no room for another connection
    CODE_NO_SUITE = 0x13            # no cipher in common
    CODE_IDENTITY = 0x14            # the identity in the handshake does not match its key

cdef enum:                          # Capabilities.flags
    CAN_RESEND = 0x01               # what is lost is sent again
    CAN_ORDER = 0x02                # delivered in the order in which they were sent
    CAN_CLOSE_ON_LOSS = 0x04        # the first message that is given up ends the channel
    CAPABILITY_FLAGS = 0x07
    PRIORITIES = 8                  # classes, 0 the most urgent
    DEFAULT_PRIORITY = 3
    MAX_FEC_WINDOW = 64             # messages that a repair covers, and repairs for them
    MESSAGE_HEADER_SIZE = 8         # before each message: a bit for its order, 31 for its size, 32 of its number

cdef enum:
    PARSE_OK = 0
    PARSE_END = 1                   # nothing left
    PARSE_ERROR = -1

cdef struct Reader:                 # where a parser stands; it never reads at or past `end`
    const uint8_t *p
    const uint8_t *end

cdef struct Capabilities:           # of one side of a channel
    uint8_t flags
    uint8_t priority                # class
    uint8_t fec_data                # after so many messages ...
    uint8_t fec_repair              # ... so many repairs follow; 0: none
    uint64_t deadline_us            # 0: none

cdef struct Frame:                  # one frame; which fields are set depends on its type
    uint64_t type
    uint64_t id                     # stream; NEW_, RETIRE_CONNECTION_ID, PATH_STATUS: sequence number
    uint64_t offset                 # STREAM: of the data; RESET_STREAM: final size
    uint64_t value                  # code, limit, largest acknowledged
    const uint8_t *data             # points into the packet; not owned. NEW_CONNECTION_ID: id and token
    uint64_t bytes                  # of data
    bint fin
    uint64_t within                 # MESSAGES, DROPPED: from the start of the message that they begin in
    uint64_t count                  # DROPPED: messages
    Capabilities capabilities       # CHANNEL
    uint64_t path                   # ACK: the path whose packets it acknowledges; frames of paths: which
    uint64_t delay_us               # ACK
    uint64_t ranges                 # ACK: ranges still to be read by ack_next
    Reader rest                     # ACK: where they are
    uint64_t ecn[3]                 # ACK_ECN: packets received with ECT(0), ECT(1), CE

cdef struct Parameters:
    uint8_t suites[8]               # in order of preference, 0 where there are fewer; a response has one
    const uint8_t *protocol         # points into the payload; not owned
    uint32_t protocol_bytes
    uint64_t max_data
    uint64_t max_stream_data
    uint64_t max_streams
    uint64_t max_datagram
    uint64_t idle_timeout_ms
    uint64_t max_ack_delay_us
    uint64_t max_udp_payload
    uint64_t receive_buffer         # 0: not said
    uint64_t max_paths
    uint64_t max_channels           # 0: the peer takes no channels
    uint64_t max_message
    uint8_t reset_token[16]
    bint has_reset_token
    uint64_t connection_id
    uint64_t refusal                # error code; 0: not refused
    const uint8_t *reason           # of a refusal; points into the payload
    uint32_t reason_bytes

cdef int read_varint(Reader *r, uint64_t *value) noexcept nogil
cdef int parse_frame(Reader *r, Frame *f) noexcept nogil
cdef int ack_next(Frame *f, uint64_t *low, uint64_t *high) noexcept nogil
cdef void absent_parameters(Parameters *out) noexcept nogil
cdef int parse_parameters(const uint8_t *p, size_t n, Parameters *out) noexcept nogil
cdef Py_ssize_t write_parameters(uint8_t *p, size_t room, const Parameters *in_) noexcept nogil

cdef inline size_t varint_bytes(uint64_t value) noexcept nogil:
    return 1 if value < 0x40 else 2 if value < 0x4000 else 4 if value < 0x40000000 else 8

cdef inline uint8_t *write_varint(uint8_t *p, uint64_t value) noexcept nogil:
    """Write 1, 2, 4 or 8 bytes (RFC 9000, 16; value < 2^62); the shortest form, the only one that is accepted."""
    if value < 0x40:
        p[0] = <uint8_t>value
        return p + 1
    if value < 0x4000:
        p[0] = <uint8_t>(0x40 | value >> 8)
        p[1] = <uint8_t>value
        return p + 2
    if value < 0x40000000:
        p[0] = <uint8_t>(0x80 | value >> 24)
        p[1] = <uint8_t>(value >> 16)
        p[2] = <uint8_t>(value >> 8)
        p[3] = <uint8_t>value
        return p + 4
    write_u64(p, value | <uint64_t>0xC0 << 56)
    return p + 8

cdef inline void write_u64(uint8_t *p, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        p[i] = <uint8_t>(value >> (56 - 8 * i))

cdef inline uint64_t read_u64(const uint8_t *p) noexcept nogil:
    return (<uint64_t>p[0] << 56 | <uint64_t>p[1] << 48 | <uint64_t>p[2] << 40 | <uint64_t>p[3] << 32
            | <uint64_t>p[4] << 24 | <uint64_t>p[5] << 16 | <uint64_t>p[6] << 8 | <uint64_t>p[7])
