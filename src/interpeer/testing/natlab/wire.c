/* Links between network namespaces that delay, lose, reorder, duplicate, mark and limit, where the kernel has no netem for that.
 *
 *   wire
 *
 * Each link is a pair of TAP interfaces; what is sent into the one comes out of the other after what link.h does to it. A line on
 * standard input is a command, answered by one line of JSON:
 *
 *   link NUMBER SEED PATH NAME PATH NAME    make a pair: namespace and name of the interface at the near end ("up" begins there), and at the far
 *   set NUMBER up|down NAME=NUMBER ...      change settings (link.h)
 *   stats NUMBER                            tell the counters
 *   unlink NUMBER                           remove the pair
 *
 * The end of standard input ends it, and with it the interfaces go. Neighbour discovery (ARP, and of ICMPv6 the messages for it) passes
 * at once: the interfaces stand for one wire, and what a laboratory wants to be late is what its hosts send. Sizes are those of IP
 * packets. One thread carries all links; packets leave up to GRAIN_NS late, in the order in which they are due. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "link.h"

enum {
    MAX_LINKS = 1024,
    MAX_FRAME = 65535,
    ETHERNET = 14,
    BATCH = 64,                     /* frames of one interface before what is due goes out */
    GRAIN_NS = 50000,
    IP_4 = 0x0800, IP_6 = 0x86DD, ARP = 0x0806,
    ICMP_6 = 58, ROUTER_SOLICIT = 133, REDIRECT = 137,
};

enum { TIMER = 0xffffff00u, COMMANDS };     /* ids of what is polled; smaller ones are interfaces: 2 * link + end */

struct link {
    int used;
    int fd[2];                      /* the near end, and the far one */
    struct direction way[2];        /* up: from near to far; and down */
};

static struct link links[MAX_LINKS];
static int poller, timer, home;
static uint64_t timer_ns, released_ns;

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static void watch(int fd, uint32_t id) {
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = id};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

/* --- frames --- */

static int type_of(const uint8_t *frame) { return frame[12] << 8 | frame[13]; }

static int is_discovery(const uint8_t *frame, uint32_t bytes) {
    const uint8_t *packet = frame + ETHERNET;
    if (type_of(frame) == ARP) return 1;
    return type_of(frame) == IP_6 && bytes > ETHERNET + 40 && packet[6] == ICMP_6 && packet[40] >= ROUTER_SOLICIT && packet[40] <= REDIRECT;
}

static uint8_t ecn_of(const uint8_t *frame) {
    if (type_of(frame) == IP_4) return frame[ETHERNET + 1] & 3;
    if (type_of(frame) == IP_6) return frame[ETHERNET + 1] >> 4 & 3;
    return 0;
}

/* Change the ECN field, and for IPv4 the header's checksum with it (RFC 1624). */
static void write_ecn(uint8_t *frame, uint8_t ecn) {
    uint8_t *packet = frame + ETHERNET;
    if (type_of(frame) == IP_6) {
        packet[1] = (uint8_t)((packet[1] & 0xCF) | ecn << 4);
    } else if (type_of(frame) == IP_4) {
        uint32_t sum = (uint32_t)(uint16_t)~(packet[10] << 8 | packet[11]) + (uint16_t)~(packet[0] << 8 | packet[1]);
        packet[1] = (uint8_t)((packet[1] & 0xFC) | ecn);
        sum += (uint32_t)(packet[0] << 8 | packet[1]);
        while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
        packet[10] = (uint8_t)(~sum >> 8);
        packet[11] = (uint8_t)~sum;
    }
}

static void pass(int fd, const uint8_t *frame, size_t bytes, struct counters *count) {
    if (write(fd, frame, bytes) != (ssize_t)bytes) { count->not_sent++; return; }
    count->delivered_packets++;
    count->delivered_bytes += bytes - ETHERNET;
}

static void receive(uint32_t id) {
    static uint8_t frame[MAX_FRAME];
    struct link *l = &links[id / 2];
    int end = id % 2;
    struct direction *way = &l->way[end];
    for (int i = 0; i < BATCH; i++) {
        ssize_t n = read(l->fd[end], frame, sizeof frame);
        if (n <= ETHERNET) return;
        if (is_discovery(frame, (uint32_t)n)) (void)!write(l->fd[!end], frame, (size_t)n);
        else carry(way, id, frame, (uint16_t)n, ecn_of(frame), clock_ns());
    }
}

static void release(uint64_t now_ns) {
    while (heap_count && heap[0]->due_ns <= now_ns) {
        struct held *p = heap_pop();
        struct link *l = &links[p->flow / 2];
        if (p->ecn != ecn_of(p->data)) write_ecn(p->data, p->ecn);
        if (l->used) pass(l->fd[!(p->flow % 2)], p->data, p->bytes, &p->direction->count);
        free(p);
    }
    released_ns = now_ns;
}

/* --- links --- */

/* Make a TAP interface in a namespace. It stays there when we have come home; the descriptor carries its frames. */
static int open_tap(const char *path, const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int space = open(path, O_RDONLY | O_CLOEXEC), fd = -1;
    if (space >= 0 && !setns(space, CLONE_NEWNET)) {
        fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
        if (fd >= 0 && ioctl(fd, TUNSETIFF, &request)) {
            int number = errno;
            close(fd);
            errno = number;
            fd = -1;
        }
    }
    int number = errno;
    if (setns(home, CLONE_NEWNET)) die("setns");
    if (space >= 0) close(space);
    errno = number;
    return fd;
}

static const char *make(uint32_t number, uint64_t seed, char *words[4]) {
    struct link *l = &links[number];
    if (l->used) return "this number is taken";
    for (int end = 0; end < 2; end++) {
        l->fd[end] = open_tap(words[2 * end], words[2 * end + 1]);
        if (l->fd[end] < 0) {
            if (end) close(l->fd[0]);
            return strerror(errno);
        }
    }
    for (int end = 0; end < 2; end++) {
        direction_init(&l->way[end], seed * 2 + (uint64_t)end + 1);
        l->way[end].set.overhead_bytes = -ETHERNET;
        watch(l->fd[end], number * 2 + (uint32_t)end);
    }
    l->used = 1;
    return NULL;
}

static const char *unmake(struct link *l) {
    for (int end = 0; end < 2; end++) {
        close(l->fd[end]);
        free(l->way[end].ring);
        l->way[end].ring = NULL;
    }
    l->used = 0;                    /* what is still on its way is dropped when it is due */
    return NULL;
}

static void tell(const struct link *l) {
    printf("{");
    direction_tell("up", &l->way[0]);
    printf(", ");
    direction_tell("down", &l->way[1]);
    printf("}\n");
}

/* Carry out a line; return what is wrong with it. What it tells itself makes it return "". */
static const char *run_command(char *line) {
    char *save, *words[5], *verb = strtok_r(line, " ", &save), *word = verb ? strtok_r(NULL, " ", &save) : NULL;
    if (!word) return "a command is a verb and a number";
    unsigned long number = strtoul(word, NULL, 10);
    if (number >= MAX_LINKS) return "too many links";
    if (!strcmp(verb, "link")) {
        for (int i = 0; i < 5; i++)
            if (!(words[i] = strtok_r(NULL, " ", &save))) return "link needs a seed and two ends";
        return make((uint32_t)number, strtoull(words[0], NULL, 10), words + 1);
    }
    struct link *l = &links[number];
    if (!l->used) return "no such link";
    if (!strcmp(verb, "unlink")) return unmake(l);
    if (!strcmp(verb, "stats")) { tell(l); return ""; }
    if (strcmp(verb, "set")) return "no such command";
    word = strtok_r(NULL, " ", &save);
    if (!word || (strcmp(word, "up") && strcmp(word, "down"))) return "set needs up or down";
    return direction_set(&l->way[!strcmp(word, "down")], &save);
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
        const char *error = run_command(line);
        if (!error) printf("{}\n");
        else if (*error) printf("{\"error\": \"%s\"}\n", error);
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
    if (next_ns == timer_ns) return;
    timer_ns = next_ns;
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (next_ns != ~0ull) when.it_value = (struct timespec){(time_t)(next_ns / 1000000000u), (long)(next_ns % 1000000000u)};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

int main(void) {
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (poller < 0 || timer < 0 || home < 0) die("epoll, timerfd, namespace");
    if (sched_setscheduler(0, SCHED_RR, &(struct sched_param){1})) (void)!nice(-15);    /* where it may: delays shall be right */
    watch(timer, TIMER);
    watch(0, COMMANDS);
    for (;;) {
        struct epoll_event events[64];
        arm();
        int ready = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            uint32_t id = events[i].data.u32;
            uint64_t expired;
            if (id == TIMER) (void)!read(timer, &expired, sizeof expired);
            else if (id == COMMANDS) { if (!read_commands()) return 0; }
            else if (links[id / 2].used) receive(id);
        }
        uint64_t now_ns = clock_ns();
        if (heap_count && heap[0]->due_ns <= now_ns && now_ns >= released_ns + GRAIN_NS) release(now_ns);
    }
}
