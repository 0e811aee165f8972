"""Probes and their answers as bytes: 64 of them, with the receiver's token in front and a MAC of the receiver's key behind."""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.crypto cimport MAC_BYTES, blake2b, equal_secret


cdef int parse_punch(const uint8_t *p, size_t n, const uint8_t *token, const uint8_t *key,
                     PunchMessage *out) noexcept nogil:
    """Read a datagram for the machine with this token and key. Return PUNCH_OK or why it is to be dropped."""
    cdef uint8_t mac[16]
    if n != PUNCH_BYTES or (p[0] != MESSAGE_PROBE and p[0] != MESSAGE_ANSWER) or p[1] != PUNCH_VERSION:
        return PUNCH_MALFORMED
    if memcmp(p + 2, token, PUNCH_TOKEN_BYTES) != 0:
        return PUNCH_STRANGER
    if blake2b(mac, MAC_BYTES, p, PUNCH_MAC_AT, NULL, 0, key, PUNCH_KEY_BYTES) != 0 \
            or not equal_secret(mac, p + PUNCH_MAC_AT, MAC_BYTES):
        return PUNCH_FORGED
    memset(out, 0, sizeof(PunchMessage))
    out.is_answer = p[0] == MESSAGE_ANSWER
    out.flags = p[PUNCH_FLAGS_AT]
    memcpy(out.nonce, p + PUNCH_NONCE_AT, PUNCH_NONCE_BYTES)
    if out.is_answer:
        out.observed.port = <uint16_t>(p[PUNCH_PORT_AT] << 8 | p[PUNCH_PORT_AT + 1])
        memcpy(out.observed.address, p + PUNCH_ADDRESS_AT, 16)
    return PUNCH_OK


cdef int write_punch(uint8_t *p, const PunchMessage *message, const uint8_t *token, const uint8_t *key) noexcept nogil:
    """Write PUNCH_BYTES bytes for the machine with this token and key. Return 0 or -1."""
    memset(p, 0, PUNCH_BYTES)
    p[0] = MESSAGE_ANSWER if message.is_answer else MESSAGE_PROBE
    p[1] = PUNCH_VERSION
    memcpy(p + 2, token, PUNCH_TOKEN_BYTES)
    memcpy(p + PUNCH_NONCE_AT, message.nonce, PUNCH_NONCE_BYTES)
    p[PUNCH_FLAGS_AT] = message.flags
    if message.is_answer:
        p[PUNCH_PORT_AT] = <uint8_t>(message.observed.port >> 8)
        p[PUNCH_PORT_AT + 1] = <uint8_t>message.observed.port
        memcpy(p + PUNCH_ADDRESS_AT, message.observed.address, 16)
    return blake2b(p + PUNCH_MAC_AT, MAC_BYTES, p, PUNCH_MAC_AT, NULL, 0, key, PUNCH_KEY_BYTES)
