from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.crypto cimport Aead
from interpeer._core.replay cimport ReplayWindow

cdef enum:
    UNPROTECT_SHORT = -1            # too short to be a packet
    UNPROTECT_REPLAY = -2           # seen before, or too old to tell
    UNPROTECT_FORGED = -3           # the AEAD disagrees
    UNPROTECT_RESERVED = -4         # a flag that must be zero is not, or an epoch that is neither now, next nor last

cdef struct SendKeys:               # one direction of a session, sending
    Aead aead
    uint8_t secret[32]              # of the epoch; the next one is derived from it
    uint8_t mask_key[16]            # the same for all epochs, so that a header can be read before the epoch is known
    uint64_t epoch
    uint64_t sealed                 # packets under this epoch's key

cdef struct RecvKeys:               # one direction of a session, receiving
    Aead current
    Aead following                  # ready before it is needed: a guess at it takes as long as any other forgery
    Aead previous                   # for packets that were overtaken by an update; suite 0 when there is none
    uint8_t secret[32]              # of the following epoch
    uint8_t mask_key[16]
    uint64_t epoch
    uint64_t forged                 # packets that the AEAD refused

cdef int send_keys_init(SendKeys *k, int suite, const uint8_t *secret) noexcept nogil
cdef int recv_keys_init(RecvKeys *k, int suite, const uint8_t *secret) noexcept nogil
cdef void send_keys_wipe(SendKeys *k) noexcept nogil
cdef void recv_keys_wipe(RecvKeys *k) noexcept nogil
cdef int send_keys_update(SendKeys *k) noexcept nogil
cdef int recv_keys_update(RecvKeys *k) noexcept nogil
cdef int send_keys_mix(SendKeys *k, const uint8_t *fresh) noexcept nogil
cdef int recv_keys_mix(RecvKeys *k, const uint8_t *fresh) noexcept nogil
cdef void recv_keys_forget_previous(RecvKeys *k) noexcept nogil

cdef Py_ssize_t protect(SendKeys *k, uint8_t *packet, const uint8_t *payload, size_t payload_bytes, uint64_t cid,
                        uint32_t path, uint64_t counter) noexcept nogil
cdef Py_ssize_t unprotect(RecvKeys *k, ReplayWindow *window, uint8_t *packet, size_t bytes, uint32_t path,
                          uint64_t *counter, bint *is_update) noexcept nogil
