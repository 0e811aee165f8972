from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.fec cimport FecDecoder, FecEncoder
from interpeer._core.wire cimport Capabilities

cdef enum:
    MAX_DECODERS = 16               # channels of a connection whose repairs we use: each keeps up to 149 KB
    FEC_SEND_WINDOW = 32            # half of the receiver's, so that messages may overtake a repair
    FEC_RECEIVE_WINDOW = 64
    PROTECTED_BYTES = 1108          # largest message with its header: a repair of it fits in any packet
    PLACE_BYTES = 8                 # before it in its symbol: where it lies in the channel

cdef struct Repairs:                # of a channel that protects what it sends, or whose peer does
    FecEncoder encoder
    FecDecoder decoder
    bint is_encoding
    bint is_decoding                # counted in Channels.decoders
    uint32_t uncovered              # messages since the last repair
    uint32_t owed                   # repairs to be sent
    uint64_t sent_ns                # when a message was sent last
    uint64_t idle_ns                # when a repair for the last ones is due; 0: never

cdef Repairs *repairs_of(Repairs **place) noexcept nogil
cdef void repairs_free(Repairs **place) noexcept nogil
cdef void repairs_expect(Repairs *r, bint is_expected) noexcept nogil
cdef void repairs_protect(Repairs *r, uint64_t number, const uint8_t *data, uint32_t n, const Capabilities *how) noexcept nogil
cdef void repairs_stop(Repairs *r) noexcept nogil
cdef bint repairs_note_sent(Repairs *r, uint64_t now_ns, uint64_t rtt_ns) noexcept nogil
cdef void repairs_expire(Repairs *r, uint64_t now_ns) noexcept nogil
