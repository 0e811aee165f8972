/* A bad link between real processes: a relay for UDP that delays, loses, reorders, marks and limits, each way for itself.
 *
 *   udplink LISTEN_HOST SEED TARGET_HOST TARGET_PORT [TARGET_HOST TARGET_PORT ...]
 *
 * It listens on LISTEN_HOST, at a port for each target, and tells the ports in its first line. What comes there goes "up" to the target
 * from a socket for each source, and what comes back there goes "down"; all targets share the two directions. A line on standard
 * input is a command, answered by one line of JSON:
 *
 *   set up|down NAME=NUMBER ...     change settings (link.h)
 *   rebind port|address             as a NAT that forgets: from now on each source comes from another port (on 127.0.0.0/8: address)
 *   after NS EVERY_NS COMMAND       one of these later, and again every so often; 0: once
 *   clear                           forget what is still to come of these
 *   stats                           tell the counters
 *
 * The end of standard input ends it. The kernel's receive time counts as the packet's arrival, and packets leave up to GRAIN_NS late, in
 * batches: delays are right to a tenth of a millisecond even while other processes keep the processors busy. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "link.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    MAX_FLOWS = 4096,
    MAX_DOORS = 4,
    MAX_PLANNED = 256,
    MAX_FORGOTTEN = 512,            /* sockets of before a rebinding: kept open, so that nobody is told that they are gone */
    BATCH = 32,
    ROUNDS = 4,                     /* batches of one socket before what is due goes out */
    MAX_DATAGRAM = 65536,
    SOCKET_BUFFER = 8 << 20,
    GRAIN_NS = 100000,
    MAX_AGE_NS = 1000000000,        /* a receive time older than this is not believed */
};

struct door { struct sockaddr_in6 target; int listener; };      /* or an IPv4 address in its place */

struct flow {
    struct sockaddr_in6 source;
    struct door *door;
    int fd;
    int is_proven;                  /* has sent a packet under keys: first byte with the high bit set */
    uint64_t up_bytes, down_bytes;  /* while it had not */
};

struct planned { uint64_t at_ns, every_ns; char command[512]; };

static struct direction up, down;
static struct flow flows[MAX_FLOWS];
static uint32_t flow_count, last_flow;
static int forgotten[MAX_FORGOTTEN];
static uint32_t forgotten_count, next_host = 1;
static struct planned plan[MAX_PLANNED];
static uint32_t plan_count;
static struct door doors[MAX_DOORS];
static struct sockaddr_in6 listening;
static socklen_t address_bytes;
static int family, poller, timer;
static uint64_t timer_ns, released_ns, strangers, rebinds, refused, excess_bytes;

static void die(const char *what) { perror(what); exit(1); }

static uint64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- sockets --- */

static void parse_address(const char *host, int port, struct sockaddr_in6 *out) {
    memset(out, 0, sizeof *out);
    if (family == AF_INET) {
        struct sockaddr_in *four = (struct sockaddr_in *)out;
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, host, &four->sin_addr) != 1) die(host);
    } else {
        out->sin6_family = AF_INET6;
        out->sin6_port = htons((uint16_t)port);
        if (inet_pton(AF_INET6, host, &out->sin6_addr) != 1) die(host);
    }
}

static int is_same(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b) {
    if (family == AF_INET) {
        const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    return a->sin6_port == b->sin6_port && !memcmp(&a->sin6_addr, &b->sin6_addr, 16);
}

static void option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

static int open_socket(const struct sockaddr_in6 *where, uint32_t id) {
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    option(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER);
    option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER);
    option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER);
    option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER);
    option(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    option(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
    option(fd, IPPROTO_UDP, UDP_GRO, 1);
    if (family == AF_INET) option(fd, IPPROTO_IP, IP_RECVTOS, 1);
    else option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    if (bind(fd, (const struct sockaddr *)where, address_bytes)) die("bind");
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = id};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    return fd;
}

/* Open where a flow's packets come from: any port, at the target's host or, after a rebinding, at another of 127.0.0.0/8. */
static int open_upstream(uint32_t flow) {
    struct sockaddr_in6 where = listening;
    if (family == AF_INET) {
        struct sockaddr_in *four = (struct sockaddr_in *)&where;
        four->sin_port = 0;
        if (next_host > 1) four->sin_addr.s_addr = htonl(0x7f000000u + next_host);
    } else {
        where.sin6_port = 0;
    }
    return open_socket(&where, flow);
}

static void forget(int fd) {
    if (forgotten_count == MAX_FORGOTTEN) {
        close(forgotten[0]);
        memmove(forgotten, forgotten + 1, --forgotten_count * sizeof *forgotten);
    }
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
    option(fd, SOL_SOCKET, SO_RCVBUF, 1);
    forgotten[forgotten_count++] = fd;
}

static void rebind(int is_address) {
    if (is_address && family == AF_INET) next_host = next_host % 60000 + 2;
    for (uint32_t i = 0; i < flow_count; i++) {
        forget(flows[i].fd);
        flows[i].fd = open_upstream(i);
    }
    rebinds++;
}

static int is_of(const struct flow *f, const struct door *door, const struct sockaddr_in6 *source) {
    return f->door == door && is_same(&f->source, source);
}

static int flow_of(struct door *door, const struct sockaddr_in6 *source) {
    if (last_flow < flow_count && is_of(&flows[last_flow], door, source)) return (int)last_flow;
    for (uint32_t i = 0; i < flow_count; i++)
        if (is_of(&flows[i], door, source)) return (int)(last_flow = i);
    if (flow_count == MAX_FLOWS) return -1;
    struct flow *f = &flows[flow_count];
    *f = (struct flow){.source = *source, .door = door};
    f->fd = open_upstream(flow_count);
    return (int)(last_flow = flow_count++);
}

/* --- receiving --- */

struct arrival { uint64_t now_ns; uint32_t segment; uint8_t ecn; };

static struct arrival read_ancillary(struct msghdr *m, struct direction *d, uint32_t bytes) {
    static uint64_t offset_ns;      /* of the clock that the kernel stamps with */
    struct arrival a = {clock_ns(CLOCK_MONOTONIC), bytes, 0};
    offset_ns = clock_ns(CLOCK_REALTIME) - a.now_ns;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        int value = 0;
        memcpy(&value, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0) < sizeof value ? 1 : sizeof value);
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            uint64_t then_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec - offset_ns;
            if (then_ns < a.now_ns && a.now_ns - then_ns < MAX_AGE_NS) a.now_ns = then_ns;
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            if ((uint32_t)value > d->count.overflowed) d->count.overflowed = (uint32_t)value;
        } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            if (value > 0) a.segment = (uint32_t)value;
        } else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS)
                   || (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)) {
            a.ecn = value & 3;
        }
    }
    return a;
}

static void take(struct door *door, uint32_t id, struct msghdr *m, uint8_t *data, uint32_t bytes) {
    struct sockaddr_in6 *from = m->msg_name;
    struct direction *d = door ? &up : &down;
    struct arrival a = read_ancillary(m, d, bytes);
    int flow = (int)id;
    if (door) {
        flow = flow_of(door, from);
        if (flow < 0) { refused++; return; }
    } else if (!is_same(from, &flows[id].door->target)) {
        strangers++;
        return;
    }
    struct flow *f = &flows[flow];
    for (uint32_t at = 0; at < bytes || !bytes; at += a.segment) {
        uint32_t n = bytes - at < a.segment ? bytes - at : a.segment;
        if (door) f->is_proven |= n && data[at] & 0x80;
        if (!f->is_proven) *(door ? &f->up_bytes : &f->down_bytes) += n;
        if (!f->is_proven && f->down_bytes > f->up_bytes && f->down_bytes - f->up_bytes > excess_bytes)
            excess_bytes = f->down_bytes - f->up_bytes;
        carry(d, (uint32_t)flow, data + at, (uint16_t)n, a.ecn, a.now_ns);
        if (!bytes) break;
    }
}

/* Receive at a door, or else what comes back to a flow. */
static void receive(int fd, struct door *door, uint32_t id) {
    static uint8_t data[BATCH][MAX_DATAGRAM], ancillary[BATCH][256];
    static struct sockaddr_in6 from[BATCH];
    struct mmsghdr messages[BATCH];
    struct iovec pieces[BATCH];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){data[i], MAX_DATAGRAM};
            messages[i].msg_hdr = (struct msghdr){&from[i], sizeof from[i], &pieces[i], 1, ancillary[i], sizeof ancillary[i], 0};
        }
        int count = recvmmsg(fd, messages, BATCH, 0, NULL);
        if (count <= 0) return;
        for (int i = 0; i < count; i++) take(door, id, &messages[i].msg_hdr, data[i], messages[i].msg_len);
        if (count < BATCH) return;
    }
}

/* --- sending --- */

static void send_all(int fd, struct held **packets, int count) {
    struct mmsghdr messages[BATCH];
    struct iovec pieces[BATCH];
    static uint8_t ancillary[BATCH][CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    for (int i = 0; i < count; i++) {
        struct held *p = packets[i];
        struct msghdr *m = &messages[i].msg_hdr;
        pieces[i] = (struct iovec){p->data, p->bytes};
        *m = (struct msghdr){p->direction == &up ? &flows[p->flow].door->target : &flows[p->flow].source, address_bytes, &pieces[i], 1, NULL, 0, 0};
        if (!p->ecn) continue;
        m->msg_control = ancillary[i];
        m->msg_controllen = CMSG_SPACE(sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(m);
        c->cmsg_level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
        c->cmsg_type = family == AF_INET ? IP_TOS : IPV6_TCLASS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &(int){p->ecn}, sizeof(int));
    }
    for (int done = 0; done < count;) {
        int sent = sendmmsg(fd, messages + done, (unsigned)(count - done), 0);
        for (int i = 0; i < sent; i++) {
            struct counters *c = &packets[done + i]->direction->count;
            c->delivered_packets++;
            c->delivered_bytes += packets[done + i]->bytes + (uint64_t)packets[done + i]->direction->set.overhead_bytes;
        }
        if (sent < 0) {
            if (errno == EINTR) continue;
            packets[done]->direction->count.not_sent++;
            sent = 1;               /* this one cannot be sent: the others may */
        }
        done += sent;
    }
    for (int i = 0; i < count; i++) free(packets[i]);
}

static void release(uint64_t now_ns) {
    struct held *packets[BATCH];
    int count = 0, fd = -1;
    while (heap_count && heap[0]->due_ns <= now_ns) {
        struct held *p = heap_pop();
        int to = p->direction == &up ? flows[p->flow].fd : flows[p->flow].door->listener;
        if (count && (to != fd || count == BATCH)) {
            send_all(fd, packets, count);
            count = 0;
        }
        uint64_t late_ns = clock_ns(CLOCK_MONOTONIC) - p->due_ns;
        struct counters *c = &p->direction->count;
        c->late_sum_ns += late_ns;
        c->late_by_1_ms += late_ns > 1000000;
        if (late_ns > c->late_max_ns) c->late_max_ns = late_ns;
        fd = to;
        packets[count++] = p;
    }
    if (count) send_all(fd, packets, count);
    released_ns = now_ns;
}

/* --- commands --- */

static const char *set(char *words) {
    char *save, *name = strtok_r(words, " ", &save);
    struct direction *d = !name ? NULL : !strcmp(name, "up") ? &up : !strcmp(name, "down") ? &down : NULL;
    return d ? direction_set(d, &save) : "set needs up or down";
}

static void tell_all(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu_s = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    printf("{");
    direction_tell("up", &up);
    printf(", ");
    direction_tell("down", &down);
    printf(", \"flows\": %u, \"rebinds\": %llu, \"strangers\": %llu, \"refused\": %llu, \"unproven_excess_bytes\": %llu, "
           "\"held\": %u, \"cpu_s\": %.6f}\n", flow_count, (unsigned long long)rebinds, (unsigned long long)strangers,
           (unsigned long long)refused, (unsigned long long)excess_bytes, heap_count, cpu_s);
}

static const char *run_command(char *line, uint64_t now_ns) {
    if (!strncmp(line, "set ", 4)) return set(line + 4);
    if (!strcmp(line, "rebind port")) { rebind(0); return NULL; }
    if (!strcmp(line, "rebind address")) { rebind(1); return NULL; }
    if (!strcmp(line, "clear")) { plan_count = 0; return NULL; }
    unsigned long long after_ns, every_ns;
    int used = 0;
    if (sscanf(line, "after %llu %llu %n", &after_ns, &every_ns, &used) == 2 && used) {
        if (plan_count == MAX_PLANNED || strlen(line + used) >= sizeof plan->command) return "too much is planned";
        struct planned *p = &plan[plan_count++];
        *p = (struct planned){now_ns + after_ns, every_ns, ""};
        strcpy(p->command, line + used);
        return NULL;
    }
    return "no such command";
}

static void run_planned(uint64_t now_ns) {
    for (uint32_t i = 0; i < plan_count;) {
        if (plan[i].at_ns > now_ns) { i++; continue; }
        char line[sizeof plan->command];
        strcpy(line, plan[i].command);
        if (plan[i].every_ns) {
            plan[i].at_ns += plan[i].every_ns;
            i++;
        } else {
            plan[i] = plan[--plan_count];
        }
        const char *error = run_command(line, now_ns);
        if (error) fprintf(stderr, "%s: %s\n", error, line);
    }
}

static int read_commands(void) {
    static char text[8192];
    static size_t have;
    ssize_t n = read(0, text + have, sizeof text - 1 - have);
    if (n <= 0) return 0;
    have += (size_t)n;
    text[have] = 0;
    char *line = text, *end;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (!strcmp(line, "stats")) { tell_all(); continue; }
        const char *error = run_command(line, clock_ns(CLOCK_MONOTONIC));
        if (error) printf("{\"error\": \"%s\"}\n", error);
        else printf("{}\n");
    }
    have -= (size_t)(line - text);
    memmove(text, line, have);
    fflush(stdout);
    return 1;
}

/* --- the loop --- */

static void arm(void) {
    uint64_t next_ns = heap_count ? heap[0]->due_ns : ~0ull;
    if (next_ns < released_ns + GRAIN_NS) next_ns = released_ns + GRAIN_NS;
    for (uint32_t i = 0; i < plan_count; i++)
        if (plan[i].at_ns < next_ns) next_ns = plan[i].at_ns;
    if (next_ns == timer_ns) return;
    timer_ns = next_ns;
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (next_ns != ~0ull) when.it_value = (struct timespec){(time_t)(next_ns / 1000000000u), (long)(next_ns % 1000000000u)};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void watch(int fd, uint32_t id) {
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = id};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

enum { TIMER = 0xffffff00u, COMMANDS, DOOR };    /* ids of what is polled; smaller ones are flows */

/* Listen for each target of the command line, and tell where. */
static void open_doors(int count, char **targets) {
    for (int i = 0; i < count; i++) {
        struct sockaddr_in6 bound;
        socklen_t bytes = sizeof bound;
        parse_address(targets[2 * i], atoi(targets[2 * i + 1]), &doors[i].target);
        doors[i].listener = open_socket(&listening, DOOR + (uint32_t)i);
        if (getsockname(doors[i].listener, (struct sockaddr *)&bound, &bytes)) die("getsockname");
        printf("%s%u", i ? ", " : "{\"ports\": [", ntohs(bound.sin6_port));  /* at the same place for both families */
    }
    printf("]}\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    int count = (argc - 3) / 2;
    if (argc < 5 || argc % 2 == 0 || count > MAX_DOORS) {
        fprintf(stderr, "usage: udplink LISTEN_HOST SEED TARGET_HOST TARGET_PORT [TARGET_HOST TARGET_PORT ...]\n");
        return 2;
    }
    family = strchr(argv[1], ':') ? AF_INET6 : AF_INET;
    address_bytes = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    parse_address(argv[1], 0, &listening);
    direction_init(&up, strtoull(argv[2], NULL, 10) * 2 + 1);
    direction_init(&down, strtoull(argv[2], NULL, 10) * 2 + 2);
    if (sched_setscheduler(0, SCHED_RR, &(struct sched_param){1})) (void)!nice(-15);    /* where it may: delays shall be right */
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (poller < 0 || timer < 0) die("epoll, timerfd");
    watch(timer, TIMER);
    watch(0, COMMANDS);
    open_doors(count, argv + 3);
    for (;;) {
        struct epoll_event events[64];
        arm();
        int ready = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            uint32_t id = events[i].data.u32;
            uint64_t expired;
            if (id == TIMER) (void)!read(timer, &expired, sizeof expired);
            else if (id == COMMANDS) { if (!read_commands()) return 0; }
            else if (id >= DOOR) receive(doors[id - DOOR].listener, &doors[id - DOOR], 0);
            else receive(flows[id].fd, NULL, id);
        }
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        if (plan_count) run_planned(now_ns);
        if (heap_count && (heap[0]->due_ns <= now_ns) && now_ns >= released_ns + GRAIN_NS) release(now_ns);
    }
}
