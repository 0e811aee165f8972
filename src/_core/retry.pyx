"""When a direct path is tried again: for ever, but ever more seldom, and at once when the network has changed."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t


@cython.final
cdef class Retry:
    """Say when the next attempt at something is due that has failed before; docs/spec, chapter 24, has the times.

    The first is due at once, the second 5 seconds after the first has failed, then 10, 20 and so on up to ten minutes, each
    less up to a quarter that `random` decides, so that nodes do not fall in step. A change of the network makes it due at
    once, and starts from the beginning; but between two attempts is at least a second, however often the network changes.

    >>> retry = Retry(0)
    >>> retry.is_due(0)
    True
    >>> retry.begin(0)
    >>> retry.fail(2_000_000_000, random=bytes(4))
    >>> retry.poll_timeout() / 1e9
    7.0
    >>> retry.handle_network_change(3_000_000_000)
    >>> retry.is_due(3_000_000_000)
    True
    """

    cdef bint is_waiting            # an attempt is due, now or later
    cdef bint is_trying             # one goes on
    cdef bint is_stale              # the network changed during the attempt
    cdef bint has_begun             # ever
    cdef uint64_t next_ns           # when an attempt is due
    cdef uint64_t wait_ns           # after the next failure
    cdef uint64_t begun_ns          # when the latest attempt began
    cdef readonly uint32_t failures     # in a row

    def __cinit__(self, uint64_t now_ns):
        self.next_ns = now_ns
        self.wait_ns = PUNCH_AGAIN_NS
        self.is_waiting = True

    def is_due(self, uint64_t now_ns):
        """Tell whether an attempt shall begin now."""
        return self.is_waiting and now_ns >= self.next_ns

    def poll_timeout(self):
        """Return when the next attempt is due; 0: none is."""
        return max(self.next_ns, 1) if self.is_waiting else 0

    def begin(self, uint64_t now_ns):
        """An attempt begins."""
        self.begun_ns = now_ns
        self.has_begun = self.is_trying = True
        self.is_waiting = self.is_stale = False

    def fail(self, uint64_t now_ns, *, bytes random not None):
        """The attempt has failed. `random` has 4 bytes."""
        if len(random) != 4:
            raise ValueError(f"four random bytes are needed, not {len(random)}")
        self.is_trying = False
        self.failures += 1
        if self.is_stale:
            self.handle_network_change(now_ns)
            return
        self.is_waiting = True
        self.next_ns = now_ns + self.wait_ns - ((self.wait_ns >> 12) * <uint64_t>int.from_bytes(random, "big") >> 22)
        self.wait_ns = min(self.wait_ns * 2, <uint64_t>PUNCH_AGAIN_MOST_NS)

    def succeed(self):
        """The attempt has succeeded: none is due until the network changes, or the path ends."""
        self.wait_ns = PUNCH_AGAIN_NS
        self.failures = 0
        self.is_trying = self.is_waiting = False

    def handle_network_change(self, uint64_t now_ns):
        """Addresses, routes or a NAT are others than before, here or at the peer; or the path that was found has ended."""
        self.wait_ns = PUNCH_AGAIN_NS
        self.failures = 0
        if self.is_trying:
            self.is_stale = True
            return
        self.is_waiting = True
        self.next_ns = now_ns
        if self.has_begun and self.begun_ns + <uint64_t>PUNCH_AGAIN_LEAST_NS > now_ns:
            self.next_ns = self.begun_ns + <uint64_t>PUNCH_AGAIN_LEAST_NS
