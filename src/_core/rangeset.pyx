"""Sets of integers kept as ascending, disjoint ranges: packets received, bytes received, acknowledged, lost.

The common case, growing the last range, costs one comparison. Everything else is a binary search and one move of the
tail. A set refuses to hold more ranges than its limit, so that gaps sent by a hostile peer cost bounded memory
(CVE-2026-25800, aioquic#501); the caller decides whether to drop the oldest range or to close.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove


cdef void ranges_init(RangeSet *set, uint32_t limit) noexcept nogil:
    set.ranges = NULL
    set.count = 0
    set.capacity = 0
    set.limit = limit


cdef void ranges_free(RangeSet *set) noexcept nogil:
    """Give the memory back; the set is empty and usable again."""
    free(set.ranges)
    set.ranges = NULL
    set.count = 0
    set.capacity = 0


cdef uint32_t ranges_search(const RangeSet *set, uint64_t value) noexcept nogil:
    """Return the index of the first range that ends after `value` (`count` if there is none)."""
    cdef uint32_t low = 0, high = set.count, middle
    while low < high:
        middle = (low + high) >> 1
        if set.ranges[middle].end <= value:
            low = middle + 1
        else:
            high = middle
    return low


cdef bint ranges_contain(const RangeSet *set, uint64_t value) noexcept nogil:
    cdef uint32_t i = ranges_search(set, value)
    return i < set.count and set.ranges[i].start <= value


cdef int ranges_add(RangeSet *set, uint64_t start, uint64_t end) noexcept nogil:
    """Add [start, end). Ranges that overlap or touch it become one."""
    cdef uint32_t first, last
    cdef Range *r
    if start >= end:
        return RANGES_OK
    if set.count and start >= set.ranges[set.count - 1].start:
        r = &set.ranges[set.count - 1]
        if start <= r.end:
            if end > r.end:
                r.end = end
            return RANGES_OK
        return insert(set, set.count, start, end)
    # the first range that touches or passes `start`, and one past the last that `end` reaches
    first = ranges_search(set, start - 1) if start else 0
    last = first
    while last < set.count and set.ranges[last].start <= end:
        last += 1
    if first == last:
        return insert(set, first, start, end)
    r = &set.ranges[first]
    if start < r.start:
        r.start = start
    if set.ranges[last - 1].end > end:
        end = set.ranges[last - 1].end
    if end > r.end:
        r.end = end
    erase(set, first + 1, last)
    return RANGES_OK


cdef int ranges_remove(RangeSet *set, uint64_t start, uint64_t end) noexcept nogil:
    """Remove [start, end). May split a range in two, and so may find the set full."""
    cdef uint32_t first, last
    cdef uint64_t tail
    cdef int result
    if start >= end:
        return RANGES_OK
    first = ranges_search(set, start)
    if first < set.count and set.ranges[first].start < start:
        tail = set.ranges[first].end
        if tail > end:
            result = insert(set, first + 1, end, tail)
            if result != RANGES_OK:
                return result
        set.ranges[first].end = start
        first += 1
    last = first
    while last < set.count and set.ranges[last].end <= end:
        last += 1
    if last < set.count and set.ranges[last].start < end:
        set.ranges[last].start = end
    erase(set, first, last)
    return RANGES_OK


cdef void ranges_drop_lowest(RangeSet *set) noexcept nogil:
    if set.count:
        erase(set, 0, 1)


cdef int insert(RangeSet *set, uint32_t index, uint64_t start, uint64_t end) noexcept nogil:
    cdef uint32_t capacity
    cdef Range *grown
    if set.count == set.limit:
        return RANGES_FULL
    if set.count == set.capacity:
        capacity = set.capacity * 2 if set.capacity else 4
        grown = <Range *>realloc(set.ranges, capacity * sizeof(Range))
        if grown == NULL:
            return RANGES_NO_MEMORY
        set.ranges = grown
        set.capacity = capacity
    memmove(&set.ranges[index + 1], &set.ranges[index], (set.count - index) * sizeof(Range))
    set.ranges[index].start = start
    set.ranges[index].end = end
    set.count += 1
    return RANGES_OK


cdef void erase(RangeSet *set, uint32_t first, uint32_t last) noexcept nogil:
    """Take out the ranges with indices [first, last); a set that is empty keeps only a small array."""
    if first >= last:
        return
    memmove(&set.ranges[first], &set.ranges[last], (set.count - last) * sizeof(Range))
    set.count -= last - first
    if set.count == 0 and set.capacity > 8:
        ranges_free(set)
