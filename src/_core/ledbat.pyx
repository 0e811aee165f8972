"""LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus): for transfers in the background, which give way to everything else.

The window grows while packets wait less than a target beyond the least round trip, and shrinks in proportion when they
wait longer. Now and then almost nothing is sent for two round trips, so that the least round trip is that of the path
and not of our own queue; that is what makes several of these flows share alike.
"""

from libc.stdint cimport uint32_t, uint64_t

from interpeer._core.controller cimport (
    CONGESTION_PERSISTENT, MINIMUM_WINDOW_PACKETS, AckSample, Congestion, Ledbat, is_in_recovery)

cdef enum:
    TARGET_US = 60000               # packets may wait for so long because of us
    SLOW_START_EXIT_US = 45000      # three quarters of it
    MINUTE_NS = 60000000000
    BASE_MINUTES = 10
    RECENT_SAMPLES = 4
    LEAST_GAIN_DIVISOR = 16
    SLOWDOWN_PACKETS = 2
    SLOWDOWN_ROUNDS = 2
    SLOWDOWN_SHARE = 9              # the next slowdown waits for so many times as long as the last one took

cdef double CONSTANT = 1.0          # how fast the window shrinks when packets wait too long


cdef void ledbat_on_start(Congestion *c) noexcept nogil:
    c.state.ledbat.phase = LEDBAT_START


cdef void ledbat_on_ack(Congestion *c, const AckSample *s) noexcept nogil:
    cdef Ledbat *b = &c.state.ledbat
    cdef uint32_t base_us, waited_us
    if s.rtt_ns:
        note_sample(b, <uint32_t>(s.rtt_ns // 1000 + 1), s.now_ns)
    base_us = least_of(b.base_us, BASE_MINUTES)
    if base_us == 0:
        return
    waited_us = least_of(b.recent_us, RECENT_SAMPLES) - base_us
    if b.phase == LEDBAT_SLOWDOWN:
        if s.now_ns - b.phase_ns >= SLOWDOWN_ROUNDS * s.smoothed_rtt_ns:
            b.phase = LEDBAT_RETURN
        return
    if b.slowdown_ns and s.now_ns >= b.slowdown_ns:
        slow_down(c, s.now_ns)
        return
    if is_in_recovery(c, s) or s.app_limited:
        return
    if b.phase == LEDBAT_STEADY:
        steer(c, s, base_us, waited_us)
    else:
        slow_start(c, s, base_us, waited_us)


cdef void slow_start(Congestion *c, const AckSample *s, uint32_t base_us, uint32_t waited_us) noexcept nogil:
    grow(c, gain_of(base_us) * s.acked_bytes)
    if c.window < c.threshold and waited_us <= SLOW_START_EXIT_US:
        return
    enter_steady(c, s.now_ns)


cdef void enter_steady(Congestion *c, uint64_t now_ns) noexcept nogil:
    """Leave slow start: the first slowdown comes after two round trips, every later one when the last has paid off."""
    cdef Ledbat *b = &c.state.ledbat
    c.threshold = c.window
    b.phase = LEDBAT_STEADY
    if b.slowdown_start_ns:
        b.slowdown_ns = now_ns + SLOWDOWN_SHARE * (now_ns - b.slowdown_start_ns)
    else:
        b.slowdown_ns = now_ns + SLOWDOWN_ROUNDS * 1000 * <uint64_t>least_of(b.recent_us, RECENT_SAMPLES)


cdef void steer(Congestion *c, const AckSample *s, uint32_t base_us, uint32_t waited_us) noexcept nogil:
    """Grow by a share of a packet each round trip, or shrink by as much of the window as the wait is beyond the target."""
    cdef double share = <double>s.acked_bytes / c.window, window = c.window, change = gain_of(base_us) * c.packet_bytes
    if waited_us > TARGET_US:
        change -= CONSTANT * window * (<double>waited_us / TARGET_US - 1)
        if change < -window / 2:
            change = -window / 2
    grow(c, change * share)


cdef double gain_of(uint32_t base_us) noexcept nogil:
    """Return a share of Reno's growth, less where the target is many round trips: there a packet more is a longer wait."""
    cdef uint32_t divisor = (2 * TARGET_US + base_us - 1) // base_us
    return 1.0 / (divisor if divisor < LEAST_GAIN_DIVISOR else LEAST_GAIN_DIVISOR)


cdef void grow(Congestion *c, double change) noexcept nogil:
    """Change the window; what is less than a byte is kept."""
    cdef Ledbat *b = &c.state.ledbat
    cdef uint64_t least = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
    cdef double window = c.window + b.growth + change
    if window < least:
        window = least
    c.window = <uint64_t>window
    b.growth = window - c.window


cdef void slow_down(Congestion *c, uint64_t now_ns) noexcept nogil:
    cdef Ledbat *b = &c.state.ledbat
    c.threshold = c.window
    c.window = SLOWDOWN_PACKETS * <uint64_t>c.packet_bytes
    b.phase = LEDBAT_SLOWDOWN
    b.phase_ns = now_ns
    b.slowdown_start_ns = now_ns
    b.slowdown_ns = 0


cdef void ledbat_on_congestion(Congestion *c, uint64_t now_ns, int what) noexcept nogil:
    cdef Ledbat *b = &c.state.ledbat
    if what == CONGESTION_PERSISTENT:
        c.window = MINIMUM_WINDOW_PACKETS * <uint64_t>c.packet_bytes
        b.phase = LEDBAT_RETURN
        return
    if b.phase == LEDBAT_SLOWDOWN:
        return
    c.window //= 2
    if b.phase != LEDBAT_STEADY:
        enter_steady(c, now_ns)
    c.threshold = c.window


# --- round trips ---

cdef void note_sample(Ledbat *b, uint32_t rtt_us, uint64_t now_ns) noexcept nogil:
    """Remember the last samples, and the least one of each of the last ten minutes."""
    b.recent_us[b.recent_at] = rtt_us
    b.recent_at = (b.recent_at + 1) % RECENT_SAMPLES
    if b.minute_ns == 0:
        b.minute_ns = now_ns
    elif now_ns - b.minute_ns >= MINUTE_NS:
        b.minute_ns = now_ns
        b.base_at = (b.base_at + 1) % BASE_MINUTES
        b.base_us[b.base_at] = 0
    if b.base_us[b.base_at] == 0 or rtt_us < b.base_us[b.base_at]:
        b.base_us[b.base_at] = rtt_us


cdef uint32_t least_of(const uint32_t *samples, int n) noexcept nogil:
    """Return the least sample there is; 0: none."""
    cdef uint32_t least = 0
    cdef int i
    for i in range(n):
        if samples[i] and (least == 0 or samples[i] < least):
            least = samples[i]
    return least
