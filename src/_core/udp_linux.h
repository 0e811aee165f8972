/* What Linux has beyond POSIX: several messages in one call, segmentation offload, buffers past the limit for root.
 * Included by udp_sys.h before udp_posix.h, which uses the names defined here. */
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_RXQ_OVFL
#define SO_RXQ_OVFL 40
#endif
#ifndef IP_PMTUDISC_PROBE
#define IP_PMTUDISC_PROBE 3
#endif
#ifndef IPV6_PMTUDISC_PROBE
#define IPV6_PMTUDISC_PROBE 3
#endif

typedef struct mmsghdr SysHeader;

static inline int sys_has_mmsg(void) { return 0; }

static inline int sys_sendmmsg(int fd, SysHeader *headers, unsigned count) {
    int sent = sendmmsg(fd, headers, count, MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

static inline int sys_recvmmsg(int fd, SysHeader *headers, unsigned count) {
    int received = recvmmsg(fd, headers, count, MSG_DONTWAIT, NULL);
    return received < 0 ? -errno : received;
}

/* That the kernel knows the option says nothing of the interfaces: each send can still be refused. */
static inline int sys_has_gso(int64_t fd) {
    int segment;
    socklen_t bytes = sizeof segment;
    return getsockopt((int)fd, SOL_UDP, UDP_SEGMENT, &segment, &bytes) < 0 ? -errno : 0;
}

static inline int sys_has_ttl(int is_ipv6) { (void)is_ipv6; return 0; }

static inline int sys_enable_gro(int64_t fd) {
    int on = 1;
    return setsockopt((int)fd, SOL_UDP, UDP_GRO, &on, sizeof on) < 0 ? -errno : 0;
}

/* PROBE sets DF and does not let ICMP lower the size: path MTU discovery is the protocol's, ICMP only a hint. */
static inline int sys_forbid_fragments(int64_t fd, int is_ipv6) {
    int level = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP;
    int name = is_ipv6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER;
    int how = is_ipv6 ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;
    return setsockopt((int)fd, level, name, &how, sizeof how) < 0 ? -errno : 0;
}

/* Linux spreads what comes to one address over all sockets there; elsewhere the last one bound, or the first, gets it all. */
static inline int sys_share(int64_t fd) {
    int on = 1;
    return setsockopt((int)fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ? -errno : 0;
}

static inline int sys_steer(int64_t fd, const void *steps, uint32_t count) {
#ifdef SO_ATTACH_REUSEPORT_CBPF
    struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)steps};
    return setsockopt((int)fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0 ? -errno : 0;
#else
    (void)fd; (void)steps; (void)count;
    return -ENOPROTOOPT;
#endif
}

/* The kernel cuts the plain request down to rmem_max or wmem_max in silence, and tells twice what it gave. */
static inline uint32_t sys_enlarge(int64_t fd, int is_send, uint32_t wanted) {
    int name = is_send ? SO_SNDBUF : SO_RCVBUF, given = (int)wanted;
    socklen_t bytes = sizeof given;
    if (wanted && setsockopt((int)fd, SOL_SOCKET, is_send ? SO_SNDBUFFORCE : SO_RCVBUFFORCE, &given, sizeof given) < 0)
        (void)setsockopt((int)fd, SOL_SOCKET, name, &given, sizeof given);
    return getsockopt((int)fd, SOL_SOCKET, name, &given, &bytes) < 0 ? 0 : (uint32_t)given / 2;
}
