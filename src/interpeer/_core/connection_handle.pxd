from interpeer._core.conn cimport Conn, Handle
from interpeer._core.engine cimport Engine

cdef class ConnectionHandle:
    cdef readonly Engine engine
    cdef Handle *handle             # ours until the destructor hands it back to the engine
    cdef public object owner        # the Connection above
    cdef object __weakref__

    cdef Conn *enter(self) except NULL

cdef ConnectionHandle new_handle(Engine engine)
cdef void attach_handle(ConnectionHandle handle, Handle *core, object reference) noexcept
