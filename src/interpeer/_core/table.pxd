from libc.stdint cimport uint32_t, uint64_t

cdef struct Table:                  # uint64 -> pointer; the key 0 is not allowed
    uint64_t *keys                  # 0: free; owned
    void **values                   # owned (the array, not what it points to)
    uint32_t capacity               # a power of two, or 0
    uint32_t count
    uint64_t multiplier             # odd; secret where peers can choose keys

cdef void table_init(Table *t, uint64_t secret) noexcept nogil
cdef void table_free(Table *t) noexcept nogil
cdef void *table_find(const Table *t, uint64_t key) noexcept nogil
cdef int table_put(Table *t, uint64_t key, void *value) noexcept nogil
cdef void *table_remove(Table *t, uint64_t key) noexcept nogil
