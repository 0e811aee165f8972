"""Congestion control behind one interface: which controllers there are, and what is common to all of them.

A controller is a table of functions over its own state. Here: one reaction for each round trip, the least window, and
whether the window was in use, so that it is not taken for larger than it has proved to be.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.bbr cimport bbr_on_ack, bbr_on_congestion, bbr_on_loss, bbr_on_restart, bbr_on_start, bbr_on_start_lossy
from interpeer._core.controller cimport (
    CONGESTION_LOSS, CONGESTION_MARK, CONGESTION_PERSISTENT, CONTROLLER_BBR, CONTROLLER_BBR_LOSSY, CONTROLLER_CUBIC,
    CONTROLLER_LEDBAT, INITIAL_WINDOW_PACKETS, MINIMUM_WINDOW_PACKETS, AckSample, Congestion, Controller, LossSample)
from interpeer._core.cubic cimport cubic_on_ack, cubic_on_congestion
from interpeer._core.ledbat cimport ledbat_on_ack, ledbat_on_congestion, ledbat_on_start
from interpeer._core.pacing cimport PACING_BURST_PACKETS, pacing_spend

cdef enum:
    FULL_WITHIN_PACKETS = 3         # a window is full when less than a burst would fit: packets are whole, and paced

cdef Controller TABLE[4]            # CONTROLLERS
memset(TABLE, 0, sizeof(TABLE))
TABLE[CONTROLLER_CUBIC].on_ack = cubic_on_ack
TABLE[CONTROLLER_CUBIC].on_congestion = cubic_on_congestion
TABLE[CONTROLLER_BBR].on_start = bbr_on_start
TABLE[CONTROLLER_BBR].on_ack = bbr_on_ack
TABLE[CONTROLLER_BBR].on_loss = bbr_on_loss
TABLE[CONTROLLER_BBR].on_congestion = bbr_on_congestion
TABLE[CONTROLLER_BBR].on_restart = bbr_on_restart
TABLE[CONTROLLER_BBR_LOSSY] = TABLE[CONTROLLER_BBR]
TABLE[CONTROLLER_BBR_LOSSY].on_start = bbr_on_start_lossy
TABLE[CONTROLLER_LEDBAT].on_start = ledbat_on_start
TABLE[CONTROLLER_LEDBAT].on_ack = ledbat_on_ack
TABLE[CONTROLLER_LEDBAT].on_congestion = ledbat_on_congestion


cdef void cc_init(Congestion *c, int kind, uint32_t packet_bytes) noexcept nogil:
    memset(c, 0, sizeof(Congestion))
    c.kind = kind
    c.controller = &TABLE[kind]
    c.packet_bytes = packet_bytes
    c.window = INITIAL_WINDOW_PACKETS * packet_bytes
    c.threshold = ~<uint64_t>0
    c.tokens = PACING_BURST_PACKETS * <double>packet_bytes
    if c.controller.on_start != NULL:
        c.controller.on_start(c)


cdef void cc_set_packet_bytes(Congestion *c, uint32_t packet_bytes) noexcept nogil:
    """The path carries packets of another size. The window stays what it is in bytes, but for its minimum."""
    c.packet_bytes = packet_bytes
    if c.window < MINIMUM_WINDOW_PACKETS * <uint64_t>packet_bytes:
        c.window = MINIMUM_WINDOW_PACKETS * <uint64_t>packet_bytes


cdef void cc_handle_sent(Congestion *c, uint64_t now_ns, uint32_t bytes, uint64_t in_flight_before,
                         bint app_limited) noexcept nogil:
    """Account for a packet that goes; tell the controller if it is the first one after silence."""
    if in_flight_before == 0 and c.controller.on_restart != NULL:
        c.controller.on_restart(c, now_ns, app_limited)
    pacing_spend(c, bytes)


cdef void cc_handle_ack(Congestion *c, AckSample *sample, uint64_t in_flight_before) noexcept nogil:
    """Let the controller know what was acknowledged, and whether the window was in use (RFC 9002, 7.8)."""
    cdef uint64_t used = in_flight_before * 2 if c.window < c.threshold else in_flight_before + in_flight_before // 4
    sample.is_window_full = in_flight_before + FULL_WITHIN_PACKETS * c.packet_bytes >= c.window
    sample.app_limited = used < c.window and not sample.is_window_full
    c.controller.on_ack(c, sample)


cdef void cc_handle_loss(Congestion *c, const LossSample *sample) noexcept nogil:
    """React to packets that were lost together."""
    if sample.newest_sent_ns <= c.forgiven_ns:
        return
    if c.controller.on_loss != NULL:
        c.controller.on_loss(c, sample)
    react_once(c, sample.now_ns, sample.newest_sent_ns, CONGESTION_LOSS)
    if sample.is_persistent:
        c.recovery_start_ns = 0
        react(c, sample.now_ns, CONGESTION_PERSISTENT)


cdef void cc_handle_mark(Congestion *c, uint64_t now_ns, uint64_t newest_sent_ns) noexcept nogil:
    """React to packets that came with CE."""
    react_once(c, now_ns, newest_sent_ns, CONGESTION_MARK)


cdef void react_once(Congestion *c, uint64_t now_ns, uint64_t newest_sent_ns, int what) noexcept nogil:
    """React once to all packets that were on their way together (RFC 9002, 7.3.2)."""
    if newest_sent_ns > c.recovery_start_ns:
        c.recovery_start_ns = now_ns
        c.congestion_events += 1
        react(c, now_ns, what)


cdef void react(Congestion *c, uint64_t now_ns, int what) noexcept nogil:
    cdef uint64_t least = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
    c.controller.on_congestion(c, now_ns, what)
    if c.window < least:
        c.window = least


cdef void cc_forgive(Congestion *c, uint64_t now_ns) noexcept nogil:
    """Let no loss of what was sent until now count: it was not the path that lost it."""
    c.recovery_start_ns = now_ns
    c.forgiven_ns = now_ns
