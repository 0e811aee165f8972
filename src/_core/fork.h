/* Noticing forks, for the one module that includes this: keys and packet numbers belong to one process. */
#ifndef INTERPEER_FORK_H
#define INTERPEER_FORK_H

/* How many forks lie between this process and the one that loaded the library. */
static volatile long fork_generation = 0;

#if defined(_WIN32)
static int watch_forks(void) { return 0; }
#else
#include <pthread.h>
static void note_fork(void) { fork_generation++; }
static int watch_forks(void) { return pthread_atfork(NULL, NULL, note_fork); }
#endif

#endif
