"""STUN messages (RFC 8489, and RFC 5780's attributes): parsed, bounds first; requests and answers, written.

A parser of what anybody may send: it believes no length before it has compared it with what is there, keeps pointers into
the message and nothing else, and takes a message whole or not at all. The node's answers are made in C, without Python
(module binding); requests, and all that has to do with passwords, are rare, and made of bytes objects.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

import hashlib
import hmac

cimport cython

from interpeer._core.crypto cimport HMAC_SHA256_BYTES, hmac_sha256
from interpeer._core.slab cimport Endpoint, endpoint_is_ipv4

REQUEST, INDICATION, SUCCESS, ERROR = STUN_REQUEST, STUN_INDICATION, STUN_SUCCESS, STUN_ERROR
BINDING = STUN_BINDING
CHANGES_PORT, CHANGES_ADDRESS = CHANGE_PORT, CHANGE_ADDRESS
# No server gives more bytes than it gets: this makes room for the longest answer, an IPv6 address and a fingerprint.
SOFTWARE = b"interpeer".ljust(20)

cdef enum:
    SHA1_BYTES = 20
    LEAST_SHA256_BYTES = 16         # a cut MESSAGE-INTEGRITY-SHA256 (RFC 8489, 14.6)
    FINGERPRINT_BYTES = 8           # header and value
    FINGERPRINT_XOR = 0x5354554E    # RFC 8489, 14.7
    FAMILY_IPV4 = 1
    FAMILY_IPV6 = 2
    ERROR_UNKNOWN_ATTRIBUTE = 420
    MAX_USERNAME_BYTES = 508        # RFC 8489, 14.3
    MAX_TEXT_BYTES = 763            # RFC 8489, 14.9 to 14.14: 127 characters of UTF-8

cdef uint32_t[256] CRC_TABLE


cdef void fill_crc_table() noexcept nogil:
    cdef uint32_t i, crc
    cdef int _bit
    for i in range(256):
        crc = i
        for _bit in range(8):
            crc = crc >> 1 ^ (<uint32_t>0xEDB88320 if crc & 1 else 0)
        CRC_TABLE[i] = crc


fill_crc_table()


# --- numbers ---

cdef inline uint32_t read_u16(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] << 8 | p[1]


cdef inline uint32_t read_u32(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline void write_u16(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void write_u32(uint8_t *p, uint32_t value) noexcept nogil:
    write_u16(p, value >> 16)
    write_u16(p + 2, value)


cdef uint32_t fingerprint(const uint8_t *p, uint32_t n) noexcept nogil:
    """Return what FINGERPRINT holds: the CRC-32 of what is before it, XOR a constant."""
    cdef uint32_t crc = 0xFFFFFFFF, i
    for i in range(n):
        crc = CRC_TABLE[(crc ^ p[i]) & 0xFF] ^ crc >> 8
    return crc ^ <uint32_t>0xFFFFFFFF ^ <uint32_t>FINGERPRINT_XOR


# --- reading ---

cdef int parse_stun(const uint8_t *p, uint32_t n, Stun *out) noexcept nogil:
    """Read a message that is all of `n` bytes. Return STUN_OK or STUN_MALFORMED."""
    cdef uint32_t at = STUN_HEADER_BYTES, kind, bytes, count = 0
    cdef uint32_t first = read_u16(p) if n >= STUN_HEADER_BYTES else 0xFFFF
    memset(out, 0, sizeof(Stun))
    if first >= 0x4000 or n % 4 or read_u16(p + 2) != n - STUN_HEADER_BYTES or read_u32(p + 4) != <uint32_t>STUN_MAGIC:
        return STUN_MALFORMED
    out.kind = <uint8_t>((first >> 7 & 2) | (first >> 4 & 1))
    out.method = <uint16_t>((first >> 2 & 0xF80) | (first >> 1 & 0x70) | (first & 0x0F))
    out.transaction = p + 8
    while at < n:                   # both are multiples of four, so there is a whole header
        kind = read_u16(p + at)
        bytes = read_u16(p + at + 2)
        count += 1
        if bytes > n - at - 4 or count > MAX_STUN_ATTRIBUTES or out.found & FOUND_FINGERPRINT:
            return STUN_MALFORMED   # whatever follows a fingerprint is not covered by it
        if parse_attribute(p, at, kind, bytes, out) != STUN_OK:
            return STUN_MALFORMED
        at += 4 + ((bytes + 3) & ~<uint32_t>3)
    return STUN_OK


cdef int parse_attribute(const uint8_t *p, uint32_t at, uint32_t kind, uint32_t bytes, Stun *out) noexcept nogil:
    """Read one attribute, whose value lies within the message. Of several alike the first counts."""
    cdef const uint8_t *value = p + at + 4
    if kind == ATTR_FINGERPRINT:
        out.found |= FOUND_FINGERPRINT
        return STUN_OK if bytes == 4 and read_u32(value) == fingerprint(p, at) else STUN_MALFORMED
    if out.integrity256_at or (out.integrity_at and kind != ATTR_INTEGRITY_SHA256):
        return STUN_OK              # not covered by it, and so not there (RFC 8489, 14.5 and 14.6)
    if kind == ATTR_INTEGRITY:
        out.integrity_at = at
        return STUN_OK if bytes == SHA1_BYTES else STUN_MALFORMED
    if kind == ATTR_INTEGRITY_SHA256:
        out.integrity256_at, out.integrity256_bytes = at, bytes
        return STUN_OK if LEAST_SHA256_BYTES <= bytes <= HMAC_SHA256_BYTES and bytes % 4 == 0 else STUN_MALFORMED
    if kind == ATTR_MAPPED_ADDRESS:
        return parse_address(value, bytes, NULL, &out.mapped, FOUND_MAPPED, out)
    if kind == ATTR_XOR_MAPPED_ADDRESS:
        return parse_address(value, bytes, p + 4, &out.xor_mapped, FOUND_XOR_MAPPED, out)
    if kind == ATTR_OTHER_ADDRESS:
        return parse_address(value, bytes, NULL, &out.other, FOUND_OTHER, out)
    if kind == ATTR_RESPONSE_ORIGIN:
        return parse_address(value, bytes, NULL, &out.origin, FOUND_ORIGIN, out)
    if kind == ATTR_ALTERNATE_SERVER:
        return parse_address(value, bytes, NULL, &out.alternate, FOUND_ALTERNATE, out)
    if kind == ATTR_USERNAME:
        return parse_text(value, bytes, MAX_USERNAME_BYTES, &out.username, FOUND_USERNAME, out)
    if kind == ATTR_REALM:
        return parse_text(value, bytes, MAX_TEXT_BYTES, &out.realm, FOUND_REALM, out)
    if kind == ATTR_NONCE:
        return parse_text(value, bytes, MAX_TEXT_BYTES, &out.nonce, FOUND_NONCE, out)
    if kind == ATTR_SOFTWARE:
        return parse_text(value, bytes, MAX_TEXT_BYTES, &out.software, FOUND_SOFTWARE, out)
    if kind == ATTR_CHANGE_REQUEST or kind == ATTR_RESPONSE_PORT or kind == ATTR_PADDING:
        return parse_behaviour(value, kind, bytes, out)
    if kind == ATTR_ERROR_CODE:
        return parse_error(value, bytes, out)
    if kind == ATTR_UNKNOWN_ATTRIBUTES:
        return parse_listed(value, bytes, out)
    if kind < 0x8000 and kind != ATTR_PASSWORD_ALGORITHM and kind != ATTR_USERHASH:
        if out.unknown_count < MAX_STUN_UNKNOWN:
            out.unknown[out.unknown_count] = <uint16_t>kind
        out.unknown_count += 1
    return STUN_OK


cdef inline bint is_first(Stun *out, uint32_t what) noexcept nogil:
    """Note that there is such an attribute; tell whether it is the first."""
    cdef bint is_new = not out.found & what
    out.found |= what
    return is_new


cdef int parse_address(const uint8_t *value, uint32_t bytes, const uint8_t *mask, Endpoint *to, uint32_t what,
                       Stun *out) noexcept nogil:
    """Read an address; `mask` points at what it was XORed with, magic and transaction. NULL: with nothing."""
    cdef uint8_t address[16]
    cdef uint32_t i, n = bytes - 4
    cdef uint32_t port
    if bytes < 4 or not ((value[1] == FAMILY_IPV4 and n == 4) or (value[1] == FAMILY_IPV6 and n == 16)):
        return STUN_MALFORMED
    port = read_u16(value + 2)
    if mask != NULL:
        port ^= read_u16(mask)
    if port == 0:                   # nobody sends from there, so it is nobody's
        return STUN_MALFORMED
    if not is_first(out, what):
        return STUN_OK
    for i in range(n):
        address[i] = value[4 + i] ^ (mask[i] if mask != NULL else 0)
    memset(to, 0, sizeof(Endpoint))
    to.port = <uint16_t>port
    if n == 4:
        to.address[10] = to.address[11] = 0xFF
    memcpy(to.address + 16 - n, address, n)
    return STUN_OK


cdef int parse_text(const uint8_t *value, uint32_t bytes, uint32_t most, Text *to, uint32_t what, Stun *out) noexcept nogil:
    if bytes > most:
        return STUN_MALFORMED
    if is_first(out, what):
        to.p, to.bytes = value, bytes
    return STUN_OK


cdef int parse_behaviour(const uint8_t *value, uint32_t kind, uint32_t bytes, Stun *out) noexcept nogil:
    """Read what RFC 5780 adds to requests."""
    if kind == ATTR_PADDING:
        if is_first(out, FOUND_PADDING):
            out.padding = bytes
        return STUN_OK
    if kind == ATTR_CHANGE_REQUEST:
        if bytes != 4:
            return STUN_MALFORMED
        if is_first(out, FOUND_CHANGE):
            out.change = read_u32(value) & (CHANGE_PORT | CHANGE_ADDRESS)
        return STUN_OK
    if (bytes != 2 and bytes != 4) or read_u16(value) == 0:     # some count what pads it
        return STUN_MALFORMED
    if is_first(out, FOUND_RESPONSE_PORT):
        out.response_port = <uint16_t>read_u16(value)
    return STUN_OK


cdef int parse_error(const uint8_t *value, uint32_t bytes, Stun *out) noexcept nogil:
    cdef uint32_t hundreds, rest
    if bytes < 4 or bytes - 4 > MAX_TEXT_BYTES:
        return STUN_MALFORMED
    hundreds, rest = value[2] & 7, value[3]
    if not 3 <= hundreds <= 6 or rest > 99:
        return STUN_MALFORMED
    if is_first(out, FOUND_ERROR):
        out.error = <uint16_t>(hundreds * 100 + rest)
        out.reason.p, out.reason.bytes = value + 4, bytes - 4
    return STUN_OK


cdef int parse_listed(const uint8_t *value, uint32_t bytes, Stun *out) noexcept nogil:
    cdef uint32_t i
    if bytes % 2:
        return STUN_MALFORMED
    if is_first(out, FOUND_UNKNOWN):
        out.listed_count = bytes // 2 if bytes // 2 < MAX_STUN_UNKNOWN else MAX_STUN_UNKNOWN
        for i in range(out.listed_count):
            out.listed[i] = <uint16_t>read_u16(value + 2 * i)
    return STUN_OK


# --- answers ---

cdef void write_head(uint8_t *p, uint32_t kind, const uint8_t *transaction) noexcept nogil:
    """Write a header of a Binding message without attributes."""
    write_u16(p, STUN_BINDING | (kind & 2) << 7 | (kind & 1) << 4)
    write_u16(p + 2, 0)
    write_u32(p + 4, <uint32_t>STUN_MAGIC)
    memcpy(p + 8, transaction, STUN_TRANSACTION_BYTES)


cdef uint32_t write_end(uint8_t *p, uint32_t n, uint32_t room, bint with_fingerprint) noexcept nogil:
    """Write the length of a message, and a fingerprint, if it is wanted and there is room. Return the bytes of all."""
    cdef uint32_t total = n + FINGERPRINT_BYTES if with_fingerprint and n + FINGERPRINT_BYTES <= room else n
    write_u16(p + 2, total - STUN_HEADER_BYTES)
    if total > n:
        write_u16(p + n, ATTR_FINGERPRINT)
        write_u16(p + n + 2, 4)
        write_u32(p + n + 4, fingerprint(p, n))
    return total


cdef uint32_t write_stun_success(uint8_t *p, uint32_t room, const uint8_t *transaction, const Endpoint *mapped,
                                 bint with_fingerprint) noexcept nogil:
    """Write a success response into STUN_ANSWER_BYTES that takes up no more than `room`. Return its bytes; 0: does not fit."""
    cdef bint is_ipv4 = endpoint_is_ipv4(mapped)
    cdef uint32_t n = 4 if is_ipv4 else 16, i
    if STUN_HEADER_BYTES + 8 + n > room:
        return 0
    write_head(p, STUN_SUCCESS, transaction)
    write_u16(p + 20, ATTR_XOR_MAPPED_ADDRESS)
    write_u16(p + 22, 4 + n)
    write_u16(p + 24, FAMILY_IPV4 if is_ipv4 else FAMILY_IPV6)
    write_u16(p + 26, mapped.port ^ read_u16(p + 4))
    for i in range(n):
        p[28 + i] = mapped.address[16 - n + i] ^ p[4 + i]
    return write_end(p, 28 + n, room, with_fingerprint)


cdef uint32_t write_stun_unknown(uint8_t *p, uint32_t room, const uint8_t *transaction, const uint16_t *unknown,
                                 uint32_t count, bint with_fingerprint) noexcept nogil:
    """Write the error response 420 likewise; it names as many of the attributes as it can, at least one."""
    cdef uint32_t i, n
    count = min(count, <uint32_t>MAX_STUN_UNKNOWN)
    n = STUN_HEADER_BYTES + 8 + 4 + ((2 * count + 3) & ~<uint32_t>3)
    while n > room and count > 2:
        count -= 1
        n = STUN_HEADER_BYTES + 8 + 4 + ((2 * count + 3) & ~<uint32_t>3)
    if n > room:
        return 0
    write_head(p, STUN_ERROR, transaction)
    write_u16(p + 20, ATTR_ERROR_CODE)
    write_u16(p + 22, 4)
    write_u32(p + 24, ERROR_UNKNOWN_ATTRIBUTE // 100 << 8 | ERROR_UNKNOWN_ATTRIBUTE % 100)
    write_u16(p + 28, ATTR_UNKNOWN_ATTRIBUTES)
    write_u16(p + 30, 2 * count)
    write_u16(p + n - 2, 0)         # what pads an odd number of them
    for i in range(count):
        write_u16(p + 32 + 2 * i, unknown[i])
    return write_end(p, n, room, with_fingerprint)


# --- Python ---

@cython.final
cdef class StunMessage:
    """What a message says. Addresses are (16 bytes, port, scope), None where there are none; texts are bytes."""

    cdef readonly int kind
    cdef readonly int method
    cdef readonly bytes transaction
    cdef readonly object mapped         # XOR-MAPPED-ADDRESS; else MAPPED-ADDRESS
    cdef readonly object other
    cdef readonly object origin
    cdef readonly object alternate
    cdef readonly int change            # CHANGES_*
    cdef readonly int response_port
    cdef readonly int padding
    cdef readonly int error
    cdef readonly bytes reason
    cdef readonly bytes username
    cdef readonly bytes realm
    cdef readonly bytes nonce
    cdef readonly bytes software
    cdef readonly tuple listed
    cdef readonly tuple unknown
    cdef readonly bint has_fingerprint
    cdef readonly bint has_integrity


cdef object address_of(const Stun *s, uint32_t what, const Endpoint *e):
    return (<bytes>e.address[:16], e.port, 0) if s.found & what else None


cdef bytes text_of(const Text *text):
    return <bytes>text.p[:text.bytes] if text.bytes else b""


def parse(bytes data not None):
    """Return what a message says, or None for what is none. Whom it is from, and whether to believe it, is for the caller."""
    cdef Stun s
    cdef StunMessage m
    if parse_stun(<const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>min(len(data), 0xFFFFFFFF), &s) != STUN_OK:
        return None
    m = StunMessage()
    m.kind, m.method = s.kind, s.method
    m.transaction = data[8:20]
    m.mapped = address_of(&s, FOUND_XOR_MAPPED, &s.xor_mapped) or address_of(&s, FOUND_MAPPED, &s.mapped)
    m.other = address_of(&s, FOUND_OTHER, &s.other)
    m.origin = address_of(&s, FOUND_ORIGIN, &s.origin)
    m.alternate = address_of(&s, FOUND_ALTERNATE, &s.alternate)
    m.change, m.response_port, m.padding, m.error = s.change, s.response_port, s.padding, s.error
    m.reason, m.username, m.realm = text_of(&s.reason), text_of(&s.username), text_of(&s.realm)
    m.nonce, m.software = text_of(&s.nonce), text_of(&s.software)
    m.listed = tuple([s.listed[i] for i in range(s.listed_count)])
    m.unknown = tuple([s.unknown[i] for i in range(min(s.unknown_count, <uint32_t>MAX_STUN_UNKNOWN))])
    m.has_fingerprint = s.found & FOUND_FINGERPRINT != 0
    m.has_integrity = s.integrity_at != 0 or s.integrity256_at != 0
    return m


def verify(bytes data not None, bytes key not None):
    """Tell whether a message carries an integrity that is right: by SHA-256, or where there is none, by SHA-1."""
    cdef Stun s
    if parse_stun(<const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>len(data), &s) != STUN_OK:
        return False
    if s.integrity256_at:
        return is_right(data, s.integrity256_at, s.integrity256_bytes, sha256_of(covered(data, s.integrity256_at,
                                                                                         s.integrity256_bytes), key))
    if s.integrity_at:
        return is_right(data, s.integrity_at, SHA1_BYTES, sha1_of(covered(data, s.integrity_at, SHA1_BYTES), key))
    return False


def binding_request(bytes transaction not None, *, int change=0, int response_port=0, bytes username not None=b"",
                    bytes key=None, bint with_sha1=False):
    """Return a Binding request with a fingerprint; with an integrity where there is a key. Raises ValueError.

    `change` is of CHANGES_*; `response_port` is where the answer shall go, 0: to where the request comes from."""
    if len(transaction) != STUN_TRANSACTION_BYTES:
        raise ValueError(f"a transaction id has {STUN_TRANSACTION_BYTES} bytes, not {len(transaction)}")
    if len(username) > MAX_USERNAME_BYTES:
        raise ValueError(f"a username has at most {MAX_USERNAME_BYTES} bytes, not {len(username)}")
    cdef bytes body = attribute(ATTR_SOFTWARE, SOFTWARE)
    if change:
        body += attribute(ATTR_CHANGE_REQUEST, change.to_bytes(4, "big"))
    if response_port:
        body += attribute(ATTR_RESPONSE_PORT, response_port.to_bytes(2, "big") + bytes(2))
    if username:
        body += attribute(ATTR_USERNAME, username)
    head = STUN_BINDING.to_bytes(2, "big") + bytes(2) + (<uint32_t>STUN_MAGIC).to_bytes(4, "big") + transaction
    data = head + body
    if key is not None:
        data = signed(data, key, ATTR_INTEGRITY if with_sha1 else ATTR_INTEGRITY_SHA256)
    data = with_length(data, len(data) + FINGERPRINT_BYTES)
    crc = fingerprint(<const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>len(data))
    return data + attribute(ATTR_FINGERPRINT, crc.to_bytes(4, "big"))


cdef bytes attribute(int kind, bytes value):
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) & 3)


cdef bytes with_length(bytes data, Py_ssize_t n):
    """Return a message with the length in its header that it will have with `n` bytes."""
    return data[:2] + (n - STUN_HEADER_BYTES).to_bytes(2, "big") + data[4:]


cdef bytes covered(bytes data, uint32_t at, uint32_t bytes_):
    """Return what an integrity of so many bytes is of: all before it, in a message that ends with it."""
    return with_length(data[:at], at + 4 + bytes_)


cdef bytes signed(bytes data, bytes key, int kind):
    cdef uint32_t n = SHA1_BYTES if kind == ATTR_INTEGRITY else HMAC_SHA256_BYTES
    text = covered(data, <uint32_t>len(data), n)
    return data + attribute(kind, sha1_of(text, key) if kind == ATTR_INTEGRITY else sha256_of(text, key))


cdef bytes sha256_of(bytes text, bytes key):
    cdef uint8_t mac[32]
    if hmac_sha256(mac, <const uint8_t *>PyBytes_AS_STRING(key), len(key), <const uint8_t *>PyBytes_AS_STRING(text),
                   len(text)) != 0:
        raise RuntimeError("libsodium cannot hash")
    return <bytes>mac[:HMAC_SHA256_BYTES]


cdef bytes sha1_of(bytes text, bytes key):
    """HMAC-SHA1, which libsodium does not have; some peers know nothing else."""
    return hmac.digest(key, text, hashlib.sha1)


cdef bint is_right(bytes data, uint32_t at, uint32_t n, bytes mac):
    return hmac.compare_digest(data[at + 4:at + 4 + n], mac[:n])
