/* The system's UDP calls behind one set of functions, the same on every platform; udp.pyx holds all policy.
 *
 *   sys_start                  0: this process may use sockets
 *   sys_socket                 a socket that neither blocks nor is inherited; an IPv6 one speaks IPv6 alone
 *   sys_bind, sys_local        give it an address; ask for it and its family (4 or 6)
 *   sys_close
 *   sys_share, sys_steer       before the bind: share the address with others that do; let a filter program choose among those
 *   sys_ignore_icmp            let no ICMP fail later calls
 *   sys_forbid_fragments, sys_enable_{control,ecn,pktinfo,gro}, sys_has_{gso,mmsg}   0: granted
 *   sys_has_ttl                0: a message can bring its time to live; sys_set_ttl sets the socket's, and returns the one before
 *   sys_enlarge                ask for a buffer, and tell the bytes that were given
 *   sys_prepare                tie the headers of SysSlots to their parts, once
 *   sys_put                    fill the headers of one message to send
 *   sys_send_{many,one,plain}  sendmmsg: messages taken; sendmsg and sendto: 0
 *   sys_offer                  offer a buffer to receive into
 *   sys_recv_{many,one,plain}  recvmmsg: messages filled; recvmsg and recvfrom: 1
 *   sys_take                   read the headers of one message received
 *   sys_wait                   poll one socket: 1 ready, 0 the time is over
 *   sys_clock_ns               monotonic
 *
 * Each returns what it names or a negative errno, translated on Windows. Nothing here allocates, and every
 * control buffer has a constant size. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; ports are in the machine's order. */
#ifndef INTERPEER_UDP_SYS_H
#define INTERPEER_UDP_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SYS_SEND = 64, /* messages given to one system call */
    SYS_RECV = 16, /* messages taken by one */
};

/* One message, as it crosses between udp.pyx and the platform. */
typedef struct {
    uint8_t *data;         /* to send; not owned */
    uint32_t bytes;
    uint32_t segment;      /* to send: cut into segments of so many bytes, 0: do not cut; received: as glued together by GRO */
    uint8_t remote[16];
    uint16_t port;
    uint32_t scope;
    uint8_t local[16];     /* zeros: not known, or the system chooses */
    uint32_t interface_id; /* 0: likewise (`interface` alone is a macro of Windows) */
    uint8_t ecn;
    uint8_t ttl;           /* to send: time to live, hop limit; 0: the socket's */
    uint8_t is_cut;        /* received: the data or the control messages did not fit */
    uint32_t overflows;    /* received: datagrams that the full socket has lost since it was opened, 0: none told */
} SysMessage;

static const uint8_t sys_no_address[16];
static const uint8_t sys_ipv4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

/* Tell whether the message names the address or the interface that it shall leave from. */
static inline int sys_is_sourced(const SysMessage *m) {
    return m->interface_id != 0 || memcmp(m->local, sys_no_address, 16) != 0;
}

#if defined(_WIN32)
#include "udp_win.h"
#else
#if defined(__linux__)
#include "udp_linux.h"
#endif
#include "udp_posix.h"
#endif

#endif
