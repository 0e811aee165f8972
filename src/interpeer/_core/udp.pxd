from libc.stdint cimport int64_t, uint32_t, uint64_t

from interpeer._core.slab cimport Endpoint, RecvBatch, SendBatch

cdef enum:                          # what a socket can do: granted by the system and not disabled by the user
    UDP_CAN_GSO = 1                 # one call sends a super-datagram, which the kernel or the card cuts
    UDP_CAN_GRO = 2                 # ... and receives one
    UDP_CAN_MMSG = 4                # several messages in one call
    UDP_CAN_ECN = 8
    UDP_CAN_PKTINFO = 16            # learn the address that a datagram came to, and choose the one it leaves from
    UDP_CAN_BIG_BUFFERS = 32        # both buffers are as large as asked
    UDP_CAN_CONTROL = 64            # control messages at all; without them none of the above but big buffers
    UDP_CAN_FORBID_FRAGMENTS = 128
    UDP_CAN_REUSEPORT = 256         # several sockets at one address, each of which gets a part of what comes
    UDP_CAN_STEERING = 512          # ... the part that a program of ours says
    UDP_CAN_TTL = 1024              # a datagram brings its time to live
    UDP_BUFFER_BYTES = 8388608      # asked for each direction: 2 ms at 32 Gbit/s, the longest pause of a reader on a busy core
    UDP_REFUSERS = 16               # destinations remembered as refusing GSO; the oldest is forgotten first

cdef enum:
    UDP_OK = 0                      # every entry was given to the kernel or counted as failed
    UDP_WOULD_BLOCK = 1             # the rest of the batch is kept: call again when the socket can be written to

cdef struct UdpCounters:            # since the socket was opened; read by name from Python
    uint64_t received_calls
    uint64_t received_messages
    uint64_t received_packets       # segments of those
    uint64_t received_bytes
    uint64_t sent_calls
    uint64_t sent_messages
    uint64_t sent_packets
    uint64_t sent_bytes
    uint64_t would_block            # times the socket's send buffer was full
    # uses of fallbacks
    uint64_t without_gso            # parts of entries that were sent in several messages
    uint64_t without_gro            # messages received on a socket that the kernel does not glue for
    uint64_t without_mmsg           # messages that took a call of their own, either way
    uint64_t without_control        # messages by sendto and recvfrom
    uint64_t without_ecn            # entries whose mark was not set
    uint64_t without_pktinfo        # messages whose destination is not known, and entries whose source the system chose
    uint64_t without_ttl            # messages for which the socket's time to live was set, and set back
    uint64_t small_buffers          # buffers smaller than asked
    uint64_t gso_refused            # super-datagrams that the kernel promised to cut, and then refused
    uint64_t source_gone            # entries that left from another address, since ours is not there any more
    # losses
    uint64_t overflowed             # datagrams lost by the kernel because the receive buffer was full
    uint64_t cut                    # messages dropped because their data or control messages did not fit
    uint64_t late_errors            # failures of earlier datagrams (ICMP) told by a later call; nothing was lost here
    uint64_t unreachable            # entries dropped: no route, interface down, no such source address, wrong family
    uint64_t forbidden              # ... by the firewall
    uint64_t refused                # ... by the destination, twice
    uint64_t too_big                # ... more than the interface takes
    uint64_t no_buffers             # ... by a full queue below the socket: a loss like any other, for recovery to see
    uint64_t other_errors

cdef struct Udp:
    int64_t fd                      # -1: closed
    bint owns_fd
    bint is_ipv6
    uint32_t can                    # UDP_CAN_*
    int last_error                  # errno of the last failure that was counted or returned; 0: none
    uint32_t receive_buffer_bytes   # as given
    uint32_t send_buffer_bytes
    uint32_t overflows_told         # the kernel's count when it last told one; it wraps
    uint32_t refusals               # remembered since the socket was opened; the next slot is this modulo UDP_REFUSERS
    Endpoint refusers[16]           # UDP_REFUSERS destinations that GSO does not reach
    void *slots                     # SysSlots, the headers of system calls, prepared once; owned
    UdpCounters counters

cdef int udp_open(Udp *udp, const Endpoint *at, uint32_t disabled) noexcept nogil
cdef int udp_join(Udp *udp, const Udp *first, uint32_t disabled) noexcept nogil
cdef int udp_steer(Udp *udp, const void *steps, uint32_t count, uint32_t disabled) noexcept nogil
cdef int udp_adopt(Udp *udp, int64_t fd, uint32_t disabled) noexcept nogil
cdef void udp_close(Udp *udp) noexcept nogil
cdef int udp_local(const Udp *udp, Endpoint *at) noexcept nogil
cdef int udp_recv(Udp *udp, RecvBatch *batch) noexcept nogil
cdef int udp_send(Udp *udp, SendBatch *batch) noexcept nogil
cdef void udp_counters_add(UdpCounters *total, const UdpCounters *more) noexcept nogil
cdef int udp_wait(const Udp *udp, bint for_sending, int timeout_ms) noexcept nogil
cdef uint64_t udp_clock_ns() noexcept nogil
