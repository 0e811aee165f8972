"""Forward error correction of a channel: what is protected, and when repairs are sent (docs/spec, chapter 17, FE-16 on).

The code itself is the business of `fec`. Memory is taken for channels that ask for it alone, and the peer's, which decides
whether we decode, for no more than MAX_DECODERS of a connection.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from interpeer._core.fec cimport (
    FEC_OK, fec_decoder_free, fec_decoder_init, fec_encoder_add, fec_encoder_free, fec_encoder_init)

cdef enum:
    SYMBOL_BYTES = 1118             # FEC_LENGTH_BYTES + PLACE_BYTES + PROTECTED_BYTES
    LEAST_IDLE_NS = 10000000        # a pause so short is none: an event loop may be busy for as long
    LONGEST_IDLE_NS = 100000000     # later, what is recovered is of no use to speech


cdef Repairs *repairs_of(Repairs **place) noexcept nogil:
    """Return the Repairs at this place, made if there are none; NULL without memory."""
    if place[0] == NULL:
        place[0] = <Repairs *>calloc(1, sizeof(Repairs))
    return place[0]


cdef void repairs_free(Repairs **place) noexcept nogil:
    if place[0] != NULL:
        repairs_stop(place[0])
        repairs_expect(place[0], False)
        free(place[0])
        place[0] = NULL


# --- receiving ---

cdef void repairs_expect(Repairs *r, bint is_expected) noexcept nogil:
    """Decode from now on, or no more."""
    if is_expected and not r.is_decoding:
        fec_decoder_init(&r.decoder, FEC_RECEIVE_WINDOW, SYMBOL_BYTES, 0)
    elif r.is_decoding and not is_expected:
        fec_decoder_free(&r.decoder)
    r.is_decoding = is_expected


# --- sending ---

cdef void repairs_protect(Repairs *r, uint64_t number, const uint8_t *data, uint32_t n, const Capabilities *how) noexcept nogil:
    """Cover a message that goes out, the last one so far, by the repairs that follow."""
    if not r.is_encoding:
        fec_encoder_init(&r.encoder, FEC_SEND_WINDOW, SYMBOL_BYTES, number)
        r.is_encoding = True
    if number - r.encoder.next >= FEC_SEND_WINDOW:
        r.encoder.first = r.encoder.next = number
    while r.encoder.next < number:  # one that is not protected
        if fec_encoder_add(&r.encoder, NULL, 0) != FEC_OK:
            return
    if fec_encoder_add(&r.encoder, data, n) != FEC_OK:
        return
    r.uncovered += 1
    if r.uncovered >= how.fec_data:
        r.uncovered = 0
        r.idle_ns = 0
        r.owed = how.fec_repair


cdef void repairs_stop(Repairs *r) noexcept nogil:
    """Protect nothing any more."""
    if r.is_encoding:
        fec_encoder_free(&r.encoder)
    r.is_encoding = False
    r.uncovered = 0
    r.owed = 0
    r.idle_ns = 0


cdef bint repairs_note_sent(Repairs *r, uint64_t now_ns, uint64_t rtt_ns) noexcept nogil:
    """Note when messages went out; return whether a repair for the last ones is due if no more follow.

    That is before the loss of one can be known, but not between messages that come at a steady pace."""
    cdef uint64_t pause = 2 * (now_ns - r.sent_ns) if r.sent_ns else 0
    if pause < rtt_ns // 2:
        pause = rtt_ns // 2
    if pause < LEAST_IDLE_NS:
        pause = LEAST_IDLE_NS
    if pause > LONGEST_IDLE_NS:
        pause = LONGEST_IDLE_NS
    r.sent_ns = now_ns
    r.idle_ns = now_ns + pause if r.uncovered else 0
    return r.idle_ns != 0


cdef void repairs_expire(Repairs *r, uint64_t now_ns) noexcept nogil:
    """Owe a repair for the last messages if that is due."""
    if r.idle_ns == 0 or r.idle_ns > now_ns:
        return
    r.idle_ns = 0
    r.uncovered = 0
    if r.owed == 0:
        r.owed = 1
