from interpeer._core.engine cimport Engine

cdef int take_lock(Engine engine) except -1
cdef int leave(Engine engine, bint may_tell=*) except -1
cdef void kick_from_destructor(Engine engine) noexcept
