"""What Python does with an engine as a whole: set it up, call a peer, collect events, exchange datagrams by hand.

The last is for the simulator and for event loops that cannot watch a socket: they hand datagrams over as bytes, and
the engine sees the same batches as from the system calls. It is one file since all of it is an engine's, and each function
little more than its lock and a conversion.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.answer cimport HALF_OPEN_NS, answering_init
from interpeer._core.conn cimport CONN_DIALING, Conn, Handle, conn_wake
from interpeer._core.connection_handle cimport ConnectionHandle, attach_handle, new_handle
from interpeer._core.context cimport ENTROPY_BYTES, Counters, entropy_add
from interpeer._core.controller cimport CONTROLLERS
from interpeer._core.crypto cimport KEY_BYTES, SUITES, blake2b, suite_is_available, wipe, x25519_of_identity
from interpeer._core.dial cimport MAX_CANDIDATES, Candidate, Dial, dial_add_candidate
from interpeer._core.engine cimport (
    EVENT_ASK, EVENT_CONNECTION, EVENT_INCOMING, EVENT_LEG_GONE, EVENT_RAW, EVENT_STREAM, EVENT_TUNNEL, Engine, Event)
from interpeer._core.entry cimport begin_alone, end_alone, kick, leave, take_lock
from interpeer._core.handshake cimport MAX_NETWORK_BYTES, node_keys_init
from interpeer._core.raw cimport (
    MAX_EXPECTED, MAX_RAW_BYTES, RAW_FULL, RAW_NO_MEMORY, RAW_OK, TOKEN_BYTES, TXID_BYTES, Raw, RawDatagram, RawEvents,
    raw_expect, raw_give_back, raw_new, raw_push, raw_take_events, raw_unexpect)
from interpeer._core.reception cimport reception_decide
from interpeer._core.registry cimport (
    ALLOW_ANYBODY, ALLOW_ASK, ALLOW_LISTED, MAX_PROTOCOLS, Registry, registry_allow, registry_protocol)
from interpeer._core.shards cimport MAX_SHARDS, Shards, shards_new, shards_note_call
from interpeer._core.slab cimport (
    MAX_UDP_PAYLOAD, RECV_SLOTS, Datagrams, Endpoint, RecvBatch, SendBatch, endpoint_is_virtual, recv_batch_free,
    recv_batch_init, send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.table cimport table_init
from interpeer._core.trace cimport Trace, TraceKey, TraceRecord, trace_is_ripe, trace_new
from interpeer._core.tunnel cimport Tunnel, Tunnels, tunnels_emptied, tunnels_next_ready
from interpeer._core.wire cimport MAX_PROTOCOL_BYTES, read_u64

from interpeer.errors import LocalError as _LocalError

ASK, CONNECTION, INCOMING, STREAM, RAW = EVENT_ASK, EVENT_CONNECTION, EVENT_INCOMING, EVENT_STREAM, EVENT_RAW
LEG_GONE, TUNNEL = EVENT_LEG_GONE, EVENT_TUNNEL
ENTROPY = ENTROPY_BYTES
MOST_SHARDS = MAX_SHARDS
SUITE_NAMES = {1: "chacha20-poly1305", 2: "aes-256-gcm", 3: "aegis-128l", 4: "aegis-256"}

cdef enum:
    EVENTS_AT_A_TIME = 128


def available_suites():
    """Return the names of the ciphers that this machine and its libsodium offer."""
    return [SUITE_NAMES[i] for i in range(1, SUITES) if suite_is_available(i)]


def identity_of(bytes seed not None):
    """Return the Ed25519 public key of a 32-byte seed: the peer id."""
    cdef Engine engine = Engine()
    if len(seed) != 32:
        raise ValueError(f"a seed has 32 bytes, not {len(seed)}")
    if node_keys_init(&engine.registry.keys, <uint8_t *>PyBytes_AS_STRING(seed), NULL, 0, False) != 0:
        raise RuntimeError("libsodium cannot derive a key from this seed")
    return <bytes>engine.registry.keys.identity[:32]


def is_usable_identity(bytes identity not None):
    """Tell whether 32 bytes are an Ed25519 key that can be dialled: on the curve, and of the main subgroup."""
    cdef uint8_t key[32]
    return len(identity) == 32 and x25519_of_identity(key, <uint8_t *>PyBytes_AS_STRING(identity)) == 0


def configure(Engine engine not None, bytes seed not None, bytes network not None, bint is_stored, list protocols not None,
              list suites not None, int backlog, dict limits not None):
    """Give an engine its keys, network, protocols (bytes), suites (names, preferred first) and limits.

    `is_stored` says that the seed outlives the process, so that the next one can tell the peers of this one that their
    connections are lost. `limits` has every field of the core's Limits by name. Raises ValueError."""
    cdef Registry *r = &engine.registry
    cdef uint32_t i
    cdef uint8_t secret[32]
    if len(seed) != 32 or len(network) > MAX_NETWORK_BYTES:
        raise ValueError(f"a seed has 32 bytes, a network's name at most {MAX_NETWORK_BYTES}")
    if not 0 < len(protocols) <= MAX_PROTOCOLS:
        raise ValueError(f"a node offers between 1 and {MAX_PROTOCOLS} protocols, not {len(protocols)}")
    if node_keys_init(&r.keys, <uint8_t *>PyBytes_AS_STRING(seed), <uint8_t *>PyBytes_AS_STRING(network),
                      <uint8_t>len(network), is_stored) != 0:
        raise RuntimeError("libsodium cannot derive the node's keys")
    r.context.static_secret, r.context.static_public = r.keys.secret, r.keys.public_key
    for i, name in enumerate(protocols):
        if not 0 < len(name) <= MAX_PROTOCOL_BYTES:
            raise ValueError(f"a protocol's name has between 1 and {MAX_PROTOCOL_BYTES} bytes: {name!r}")
        memcpy(r.protocols[i].name, <uint8_t *>PyBytes_AS_STRING(name), len(name))
        r.protocols[i].bytes = <uint32_t>len(name)
    r.protocol_count = <uint32_t>len(protocols)
    numbers = {name: number for number, name in SUITE_NAMES.items()}
    memset(r.suites, 0, sizeof(r.suites))
    usable = [numbers[name] for name in dict.fromkeys(suites) if suite_is_available(numbers[name])]
    if not usable:
        raise ValueError(f"none of these ciphers is available here: {', '.join(suites)}")
    for i, number in enumerate(usable):
        r.suites[i] = number
    r.max_backlog = backlog
    if not 0 <= limits["controller"] < CONTROLLERS:
        raise ValueError(f"there are {CONTROLLERS} congestion controllers, and {limits['controller']} is none of them")
    r.context.limits = limits
    # peers choose what these tables are searched for, but do not know how it is hashed
    if blake2b(secret, KEY_BYTES, r.keys.reset_key, KEY_BYTES, NULL, 0, NULL, 0) != 0:
        raise RuntimeError("libsodium cannot hash")
    table_init(&r.by_token, read_u64(secret))
    answering_init(&r.answering, r.context.limits.max_half_open, read_u64(secret))
    wipe(secret, KEY_BYTES)


def share(list engines not None):
    """Make engines that are configured alike, and not used yet, the shards of one node, in this order."""
    cdef Engine engine = engines[0]
    cdef Shards *shards
    cdef uint32_t count = <uint32_t>len(engines), i
    cdef uint64_t secret = engine.registry.by_token.multiplier
    if not 1 < count <= MAX_SHARDS:
        raise ValueError(f"a node has up to {MAX_SHARDS} shards, not {count}")
    shards = shards_new(count, secret)
    if shards == NULL:
        raise MemoryError
    for i in range(count):
        engine = engines[i]
        engine.registry.shards = shards
        engine.registry.shard = i
        answering_init(&engine.registry.answering, max(1, engine.registry.context.limits.max_half_open // count), secret)
        engine.registry.answering.shares = count


def shard_for(Engine engine not None, bytes identity not None, bytes protocol not None, uint64_t now_ns):
    """Return the number of the shard that is to call a peer, of those that `engine` is one of, and note that it will."""
    cdef uint8_t peer_key[32]
    cdef Registry *r = &engine.registry
    if r.shards == NULL:
        return 0
    if len(identity) != 32 or x25519_of_identity(peer_key, <uint8_t *>PyBytes_AS_STRING(identity)) != 0:
        raise ValueError("this peer id is not a usable key: it is not on the curve, or of small order")
    index = registry_protocol(r, <uint8_t *>PyBytes_AS_STRING(protocol), <uint32_t>len(protocol))
    return shards_note_call(r.shards, peer_key, index, now_ns, now_ns + r.context.limits.connect_timeout_ns + HALF_OPEN_NS)


def set_receive_buffer(Engine engine not None, uint64_t bytes_held):
    """Tell peers how much our sockets hold until they are read; for connections made from now on."""
    take_lock(engine)
    engine.registry.context.limits.receive_buffer = bytes_held
    engine.unlock()


def allow_anybody(Engine engine not None):
    """Let everybody in who has our key."""
    set_policy(engine, ALLOW_ANYBODY)


def allow_asking(Engine engine not None):
    """Ask the application about each peer: an event for each, answered by decide()."""
    set_policy(engine, ALLOW_ASK)


def allow_listed(Engine engine not None, identities):
    """Let in only these identities (32 bytes each), besides those allowed before."""
    set_policy(engine, ALLOW_LISTED)
    for identity in identities:
        allow_one(engine, identity)


cdef int set_policy(Engine engine, int policy) except -1:
    take_lock(engine)
    engine.registry.policy = policy
    engine.unlock()
    return 0


cdef int allow_one(Engine engine, bytes identity) except -1:
    cdef int result
    if len(identity) != 32:
        raise ValueError(f"an identity has 32 bytes, not {len(identity)}")
    take_lock(engine)
    result = registry_allow(&engine.registry, <uint8_t *>PyBytes_AS_STRING(identity))
    engine.unlock()
    if result != 0:
        raise MemoryError
    return 0


def decide(Engine engine not None, uint32_t ask, bint is_welcome):
    """Answer a question that came as an ASK event; one that is too late changes nothing."""
    take_lock(engine)
    reception_decide(&engine.registry, ask, is_welcome, engine.now_ns)
    engine.unlock()
    kick(engine)


def refuse_all(Engine engine not None):
    """Let nobody in from now on: the node is closing."""
    take_lock(engine)
    engine.registry.is_closed = True
    engine.unlock()


cdef int read_endpoint(address, Endpoint *out) except -1:
    """Convert (16 bytes, port[, scope])."""
    cdef bytes packed = address[0]
    if len(packed) != 16:
        raise ValueError("an address has 16 bytes")
    memset(out, 0, sizeof(Endpoint))
    memcpy(out.address, <uint8_t *>PyBytes_AS_STRING(packed), 16)
    out.port = address[1]
    out.scope = address[2] if len(address) > 2 else 0
    return 0


cdef int read_local(address, uint8_t *out) except -1:
    """Take an address of ours, of 16 bytes; None: it is not known."""
    if address is not None and len(address) != 16:
        raise ValueError("an address has 16 bytes")
    if address is None:
        memset(out, 0, 16)
    else:
        memcpy(out, <uint8_t *>PyBytes_AS_STRING(address), 16)
    return 0


def connect(Engine engine not None, bytes identity not None, list addresses not None, bytes protocol not None,
            int controller=-1):
    """Start calling a peer at up to 16 addresses ((16 bytes, port, scope) each); return its ConnectionHandle.

    `controller` is the number of a congestion controller, -1: the node's. Raises ValueError for a key that
    cannot be dialled, for our own, for no address at all, and for a number that no controller has."""
    cdef Endpoint candidates[16]
    cdef uint8_t peer_key[32]
    cdef ConnectionHandle handle = new_handle(engine)
    cdef Handle *core
    cdef int i
    if len(identity) != 32 or x25519_of_identity(peer_key, <uint8_t *>PyBytes_AS_STRING(identity)) != 0:
        raise ValueError("this peer id is not a usable key: it is not on the curve, or of small order")
    if <bytes>peer_key[:32] == <bytes>engine.registry.keys.public_key[:32]:
        raise ValueError("a node cannot connect to itself")
    if not addresses:
        raise ValueError("no address to call")
    if not -1 <= controller < CONTROLLERS:
        raise ValueError(f"there are {CONTROLLERS} congestion controllers, and {controller} is none of them")
    if not 0 < len(protocol) <= MAX_PROTOCOL_BYTES:
        raise ValueError(f"a protocol's name has between 1 and {MAX_PROTOCOL_BYTES} bytes: {protocol!r}")
    for i, address in enumerate(addresses[:MAX_CANDIDATES]):
        read_endpoint(address, &candidates[i])
    reference = PyWeakref_NewRef(handle, None)
    take_lock(engine)
    core = engine.dial(<uint8_t *>PyBytes_AS_STRING(identity), peer_key, <uint8_t *>PyBytes_AS_STRING(protocol),
                       <uint32_t>len(protocol), candidates, min(len(addresses), MAX_CANDIDATES))
    if core != NULL:
        attach_handle(handle, core, reference)
        if controller >= 0:
            core.conn.controller = <uint8_t>controller
    engine.unlock()
    if core == NULL:
        raise MemoryError
    kick(engine)
    return handle


cdef Raw *begin_raw(Engine engine) except NULL:
    """Take the lock, and return what raw datagrams go through, made at its first use."""
    take_lock(engine)
    if engine.registry.raw == NULL:
        engine.registry.raw = raw_new()
    if engine.registry.raw == NULL:
        engine.unlock()
        raise MemoryError
    return engine.registry.raw


def send_raw(Engine engine not None, bytes data not None, remote, bytes local=None, int ttl=0):
    """Send a datagram that belongs to no connection, to (16 bytes, port, scope), at the next turn; False: too many wait.

    `local` are the 16 bytes of the address that it is to leave from, None: any; `ttl` is its time to live, 0: the
    system's. Raises ValueError for one that cannot be sent."""
    cdef Endpoint to
    cdef uint8_t from_[16]
    cdef int result
    if not 0 < len(data) <= MAX_RAW_BYTES:
        raise ValueError(f"a raw datagram has from 1 to {MAX_RAW_BYTES} bytes, not {len(data)}")
    if not 0 <= ttl <= 255:
        raise ValueError(f"a time to live is from 1 to 255, or 0 for the system's; not {ttl}")
    read_endpoint(remote, &to)
    read_local(local, from_)
    if endpoint_is_virtual(to.address):
        raise ValueError("a raw datagram goes to an address, not through a relay or a tunnel")
    raw = begin_raw(engine)
    result = raw_push(raw, &to, from_, <const uint8_t *>PyBytes_AS_STRING(data), <uint32_t>len(data), <uint8_t>ttl)
    engine.unlock()
    if result == RAW_NO_MEMORY:
        raise MemoryError
    kick(engine)
    return result == RAW_OK


def expect(Engine engine not None, bytes token not None):
    """Take STUN answers to a transaction (12 bytes), or probes with a token (8 bytes), as RAW events, until `unexpect`.

    Raises ValueError for a token of another size, LocalError when too many are expected already."""
    cdef int result
    check_token(token)
    raw = begin_raw(engine)
    result = raw_expect(raw, <const uint8_t *>PyBytes_AS_STRING(token), <uint32_t>len(token))
    engine.unlock()
    if result == RAW_FULL:
        raise _LocalError(f"answers are expected for {MAX_EXPECTED} tokens already: unexpect those that nobody waits for")


def unexpect(Engine engine not None, bytes token not None):
    """Take no more answers with a token; harmless where none are expected."""
    check_token(token)
    raw = begin_raw(engine)
    raw_unexpect(raw, <const uint8_t *>PyBytes_AS_STRING(token), <uint32_t>len(token))
    engine.unlock()


cdef int check_token(bytes token) except -1:
    if len(token) != TXID_BYTES and len(token) != TOKEN_BYTES:
        raise ValueError(f"a STUN transaction has {TXID_BYTES} bytes and a probe's token {TOKEN_BYTES}; this has {len(token)}")
    return 0


cdef int add_raw_events(Engine engine, list out) except -1:
    """Append what has come as answers."""
    cdef RawEvents *taken
    cdef RawDatagram *d
    cdef uint32_t i
    take_lock(engine)
    taken = raw_take_events(engine.registry.raw)
    engine.unlock()
    if taken == NULL:
        return 0
    for i in range(taken.count):
        d = &taken.entries[i]
        out.append((RAW, <bytes>d.data[:d.bytes], (<bytes>d.remote.address[:16], d.remote.port, d.remote.scope),
                    <bytes>d.local[:16]))
    take_lock(engine)
    raw_give_back(engine.registry.raw, taken)
    engine.unlock()
    return 0


def add_candidate(ConnectionHandle handle not None, address):
    """Call the peer at another address as well, (16 bytes, port, scope), and at once; without effect once it has answered."""
    cdef Endpoint to
    cdef Conn *c
    cdef Dial *d
    cdef Candidate *candidate
    read_endpoint(address, &to)
    c = handle.enter()
    if c.state == CONN_DIALING:
        d = <Dial *>c.dial
        candidate = dial_add_candidate(d, &to)
        if candidate != NULL and not candidate.sent and d.urgent == NULL:
            d.urgent = candidate
        conn_wake(c)
    leave(handle.engine)


cdef int add_tunnel_events(Engine engine, list out) except -1:
    """Append what is to be written to tunnels: one bytes object each, however many packets."""
    cdef Tunnels *t
    cdef Tunnel *tunnel
    cdef bytes frames
    cdef uint64_t number = 0
    while True:
        take_lock(engine)
        try:
            t = engine.registry.tunnels
            tunnel = tunnels_next_ready(t) if t != NULL else NULL
            if tunnel == NULL:
                return 0
            number = tunnel.number
            frames = PyBytes_FromStringAndSize(<char *>tunnel.queue, tunnel.used)
            tunnels_emptied(t, tunnel)
        finally:
            engine.unlock()
        out.append((TUNNEL, number, frames))


def events(Engine engine not None):
    """Return what has happened since the last call, as tuples.

    (CONNECTION, handle, events), (STREAM, handle, stream id, events), (INCOMING, handle, events) for a connection that
    a peer has opened, (ASK, number, identity, protocol) for a peer that wants to come in, (RAW, data, remote, local) for an
    answer that was expected, which came from (16 bytes, port, scope) to 16 bytes, (LEG_GONE, id) for a leg that has ended
    with a connection, (TUNNEL, number, frames) for packets that are to be written to a tunnel."""
    cdef Event batch[128]
    cdef int n = EVENTS_AT_A_TIME, i
    cdef list out = []
    while n == EVENTS_AT_A_TIME:
        take_lock(engine)
        n = engine.poll_events(batch, EVENTS_AT_A_TIME)
        hold_references(batch, n)
        engine.unlock()
        for i in range(n):
            event = event_of(engine, &batch[i])
            if event is not None:
                out.append(event)
    add_raw_events(engine, out)
    add_tunnel_events(engine, out)
    return out


cdef void hold_references(Event *batch, int n) noexcept:
    """Hold the weak reference of each object that has an event. Under the lock: from then on the object may go away, and a
    turn on another thread free its handle. To hold the object itself is not enough where its destructor has begun."""
    cdef int i
    for i in range(n):
        batch[i].object = NULL
        if batch[i].kind == EVENT_CONNECTION or batch[i].kind == EVENT_STREAM:
            batch[i].object = batch[i].handle.object
        if batch[i].object != NULL:
            Py_INCREF(<object>batch[i].object)


cdef tuple event_of(Engine engine, const Event *e):
    """Return an event as a tuple; None for an object that is gone."""
    cdef ConnectionHandle handle
    if e.kind == EVENT_ASK:
        return EVENT_ASK, e.id, <bytes>e.identity[:32], e.protocol
    if e.kind == EVENT_LEG_GONE:
        return EVENT_LEG_GONE, e.stream
    if e.kind == EVENT_INCOMING:
        handle = new_handle(engine)
        reference = PyWeakref_NewRef(handle, None)
        take_lock(engine)
        attach_handle(handle, e.handle, reference)
        engine.unlock()
        return EVENT_INCOMING, handle, e.events
    if e.object == NULL:
        return None
    reference = <object>e.object
    Py_DECREF(reference)            # the variable has its own
    handle = reference()
    if handle is None:
        return None
    if e.kind == EVENT_STREAM:
        return EVENT_STREAM, handle, e.stream, e.events
    return EVENT_CONNECTION, handle, e.events


def counters(Engine engine not None):
    """Return every counter of the node by name, and how many connections and half-open handshakes there are."""
    cdef Counters result
    cdef uint32_t connections, half_open
    take_lock(engine)
    result = engine.registry.context.counters
    connections = engine.registry.connections
    half_open = engine.registry.answering.count
    engine.unlock()
    return {**result, "connections": connections, "half_open": half_open}


def live_objects(Engine engine not None):
    """Return how many blocks, streams and records are handed out: for leak checks."""
    take_lock(engine)
    x = &engine.registry.context
    small, large, streams, records = x.blocks.small.live, x.blocks.large.live, x.streams.live, x.records.live
    channels = x.channels.live
    connections, half_open, timers = engine.registry.connections, engine.registry.answering.count, engine.registry.timers.count
    connection_ids = engine.registry.by_cid.count
    legs = engine.registry.context.relay.legs.count if engine.registry.context.relay != NULL else 0
    engine.unlock()
    return {"small_blocks": small, "large_blocks": large, "streams": streams, "records": records,
            "channels": channels, "connection_ids": connection_ids, "legs": legs,
            "connections": connections, "half_open": half_open, "timers": timers}


# --- what the trace has seen ---

def trace_start(Engine engine not None, bint with_records, bint with_keys):
    """Switch the trace on: records of what happens, secrets for a key log, or both. Once for an engine, before it opens."""
    cdef Trace *t
    cdef bint is_taken
    take_lock(engine)
    is_taken = engine.registry.context.trace != NULL
    t = NULL if is_taken else trace_new(with_records, with_keys)
    if t != NULL:
        engine.registry.context.trace = t
    engine.unlock()
    if is_taken:
        raise RuntimeError("this engine has a trace already")
    if t == NULL:
        raise MemoryError


def trace_take(Engine engine not None, bint only_if_ripe):
    """Take what the trace has, perhaps only if it is much, or urgent, and otherwise nothing.

    Return (records, secrets, records left out so far, secrets left out so far)."""
    cdef Trace *t
    cdef bytes records, keys
    cdef uint64_t overflowed, keys_overflowed
    take_lock(engine)
    try:
        t = engine.registry.context.trace
        if t == NULL:
            raise RuntimeError("this engine has no trace")
        if only_if_ripe and not trace_is_ripe(t):
            return b"", b"", t.overflowed, t.keys_overflowed
        records = PyBytes_FromStringAndSize(<char *>t.records, t.count * sizeof(TraceRecord)) if t.count else b""
        keys = PyBytes_FromStringAndSize(<char *>t.keys, t.key_count * sizeof(TraceKey)) if t.key_count else b""
        if t.key_count:
            wipe(t.keys, t.key_count * sizeof(TraceKey))
        t.count = t.key_count = 0
        overflowed, keys_overflowed = t.overflowed, t.keys_overflowed
    finally:
        engine.unlock()
    return records, keys, overflowed, keys_overflowed


# --- datagrams by hand ---

def add_entropy(Engine engine not None, bytes random not None):
    """Give the engine random bytes; return how many it took. Each is used once, so none may be given twice."""
    take_lock(engine)
    n = entropy_add(&engine.registry.context.entropy, <uint8_t *>PyBytes_AS_STRING(random), <uint32_t>len(random))
    engine.unlock()
    return n


def entropy_missing(Engine engine not None):
    """Return how many random bytes the engine has room for."""
    cdef uint32_t left
    take_lock(engine)
    left = engine.registry.context.entropy.left
    engine.unlock()
    return ENTROPY_BYTES - left


cdef class Exchange:
    """Datagrams in and out of an engine as Python objects, in batches."""

    cdef Engine engine
    cdef RecvBatch received
    cdef SendBatch batch
    cdef long users                         # calls that use the batches; one at a time may

    def __cinit__(self, Engine engine not None):
        self.engine = engine
        if recv_batch_init(&self.received) != 0 or send_batch_init(&self.batch) != 0:
            raise MemoryError

    def __dealloc__(self):
        recv_batch_free(&self.received)
        send_batch_free(&self.batch)

    def receive(self, datagrams, uint64_t now_ns):
        """Hand datagrams over: (data, (16 bytes, port, scope), ecn[, local]) each, where `local` are the 16 bytes of the address
        that it came to, if that is known. Larger ones than UDP carries are cut."""
        begin_alone(&self.users)
        try:
            self.take(datagrams, now_ns)
        finally:
            end_alone(&self.users)

    cdef int take(self, datagrams, uint64_t now_ns) except -1:
        cdef Py_buffer view
        cdef Datagrams *d
        self.received.count = 0
        for data, source, ecn, *local in datagrams:
            if self.received.count == RECV_SLOTS:
                self.flush(now_ns)
            d = &self.received.slots[self.received.count]
            read_endpoint(source, &d.remote)
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            d.bytes = <uint32_t>(view.len if view.len < MAX_UDP_PAYLOAD else MAX_UDP_PAYLOAD)
            d.segment = d.bytes
            memcpy(d.data, view.buf, d.bytes)
            PyBuffer_Release(&view)
            read_local(local[0] if local else None, d.local)
            d.interface = 0
            d.ecn = ecn
            self.received.count += 1
        return self.flush(now_ns)

    cdef int flush(self, uint64_t now_ns) except -1:
        take_lock(self.engine)
        self.engine.handle_batch(&self.received, now_ns)
        self.engine.unlock()
        self.received.count = 0
        return 0

    def handle_timeout(self, uint64_t now_ns):
        take_lock(self.engine)
        if self.engine.has_mail():
            self.engine.handle_mail(now_ns)
        self.engine.handle_timeout(now_ns)
        self.engine.unlock()

    def poll_timeout(self):
        """Return when handle_timeout is due; 0 never, 1 at once."""
        take_lock(self.engine)
        deadline = self.engine.poll_timeout()
        self.engine.unlock()
        return deadline

    def transmit(self, uint64_t now_ns):
        """Return all packets that may go now: (data, (16 bytes, port, scope), ecn) each."""
        return [packet[:3] for packet in self.transmit_from(now_ns)]

    def transmit_from(self, uint64_t now_ns, refuses=None):
        """Return all packets that may go now: (data, (16 bytes, port, scope), ecn, local, ttl) each, where `local` are the 16
        bytes of the address that it is to leave from; zeros: any; and a `ttl` of 0 is the system's. What
        `refuses(local, bytes)` is too large for its interface."""
        begin_alone(&self.users)
        try:
            return self.packets(now_ns, refuses)
        finally:
            end_alone(&self.users)

    cdef list packets(self, uint64_t now_ns, refuses):
        cdef bint more = True
        cdef uint32_t i, at, n
        cdef Datagrams *d
        cdef list out = []
        while more:
            send_batch_clear(&self.batch)
            take_lock(self.engine)
            more = self.engine.poll_transmit(&self.batch, now_ns)
            self.engine.unlock()
            for i in range(self.batch.count):
                d = &self.batch.entries[i]
                target = (<bytes>d.remote.address[:16], d.remote.port, d.remote.scope)
                local = <bytes>d.local[:16]
                if refuses is not None and refuses(local, d.segment):
                    d.is_too_big = True
                    continue
                at = 0
                while at < d.bytes:
                    n = d.segment if d.segment < d.bytes - at else d.bytes - at
                    out.append((<bytes>d.data[at:at + n], target, d.ecn, local, d.ttl))
                    at += n
            if refuses is not None:
                self.batch.sent = self.batch.count
                take_lock(self.engine)
                self.engine.handle_refusals(&self.batch)
                more |= self.engine.poll_timeout() == 1     # it has something to say to that
                self.engine.unlock()
        return out

    @property
    def has_events(self):
        cdef bint has_events
        take_lock(self.engine)
        has_events = self.engine.has_events()
        self.engine.unlock()
        return has_events
