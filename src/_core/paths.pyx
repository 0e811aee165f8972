"""The paths of a connection: opening, proving, preferring and giving up (docs/spec, chapter 14).

Either end may open one: the initiator those with even ids, the responder those with odd ones, so that the two never
meet. A path belongs to the connection ids that were issued for it; where its packets come from may change at any time,
as NATs have it, and is proved anew before anything of use goes there. What a path that fails had on its way is sent
again on another. One machine, one chapter, and so one file.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.cc cimport cc_forgive, cc_init
from interpeer._core.cids cimport (
    CIDS_NO_MEMORY, CIDS_OK, LOCAL_LINGERING, REMOTE_FREE, REMOTE_RETIRING, REMOTE_USED, LocalCid, RemoteCid,
    local_cid_find, remote_cids_add, remote_cids_find, remote_cids_spare)
from interpeer._core.conn cimport (
    CONN_EVENT_IDS, CONN_EVENT_PATH, CONN_OPEN, CONN_PENDING_IDS, CONN_PENDING_PATHS, MAX_PATHS, MAX_PATH_EVENTS,
    PATH_EVENT_ABANDONED, PATH_EVENT_MOVED, PATH_EVENT_OPENED, PATH_EVENT_PREFERRED, PATH_EVENT_PROVEN,
    PATH_EVENT_RECOVERED, PATH_EVENT_RETURNED, PATH_EVENT_SUSPECT, PATH_REASON_CROSSED, PATH_REASON_FASTER, PATH_REASON_KIND,
    PATH_REASON_NONE, PATH_REASON_ONLY, PATH_REASON_PEER, PATH_REASON_RELAY, PATH_REASON_SILENT, PATH_REASON_UNPROVEN,
    Conn, PathEvent, PathEvents, conn_limit_path, conn_notify, conn_report_observed, conn_wake)
from interpeer._core.delivery cimport conn_on_acked, conn_on_lost, conn_probe_again
from interpeer._core.loss cimport (
    recovery_free, recovery_give_up_all, recovery_pto_ns, recovery_restart_rtt, recovery_seed_rtt)
from interpeer._core.path cimport (
    CHALLENGE_TRIES, SUSPECT_PTOS, PATH_ABANDONED, PATH_ACTIVE, PATH_IN_ABANDON, PATH_IN_HEARD, PATH_IN_PROVEN, PATH_IN_SILENT,
    PATH_PENDING_ABANDON, PATH_PENDING_PING, PATH_PENDING_STATUS, PATH_SUSPECT, PATH_VALIDATING, RESPONSE_PROVES,
    RESPONSE_RETURNS, Path, Validation, path_free, path_handle_challenge, path_handle_response, path_init, path_input,
    path_is_from, path_is_live, path_is_proven, path_start_mtu, path_start_validation)
from interpeer._core.relay cimport relay_find
from interpeer._core.slab cimport (
    ENDPOINT_LEG, ENDPOINT_TUNNEL, Datagrams, Endpoint, endpoint_id, endpoint_kind)
from interpeer._core.trace cimport TRACE_PATH, trace_event
from interpeer._core.wire cimport (
    CID_BYTES, CID_FLAG, CODE_CONNECTION_ID, CODE_INTERNAL, CODE_PROTOCOL, FRAME_NEW_CONNECTION_ID,
    FRAME_PATH_CHALLENGE, FRAME_PATH_RESPONSE, FRAME_PATH_STATUS, FRAME_RETIRE_CONNECTION_ID, HEADER_BYTES, Frame,
    read_u64)

cdef enum:
    ABANDONED_PTOS = 3              # how long what is on its way on an abandoned path is still read
    PATHS_AHEAD = 8                 # a peer may have opened some, and given them up, of which we do not know yet
    FASTER_IN_8 = 7                 # a round trip is shorter if it is less than 7/8: paths that are alike do not take turns
    MAX_PATH_ID = 0x7FFFFFFF        # the nonce has 32 bits for it


# --- what there is ---

cdef Path *paths_add(Conn *c, uint32_t id, const Endpoint *remote, const uint8_t *local) noexcept nogil:
    """Add a path whose address counts as proven; NULL without memory, or when there are as many as can be."""
    cdef Path *p
    if c.path_count == MAX_PATHS:
        return NULL
    p = <Path *>calloc(1, sizeof(Path))
    if p == NULL:
        c.context.counters.no_memory += 1
        return NULL
    path_init(p, id, remote, c.context.limits.packet_bytes, c.controller, conn_on_acked, conn_on_lost)
    p.conn = c
    if c.peer_max_udp_payload:      # otherwise it is the first, and the peer's parameters come next
        conn_limit_path(c, p)
    set_local(p, local)
    c.paths[c.path_count] = p
    c.path_count += 1
    if c.path == NULL:
        c.path = p
    return p


cdef void remove_path(Conn *c, uint32_t i) noexcept nogil:
    """Forget a path that was abandoned, and its ids."""
    cdef Path *p = c.paths[i]
    cdef uint32_t j
    for j in range(c.remote_cids.capacity):
        if c.remote_cids.entries[j].path == p.id:
            c.remote_cids.entries[j].state = REMOTE_FREE
    c.ids_changed = True
    c.path_count -= 1
    c.paths[i] = c.paths[c.path_count]
    path_free(p)
    free(p)


cdef Path *paths_find(const Conn *c, uint64_t id) noexcept nogil:
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i].id == id:
            return c.paths[i]
    return NULL


cdef uint32_t paths_live(const Conn *c) noexcept nogil:
    """Return how many are not abandoned."""
    cdef uint32_t i, n = 0
    for i in range(c.path_count):
        n += path_is_live(c.paths[i])
    return n


cdef void paths_notify(Conn *c, const Path *p, int kind, int reason) noexcept nogil:
    """Tell the application; what it has not taken in time is counted."""
    cdef PathEvents *e = c.path_events
    cdef PathEvent *event
    if c.context.trace != NULL:
        trace_event(c.context.trace, c.trace_id, p.id, TRACE_PATH, kind, reason, read_u64(p.remote.address),
                    read_u64(p.remote.address + 8), p.remote.port, 0)
    if e == NULL:
        e = c.path_events = <PathEvents *>calloc(1, sizeof(PathEvents))
        if e == NULL:
            c.context.counters.no_memory += 1
            return
    if e.count == MAX_PATH_EVENTS:
        e.dropped += 1
    else:
        event = &e.events[(e.first + e.count) % MAX_PATH_EVENTS]
        event.path = p.id
        event.kind = kind
        event.reason = reason
        event.remote = p.remote
        e.count += 1
    conn_notify(c, CONN_EVENT_PATH)


# --- opening and giving up ---

cdef int paths_may_open(const Conn *c) noexcept nogil:
    """Tell whether we can open another path now: OPEN_OK, or why not."""
    cdef uint32_t id = c.next_path[0 if c.is_initiator else 1]
    if c.state != CONN_OPEN or not c.is_confirmed:
        return OPEN_NOT_NOW
    if paths_live(c) >= c.max_paths or c.path_count == MAX_PATHS:
        return OPEN_TOO_MANY
    if remote_cids_spare(&c.remote_cids, id) == NULL or local_cid_find(c.local_cids, id, 0) == NULL:
        return OPEN_NO_ID
    return OPEN_OK


cdef int paths_open(Conn *c, const Endpoint *remote, const uint8_t *local, Path **out) noexcept nogil:
    """Start a path to another address of the peer, or from another of ours. Return OPEN_*."""
    cdef int result = paths_may_open(c)
    cdef Path *p
    if result != OPEN_OK:
        return result
    p = begin_path(c, c.next_path[0 if c.is_initiator else 1], remote, local)
    if p == NULL:
        return OPEN_NO_MEMORY
    p.is_opener = True
    out[0] = p
    return OPEN_OK


cdef Path *begin_path(Conn *c, uint32_t id, const Endpoint *remote, const uint8_t *local) noexcept nogil:
    """Add a path that has to be validated, with the peer's first id for it."""
    cdef Path *p = paths_add(c, id, remote, local)
    if p == NULL:
        return NULL
    use_cid(c, p, remote_cids_spare(&c.remote_cids, id))
    if path_start_validation(p) != 0:
        c.context.counters.no_memory += 1
        remove_path(c, c.path_count - 1)
        return NULL
    c.next_path[id & 1] = id + 2
    c.ids_changed = True
    c.context.counters.paths_opened += 1
    paths_notify(c, p, PATH_EVENT_OPENED, PATH_REASON_NONE)
    conn_wake(c)
    return p


cdef Path *paths_accept(Conn *c, uint32_t id, const Datagrams *from_) noexcept nogil:
    """Take a path whose first packet was authentic; NULL: it is gone already, or its peer has to try again."""
    if id < c.next_path[id & 1] or (id & 1) == (0 if c.is_initiator else 1) \
            or remote_cids_spare(&c.remote_cids, id) == NULL:
        return NULL
    if paths_live(c) >= c.max_paths and (c.is_initiator or not give_way(c)):
        return NULL
    return begin_path(c, id, &from_.remote, from_.local)


cdef bint give_way(Conn *c) noexcept nogil:
    """Both ends have opened the last path that there may be, each its own, and would refuse the other's for ever: the
    responder gives up the one that it has opened last, if nothing shows yet that the initiator has taken it."""
    cdef Path *last = NULL
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i].is_opener and c.paths[i].state == PATH_VALIDATING and c.paths[i].packets_received == 0 \
                and (last == NULL or c.paths[i].id > last.id):
            last = c.paths[i]
    if last == NULL or paths_abandon(c, last, PATH_REASON_CROSSED) != 0:
        return False
    c.crossed_path = last.id
    return True


cdef int paths_abandon(Conn *c, Path *p, int reason) noexcept nogil:
    """Give a path up, and send what was on its way on another. Return 0, or -1 when it is the last."""
    if not path_is_live(p):
        return 0
    if paths_live(c) == 1:
        return -1
    path_input(p, PATH_IN_ABANDON)
    p.pto_probes = 0
    p.ack_now = False
    p.ack_deadline_ns = 0
    recovery_free(&p.recovery)
    p.pending = 0
    if reason != PATH_REASON_PEER:
        p.pending = PATH_PENDING_ABANDON
        c.pending |= CONN_PENDING_PATHS
    paths_notify(c, p, PATH_EVENT_ABANDONED, reason)
    paths_prefer(c)
    c.ids_changed = True
    conn_wake(c)
    return 0


# --- which one ---

cdef void paths_set_standby(Conn *c, Path *p, bint is_standby) noexcept nogil:
    """Keep a path for when no other works, or use it again; the peer is asked to do the same."""
    if p.is_standby == is_standby or not path_is_live(p):
        return
    p.is_standby = is_standby
    p.status_sequence += 1
    p.pending |= PATH_PENDING_STATUS
    c.pending |= CONN_PENDING_PATHS
    paths_prefer(c)
    conn_wake(c)


cdef int paths_tier(const Path *p) noexcept nogil:
    """Return how good a path is for data: 0 is best, TIER_UNUSABLE is not at all."""
    cdef int kind, tier = TIER_DIRECT
    if p.state != PATH_ACTIVE and p.state != PATH_SUSPECT:
        return TIER_UNUSABLE if path_is_live(p) else TIER_GONE
    kind = endpoint_kind(p.remote.address)
    if kind == ENDPOINT_LEG:
        if relay_find((<const Conn *>p.conn).context.relay, endpoint_id(p.remote.address)) == NULL:
            return TIER_LEGLESS
        tier = TIER_RELAYED
    elif kind == ENDPOINT_TUNNEL:
        tier = TIER_TUNNEL
    if p.state == PATH_SUSPECT:
        return TIER_SUSPECT
    return tier + (p.is_standby or p.peer_standby)


cdef bint paths_is_faster(const Path *p, const Path *than) noexcept nogil:
    """Tell whether its least round trip is the shorter one; one that is not known is longer than any."""
    cdef uint64_t a = p.recovery.rtt.min_ns, b = than.recovery.rtt.min_ns
    return a != 0 and (b == 0 or a < b // 8 * FASTER_IN_8)


cdef Path *paths_prefer(Conn *c) noexcept nogil:
    """Find the path that what is sent should take; the one it takes stays, if no other is better."""
    cdef Path *best = c.path
    cdef Path *p
    cdef uint32_t i
    cdef int reason = PATH_REASON_ONLY
    for i in range(c.path_count):
        p = c.paths[i]
        if paths_tier(p) < paths_tier(best):
            best = p
            reason = PATH_REASON_ONLY if paths_tier(c.path) >= TIER_SUSPECT else PATH_REASON_KIND
        elif paths_tier(p) == paths_tier(best) and paths_is_faster(p, best):
            best = p
            reason = PATH_REASON_FASTER
    if best != c.path:
        c.path = best
        paths_notify(c, best, PATH_EVENT_PREFERRED, reason)
    return best


cdef void paths_heard(Conn *c, Path *p) noexcept nogil:
    """The peer has acknowledged something on it."""
    if path_input(p, PATH_IN_HEARD):
        paths_notify(c, p, PATH_EVENT_RECOVERED, PATH_REASON_NONE)
    if c.path_count > 1:
        paths_prefer(c)


cdef void paths_silent(Conn *c, Path *p) noexcept nogil:
    """Probes go unanswered: if another path is better, everything on its way goes there, and this one is only probed."""
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i] == p or paths_tier(c.paths[i]) >= TIER_SUSPECT:
            continue
        if path_input(p, PATH_IN_SILENT):
            paths_notify(c, p, PATH_EVENT_SUSPECT, PATH_REASON_SILENT)
            paths_prefer(c)
        elif p.state != PATH_VALIDATING:
            return
        recovery_give_up_all(&p.recovery)
        return


cdef void paths_lose_relay(Conn *c, Path *p) noexcept nogil:
    """The leg that a path needs is gone. If it is the last, the connection waits for another one, until it is idle too long."""
    if paths_abandon(c, p, PATH_REASON_RELAY) != 0 and path_input(p, PATH_IN_SILENT):
        paths_notify(c, p, PATH_EVENT_SUSPECT, PATH_REASON_RELAY)


cdef void paths_nudge(Conn *c, const uint8_t *gone, uint32_t count) noexcept nogil:
    """This machine's addresses, or its way out, have changed: say something on every path at once, so that the peer sees where
    we are now. No path leaves any more from one of `count` addresses of 16 bytes that are gone, and none waits for a time-out
    that has grown while nothing came through."""
    cdef Path *p
    cdef uint32_t i, j
    for i in range(c.path_count):
        p = c.paths[i]
        if not path_is_live(p):
            continue
        for j in range(count):
            if memcmp(p.local, gone + 16 * j, sizeof(p.local)) == 0:
                memset(p.local, 0, sizeof(p.local))
        p.recovery.pto_count = 0
        if path_is_proven(p):
            p.pending |= PATH_PENDING_PING
            c.pending |= CONN_PENDING_PATHS
        elif p.validation.tries < CHALLENGE_TRIES:
            p.validation.next_ns = 0
    conn_wake(c)


# --- where the peer is ---

cdef void paths_give_credit(Path *p, const Endpoint *source, uint32_t bytes) noexcept nogil:
    """Let as much go to an address that has proved nothing as has come from there."""
    if p.validation != NULL and path_is_from(p, source):
        p.validation.credit_bytes += bytes


cdef void paths_follow(Conn *c, Path *p, const Datagrams *from_, uint32_t bytes, uint64_t now_ns) noexcept nogil:
    """The newest packet of a path was authentic: follow it to where it came from (RFC 9000, 9.3)."""
    cdef Validation *v = p.validation
    if memcmp(p.local, from_.local, sizeof(p.local)) != 0 and path_is_from(p, &from_.remote):
        if is_known(p.last_local) and is_known(from_.local) and memcmp(p.last_local, from_.local, sizeof(p.last_local)) != 0:
            paths_rotate_cid(c, p)      # it comes to another address of ours: who watches shall not see that it is us
            start_anew(c, p, now_ns)
        set_local(p, from_.local)
    if path_is_from(p, &from_.remote) or not path_is_live(p):
        return
    if v != NULL and v.has_previous and memcmp(&v.previous, &from_.remote, sizeof(Endpoint)) == 0:
        return_to_previous(c, p)
        return
    move(c, p, from_, bytes)


cdef void set_local(Path *p, const uint8_t *local) noexcept nogil:
    memcpy(p.local, local, sizeof(p.local))
    if is_known(local):
        memcpy(p.last_local, local, sizeof(p.last_local))


cdef void start_anew(Conn *c, Path *p, uint64_t now_ns) noexcept nogil:
    """One end is another host now, or in another network: what was found out about the way between them holds no longer."""
    path_start_mtu(p, c.context.limits.packet_bytes)
    p.mtu.mark = p.recovery.next        # what is lost of the packets on their way tells nothing of their size
    conn_limit_path(c, p)
    cc_init(&p.cc, c.controller, p.packet_bytes)
    cc_forgive(&p.cc, now_ns)
    recovery_restart_rtt(&p.recovery, now_ns)


cdef bint is_known(const uint8_t *address) noexcept nogil:
    cdef int i
    for i in range(16):
        if address[i]:
            return True
    return False


cdef void move(Conn *c, Path *p, const Datagrams *from_, uint32_t bytes) noexcept nogil:
    """Have the new address proved. Until then nothing of use goes to either: the old one is most likely gone."""
    cdef bint was_proven = path_is_proven(p)
    cdef Endpoint before = p.remote
    cdef uint8_t local[16]
    memcpy(local, p.local, sizeof(local))
    if not was_proven and p.validation.has_previous:
        was_proven = True           # the address before the one that has never been proven
        before = p.validation.previous
        memcpy(local, p.validation.previous_local, sizeof(local))
    if path_start_validation(p) != 0:
        c.context.counters.no_memory += 1
        return
    p.remote = from_.remote
    set_local(p, from_.local)
    p.validation.credit_bytes = bytes
    p.validation.has_previous = was_proven
    p.validation.previous = before
    memcpy(p.validation.previous_local, local, sizeof(local))
    c.context.counters.paths_moved += 1
    paths_notify(c, p, PATH_EVENT_MOVED, PATH_REASON_PEER)
    paths_prefer(c)
    conn_wake(c)


cdef void return_to_previous(Conn *c, Path *p) noexcept nogil:
    """The peer is where it was: what came from elsewhere was somebody else's copy, or a NAT that has changed its mind."""
    p.remote = p.validation.previous
    set_local(p, p.validation.previous_local)
    path_input(p, PATH_IN_PROVEN)
    paths_notify(c, p, PATH_EVENT_RETURNED, PATH_REASON_PEER)
    paths_prefer(c)
    conn_wake(c)


cdef void prove(Conn *c, Path *p, const uint8_t *data, uint64_t now_ns) noexcept nogil:
    """Take an answer to a challenge."""
    cdef bint was_moved = False, is_elsewhere = True
    cdef uint64_t asked_ns = 0
    cdef int result, tries = 0
    if p.validation != NULL:
        asked_ns = p.validation.sent_ns
        tries = p.validation.tries
        was_moved = p.validation.has_previous
        is_elsewhere = memcmp(p.validation.previous.address, p.remote.address, sizeof(p.remote.address)) != 0
    result = path_handle_response(p, data)
    if result == RESPONSE_RETURNS:
        return_to_previous(c, p)
    if result != RESPONSE_PROVES:
        return
    if was_moved:
        # what was lost on the way to the old address tells nothing about the new one (RFC 9000, 9.4)
        if is_elsewhere:
            start_anew(c, p, now_ns)
        cc_forgive(&p.cc, now_ns)
        conn_probe_again(c, p)
    if p.recovery.rtt.min_ns == 0 and tries == 1:
        recovery_seed_rtt(&p.recovery, now_ns - asked_ns)
    if p.status_sequence and not was_moved:
        p.pending |= PATH_PENDING_STATUS    # what was said before the peer knew the path had no effect
        c.pending |= CONN_PENDING_PATHS
    conn_report_observed(c, p)
    paths_notify(c, p, PATH_EVENT_PROVEN, PATH_REASON_NONE)
    paths_prefer(c)
    relieve(c, p)
    conn_wake(c)


cdef void relieve(Conn *c, const Path *p) noexcept nogil:
    """What was silent while there was no other path need not run into its next time-out now that there is one."""
    cdef uint32_t i
    for i in range(c.path_count):
        if c.paths[i] == p or not path_is_live(c.paths[i]):
            continue
        if paths_tier(c.paths[i]) == TIER_LEGLESS:
            paths_abandon(c, c.paths[i], PATH_REASON_RELAY)
        elif c.paths[i].recovery.pto_count >= SUSPECT_PTOS:
            paths_silent(c, c.paths[i])


# --- connection ids ---

cdef void use_cid(Conn *c, Path *p, RemoteCid *id) noexcept nogil:
    id.state = REMOTE_USED
    p.remote_cid = id.cid
    p.remote_sequence = id.sequence
    c.ids_changed = True


cdef void paths_rotate_cid(Conn *c, Path *p) noexcept nogil:
    """Use another id of the peer's, if there is one, and give the present one up: who watches cannot follow."""
    cdef RemoteCid *spare = remote_cids_spare(&c.remote_cids, p.id)
    cdef RemoteCid *present = remote_cids_find(&c.remote_cids, p.id, p.remote_sequence)
    if spare == NULL or present == NULL:
        return
    present.state = REMOTE_RETIRING
    c.pending |= CONN_PENDING_IDS
    use_cid(c, p, spare)
    conn_wake(c)


# --- frames ---

cdef uint64_t paths_handle_frame(Conn *c, Path *p, const Frame *f, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """Take a frame that concerns paths and has come on path `p`. Return 0, or the code of the rule that it breaks."""
    if f.type == FRAME_PATH_CHALLENGE:
        path_handle_challenge(p, f.data, &from_.remote, from_.local)
        return 0
    if f.type == FRAME_PATH_RESPONSE:
        prove(c, p, f.data, now_ns)
        return 0
    if c.max_paths < 2 or f.path > MAX_PATH_ID:
        return CODE_PROTOCOL        # it was told that we have one path
    if f.type == FRAME_NEW_CONNECTION_ID:
        return handle_new_cid(c, f)
    if f.type == FRAME_RETIRE_CONNECTION_ID:
        return handle_retire_cid(c, f)
    if f.type == FRAME_PATH_STATUS:
        return handle_status(c, f)
    return handle_abandon(c, f)


cdef bint was_opened(const Conn *c, uint64_t id) noexcept nogil:
    return id < c.next_path[id & 1]


cdef uint64_t handle_new_cid(Conn *c, const Frame *f) noexcept nogil:
    cdef Path *p = paths_find(c, f.path)
    cdef int result
    if not f.data[0] & CID_FLAG or f.id > <uint64_t>0xFFFFFFFF or f.path >= c.next_path[f.path & 1] + 2 * PATHS_AHEAD:
        return CODE_CONNECTION_ID
    if p == NULL and was_opened(c, f.path):
        return 0                    # it is gone
    if p != NULL and (f.id < p.remote_sequence or not path_is_live(p)):
        return 0                    # it comes again, and was used up meanwhile
    result = remote_cids_add(&c.remote_cids, <uint32_t>f.path, <uint32_t>f.id, read_u64(f.data), f.data + CID_BYTES)
    if result == CIDS_OK:
        conn_notify(c, CONN_EVENT_IDS)
        return 0
    return CODE_INTERNAL if result == CIDS_NO_MEMORY else CODE_CONNECTION_ID


cdef uint64_t handle_retire_cid(Conn *c, const Frame *f) noexcept nogil:
    """The peer gives one of our ids up; one of its path that it gave up earlier is forgotten, and another is issued."""
    cdef LocalCid *id = c.local_cids
    cdef bint is_known = False
    while id != NULL:
        is_known |= id.path == f.path and id.sequence >= f.id
        if id.path == f.path and id.sequence == f.id:
            id.state = LOCAL_LINGERING
            c.ids_changed = True
        id = id.next
    return 0 if is_known or was_opened(c, f.path) and paths_find(c, f.path) == NULL else CODE_CONNECTION_ID


cdef uint64_t handle_status(Conn *c, const Frame *f) noexcept nogil:
    cdef Path *p = paths_find(c, f.path)
    if p == NULL:
        return 0 if f.path < c.next_path[f.path & 1] + 2 * PATHS_AHEAD else CODE_PROTOCOL
    if f.id >= p.peer_status_sequence and f.id < <uint64_t>0xFFFFFFFF:
        p.peer_status_sequence = <uint32_t>f.id + 1
        p.peer_standby = f.value == 0
        paths_prefer(c)
    return 0


cdef uint64_t handle_abandon(Conn *c, const Frame *f) noexcept nogil:
    cdef Path *p = paths_find(c, f.path)
    if p == NULL:
        return skip_path(c, <uint32_t>f.path)
    return 0 if paths_abandon(c, p, PATH_REASON_PEER) == 0 else CODE_PROTOCOL


cdef uint64_t skip_path(Conn *c, uint32_t id) noexcept nogil:
    """The peer has given up a path of which we know nothing (any more): nothing of it came through, or there was no room."""
    cdef uint32_t i
    if was_opened(c, id):
        return 0
    if (id & 1) == (0 if c.is_initiator else 1) or id >= c.next_path[id & 1] + 2 * PATHS_AHEAD:
        return CODE_PROTOCOL
    c.next_path[id & 1] = id + 2
    for i in range(c.remote_cids.capacity):
        if c.remote_cids.entries[i].path & 1 == id & 1 and c.remote_cids.entries[i].path <= id \
                and paths_find(c, c.remote_cids.entries[i].path) == NULL:
            c.remote_cids.entries[i].state = REMOTE_FREE
    c.ids_changed = True
    return 0


# --- time ---

cdef bint may_challenge(const Conn *c, const Path *p) noexcept nogil:
    """Tell whether there is credit for another challenge: to an address that we have chosen there is."""
    return p.is_opener and not p.validation.has_previous \
        or p.validation.credit_bytes >= <uint64_t>HEADER_BYTES + 1 + 8 + c.send.aead.tag_bytes


cdef uint64_t paths_deadline_ns(const Conn *c) noexcept nogil:
    """Return when paths_handle_timeout is due; 0: never."""
    cdef const Path *p
    cdef uint64_t deadline = 0, at
    cdef uint32_t i
    for i in range(c.path_count):
        p = c.paths[i]
        at = 0
        if p.state == PATH_ABANDONED:
            at = p.until_ns
        elif p.state == PATH_VALIDATING and p.validation.tries and (c.path_count > 1 or may_challenge(c, p)
                                                                    or p.validation.has_previous):
            at = p.validation.next_ns
        elif p.state == PATH_SUSPECT:
            at = p.last_received_ns + PATH_SILENCE_NS
        if at and (deadline == 0 or at < deadline):
            deadline = at
    return deadline


cdef void paths_handle_timeout(Conn *c, uint64_t now_ns) noexcept nogil:
    """End validations that came to nothing, and give up what has been silent too long."""
    cdef Path *p
    cdef uint32_t i
    for i in range(c.path_count):
        p = c.paths[i]
        if p.state == PATH_VALIDATING and p.validation.tries >= CHALLENGE_TRIES and p.validation.next_ns <= now_ns:
            if p.validation.has_previous:
                return_to_previous(c, p)
            elif paths_abandon(c, p, PATH_REASON_UNPROVEN) != 0:
                p.validation.next_ns = now_ns + 2 * recovery_pto_ns(&p.recovery, c.peer_ack_delay_ns)
        elif p.state == PATH_SUSPECT and p.last_received_ns + PATH_SILENCE_NS <= now_ns:
            if paths_abandon(c, p, PATH_REASON_SILENT) != 0:
                path_input(p, PATH_IN_HEARD)    # it is the last: there is nothing to prefer


cdef uint64_t paths_longest_pto_ns(const Conn *c) noexcept nogil:
    """Return the probe time-out of the slowest path."""
    cdef uint64_t longest = 0, of_path
    cdef uint32_t i
    for i in range(c.path_count):
        of_path = recovery_pto_ns(&c.paths[i].recovery, c.peer_ack_delay_ns)
        if of_path > longest:
            longest = of_path
    return longest


cdef void paths_tidy(Conn *c, uint64_t now_ns) noexcept nogil:
    """Forget abandoned paths whose packets must have arrived by now; the peer has to know of their end before."""
    cdef Path *p
    cdef uint32_t i = 0
    while i < c.path_count:
        p = c.paths[i]
        if p.state == PATH_ABANDONED and p.until_ns == 0:
            # the initiator refuses one that has crossed its own: nothing is on its way there
            p.until_ns = now_ns
            if p.id != c.crossed_path:
                p.until_ns += ABANDONED_PTOS * paths_longest_pto_ns(c)
        elif p.state == PATH_ABANDONED and p.until_ns <= now_ns and not p.pending and not p.awaits_abandon_ack:
            remove_path(c, i)
            continue
        elif p.state == PATH_ABANDONED and p.until_ns <= now_ns:
            p.until_ns = now_ns + recovery_pto_ns(&c.path.recovery, c.peer_ack_delay_ns)
        i += 1
