"""When a connection changes its keys: by use, by time, and never before the last change is settled (docs/spec, 3 and 19).

The keys themselves are protection's, and the agreement on fresh ones is rekey's. Here is what depends on packets and paths:
whether an epoch may be left, which key comes next, and that the messages of an agreement are sent.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.conn cimport CONN_PENDING_PATHS, CONN_PENDING_PING, CONN_PENDING_REKEY, Conn, conn_fail
from interpeer._core.context cimport Context, entropy_take
from interpeer._core.crypto cimport KEY_BYTES, wipe
from interpeer._core.path cimport PATH_ACTIVE, PATH_PENDING_PING, Path
from interpeer._core.paths cimport paths_rotate_cid
from interpeer._core.protection cimport send_keys_update
from interpeer._core.rekey cimport (
    REKEY_ASKED, Rekey, rekey_answer, rekey_ask, rekey_handle_answer, rekey_handle_init, rekey_handle_timeout,
    rekey_has_message, rekey_is_turning, rekey_turn)
from interpeer._core.tracing cimport tracing_key_update, tracing_recv_secret, tracing_send_secret
from interpeer._core.wire cimport CODE_AEAD_LIMIT, CODE_INTERNAL, FRAME_REKEY, Frame


cdef bint may_leave_epoch(Conn *c) noexcept nogil:
    """Tell whether the peer is known to have the key in use, on every path where it was used.

    A path that has carried only proofs and acknowledgements is asked: nobody acknowledges these, so it would not be confirmed."""
    cdef Path *p
    cdef uint32_t i
    cdef bint is_confirmed = False, is_missing = False
    for i in range(c.path_count):
        p = c.paths[i]
        if p.epoch_confirmed:
            is_confirmed = True
        elif p.state == PATH_ACTIVE and p.recovery.next > p.epoch_first:
            is_missing = True
            if p.recovery.eliciting_in_flight == 0:
                p.pending |= PATH_PENDING_PING
                c.pending |= CONN_PENDING_PATHS
    return is_confirmed and not is_missing


cdef void begin_epoch(Conn *c) noexcept nogil:
    """Another key is in use: what is acknowledged from here on confirms it. With it go other connection ids."""
    cdef Path *p
    cdef uint32_t i
    for i in range(c.path_count):
        p = c.paths[i]
        p.epoch_first = p.recovery.next
        p.epoch_confirmed = False
        paths_rotate_cid(c, p)
    c.context.counters.key_updates += 1
    if c.context.trace != NULL:
        tracing_key_update(c, True, c.send.epoch)


cdef int keys_may_seal(Conn *c) noexcept nogil:
    """Use the next key when this one has sealed enough; end the connection when it must not seal any more.

    An update waits until the peer has acknowledged a packet of this epoch, so that two never overlap, and until an agreement
    that has named the next epoch is through."""
    if c.send.sealed < c.context.limits.key_update_packets:
        return 0
    if may_leave_epoch(c) and not rekey_has_message(&c.rekey):
        if send_keys_update(&c.send) != 0:
            conn_fail(c, CODE_INTERNAL, b"out of memory")
            return -1
        begin_epoch(c)
        return 0
    if c.send.sealed >= c.context.limits.key_limit_packets:
        conn_fail(c, CODE_AEAD_LIMIT, b"the key is used up and its successor is not confirmed")
        return -1
    return 0


# --- agreements ---

cdef void fail(Conn *c, uint64_t code) noexcept nogil:
    if code == CODE_INTERNAL:
        conn_fail(c, code, b"fresh keys cannot be made")
    elif code:
        conn_fail(c, code, b"the peer breaks a rule of the agreement on fresh keys")


cdef void keys_advance(Conn *c, uint64_t now_ns) noexcept nogil:
    """Ask for fresh keys, answer the peer, or turn to the fresh epoch. A packet follows, which tells the peer of it.

    Without random bytes there are some at the next turn."""
    cdef Context *x = c.context
    cdef Rekey *r = &c.rekey
    cdef uint8_t ephemeral[32]
    if r.is_due or r.state == REKEY_ASKED:
        if x.static_secret == NULL or entropy_take(&x.entropy, ephemeral, KEY_BYTES) != 0:
            return
        if r.is_due:
            fail(c, rekey_ask(r, x.static_secret, x.static_public, c.peer_key, ephemeral, c.send.epoch, now_ns))
        else:
            fail(c, rekey_answer(r, x.static_secret, x.static_public, c.peer_key, ephemeral, &c.recv, c.send.epoch, now_ns))
            if x.trace != NULL:
                tracing_recv_secret(c)
        wipe(ephemeral, KEY_BYTES)
        c.pending |= CONN_PENDING_REKEY
    elif rekey_is_turning(r) and may_leave_epoch(c):
        if rekey_turn(r, &c.send, now_ns) != 0:
            conn_fail(c, CODE_INTERNAL, b"out of memory")
            return
        begin_epoch(c)
        if x.trace != NULL:
            tracing_send_secret(c)
        c.pending |= CONN_PENDING_PING


cdef uint64_t keys_handle_frame(Conn *c, const Frame *f, uint64_t now_ns) noexcept nogil:
    """Take a REKEY or its answer. Return 0, or the code of the rule that it breaks."""
    cdef uint64_t code
    if f.type != FRAME_REKEY:
        code = rekey_handle_answer(&c.rekey, f.value, f.data, &c.recv, now_ns)
        if c.context.trace != NULL:
            tracing_recv_secret(c)
        return code
    code = rekey_handle_init(&c.rekey, f.value, f.data, c.recv.epoch, now_ns)
    if code == 0 and rekey_has_message(&c.rekey):
        c.pending |= CONN_PENDING_REKEY     # it has asked again: our answer may be lost
    return code


cdef void keys_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil:
    """A step of the agreement takes long: say it again, or give up rather than go on with old keys."""
    if rekey_handle_timeout(&c.rekey, c.last_received_ns, now_ns) != 0:
        conn_fail(c, CODE_AEAD_LIMIT, b"no fresh keys were agreed in time")
    else:
        c.pending |= CONN_PENDING_REKEY if rekey_has_message(&c.rekey) else CONN_PENDING_PING
