from libc.stdint cimport uint64_t

from interpeer._core.engine cimport Engine

cpdef uint64_t wire_code(code) except? 0xFFFFFFFFFFFFFFFF
cdef int take_lock(Engine engine) except -1
cdef int leave(Engine engine, bint may_tell=*) except -1
cdef int kick(Engine engine) except -1
cdef int begin_alone(long *users) except -1
cdef void end_alone(long *users) noexcept nogil
cdef void kick_from_destructor(Engine engine) noexcept
