from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.stream cimport Stream
from interpeer._core.wire cimport Frame

cdef int channel_handle_messages(Stream *s, const Frame *f, uint64_t credit, uint64_t max_message,
                                 uint64_t *grown) noexcept nogil
cdef int channel_handle_repair(Stream *s, const Frame *f, uint64_t credit, uint64_t max_message,
                               uint64_t *grown) noexcept nogil
cdef int channel_handle_dropped(Stream *s, const Frame *f, uint64_t credit, uint64_t *grown, uint64_t *freed) noexcept nogil
cdef void channel_forget_received(Stream *s) noexcept nogil
cdef bint channel_has_message(Stream *s) noexcept nogil

cdef struct InMessage:              # a message to be delivered
    uint64_t start                  # of its header
    uint64_t bytes
    uint64_t number

cdef bint channel_next_message(Stream *s, InMessage *out) noexcept nogil
cdef uint64_t channel_take_message(Stream *s, const InMessage *m, uint8_t *out) noexcept nogil
