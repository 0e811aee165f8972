from interpeer._core.buffer cimport BlockPools

cdef class Pools:
    cdef BlockPools pools
