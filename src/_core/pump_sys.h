/* The pump's own system calls: a timer precise enough for pacing, waiting for several sockets, and waking who waits.

   pump_timer_open / pump_timer_set / pump_timer_clear   a descriptor that becomes readable at a time; -1 where there is none
   pump_wait      wait until one of some sockets is ready, or a time has passed; -1 ns: for ever. Returns a set of bits
   pump_signal    make the other end of a socket pair readable
   pump_drain     take the signals out again                                                                            */
#ifndef INTERPEER_PUMP_SYS_H
#define INTERPEER_PUMP_SYS_H

#include <stdint.h>

#if defined(_WIN32)
#include <winsock2.h>
typedef WSAPOLLFD pump_pollfd;
typedef SOCKET pump_fd;
#else
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
typedef struct pollfd pump_pollfd;
typedef int pump_fd;
#endif

#if defined(__linux__)
#include <sys/timerfd.h>

static inline int pump_timer_open(void) { return timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC); }

static inline int pump_timer_set(int fd, uint64_t at_ns)
{
    struct itimerspec t = {{0, 0}, {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)}};
    return timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static inline void pump_timer_clear(int fd)
{
    uint64_t expirations;
    ssize_t n = read(fd, &expirations, sizeof expirations);
    (void)n;
}

static inline void pump_timer_close(int fd) { close(fd); }
#else
static inline int pump_timer_open(void) { return -1; }
static inline int pump_timer_set(int fd, uint64_t at_ns) { (void)fd; (void)at_ns; return -1; }
static inline void pump_timer_clear(int fd) { (void)fd; }
static inline void pump_timer_close(int fd) { (void)fd; }
#endif

/* Bit i of the result: fds[i] can be read, asked for by bit i of `reading`. Bit i + 16: it can be written to, by `writing`. */
static inline uint32_t pump_wait(const int64_t *fds, int count, uint32_t reading, uint32_t writing, int64_t timeout_ns)
{
    pump_pollfd p[15];      /* more would not fit in the bits of the result */
    uint32_t ready = 0;
    int i, n;
    for (i = 0; i < count; i++) {
        p[i].fd = (pump_fd)fds[i];
        p[i].events = (short)((reading >> i & 1 ? POLLIN : 0) | (writing >> i & 1 ? POLLOUT : 0));
        p[i].revents = 0;
    }
#if defined(__linux__)
    struct timespec t = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    n = ppoll(p, (nfds_t)count, timeout_ns < 0 ? NULL : &t, NULL);
#else
    int timeout_ms = timeout_ns < 0 ? -1 : (int)(timeout_ns / 1000000 < 1000000 ? (timeout_ns + 999999) / 1000000 : 1000000);
#if defined(_WIN32)
    n = WSAPoll(p, (ULONG)count, timeout_ms);
#else
    n = poll(p, (nfds_t)count, timeout_ms);
#endif
#endif
    for (i = 0; n > 0 && i < count; i++) {
        if (p[i].revents & (POLLIN | POLLERR | POLLHUP)) ready |= 1u << i;
        if (p[i].revents & POLLOUT) ready |= 1u << (i + 16);
    }
    return ready;
}

static inline void pump_signal(int64_t fd)
{
    char one = 1;
    int n = (int)send((pump_fd)fd, &one, 1, 0);
    (void)n; /* full: the other end has enough signals already */
}

static inline void pump_drain(int64_t fd)
{
    char many[64];
    while ((int)recv((pump_fd)fd, many, sizeof many, 0) == (int)sizeof many) { }
}

#endif
