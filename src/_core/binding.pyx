"""The STUN server of every node: it tells whoever asks what address the question came from (docs/spec, chapter 22).

It keeps nothing of who asks but how much an address has sent and not had answered. That is the rule: no address is sent
more bytes than have come from it. A bare request of 20 bytes is shorter than its answer; when the same address asks again,
as every client does half a second later, both together pay for one.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from interpeer._core.registry cimport (
    Registry, Reply, StunCredit, rate_allows, registry_reply, share_of)
from interpeer._core.slab cimport ENDPOINT_ORDINARY, Datagrams, endpoint_kind
from interpeer._core.stun cimport (
    ATTR_CHANGE_REQUEST, FOUND_FINGERPRINT, STUN_ANSWER_BYTES, STUN_BINDING, STUN_OK, Stun, parse_stun,
    write_stun_success, write_stun_unknown)
from interpeer._core.wire cimport read_u64

cdef enum:
    STUN_PER_SECOND = 1000          # answers: one core answers a million, but nobody needs them
    MAX_STUN_REPLIES = 32           # answers waiting to be sent: half of all replies, so that a flood leaves room for calls
    MAX_STUN_CREDIT = 128           # bytes kept for an address: more than any answer lacks


cdef void binding_handle(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """Take what looks like a request by STUN: answer it if it is one and asks for a binding, or drop it."""
    cdef uint8_t answer[64]
    cdef uint32_t bytes
    cdef Reply *reply
    cdef Stun s
    if not r.context.limits.answers_stun or endpoint_kind(from_.remote.address) != ENDPOINT_ORDINARY \
            or parse_stun(p, n, &s) != STUN_OK or s.method != STUN_BINDING:
        r.context.counters.dropped_stun += 1
        return
    if r.reply_count >= MAX_STUN_REPLIES or not rate_allows(&r.stun_answers, share_of(r, STUN_PER_SECOND), now_ns):
        r.context.counters.dropped_limited += 1
        return
    bytes = pay(r, from_.remote.address, n, &s, from_, answer)
    reply = registry_reply(r, from_) if bytes else NULL
    if reply == NULL:
        r.context.counters.dropped_stun += 1
        return
    memcpy(reply.data, answer, bytes)
    reply.bytes = <uint16_t>bytes
    if s.response_port:             # of the same address, so whoever can ask for this can send there anyway
        reply.remote.port = s.response_port
    r.context.counters.stun_answered += 1


cdef uint32_t pay(Registry *r, const uint8_t *address, uint32_t n, Stun *s, const Datagrams *from_,
                  uint8_t *answer) noexcept nogil:
    """Write an answer that costs no more than the request, with what is left of earlier ones; 0: keep it for the next one."""
    cdef uint64_t hash = (read_u64(address) ^ read_u64(address + 8)) * <uint64_t>0x9E3779B97F4A7C15
    cdef StunCredit *credit = &r.stun_credits[hash >> 56]
    cdef uint32_t room = n, bytes
    if memcmp(credit.address, address, 16) == 0:
        room += credit.bytes
    bytes = write_answer(s, from_, answer, min(room, <uint32_t>STUN_ANSWER_BYTES))
    memcpy(credit.address, address, 16)
    credit.bytes = <uint8_t>min(room - bytes, <uint32_t>MAX_STUN_CREDIT)
    return bytes


cdef uint32_t write_answer(Stun *s, const Datagrams *from_, uint8_t *answer, uint32_t room) noexcept nogil:
    cdef bint with_fingerprint = s.found & FOUND_FINGERPRINT != 0
    if s.change and s.unknown_count == 0:       # there is no other address to answer from (RFC 5780, 6.1)
        s.unknown[0] = ATTR_CHANGE_REQUEST
        s.unknown_count = 1
    if s.unknown_count:
        return write_stun_unknown(answer, room, s.transaction, s.unknown, s.unknown_count, with_fingerprint)
    return write_stun_success(answer, room, s.transaction, &from_.remote, with_fingerprint)
