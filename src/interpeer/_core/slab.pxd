from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_UDP_PAYLOAD = 65507         # what one IPv4 datagram, or one super-datagram of GSO and GRO, can carry
    SLOT_BYTES = 65536              # room for one of those
    RECV_SLOTS = 16                 # super-datagrams taken by one system call; 1 MiB, so that a batch stays in cache
    SEND_ENTRIES = 64               # messages given to one system call
    SEND_BATCH_BYTES = 262144       # bytes of packets built before they are sent: four super-datagrams; stays in cache
    MAX_SEGMENTS = 64               # packets in one super-datagram (Linux: UDP_MAX_SEGMENTS is 64 before 6.9)

cdef struct Endpoint:               # a socket address; 24 bytes, compared and hashed as bytes, so no padding
    uint8_t address[16]             # IPv6, or IPv4 as ::ffff:a.b.c.d
    uint16_t port                   # in the order of the machine
    uint16_t zero
    uint32_t scope                  # interface of a link-local address, otherwise 0

cdef enum:                          # kinds of virtual endpoints: addresses in 0100::/56 (RFC 6666), which are never on a wire
    ENDPOINT_ORDINARY = 0
    ENDPOINT_LEG = 1                # a remote endpoint: packets go through a relay; the id is the leg's (chapter 21)
    ENDPOINT_TUNNEL = 2             # a remote endpoint: packets go over one of our TCP tunnels; the id is its number
    ENDPOINT_SOCKET = 3             # an address of ours: packets leave from an extra socket; the id is its number
    ENDPOINT_PORT = 1               # the port of every virtual endpoint; its scope is 0

cdef struct Datagrams:              # one message of the kernel: one packet, or several glued together by GRO or for GSO
    uint8_t *data                   # in the batch's buffer; not owned
    uint32_t bytes                  # of all segments
    uint32_t segment                # bytes of each segment; only the last may be shorter
    void *owner                     # sending: whose packets they are, so that only one owner's are glued together
    Endpoint remote                 # where it came from, or goes to
    uint8_t local[16]               # our address that it came to, or leaves from; zeros: not known, or the system chooses
    uint32_t interface              # index of the interface for `local`; 0: not known
    uint8_t ecn                     # ECN field: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE
    uint8_t ttl                     # sending: time to live, hop limit; 0: the system's
    bint is_too_big                 # sending: the interface takes no packet of this size
    uint32_t path                   # sending: the path's id, where `cid` is set
    uint64_t cid                    # sending: a connection id of ours, for whose packets they are; 0: no connection's

cdef struct RecvBatch:
    uint8_t *buffer                 # RECV_SLOTS x SLOT_BYTES; owned
    uint32_t count                  # slots filled
    Datagrams slots[16]

cdef struct SendBatch:
    uint8_t *buffer                 # SEND_BATCH_BYTES + SLOT_BYTES; owned
    uint32_t used                   # bytes of it in use
    uint32_t count                  # entries filled
    uint32_t sent                   # entries already given to the kernel
    uint32_t run                    # packets in the last entry, if another may be glued to it; otherwise 0
    uint32_t too_big                # entries whose packets are too large for the interface
    Datagrams entries[64]

cdef struct Pool:                   # equal blocks that are used again
    void **free_blocks              # a stack, so that a free block's own memory is not touched; owned
    uint32_t block_bytes
    uint32_t kept                   # blocks on it
    uint32_t keep                   # at most so many are kept; the rest goes back to the system
    uint32_t live                   # blocks handed out and not returned

cdef int recv_batch_init(RecvBatch *batch) noexcept nogil
cdef void recv_batch_free(RecvBatch *batch) noexcept nogil
cdef int send_batch_init(SendBatch *batch) noexcept nogil
cdef void send_batch_free(SendBatch *batch) noexcept nogil
cdef void send_batch_clear(SendBatch *batch) noexcept nogil

cdef void pool_init(Pool *pool, uint32_t block_bytes, uint32_t keep) noexcept nogil
cdef void *pool_take(Pool *pool) noexcept nogil
cdef void pool_give(Pool *pool, void *block) noexcept nogil
cdef void pool_free(Pool *pool) noexcept nogil

cdef inline bint endpoint_is_ipv4(const Endpoint *e) noexcept nogil:
    return ((<const uint32_t *>e.address)[0] == 0 and (<const uint32_t *>e.address)[1] == 0
            and e.address[8] == 0 and e.address[9] == 0 and e.address[10] == 0xFF and e.address[11] == 0xFF)


cdef inline bint endpoint_is_virtual(const uint8_t *address) noexcept nogil:
    """Tell whether an address is in 0100::/56: no datagram comes from there."""
    return address[0] == 1 and not (address[1] or address[2] or address[3] or address[4] or address[5] or address[6])


cdef inline int endpoint_kind(const uint8_t *address) noexcept nogil:
    """Return what a virtual endpoint stands for, ENDPOINT_*: the last byte of its prefix; 0: an ordinary address."""
    return address[7] if endpoint_is_virtual(address) else ENDPOINT_ORDINARY


cdef inline uint64_t endpoint_id(const uint8_t *address) noexcept nogil:
    """Return the number that a virtual endpoint carries behind its prefix."""
    cdef uint64_t id = 0
    cdef int i
    for i in range(8):
        id = id << 8 | address[8 + i]
    return id


cdef inline void endpoint_virtual(uint8_t *address, uint8_t kind, uint64_t id) noexcept nogil:
    """Write the 16 bytes of a virtual endpoint."""
    cdef int i
    address[0] = 1
    for i in range(1, 7):
        address[i] = 0
    address[7] = kind
    for i in range(8):
        address[8 + i] = <uint8_t>(id >> (56 - 8 * i))


cdef inline void endpoint_set_virtual(Endpoint *e, uint8_t kind, uint64_t id) noexcept nogil:
    endpoint_virtual(e.address, kind, id)
    e.port = ENDPOINT_PORT
    e.zero = 0
    e.scope = 0
