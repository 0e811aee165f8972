/* Socket addresses, the same on every platform; included after the platform's own headers. */
#ifndef INTERPEER_UDP_ADDRESS_H
#define INTERPEER_UDP_ADDRESS_H

typedef union {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
} SysAddress;

static inline socklen_t sys_write_address(SysAddress *a, int is_ipv6, const uint8_t address[16], uint16_t port, uint32_t scope) {
    memset(a, 0, sizeof *a);
    if (is_ipv6) {
        a->ipv6.sin6_family = AF_INET6;
        a->ipv6.sin6_port = htons(port);
        a->ipv6.sin6_scope_id = scope;
        memcpy(&a->ipv6.sin6_addr, address, 16);
        return sizeof a->ipv6;
    }
    a->ipv4.sin_family = AF_INET;
    a->ipv4.sin_port = htons(port);
    memcpy(&a->ipv4.sin_addr, address + 12, 4);
    return sizeof a->ipv4;
}

static inline void sys_map_ipv4(uint8_t address[16], const void *ipv4) {
    memcpy(address, sys_ipv4_prefix, 12);
    memcpy(address + 12, ipv4, 4);
}

/* Returns the family, 4 or 6. */
static inline int sys_read_address(const SysAddress *a, uint8_t address[16], uint16_t *port, uint32_t *scope) {
    if (a->any.sa_family == AF_INET6) {
        memcpy(address, &a->ipv6.sin6_addr, 16);
        *port = ntohs(a->ipv6.sin6_port);
        *scope = a->ipv6.sin6_scope_id;
        return 6;
    }
    if (a->any.sa_family == AF_INET) {
        sys_map_ipv4(address, &a->ipv4.sin_addr);
        *port = ntohs(a->ipv4.sin_port);
        *scope = 0;
        return 4;
    }
    return -EAFNOSUPPORT;
}

#endif
