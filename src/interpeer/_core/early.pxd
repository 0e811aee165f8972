from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.slab cimport Datagrams

cdef enum:
    EARLY_BYTES = 1208              # a leg's id and an init: nothing else is kept
    EARLY_CALLS = 16                # whoever sends more pushes others out, who call again
    EARLY_NS = 500000000            # after so long they have

cdef struct EarlyCall:
    uint64_t leg                    # 0: none
    uint64_t at_ns                  # when it came
    Datagrams datagram              # its `data` are those below
    uint8_t data[1208]

cdef struct Early:                  # a ring
    EarlyCall calls[16]
    uint32_t next

cdef int early_keep(Early **early, uint64_t leg, const uint8_t *data, const Datagrams *from_, uint64_t now_ns) noexcept nogil
cdef EarlyCall *early_take(Early *early, uint64_t leg, uint64_t now_ns) noexcept nogil
