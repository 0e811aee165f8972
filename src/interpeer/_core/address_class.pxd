from interpeer._core.slab cimport Endpoint

cdef enum:                          # why nothing is sent to an address that somebody names
    ADDRESS_USABLE = 0
    ADDRESS_NO_PORT = 1
    ADDRESS_UNSPECIFIED = 2
    ADDRESS_LOOPBACK = 3
    ADDRESS_MULTICAST = 4
    ADDRESS_RESERVED = 5            # 240.0.0.0/4, broadcast, and what IPv6 has not given out
    ADDRESS_VIRTUAL = 6             # 0100::/64, discard-only: ours for what is no socket address
    ADDRESS_NO_SCOPE = 7            # link-local, and nobody knows of which link

cdef int address_refusal(const Endpoint *e, bint is_same_machine) noexcept nogil
cdef bint address_is_private(const Endpoint *e) noexcept nogil
