from libc.stdint cimport uint8_t

cdef class Exact:                   # memory of its own that ends where the bytes end, so that a sanitizer sees a step too far
    cdef uint8_t *memory            # owned
    cdef uint8_t *p                 # the bytes
    cdef readonly Py_ssize_t n

    cdef bytes first(self, Py_ssize_t n)

cdef Exact exact(bytes content)
cdef Exact room(Py_ssize_t n)
