from libc.stdint cimport uint64_t

cdef enum:
    PUNCH_AGAIN_NS = 5000000000     # after the first failure; doubles
    PUNCH_AGAIN_MOST_NS = 600000000000
    PUNCH_AGAIN_LEAST_NS = 1000000000       # between two attempts, however often the network changes
