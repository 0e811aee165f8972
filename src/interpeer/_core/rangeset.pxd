from libc.stdint cimport uint32_t, uint64_t

cdef struct Range:
    uint64_t start                  # first value in the range
    uint64_t end                    # one past its last value

cdef struct RangeSet:
    Range *ranges                   # ascending, disjoint, never touching; owned; NULL until something is added
    uint32_t count
    uint32_t capacity
    uint32_t limit                  # more ranges than this are refused: what a hostile peer can make us keep

cdef enum:
    RANGES_OK = 0
    RANGES_FULL = -1                # the limit of ranges is reached; the set is unchanged
    RANGES_NO_MEMORY = -2

cdef void ranges_init(RangeSet *set, uint32_t limit) noexcept nogil
cdef void ranges_free(RangeSet *set) noexcept nogil
cdef int ranges_add(RangeSet *set, uint64_t start, uint64_t end) noexcept nogil
cdef int ranges_remove(RangeSet *set, uint64_t start, uint64_t end) noexcept nogil
cdef void ranges_drop_lowest(RangeSet *set) noexcept nogil
cdef bint ranges_contain(const RangeSet *set, uint64_t value) noexcept nogil
cdef uint32_t ranges_search(const RangeSet *set, uint64_t value) noexcept nogil
