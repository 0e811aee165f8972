/* What differs between systems and compilers, for the modules that need no sockets: atomics, and giving way to a thread. */
#ifndef INTERPEER_PLATFORM_H
#define INTERPEER_PLATFORM_H

#include <stddef.h>

#if defined(_MSC_VER)
#include <intrin.h>
static inline void *atomic_swap_pointer(void **at, void *value) { return _InterlockedExchangePointer(at, value); }
static inline int atomic_replace_pointer(void **at, void *expected, void *value)
{
    return _InterlockedCompareExchangePointer(at, value, expected) == expected;
}
static inline void *atomic_load_pointer(void **at) { return _InterlockedCompareExchangePointer(at, NULL, NULL); }
static inline void atomic_add_long(long *at, long value) { _InterlockedExchangeAdd(at, value); }
static inline long atomic_sum_long(long *at, long value) { return _InterlockedExchangeAdd(at, value) + value; }
static inline long atomic_load_long(long *at) { return _InterlockedExchangeAdd(at, 0); }
static inline long atomic_swap_long(long *at, long value) { return _InterlockedExchange(at, value); }
#else
static inline void *atomic_swap_pointer(void **at, void *value) { return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL); }
static inline int atomic_replace_pointer(void **at, void *expected, void *value)
{
    return __atomic_compare_exchange_n(at, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
static inline void *atomic_load_pointer(void **at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void atomic_add_long(long *at, long value) { __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL); }
static inline long atomic_sum_long(long *at, long value) { return __atomic_add_fetch(at, value, __ATOMIC_ACQ_REL); }
static inline long atomic_load_long(long *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline long atomic_swap_long(long *at, long value) { return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL); }
#endif

#if defined(_WIN32)
#include <windows.h>
static inline void yield_thread(void) { SwitchToThread(); }
#else
#include <sched.h>
static inline void yield_thread(void) { sched_yield(); }
#endif

#endif
