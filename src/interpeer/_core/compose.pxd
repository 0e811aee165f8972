from libc.stdint cimport uint8_t

from interpeer._core.builder cimport Builder

cdef void compose_proof(Builder *b) noexcept nogil
cdef int compose_copy(Builder *b, const Builder *of, const uint8_t *frames, size_t n) noexcept nogil
cdef void compose_ack(Builder *b) noexcept nogil
cdef void compose_ping(Builder *b) noexcept nogil
cdef void compose_frames(Builder *b) noexcept nogil
