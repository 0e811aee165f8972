"""Fresh keys by time: one Noise handshake more, inside the session, and its result mixed into the keys (docs/spec, chapter 19).

A connection in use asks for it every two minutes. Both ends prove their static keys once more, and what is agreed is mixed
into the secrets of both directions: whoever has copied them until then reads nothing of what follows, and whoever breaks
the new agreement alone reads nothing either. Each message names the epoch of its sender from which on the mixed keys are
used, and until the peer has it that epoch does not come. The machine knows keys and messages; frames, packets, acknowledgements
and their loss are the connection's business. What costs a Diffie-Hellman is done once in an agreement: a peer that wants more
of them is told off by REKEY_LEAST_NS.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.crypto cimport KEY_BYTES, blake2b, equal_secret, wipe
from interpeer._core.noise cimport PATTERN_IK, noise_init, noise_read, noise_split, noise_wipe, noise_write
from interpeer._core.protection cimport recv_keys_mix, send_keys_mix
from interpeer._core.wire cimport (
    CODE_IDENTITY, CODE_INTERNAL, CODE_PROTOCOL, FRAME_REKEY, FRAME_REKEY_ANSWER, REKEY_ANSWER_MESSAGE_BYTES,
    REKEY_MESSAGE_BYTES, write_varint)

cdef enum:
    NOT_ALLOWED = 0xFF
    LABEL_BYTES = 14

cdef const char *LABEL_ROOT = b"interpeer root"
cdef const char *LABEL_BIND = b"interpeer bind"
cdef const char *LABEL_LINK = b"interpeer link"

# [state][input] -> next state
cdef uint8_t[7][6] TABLE = [
    # DUE, INIT, ANSWERED, ANSWER, TURNED, PEER_TURNED
    [REKEY_ASKING, REKEY_ASKED, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED],            # IDLE
    [NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, REKEY_TURNING, NOT_ALLOWED, NOT_ALLOWED],           # ASKING
    [NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, REKEY_TURNING, REKEY_WAITING, NOT_ALLOWED],         # TURNING
    [NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, REKEY_WAITING, NOT_ALLOWED, REKEY_IDLE],            # WAITING
    [NOT_ALLOWED, REKEY_ASKED, REKEY_ANSWERING, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED],         # ASKED
    [NOT_ALLOWED, REKEY_ANSWERING, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, REKEY_FOLLOWING],     # ANSWERING
    [NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, REKEY_IDLE, NOT_ALLOWED],              # FOLLOWING
]


cdef int rekey_input(Rekey *r, int event) noexcept nogil:
    """Move the machine. Return 0, or -1 and no change where the table has NOT_ALLOWED."""
    cdef uint8_t following = TABLE[r.state][event]
    if following == NOT_ALLOWED:
        return -1
    r.state = following
    return 0


cdef int rekey_init(Rekey *r, bint is_initiator, const uint8_t *send_secret, const uint8_t *recv_secret,
                    uint64_t interval_ns, uint64_t now_ns) noexcept nogil:
    """Start with the handshake's secrets. `interval_ns` 0: never ask, only answer. Return 0 or -1."""
    memset(r, 0, sizeof(Rekey))
    r.is_initiator = is_initiator
    r.interval_ns = interval_ns
    r.fresh_ns = now_ns
    if is_initiator:
        return link_chain(r.chain, send_secret, LABEL_ROOT, recv_secret, NULL)
    return link_chain(r.chain, recv_secret, LABEL_ROOT, send_secret, NULL)


cdef void rekey_free(Rekey *r) noexcept nogil:
    drop_exchange(r)
    wipe(r, sizeof(Rekey))


cdef void drop_exchange(Rekey *r) noexcept nogil:
    if r.exchange != NULL:
        wipe(r.exchange, sizeof(Exchange))
        free(r.exchange)
        r.exchange = NULL


cdef int link_chain(uint8_t *out, const uint8_t *key, const char *label, const uint8_t *first,
                    const uint8_t *second) noexcept nogil:
    """out = BLAKE2b-32(key, label || first || second)."""
    cdef uint8_t material[64]
    cdef size_t n = KEY_BYTES
    cdef int result
    memcpy(material, first, KEY_BYTES)
    if second != NULL:
        memcpy(material + KEY_BYTES, second, KEY_BYTES)
        n += KEY_BYTES
    result = blake2b(out, KEY_BYTES, <const uint8_t *>label, LABEL_BYTES, material, n, key, KEY_BYTES)
    wipe(material, sizeof(material))
    return result


# --- when ---

cdef void rekey_handle_use(Rekey *r, uint64_t now_ns) noexcept nogil:
    """Begin to count with the first use, so that an idle connection never asks; with a later one it may be time to.

    The end of the interval is drawn from the last eighth of it, by a secret: connections that were made together do not
    agree anew together."""
    if not r.is_initiator or r.interval_ns == 0:
        r.due_ns = ~<uint64_t>0
        r.used_bytes = 0
        return
    if r.due_ns == 0:
        r.due_ns = now_ns + r.interval_ns - r.interval_ns // 8 * r.chain[0] // 256
    r.is_due = r.state == REKEY_IDLE and (now_ns >= r.due_ns or r.used_bytes >= <uint64_t>REKEY_BYTES)


cdef inline void start_step(Rekey *r, uint64_t now_ns) noexcept nogil:
    r.tries = 1
    r.deadline_ns = now_ns + <uint64_t>REKEY_TRY_NS


cdef int rekey_handle_timeout(Rekey *r, uint64_t heard_ns, uint64_t now_ns) noexcept nogil:
    """The step has taken long: try it once more. Return 0, or -1 when it is to be given up.

    A try does not count when the peer was last heard before it: who sleeps refuses nothing, and keys that seal nothing new
    do not age. How long it may sleep is the idle time-out's business."""
    if heard_ns + <uint64_t>REKEY_TRY_NS >= r.deadline_ns:
        if r.tries >= REKEY_TRIES:
            return -1
        r.tries += 1
    r.deadline_ns = now_ns + <uint64_t>REKEY_TRY_NS
    return 0


cdef void finish(Rekey *r, uint64_t now_ns) noexcept nogil:
    """Both directions use fresh keys: begin to count anew."""
    drop_exchange(r)
    r.deadline_ns = 0
    r.due_ns = 0
    r.used_bytes = 0
    r.fresh_ns = now_ns
    r.count += 1


# --- initiator ---

cdef int begin(Rekey *r, Noise *noise, const uint8_t *static_secret, const uint8_t *static_public,
               const uint8_t *peer_key) noexcept nogil:
    """Start a handshake that is bound to this session."""
    cdef uint8_t prologue[32]
    if blake2b(prologue, KEY_BYTES, <const uint8_t *>LABEL_BIND, LABEL_BYTES, NULL, 0, r.chain, KEY_BYTES) != 0:
        return -1
    return noise_init(noise, PATTERN_IK, r.is_initiator, prologue, KEY_BYTES, static_secret, static_public, peer_key)


cdef int rekey_ask(Rekey *r, const uint8_t *static_secret, const uint8_t *static_public, const uint8_t *peer_key,
                   const uint8_t *ephemeral, uint64_t send_epoch, uint64_t now_ns) noexcept nogil:
    """Write the first message; `send_epoch` is ours at present, and stays. Return 0 or a code."""
    cdef Exchange *e = <Exchange *>calloc(1, sizeof(Exchange))
    r.is_due = False
    if e == NULL:
        return CODE_INTERNAL
    r.exchange = e
    if begin(r, &e.noise, static_secret, static_public, peer_key) != 0 \
            or noise_write(&e.noise, e.message, NULL, 0, ephemeral) != REKEY_MESSAGE_BYTES \
            or rekey_input(r, REKEY_IN_DUE) != 0:
        drop_exchange(r)
        return CODE_INTERNAL
    e.send_epoch = send_epoch + 1
    start_step(r, now_ns)
    return 0


cdef int rekey_handle_answer(Rekey *r, uint64_t epoch, const uint8_t *message, RecvKeys *recv,
                             uint64_t now_ns) noexcept nogil:
    """Take the peer's answer, or pass over its repetition. Return 0 or the code of the rule that is broken."""
    cdef Exchange *e = r.exchange
    cdef uint8_t nothing[48]
    if not r.is_initiator:
        return CODE_PROTOCOL
    if epoch <= recv.epoch:
        return 0
    if epoch != recv.epoch + 1 or rekey_input(r, REKEY_IN_ANSWER) != 0:
        return CODE_PROTOCOL
    if e.recv_epoch:
        return 0                    # it has come before
    if noise_read(&e.noise, nothing, message, REKEY_ANSWER_MESSAGE_BYTES) != 0:
        return CODE_PROTOCOL
    e.recv_epoch = epoch
    wipe(e.message, sizeof(e.message))
    start_step(r, now_ns)
    return agreed(r, recv, &e.noise)


# --- responder ---

cdef int rekey_handle_init(Rekey *r, uint64_t epoch, const uint8_t *message, uint64_t recv_epoch,
                           uint64_t now_ns) noexcept nogil:
    """Keep the peer's first message until it is answered, or see that it is a repetition. Return 0 or a code."""
    cdef Exchange *e = r.exchange
    if r.is_initiator:
        return CODE_PROTOCOL
    if epoch <= recv_epoch:
        return 0
    if epoch != recv_epoch + 1:
        return CODE_PROTOCOL
    if e == NULL:
        if r.asked_ns and now_ns - r.asked_ns < <uint64_t>REKEY_LEAST_NS:
            return CODE_PROTOCOL
        e = <Exchange *>calloc(1, sizeof(Exchange))
        if e == NULL:
            return CODE_INTERNAL
        r.exchange = e
    elif memcmp(message, e.peer_ephemeral, KEY_BYTES) != 0:
        return CODE_PROTOCOL
    if rekey_input(r, REKEY_IN_INIT) != 0:
        return CODE_PROTOCOL
    if e.recv_epoch:
        return 0                    # it has come before
    r.asked_ns = now_ns
    e.recv_epoch = epoch
    memcpy(e.message, message, REKEY_MESSAGE_BYTES)
    memcpy(e.peer_ephemeral, message, KEY_BYTES)
    start_step(r, now_ns)
    return 0


cdef int rekey_answer(Rekey *r, const uint8_t *static_secret, const uint8_t *static_public, const uint8_t *peer_key,
                      const uint8_t *ephemeral, RecvKeys *recv, uint64_t send_epoch, uint64_t now_ns) noexcept nogil:
    """Read the kept message and write the second; `send_epoch` is ours at present, and stays. Return 0 or a code."""
    cdef Exchange *e = r.exchange
    cdef Noise *noise = &e.noise
    cdef uint8_t nothing[96]
    cdef int result = 0
    if e.recv_epoch != recv.epoch + 1:
        return CODE_PROTOCOL        # it goes on with the old keys
    if begin(r, noise, static_secret, static_public, NULL) != 0:
        return CODE_INTERNAL
    if noise_read(noise, nothing, e.message, REKEY_MESSAGE_BYTES) != 0:
        return CODE_PROTOCOL
    if not equal_secret(noise.remote_static, peer_key, KEY_BYTES):
        return CODE_IDENTITY
    if noise_write(noise, e.message, NULL, 0, ephemeral) != REKEY_ANSWER_MESSAGE_BYTES:
        return CODE_PROTOCOL        # its ephemeral key is none
    e.send_epoch = send_epoch + 1
    result = agreed(r, recv, noise)
    if result == 0:
        rekey_input(r, REKEY_IN_ANSWERED)
        start_step(r, now_ns)
    return result


# --- both ---

cdef int agreed(Rekey *r, RecvKeys *recv, Noise *noise) noexcept nogil:
    """Mix what was agreed into the peer's next epoch and into the chain, and keep our share for our own next epoch."""
    cdef uint8_t theirs[32]
    cdef uint8_t chain[32]
    cdef Exchange *e = r.exchange
    cdef int result = noise_split(noise, e.fresh, theirs)
    if result == 0:
        result = recv_keys_mix(recv, theirs)
    if result == 0 and r.is_initiator:
        result = link_chain(chain, r.chain, LABEL_LINK, e.fresh, theirs)
    elif result == 0:
        result = link_chain(chain, r.chain, LABEL_LINK, theirs, e.fresh)
    memcpy(r.chain, chain, KEY_BYTES)
    wipe(chain, KEY_BYTES)
    wipe(theirs, KEY_BYTES)
    noise_wipe(noise)
    return 0 if result == 0 else CODE_INTERNAL


cdef int rekey_turn(Rekey *r, SendKeys *send, uint64_t now_ns) noexcept nogil:
    """Go on to the fresh epoch with our sending; the caller has seen that the present one may be left. Return 0 or -1."""
    cdef int result = send_keys_mix(send, r.exchange.fresh)
    wipe(r.exchange.fresh, KEY_BYTES)
    if result != 0 or rekey_input(r, REKEY_IN_TURNED) != 0:
        return -1
    start_step(r, now_ns)
    if r.state == REKEY_IDLE:
        finish(r, now_ns)
    return 0


cdef void rekey_handle_epoch(Rekey *r, uint64_t recv_epoch, uint64_t now_ns) noexcept nogil:
    """The peer has gone on to an epoch: if it is the fresh one, it has what we have."""
    if r.exchange == NULL or r.exchange.recv_epoch != recv_epoch or rekey_input(r, REKEY_IN_PEER_TURNED) != 0:
        return
    start_step(r, now_ns)
    if r.state == REKEY_IDLE:
        finish(r, now_ns)


cdef uint8_t *rekey_write(const Rekey *r, uint8_t *p) noexcept nogil:
    """Write the frame with our message, REKEY_ROOM bytes at the most; there is one. Return where it ends."""
    cdef bint is_init = r.state == REKEY_ASKING
    cdef size_t n = REKEY_MESSAGE_BYTES if is_init else REKEY_ANSWER_MESSAGE_BYTES
    p = write_varint(write_varint(p, FRAME_REKEY if is_init else FRAME_REKEY_ANSWER), r.exchange.send_epoch)
    memcpy(p, r.exchange.message, n)
    return p + n
