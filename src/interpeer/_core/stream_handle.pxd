from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.engine cimport Engine
from interpeer._core.stream cimport Stream

cdef class StreamHandle
cdef StreamHandle wrap_stream(Engine engine, object connection, Stream *s)

cdef class StreamHandle:
    cdef Engine engine
    cdef readonly object connection  # the ConnectionHandle, which keeps the connection alive
    cdef Stream *stream             # the engine's; alive until the destructor hands it back
    cdef readonly uint64_t id
    cdef bint has_loan              # `loan` is being sent without a copy
    cdef Py_buffer loan
    cdef uint64_t loan_end          # offset behind it in the stream
    cdef readonly bint has_post     # `posted` is being received into
    cdef Py_buffer posted

    cdef Conn *enter(self) except NULL
    cdef uint64_t copy_rest(self, uint8_t *out, uint64_t n) except? 0xFFFFFFFFFFFFFFFF
