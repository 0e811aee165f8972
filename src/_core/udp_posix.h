/* The functions of udp_sys.h for POSIX systems. What only Linux has is in udp_linux.h; macOS and the BSDs, which have
 * neither several messages in one call nor segmentation, say so here. */
#ifdef __APPLE__
#define __APPLE_USE_RFC_3542 /* without it the header hides IPV6_RECVPKTINFO */
#endif
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "udp_address.h"

#ifndef __linux__
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} SysHeader;

static inline int sys_has_mmsg(void) { return -ENOSYS; }
static inline int sys_has_gso(int64_t fd) { (void)fd; return -ENOPROTOOPT; }
/* RFC 3542 has it for IPv6; for IPv4 macOS does not. */
static inline int sys_has_ttl(int is_ipv6) { return is_ipv6 ? 0 : -ENOPROTOOPT; }
static inline int sys_enable_gro(int64_t fd) { (void)fd; return -ENOPROTOOPT; }
static inline int sys_share(int64_t fd) { (void)fd; return -ENOPROTOOPT; }
static inline int sys_steer(int64_t fd, const void *steps, uint32_t count) { (void)fd; (void)steps; (void)count; return -ENOPROTOOPT; }
static inline int sys_sendmmsg(int fd, SysHeader *h, unsigned n) { (void)fd; (void)h; (void)n; return -ENOSYS; }
static inline int sys_recvmmsg(int fd, SysHeader *h, unsigned n) { (void)fd; (void)h; (void)n; return -ENOSYS; }

static inline int sys_forbid_fragments(int64_t fd, int is_ipv6) {
    int on = 1;
#if defined(IP_DONTFRAG) && defined(IPV6_DONTFRAG)
    return setsockopt((int)fd, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_DONTFRAG : IP_DONTFRAG, &on, sizeof on) < 0 ? -errno : 0;
#else
    (void)fd; (void)is_ipv6; (void)on;
    return -ENOPROTOOPT;
#endif
}

/* These systems refuse what is past their limit instead of cutting it down. */
static inline uint32_t sys_enlarge(int64_t fd, int is_send, uint32_t wanted) {
    int name = is_send ? SO_SNDBUF : SO_RCVBUF, given = 0, asked = (int)wanted;
    socklen_t bytes = sizeof given;
    uint32_t before = getsockopt((int)fd, SOL_SOCKET, name, &given, &bytes) < 0 ? 0 : (uint32_t)given;
    while ((uint32_t)asked > before && setsockopt((int)fd, SOL_SOCKET, name, &asked, sizeof asked) < 0)
        asked /= 2;
    return getsockopt((int)fd, SOL_SOCKET, name, &given, &bytes) < 0 ? 0 : (uint32_t)given;
}
#endif

enum { SYS_CONTROL_BYTES = 128 }; /* the widest set, IPv6 with every control message received, takes 112 on Linux */

typedef union {
    struct cmsghdr alignment;
    uint8_t bytes[SYS_CONTROL_BYTES];
} SysControl;

typedef struct {
    SysHeader send[SYS_SEND];
    struct iovec send_part[SYS_SEND];
    SysAddress send_name[SYS_SEND];
    SysControl send_control[SYS_SEND];
    SysHeader recv[SYS_RECV];
    struct iovec recv_part[SYS_RECV];
    SysAddress recv_name[SYS_RECV];
    SysControl recv_control[SYS_RECV];
} SysSlots;

static inline int sys_start(void) { return 0; }

static inline int64_t sys_socket(int is_ipv6) {
    int on = 1, error;
#ifdef SOCK_NONBLOCK
    int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0)
        return -errno;
#else
    int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        goto failed;
#endif
    if (is_ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
        goto failed;
    return fd;
failed:
    error = errno;
    close(fd);
    return -error;
}

static inline int sys_bind(int64_t fd, int is_ipv6, const uint8_t address[16], uint16_t port, uint32_t scope) {
    SysAddress a;
    socklen_t bytes = sys_write_address(&a, is_ipv6, address, port, scope);
    return bind((int)fd, &a.any, bytes) < 0 ? -errno : 0;
}

static inline int sys_local(int64_t fd, uint8_t address[16], uint16_t *port, uint32_t *scope) {
    SysAddress a;
    socklen_t bytes = sizeof a;
    memset(&a, 0, sizeof a);
    return getsockname((int)fd, &a.any, &bytes) < 0 ? -errno : sys_read_address(&a, address, port, scope);
}

static inline void sys_close(int64_t fd) { close((int)fd); }

/* Without IP_RECVERR a socket that is not connected is told nothing. */
static inline void sys_ignore_icmp(int64_t fd) { (void)fd; }

static inline int sys_switch_on(int64_t fd, int level, int name) {
    int on = 1;
    return setsockopt((int)fd, level, name, &on, sizeof on) < 0 ? -errno : 0;
}

static inline int sys_set_ttl(int64_t fd, int is_ipv6, int ttl) {
    int level = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, name = is_ipv6 ? IPV6_UNICAST_HOPS : IP_TTL, before = 0;
    socklen_t bytes = sizeof before;
    if (getsockopt((int)fd, level, name, &before, &bytes) < 0 || setsockopt((int)fd, level, name, &ttl, sizeof ttl) < 0)
        return -errno;
    return before;
}

/* Control messages exist on every POSIX system; the count of lost datagrams comes with them where there is one. */
static inline int sys_enable_control(int64_t fd, SysSlots *s) {
#ifdef SO_RXQ_OVFL
    (void)sys_switch_on(fd, SOL_SOCKET, SO_RXQ_OVFL);
#endif
    (void)fd;
    (void)s;
    return 0;
}

static inline int sys_enable_ecn(int64_t fd, int is_ipv6) {
    return is_ipv6 ? sys_switch_on(fd, IPPROTO_IPV6, IPV6_RECVTCLASS) : sys_switch_on(fd, IPPROTO_IP, IP_RECVTOS);
}

static inline int sys_enable_pktinfo(int64_t fd, int is_ipv6) {
    if (is_ipv6)
        return sys_switch_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
#if defined(IP_PKTINFO)
    return sys_switch_on(fd, IPPROTO_IP, IP_PKTINFO);
#elif defined(IP_RECVDSTADDR)
    return sys_switch_on(fd, IPPROTO_IP, IP_RECVDSTADDR);
#else
    return -ENOPROTOOPT;
#endif
}

static inline void sys_prepare(SysSlots *s) {
    int i;
    memset(s, 0, sizeof *s);
    for (i = 0; i < SYS_SEND; i++) {
        s->send[i].msg_hdr.msg_name = &s->send_name[i];
        s->send[i].msg_hdr.msg_iov = &s->send_part[i];
        s->send[i].msg_hdr.msg_iovlen = 1;
    }
    for (i = 0; i < SYS_RECV; i++) {
        s->recv[i].msg_hdr.msg_name = &s->recv_name[i];
        s->recv[i].msg_hdr.msg_iov = &s->recv_part[i];
        s->recv[i].msg_hdr.msg_iovlen = 1;
    }
}

/* Append a control message; returns the bytes of the buffer in use after it. */
static inline size_t sys_append(SysControl *c, size_t used, int level, int type, const void *data, size_t bytes) {
    struct cmsghdr header;
    memset(&header, 0, sizeof header);
    header.cmsg_level = level;
    header.cmsg_type = type;
    header.cmsg_len = CMSG_LEN(bytes);
    memset(c->bytes + used, 0, CMSG_SPACE(bytes));
    memcpy(c->bytes + used, &header, sizeof header);
    memcpy(c->bytes + used + CMSG_LEN(0), data, bytes);
    return used + CMSG_SPACE(bytes);
}

static inline size_t sys_append_source(SysControl *c, size_t used, int is_ipv6, const SysMessage *m) {
    if (is_ipv6) {
        struct in6_pktinfo info;
        memset(&info, 0, sizeof info);
        memcpy(&info.ipi6_addr, m->local, 16);
        info.ipi6_ifindex = m->interface_id;
        return sys_append(c, used, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
#if defined(IP_PKTINFO)
    struct in_pktinfo info;
    memset(&info, 0, sizeof info);
    memcpy(&info.ipi_spec_dst, m->local + 12, 4);
    info.ipi_ifindex = (int)m->interface_id;
    return sys_append(c, used, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
#elif defined(IP_SENDSRCADDR)
    return sys_append(c, used, IPPROTO_IP, IP_SENDSRCADDR, m->local + 12, 4);
#else
    return used;
#endif
}

static inline void sys_put(SysSlots *s, uint32_t slot, int is_ipv6, const SysMessage *m) {
    struct msghdr *h = &s->send[slot].msg_hdr;
    SysControl *c = &s->send_control[slot];
    size_t used = 0;
    int mark = m->ecn, ttl = m->ttl;
    s->send_part[slot].iov_base = m->data;
    s->send_part[slot].iov_len = m->bytes;
    h->msg_namelen = sys_write_address(&s->send_name[slot], is_ipv6, m->remote, m->port, m->scope);
#ifdef UDP_SEGMENT
    if (m->segment) {
        uint16_t segment = (uint16_t)m->segment;
        used = sys_append(c, used, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
#endif
    if (mark)
        used = sys_append(c, used, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_TCLASS : IP_TOS, &mark, sizeof mark);
    if (ttl)
        used = sys_append(c, used, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_HOPLIMIT : IP_TTL, &ttl, sizeof ttl);
    if (sys_is_sourced(m))
        used = sys_append_source(c, used, is_ipv6, m);
    h->msg_control = used ? c : NULL;
    h->msg_controllen = used;
}

static inline int sys_send_many(int64_t fd, SysSlots *s, uint32_t count) { return sys_sendmmsg((int)fd, s->send, count); }

static inline int sys_send_one(int64_t fd, SysSlots *s, uint32_t slot) {
    return sendmsg((int)fd, &s->send[slot].msg_hdr, 0) < 0 ? -errno : 0;
}

static inline int sys_send_plain(int64_t fd, SysSlots *s, uint32_t slot) {
    const struct msghdr *h = &s->send[slot].msg_hdr;
    return sendto((int)fd, h->msg_iov->iov_base, h->msg_iov->iov_len, 0, h->msg_name, h->msg_namelen) < 0 ? -errno : 0;
}

static inline void sys_offer(SysSlots *s, uint32_t slot, uint8_t *data, uint32_t bytes) {
    struct msghdr *h = &s->recv[slot].msg_hdr;
    s->recv_part[slot].iov_base = data;
    s->recv_part[slot].iov_len = bytes;
    h->msg_namelen = sizeof s->recv_name[slot];
    h->msg_control = &s->recv_control[slot];
    h->msg_controllen = sizeof s->recv_control[slot];
    h->msg_flags = 0;
}

static inline int sys_recv_many(int64_t fd, SysSlots *s, uint32_t count) { return sys_recvmmsg((int)fd, s->recv, count); }

static inline int sys_recv_one(int64_t fd, SysSlots *s, uint32_t slot) {
    ssize_t bytes = recvmsg((int)fd, &s->recv[slot].msg_hdr, 0);
    s->recv[slot].msg_len = bytes < 0 ? 0 : (unsigned)bytes;
    return bytes < 0 ? -errno : 1;
}

static inline int sys_recv_plain(int64_t fd, SysSlots *s, uint32_t slot) {
    struct msghdr *h = &s->recv[slot].msg_hdr;
    ssize_t bytes = recvfrom((int)fd, h->msg_iov->iov_base, h->msg_iov->iov_len, 0, h->msg_name, &h->msg_namelen);
    s->recv[slot].msg_len = bytes < 0 ? 0 : (unsigned)bytes;
    h->msg_controllen = 0;
    return bytes < 0 ? -errno : 1;
}

static inline uint8_t sys_read_mark(const struct cmsghdr *c) {
    uint8_t mark = 0; /* the traffic class is an int everywhere, the type of service a byte, or on some systems an int */
    int wide = 0;
    if (c->cmsg_len >= CMSG_LEN(sizeof wide)) {
        memcpy(&wide, CMSG_DATA(c), sizeof wide);
        mark = (uint8_t)wide;
    } else {
        memcpy(&mark, CMSG_DATA(c), 1);
    }
    return mark & 3;
}

static inline void sys_take_ipv4(const struct cmsghdr *c, SysMessage *m) {
    int type = c->cmsg_type;
#if defined(IP_RECVTOS)
    if (type == IP_TOS || type == IP_RECVTOS)
#else
    if (type == IP_TOS)
#endif
        m->ecn = sys_read_mark(c);
#if defined(IP_PKTINFO)
    if (type == IP_PKTINFO) {
        struct in_pktinfo info;
        memcpy(&info, CMSG_DATA(c), sizeof info);
        /* not ipi_addr, which for a broadcast or multicast is nothing that an answer could leave from */
        sys_map_ipv4(m->local, &info.ipi_spec_dst);
        m->interface_id = (uint32_t)info.ipi_ifindex;
    }
#elif defined(IP_RECVDSTADDR)
    if (type == IP_RECVDSTADDR)
        sys_map_ipv4(m->local, CMSG_DATA(c));
#endif
}

static inline void sys_take_ipv6(const struct cmsghdr *c, SysMessage *m) {
    if (c->cmsg_type == IPV6_TCLASS)
        m->ecn = sys_read_mark(c);
    if (c->cmsg_type == IPV6_PKTINFO) {
        struct in6_pktinfo info;
        memcpy(&info, CMSG_DATA(c), sizeof info);
        memcpy(m->local, &info.ipi6_addr, 16);
        m->interface_id = info.ipi6_ifindex;
    }
}

static inline void sys_take(SysSlots *s, uint32_t slot, SysMessage *m) {
    struct msghdr *h = &s->recv[slot].msg_hdr;
    struct cmsghdr *c;
    memset(m, 0, sizeof *m);
    m->bytes = m->segment = s->recv[slot].msg_len;
    m->is_cut = (h->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    if (sys_read_address(&s->recv_name[slot], m->remote, &m->port, &m->scope) < 0)
        m->is_cut = 1;
    for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level == IPPROTO_IP)
            sys_take_ipv4(c, m);
        else if (c->cmsg_level == IPPROTO_IPV6)
            sys_take_ipv6(c, m);
#ifdef UDP_GRO
        else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int segment;
            memcpy(&segment, CMSG_DATA(c), sizeof segment);
            if (segment > 0 && (uint32_t)segment < m->bytes)
                m->segment = (uint32_t)segment;
        }
#endif
#ifdef SO_RXQ_OVFL
        else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
            memcpy(&m->overflows, CMSG_DATA(c), sizeof m->overflows);
#endif
    }
}

static inline int sys_wait(int64_t fd, int for_sending, int timeout_ms) {
    struct pollfd p = {.fd = (int)fd, .events = for_sending ? POLLOUT : POLLIN};
    int ready = poll(&p, 1, timeout_ms);
    return ready < 0 ? -errno : ready;
}

static inline uint64_t sys_clock_ns(void) {
    struct timespec t;
#ifdef CLOCK_BOOTTIME   /* Linux: time goes on while the machine sleeps; elsewhere CLOCK_MONOTONIC does that */
    clock_gettime(CLOCK_BOOTTIME, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
