from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.slab cimport Endpoint

cdef enum:
    SPRAY_LOWEST_PORT = 1024        # those below belong to services
    SPRAY_HIGHEST_PORT = 65535
    SPRAY_PORTS = 64512
    SPRAY_GAP_NS = 1000000          # between two probes: 1,000 a second
    SPRAY_BURST = 8                 # probes that a late timer may make up for
    SPRAY_AGAIN_NS = 1500000000     # after which the many sockets send once more
    SPRAY_BLOCK_ROUNDS = 2          # through a known block, for what was lost and what came too early
    SPRAY_MAX_SOCKETS = 256
    SPRAY_LEAST_SOCKETS = 8         # where the peer knows which ports to try
    SPRAY_BOTH_SOCKETS = 3          # of each end, when both spray: 3 x 3 hits are expected
    SWEEP_WIDTH = 64                # ports of the first sweep, besides those that other flows have taken meanwhile
    SWEEP_MAX_WIDTH = 1024
    SWEEP_GROWTH = 4                # of each further sweep
    SWEEP_FLOWS_PER_S = 40          # taken by others: twice what a busy home does

cdef enum:                          # what is sprayed
    SPRAY_NOTHING = 0
    SPRAY_PORTS_AT_RANDOM = 1       # from our one socket
    SPRAY_PORTS_TO_COME = 2         # likewise, in the order in which the peer's NAT hands them out
    SPRAY_SOCKETS = 3               # from many sockets, to the one address of the peer
    SPRAY_SOCKETS_AND_PORTS = 4     # from a few sockets, to every port of the peer's block

cdef struct PortWalk:               # the ports of a range, each once, in an order that a seed decides
    uint16_t low
    uint32_t count                  # ports in the range
    uint32_t start
    uint32_t stride                 # prime to `count`, so that the walk comes to every port
    uint32_t done                   # ports handed out

cdef struct Spray:                  # what a spray sends, and when; `to` is the peer's host, and its port for SPRAY_SOCKETS
    uint8_t kind
    Endpoint to
    uint32_t allowed                # probes, by the node's budget
    uint32_t sent
    uint64_t begun_ns
    uint64_t next_ns                # when the next probe is due; 0: it waits for sockets, or everything is sent
    uint64_t seed
    PortWalk walk
    uint16_t block_low              # 0: not known
    uint16_t block_high
    uint8_t rounds                  # finished, through the block, the ports to come, or the sockets
    uint16_t last_port
    int16_t step
    uint32_t width                  # of this sweep
    uint32_t at                     # steps from `last_port`
    uint16_t sockets                # extra ones that are open, numbered from 1
    uint16_t socket                 # the next one
    bint may_poison                 # a NAT is before the peer: the first probe of each socket has a low TTL

cdef void walk_init(PortWalk *w, uint16_t low, uint16_t high, uint64_t seed) noexcept nogil
cdef uint16_t walk_next(PortWalk *w) noexcept nogil

cdef void spray_ports(Spray *s, uint16_t block_low, uint16_t block_high, uint64_t now_ns) noexcept nogil
cdef void spray_sweep(Spray *s, uint16_t last_port, int16_t step, uint64_t age_ms, uint64_t now_ns) noexcept nogil
cdef void spray_sockets(Spray *s, bint may_poison) noexcept nogil
cdef void spray_sockets_and_ports(Spray *s, uint16_t block_low, uint16_t block_high) noexcept nogil
cdef void spray_open(Spray *s, uint16_t sockets, uint64_t now_ns) noexcept nogil
cdef bint spray_poll(Spray *s, uint64_t now_ns, Endpoint *to, uint16_t *socket, bint *is_low) noexcept nogil
cdef uint32_t sockets_for(uint32_t block_ports) noexcept nogil
