"""Where strangers arrive: first messages and their answers, confirmations, glare, and packets that belong to nobody.

The order is the defence: length, version, mac1, the table of what is already answered, the load, and only then
Diffie-Hellman. Nothing changes state before the initiator's first transport packet, and no reply is larger than what
caused it (docs/spec, chapter 4).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.answer cimport (
    HALF_ANSWERED, HALF_ASKING, HALF_OPEN_NS, HalfOpen, answering_admits, answering_has_seen, answering_is_loaded,
    half_open_add, half_open_answer, half_open_ask, half_open_find_id, half_open_find_init, half_open_parameters,
    half_open_remove, half_open_resume)
from interpeer._core.calling cimport calling_handle_cookie, calling_handle_response
from interpeer._core.cids cimport LocalCid
from interpeer._core.conn cimport (
    CLOSED_BY_RESET, CLOSED_LOCALLY, CLOSED_UNREACHABLE, CONN_DIALING, CONN_IN_ANSWERED, CONN_IN_CLOSE,
    CONN_IN_FAILED, CONN_IN_RESET, CONN_OPEN, Conn, conn_close_info, conn_free, conn_input, conn_new, conn_start,
    conn_wake)
from interpeer._core.context cimport entropy_take
from interpeer._core.crypto cimport KEY_BYTES, MAC_BYTES, XNONCE_BYTES, wipe
from interpeer._core.dial cimport Candidate, Dial, dial_add_caller, dial_handle_versions, dial_hold
from interpeer._core.handshake cimport (
    HANDSHAKE_IDENTITY, HANDSHAKE_OK, HANDSHAKE_OPEN, HANDSHAKE_PARAMETER, InitMessage, init_has_mac1, init_has_mac2,
    read_init, reset_token_of, rotate_cookie_secret, write_cookie_reply, write_response, write_versions_reply)
from interpeer._core.ingress cimport conn_handle_packet
from interpeer._core.links cimport Link, link_last, unlink
from interpeer._core.loss cimport recovery_seed_rtt
from interpeer._core.noise cimport Noise
from interpeer._core.path cimport path_doubt, path_is_from
from interpeer._core.paths cimport paths_give_credit
from interpeer._core.registry cimport (
    ALLOW_ASK, ALLOW_LISTED, MAX_ASKS, NO_PROTOCOL, Registry, Reply, rate_allows, rate_has, registry_add,
    registry_allows, registry_count_connection, registry_has_room, registry_is_reset_of, registry_new_cid,
    registry_parameters, registry_pass, registry_protocol, registry_remove, registry_reply, registry_start_path,
    registry_take_place, share_of)
from interpeer._core.shards cimport shards_note_answer
from interpeer._core.slab cimport Datagrams, Endpoint
from interpeer._core.table cimport table_find
from interpeer._core.tracing cimport tracing_secrets
from interpeer._core.wire cimport (
    CID_FLAG, CODE_BUSY, CODE_NO_SUITE, CODE_PARAMETER, CODE_REFUSED, CODE_UNKNOWN_PROTOCOL, INIT_BYTES,
    MESSAGE_COOKIE, MESSAGE_INIT, MESSAGE_RESPONSE, MESSAGE_VERSIONS, RESET_BYTES, VERSION, Parameters, read_u64)

cdef enum:
    WASTED_PER_SECOND = 100         # inits that come to nothing; when more do, strangers need a cookie
    STRAYS_PER_SECOND = 10000       # packets of unknown connections passed on to the next shard
    LEAST_VERSIONED_BYTES = 64      # an init of another version: room for its macs, and no smaller than our reply


cdef void reception_handle_message(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                   uint64_t now_ns) noexcept nogil:
    """Take a handshake message; `n` is at least MESSAGE_HEADER_BYTES."""
    cdef LocalCid *id
    cdef Conn *c
    if p[0] == MESSAGE_INIT:
        if p[1] != VERSION:
            handle_other_version(r, p, n, from_, now_ns)
        else:
            handle_init(r, p, n, from_, now_ns)
        return
    id = <LocalCid *>table_find(&r.by_cid, read_u64(p + 2))
    c = <Conn *>id.conn if id != NULL else NULL
    if c == NULL or c.state != CONN_DIALING:
        r.context.counters.dropped_unknown += 1
    elif p[0] == MESSAGE_RESPONSE:
        calling_handle_response(r, c, p, n, from_, now_ns)
    elif p[0] == MESSAGE_COOKIE:
        calling_handle_cookie(r, c, p, n, from_, now_ns)
    elif p[0] == MESSAGE_VERSIONS:
        if dial_handle_versions(<Dial *>c.dial, p, n, now_ns) != HANDSHAKE_OK:
            r.context.counters.dropped_handshake += 1
    else:
        r.context.counters.dropped_short += 1


# --- the responder ---

cdef inline void end_reply(Reply *reply, Py_ssize_t bytes) noexcept nogil:
    """Say how much was written; an empty message, if it could not be, is not sent."""
    reply.bytes = <uint16_t>(bytes if bytes > 0 else 0)


cdef void handle_other_version(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_,
                               uint64_t now_ns) noexcept nogil:
    """Tell who speaks another version, and knows our key and network, which ones we speak."""
    cdef uint8_t nonce[24]
    cdef Reply *reply
    if n < LEAST_VERSIONED_BYTES or not init_has_mac1(&r.keys, p, n):
        r.context.counters.dropped_mac += 1
        return
    if not rate_allows(&r.versions, share_of(r, VERSIONS_PER_SECOND), now_ns) \
            or entropy_take(&r.context.entropy, nonce, XNONCE_BYTES) != 0:
        r.context.counters.dropped_limited += 1
        return
    reply = registry_reply(r, from_)
    if reply != NULL:
        end_reply(reply, write_versions_reply(&r.keys, reply.data, p, n, nonce))
        r.context.counters.versions_sent += 1


cdef void handle_init(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    cdef InitMessage init
    cdef HalfOpen *h
    cdef uint64_t mac1
    cdef int result
    if n != INIT_BYTES or not p[2] & CID_FLAG:
        r.context.counters.dropped_short += 1
        return
    if not init_has_mac1(&r.keys, p, n):
        r.context.counters.dropped_mac += 1
        return
    mac1 = read_u64(p + INIT_BYTES - 2 * MAC_BYTES)
    h = half_open_find_init(&r.answering, mac1)
    if h != NULL:
        repeat_response(r, h, from_, now_ns)
        return
    if (answering_is_loaded(&r.answering) or not rate_has(&r.wasted, share_of(r, WASTED_PER_SECOND), now_ns)) \
            and not r.seen and not admit_under_load(r, p, mac1, from_, now_ns):
        return
    result = read_init(&r.keys, p, &init)
    if result == HANDSHAKE_OPEN:
        r.context.counters.dropped_handshake += 1
    elif result == HANDSHAKE_IDENTITY:
        r.context.counters.dropped_identity += 1
    elif r.shards == NULL or not is_expected_elsewhere(r, &init, result, p, from_, now_ns):
        consider(r, &init, result, from_, mac1, now_ns)
    wipe(&init, sizeof(InitMessage))
    if half_open_find_init(&r.answering, mac1) == NULL:
        rate_allows(&r.wasted, share_of(r, WASTED_PER_SECOND), now_ns)


cdef bint is_expected_elsewhere(Registry *r, const InitMessage *init, int result, const uint8_t *p,
                                const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """Pass the init of a peer on that another shard is calling, so that the two calls become one session (glare)."""
    cdef uint16_t protocol = NO_PROTOCOL
    cdef uint32_t seen = r.seen | <uint32_t>1 << r.shard
    cdef int to
    if result == HANDSHAKE_OK:
        protocol = registry_protocol(r, init.parameters.protocol, init.parameters.protocol_bytes)
    if protocol == NO_PROTOCOL or find_glare(r, init.noise.remote_static, protocol, now_ns) != NULL:
        return False
    to = shards_note_answer(r.shards, r.shard, init.noise.remote_static, protocol, seen, now_ns, now_ns + HALF_OPEN_NS)
    return to >= 0 and registry_pass(r, to, from_, <uint8_t *>p, INIT_BYTES, INIT_BYTES, seen)


cdef bint admit_under_load(Registry *r, const uint8_t *init, uint64_t mac1, const Datagrams *from_,
                           uint64_t now_ns) noexcept nogil:
    """Ask for a cookie; who has one, let in at the rate of its prefix.

    In a flood a stranger is asked when it repeats its init, as honest ones do and forged sources do not: to answer costs
    four times as much as to look, and the time is that of the connections there are."""
    cdef uint8_t fresh[32]
    cdef uint8_t nonce[24]
    cdef Reply *reply
    if r.context.entropy.left < KEY_BYTES + XNONCE_BYTES:
        r.context.counters.dropped_limited += 1
        return False
    if init_has_mac2(&r.keys, init, &from_.remote, now_ns):
        if answering_admits(&r.answering, &r.keys, &from_.remote, now_ns):
            return True
        r.context.counters.dropped_limited += 1
        return False
    if not rate_allows(&r.cookies, share_of(r, COOKIES_PER_SECOND), now_ns) \
            and not answering_has_seen(&r.answering, &r.keys, &from_.remote, mac1):
        r.context.counters.dropped_limited += 1
        return False
    entropy_take(&r.context.entropy, nonce, XNONCE_BYTES)
    entropy_take(&r.context.entropy, fresh, KEY_BYTES)
    rotate_cookie_secret(&r.keys, fresh, now_ns)
    reply = registry_reply(r, from_)
    if reply != NULL:
        end_reply(reply, write_cookie_reply(&r.keys, reply.data, init, &from_.remote, nonce))
        r.context.counters.cookies_sent += 1
    return False


cdef void consider(Registry *r, InitMessage *init, int result, const Datagrams *from_, uint64_t mac1,
                   uint64_t now_ns) noexcept nogil:
    """Decide on an init that is authentic: glare, protocol, policy, room. Then answer, ask, or refuse."""
    cdef Parameters *theirs = &init.parameters
    cdef uint16_t protocol = registry_protocol(r, theirs.protocol, theirs.protocol_bytes)
    cdef Conn *own = NULL
    cdef HalfOpen *h
    if result == HANDSHAKE_PARAMETER:
        refuse(r, init, from_, CODE_PARAMETER, NULL, 0)
        return
    if protocol == NO_PROTOCOL:
        refuse(r, init, from_, CODE_UNKNOWN_PROTOCOL, theirs.protocol, theirs.protocol_bytes)
        return
    own = find_glare(r, init.noise.remote_static, protocol, now_ns)
    if own != NULL and own.state == CONN_OPEN:
        insist(own, from_)
        return
    if own != NULL and own_call_wins(r, own):
        retarget(r, own, from_)
        return
    if own == NULL and not is_listed(r, init.identity):
        refuse(r, init, from_, CODE_REFUSED, NULL, 0)
        return
    if own == NULL and not registry_has_room(r):
        refuse(r, init, from_, CODE_BUSY, NULL, 0)
        return
    if choose_suite(r, theirs) == 0:
        refuse(r, init, from_, CODE_NO_SUITE, NULL, 0)
        return
    h = half_open_add(&r.answering, init, from_, mac1, now_ns)
    if h == NULL:
        r.context.counters.dropped_limited += 1     # the initiator comes again, and there is room as soon as others are through
        return
    h.protocol = protocol
    h.suite = choose_suite(r, theirs)
    if own != NULL:
        h.glare = own
        h.was_unasked = True
        dial_hold(<Dial *>own.dial, now_ns)
    if r.policy == ALLOW_ASK and own == NULL:
        if r.ask_count == MAX_ASKS:
            r.context.counters.dropped_limited += 1
            half_open_remove(&r.answering, h)
            return
        half_open_ask(h, init)
        r.asks[r.ask_count].id = h.id
        r.asks[r.ask_count].protocol = protocol
        memcpy(r.asks[r.ask_count].identity, init.identity, KEY_BYTES)
        r.ask_count += 1
        return
    answer(r, h, &init.noise, now_ns)


cdef bint is_listed(const Registry *r, const uint8_t *identity) noexcept nogil:
    return r.policy != ALLOW_LISTED or registry_allows(r, identity)


cdef uint8_t choose_suite(const Registry *r, const Parameters *theirs) noexcept nogil:
    """Return the first suite in the initiator's order that we accept too; 0: none."""
    cdef size_t i, j
    for i in range(sizeof(theirs.suites)):
        for j in range(sizeof(r.suites)):
            if theirs.suites[i] and theirs.suites[i] == r.suites[j]:
                return r.suites[j]
    return 0


cdef void answer(Registry *r, HalfOpen *h, Noise *noise, uint64_t now_ns) noexcept nogil:
    """Write the response and send it; without random bytes, forget the init, which will come again."""
    cdef Parameters ours
    cdef uint8_t ephemeral[32]
    cdef uint64_t cid
    cdef bint is_written = False
    if registry_new_cid(r, &cid) and entropy_take(&r.context.entropy, ephemeral, KEY_BYTES) == 0:
        registry_parameters(r, &ours, cid)
        ours.suites[0] = h.suite
        ours.connection_id = cid
        is_written = half_open_answer(&r.answering, h, &r.keys, noise, &ours, ephemeral, now_ns) == 0
        wipe(ephemeral, KEY_BYTES)
    if not is_written:
        half_open_remove(&r.answering, h)
        return
    send_response(r, h, &h.remote, h.local)


cdef void send_response(Registry *r, HalfOpen *h, const Endpoint *remote, const uint8_t *local) noexcept nogil:
    cdef Datagrams to
    cdef Reply *reply
    to.remote = remote[0]
    memcpy(to.local, local, sizeof(to.local))
    reply = registry_reply(r, &to)
    if reply != NULL:
        memcpy(reply.data, h.material, h.response_bytes)
        reply.bytes = h.response_bytes


cdef void repeat_response(Registry *r, HalfOpen *h, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """The same init again: the response was lost, or it came another way. Answer to where it came from, unless our own call
    has been answered meanwhile: then that is the session, and another response would make it two.

    However often: if there were a limit, whoever sees an init could use it up before its owner has had an answer."""
    cdef Conn *own = <Conn *>h.glare
    if own != NULL and own.state == CONN_OPEN and may_be_unknown(own, now_ns):
        insist(own, from_)
    elif h.state == HALF_ANSWERED:
        h.answered_ns = now_ns
        h.was_repeated = True
        if memcmp(&from_.remote, &h.remote, sizeof(Endpoint)) != 0:
            h.is_answered_elsewhere = True
        send_response(r, h, &from_.remote, from_.local)
    else:
        r.context.counters.dropped_limited += 1


cdef void refuse(Registry *r, InitMessage *init, const Datagrams *from_, uint64_t code, const uint8_t *reason,
                 uint32_t reason_bytes) noexcept nogil:
    """Say no in a response that only the initiator can read, and keep nothing."""
    cdef Parameters no
    cdef uint8_t ephemeral[32]
    cdef Reply *reply
    if entropy_take(&r.context.entropy, ephemeral, KEY_BYTES) != 0:
        r.context.counters.dropped_limited += 1
        return
    memset(&no, 0, sizeof(Parameters))
    no.refusal = code
    no.reason = reason
    no.reason_bytes = reason_bytes
    reply = registry_reply(r, from_)
    if reply == NULL:
        return
    end_reply(reply, write_response(&r.keys, &init.noise, reply.data, init.remote_cid, &no, ephemeral))
    r.context.counters.refusals_sent += 1


cdef void reception_decide(Registry *r, uint32_t id, bint is_welcome, uint64_t now_ns) noexcept nogil:
    """Take the application's answer to a question; one that came too late is ignored."""
    cdef HalfOpen *h = half_open_find_id(&r.answering, id)
    cdef InitMessage init
    cdef Datagrams from_
    if h == NULL or h.state != HALF_ASKING:
        return
    memset(&init, 0, sizeof(InitMessage))
    half_open_resume(h, &r.keys, &init.noise)
    if is_welcome:
        answer(r, h, &init.noise, now_ns)
    else:
        init.remote_cid = h.remote_cid
        from_.remote = h.remote
        memcpy(from_.local, h.local, sizeof(from_.local))
        refuse(r, &init, &from_, CODE_REFUSED, NULL, 0)
        half_open_remove(&r.answering, h)
    wipe(&init, sizeof(InitMessage))


cdef Conn *reception_handle_first_packet(Registry *r, HalfOpen *h, uint8_t *p, uint32_t n, const Datagrams *from_,
                                         uint64_t now_ns) noexcept nogil:
    """The packet that may confirm an answered init: if it is authentic, there is a connection. Return it, or NULL."""
    cdef Conn *c = conn_new(&r.context)
    cdef Conn *own = <Conn *>h.glare
    cdef bint is_welcome = not h.was_unasked or (r.policy != ALLOW_ASK and is_listed(r, h.identity))
    cdef Parameters theirs
    if c == NULL:
        return NULL
    half_open_parameters(h, &theirs)
    memcpy(c.peer_identity, h.identity, KEY_BYTES)
    memcpy(c.peer_key, h.peer_key, KEY_BYTES)
    c.protocol = h.protocol
    if own != NULL:
        c.controller = own.controller
    if registry_start_path(r, c, &from_.remote, from_.local, h.local_cid, h.remote_cid) != 0 \
            or conn_start(c, h.suite, h.send_secret, h.recv_secret, &theirs, now_ns) != 0:
        conn_free(c)
        return NULL
    # the initiator has the response: if it went nowhere else, the initiator is there
    if (h.is_answered_elsewhere or not path_is_from(c.path, &h.remote)) and path_doubt(c.path, n) != 0:
        conn_free(c)
        return NULL
    if not h.was_repeated:
        recovery_seed_rtt(&c.path.recovery, now_ns - h.answered_ns)
    conn_input(c, CONN_IN_ANSWERED)
    registry_count_connection(r, 1)     # before the packet is read: what it says may close it again
    if conn_handle_packet(c, 0, p, n, from_, now_ns) != 0 or registry_add(r, c) != 0:
        registry_remove(r, c)
        registry_count_connection(r, -1)
        conn_free(c)
        return NULL
    r.context.counters.connections_accepted += 1
    if r.context.trace != NULL:
        tracing_secrets(c, h.send_secret, h.recv_secret)
    half_open_remove(&r.answering, h)
    if own != NULL and own.state == CONN_DIALING:
        take_over(r, own, c)
    elif not is_welcome:
        turn_away(c, CODE_REFUSED)
    elif not registry_take_place(r):    # there was one at its init, but others have come meanwhile
        turn_away(c, CODE_BUSY)
    else:
        c.in_backlog = True
    return c


# --- glare (docs/spec, chapter 4) ---

cdef bint may_be_unknown(const Conn *own, uint64_t now_ns) noexcept nogil:
    """Tell whether the peer may not know yet that our call is answered.

    After HALF_OPEN_NS it has forgotten the call, so one that it has not confirmed by then is dead."""
    return not own.is_confirmed and (own.state == CONN_DIALING or now_ns - own.last_received_ns < HALF_OPEN_NS)


cdef Conn *find_glare(Registry *r, const uint8_t *peer_key, uint16_t protocol, uint64_t now_ns) noexcept nogil:
    """Find a call of our own to the same peer for the same protocol that the peer may not know to be answered yet."""
    cdef Link *link = r.dialing.next
    cdef Link *following
    cdef Conn *c
    while link != &r.dialing:
        c = <Conn *>link.owner
        following = link.next
        if c.is_confirmed or c.state > CONN_OPEN:
            unlink(link)
            link_last(&r.live, link)
        elif c.protocol == protocol and memcmp(c.peer_key, peer_key, KEY_BYTES) == 0 and may_be_unknown(c, now_ns):
            return c
        link = following
    return NULL


cdef bint own_call_wins(const Registry *r, const Conn *own) noexcept nogil:
    """The handshake of the lower key wins."""
    return memcmp(r.keys.public_key, own.peer_key, KEY_BYTES) < 0


cdef void insist(Conn *own, const Datagrams *from_) noexcept nogil:
    """The peer has answered our call, and calls all the same: our packet that confirms the answer has not come yet."""
    paths_give_credit(own.path, &from_.remote, INIT_BYTES)
    if own.path.pto_probes == 0:
        own.path.pto_probes = 1
    conn_wake(own)


cdef void turn_away(Conn *c, uint64_t code) noexcept nogil:
    """Close what nobody will take: there is no room any more, or it was to become a call of ours, which has ended."""
    c.is_released = True
    conn_close_info(c, CLOSED_LOCALLY, code, False, NULL, 0)
    conn_input(c, CONN_IN_CLOSE)


cdef void retarget(Registry *r, Conn *own, const Datagrams *from_) noexcept nogil:
    """Call the peer where its own, losing call came from: that way is open."""
    cdef Dial *d = <Dial *>own.dial
    cdef Candidate *candidate = dial_add_caller(d, &from_.remote)
    if candidate != NULL:
        d.urgent = candidate
        conn_wake(own)


cdef void take_over(Registry *r, Conn *own, Conn *c) noexcept nogil:
    """The peer's handshake won: the connection that we were dialling is the one that it has made."""
    c.handle = own.handle
    c.wanted = own.wanted
    if c.handle != NULL:
        c.handle.conn = c
    own.handle = NULL
    own.is_released = True          # there is nobody to be told of its end
    conn_close_info(own, CLOSED_UNREACHABLE, 0, False, NULL, 0)
    conn_input(own, CONN_IN_FAILED)


# --- packets that belong to nobody ---

cdef void reception_handle_stray(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_,
                                 uint64_t now_ns) noexcept nogil:
    """A packet with an id that we do not know: a peer's reset, or one for a connection that we have lost."""
    cdef Conn *c
    cdef Reply *reply
    if n < RESET_BYTES:
        r.context.counters.dropped_unknown += 1
        return
    c = <Conn *>table_find(&r.by_token, read_u64(p + n - MAC_BYTES) | 1)
    if c != NULL and registry_is_reset_of(c, p + n - MAC_BYTES):
        r.context.counters.resets_received += 1
        conn_close_info(c, CLOSED_BY_RESET, 0, False, NULL, 0)
        conn_input(c, CONN_IN_RESET)
        return
    if r.shards != NULL and may_be_elsewhere(r, p, n, from_, now_ns):
        return
    r.context.counters.dropped_unknown += 1
    # shorter than its cause, so that two nodes that have both forgotten do not answer each other for ever
    if n == RESET_BYTES or not r.keys.has_reset_key \
            or not rate_allows(&r.resets, share_of(r, RESETS_PER_SECOND), now_ns):
        return
    reply = registry_reply(r, from_)
    if reply == NULL or entropy_take(&r.context.entropy, reply.data, RESET_BYTES) != 0:
        return
    reply.data[0] |= CID_FLAG
    reset_token_of(&r.keys, read_u64(p), reply.data + RESET_BYTES - MAC_BYTES)
    reply.bytes = RESET_BYTES
    r.context.counters.resets_sent += 1


cdef bint may_be_elsewhere(Registry *r, const uint8_t *p, uint32_t n, const Datagrams *from_, uint64_t now_ns) noexcept nogil:
    """Pass a stray packet on, from shard to shard: a reset has no connection id of ours, and its token says whose it is.

    The last shard answers it, if anybody does; so does this one when more come than resets ever should."""
    cdef uint32_t seen = r.seen | <uint32_t>1 << r.shard, to = (r.shard + 1) % r.shards.count
    if seen >> to & 1 or not rate_allows(&r.strays, STRAYS_PER_SECOND, now_ns):
        return False
    return registry_pass(r, to, from_, <uint8_t *>p, n, n, seen)
