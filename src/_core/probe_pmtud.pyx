"""Python door into the search for a path's MTU: one machine, and its table."""

from libc.stdint cimport uint32_t, uint64_t

from interpeer._core.pmtud cimport (
    PMTUD_INPUTS, PMTUD_STATES, Pmtud, pmtud_count, pmtud_handle_acked, pmtud_handle_lost, pmtud_handle_probe_acked,
    pmtud_handle_probe_lost, pmtud_handle_refused, pmtud_init, pmtud_input, pmtud_is_due, pmtud_limit, pmtud_poll,
    pmtud_sent, pmtud_want)

STATE_NAMES = ("off", "base", "searching", "complete")
INPUT_NAMES = ("start", "acked", "lost", "failed", "found", "hole")


def transition(str state, str event):
    """Return the state that follows, or None where the input is not allowed."""
    cdef Pmtud m
    pmtud_init(&m, 1200, True)
    pmtud_limit(&m, 65507, 65507)
    m.state = STATE_NAMES.index(state)
    assert len(STATE_NAMES) == PMTUD_STATES and len(INPUT_NAMES) == PMTUD_INPUTS
    if pmtud_input(&m, INPUT_NAMES.index(event)) != 0:
        assert STATE_NAMES[m.state] == state
        return None
    return STATE_NAMES[m.state]


cdef class Search:
    """The machine of one path."""

    cdef Pmtud m

    def __cinit__(self, *, uint32_t base=1200, uint32_t most=65507, uint32_t ceiling=65507, bint is_ipv4=True):
        pmtud_init(&self.m, base, is_ipv4)
        pmtud_limit(&self.m, most, ceiling)

    def send(self, uint32_t n, int times=1):
        """Note packets of so many bytes."""
        for _ in range(times):
            pmtud_count(&self.m, n)

    def want(self):
        pmtud_want(&self.m)

    def poll(self, uint64_t now_ns, uint64_t window=1 << 30):
        """Return the size of the probe that shall go, or None."""
        return pmtud_poll(&self.m, now_ns, window) or None

    def sent(self, uint64_t number, uint64_t deadline_ns):
        pmtud_sent(&self.m, number, deadline_ns)

    def probe_acked(self, uint64_t number):
        pmtud_handle_probe_acked(&self.m, number)

    def probe_lost(self, uint64_t number):
        pmtud_handle_probe_lost(&self.m, number)

    def acked(self, uint64_t number, uint32_t n):
        pmtud_handle_acked(&self.m, number, n)

    def lost(self, uint64_t number, uint32_t n, uint64_t next_number):
        """Return whether it makes a black hole."""
        return bool(pmtud_handle_lost(&self.m, number, n, next_number))

    def refused(self, uint32_t n, uint64_t next_number):
        return bool(pmtud_handle_refused(&self.m, n, next_number))

    @property
    def is_due(self):
        return bool(pmtud_is_due(&self.m))

    @property
    def state(self):
        return STATE_NAMES[self.m.state]

    @property
    def bytes(self):
        return self.m.bytes

    @property
    def deadline_ns(self):
        return self.m.probe_deadline_ns
