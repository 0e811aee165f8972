from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:                          # states (docs/spec, chapter 15; RFC 8899, 5.2)
    PMTUD_OFF = 0                   # larger packets are not wanted: neither probes nor black holes
    PMTUD_BASE = 1                  # packets of the base size, and a search when it is time
    PMTUD_SEARCHING = 2
    PMTUD_COMPLETE = 3              # until the raise timer lets the path be searched again
    PMTUD_STATES = 4

cdef enum:                          # inputs
    PMTUD_IN_START = 0              # it is time to search, and there is something to send
    PMTUD_IN_ACKED = 1              # the probe has arrived
    PMTUD_IN_LOST = 2               # the probe is lost, and may be tried again
    PMTUD_IN_FAILED = 3             # the probe's size does not pass: lost too often, or refused by the interface
    PMTUD_IN_FOUND = 4              # no size is left to be tried
    PMTUD_IN_HOLE = 5               # packets above the base size vanish
    PMTUD_INPUTS = 6

cdef enum:
    PMTUD_MAX_PROBES = 3            # of one size (RFC 8899, 5.1.2)
    PMTUD_MAX_LOSSES = 3            # packets above the base size lost, and none acknowledged: a black hole
    PMTUD_RESOLUTION = 16           # bytes: a gain smaller than this is not worth another probe
    PMTUD_WORTH_PACKETS = 8         # full ones sent before each search and probe: who sends less gains nothing
    PMTUD_PROBES_PER_WINDOW = 8     # a probe goes beside the window, and so is small: a part of it, or two packets
    PMTUD_BUFFER_PACKETS = 8        # the peer's receive buffer holds so many of the largest

cdef struct Pmtud:                  # the search for what a path carries; sizes are of UDP payloads
    uint8_t state
    uint8_t tries                   # probes of `probe_bytes` that were lost
    uint8_t losses                  # packets above the base size lost since one was acknowledged
    uint8_t holes                   # black holes in a row; each makes the next search wait longer
    bint is_ipv4
    uint32_t lead                   # bytes that go in front of each packet, and are not counted in any size here
    bint is_wanted                  # by a datagram that did not fit: the search need not wait for full packets
    uint32_t full_packets           # sent since the last probe
    uint32_t base                   # what is taken for granted
    uint32_t ceiling                # the largest that is wanted
    uint32_t bytes                  # what the path is known to carry: the largest packet to be sent
    uint32_t failed                 # the smallest size known not to pass, or one more than the ceiling
    uint32_t before                 # what it carried before a black hole, to be tried first; 0: there was none
    uint32_t probe_bytes            # the size that is being tried; 0: none yet
    uint64_t probe_number           # packet number of the probe, while there is a deadline
    uint64_t probe_deadline_ns      # when the probe counts as lost, whatever is acknowledged; 0: none is on its way
    uint64_t mark                   # losses of lower packet numbers prove nothing
    uint64_t wait_ns                # until the next search, from the first packet on
    uint64_t next_ns                # when that is; 0: not computed yet

cdef void pmtud_init(Pmtud *m, uint32_t packet_bytes, bint is_ipv4) noexcept nogil
cdef void pmtud_limit(Pmtud *m, uint32_t most, uint32_t ceiling) noexcept nogil
cdef int pmtud_input(Pmtud *m, int event) noexcept nogil
cdef uint32_t pmtud_poll(Pmtud *m, uint64_t now_ns, uint64_t window) noexcept nogil
cdef void pmtud_sent(Pmtud *m, uint64_t number, uint64_t deadline_ns) noexcept nogil
cdef void pmtud_handle_probe_acked(Pmtud *m, uint64_t number) noexcept nogil
cdef void pmtud_handle_probe_lost(Pmtud *m, uint64_t number) noexcept nogil
cdef bint pmtud_handle_lost(Pmtud *m, uint64_t number, uint32_t bytes, uint64_t next_number) noexcept nogil
cdef bint pmtud_handle_refused(Pmtud *m, uint32_t bytes, uint64_t next_number) noexcept nogil


cdef inline bint pmtud_is_due(const Pmtud *m) noexcept nogil:
    """Tell whether it is worth asking pmtud_poll."""
    return m.full_packets >= PMTUD_WORTH_PACKETS and m.probe_deadline_ns == 0 and m.state != PMTUD_OFF


cdef inline void pmtud_count(Pmtud *m, uint32_t bytes) noexcept nogil:
    """Note that a packet was sent; those that are not full would not be larger if they could."""
    if bytes == m.bytes:
        m.full_packets += 1


cdef inline void pmtud_want(Pmtud *m) noexcept nogil:
    """Something was to be sent that a larger packet would carry."""
    m.is_wanted = True
    m.full_packets = PMTUD_WORTH_PACKETS


cdef inline void pmtud_handle_acked(Pmtud *m, uint64_t number, uint32_t bytes) noexcept nogil:
    """A packet has arrived: one above the base size shows that there is no black hole, or was none when it was sent."""
    if bytes > m.base:
        m.losses = 0
        if number >= m.mark:
            m.mark = number + 1
