from interpeer._core.builder cimport Builder
from interpeer._core.stream cimport Stream

cdef void write_channel_control(Builder *b, Stream *s) noexcept nogil
cdef bint write_messages(Builder *b, Stream *s) noexcept nogil
