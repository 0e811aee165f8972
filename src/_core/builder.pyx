"""A packet in the making: where its frames go, and the record of them for when it is acknowledged or lost."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from interpeer._core.slab cimport pool_take
from interpeer._core.wire cimport write_varint


cdef FrameRecord *add_record(Builder *b, uint8_t kind, uint64_t stream) noexcept nogil:
    """Remember a frame beyond the first STREAM frame, for when the packet is lost; NULL without memory."""
    cdef FrameRecord *record = <FrameRecord *>pool_take(&b.c.context.records)
    if record == NULL:
        b.c.context.counters.no_memory += 1
        return NULL
    memset(record, 0, sizeof(FrameRecord))
    record.kind = kind
    record.stream = stream
    record.next = b.sent.more
    b.sent.more = record
    return record


cdef void write_number(Builder *b, uint64_t type, uint64_t value) noexcept nogil:
    b.at = write_varint(write_varint(b.at, type), value)
    b.is_eliciting = True
