from libc.stdint cimport uint8_t, uint16_t, uint32_t

from interpeer._core.slab cimport Endpoint

cdef enum:
    STUN_MAGIC = 0x2112A442         # RFC 8489, 5
    STUN_HEADER_BYTES = 20
    STUN_TRANSACTION_BYTES = 12
    STUN_BINDING = 0x001            # the only method spoken
    STUN_ANSWER_BYTES = 64          # room for whatever is answered: 56 are the most
    MAX_STUN_ATTRIBUTES = 64        # in one message; nobody sends a quarter of that
    MAX_STUN_UNKNOWN = 4            # attributes that we do not know, told in one error: what fits is about that

cdef enum:                          # classes
    STUN_REQUEST = 0
    STUN_INDICATION = 1
    STUN_SUCCESS = 2
    STUN_ERROR = 3

cdef enum:                          # attributes; below 0x8000 whoever does not know one must not act on the message
    ATTR_MAPPED_ADDRESS = 0x0001
    ATTR_CHANGE_REQUEST = 0x0003    # RFC 5780, 7.2
    ATTR_USERNAME = 0x0006
    ATTR_INTEGRITY = 0x0008
    ATTR_ERROR_CODE = 0x0009
    ATTR_UNKNOWN_ATTRIBUTES = 0x000A
    ATTR_REALM = 0x0014
    ATTR_NONCE = 0x0015
    ATTR_INTEGRITY_SHA256 = 0x001C
    ATTR_PASSWORD_ALGORITHM = 0x001D
    ATTR_USERHASH = 0x001E
    ATTR_XOR_MAPPED_ADDRESS = 0x0020
    ATTR_PADDING = 0x0026           # RFC 5780, 7.6
    ATTR_RESPONSE_PORT = 0x0027     # RFC 5780, 7.5
    ATTR_SOFTWARE = 0x8022
    ATTR_ALTERNATE_SERVER = 0x8023
    ATTR_FINGERPRINT = 0x8028
    ATTR_RESPONSE_ORIGIN = 0x802B   # RFC 5780, 7.3
    ATTR_OTHER_ADDRESS = 0x802C     # RFC 5780, 7.4

cdef enum:                          # Stun.found: which fields are set, a bit each
    FOUND_MAPPED = 0x0001
    FOUND_XOR_MAPPED = 0x0002
    FOUND_OTHER = 0x0004
    FOUND_ORIGIN = 0x0008
    FOUND_ALTERNATE = 0x0010
    FOUND_CHANGE = 0x0020
    FOUND_RESPONSE_PORT = 0x0040
    FOUND_PADDING = 0x0080
    FOUND_ERROR = 0x0100
    FOUND_UNKNOWN = 0x0200
    FOUND_USERNAME = 0x0400
    FOUND_REALM = 0x0800
    FOUND_NONCE = 0x1000
    FOUND_SOFTWARE = 0x2000
    FOUND_FINGERPRINT = 0x4000

cdef enum:                          # of CHANGE-REQUEST
    CHANGE_PORT = 0x02
    CHANGE_ADDRESS = 0x04

cdef enum:
    STUN_OK = 0
    STUN_MALFORMED = -1

cdef struct Text:                   # of an attribute
    const uint8_t *p                # points into the message; not owned
    uint32_t bytes

cdef struct Stun:                   # a message
    uint8_t kind                    # STUN_REQUEST, ...
    uint16_t method
    const uint8_t *transaction      # points into the message; not owned
    uint32_t found                  # FOUND_*
    Endpoint mapped
    Endpoint xor_mapped
    Endpoint other
    Endpoint origin
    Endpoint alternate
    uint32_t change                 # CHANGE_*
    uint16_t response_port
    uint32_t padding                # bytes
    uint16_t error                  # 300 to 699
    Text reason
    Text username
    Text realm
    Text nonce
    Text software
    uint16_t listed[4]              # of UNKNOWN-ATTRIBUTES: what the server did not know
    uint32_t listed_count
    uint16_t unknown[4]             # attributes here that we do not know, and must
    uint32_t unknown_count          # more than fit are counted, too
    uint32_t integrity_at           # where MESSAGE-INTEGRITY begins; 0: there is none
    uint32_t integrity256_at
    uint32_t integrity256_bytes     # of its value, which may be cut

cdef int parse_stun(const uint8_t *p, uint32_t n, Stun *out) noexcept nogil
cdef uint32_t write_stun_success(uint8_t *p, uint32_t room, const uint8_t *transaction, const Endpoint *mapped,
                                 bint with_fingerprint) noexcept nogil
cdef uint32_t write_stun_unknown(uint8_t *p, uint32_t room, const uint8_t *transaction, const uint16_t *unknown,
                                 uint32_t count, bint with_fingerprint) noexcept nogil
