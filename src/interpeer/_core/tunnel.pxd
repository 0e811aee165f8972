from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.slab cimport Datagrams
from interpeer._core.table cimport Table

cdef enum:
    MAX_TUNNELS = 256               # of a node: each may hold a queue
    FRAME_HEADER_BYTES = 2          # the packet's length, in front of it
    MAX_FRAME_BYTES = 1500          # of a packet: an Ethernet's worth, so that a peer makes us keep no more of half a frame
    MAX_QUEUE_BYTES = 1048576       # to be written to one tunnel: what a turn sends at once; more is dropped, as by any queue
    KEPT_QUEUE_BYTES = 16384        # kept for the next time
    MAX_INBOX_BYTES = 2097152       # taken from all tunnels and not handled yet; more is dropped, as by a full socket

cdef enum:                          # results of tunnel_add
    TUNNEL_OK = 0
    TUNNEL_TAKEN = -1
    TUNNEL_FULL = -2
    TUNNEL_NO_MEMORY = -3

cdef struct Tunnel:
    uint64_t number                 # in its virtual address
    uint8_t *queue                  # frames to be written; owned
    uint32_t used
    uint32_t room
    bint is_held                    # whoever writes it can take no more now
    uint64_t dropped                # packets that found the queue full

cdef struct Letter:                 # in the inbox, in front of each packet
    uint64_t number
    uint32_t bytes

cdef struct Tunnels:
    Table by_number                 # of Tunnel; owned
    Tunnel *tunnels[256]            # the same, one behind the other
    uint32_t count
    bint is_ready                   # one that is not held has something to be written
    uint8_t *inbox                  # Letters and packets; owned
    uint32_t inbox_room
    long inbox_used                 # read without the lock
    uint64_t dropped                # packets that found the inbox full, or their tunnel gone

cdef Tunnels *tunnels_new() noexcept nogil
cdef void tunnels_free(Tunnels *t) noexcept nogil
cdef Tunnel *tunnels_find(const Tunnels *t, uint64_t number) noexcept nogil
cdef int tunnels_add(Tunnels *t, uint64_t number) noexcept nogil
cdef void tunnels_remove(Tunnels *t, uint64_t number) noexcept nogil
cdef void tunnels_hold(Tunnels *t, Tunnel *tunnel, bint is_held) noexcept nogil
cdef void tunnels_push(Tunnels *t, const Datagrams *d) noexcept nogil
cdef Tunnel *tunnels_next_ready(Tunnels *t) noexcept nogil
cdef void tunnels_emptied(Tunnels *t, Tunnel *tunnel) noexcept nogil
cdef Py_ssize_t frames_check(const uint8_t *p, size_t n) noexcept nogil
cdef void tunnels_deliver(Tunnels *t, uint64_t number, const uint8_t *frames, size_t n) noexcept nogil
