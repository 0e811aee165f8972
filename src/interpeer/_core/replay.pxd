from libc.stdint cimport uint64_t

cdef enum:
    REPLAY_WINDOW = 8192            # counters behind the newest that are still told apart; covers GSO bursts and reordering
    REPLAY_WORDS = 129              # one more word than the window, so that the newest word can be cleared whole

cdef struct ReplayWindow:
    uint64_t next                   # one past the greatest counter accepted
    uint64_t bits[129]              # a ring of words; bit (counter mod 64) of word (counter / 64 mod 129)

cdef void replay_init(ReplayWindow *w) noexcept nogil
cdef bint replay_is_new(const ReplayWindow *w, uint64_t counter) noexcept nogil
cdef void replay_accept(ReplayWindow *w, uint64_t counter) noexcept nogil
