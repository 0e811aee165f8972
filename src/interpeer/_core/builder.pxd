from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.loss cimport FrameRecord, SentPacket
from interpeer._core.path cimport Path

cdef enum:
    FRAME_ROOM = 25                 # the longest of most control frames: a type and three varints
    STREAM_ROOM = 32                # less than this is not worth a frame with data

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

cdef inline size_t room(const Builder *b) noexcept nogil:
    return b.end - b.at if b.tail == NULL else 0

cdef FrameRecord *add_record(Builder *b, uint8_t kind, uint64_t stream) noexcept nogil
cdef void write_number(Builder *b, uint64_t type, uint64_t value) noexcept nogil
