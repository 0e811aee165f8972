"""Which ports a spray tries, from which sockets, and when (docs/spec, chapter 24).

One struct for each of the four kinds of spray, which are begun by functions of their own and polled alike. It decides nothing:
whether there is one at all, and how many probes it may have, is said by the machine and the node's budget.
"""

from libc.stdint cimport int16_t, int32_t, uint16_t, uint32_t, uint64_t

from interpeer._core.slab cimport Endpoint


cdef uint32_t greatest_common_divisor(uint32_t a, uint32_t b) noexcept nogil:
    cdef uint32_t rest
    while b:
        rest = a % b
        a = b
        b = rest
    return a


cdef void walk_init(PortWalk *w, uint16_t low, uint16_t high, uint64_t seed) noexcept nogil:
    """Begin a walk through the ports from `low` to `high`.

    The ports that a NAT has drawn are random, so any distinct guesses are as good as others: equal strides will do."""
    w.low = low
    w.count = <uint32_t>high - low + 1
    w.start = <uint32_t>(seed % w.count)
    w.stride = <uint32_t>((seed >> 32) % w.count) | 1
    while greatest_common_divisor(w.stride, w.count) != 1:
        w.stride += 2
    w.done = 0


cdef uint16_t walk_next(PortWalk *w) noexcept nogil:
    """Return the next port; 0 when each was returned."""
    cdef uint64_t at = w.start + <uint64_t>w.done * w.stride
    if w.done == w.count:
        return 0
    w.done += 1
    return <uint16_t>(w.low + at % w.count)


# --- beginning; `to`, `allowed` and `seed` are set by the caller, the rest is zero ---

cdef void spray_ports(Spray *s, uint16_t block_low, uint16_t block_high, uint64_t now_ns) noexcept nogil:
    """Try the ports of a block, if one is known, and then all others."""
    s.kind = SPRAY_PORTS_AT_RANDOM
    s.block_low = block_low
    s.block_high = block_high
    s.begun_ns = s.next_ns = now_ns
    next_walk(s)


cdef void spray_sweep(Spray *s, uint16_t last_port, int16_t step, uint64_t age_ms, uint64_t now_ns) noexcept nogil:
    """Try the ports that follow `last_port`, which is so old: a few first, then more and more."""
    cdef uint64_t others = age_ms * SWEEP_FLOWS_PER_S // 1000
    s.kind = SPRAY_PORTS_TO_COME
    s.last_port = last_port
    s.step = step
    s.width = SWEEP_MAX_WIDTH
    if others < SWEEP_MAX_WIDTH - SWEEP_WIDTH:
        s.width = SWEEP_WIDTH + <uint32_t>others
    s.at = 1
    s.begun_ns = s.next_ns = now_ns


cdef void spray_sockets(Spray *s, bint may_poison) noexcept nogil:
    """Keep many mappings open, from sockets that spray_open tells of."""
    s.kind = SPRAY_SOCKETS
    s.may_poison = may_poison


cdef void spray_sockets_and_ports(Spray *s, uint16_t block_low, uint16_t block_high) noexcept nogil:
    """Try every port of a block from each of a few sockets, that spray_open tells of."""
    s.kind = SPRAY_SOCKETS_AND_PORTS
    s.block_low = block_low
    s.block_high = block_high


cdef void spray_open(Spray *s, uint16_t sockets, uint64_t now_ns) noexcept nogil:
    """The sockets are open, or as many as the system gave."""
    s.sockets = sockets if sockets < SPRAY_MAX_SOCKETS else SPRAY_MAX_SOCKETS
    s.socket = 1
    s.begun_ns = now_ns
    if s.sockets:
        s.next_ns = now_ns
    if s.kind == SPRAY_SOCKETS_AND_PORTS:
        walk_init(&s.walk, s.block_low, s.block_high, s.seed)


cdef uint32_t sockets_for(uint32_t block_ports) noexcept nogil:
    """Return how many sockets the hard side opens when its ports come from so many: the same share of them everywhere."""
    cdef uint32_t wanted = (block_ports * SPRAY_MAX_SOCKETS + SPRAY_PORTS - 1) // SPRAY_PORTS
    return wanted if wanted > SPRAY_LEAST_SOCKETS else SPRAY_LEAST_SOCKETS


# --- sending ---

cdef bint spray_poll(Spray *s, uint64_t now_ns, Endpoint *to, uint16_t *socket, bint *is_low) noexcept nogil:
    """Tell whether a probe is due now; where it goes, from which socket, and whether its TTL shall be low."""
    if s.next_ns == 0 or now_ns < s.next_ns:
        return False
    if s.sent == s.allowed:
        s.next_ns = 0
        return False
    if now_ns - s.next_ns > SPRAY_BURST * <uint64_t>SPRAY_GAP_NS:
        s.next_ns = now_ns - SPRAY_BURST * <uint64_t>SPRAY_GAP_NS
    s.next_ns += SPRAY_GAP_NS
    to[0] = s.to
    socket[0] = 0
    is_low[0] = False
    if s.kind == SPRAY_PORTS_AT_RANDOM:
        to.port = port_at_random(s)
    elif s.kind == SPRAY_PORTS_TO_COME:
        to.port = port_to_come(s)
    elif s.kind == SPRAY_SOCKETS:
        socket[0] = s.socket
        is_low[0] = s.may_poison and s.rounds == 0
        next_socket(s)
    else:
        to.port = walk_next(&s.walk)
        if to.port == 0:
            to.port = first_of_next_socket(s)
        socket[0] = s.socket
    if to.port == 0:
        s.next_ns = 0
        return False
    s.sent += 1
    return True


cdef void next_walk(Spray *s) noexcept nogil:
    """Go through the block once or twice, and then through everything."""
    cdef bint is_small = s.block_high - s.block_low < SPRAY_PORTS // 64
    cdef uint64_t seed = s.seed + s.rounds * <uint64_t>0x9E3779B97F4A7C15
    if s.block_low and s.rounds < (SPRAY_BLOCK_ROUNDS if is_small else 1):
        walk_init(&s.walk, s.block_low, s.block_high, seed)
    else:
        walk_init(&s.walk, SPRAY_LOWEST_PORT, SPRAY_HIGHEST_PORT, seed)
        s.rounds = 0xFE             # the last round
    s.rounds += 1


cdef uint16_t port_at_random(Spray *s) noexcept nogil:
    cdef uint16_t port = walk_next(&s.walk)
    while port == 0 and s.rounds != 0xFF:
        next_walk(s)
        port = walk_next(&s.walk)
    while s.rounds == 0xFF and port and s.block_low <= port <= s.block_high:
        port = walk_next(&s.walk)   # it has been tried
    return port


cdef uint16_t port_to_come(Spray *s) noexcept nogil:
    """Return the next port of a sweep. Beyond the highest a NAT goes on with the lowest."""
    cdef int32_t offset
    if s.at > s.width:
        s.at = 1
        s.width = s.width * SWEEP_GROWTH if s.width * SWEEP_GROWTH < SWEEP_MAX_WIDTH else SWEEP_MAX_WIDTH
    offset = (<int32_t>s.last_port - SPRAY_LOWEST_PORT + <int32_t>s.step * <int32_t>s.at) % SPRAY_PORTS
    s.at += 1
    return <uint16_t>(SPRAY_LOWEST_PORT + (offset if offset >= 0 else offset + SPRAY_PORTS))


cdef void next_socket(Spray *s) noexcept nogil:
    """Go on to the next socket; after the last one, wait, and once more.

    The first time no probe is to get farther than our own NAT: where one reaches the peer's, and that is a plain Linux router, all
    that the peer sends after that comes from another port. The second time all do, because the NAT that counts may be far from
    here, at a carrier's."""
    s.socket += 1
    if s.socket > s.sockets:
        s.socket = 1
        s.rounds += 1
        s.next_ns = s.begun_ns + SPRAY_AGAIN_NS if s.rounds == 1 else 0


cdef uint16_t first_of_next_socket(Spray *s) noexcept nogil:
    if s.socket >= s.sockets:
        return 0
    s.socket += 1
    walk_init(&s.walk, s.block_low, s.block_high, s.seed + s.socket)
    return walk_next(&s.walk)
