"""Path MTU discovery by probing (RFC 8899; RFC 9000, 14.3), and detection of black holes (docs/spec, chapter 15).

One machine for each path. It says which size a probe shall have, is told what became of it, and knows the size of the
largest packet. It sends nothing: a probe is a packet of its own, of PING and PADDING, so that nothing is lost with it.

What most paths carry is tried first, in rising order, so that Ethernet is settled by two sizes and loopback by three;
only between a size that passes and one that does not is the interval halved. Nothing that was not authenticated raises
or lowers a size: ICMP is not listened to, and what the own interface refuses leads to the base size at the worst.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.slab cimport MAX_UDP_PAYLOAD

cdef enum:
    NOT_ALLOWED = 0xFF
    FIRST_WAIT_NS = 1000000000      # before the search after a second black hole; doubled for each further one
    RAISE_NS = 600000000000         # PMTU_RAISE_TIMER (RFC 8899, 5.1.1)
    WELL_KNOWN = 3                  # sizes for each family

cdef enum:                          # actions
    DO_NOTHING = 0
    DO_BEGIN = 1                    # anything up to the ceiling may pass
    DO_RAISE = 2                    # the probe's size passes
    DO_RETRY = 3
    DO_LOWER = 4                    # the probe's size does not pass
    DO_REST = 5
    DO_FALL = 6                     # back to the base size

# MTUs of 1500 (Ethernet), 9000 (jumbo frames) and 65536 (loopback), less the headers
cdef uint32_t[3] SIZES_IPV4 = [1472, 8972, MAX_UDP_PAYLOAD]
cdef uint32_t[3] SIZES_IPV6 = [1452, 8952, 65488]

# [state][input] -> (next state, action)
cdef uint8_t[4][6][2] TABLE = [
    [  # OFF
        [NOT_ALLOWED, DO_NOTHING],          # START
        [NOT_ALLOWED, DO_NOTHING],          # ACKED
        [NOT_ALLOWED, DO_NOTHING],          # LOST
        [NOT_ALLOWED, DO_NOTHING],          # FAILED
        [NOT_ALLOWED, DO_NOTHING],          # FOUND
        [PMTUD_OFF, DO_NOTHING],            # HOLE
    ],
    [  # BASE
        [PMTUD_SEARCHING, DO_BEGIN],
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [PMTUD_BASE, DO_NOTHING],
    ],
    [  # SEARCHING
        [NOT_ALLOWED, DO_NOTHING],
        [PMTUD_SEARCHING, DO_RAISE],
        [PMTUD_SEARCHING, DO_RETRY],
        [PMTUD_SEARCHING, DO_LOWER],
        [PMTUD_COMPLETE, DO_REST],
        [PMTUD_BASE, DO_FALL],
    ],
    [  # COMPLETE
        [PMTUD_SEARCHING, DO_BEGIN],
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [NOT_ALLOWED, DO_NOTHING],
        [PMTUD_BASE, DO_FALL],
    ],
]


cdef void pmtud_init(Pmtud *m, uint32_t packet_bytes, bint is_ipv4) noexcept nogil:
    """Start with the base size, and no search until pmtud_limit allows one."""
    memset(m, 0, sizeof(Pmtud))
    m.base = packet_bytes
    m.bytes = packet_bytes
    m.ceiling = packet_bytes
    m.is_ipv4 = is_ipv4


cdef void pmtud_limit(Pmtud *m, uint32_t most, uint32_t ceiling) noexcept nogil:
    """Before anything is sent: no packet is larger than `most`, nor than `ceiling` unless the base size is."""
    if m.base > most:
        m.base = most
    if ceiling > most:
        ceiling = most
    m.bytes = m.base
    m.ceiling = ceiling if ceiling > m.base else m.base
    m.state = PMTUD_BASE if m.ceiling > m.base else PMTUD_OFF


cdef int pmtud_input(Pmtud *m, int event) noexcept nogil:
    """Move the machine and do what the table says. Return 0, or -1 and no change where it has NOT_ALLOWED."""
    cdef uint8_t action = TABLE[m.state][event][1]
    if TABLE[m.state][event][0] == NOT_ALLOWED:
        return -1
    m.state = TABLE[m.state][event][0]
    if action == DO_BEGIN:
        m.failed = m.ceiling + 1
        new_size(m)
    elif action == DO_RAISE:
        m.bytes = m.probe_bytes
        new_size(m)
    elif action == DO_RETRY:
        m.tries += 1
    elif action == DO_LOWER:
        m.failed = m.probe_bytes
        new_size(m)
    elif action == DO_REST:
        m.before = 0
        m.is_wanted = False
        m.full_packets = 0
        m.wait_ns = RAISE_NS
    elif action == DO_FALL:
        fall(m)
    return 0


cdef void new_size(Pmtud *m) noexcept nogil:
    m.probe_bytes = 0
    m.probe_deadline_ns = 0
    m.tries = 0


cdef void fall(Pmtud *m) noexcept nogil:
    """Send what passes anywhere. The first search anew may follow at once: it may have been chance."""
    m.before = m.bytes
    m.bytes = m.base
    m.wait_ns = 0
    if m.holes:
        m.wait_ns = <uint64_t>FIRST_WAIT_NS << (m.holes - 1 if m.holes < 12 else 11)
        if m.wait_ns > RAISE_NS:
            m.wait_ns = RAISE_NS
    if m.holes < 0xFF:
        m.holes += 1
    m.next_ns = 0
    m.full_packets = 0
    new_size(m)


# --- probes ---

cdef uint32_t pmtud_poll(Pmtud *m, uint64_t now_ns, uint64_t window) noexcept nogil:
    """Return the size of the probe that shall go now, beside a congestion window of so many bytes; 0: none."""
    if not pmtud_is_due(m):
        return 0
    if m.state != PMTUD_SEARCHING:
        if m.next_ns == 0:
            m.next_ns = now_ns + m.wait_ns
        if now_ns < m.next_ns:
            return 0
        if m.state == PMTUD_COMPLETE:
            m.holes = 0             # a long time without one
        pmtud_input(m, PMTUD_IN_START)
    if m.probe_bytes == 0:
        m.probe_bytes = next_size(m)
        if m.probe_bytes == 0:
            pmtud_input(m, PMTUD_IN_FOUND)
            m.next_ns = now_ns + m.wait_ns
            return 0
    if m.probe_bytes > 2 * m.bytes and <uint64_t>m.probe_bytes * PMTUD_PROBES_PER_WINDOW > window:
        return 0
    return m.probe_bytes


cdef inline bint is_between(const Pmtud *m, uint32_t n) noexcept nogil:
    return m.bytes < n < m.failed


cdef uint32_t next_size(const Pmtud *m) noexcept nogil:
    """Return the size to be tried next; 0: what is known is good enough."""
    cdef const uint32_t *sizes = &SIZES_IPV4[0] if m.is_ipv4 else &SIZES_IPV6[0]
    cdef bint is_well_known = m.bytes == m.before
    cdef uint32_t i
    if m.failed - m.bytes <= PMTUD_RESOLUTION:
        return 0
    if is_between(m, m.before):
        return m.before
    for i in range(WELL_KNOWN):
        if is_between(m, sizes[i] - m.lead):
            return sizes[i] - m.lead
        if sizes[i] - m.lead == m.bytes:
            is_well_known = True
    if is_between(m, m.ceiling):
        return m.ceiling
    if is_well_known:
        return m.bytes + PMTUD_RESOLUTION   # it most likely is the limit: one size more shows that
    return (m.bytes + m.failed) // 2


cdef void pmtud_sent(Pmtud *m, uint64_t number, uint64_t deadline_ns) noexcept nogil:
    """The probe that was asked for is on its way."""
    m.probe_number = number
    m.probe_deadline_ns = deadline_ns
    m.full_packets = PMTUD_WORTH_PACKETS if m.is_wanted else 0


cdef void pmtud_handle_probe_acked(Pmtud *m, uint64_t number) noexcept nogil:
    """One that comes after it was given up proves its size as well, but the search has moved on."""
    if m.probe_deadline_ns and number == m.probe_number:
        pmtud_input(m, PMTUD_IN_ACKED)


cdef void pmtud_handle_probe_lost(Pmtud *m, uint64_t number) noexcept nogil:
    if m.probe_deadline_ns and number == m.probe_number:
        m.probe_deadline_ns = 0
        pmtud_input(m, PMTUD_IN_LOST if m.tries + 1 < PMTUD_MAX_PROBES else PMTUD_IN_FAILED)


# --- black holes ---

cdef bint pmtud_handle_lost(Pmtud *m, uint64_t number, uint32_t bytes, uint64_t next_number) noexcept nogil:
    """A packet other than a probe is lost. Return whether that makes a black hole: then `bytes` is the base size again.

    A loss counts when nothing above the base size that was sent later has arrived: else it is of the ordinary kind."""
    if bytes <= m.base or number < m.mark:
        return False
    m.losses += 1
    return m.losses >= PMTUD_MAX_LOSSES and fall_from(m, next_number)


cdef bint pmtud_handle_refused(Pmtud *m, uint32_t bytes, uint64_t next_number) noexcept nogil:
    """The own interface takes no packet of this size. Return whether the path has fallen to its base size."""
    if m.probe_deadline_ns and bytes == m.probe_bytes:
        pmtud_input(m, PMTUD_IN_FAILED)
        return False
    return bytes > m.base and bytes <= m.bytes and fall_from(m, next_number)


cdef bint fall_from(Pmtud *m, uint64_t next_number) noexcept nogil:
    """What is on its way will be lost as well, and tells nothing new."""
    m.losses = 0
    m.mark = next_number
    return pmtud_input(m, PMTUD_IN_HOLE) == 0 and m.state == PMTUD_BASE
