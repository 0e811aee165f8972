from libc.stdint cimport uint8_t, uint64_t

from interpeer._core.noise cimport Noise
from interpeer._core.protection cimport RecvKeys, SendKeys

cdef enum:                          # states (docs/spec, chapter 19)
    REKEY_IDLE = 0
    REKEY_ASKING = 1                # initiator: our REKEY is on its way; our epoch stays what it is
    REKEY_TURNING = 2               # initiator: answered; our next epoch is the fresh one
    REKEY_WAITING = 3               # initiator: we use it, and the peer is yet to do so
    REKEY_ASKED = 4                 # responder: a REKEY has come, and is to be answered
    REKEY_ANSWERING = 5             # responder: our answer is on its way; our epoch stays what it is
    REKEY_FOLLOWING = 6             # responder: the peer uses it; our next epoch is the fresh one
    REKEY_STATES = 7

cdef enum:                          # inputs
    REKEY_IN_DUE = 0                # the keys have been in use for long enough
    REKEY_IN_INIT = 1               # the peer's REKEY
    REKEY_IN_ANSWERED = 2           # we have answered it
    REKEY_IN_ANSWER = 3             # the peer's answer, and it is right
    REKEY_IN_TURNED = 4             # our sending has gone on to the fresh epoch
    REKEY_IN_PEER_TURNED = 5        # and so has the peer's

cdef enum:
    REKEY_ROOM = 105                # the longest of the two frames: type 1, epoch 8, message 96
    REKEY_TRIES = 3                 # steps of REKEY_TRY_NS before it is given up
    REKEY_TRY_NS = 20000000000      # three take a minute: longer than any outage that a connection is to survive
    REKEY_LEAST_NS = 1000000000     # between two of a peer: each costs us four Diffie-Hellmans
    REKEY_BYTES = 68719476736       # use of one agreement, whatever the time: 2^36

cdef struct Exchange:               # one agreement in the making
    Noise noise                     # of the initiator, until the answer has come
    uint8_t message[96]             # ours as long as it is on its way; or the peer's first until it is answered
    uint8_t peer_ephemeral[32]      # by which a repeated REKEY is known
    uint8_t fresh[32]               # what our sending mixes in
    uint64_t send_epoch             # our first epoch with fresh keys
    uint64_t recv_epoch             # the peer's

cdef struct Rekey:
    Exchange *exchange              # owned; NULL when idle
    uint8_t state
    uint8_t tries
    bint is_initiator
    bint is_due                     # the keys have been used for long enough
    uint8_t chain[32]               # of all agreements so far: what the next is bound to
    uint64_t interval_ns            # 0: we never ask
    uint64_t due_ns                 # from when on use makes us ask; 0: not used since the last
    uint64_t used_bytes             # since the last
    uint64_t fresh_ns               # when the keys were agreed
    uint64_t asked_ns               # responder: when the last REKEY came; 0: none yet
    uint64_t deadline_ns            # of the present step; 0: idle
    uint64_t count                  # agreements after the handshake's

cdef int rekey_input(Rekey *r, int event) noexcept nogil
cdef int rekey_init(Rekey *r, bint is_initiator, const uint8_t *send_secret, const uint8_t *recv_secret,
                    uint64_t interval_ns, uint64_t now_ns) noexcept nogil
cdef void rekey_free(Rekey *r) noexcept nogil
cdef void rekey_handle_use(Rekey *r, uint64_t now_ns) noexcept nogil
cdef int rekey_ask(Rekey *r, const uint8_t *static_secret, const uint8_t *static_public, const uint8_t *peer_key,
                   const uint8_t *ephemeral, uint64_t send_epoch, uint64_t now_ns) noexcept nogil
cdef int rekey_handle_init(Rekey *r, uint64_t epoch, const uint8_t *message, uint64_t recv_epoch,
                           uint64_t now_ns) noexcept nogil
cdef int rekey_answer(Rekey *r, const uint8_t *static_secret, const uint8_t *static_public, const uint8_t *peer_key,
                      const uint8_t *ephemeral, RecvKeys *recv, uint64_t send_epoch, uint64_t now_ns) noexcept nogil
cdef int rekey_handle_answer(Rekey *r, uint64_t epoch, const uint8_t *message, RecvKeys *recv,
                             uint64_t now_ns) noexcept nogil
cdef int rekey_turn(Rekey *r, SendKeys *send, uint64_t now_ns) noexcept nogil
cdef void rekey_handle_epoch(Rekey *r, uint64_t recv_epoch, uint64_t now_ns) noexcept nogil
cdef int rekey_handle_timeout(Rekey *r, uint64_t heard_ns, uint64_t now_ns) noexcept nogil
cdef uint8_t *rekey_write(const Rekey *r, uint8_t *p) noexcept nogil

cdef inline bint rekey_has_message(const Rekey *r) noexcept nogil:
    """Tell whether a message of ours is on its way: then our epoch must stay, too, since the message names the next."""
    return r.state == REKEY_ASKING or r.state == REKEY_ANSWERING

cdef inline bint rekey_is_turning(const Rekey *r) noexcept nogil:
    """Tell whether our next epoch is the fresh one."""
    return r.state == REKEY_TURNING or r.state == REKEY_FOLLOWING

cdef inline void rekey_note_use(Rekey *r, uint64_t bytes, uint64_t now_ns) noexcept nogil:
    """Note that a packet has carried the application's data, in or out: with enough of it, fresh keys are due."""
    r.used_bytes += bytes
    if now_ns >= r.due_ns or r.used_bytes >= <uint64_t>REKEY_BYTES:
        rekey_handle_use(r, now_ns)
