"""The window that tells new packets from replayed ones (RFC 6479), one for each path and direction.

Two steps on purpose: `replay_is_new` before the AEAD is asked, `replay_accept` only after it has agreed, so that a
forged packet with a counter far ahead moves nothing (CVE-2024-58265).
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset


cdef void replay_init(ReplayWindow *w) noexcept nogil:
    memset(w, 0, sizeof(ReplayWindow))


cdef bint replay_is_new(const ReplayWindow *w, uint64_t counter) noexcept nogil:
    """Tell whether `counter` was never accepted and is not too old to be told."""
    if counter >= w.next:
        return True
    if counter + REPLAY_WINDOW < w.next:
        return False
    return not (w.bits[(counter >> 6) % REPLAY_WORDS] >> (counter & 63)) & 1


cdef void replay_accept(ReplayWindow *w, uint64_t counter) noexcept nogil:
    """Mark `counter` as seen. Only for a counter that `replay_is_new` and whose packet is authentic."""
    cdef uint64_t word = counter >> 6, newest, fresh
    if counter >= w.next:
        newest = (w.next - 1) >> 6 if w.next else 0
        fresh = word - newest
        if fresh > REPLAY_WORDS:
            fresh = REPLAY_WORDS
        while fresh:
            w.bits[(word - fresh + 1) % REPLAY_WORDS] = 0
            fresh -= 1
        w.next = counter + 1
    w.bits[word % REPLAY_WORDS] |= <uint64_t>1 << (counter & 63)
