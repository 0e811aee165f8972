"""What kind of address somebody names: one that datagrams may be sent to, one of a local network (RFC 6890)."""

from libc.stdint cimport uint8_t

from interpeer._core.slab cimport Endpoint, endpoint_is_ipv4


cdef int address_refusal(const Endpoint *e, bint is_same_machine) noexcept nogil:
    """Return why nothing may be sent there, or ADDRESS_USABLE. Loopback is usable if both ends are on this machine."""
    cdef const uint8_t *a = &e.address[0]
    cdef bint has_zeros
    cdef int i
    if e.port == 0:
        return ADDRESS_NO_PORT
    if endpoint_is_ipv4(e):
        if a[12] == 0:
            return ADDRESS_UNSPECIFIED
        if a[12] == 127:
            return ADDRESS_USABLE if is_same_machine else ADDRESS_LOOPBACK
        if a[12] & 0xF0 == 0xE0:
            return ADDRESS_MULTICAST
        return ADDRESS_RESERVED if a[12] & 0xF0 == 0xF0 else ADDRESS_USABLE
    has_zeros = True
    for i in range(15):
        has_zeros = has_zeros and a[i] == 0
    if has_zeros and a[15] == 0:
        return ADDRESS_UNSPECIFIED
    if has_zeros and a[15] == 1:
        return ADDRESS_USABLE if is_same_machine else ADDRESS_LOOPBACK
    if a[0] == 0xFF:
        return ADDRESS_MULTICAST
    if a[0] == 0x01 and a[1] == 0:
        return ADDRESS_VIRTUAL
    if a[0] == 0xFE and a[1] & 0xC0 == 0x80:
        return ADDRESS_USABLE if e.scope else ADDRESS_NO_SCOPE
    if a[0] & 0xFE == 0xFC or a[0] & 0xE0 == 0x20 or (a[0] == 0 and a[1] == 0x64):
        return ADDRESS_USABLE       # unique local; global unicast; NAT64's well-known prefix
    return ADDRESS_RESERVED


cdef bint address_is_private(const Endpoint *e) noexcept nogil:
    """Tell whether the address means something in one local network only. A carrier's shared space (100.64/10) is none."""
    cdef const uint8_t *a = &e.address[0]
    if endpoint_is_ipv4(e):
        return (a[12] == 10 or a[12] == 127 or (a[12] == 172 and a[13] & 0xF0 == 16) or (a[12] == 192 and a[13] == 168)
                or (a[12] == 169 and a[13] == 254))
    return a[0] & 0xFE == 0xFC or (a[0] == 0xFE and a[1] & 0xC0 == 0x80) or a[0] == 0
