"""System calls for UDP, in batches; knows nothing of the protocol.

A socket speaks one family, never blocks, forbids fragments and takes what the system offers of: several messages in one
call, segmentation by the kernel (GSO, GRO), ECN marks, the address that a datagram came to or leaves from. What is not
offered, or is disabled, is done another way, and every such use is counted.

No error of one datagram stops the others. A destination that cannot be reached is counted and skipped. Errors that ICMP
brings for an earlier datagram are told by a later call, which did nothing wrong, so an entry is dropped only when it fails
twice. A full socket keeps the rest of the batch; a full queue below it (ENOBUFS) does not, because the socket stays writable
and the caller would spin: it is a loss, which recovery and congestion control slow down for.

That the kernel knows GSO says nothing of the interface to a destination: when a super-datagram is refused it leaves at once
segment by segment, and the destination is remembered.
"""

from libc.errno cimport (
    EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EHOSTDOWN, EHOSTUNREACH, EINTR,
    EINVAL, EIO, EMSGSIZE, ENETDOWN, ENETUNREACH, ENOBUFS, ENOMEM, ENOPROTOOPT, ENOTSOCK, EPERM)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.slab cimport (
    MAX_SEGMENTS, MAX_UDP_PAYLOAD, RECV_SLOTS, SLOT_BYTES, Datagrams, Endpoint, RecvBatch, SendBatch, endpoint_is_ipv4)

cdef extern from "udp_sys.h":
    enum:
        SYS_SEND
        SYS_RECV
    ctypedef struct SysSlots:
        pass
    ctypedef struct SysMessage:
        uint8_t *data
        uint32_t bytes
        uint32_t segment
        uint8_t remote[16]
        uint16_t port
        uint32_t scope
        uint8_t local[16]
        uint32_t interface_id
        uint8_t ecn
        uint8_t ttl
        uint8_t is_cut
        uint32_t overflows
    bint sys_is_sourced(const SysMessage *message) noexcept nogil
    int sys_start() noexcept nogil
    int64_t sys_socket(bint is_ipv6) noexcept nogil
    int sys_bind(int64_t fd, bint is_ipv6, const uint8_t *address, uint16_t port, uint32_t scope) noexcept nogil
    int sys_local(int64_t fd, uint8_t *address, uint16_t *port, uint32_t *scope) noexcept nogil
    void sys_close(int64_t fd) noexcept nogil
    int sys_share(int64_t fd) noexcept nogil
    int sys_steer(int64_t fd, const void *steps, uint32_t count) noexcept nogil
    int sys_forbid_fragments(int64_t fd, bint is_ipv6) noexcept nogil
    void sys_ignore_icmp(int64_t fd) noexcept nogil
    int sys_enable_control(int64_t fd, SysSlots *slots) noexcept nogil
    int sys_enable_ecn(int64_t fd, bint is_ipv6) noexcept nogil
    int sys_enable_pktinfo(int64_t fd, bint is_ipv6) noexcept nogil
    int sys_enable_gro(int64_t fd) noexcept nogil
    int sys_has_gso(int64_t fd) noexcept nogil
    int sys_has_mmsg() noexcept nogil
    int sys_has_ttl(bint is_ipv6) noexcept nogil
    int sys_set_ttl(int64_t fd, bint is_ipv6, int ttl) noexcept nogil
    uint32_t sys_enlarge(int64_t fd, bint is_send, uint32_t wanted) noexcept nogil
    void sys_prepare(SysSlots *slots) noexcept nogil
    void sys_put(SysSlots *slots, uint32_t slot, bint is_ipv6, const SysMessage *message) noexcept nogil
    int sys_send_many(int64_t fd, SysSlots *slots, uint32_t count) noexcept nogil
    int sys_send_one(int64_t fd, SysSlots *slots, uint32_t slot) noexcept nogil
    int sys_send_plain(int64_t fd, SysSlots *slots, uint32_t slot) noexcept nogil
    void sys_offer(SysSlots *slots, uint32_t slot, uint8_t *data, uint32_t bytes) noexcept nogil
    int sys_recv_many(int64_t fd, SysSlots *slots, uint32_t count) noexcept nogil
    int sys_recv_one(int64_t fd, SysSlots *slots, uint32_t slot) noexcept nogil
    int sys_recv_plain(int64_t fd, SysSlots *slots, uint32_t slot) noexcept nogil
    void sys_take(SysSlots *slots, uint32_t slot, SysMessage *message) noexcept nogil
    int sys_wait(int64_t fd, bint for_sending, int timeout_ms) noexcept nogil
    uint64_t sys_clock_ns() noexcept nogil

cdef enum:
    MAX_FAILURES = 16               # errors and dropped batches that one call of udp_recv passes over before it gives up


WORDS = {
    "gso": UDP_CAN_GSO,
    "gro": UDP_CAN_GRO,
    "mmsg": UDP_CAN_MMSG,
    "ecn": UDP_CAN_ECN,
    "pktinfo": UDP_CAN_PKTINFO,
    "bigbuf": UDP_CAN_BIG_BUFFERS,
    "recvmsg": UDP_CAN_CONTROL,
    "reuseport": UDP_CAN_REUSEPORT,
    "steering": UDP_CAN_STEERING,
    "ttl": UDP_CAN_TTL,
}


def parse_disabled(words: str) -> int:
    """Turn the words of INTERPEER_DISABLE ("gso,gro") into the set that `udp_open` takes.

    Raises ValueError for a word that names nothing, so that a misspelt switch is not taken for one that works."""
    disabled = 0
    for word in filter(None, (w.strip() for w in words.split(","))):
        if word not in WORDS:
            raise ValueError(f"cannot disable {word!r}: expected some of {', '.join(WORDS)}, separated by commas")
        disabled |= WORDS[word]
    return disabled


def words_of(can: int) -> frozenset[str]:
    """Return the words for a set of UDP_CAN_*."""
    return frozenset(word for word, bit in WORDS.items() if can & bit)


cdef int udp_open(Udp *udp, const Endpoint *at, uint32_t disabled) noexcept nogil:
    """Open a socket of the address's family bound to it. Return 0 or a negative errno; EAFNOSUPPORT: no such family here.

    `disabled` is a set of UDP_CAN_*. `udp` need not be initialised, and after a failure it is closed."""
    cdef int64_t fd
    cdef bint is_ipv6 = not endpoint_is_ipv4(at)
    cdef int result = begin(udp)
    if result < 0:
        return result
    fd = sys_socket(is_ipv6)
    if fd < 0:
        udp_close(udp)
        return <int>fd
    configure(udp, fd, is_ipv6, disabled)
    udp.owns_fd = True
    result = sys_bind(fd, is_ipv6, at.address, at.port, at.scope)
    if result < 0:
        udp_close(udp)
    return result


cdef int udp_join(Udp *udp, const Udp *first, uint32_t disabled) noexcept nogil:
    """Open another socket at the address of one that is open: each gets a part of what comes. Return 0 or a negative errno;
    ENOPROTOOPT: not on this system, or disabled.

    The first socket was bound alone, so that nobody else's address is taken; the others join it."""
    cdef Endpoint at
    cdef int64_t fd
    cdef int result = begin(udp)
    if result == 0:
        result = -ENOPROTOOPT if disabled & UDP_CAN_REUSEPORT else udp_local(first, &at)
    if result == 0:
        result = sys_share(first.fd)
    if result < 0:
        udp_close(udp)
        return result
    fd = sys_socket(first.is_ipv6)
    if fd < 0:
        udp_close(udp)
        return <int>fd
    configure(udp, fd, first.is_ipv6, disabled)
    udp.owns_fd = True
    result = sys_share(fd)
    if result == 0:
        result = sys_bind(fd, first.is_ipv6, at.address, at.port, at.scope)
    if result < 0:
        udp_close(udp)
        return result
    udp.can |= UDP_CAN_REUSEPORT
    return 0


cdef int udp_steer(Udp *udp, const void *steps, uint32_t count, uint32_t disabled) noexcept nogil:
    """Let a program choose among the sockets at this one's address, which are numbered as they were bound. Return 0 or a
    negative errno."""
    cdef int result = -ENOPROTOOPT if disabled & UDP_CAN_STEERING else sys_steer(udp.fd, steps, count)
    if result == 0:
        udp.can |= UDP_CAN_STEERING
    return result


cdef int udp_adopt(Udp *udp, int64_t fd, uint32_t disabled) noexcept nogil:
    """Use a bound, non-blocking socket that belongs to somebody else, who closes it. Return 0 or a negative errno."""
    cdef Endpoint at
    cdef int family
    cdef int result = begin(udp)
    if result < 0:
        return result
    family = sys_local(fd, at.address, &at.port, &at.scope)
    if family < 0:
        udp_close(udp)
        return family
    configure(udp, fd, family == 6, disabled)
    return 0


cdef int begin(Udp *udp) noexcept nogil:
    memset(udp, 0, sizeof(Udp))
    udp.fd = -1
    udp.slots = malloc(sizeof(SysSlots))
    if udp.slots == NULL:
        return -ENOMEM
    sys_prepare(<SysSlots *>udp.slots)
    return sys_start()


cdef void configure(Udp *udp, int64_t fd, bint is_ipv6, uint32_t disabled) noexcept nogil:
    cdef uint32_t can = 0, allowed = ~disabled
    cdef uint32_t wanted = UDP_BUFFER_BYTES if allowed & UDP_CAN_BIG_BUFFERS else 0
    udp.fd = fd
    udp.is_ipv6 = is_ipv6
    udp.send_buffer_bytes = sys_enlarge(fd, True, wanted)
    udp.receive_buffer_bytes = sys_enlarge(fd, False, wanted)
    udp.counters.small_buffers = (udp.send_buffer_bytes < UDP_BUFFER_BYTES) + (udp.receive_buffer_bytes < UDP_BUFFER_BYTES)
    if udp.counters.small_buffers == 0:
        can |= UDP_CAN_BIG_BUFFERS
    sys_ignore_icmp(fd)
    if sys_forbid_fragments(fd, is_ipv6) == 0:
        can |= UDP_CAN_FORBID_FRAGMENTS
    if allowed & UDP_CAN_CONTROL and sys_enable_control(fd, <SysSlots *>udp.slots) == 0:
        can |= UDP_CAN_CONTROL
        if allowed & UDP_CAN_MMSG and sys_has_mmsg() == 0:
            can |= UDP_CAN_MMSG
        if allowed & UDP_CAN_ECN and sys_enable_ecn(fd, is_ipv6) == 0:
            can |= UDP_CAN_ECN
        if allowed & UDP_CAN_PKTINFO and sys_enable_pktinfo(fd, is_ipv6) == 0:
            can |= UDP_CAN_PKTINFO
        if allowed & UDP_CAN_TTL and sys_has_ttl(is_ipv6) == 0:
            can |= UDP_CAN_TTL
        if allowed & UDP_CAN_GSO and sys_has_gso(fd) == 0:
            can |= UDP_CAN_GSO
        if allowed & UDP_CAN_GRO and sys_enable_gro(fd) == 0:
            can |= UDP_CAN_GRO
    udp.can = can


cdef void udp_close(Udp *udp) noexcept nogil:
    """Close the socket if it is ours. Harmless on one that is closed."""
    if udp.owns_fd and udp.fd >= 0:
        sys_close(udp.fd)
    free(udp.slots)
    udp.slots = NULL
    udp.fd = -1
    udp.owns_fd = False


cdef int udp_local(const Udp *udp, Endpoint *at) noexcept nogil:
    """Tell the address that the socket is bound to. Return 0 or a negative errno."""
    cdef int family
    memset(at, 0, sizeof(Endpoint))
    family = sys_local(udp.fd, at.address, &at.port, &at.scope)
    return family if family < 0 else 0


cdef int udp_wait(const Udp *udp, bint for_sending, int timeout_ms) noexcept nogil:
    """Block until the socket is ready: 1, or 0 when the time is over, or a negative errno. For loops without an event loop."""
    return sys_wait(udp.fd, for_sending, timeout_ms)


cdef void udp_counters_add(UdpCounters *total, const UdpCounters *more) noexcept nogil:
    """Add what one socket has counted to what others have."""
    cdef size_t i
    for i in range(sizeof(UdpCounters) // sizeof(uint64_t)):
        (<uint64_t *>total)[i] += (<const uint64_t *>more)[i]


cdef uint64_t udp_clock_ns() noexcept nogil:
    """Tell the time of the system's monotonic clock."""
    return sys_clock_ns()


# ---------------------------------------------------------------------------------------------------------- receiving


cdef int udp_recv(Udp *udp, RecvBatch *batch) noexcept nogil:
    """Fill the batch. Return the slots filled, 0 if nothing waits, or a negative errno after which the caller backs off.

    A batch that is not full says that nothing more waited."""
    cdef SysSlots *slots = <SysSlots *>udp.slots
    cdef int result
    cdef uint32_t failures = 0
    batch.count = 0
    while failures < MAX_FAILURES:
        result = take_messages(udp, slots, batch)
        if result > 0:
            keep_messages(udp, slots, batch, <uint32_t>result)
            if batch.count:
                return <int>batch.count
            failures += 1
        elif result == -EAGAIN:
            return 0
        elif result != -EINTR:
            udp.last_error = -result
            if is_fatal(result) or result == -ENOMEM or result == -ENOBUFS:
                return result
            udp.counters.late_errors += 1
            failures += 1
    return 0


cdef int take_messages(Udp *udp, SysSlots *slots, RecvBatch *batch) noexcept nogil:
    """Receive into the slots, by the best call there is. Return how many were filled, or a negative errno."""
    cdef uint32_t i, count = 0, room = min(<uint32_t>RECV_SLOTS, <uint32_t>SYS_RECV)
    cdef int result
    for i in range(room):
        sys_offer(slots, i, batch.slots[i].data, SLOT_BYTES)
    if udp.can & UDP_CAN_MMSG:
        udp.counters.received_calls += 1
        return sys_recv_many(udp.fd, slots, room)
    while count < room:
        udp.counters.received_calls += 1
        if udp.can & UDP_CAN_CONTROL:
            result = sys_recv_one(udp.fd, slots, count)
        else:
            result = sys_recv_plain(udp.fd, slots, count)
            udp.counters.without_control += result == 1
        if result < 0:
            if count == 0:
                return result
            udp.counters.late_errors += result != -EAGAIN
            break
        udp.counters.without_mmsg += 1
        count += 1
    return <int>count


cdef void keep_messages(Udp *udp, SysSlots *slots, RecvBatch *batch, uint32_t count) noexcept nogil:
    """Describe the messages received in the batch; those that were cut are dropped."""
    cdef uint32_t i
    cdef SysMessage m
    cdef Datagrams *slot
    cdef uint8_t *data
    for i in range(count):
        sys_take(slots, i, &m)
        if m.overflows:
            udp.counters.overflowed += <uint32_t>(m.overflows - udp.overflows_told)
            udp.overflows_told = m.overflows
        if m.is_cut:
            udp.counters.cut += 1
            continue
        slot = &batch.slots[batch.count]
        data = batch.slots[i].data
        batch.slots[i].data = slot.data         # a dropped message leaves a gap: its buffer moves up
        slot.data = data
        slot.bytes = m.bytes
        slot.segment = m.segment
        memcpy(slot.remote.address, m.remote, 16)
        slot.remote.port = m.port
        slot.remote.zero = 0
        slot.remote.scope = m.scope
        memcpy(slot.local, m.local, 16)
        slot.interface = m.interface_id
        slot.ecn = m.ecn
        batch.count += 1
        udp.counters.received_bytes += m.bytes
        udp.counters.received_packets += packets_in(m.bytes, m.segment)
    udp.counters.received_messages += count
    if not udp.can & UDP_CAN_GRO:
        udp.counters.without_gro += count
    if not udp.can & UDP_CAN_PKTINFO:
        udp.counters.without_pktinfo += count


cdef inline uint32_t packets_in(uint32_t bytes, uint32_t segment) noexcept nogil:
    return (bytes + segment - 1) // segment if bytes > segment > 0 else 1


cdef inline bint is_fatal(int result) noexcept nogil:
    """Tell whether the socket itself is unusable."""
    return result == -EBADF or result == -ENOTSOCK or result == -EFAULT


# ------------------------------------------------------------------------------------------------------------ sending


cdef int udp_send(Udp *udp, SendBatch *batch) noexcept nogil:
    """Give the entries from `sent` on to the kernel. Return UDP_OK, UDP_WOULD_BLOCK, or a negative errno: the socket is unusable.

    Entries are consumed: `data` and `bytes` of one that left in part tell what is still to leave."""
    cdef SysSlots *slots = <SysSlots *>udp.slots
    cdef uint32_t laid[64]                      # SYS_SEND: bytes of each message
    cdef uint32_t count
    cdef int result
    cdef bint has_failed = False
    cdef Datagrams *entry
    while batch.sent < batch.count:
        entry = &batch.entries[batch.sent]
        count = lay_messages(udp, slots, batch, laid)
        result = give_with_ttl(udp, slots, count, entry.ttl) if count else -EAFNOSUPPORT
        if (result == -EIO or result == -EINVAL) and laid[0] > entry.segment > 0:
            laid[0] = entry.segment
            lay_message(udp, slots, 0, entry, 0, laid[0])
            result = give_messages(udp, slots, 1)
            if result > 0:                      # so it was the size, and not the destination
                remember_refusal(udp, entry)
        if result > 0:
            consume(udp, batch, laid, <uint32_t>result)
            udp.counters.late_errors += has_failed
            has_failed = False
        elif result == -EAGAIN:
            udp.counters.would_block += 1
            return UDP_WOULD_BLOCK
        elif result != -EINTR:
            udp.last_error = -result
            if is_fatal(result):
                return result
            if udp.can & UDP_CAN_PKTINFO and is_sourced(entry) and is_source_gone(result):
                memset(entry.local, 0, sizeof(entry.local))     # the machine has moved: leave from where it is now
                entry.interface = 0
                udp.counters.source_gone += 1
                continue
            if has_failed:
                count_failure(udp, entry, -result)
                if result == -EMSGSIZE:
                    entry.is_too_big = True
                    batch.too_big += 1
                batch.sent += 1
            has_failed = not has_failed
    return UDP_OK


cdef uint32_t lay_messages(Udp *udp, SysSlots *slots, SendBatch *batch, uint32_t *laid) noexcept nogil:
    """Fill the headers for the next messages; return how many. None: the first entry is for the other family."""
    cdef uint32_t i, count = 0, offset, step, limit = SYS_SEND if udp.can & UDP_CAN_MMSG else 1
    cdef Datagrams *entry
    for i in range(batch.sent, batch.count):
        entry = &batch.entries[i]
        if count == limit or endpoint_is_ipv4(&entry.remote) == udp.is_ipv6:
            break
        if entry.ttl and not udp.can & UDP_CAN_TTL:
            if count:
                break
            limit = 1               # alone in its call, around which the socket's is another
        step = message_bytes(udp, entry)
        offset = 0
        while True:
            laid[count] = entry.bytes - offset if entry.bytes - offset < step else step
            lay_message(udp, slots, count, entry, offset, laid[count])
            offset += laid[count]
            count += 1
            if offset >= entry.bytes or count == limit:
                break
    return count


cdef uint32_t message_bytes(const Udp *udp, const Datagrams *entry) noexcept nogil:
    """Tell how much of the entry one message can carry."""
    cdef uint32_t i, segments
    if entry.segment == 0 or entry.bytes <= entry.segment:
        return entry.bytes
    segments = MAX_UDP_PAYLOAD // entry.segment
    if not udp.can & UDP_CAN_GSO or segments < 2:
        return entry.segment
    for i in range(udp.refusals if udp.refusals < UDP_REFUSERS else UDP_REFUSERS):
        if memcmp(udp.refusers[i].address, entry.remote.address, 16) == 0 and udp.refusers[i].scope == entry.remote.scope:
            return entry.segment
    return entry.segment * (segments if segments < MAX_SEGMENTS else MAX_SEGMENTS)


cdef void lay_message(
        Udp *udp, SysSlots *slots, uint32_t slot, const Datagrams *entry, uint32_t offset, uint32_t bytes) noexcept nogil:
    cdef SysMessage m
    memset(&m, 0, sizeof(SysMessage))
    m.data = entry.data + offset
    m.bytes = bytes
    m.segment = entry.segment if bytes > entry.segment else 0
    memcpy(m.remote, entry.remote.address, 16)
    m.port = entry.remote.port
    m.scope = entry.remote.scope
    if udp.can & UDP_CAN_ECN:
        m.ecn = entry.ecn
    if udp.can & UDP_CAN_TTL:
        m.ttl = entry.ttl
    if udp.can & UDP_CAN_PKTINFO:
        memcpy(m.local, entry.local, 16)
        m.interface_id = entry.interface
    sys_put(slots, slot, udp.is_ipv6, &m)


cdef int give_with_ttl(Udp *udp, SysSlots *slots, uint32_t count, uint8_t ttl) noexcept nogil:
    """Send the messages laid. Where the first wants a time to live and cannot bring it, it is alone and the socket's is set.

    A socket that is shared with another thread may send one of its packets with that; it is lost then."""
    cdef int before, result
    if ttl == 0 or udp.can & UDP_CAN_TTL:
        return give_messages(udp, slots, count)
    before = sys_set_ttl(udp.fd, udp.is_ipv6, ttl)
    if before < 0:
        return before
    udp.counters.without_ttl += 1
    result = give_messages(udp, slots, count)
    sys_set_ttl(udp.fd, udp.is_ipv6, before)
    return result


cdef int give_messages(Udp *udp, SysSlots *slots, uint32_t count) noexcept nogil:
    """Send the messages laid, by the best call there is. Return how many were taken, or a negative errno for the first."""
    cdef int result
    udp.counters.sent_calls += 1
    if udp.can & UDP_CAN_MMSG:
        return sys_send_many(udp.fd, slots, count)
    if udp.can & UDP_CAN_CONTROL:
        result = sys_send_one(udp.fd, slots, 0)
    else:
        result = sys_send_plain(udp.fd, slots, 0)
        udp.counters.without_control += result == 0
    udp.counters.without_mmsg += result == 0
    return 1 if result == 0 else result


cdef void remember_refusal(Udp *udp, const Datagrams *entry) noexcept nogil:
    udp.refusers[udp.refusals % UDP_REFUSERS] = entry.remote
    udp.refusals += 1
    udp.counters.gso_refused += 1


cdef void consume(Udp *udp, SendBatch *batch, const uint32_t *laid, uint32_t count) noexcept nogil:
    """Move past what `count` messages took."""
    cdef uint32_t i
    cdef Datagrams *entry
    for i in range(count):
        entry = &batch.entries[batch.sent]
        udp.counters.sent_messages += 1
        udp.counters.sent_packets += packets_in(laid[i], entry.segment)
        udp.counters.sent_bytes += laid[i]
        entry.data += laid[i]
        entry.bytes -= laid[i]
        if entry.bytes:
            udp.counters.without_gso += 1
            continue
        udp.counters.without_ecn += entry.ecn != 0 and not udp.can & UDP_CAN_ECN
        udp.counters.without_pktinfo += is_sourced(entry) and not udp.can & UDP_CAN_PKTINFO
        batch.sent += 1


cdef bint is_sourced(const Datagrams *entry) noexcept nogil:
    cdef uint32_t i
    for i in range(16):
        if entry.local[i]:
            return True
    return entry.interface != 0


cdef inline bint is_source_gone(int result) noexcept nogil:
    """Tell whether a message may have failed because of the address that it was to leave from."""
    return (result == -EADDRNOTAVAIL or result == -EINVAL or result == -ENETUNREACH or result == -EHOSTUNREACH
            or result == -EHOSTDOWN or result == -ENETDOWN)


cdef void count_failure(Udp *udp, const Datagrams *entry, int error) noexcept nogil:
    if error == EPERM or error == EACCES:
        udp.counters.forbidden += 1
    elif error == EMSGSIZE:
        udp.counters.too_big += 1
    elif error == ENOBUFS or error == ENOMEM:
        udp.counters.no_buffers += 1
    elif error == ECONNREFUSED or error == ECONNRESET:
        udp.counters.refused += 1
    elif (error == ENETUNREACH or error == EHOSTUNREACH or error == ENETDOWN or error == EHOSTDOWN or error == EADDRNOTAVAIL
            or error == EAFNOSUPPORT or (error == EINVAL and is_sourced(entry))):   # EINVAL: the source address has gone
        udp.counters.unreachable += 1
    else:
        udp.counters.other_errors += 1
