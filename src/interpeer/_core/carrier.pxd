from libc.stdint cimport uint8_t, uint32_t

from interpeer._core.conn cimport Conn
from interpeer._core.context cimport Context
from interpeer._core.path cimport Path
from interpeer._core.relay cimport LEG_BYTES
from interpeer._core.slab cimport ENDPOINT_LEG, Datagrams, Endpoint, endpoint_kind

cdef Path *carrier_path(const Conn *c) noexcept nogil
cdef bint carrier_has_heard(const Conn *c, const Datagrams *from_) noexcept nogil
cdef bint carrier_direct(Context *x, Datagrams *d, const Endpoint *remote, const uint8_t *local) noexcept nogil
cdef void carrier_ask(Context *x, const Path *p) noexcept nogil


cdef inline uint32_t lead_bytes(const Endpoint *remote) noexcept nogil:
    """Return how many bytes go in front of each packet to an address."""
    return LEG_BYTES if endpoint_kind(remote.address) == ENDPOINT_LEG else 0
