from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FEC_MAX_WINDOW = 64             # symbols in one equation, and kept at each end: bounds memory, and work for a repair
    FEC_LENGTH_BYTES = 2            # before a message, in its symbol
    FEC_HEAD_BYTES = 11             # before the symbol of a repair, at most: number 8, count 1, seed 2

cdef enum:
    FEC_OK = 0
    FEC_KNOWN = 1                   # nothing new: received, recovered or implied by what was received before
    FEC_OLD = 2                     # behind the window
    FEC_INVALID = -1                # it breaks a rule of the chapter
    FEC_NO_MEMORY = -2

cdef struct FecRepair:              # one equation: the sum of factor * symbol over `count` messages
    uint64_t first                  # number of the first of them
    uint16_t seed                   # which the factors are computed from
    uint8_t count
    const uint8_t *symbol           # points into the packet; not owned
    uint32_t bytes                  # of the symbol; behind it are zeros

cdef struct FecEncoder:
    uint8_t *symbols                # `window` slots of `symbol_bytes`, by number modulo `window`; owned; NULL until used
    uint16_t sizes[64]              # of the symbols in them, length included
    uint64_t first                  # oldest message that a repair covers
    uint64_t next                   # number of the next message
    uint32_t symbol_bytes           # of the largest symbol; 65,535 at the most
    uint16_t seed                   # of the next repair
    uint8_t window

cdef struct FecRow:                 # an equation between messages that are missing; `columns` 0: not in use
    uint64_t columns                # which factors are not 0
    uint8_t factors[64]             # by number modulo the window
    uint32_t bytes                  # of its sum; behind it are zeros
    uint8_t pivot                   # column of the oldest message in it: factor 1, and 0 in all other rows

cdef struct FecDecoder:
    uint8_t *symbols                # as the encoder's; owned
    uint8_t *sums                   # of the rows, `symbol_bytes` each; owned; NULL until something is missing
    FecRow *rows                    # `window` of them; owned with `sums`
    uint16_t sizes[64]
    uint64_t known                  # columns received or recovered
    uint64_t recovered              # columns to be polled
    uint64_t base                   # oldest number in the window
    uint32_t symbol_bytes
    uint8_t window
    uint64_t invalid                # recovered symbols that were none: the peer computes wrongly
    uint64_t multiplied             # bytes, in all: the work that was done

cdef uint8_t fec_factor(uint16_t seed, uint64_t number) noexcept nogil

cdef void fec_encoder_init(FecEncoder *e, uint8_t window, uint32_t symbol_bytes, uint64_t first) noexcept nogil
cdef void fec_encoder_free(FecEncoder *e) noexcept nogil
cdef int fec_encoder_add(FecEncoder *e, const uint8_t *message, uint32_t n) noexcept nogil
cdef void fec_encoder_forget(FecEncoder *e, uint64_t below) noexcept nogil
cdef uint32_t fec_encoder_repair_bytes(const FecEncoder *e) noexcept nogil
cdef uint32_t fec_encoder_repair(FecEncoder *e, uint8_t *out) noexcept nogil
cdef int fec_parse_repair(const uint8_t *p, size_t n, FecRepair *out) noexcept nogil

cdef void fec_decoder_init(FecDecoder *d, uint8_t window, uint32_t symbol_bytes, uint64_t first) noexcept nogil
cdef void fec_decoder_free(FecDecoder *d) noexcept nogil
cdef int fec_decoder_add(FecDecoder *d, uint64_t number, const uint8_t *message, uint32_t n) noexcept nogil
cdef int fec_decoder_repair(FecDecoder *d, const FecRepair *repair) noexcept nogil
cdef bint fec_decoder_poll(FecDecoder *d, uint64_t *number, const uint8_t **message, uint32_t *n) noexcept nogil

# for tests and measurements
cdef int fec_choose(int variant) noexcept nogil
cdef int fec_chosen() noexcept nogil
cdef uint8_t fec_multiply(uint8_t a, uint8_t b) noexcept nogil
cdef void fec_muladd(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n) noexcept nogil
