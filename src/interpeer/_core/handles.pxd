from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.conn cimport Conn, Handle
from interpeer._core.engine cimport Engine
from interpeer._core.stream cimport Stream

cdef class ConnectionHandle:
    cdef readonly Engine engine
    cdef Handle *handle             # ours until the destructor hands it back to the engine
    cdef public object owner        # the Connection above
    cdef object __weakref__

    cdef Conn *enter(self) except NULL
    cdef StreamHandle wrap(self, Stream *s)

cdef class StreamHandle:
    cdef readonly ConnectionHandle connection
    cdef Stream *stream             # the engine's; alive until the destructor hands it back
    cdef readonly uint64_t id
    cdef bint has_loan              # `loan` is being sent without a copy
    cdef Py_buffer loan
    cdef uint64_t loan_end          # offset behind it in the stream
    cdef readonly bint has_post     # `posted` is being received into
    cdef Py_buffer posted

    cdef Conn *enter(self) except NULL
