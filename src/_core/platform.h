/* What differs between systems and compilers, for the modules that need no system calls: atomics and fork detection. */
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
static inline void atomic_add(long *at, long value) { _InterlockedExchangeAdd(at, value); }
static inline long atomic_load(long *at) { return _InterlockedExchangeAdd(at, 0); }
#else
static inline void *atomic_swap_pointer(void **at, void *value) { return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL); }
static inline int atomic_replace_pointer(void **at, void *expected, void *value)
{
    return __atomic_compare_exchange_n(at, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
static inline void *atomic_load_pointer(void **at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void atomic_add(long *at, long value) { __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL); }
static inline long atomic_load(long *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
#endif

/* How many forks lie between this process and the one that loaded the library: keys and nonces belong to one process. */
static volatile long fork_generation = 0;

#if defined(_WIN32)
static int watch_forks(void) { return 0; }
#else
#include <pthread.h>
static void note_fork(void) { fork_generation++; }
static int watch_forks(void) { return pthread_atfork(NULL, NULL, note_fork); }
#endif

#endif
