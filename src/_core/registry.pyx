"""What an engine holds: its keys, its connections and how to find them, whom it lets in, replies that wait to go out."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.answer cimport answering_forget_glare, answering_free
from interpeer._core.conn cimport Conn, conn_free
from interpeer._core.context cimport context_free, context_init, entropy_take
from interpeer._core.crypto cimport wipe
from interpeer._core.delivery cimport conn_on_acked, conn_on_lost
from interpeer._core.dial cimport Dial, dial_free
from interpeer._core.handshake cimport NodeKeys, reset_token_of
from interpeer._core.links cimport first_link, link_init, link_last, unlink
from interpeer._core.path cimport path_init
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.table cimport table_find, table_free, table_init, table_put, table_remove
from interpeer._core.timers cimport timer_set, timers_free, timers_init
from interpeer._core.wire cimport CID_FLAG, MAX_UDP_PAYLOAD_ACCEPTED, Parameters, read_u64


cdef void registry_init(Registry *r) noexcept nogil:
    memset(r, 0, sizeof(Registry))
    context_init(&r.context)
    timers_init(&r.timers)
    table_init(&r.by_cid, 0)
    table_init(&r.by_token, 0)
    table_init(&r.allowed, 0)
    link_init(&r.dialing, NULL)
    link_init(&r.live, NULL)


cdef void registry_free(Registry *r) noexcept nogil:
    """Release every connection and wipe every key."""
    cdef uint32_t i
    while first_link(&r.dialing) != NULL:
        free_conn(r, <Conn *>first_link(&r.dialing).owner)
    while first_link(&r.live) != NULL:
        free_conn(r, <Conn *>first_link(&r.live).owner)
    for i in range(r.allowed.capacity):
        if r.allowed.keys[i]:       # an empty slot may repeat the value that was moved away from it
            free(r.allowed.values[i])
    table_free(&r.allowed)
    table_free(&r.by_cid)
    table_free(&r.by_token)
    answering_free(&r.answering)
    timers_free(&r.timers)
    context_free(&r.context)
    wipe(&r.keys, sizeof(NodeKeys))


cdef void free_conn(Registry *r, Conn *c) noexcept nogil:
    registry_remove(r, c)
    if c.handle != NULL:
        c.handle.conn = NULL
    dial_free(<Dial *>c.dial)
    r.connections -= 1
    conn_free(c)


# --- connections ---

cdef bint registry_new_cid(Registry *r, uint64_t *cid) noexcept nogil:
    """Draw a connection id that is not in use; False when there are no random bytes left.

    The first byte has its top bit set and otherwise repeats the second, XOR the shard, of which there is one."""
    cdef uint8_t bytes[8]
    if entropy_take(&r.context.entropy, bytes, sizeof(bytes)) != 0:
        return False
    bytes[0] = CID_FLAG | (bytes[1] & 0x7F)
    cid[0] = read_u64(bytes)
    return table_find(&r.by_cid, cid[0]) == NULL


cdef int registry_start_path(Registry *r, Conn *c, const Endpoint *remote, const uint8_t *local,
                             uint64_t local_cid, uint64_t remote_cid) noexcept nogil:
    """Give a connection the path that its handshake has found."""
    if path_init(&c.path, 0, remote, r.context.limits.packet_bytes, r.context.limits.controller, c,
                 conn_on_acked, conn_on_lost) != 0:
        return -1
    memcpy(c.path.local, local, sizeof(c.path.local))
    c.path.local_cid = local_cid
    c.path.remote_cid = remote_cid
    return 0


cdef int registry_add(Registry *r, Conn *c) noexcept nogil:
    """Let packets find a connection by its id, and resets by their token. Return 0, or -1 without memory.

    A call of ours stays with the others that no packet of the peer has confirmed (see find_glare)."""
    if table_put(&r.by_cid, c.path.local_cid, c) != 0:
        return -1
    if c.has_reset_token and table_put(&r.by_token, read_u64(c.reset_token) | 1, c) != 0:
        return -1
    if not c.is_initiator:
        unlink(&c.member)
        link_last(&r.live, &c.member)
    return 0


cdef void registry_remove(Registry *r, Conn *c) noexcept nogil:
    """Let nothing find it any more."""
    cdef Dial *d = <Dial *>c.dial
    if c.in_backlog:
        c.in_backlog = False
        r.backlog -= 1
    if c.path.local_cid and table_find(&r.by_cid, c.path.local_cid) == <void *>c:
        table_remove(&r.by_cid, c.path.local_cid)
    if d != NULL and d.cid and table_find(&r.by_cid, d.cid) == <void *>c:
        table_remove(&r.by_cid, d.cid)
    if c.has_reset_token and table_find(&r.by_token, read_u64(c.reset_token) | 1) == <void *>c:
        table_remove(&r.by_token, read_u64(c.reset_token) | 1)
    timer_set(&r.timers, &c.timer, 0)
    answering_forget_glare(&r.answering, c)


cdef void registry_retire(Registry *r, Conn *c) noexcept nogil:
    """A connection is over: nothing finds it, and it is freed unless the application still holds it."""
    registry_remove(r, c)
    if c.handle == NULL:
        free_conn(r, c)


cdef void registry_parameters(Registry *r, Parameters *out, uint64_t cid) noexcept nogil:
    """Fill in what we tell a peer about us, but for suites and protocol."""
    memset(out, 0, sizeof(Parameters))
    out.max_data = r.context.limits.connection_window
    out.max_stream_data = r.context.limits.stream_window
    out.max_streams = r.context.limits.max_streams
    out.max_datagram = r.context.limits.max_datagram
    out.idle_timeout_ms = r.context.limits.idle_timeout_ns // 1000000
    out.max_ack_delay_us = r.context.limits.max_ack_delay_ns // 1000
    out.max_udp_payload = MAX_UDP_PAYLOAD_ACCEPTED
    out.receive_buffer = r.context.limits.receive_buffer
    out.has_reset_token = r.keys.has_reset_key
    if out.has_reset_token:
        reset_token_of(&r.keys, cid, out.reset_token)


# --- who may come in, and for what ---

cdef uint16_t registry_protocol(const Registry *r, const uint8_t *name, uint32_t n) noexcept nogil:
    """Return the index of a protocol that we offer, or NO_PROTOCOL."""
    cdef uint32_t i
    for i in range(r.protocol_count):
        if r.protocols[i].bytes == n and memcmp(r.protocols[i].name, name, n) == 0:
            return <uint16_t>i
    return NO_PROTOCOL


cdef bint registry_allows(const Registry *r, const uint8_t *identity) noexcept nogil:
    """Tell whether an identity is on the list."""
    cdef void *entry = table_find(&r.allowed, read_u64(identity) | 1)
    return entry != NULL and memcmp(entry, identity, 32) == 0


cdef int registry_allow(Registry *r, const uint8_t *identity) noexcept nogil:
    """Put an identity on the list. Return 0, or -1 without memory."""
    cdef void *entry
    if registry_allows(r, identity):
        return 0
    entry = malloc(32)
    if entry == NULL:
        return -1
    memcpy(entry, identity, 32)
    free(table_remove(&r.allowed, read_u64(identity) | 1))
    if table_put(&r.allowed, read_u64(identity) | 1, entry) != 0:
        free(entry)
        return -1
    return 0


# --- replies ---

cdef Reply *registry_reply(Registry *r, const Datagrams *to) noexcept nogil:
    """Return room for a handshake message to where a datagram came from; NULL when too many wait already."""
    cdef Reply *reply
    if r.reply_count == MAX_REPLIES:
        r.context.counters.dropped_limited += 1
        return NULL
    reply = &r.replies[(r.first_reply + r.reply_count) % MAX_REPLIES]
    r.reply_count += 1
    reply.remote = to.remote
    memcpy(reply.local, to.local, sizeof(reply.local))
    reply.bytes = 0
    return reply


cdef bint rate_has(Rate *rate, double per_second, uint64_t now_ns) noexcept nogil:
    """Tell whether there is a token in a bucket that holds what one second gives; the first second's are there at once."""
    if rate.updated_ns == 0:
        rate.tokens = per_second
    else:
        rate.tokens += (now_ns - rate.updated_ns) / 1e9 * per_second
        if rate.tokens > per_second:
            rate.tokens = per_second
    rate.updated_ns = now_ns
    return rate.tokens >= 1


cdef bint rate_allows(Rate *rate, double per_second, uint64_t now_ns) noexcept nogil:
    """Take a token, if there is one."""
    if not rate_has(rate, per_second, now_ns):
        return False
    rate.tokens -= 1
    return True
