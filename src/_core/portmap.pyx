"""What is said to a gateway that maps ports, and what it answers: PCP (RFC 6887) and NAT-PMP (RFC 6886).

Requests are written, answers are read: a node is never the gateway. A reader checks lengths before anything else, copies
into a struct of fixed size, and takes nothing from a length but where the next option starts. Whether an answer belongs to a
request is for interpeer._portmap to say.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset


cdef inline uint16_t read_u16(const uint8_t *p) noexcept nogil:
    return <uint16_t>(p[0] << 8 | p[1])


cdef inline uint32_t read_u32(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline void write_u16(uint8_t *p, uint16_t value) noexcept nogil:
    p[0] = value >> 8
    p[1] = value & 0xFF


cdef inline void write_u32(uint8_t *p, uint32_t value) noexcept nogil:
    write_u16(p, value >> 16)
    write_u16(p + 2, value & 0xFFFF)


# --- PCP ---


cdef void write_pcp_header(uint8_t *out, uint8_t opcode, uint32_t lifetime_s, const uint8_t *client) noexcept nogil:
    """Write the first 24 bytes of a request (RFC 6887, section 7.1)."""
    memset(out, 0, PCP_HEADER_BYTES)
    out[0] = PCP_VERSION
    out[1] = opcode
    write_u32(out + 4, lifetime_s)
    memcpy(out + 8, client, 16)


cdef int read_option(const uint8_t *p, Py_ssize_t n, uint8_t code, PcpAnswer *out) noexcept nogil:
    """Take an option's data. Options that we do not know are no business of ours (RFC 6887, section 7.3)."""
    cdef PcpFilter *f
    if code == PCP_THIRD_PARTY:
        if n != 16 or out.has_third_party:
            return PORTMAP_OPTION
        out.has_third_party = True
        memcpy(out.third_party, p, 16)
    elif code == PCP_PREFER_FAILURE:
        if n != 0:
            return PORTMAP_OPTION
        out.has_prefer_failure = True
    elif code == PCP_FILTER:
        if n != 20 or p[1] > 128 or out.filter_count == MAX_PCP_FILTERS:
            return PORTMAP_OPTION
        f = &out.filters[out.filter_count]
        out.filter_count += 1
        f.prefix_bits = p[1]
        f.port = read_u16(p + 2)
        memcpy(f.address, p + 4, 16)
    return PORTMAP_OK


cdef int read_options(const uint8_t *p, Py_ssize_t n, PcpAnswer *out) noexcept nogil:
    cdef Py_ssize_t at = 0, bytes, padded
    cdef int result
    while at < n:
        if n - at < 4:
            return PORTMAP_OPTION
        bytes = read_u16(p + at + 2)
        padded = (bytes + 3) & ~3
        if padded > n - at - 4:
            return PORTMAP_OPTION
        result = read_option(p + at + 4, bytes, p[at], out)
        if result != PORTMAP_OK:
            return result
        at += 4 + padded
    return PORTMAP_OK


cdef int read_pcp(const uint8_t *p, Py_ssize_t n, PcpAnswer *out) noexcept nogil:
    """Read an answer, or an announcement that nobody has asked for. Return PORTMAP_*."""
    memset(out, 0, sizeof(PcpAnswer))
    if n < PCP_HEADER_BYTES or n > MAX_PCP_BYTES or n & 3:
        return PORTMAP_SHORT
    if p[0] != PCP_VERSION or not p[1] & 0x80:
        return PORTMAP_OTHER
    out.opcode = p[1] & 0x7F
    out.result = p[3]
    out.lifetime_s = read_u32(p + 4)
    out.epoch_s = read_u32(p + 8)
    if out.opcode == PCP_ANNOUNCE:
        return read_options(p + PCP_HEADER_BYTES, n - PCP_HEADER_BYTES, out)
    if out.opcode != PCP_MAP:
        return PORTMAP_OTHER
    if n < PCP_MAP_BYTES:
        return PORTMAP_SHORT
    memcpy(out.nonce, p + 24, 12)
    out.protocol = p[36]
    out.internal_port = read_u16(p + 40)
    out.external_port = read_u16(p + 42)
    memcpy(out.external_address, p + 44, 16)
    return read_options(p + PCP_MAP_BYTES, n - PCP_MAP_BYTES, out)


# --- NAT-PMP ---


cdef int read_natpmp(const uint8_t *p, Py_ssize_t n, NatpmpAnswer *out) noexcept nogil:
    """Read an answer, or an announcement that nobody has asked for. Return PORTMAP_*.

    It may be longer: some gateways pad."""
    memset(out, 0, sizeof(NatpmpAnswer))
    if n < NATPMP_ERROR_BYTES or n > MAX_PCP_BYTES:
        return PORTMAP_SHORT
    if p[0] != NATPMP_VERSION or not p[1] & 0x80:
        return PORTMAP_OTHER
    out.opcode = p[1] & 0x7F
    out.result = read_u16(p + 2)
    out.epoch_s = read_u32(p + 4)
    if out.result != 0:             # what else it has means nothing
        return PORTMAP_OK
    if out.opcode == NATPMP_ADDRESS:
        if n < NATPMP_ADDRESS_BYTES:
            return PORTMAP_SHORT
        memcpy(out.external_address, p + 8, 4)
        return PORTMAP_OK
    if out.opcode != NATPMP_MAP_UDP:
        return PORTMAP_OTHER
    if n < NATPMP_MAP_BYTES:
        return PORTMAP_SHORT
    out.internal_port = read_u16(p + 8)
    out.external_port = read_u16(p + 10)
    out.lifetime_s = read_u32(p + 12)
    return PORTMAP_OK


# --- for Python ---


cdef const uint8_t *exactly(bytes content, Py_ssize_t n, str what) except NULL:
    if len(content) != n:
        raise ValueError(f"{what} has {n} bytes, not {len(content)}")
    return <const uint8_t *>content


def pcp_announce(bytes client not None):
    """Write a request that changes nothing; the answer tells the epoch."""
    cdef uint8_t out[24]
    write_pcp_header(out, PCP_ANNOUNCE, 0, exactly(client, 16, "an address"))
    return <bytes>out[:PCP_HEADER_BYTES]


def pcp_map(bytes nonce not None, bytes client not None, uint8_t protocol, uint16_t internal_port, uint16_t external_port,
            bytes external_address not None, uint32_t lifetime_s):
    """Write a request for a mapping; a `lifetime_s` of 0 ends it (RFC 6887, section 11.1)."""
    cdef uint8_t out[60]
    write_pcp_header(out, PCP_MAP, lifetime_s, exactly(client, 16, "an address"))
    memset(out + PCP_HEADER_BYTES, 0, PCP_MAP_BYTES - PCP_HEADER_BYTES)
    memcpy(out + 24, exactly(nonce, 12, "a nonce"), 12)
    out[36] = protocol
    write_u16(out + 40, internal_port)
    write_u16(out + 42, external_port)
    memcpy(out + 44, exactly(external_address, 16, "an address"), 16)
    return <bytes>out[:PCP_MAP_BYTES]


def parse_pcp(const uint8_t[::1] data not None):
    """Return an answer's fields; None if it is none (see portmap.pyi)."""
    cdef PcpAnswer a
    cdef Py_ssize_t n = data.shape[0]
    if n == 0 or read_pcp(&data[0], n, &a) != PORTMAP_OK:
        return None
    filters = tuple([(f.prefix_bits, f.port, <bytes>f.address[:16]) for f in a.filters[:a.filter_count]])
    return (a.opcode, a.result, a.lifetime_s, a.epoch_s, <bytes>a.nonce[:12], a.protocol, a.internal_port, a.external_port,
            <bytes>a.external_address[:16], <bytes>a.third_party[:16] if a.has_third_party else None,
            bool(a.has_prefer_failure), filters)


def natpmp_address():
    """Write a request for the gateway's external address, which changes nothing."""
    return bytes((NATPMP_VERSION, NATPMP_ADDRESS))


def natpmp_map(uint16_t internal_port, uint16_t external_port, uint32_t lifetime_s):
    """Write a request for a mapping of UDP; a `lifetime_s` of 0 ends it (RFC 6886, section 3.4)."""
    cdef uint8_t out[12]
    memset(out, 0, 12)
    out[0] = NATPMP_VERSION
    out[1] = NATPMP_MAP_UDP
    write_u16(out + 4, internal_port)
    write_u16(out + 6, external_port)
    write_u32(out + 8, lifetime_s)
    return <bytes>out[:12]


def parse_natpmp(const uint8_t[::1] data not None):
    """Return an answer's fields; None if it is none (see portmap.pyi)."""
    cdef NatpmpAnswer a
    cdef Py_ssize_t n = data.shape[0]
    if n == 0 or read_natpmp(&data[0], n, &a) != PORTMAP_OK:
        return None
    return (a.opcode, a.result, a.epoch_s, <bytes>a.external_address[:4], a.internal_port, a.external_port, a.lifetime_s)
