from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.loss cimport SentPacket
from interpeer._core.path cimport Path

cdef struct Builder:                # a packet in the making
    Conn *c
    Path *path
    uint8_t *start                  # of the packet
    uint8_t *at                     # where the next frame goes
    uint8_t *end                    # where the tag goes at the latest
    uint8_t *tail                   # the last frame's data, still where they wait in a stream's buffer; NULL: copied
    uint64_t tail_bytes
    SentPacket *sent
    uint64_t now_ns
    bint is_eliciting
    uint8_t *repeatable             # from here on it may go on another path as well ...
    bint is_repeatable              # ... if nothing in it would then be there twice

cdef void compose_proof(Builder *b) noexcept nogil
cdef int compose_copy(Builder *b, const Builder *of, const uint8_t *frames, size_t n) noexcept nogil
cdef void compose_ack(Builder *b) noexcept nogil
cdef void compose_ping(Builder *b) noexcept nogil
cdef void compose_frames(Builder *b) noexcept nogil
