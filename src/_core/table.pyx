"""A hash table from 64-bit numbers to pointers: open addressing, linear probing, deletion by shifting back.

Keys are numbers that we have given out ourselves (connection ids), that come in a row (stream ids), or that peers choose
(tokens, macs). For these the hash depends on a secret, so that nobody can choose them to collide.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    FIRST_SLOTS = 8

cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15


cdef void table_init(Table *t, uint64_t secret) noexcept nogil:
    """Begin an empty table; `secret` is 0 where nobody outside chooses the keys (multiply-shift hashing, Dietzfelbinger)."""
    memset(t, 0, sizeof(Table))
    t.multiplier = (GOLDEN ^ secret) | 1


cdef void table_free(Table *t) noexcept nogil:
    free(t.keys)
    free(t.values)
    table_init(t, t.multiplier ^ GOLDEN)


cdef inline uint32_t slot_of(const Table *t, uint64_t key) noexcept nogil:
    return <uint32_t>((key * t.multiplier) >> 32) & (t.capacity - 1)


cdef void *table_find(const Table *t, uint64_t key) noexcept nogil:
    cdef uint32_t i
    if t.count == 0:
        return NULL
    i = slot_of(t, key)
    while t.keys[i]:
        if t.keys[i] == key:
            return t.values[i]
        i = (i + 1) & (t.capacity - 1)
    return NULL


cdef int table_put(Table *t, uint64_t key, void *value) noexcept nogil:
    """Set the value of a key. Return 0, or -1 without memory (and then nothing has changed)."""
    cdef uint32_t i
    if t.count * 4 >= t.capacity * 3 and resize(t, t.capacity * 2 if t.capacity else FIRST_SLOTS) != 0:
        return -1
    i = slot_of(t, key)
    while t.keys[i] and t.keys[i] != key:
        i = (i + 1) & (t.capacity - 1)
    if t.keys[i] == 0:
        t.count += 1
    t.keys[i] = key
    t.values[i] = value
    return 0


cdef void *table_remove(Table *t, uint64_t key) noexcept nogil:
    """Take a key out and return its value; NULL if it is not there."""
    cdef uint32_t i, hole, home
    cdef void *value
    if t.count == 0:
        return NULL
    i = slot_of(t, key)
    while t.keys[i] != key:
        if t.keys[i] == 0:
            return NULL
        i = (i + 1) & (t.capacity - 1)
    value = t.values[i]
    t.count -= 1
    hole = i
    while True:
        i = (i + 1) & (t.capacity - 1)
        if t.keys[i] == 0:
            break
        home = slot_of(t, t.keys[i])
        # move it back unless its home lies behind the hole, cyclically
        if ((i - home) & (t.capacity - 1)) >= ((i - hole) & (t.capacity - 1)):
            t.keys[hole] = t.keys[i]
            t.values[hole] = t.values[i]
            hole = i
    t.keys[hole] = 0
    if t.count == 0:
        table_free(t)
    elif t.capacity > FIRST_SLOTS and t.count * 8 < t.capacity:
        resize(t, t.capacity // 2)  # without memory it merely stays large
    return value


cdef int resize(Table *t, uint32_t capacity) noexcept nogil:
    cdef Table old = t[0]
    cdef uint32_t i
    t.keys = <uint64_t *>calloc(capacity, sizeof(uint64_t))
    t.values = <void **>calloc(capacity, sizeof(void *))
    if t.keys == NULL or t.values == NULL:
        free(t.keys)
        free(t.values)
        t[0] = old
        return -1
    t.capacity = capacity
    t.count = 0
    for i in range(old.capacity):
        if old.keys[i]:
            table_put(t, old.keys[i], old.values[i])
    free(old.keys)
    free(old.values)
    return 0
