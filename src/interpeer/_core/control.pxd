from interpeer._core.slab cimport Endpoint

cdef int read_endpoint(address, Endpoint *out) except -1
