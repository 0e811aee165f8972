"""Python doors into the handshake: its messages, the initiator's machine (dial) and the responder's table (answer).

Endpoints are (16 bytes, port, scope), as everywhere in Python.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.answer cimport (
    HALF_OPEN_BYTES, HALF_STATES, STORED_RESPONSE_BYTES, Answering, HalfOpen, answering_admits, answering_deadline_ns,
    answering_expire, answering_free, answering_init, answering_is_loaded, half_input, half_open_add, half_open_answer,
    half_open_ask, half_open_find_cid, half_open_find_id, half_open_find_init, half_open_find_peer, half_open_parameters,
    half_open_remove, half_open_resume)
from interpeer._core.dial cimport (
    DIAL_STATES, Dial, dial_add_candidate, dial_begin, dial_deadline_ns, dial_free, dial_handle_cookie,
    dial_handle_response, dial_handle_timeout, dial_handle_versions, dial_hold, dial_input, dial_is_over, dial_new,
    dial_poll, dial_prepare, dial_stamp)
from interpeer._core.handshake cimport (
    HANDSHAKE_IDENTITY, HANDSHAKE_OK, HANDSHAKE_OPEN, HANDSHAKE_PARAMETER, InitMessage,
    NodeKeys, ResponseMessage, init_has_mac1, init_has_mac2, mac1_key_of, node_keys_init, open_reply, read_init,
    read_response, reset_token_of, rotate_cookie_secret, sealing_key_of, stamp_init, write_cookie_reply, write_init,
    write_response, write_versions_reply)
from interpeer._core.noise cimport Noise, noise_split, noise_wipe
from interpeer._core.probe cimport exact, room
from interpeer._core.probe_wire cimport parameters_from_dict, parameters_to_dict
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.wire cimport INIT_BYTES, INIT_MACS_BYTES, MAX_RESPONSE_BYTES, MAX_VERSIONS, Parameters

RESULTS = {HANDSHAKE_OK: "ok", HANDSHAKE_OPEN: "open", HANDSHAKE_PARAMETER: "parameter", HANDSHAKE_IDENTITY: "identity"}


cdef int endpoint_from(tuple address, Endpoint *out) except -1:
    cdef bytes packed = address[0]
    assert len(packed) == 16
    memset(out, 0, sizeof(Endpoint))
    memcpy(out.address, <const uint8_t *>packed, 16)
    out.port, out.scope = address[1], address[2]
    return 0


cdef tuple endpoint_to(const Endpoint *e):
    return <bytes>e.address[:16], e.port, e.scope


# --- who we are, and messages ---

cdef class Keys:
    """A node's keys, and every message that they can write."""

    cdef NodeKeys keys

    def __cinit__(self, bytes seed, bytes network=b"", bint has_reset_key=True):
        assert len(seed) == 32
        name = exact(network)
        assert node_keys_init(&self.keys, exact(seed).p, name.p, <uint8_t>name.n, has_reset_key) == 0

    @property
    def identity(self):
        return <bytes>self.keys.identity[:32]

    @property
    def secret(self):
        return <bytes>self.keys.secret[:32]

    @property
    def public_key(self):
        return <bytes>self.keys.public_key[:32]

    def mac1_key(self, bytes peer_key):
        """Return the key of mac1 in messages to a peer."""
        out = room(32)
        mac1_key_of(&self.keys, exact(peer_key).p, out.p)
        return out.first(32)

    def sealing_key(self, bytes peer_key):
        """Return the key of a peer's cookie and versions replies."""
        out = room(32)
        sealing_key_of(&self.keys, exact(peer_key).p, out.p)
        return out.first(32)

    def reset_token(self, uint64_t cid):
        out = room(16)
        reset_token_of(&self.keys, cid, out.p)
        return out.first(16)

    def write_init(self, bytes peer_key, uint64_t cid, dict parameters, bytes ephemeral, bytes cookie=None):
        """Return the message, stamped, and the handshake that it starts; or None for a key that is no good."""
        cdef Parameters p
        cdef Exchange exchange = Exchange.__new__(Exchange)
        exchange.keys = self
        out, stamp = room(INIT_BYTES), exact(cookie or b"")
        parameters_from_dict(parameters, &p)
        if write_init(&self.keys, &exchange.noise, out.p, exact(peer_key).p, cid, &p, exact(ephemeral).p) != 0:
            return None
        stamp_init(out.p, exact(self.mac1_key(peer_key)).p, stamp.p if cookie else NULL)
        return out.first(INIT_BYTES), exchange

    def has_mac1(self, bytes init):
        source = exact(init)
        return bool(init_has_mac1(&self.keys, source.p, source.n))

    def read_init(self, bytes init):
        """Return how it went, and what the message says."""
        cdef InitMessage message
        cdef Exchange exchange = Exchange.__new__(Exchange)
        assert len(init) == INIT_BYTES
        result = read_init(&self.keys, exact(init).p, &message)
        exchange.keys, exchange.noise = self, message.noise
        exchange.cid, exchange.identity = message.remote_cid, <bytes>message.identity[:32]
        exchange.parameters = parameters_to_dict(&message.parameters)
        noise_wipe(&message.noise)
        return RESULTS[result], exchange

    def rotate_cookie_secret(self, bytes fresh, uint64_t now_ns):
        """Return whether the fresh bytes were used."""
        assert len(fresh) == 32
        return bool(rotate_cookie_secret(&self.keys, exact(fresh).p, now_ns))

    def has_mac2(self, bytes init, tuple source, uint64_t now_ns):
        cdef Endpoint from_
        endpoint_from(source, &from_)
        assert len(init) == INIT_BYTES
        return bool(init_has_mac2(&self.keys, exact(init).p, &from_, now_ns))

    def write_cookie_reply(self, bytes init, tuple source, bytes nonce):
        cdef Endpoint from_
        endpoint_from(source, &from_)
        assert len(init) == INIT_BYTES and len(nonce) == 24
        out = room(66)
        return out.first(write_cookie_reply(&self.keys, out.p, exact(init).p, &from_, exact(nonce).p))

    def write_versions_reply(self, bytes init, bytes nonce):
        assert len(init) >= 64 and len(nonce) == 24
        source, out = exact(init), room(51)
        return out.first(write_versions_reply(&self.keys, out.p, source.p, source.n, exact(nonce).p))


def open_sealed_reply(bytes message, bytes sealing_key, bytes mac1):
    """Return what a cookie or versions reply says, or None."""
    source, out = exact(message), room(MAX_VERSIONS)
    return out.first(open_reply(out.p, source.p, source.n, exact(sealing_key).p, exact(mac1).p))


def mac1_of(bytes init):
    return init[INIT_BYTES - INIT_MACS_BYTES:INIT_BYTES - 16]


cdef class Exchange:
    """A handshake under way: Noise's state and what has been read."""

    cdef Keys keys                  # which Noise's state points to
    cdef Noise noise
    cdef readonly uint64_t cid
    cdef readonly bytes identity
    cdef readonly dict parameters

    def __dealloc__(self):
        noise_wipe(&self.noise)

    def write_response(self, uint64_t remote_cid, dict parameters, bytes ephemeral):
        """Return the message, or None when it would be too long."""
        cdef Parameters p
        parameters_from_dict(parameters, &p)
        out = room(MAX_RESPONSE_BYTES)
        return out.first(write_response(&self.keys.keys, &self.noise, out.p, remote_cid, &p, exact(ephemeral).p))

    def read_response(self, bytes message, bytes expected_identity):
        """Return how it went and the parameters."""
        cdef ResponseMessage response
        source = exact(message)
        result = read_response(&self.noise, source.p, source.n, exact(expected_identity).p, &response)
        return RESULTS[result], parameters_to_dict(&response.parameters)

    def split(self):
        """Return the secrets to send with and to receive with."""
        send, receive = room(32), room(32)
        assert noise_split(&self.noise, send.p, receive.p) == 0
        return send.first(32), receive.first(32)


# --- the initiator ---

DIAL_STATE_NAMES = ("calling", "doubtful", "answered", "refused", "mismatched", "timed out")


def step_dial(int state, int event):
    """Return the next state and what dial_input returned."""
    cdef Dial d
    assert 0 <= state < DIAL_STATES
    memset(&d, 0, sizeof(Dial))
    d.state = state
    moved = dial_input(&d, event)
    return d.state, bool(moved)


cdef class Dialer:
    cdef Dial *dial
    cdef Keys keys

    def __cinit__(self, Keys keys not None):
        self.keys = keys
        self.dial = dial_new()
        if self.dial == NULL:
            raise MemoryError

    def __dealloc__(self):
        dial_free(self.dial)

    def prepare(self, bytes peer_key, uint64_t cid, dict parameters, bytes ephemeral):
        """Return whether the peer's key is any good."""
        cdef Parameters p
        parameters_from_dict(parameters, &p)
        return dial_prepare(self.dial, &self.keys.keys, exact(peer_key).p, cid, &p, exact(ephemeral).p) == 0

    def begin(self, uint64_t now_ns, uint64_t timeout_ns):
        dial_begin(self.dial, now_ns, timeout_ns)

    def add_candidate(self, tuple address):
        """Return its index, or None when there are too many."""
        cdef Endpoint e
        endpoint_from(address, &e)
        candidate = dial_add_candidate(self.dial, &e)
        return candidate - self.dial.candidates if candidate != NULL else None

    def poll(self, uint64_t now_ns):
        """Return the message that is due now and to whom it goes; or None."""
        candidate = dial_poll(self.dial, now_ns)
        if candidate == NULL:
            return None
        dial_stamp(self.dial, candidate, now_ns)
        return <bytes>self.dial.init[:INIT_BYTES], endpoint_to(&candidate.address)

    def hold(self, uint64_t now_ns):
        dial_hold(self.dial, now_ns)

    def handle_response(self, bytes message, bytes identity, uint64_t now_ns):
        """Return how it went and the parameters."""
        cdef ResponseMessage response
        memset(&response, 0, sizeof(ResponseMessage))
        source = exact(message)
        result = dial_handle_response(self.dial, source.p, source.n, exact(identity).p, &response, now_ns)
        return RESULTS[result], parameters_to_dict(&response.parameters)

    def handle_cookie(self, bytes message, tuple source):
        """Return the index of the candidate to call again, or None."""
        cdef Endpoint from_
        endpoint_from(source, &from_)
        text = exact(message)
        candidate = dial_handle_cookie(self.dial, text.p, text.n, &from_)
        return candidate - self.dial.candidates if candidate != NULL else None

    def stamp(self, int index, uint64_t now_ns):
        """Return the message for a candidate, out of turn."""
        assert 0 <= index < self.dial.count
        dial_stamp(self.dial, &self.dial.candidates[index], now_ns)
        return <bytes>self.dial.init[:INIT_BYTES]

    def handle_versions(self, bytes message, uint64_t now_ns):
        source = exact(message)
        return RESULTS[dial_handle_versions(self.dial, source.p, source.n, now_ns)]

    def handle_timeout(self, uint64_t now_ns):
        dial_handle_timeout(self.dial, now_ns)

    def split(self):
        send, receive = room(32), room(32)
        assert noise_split(&self.dial.noise, send.p, receive.p) == 0
        return send.first(32), receive.first(32)

    @property
    def state(self):
        return DIAL_STATE_NAMES[self.dial.state]

    @property
    def is_over(self):
        return bool(dial_is_over(self.dial))

    @property
    def deadline_ns(self):
        return dial_deadline_ns(self.dial)

    @property
    def candidates(self):
        """Return address, messages sent, whether it asked for a cookie; of each."""
        d = self.dial
        return [(endpoint_to(&d.candidates[i].address), d.candidates[i].sent, bool(d.candidates[i].has_cookie))
                for i in range(d.count)]


# --- the responder ---

HALF_STATE_NAMES = ("free", "asking", "answered")


def step_half(int state, int event):
    """Return the next state, or None where the input is not allowed."""
    cdef HalfOpen h
    assert 0 <= state < HALF_STATES
    memset(&h, 0, sizeof(HalfOpen))
    h.state = state
    result = half_input(&h, event)
    assert result == 0 or h.state == state
    return h.state if result == 0 else None


def half_open_bytes():
    """Return the size of an entry, and the largest that is promised."""
    return sizeof(HalfOpen), HALF_OPEN_BYTES, STORED_RESPONSE_BYTES


cdef class Answerer:
    """The table of half-open handshakes; entries go by their ids."""

    cdef Answering answering
    cdef Keys keys

    def __cinit__(self, Keys keys not None, uint32_t capacity):
        self.keys = keys
        answering_init(&self.answering, capacity, 0)

    def __dealloc__(self):
        answering_free(&self.answering)

    cdef HalfOpen *entry(self, uint32_t id) except NULL:
        cdef HalfOpen *h = half_open_find_id(&self.answering, id)
        if h == NULL:
            raise KeyError(id)
        return h

    def add(self, bytes init, tuple source, uint16_t protocol, uint64_t now_ns, *, parameters=None, ephemeral=None):
        """Enter a first message: as a question to the application, or answered at once if there are parameters.

        Return the entry's id; 0 where it could not be answered."""
        cdef InitMessage message
        cdef Datagrams from_
        cdef Parameters ours
        memset(&from_, 0, sizeof(Datagrams))
        endpoint_from(source, &from_.remote)
        assert len(init) == INIT_BYTES and read_init(&self.keys.keys, exact(init).p, &message) == HANDSHAKE_OK
        mac1 = int.from_bytes(mac1_of(init)[:8], "big")
        h = half_open_add(&self.answering, &message, &from_, mac1, now_ns)
        assert h != NULL
        h.protocol = protocol
        if parameters is None:
            half_open_ask(h, &message)
            return h.id
        parameters_from_dict(parameters, &ours)
        if half_open_answer(&self.answering, h, &self.keys.keys, &message.noise, &ours, exact(ephemeral).p, now_ns) != 0:
            half_open_remove(&self.answering, h)
            return 0
        return h.id

    def answer(self, uint32_t id, dict parameters, bytes ephemeral, uint64_t now_ns):
        """Answer an entry that the application was asked about; return whether it went well."""
        cdef Noise noise
        cdef Parameters ours
        h = self.entry(id)
        parameters_from_dict(parameters, &ours)
        half_open_resume(h, &self.keys.keys, &noise)
        return half_open_answer(&self.answering, h, &self.keys.keys, &noise, &ours, exact(ephemeral).p, now_ns) == 0

    def remove(self, uint32_t id):
        half_open_remove(&self.answering, self.entry(id))

    def response(self, uint32_t id):
        h = self.entry(id)
        return <bytes>h.material[:h.response_bytes]

    def secrets(self, uint32_t id):
        h = self.entry(id)
        return <bytes>h.send_secret[:32], <bytes>h.recv_secret[:32]

    def parameters(self, uint32_t id):
        cdef Parameters p
        half_open_parameters(self.entry(id), &p)
        return parameters_to_dict(&p)

    def state(self, uint32_t id):
        return HALF_STATE_NAMES[self.entry(id).state]

    def find_init(self, bytes init):
        """Return the id of the entry for this very message, or None."""
        h = half_open_find_init(&self.answering, int.from_bytes(mac1_of(init)[:8], "big"))
        return h.id if h != NULL else None

    def find_cid(self, uint64_t cid):
        h = half_open_find_cid(&self.answering, cid)
        return h.id if h != NULL else None

    def find_peer(self, bytes peer_key, uint16_t protocol):
        h = half_open_find_peer(&self.answering, exact(peer_key).p, protocol)
        return h.id if h != NULL else None

    def expire(self, uint64_t now_ns):
        answering_expire(&self.answering, now_ns)

    def admits(self, tuple source, uint64_t now_ns):
        cdef Endpoint from_
        endpoint_from(source, &from_)
        return bool(answering_admits(&self.answering, &self.keys.keys, &from_, now_ns))

    @property
    def is_loaded(self):
        return bool(answering_is_loaded(&self.answering))

    @property
    def deadline_ns(self):
        return answering_deadline_ns(&self.answering)

    def __len__(self):
        return self.answering.count
