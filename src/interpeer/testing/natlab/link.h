/* What one direction of a link does to packets: settings, chance, a queue in front of a rate, and when a packet is due.
 * The settings and their order are those of interpeer.testing.Link: a policer and a full queue drop, the rate lets through,
 * then packets are lost, corrupted, duplicated and delayed. Times are nanoseconds of the monotonic clock. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HELD = 400000, ECT_1 = 1, ECT_0 = 2, CE = 3 };

/* Every setting is a number, so that a line of text can name it. -1 stands for "no limit". */
#define SETTINGS(X) \
    X(delay_ns, 0) X(jitter_ns, 0) X(loss, 0) X(loss_run_packets, 0) X(loss_run_limit, 0) X(reorder, 0) X(reorder_ns, 0) \
    X(duplicate, 0) X(corrupt, 0) X(rate_bit_per_s, -1) X(queue_bytes, -1) X(queue_packets, -1) X(ecn_mark_bytes, -1) \
    X(bleaches_ecn, 0) X(mtu_bytes, 1500) X(is_up, 1) X(policer_bit_per_s, -1) X(policer_burst_bytes, 15000) \
    X(overhead_bytes, 28) X(drop_first, 0) X(drop_last, 0)
#define COUNTERS(X) \
    X(packets) X(bytes) X(delivered_packets) X(delivered_bytes) X(lost) X(queue_full) X(policed) X(too_large) X(down) \
    X(corrupted) X(duplicated) X(late) X(marked) X(max_queue_bytes) X(ect_0) X(ect_1) X(ce) X(not_held) X(not_sent) \
    X(overflowed) X(late_sum_ns) X(late_max_ns) X(late_by_1_ms)

struct settings {
#define X(name, value) double name;
    SETTINGS(X)
#undef X
};

struct counters {
#define X(name) uint64_t name;
    COUNTERS(X)
#undef X
};

struct held {                       /* a packet on its way */
    uint64_t due_ns;
    uint64_t number;                /* of what is due at the same time the earlier one goes first */
    struct direction *direction;
    uint32_t flow;
    uint16_t bytes;
    uint8_t ecn;
    uint8_t data[];
};

struct waiting { uint64_t start_ns; double bytes; };

struct direction {
    struct settings set;
    struct counters count;
    uint64_t random;
    struct waiting *ring;           /* what waits for the rate; owned */
    uint32_t ring_size, ring_first, ring_count;
    double ring_bytes;
    uint64_t free_ns;               /* when the last bit of what waits is gone */
    uint64_t last_ns;               /* when the last packet that keeps its place is due */
    double policer_bytes;
    uint64_t policed_ns;
    int is_losing, lost_in_a_row;
};

static struct held **heap;
static uint32_t heap_count, heap_size;
static uint64_t held_number;

static void direction_init(struct direction *d, uint64_t seed) {
    memset(d, 0, sizeof *d);
#define X(name, value) d->set.name = value;
    SETTINGS(X)
#undef X
    d->random = seed * 0x9E3779B97F4A7C15ull | 1;
    d->policer_bytes = 1e18;        /* full, whatever its size is */
}

static double chance(struct direction *d) {
    d->random ^= d->random << 13;
    d->random ^= d->random >> 7;
    d->random ^= d->random << 17;
    return (double)(d->random >> 11) / 9007199254740992.0;
}

static int happens(struct direction *d, double share) { return share > 0 && chance(d) < share; }

/* --- what is held, by the time when it is due --- */

static int is_before(const struct held *a, const struct held *b) {
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->number < b->number;
}

static int heap_push(struct held *p) {
    if (heap_count == heap_size) {
        uint32_t size = heap_size ? heap_size * 2 : 1024;
        struct held **grown = realloc(heap, size * sizeof *grown);
        if (!grown) return 0;
        heap = grown;
        heap_size = size;
    }
    uint32_t at = heap_count++;
    for (; at && is_before(p, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = p;
    return 1;
}

static struct held *heap_pop(void) {
    struct held *top = heap[0], *last = heap[--heap_count];
    uint32_t at = 0, child;
    while ((child = 2 * at + 1) < heap_count) {
        if (child + 1 < heap_count && is_before(heap[child + 1], heap[child])) child++;
        if (!is_before(heap[child], last)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

/* --- the way of a packet --- */

static int wait_in_ring(struct direction *d, uint64_t start_ns, double bytes) {
    if (d->ring_count == d->ring_size) {
        uint32_t size = d->ring_size ? d->ring_size * 2 : 256;
        struct waiting *grown = malloc(size * sizeof *grown);
        if (!grown) return 0;
        for (uint32_t i = 0; i < d->ring_count; i++) grown[i] = d->ring[(d->ring_first + i) & (d->ring_size - 1)];
        free(d->ring);
        d->ring = grown;
        d->ring_size = size;
        d->ring_first = 0;
    }
    d->ring[(d->ring_first + d->ring_count++) & (d->ring_size - 1)] = (struct waiting){start_ns, bytes};
    d->ring_bytes += bytes;
    if (d->ring_bytes > d->count.max_queue_bytes) d->count.max_queue_bytes = (uint64_t)d->ring_bytes;
    return 1;
}

static int is_policed(struct direction *d, double bytes, uint64_t now_ns) {
    const struct settings *s = &d->set;
    if (s->policer_bit_per_s < 0) return 0;
    d->policer_bytes += (double)(now_ns - d->policed_ns) * s->policer_bit_per_s / 8e9;
    d->policed_ns = now_ns;
    if (d->policer_bytes > s->policer_burst_bytes) d->policer_bytes = s->policer_burst_bytes;
    if (bytes > d->policer_bytes) return 1;
    d->policer_bytes -= bytes;
    return 0;
}

/* Return when the last bit is gone, or 0 if there is no room. */
static uint64_t leave_ns(struct direction *d, double bytes, uint8_t *ecn, uint64_t now_ns) {
    const struct settings *s = &d->set;
    if (s->rate_bit_per_s < 0) return now_ns;
    while (d->ring_count && d->ring[d->ring_first].start_ns <= now_ns) {
        d->ring_bytes -= d->ring[d->ring_first].bytes;
        d->ring_first = (d->ring_first + 1) & (d->ring_size - 1);
        d->ring_count--;
    }
    uint64_t start_ns = d->free_ns > now_ns ? d->free_ns : now_ns;
    if (start_ns > now_ns) {
        if (s->queue_packets >= 0 && d->ring_count >= s->queue_packets) return 0;
        if (s->queue_bytes >= 0 && d->ring_bytes + bytes > s->queue_bytes) return 0;
        if (s->ecn_mark_bytes >= 0 && d->ring_bytes > s->ecn_mark_bytes && (*ecn == ECT_0 || *ecn == ECT_1)) {
            *ecn = CE;
            d->count.marked++;
        }
        if (!wait_in_ring(d, start_ns, bytes)) return 0;
    }
    d->free_ns = start_ns + (uint64_t)(bytes * 8e9 / s->rate_bit_per_s);
    return d->free_ns;
}

static int is_lost(struct direction *d) {
    const struct settings *s = &d->set;
    if (s->loss <= 0) return 0;
    if (s->loss_run_limit && d->lost_in_a_row >= s->loss_run_limit) {
        d->lost_in_a_row = d->is_losing = 0;
        return 0;
    }
    double share = s->loss;
    if (s->loss_run_packets > 0) {  /* two states; a run ends with chance 1/mean, and begins so often that the share comes out */
        double ends = 1 / s->loss_run_packets;
        share = d->is_losing ? 1 - ends : ends * s->loss / (1 - s->loss);
    }
    d->is_losing = happens(d, share);
    d->lost_in_a_row = d->is_losing ? d->lost_in_a_row + 1 : 0;
    return d->is_losing;
}

static void hold(struct direction *d, uint32_t flow, const uint8_t *data, uint16_t bytes, uint8_t ecn, uint64_t gone_ns) {
    const struct settings *s = &d->set;
    struct held *p = heap_count < MAX_HELD ? malloc(sizeof *p + bytes) : NULL;
    if (!p) {
        d->count.not_held++;
        return;
    }
    uint64_t due_ns = gone_ns + (uint64_t)s->delay_ns;
    if (s->jitter_ns > 0) due_ns += (uint64_t)(s->jitter_ns * chance(d));
    if (happens(d, s->reorder)) {
        d->count.late++;
        due_ns += (uint64_t)s->reorder_ns;
    } else {
        if (due_ns < d->last_ns) due_ns = d->last_ns;   /* whoever came before is not overtaken */
        d->last_ns = due_ns;
    }
    *p = (struct held){due_ns, held_number++, d, flow, bytes, ecn};
    memcpy(p->data, data, bytes);
    if (!heap_push(p)) {
        d->count.not_held++;
        free(p);
    }
}

static void corrupt(struct direction *d, uint8_t *data, uint16_t bytes) {
    int flips = 1 + (int)(3 * chance(d));
    for (; flips && bytes; flips--) {
        uint32_t bit = (uint32_t)(bytes * 8 * chance(d));
        data[bit / 8] ^= 1 << bit % 8;
    }
    d->count.corrupted++;
}

/* Take a packet that came at a time. It may be changed. */
static void carry(struct direction *d, uint32_t flow, uint8_t *data, uint16_t bytes, uint8_t ecn, uint64_t now_ns) {
    const struct settings *s = &d->set;
    double size = bytes + s->overhead_bytes;
    d->count.packets++;
    d->count.bytes += (uint64_t)size;
    d->count.ect_0 += ecn == ECT_0;
    d->count.ect_1 += ecn == ECT_1;
    d->count.ce += ecn == CE;
    if (!s->is_up) { d->count.down++; return; }
    if (d->count.packets >= s->drop_first && d->count.packets <= s->drop_last) { d->count.lost++; return; }
    if (size > s->mtu_bytes) { d->count.too_large++; return; }
    if (is_policed(d, size, now_ns)) { d->count.policed++; return; }
    uint64_t gone_ns = leave_ns(d, size, &ecn, now_ns);
    if (!gone_ns) { d->count.queue_full++; return; }
    if (is_lost(d)) { d->count.lost++; return; }
    if (s->bleaches_ecn) ecn = 0;
    if (happens(d, s->corrupt)) corrupt(d, data, bytes);
    hold(d, flow, data, bytes, ecn, gone_ns);
    if (happens(d, s->duplicate)) {
        d->count.duplicated++;
        hold(d, flow, data, bytes, ecn, gone_ns);
    }
}

/* --- what commands ask of a direction --- */

/* Change settings by the words NAME=NUMBER that are left; return what is wrong with them, and change nothing then. */
static const char *direction_set(struct direction *d, char **save) {
    struct settings next = d->set;
    for (char *name; (name = strtok_r(NULL, " ", save));) {
        char *value = strchr(name, '=');
        if (!value) return "a setting is name=number";
        *value++ = 0;
        double *field = NULL;
#define X(known, unused) if (!strcmp(name, #known)) field = &next.known;
        SETTINGS(X)
#undef X
        if (!field) return "no such setting";
        *field = strtod(value, NULL);
    }
    d->set = next;
    return NULL;
}

/* Print the counters as a member of an object of JSON. */
static void direction_tell(const char *name, const struct direction *d) {
    const char *comma = "";
    printf("\"%s\": {", name);
#define X(counter) printf("%s\"" #counter "\": %llu", comma, (unsigned long long)d->count.counter); comma = ", ";
    COUNTERS(X)
#undef X
    printf("}");
}
