"""A relay at work, and what becomes of legs when their connections end (docs/spec, chapter 21).

What comes on a leg that is joined goes out on the other one: the same bytes but for the id in front, in the same run, to
where the other connection sends its own. Whether it may is the pair's rate's business; what is in it is nobody's here.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from interpeer._core.answer cimport half_open_find_cid
from interpeer._core.carrier cimport carrier_path
from interpeer._core.conn cimport Conn
from interpeer._core.links cimport Link
from interpeer._core.path cimport Path
from interpeer._core.paths cimport paths_lose_relay
from interpeer._core.registry cimport Registry
from interpeer._core.relay cimport (
    LEG_BYTES, Leg, Pair, bucket_admit, forwards_next, forwards_push, forwards_wait, packets_of, relay_find, relay_new,
    relay_note_gone, relay_take_out)
from interpeer._core.shards cimport shard_of
from interpeer._core.slab cimport (
    ENDPOINT_LEG, SEND_ENTRIES, Datagrams, SendBatch, endpoint_id, endpoint_kind)
from interpeer._core.table cimport table_find
from interpeer._core.wire cimport CID_FLAG, MESSAGE_HEADER_BYTES, write_u64


cdef int relaying_may_use(Registry *r, uint64_t id) noexcept nogil:
    """Tell whether a leg may have this id: 1 yes, 0 no. -1: there is no memory for legs at all."""
    cdef uint8_t bytes[8]
    if r.context.relay == NULL:
        r.context.relay = relay_new(r.by_token.multiplier)
        if r.context.relay == NULL:
            return -1
    write_u64(bytes, id)
    if not bytes[0] & CID_FLAG or (r.shards != NULL and shard_of(bytes, sizeof(bytes), r.shards.count) != r.shard):
        return 0
    return table_find(&r.by_cid, id) == NULL and half_open_find_cid(&r.answering, id) == NULL \
        and relay_find(r.context.relay, id) == NULL


# --- forwarding ---

cdef void relaying_forward(Registry *r, Leg *leg, const Datagrams *d, uint32_t at, uint32_t end, uint64_t now_ns) noexcept nogil:
    """Take a run of packets with the id of a joined leg, and queue what may pass for the other one."""
    cdef Pair *pair = leg.pair
    cdef Datagrams run
    cdef const Path *way = carrier_path(<Conn *>leg.other.conn)
    cdef uint32_t i, segment = d.segment if d.segment and d.segment < end - at else end - at
    cdef uint32_t packets = packets_of(end - at, segment), admitted, queued
    cdef uint32_t last = end - at - (packets - 1) * segment
    if last < LEG_BYTES + MESSAGE_HEADER_BYTES:     # only the last can be shorter than the others
        r.context.counters.dropped_short += 1
        end -= last
        if end == at:
            return
        packets -= 1
    pair.last_ns = now_ns
    if way == NULL:
        pair.dropped_way += packets
        return
    admitted = bucket_admit(&r.context.relay.total, bucket_admit(&pair.bucket, end - at, segment, now_ns), segment, now_ns)
    pair.dropped_rate += packets - packets_of(admitted, segment)
    if admitted == 0:
        return
    memset(&run, 0, sizeof(Datagrams))
    run.data = d.data + at
    run.bytes = admitted
    run.segment = segment
    run.remote = way.remote
    memcpy(run.local, way.local, sizeof(run.local))
    run.ecn = d.ecn                 # as a router does: what the first half of the way has marked, the second passes on
    run.cid = leg.other.id
    i = 0
    while i < admitted:
        write_u64(run.data + i, leg.other.id)
        i += segment
    queued = forwards_push(&r.context.relay.forwards, &run)
    leg.bytes += queued
    leg.packets += packets_of(queued, segment)
    r.context.counters.packets_forwarded += packets_of(queued, segment)
    r.context.counters.bytes_forwarded += queued
    pair.dropped_queue += packets_of(admitted, segment) - packets_of(queued, segment)


cdef bint relaying_transmit(Registry *r, SendBatch *batch) noexcept nogil:
    """Put what waits to be forwarded in the batch; it is sent from where it lies. Return whether there is more than fits."""
    cdef const Datagrams *run
    while forwards_wait(&r.context.relay.forwards):
        if batch.count == SEND_ENTRIES:
            return True
        run = forwards_next(&r.context.relay.forwards)
        batch.entries[batch.count] = run[0]
        batch.count += 1
        batch.run = 0
    return False


cdef void relaying_refused(Registry *r, const Datagrams *d) noexcept nogil:
    """The interface has refused forwarded packets as too large: their senders will find out by themselves."""
    cdef Leg *leg = relay_find(r.context.relay, d.cid)
    if leg != NULL and leg.pair != NULL:
        leg.pair.dropped_size += packets_of(d.bytes, d.segment)


# --- the end of legs ---

cdef void take_from_conn(Leg *leg) noexcept nogil:
    cdef Conn *c = <Conn *>leg.conn
    cdef Leg **at = &c.legs
    while at[0] != leg:
        at = &at[0].next
    at[0] = leg.next


cdef void drop(Registry *r, Leg *leg, bint is_told) noexcept nogil:
    take_from_conn(leg)
    relay_take_out(r.context.relay, leg)
    if is_told:
        relay_note_gone(r.context.relay, leg)
    else:
        free(leg)


cdef bint drop_pair(Registry *r, Leg *leg, bint is_told) noexcept nogil:
    """Remove a leg, and the one that it is joined to; return whether there was one."""
    cdef Leg *other = leg.other
    drop(r, leg, is_told)
    if other != NULL:
        drop(r, other, is_told)
    return other != NULL


cdef void relaying_remove(Registry *r, Leg *leg, bint is_told) noexcept nogil:
    """Remove a leg with the one that it is joined to, and give up the paths that need it; the application may be told."""
    if not drop_pair(r, leg, is_told):
        give_up_paths(r)


cdef void relaying_end(Registry *r, Conn *c) noexcept nogil:
    """A connection has ended: so have its legs."""
    cdef bint had_ends = False
    while c.legs != NULL:
        had_ends |= not drop_pair(r, c.legs, True)
    if had_ends:
        give_up_paths(r)


cdef void give_up_paths(Registry *r) noexcept nogil:
    """Give up every path whose leg is not there any more. Legs end seldom: all connections are looked at, once."""
    give_up_in(r, &r.live)
    give_up_in(r, &r.dialing)


cdef void give_up_in(Registry *r, Link *members) noexcept nogil:
    cdef Link *link = members.next
    cdef Conn *c
    cdef uint32_t i
    while link != members:
        c = <Conn *>link.owner
        link = link.next
        for i in range(c.path_count):
            if endpoint_kind(c.paths[i].remote.address) == ENDPOINT_LEG \
                    and relay_find(r.context.relay, endpoint_id(c.paths[i].remote.address)) == NULL:
                paths_lose_relay(c, c.paths[i])
