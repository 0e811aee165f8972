"""What an engine holds: its keys, its connections and how to find them, whom it lets in, replies that wait to go out."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.answer cimport answering_forget_glare, answering_free
from interpeer._core.cids cimport LOCAL_LINGERING, LOCAL_SENT, REMOTE_USED, LocalCid, RemoteCid, local_cids_count
from interpeer._core.conn cimport CONN_OPEN, CONN_PENDING_IDS, Conn, conn_free
from interpeer._core.context cimport context_free, context_init, entropy_take
from interpeer._core.crypto cimport MAC_BYTES, equal_secret, wipe
from interpeer._core.dial cimport Dial, dial_free
from interpeer._core.handshake cimport NodeKeys, reset_token_of
from interpeer._core.links cimport first_link, link_init, link_last, unlink
from interpeer._core.path cimport path_is_live
from interpeer._core.paths cimport paths_add, paths_find, paths_live
from interpeer._core.raw cimport raw_free
from interpeer._core.relay cimport relay_find
from interpeer._core.shards cimport POST_FIRST, POST_FULL, shards_connections, shards_post
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.table cimport table_find, table_free, table_init, table_put, table_remove
from interpeer._core.timers cimport timer_set, timers_free, timers_init
from interpeer._core.tunnel cimport tunnels_free
from interpeer._core.wire cimport CID_FLAG, MAX_UDP_PAYLOAD_ACCEPTED, Parameters, read_u64

cdef extern from "platform.h" nogil:
    void atomic_add_long(long *at, long value)
    long atomic_load_long(long *at)
    long atomic_sum_long(long *at, long value)

cdef enum:
    IDS_OF_A_PATH = 2               # one in use and a spare one


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
    raw_free(r.raw)
    free(r.early)
    tunnels_free(r.tunnels)
    context_free(&r.context)
    wipe(&r.keys, sizeof(NodeKeys))


cdef void free_conn(Registry *r, Conn *c) noexcept nogil:
    registry_remove(r, c)
    if c.handle != NULL:
        c.handle.conn = NULL
    dial_free(<Dial *>c.dial)
    registry_count_connection(r, -1)
    conn_free(c)


# --- connections ---

cdef bint registry_new_cid(Registry *r, uint64_t *cid) noexcept nogil:
    """Draw a connection id that is not in use; False when there are no random bytes left.

    The first byte has its top bit set and otherwise repeats the second, XOR the shard."""
    cdef uint8_t bytes[8]
    if entropy_take(&r.context.entropy, bytes, sizeof(bytes)) != 0:
        return False
    bytes[0] = CID_FLAG | ((bytes[1] ^ r.shard) & 0x7F)
    cid[0] = read_u64(bytes)
    return table_find(&r.by_cid, cid[0]) == NULL and relay_find(r.context.relay, cid[0]) == NULL


cdef int registry_start_path(Registry *r, Conn *c, const Endpoint *remote, const uint8_t *local,
                             uint64_t local_cid, uint64_t remote_cid) noexcept nogil:
    """Give a connection the path that its handshake has found."""
    if paths_add(c, 0, remote, local) == NULL:
        return -1
    c.path.remote_cid = remote_cid
    c.first_cid.cid = local_cid
    c.first_cid.conn = c
    c.first_cid.state = LOCAL_SENT
    c.local_cids = &c.first_cid
    return 0


cdef int registry_add(Registry *r, Conn *c) noexcept nogil:
    """Let packets find a connection by its id, and resets by their token. Return 0, or -1 without memory.

    A call of ours stays with the others that no packet of the peer has confirmed (see find_glare)."""
    if table_put(&r.by_cid, c.first_cid.cid, &c.first_cid) != 0:
        return -1
    watch_tokens(r, c)
    if not c.is_initiator:
        unlink(&c.member)
        link_last(&r.live, &c.member)
    return 0


cdef void registry_remove(Registry *r, Conn *c) noexcept nogil:
    """Let nothing find it any more."""
    cdef LocalCid *id
    cdef uint32_t i
    registry_leave_backlog(r, c)
    for i in range(c.remote_cids.capacity):
        unwatch(r, c, &c.remote_cids.entries[i])
    if c.local_cids == NULL:
        unlist(r, &c.first_cid)
    id = c.local_cids
    while id != NULL:
        unlist(r, id)
        id = id.next
    timer_set(&r.timers, &c.timer, 0)
    answering_forget_glare(&r.answering, c)


cdef int registry_list_first_cid(Registry *r, Conn *c, uint64_t cid) noexcept nogil:
    """Let answers to a call find it. Return 0, or -1 without memory."""
    c.first_cid.cid = cid
    c.first_cid.conn = c
    return table_put(&r.by_cid, cid, &c.first_cid)


cdef void unlist(Registry *r, LocalCid *id) noexcept nogil:
    if id.cid and table_find(&r.by_cid, id.cid) == <void *>id:
        table_remove(&r.by_cid, id.cid)


# --- connection ids beside the first (docs/spec, chapter 14) ---

cdef void registry_tend_ids(Registry *r, Conn *c) noexcept nogil:
    """Issue what ids the peer lacks, forget those that it has given up, and watch for resets of those that we use."""
    cdef uint32_t i, side
    c.ids_changed = False
    if c.state != CONN_OPEN:
        return
    watch_tokens(r, c)
    forget_ids(r, c)
    if c.max_paths < 2:
        return
    for i in range(c.path_count):
        while path_is_live(c.paths[i]) and local_cids_count(c.local_cids, c.paths[i].id) < IDS_OF_A_PATH:
            if issue(r, c, c.paths[i].id) != 0:
                return
    for side in range(2):
        if paths_live(c) < c.max_paths and local_cids_count(c.local_cids, c.next_path[side]) == 0 \
                and issue(r, c, c.next_path[side]) != 0:
            return


cdef int issue(Registry *r, Conn *c, uint32_t path) noexcept nogil:
    """Make one more id for a path. Return 0, or -1: later, when there is memory and there are random bytes again."""
    cdef LocalCid *id = <LocalCid *>calloc(1, sizeof(LocalCid))
    cdef LocalCid *other = c.local_cids
    c.ids_changed = True
    if id == NULL or not registry_new_cid(r, &id.cid) or table_put(&r.by_cid, id.cid, id) != 0:
        free(id)
        return -1
    c.ids_changed = False
    id.conn = c
    id.path = path
    while other != NULL:
        if other.path == path and other.sequence >= id.sequence:
            id.sequence = other.sequence + 1
        other = other.next
    if r.keys.has_reset_key:
        reset_token_of(&r.keys, id.cid, id.token)
    id.next = c.local_cids
    c.local_cids = id
    c.pending |= CONN_PENDING_IDS
    return 0


cdef void forget_ids(Registry *r, Conn *c) noexcept nogil:
    """Take away ids of paths that are gone, and all that the peer has given up but the last one of each path."""
    cdef LocalCid **at = &c.local_cids
    cdef LocalCid *id
    while at[0] != NULL:
        id = at[0]
        if not is_gone(c, id):
            at = &id.next
            continue
        at[0] = id.next
        unlist(r, id)
        if id != &c.first_cid:
            free(id)


cdef bint is_gone(const Conn *c, const LocalCid *id) noexcept nogil:
    cdef const LocalCid *other = c.local_cids
    if paths_find(c, id.path) == NULL and id.path < c.next_path[id.path & 1]:
        return True
    while other != NULL:
        if id.state == LOCAL_LINGERING and other.state == LOCAL_LINGERING and other.path == id.path \
                and other.sequence > id.sequence:
            return True
        other = other.next
    return False


cdef void watch_tokens(Registry *r, Conn *c) noexcept nogil:
    cdef RemoteCid *id
    cdef uint32_t i
    for i in range(c.remote_cids.capacity):
        id = &c.remote_cids.entries[i]
        if id.state != REMOTE_USED:
            unwatch(r, c, id)
        elif id.has_token and not id.is_watched:
            id.is_watched = table_put(&r.by_token, read_u64(id.token) | 1, c) == 0


cdef void unwatch(Registry *r, Conn *c, RemoteCid *id) noexcept nogil:
    if id.is_watched and table_find(&r.by_token, read_u64(id.token) | 1) == <void *>c:
        table_remove(&r.by_token, read_u64(id.token) | 1)
    id.is_watched = False


cdef bint registry_is_reset_of(const Conn *c, const uint8_t *token) noexcept nogil:
    """Tell whether this is the token of an id that is used on packets to the peer."""
    cdef bint is_one = False
    cdef uint32_t i
    for i in range(c.remote_cids.capacity):
        if c.remote_cids.entries[i].is_watched:
            is_one |= equal_secret(c.remote_cids.entries[i].token, token, MAC_BYTES)
    return is_one


cdef void registry_retire(Registry *r, Conn *c) noexcept nogil:
    """A connection is over: nothing finds it, and it is freed unless the application still holds it."""
    registry_remove(r, c)
    if c.handle == NULL:
        free_conn(r, c)


# --- how many there may be, in all shards together ---

cdef void registry_count_connection(Registry *r, int change) noexcept nogil:
    """Count a connection that begins (1) or is freed (-1)."""
    r.connections += change
    if r.shards != NULL:
        atomic_add_long(&r.shards.connections[r.shard], change)


cdef bint registry_has_room(Registry *r) noexcept nogil:
    """Tell whether another connection may come in, as things are."""
    cdef long connections = r.connections, backlog = r.backlog
    if r.shards != NULL:
        connections = shards_connections(r.shards)
        backlog = atomic_load_long(&r.shards.backlog)
    return not r.is_closed and backlog < r.max_backlog and connections < <long>r.context.limits.max_connections


cdef bint registry_take_place(Registry *r) noexcept nogil:
    """Take a place in the backlog for a connection that is counted already, if there is one and it is not one too many.

    What another shard counts meanwhile can make both of them too many, but not let both in."""
    cdef long connections = r.connections, backlog = <long>r.backlog + 1
    cdef bint has_place
    if r.shards != NULL:
        backlog = atomic_sum_long(&r.shards.backlog, 1)
        connections = shards_connections(r.shards)
    has_place = not r.is_closed and backlog <= r.max_backlog and connections <= <long>r.context.limits.max_connections
    if has_place:
        r.backlog += 1
    elif r.shards != NULL:
        atomic_add_long(&r.shards.backlog, -1)
    return has_place


cdef void registry_leave_backlog(Registry *r, Conn *c) noexcept nogil:
    """The application has taken a connection, or it has ended; harmless on one that is not in the backlog."""
    if not c.in_backlog:
        return
    c.in_backlog = False
    r.backlog -= 1
    if r.shards != NULL:
        atomic_add_long(&r.shards.backlog, -1)


cdef bint registry_pass(Registry *r, uint32_t to, const Datagrams *from_, uint8_t *data, uint32_t bytes,
                        uint32_t segment, uint32_t seen) noexcept nogil:
    """Pass packets of one message on to another shard. Return whether it will get them."""
    cdef int result = shards_post(r.shards, to, from_, data, bytes, segment, seen)
    cdef uint32_t packets = (bytes + segment - 1) // segment
    if result == POST_FULL:
        r.context.counters.shard_dropped += packets
        return False
    r.context.counters.shard_forwarded += packets
    if result == POST_FIRST:
        r.posted |= <uint32_t>1 << to
    return True


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
    out.max_paths = r.context.limits.max_paths
    out.max_channels = r.context.limits.max_channels
    out.max_message = r.context.limits.max_message
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


cdef double share_of(const Registry *r, double per_second) noexcept nogil:
    """Return this shard's share of what the node may do in a second."""
    return per_second if r.shards == NULL else per_second / r.shards.count


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
