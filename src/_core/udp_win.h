/* The functions of udp_sys.h for Windows: WSASendMsg and WSARecvMsg, one message a call; no segmentation offload.
 * The winsock errors become the errno of the same meaning. */
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <errno.h>
#include <windows.h>
#include "udp_address.h"

#ifndef EHOSTDOWN
#define EHOSTDOWN WSAEHOSTDOWN
#endif
#ifndef SIO_UDP_CONNRESET
#define SIO_UDP_CONNRESET _WSAIOW(IOC_VENDOR, 12)
#endif
#ifndef SIO_UDP_NETRESET
#define SIO_UDP_NETRESET _WSAIOW(IOC_VENDOR, 15)
#endif
#ifndef IP_RECVECN
#define IP_RECVECN 50
#endif
#ifndef IPV6_RECVECN
#define IPV6_RECVECN 50
#endif

enum { SYS_CONTROL_BYTES = 128 };

typedef union {
    WSACMSGHDR alignment;
    uint8_t bytes[SYS_CONTROL_BYTES];
} SysControl;

typedef struct {
    WSAMSG header;
    WSABUF part;
    SysAddress name;
    SysControl control;
    uint32_t bytes; /* received */
} SysSlot;

typedef struct {
    SysSlot send[SYS_SEND];
    SysSlot recv[SYS_RECV];
    LPFN_WSARECVMSG receive; /* not in any library: asked of the first socket */
} SysSlots;

static inline int sys_translate(int error) {
    switch (error) {
    case WSAEWOULDBLOCK: return -EAGAIN;
    case WSAEINTR: return -EINTR;
    case WSAEACCES: return -EACCES;
    case WSAEFAULT: return -EFAULT;
    case WSAEINVAL: return -EINVAL;
    case WSAEMFILE: return -EMFILE;
    case WSAEMSGSIZE: return -EMSGSIZE;
    case WSAENOTSOCK: return -ENOTSOCK;
    case WSAEBADF: return -EBADF;
    case WSAEADDRINUSE: return -EADDRINUSE;
    case WSAEADDRNOTAVAIL: return -EADDRNOTAVAIL;
    case WSAEAFNOSUPPORT: return -EAFNOSUPPORT;
    case WSAENETDOWN: return -ENETDOWN;
    case WSAENETUNREACH: return -ENETUNREACH;
    case WSAEHOSTUNREACH: return -EHOSTUNREACH;
    case WSAEHOSTDOWN: return -EHOSTDOWN;
    case WSAENETRESET: return -ECONNRESET;
    case WSAECONNRESET: return -ECONNRESET;
    case WSAECONNREFUSED: return -ECONNREFUSED;
    case WSAENOBUFS: return -ENOBUFS;
    case WSA_NOT_ENOUGH_MEMORY: return -ENOMEM;
    case WSAENOPROTOOPT: return -ENOPROTOOPT;
    default: return -EIO;
    }
}

static inline int sys_failure(void) { return sys_translate(WSAGetLastError()); }

/* Counted by the system, and never given back: the process uses sockets until it ends. */
static inline int sys_start(void) {
    WSADATA data;
    int error = WSAStartup(MAKEWORD(2, 2), &data);
    return error ? sys_translate(error) : 0;
}

static inline int sys_set(int64_t fd, int level, int name, DWORD value) {
    return setsockopt((SOCKET)fd, level, name, (const char *)&value, sizeof value) ? sys_failure() : 0;
}

static inline int64_t sys_socket(int is_ipv6) {
    u_long on = 1;
    int error;
    SOCKET s = WSASocketW(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP, NULL, 0,
                          WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (s == INVALID_SOCKET)
        return sys_failure();
    if (ioctlsocket(s, FIONBIO, &on) || (is_ipv6 && sys_set((int64_t)s, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0)) {
        error = sys_failure();
        closesocket(s);
        return error;
    }
    return (int64_t)s;
}

static inline int sys_bind(int64_t fd, int is_ipv6, const uint8_t address[16], uint16_t port, uint32_t scope) {
    SysAddress a;
    socklen_t bytes = sys_write_address(&a, is_ipv6, address, port, scope);
    return bind((SOCKET)fd, &a.any, bytes) ? sys_failure() : 0;
}

static inline int sys_local(int64_t fd, uint8_t address[16], uint16_t *port, uint32_t *scope) {
    SysAddress a;
    socklen_t bytes = sizeof a;
    memset(&a, 0, sizeof a);
    return getsockname((SOCKET)fd, &a.any, &bytes) ? sys_failure() : sys_read_address(&a, address, port, scope);
}

static inline void sys_close(int64_t fd) { closesocket((SOCKET)fd); }

/* Several sockets at one address do not share what comes here. */
static inline int sys_share(int64_t fd) { (void)fd; return -ENOPROTOOPT; }
static inline int sys_steer(int64_t fd, const void *steps, uint32_t count) { (void)fd; (void)steps; (void)count; return -ENOPROTOOPT; }

static inline int sys_forbid_fragments(int64_t fd, int is_ipv6) {
    return is_ipv6 ? sys_set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1) : sys_set(fd, IPPROTO_IP, IP_DONTFRAGMENT, 1);
}

/* Otherwise the ICMP that one peer caused fails the receiving from all others. */
static inline void sys_ignore_icmp(int64_t fd) {
    BOOL off = FALSE;
    DWORD bytes;
    (void)WSAIoctl((SOCKET)fd, SIO_UDP_CONNRESET, &off, sizeof off, NULL, 0, &bytes, NULL, NULL);
    (void)WSAIoctl((SOCKET)fd, SIO_UDP_NETRESET, &off, sizeof off, NULL, 0, &bytes, NULL, NULL);
}

static inline int sys_set_ttl(int64_t fd, int is_ipv6, int ttl) {
    int level = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, name = is_ipv6 ? IPV6_UNICAST_HOPS : IP_TTL, bytes, error;
    DWORD before = 0;
    bytes = sizeof before;
    if (getsockopt((SOCKET)fd, level, name, (char *)&before, &bytes))
        return sys_failure();
    error = sys_set(fd, level, name, (DWORD)ttl);
    return error < 0 ? error : (int)before;
}

static inline int sys_enable_control(int64_t fd, SysSlots *s) {
    GUID wanted = WSAID_WSARECVMSG;
    DWORD bytes;
    return WSAIoctl((SOCKET)fd, SIO_GET_EXTENSION_FUNCTION_POINTER, &wanted, sizeof wanted, &s->receive, sizeof s->receive,
                    &bytes, NULL, NULL) ? sys_failure() : 0;
}

static inline int sys_enable_ecn(int64_t fd, int is_ipv6) {
    return is_ipv6 ? sys_set(fd, IPPROTO_IPV6, IPV6_RECVECN, 1) : sys_set(fd, IPPROTO_IP, IP_RECVECN, 1);
}

static inline int sys_enable_pktinfo(int64_t fd, int is_ipv6) {
    return is_ipv6 ? sys_set(fd, IPPROTO_IPV6, IPV6_PKTINFO, 1) : sys_set(fd, IPPROTO_IP, IP_PKTINFO, 1);
}

static inline int sys_enable_gro(int64_t fd) { (void)fd; return -ENOPROTOOPT; }
static inline int sys_has_gso(int64_t fd) { (void)fd; return -ENOPROTOOPT; }
static inline int sys_has_ttl(int is_ipv6) { (void)is_ipv6; return -ENOPROTOOPT; }
static inline int sys_has_mmsg(void) { return -ENOSYS; }
static inline int sys_send_many(int64_t fd, SysSlots *s, uint32_t n) { (void)fd; (void)s; (void)n; return -ENOSYS; }
static inline int sys_recv_many(int64_t fd, SysSlots *s, uint32_t n) { (void)fd; (void)s; (void)n; return -ENOSYS; }

static inline uint32_t sys_enlarge(int64_t fd, int is_send, uint32_t wanted) {
    int name = is_send ? SO_SNDBUF : SO_RCVBUF, given = 0;
    socklen_t bytes = sizeof given;
    if (wanted)
        (void)sys_set(fd, SOL_SOCKET, name, wanted);
    return getsockopt((SOCKET)fd, SOL_SOCKET, name, (char *)&given, &bytes) ? 0 : (uint32_t)given;
}

static inline void sys_prepare(SysSlots *s) {
    int i;
    memset(s, 0, sizeof *s);
    for (i = 0; i < SYS_SEND + SYS_RECV; i++) {
        SysSlot *slot = i < SYS_SEND ? &s->send[i] : &s->recv[i - SYS_SEND];
        slot->header.name = &slot->name.any;
        slot->header.lpBuffers = &slot->part;
        slot->header.dwBufferCount = 1;
    }
}

/* Append a control message; returns the bytes of the buffer in use after it. */
static inline ULONG sys_append(SysControl *c, ULONG used, int level, int type, const void *data, size_t bytes) {
    WSACMSGHDR *header = (WSACMSGHDR *)(c->bytes + used);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = WSA_CMSG_LEN(bytes);
    memcpy(WSA_CMSG_DATA(header), data, bytes);
    return used + (ULONG)WSA_CMSG_SPACE(bytes);
}

static inline ULONG sys_append_source(SysControl *c, ULONG used, int is_ipv6, const SysMessage *m) {
    if (is_ipv6) {
        IN6_PKTINFO info;
        memcpy(&info.ipi6_addr, m->local, 16);
        info.ipi6_ifindex = m->interface_id;
        return sys_append(c, used, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
    IN_PKTINFO info;
    memcpy(&info.ipi_addr, m->local + 12, 4);
    info.ipi_ifindex = m->interface_id;
    return sys_append(c, used, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
}

static inline void sys_put(SysSlots *s, uint32_t slot, int is_ipv6, const SysMessage *m) {
    SysSlot *to = &s->send[slot];
    ULONG used = 0;
    INT mark = m->ecn;
    to->part.buf = (char *)m->data;
    to->part.len = m->bytes;
    to->header.namelen = sys_write_address(&to->name, is_ipv6, m->remote, m->port, m->scope);
    if (mark)
        used = sys_append(&to->control, used, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_RECVECN : IP_RECVECN, &mark,
                          sizeof mark);
    if (sys_is_sourced(m))
        used = sys_append_source(&to->control, used, is_ipv6, m);
    to->header.Control.buf = used ? (char *)to->control.bytes : NULL;
    to->header.Control.len = used;
}

static inline int sys_send_one(int64_t fd, SysSlots *s, uint32_t slot) {
    DWORD sent;
    return WSASendMsg((SOCKET)fd, &s->send[slot].header, 0, &sent, NULL, NULL) ? sys_failure() : 0;
}

static inline int sys_send_plain(int64_t fd, SysSlots *s, uint32_t slot) {
    SysSlot *to = &s->send[slot];
    return sendto((SOCKET)fd, to->part.buf, (int)to->part.len, 0, &to->name.any, to->header.namelen) < 0 ? sys_failure() : 0;
}

static inline void sys_offer(SysSlots *s, uint32_t slot, uint8_t *data, uint32_t bytes) {
    SysSlot *from = &s->recv[slot];
    from->part.buf = (char *)data;
    from->part.len = bytes;
    from->header.namelen = sizeof from->name;
    from->header.Control.buf = (char *)from->control.bytes;
    from->header.Control.len = sizeof from->control;
    from->header.dwFlags = 0;
}

static inline int sys_recv_one(int64_t fd, SysSlots *s, uint32_t slot) {
    DWORD bytes = 0;
    if (s->receive((SOCKET)fd, &s->recv[slot].header, &bytes, NULL, NULL))
        return sys_failure();
    s->recv[slot].bytes = bytes;
    return 1;
}

static inline int sys_recv_plain(int64_t fd, SysSlots *s, uint32_t slot) {
    SysSlot *from = &s->recv[slot];
    int bytes = recvfrom((SOCKET)fd, from->part.buf, (int)from->part.len, 0, &from->name.any, &from->header.namelen);
    if (bytes < 0)
        return sys_failure();
    from->bytes = (uint32_t)bytes;
    from->header.Control.len = 0;
    return 1;
}

static inline void sys_take_control(WSACMSGHDR *c, SysMessage *m) {
    int is_ipv6 = c->cmsg_level == IPPROTO_IPV6;
    if (c->cmsg_level != IPPROTO_IP && !is_ipv6)
        return;
    if (c->cmsg_type == (is_ipv6 ? IPV6_RECVECN : IP_RECVECN)) {
        INT mark;
        memcpy(&mark, WSA_CMSG_DATA(c), sizeof mark);
        m->ecn = mark & 3;
    } else if (is_ipv6 && c->cmsg_type == IPV6_PKTINFO) {
        IN6_PKTINFO info;
        memcpy(&info, WSA_CMSG_DATA(c), sizeof info);
        memcpy(m->local, &info.ipi6_addr, 16);
        m->interface_id = info.ipi6_ifindex;
    } else if (!is_ipv6 && c->cmsg_type == IP_PKTINFO) {
        IN_PKTINFO info;
        memcpy(&info, WSA_CMSG_DATA(c), sizeof info);
        sys_map_ipv4(m->local, &info.ipi_addr);
        m->interface_id = info.ipi_ifindex;
    }
}

static inline void sys_take(SysSlots *s, uint32_t slot, SysMessage *m) {
    SysSlot *from = &s->recv[slot];
    WSACMSGHDR *c;
    memset(m, 0, sizeof *m);
    m->bytes = m->segment = from->bytes;
    m->is_cut = (from->header.dwFlags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    if (sys_read_address(&from->name, m->remote, &m->port, &m->scope) < 0)
        m->is_cut = 1;
    for (c = WSA_CMSG_FIRSTHDR(&from->header); c; c = WSA_CMSG_NXTHDR(&from->header, c))
        sys_take_control(c, m);
}

static inline int sys_wait(int64_t fd, int for_sending, int timeout_ms) {
    WSAPOLLFD p = {.fd = (SOCKET)fd, .events = for_sending ? POLLWRNORM : POLLRDNORM};
    int ready = WSAPoll(&p, 1, timeout_ms);
    return ready < 0 ? sys_failure() : ready;
}

static inline uint64_t sys_clock_ns(void) {
    LARGE_INTEGER now, rate;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&rate);
    return (uint64_t)(now.QuadPart / rate.QuadPart) * 1000000000u
         + (uint64_t)(now.QuadPart % rate.QuadPart) * 1000000000u / (uint64_t)rate.QuadPart;
}
