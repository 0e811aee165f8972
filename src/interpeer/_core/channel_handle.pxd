from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.conn cimport Conn
from interpeer._core.engine cimport Engine
from interpeer._core.stream cimport Stream
from interpeer._core.wire cimport Capabilities

cdef class ChannelHandle
cdef ChannelHandle wrap_channel(Engine engine, object connection, Stream *s)
cdef int read_capabilities(tuple values, Capabilities *out) except -1

cdef class ChannelHandle:
    cdef Engine engine
    cdef readonly object connection  # the ConnectionHandle, which keeps the connection alive
    cdef Stream *stream             # the engine's; alive until the destructor hands it back
    cdef readonly uint64_t id
    cdef readonly uint64_t key      # under which events tell of it

    cdef Conn *enter(self) except NULL
    cdef int queue(self, const uint8_t *data, uint64_t n) except? -100
