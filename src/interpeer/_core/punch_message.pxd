from libc.stdint cimport uint8_t

from interpeer._core.slab cimport Endpoint

# The two datagrams of punching (docs/spec, chapter 24). They are of one size, so that no answer is larger than its cause.

cdef enum:
    MESSAGE_PROBE = 0x45
    MESSAGE_ANSWER = 0x46
    PUNCH_VERSION = 1
    PUNCH_BYTES = 64                # exactly, both
    PUNCH_TOKEN_BYTES = 8
    PUNCH_KEY_BYTES = 32
    PUNCH_NONCE_BYTES = 8
    PUNCH_NONCE_AT = 10
    PUNCH_FLAGS_AT = 18
    PUNCH_PORT_AT = 20              # of the observed address
    PUNCH_ADDRESS_AT = 22
    PUNCH_MAC_AT = 48               # over everything before it
    PUNCH_NOMINATED = 0x01          # flag: use this pair

cdef enum:                          # why a datagram is dropped
    PUNCH_OK = 0
    PUNCH_MALFORMED = -1            # not 64 bytes, or neither message, or of another version
    PUNCH_STRANGER = -2             # another machine's token
    PUNCH_FORGED = -3               # the MAC is wrong

cdef struct PunchMessage:
    bint is_answer
    uint8_t flags
    uint8_t nonce[8]                # chosen by who probes; an answer repeats it
    Endpoint observed               # answer: where the probe came from. Not in a probe

cdef int parse_punch(const uint8_t *p, size_t n, const uint8_t *token, const uint8_t *key,
                     PunchMessage *out) noexcept nogil
cdef int write_punch(uint8_t *p, const PunchMessage *message, const uint8_t *token, const uint8_t *key) noexcept nogil
