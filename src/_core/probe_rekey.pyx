"""Python doors into the agreement on fresh keys: the machine, with the keys of both directions and no connection around it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from interpeer._core.crypto cimport identity_from_seed
from interpeer._core.probe cimport exact, room
from interpeer._core.protection cimport (
    RecvKeys, SendKeys, protect, recv_keys_init, recv_keys_update, recv_keys_wipe, send_keys_init, send_keys_update,
    send_keys_wipe, unprotect)
from interpeer._core.rekey cimport (
    REKEY_ROOM, Rekey, rekey_answer, rekey_ask, rekey_free, rekey_handle_answer, rekey_handle_epoch, rekey_handle_init,
    rekey_handle_timeout, rekey_has_message, rekey_init, rekey_input, rekey_is_turning, rekey_note_use, rekey_turn,
    rekey_write)
from interpeer._core.wire cimport HEADER_BYTES, REKEY_ANSWER_MESSAGE_BYTES, REKEY_MESSAGE_BYTES

STATES = ("idle", "asking", "turning", "waiting", "asked", "answering", "following")
INPUTS = ("due", "init", "answered", "answer", "turned", "peer turned")


cdef class Machine:
    """One end of a session."""

    cdef Rekey rekey
    cdef SendKeys send
    cdef RecvKeys recv
    cdef uint8_t secret[32]
    cdef uint8_t public_key[32]

    def __cinit__(self, bytes seed, bint is_initiator, bytes send_secret, bytes recv_secret, *, uint64_t interval_ns=0,
                  uint64_t now_ns=0):
        cdef uint8_t identity[32]
        ours, theirs = exact(send_secret), exact(recv_secret)
        assert identity_from_seed(exact(seed).p, identity, self.secret, self.public_key) == 0
        assert send_keys_init(&self.send, 1, ours.p) == 0 and recv_keys_init(&self.recv, 1, theirs.p) == 0
        assert rekey_init(&self.rekey, is_initiator, ours.p, theirs.p, interval_ns, now_ns) == 0

    def __dealloc__(self):
        rekey_free(&self.rekey)
        send_keys_wipe(&self.send)
        recv_keys_wipe(&self.recv)

    @property
    def static(self):
        return <bytes>self.public_key[:32]

    def use(self, uint64_t bytes, uint64_t now_ns):
        """Note use; return whether fresh keys are due."""
        rekey_note_use(&self.rekey, bytes, now_ns)
        return bool(self.rekey.is_due)

    def ask(self, bytes peer, bytes ephemeral, uint64_t now_ns=0):
        return rekey_ask(&self.rekey, self.secret, self.public_key, exact(peer).p, exact(ephemeral).p, self.send.epoch, now_ns)

    def handle_init(self, uint64_t epoch, bytes message, uint64_t now_ns=0):
        assert len(message) == REKEY_MESSAGE_BYTES
        return rekey_handle_init(&self.rekey, epoch, exact(message).p, self.recv.epoch, now_ns)

    def answer(self, bytes peer, bytes ephemeral, uint64_t now_ns=0):
        return rekey_answer(&self.rekey, self.secret, self.public_key, exact(peer).p, exact(ephemeral).p, &self.recv,
                            self.send.epoch, now_ns)

    def handle_answer(self, uint64_t epoch, bytes message, uint64_t now_ns=0):
        assert len(message) == REKEY_ANSWER_MESSAGE_BYTES
        return rekey_handle_answer(&self.rekey, epoch, exact(message).p, &self.recv, now_ns)

    def turn(self, uint64_t now_ns=0):
        assert rekey_turn(&self.rekey, &self.send, now_ns) == 0

    def update(self):
        """Go on to the next epoch with our sending, by use alone."""
        assert send_keys_update(&self.send) == 0

    def follow(self, uint64_t now_ns=0):
        """A packet of the peer's next epoch has come."""
        assert recv_keys_update(&self.recv) == 0
        rekey_handle_epoch(&self.rekey, self.recv.epoch, now_ns)

    def timeout(self, uint64_t now_ns, uint64_t heard_ns=~<uint64_t>0 >> 1):
        """Return whether it goes on; the peer was heard last at `heard_ns`."""
        return rekey_handle_timeout(&self.rekey, heard_ns, now_ns) == 0

    def protect(self, bytes payload, uint64_t cid, uint32_t path, uint64_t counter):
        source, out = exact(payload), room(HEADER_BYTES + len(payload) + self.send.aead.tag_bytes)
        return out.first(protect(&self.send, out.p, source.p, source.n, cid, path, counter))

    def unprotect(self, bytes packet, uint32_t path):
        """Return payload, counter and whether the peer has moved to the next epoch; None if it is not authentic."""
        cdef uint64_t counter = 0
        cdef bint is_update = False
        source = exact(packet)
        n = unprotect(&self.recv, NULL, source.p, source.n, path, &counter, &is_update)
        return (<bytes>source.p[HEADER_BYTES:HEADER_BYTES + n], counter, bool(is_update)) if n >= 0 else None

    def write(self):
        """Return the frame, or None while there is no message of ours on its way."""
        if not rekey_has_message(&self.rekey):
            return None
        out = room(REKEY_ROOM)
        return out.first(rekey_write(&self.rekey, out.p) - out.p)

    def step(self, str state, str event):
        """Put the machine into a state and give it an input; return the state after it, or None where it is not allowed."""
        self.rekey.state = STATES.index(state)
        is_allowed = rekey_input(&self.rekey, INPUTS.index(event)) == 0
        after, self.rekey.state = STATES[self.rekey.state], 0
        return after if is_allowed else None

    @property
    def state(self):
        r = &self.rekey
        return {"state": STATES[r.state], "due_ns": r.due_ns, "deadline_ns": r.deadline_ns, "count": r.count,
                "used_bytes": r.used_bytes, "fresh_ns": r.fresh_ns, "has_exchange": r.exchange != NULL,
                "has_message": bool(rekey_has_message(r)), "is_turning": bool(rekey_is_turning(r))}

    @property
    def secrets(self):
        """Return ours of this epoch, the peer's of the next, and the chain."""
        cdef uint8_t found[96]
        memcpy(found, self.send.secret, 32)
        memcpy(found + 32, self.recv.secret, 32)
        memcpy(found + 64, self.rekey.chain, 32)
        return <bytes>found[:32], <bytes>found[32:64], <bytes>found[64:96]

    @property
    def epochs(self):
        return self.send.epoch, self.recv.epoch
