"""The connection that a leg belongs to, as the way of other connections' packets (docs/spec, chapter 21).

Relayed packets go where the connection to the relay (or to the peer, at the relay) prefers to send its own, and count if
they come from where that connection has a path. They are no part of it: neither its keys nor its congestion control, and
no packet numbers of its.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.conn cimport CONN_OPEN, CONN_PENDING_PATHS, Conn, conn_wake
from interpeer._core.context cimport Context
from interpeer._core.path cimport PATH_PENDING_PING, Path, path_is_from, path_is_live, path_is_proven
from interpeer._core.paths cimport paths_tier
from interpeer._core.relay cimport Leg, relay_find
from interpeer._core.slab cimport ENDPOINT_LEG, Datagrams, Endpoint, endpoint_id, endpoint_kind
from interpeer._core.wire cimport write_u64


cdef inline bint can_carry(const Path *p) noexcept nogil:
    """Only what is proven: otherwise who claims a victim's address would have others flood it. No relay behind a relay."""
    return path_is_proven(p) and path_is_live(p) and endpoint_kind(p.remote.address) != ENDPOINT_LEG


cdef Path *carrier_path(const Conn *c) noexcept nogil:
    """Return the path that relayed packets take: the preferred one, or the best that can carry them; NULL: there is none."""
    cdef Path *best = NULL
    cdef uint32_t i
    if c.state != CONN_OPEN:
        return NULL
    if can_carry(c.path):
        return c.path
    for i in range(c.path_count):
        if can_carry(c.paths[i]) and (best == NULL or paths_tier(c.paths[i]) < paths_tier(best)):
            best = c.paths[i]
    return best


cdef bint carrier_has_heard(const Conn *c, const Datagrams *from_) noexcept nogil:
    """Tell whether a datagram comes from where the connection has a live path, to the address of ours that this has."""
    cdef const Path *p
    cdef uint8_t unknown[16]
    cdef uint32_t i
    if c.state != CONN_OPEN:
        return False
    memset(unknown, 0, sizeof(unknown))
    for i in range(c.path_count):
        p = c.paths[i]
        if path_is_live(p) and path_is_from(p, &from_.remote) and (
                memcmp(p.local, from_.local, sizeof(p.local)) == 0 or memcmp(p.local, unknown, sizeof(p.local)) == 0
                or memcmp(from_.local, unknown, sizeof(p.local)) == 0):
            return True
    return False


cdef bint carrier_direct(Context *x, Datagrams *d, const Endpoint *remote, const uint8_t *local) noexcept nogil:
    """Say where a message goes. One to a leg goes to the relay, and the leg's id is written where its data begin; behind it
    lies the packet. Return False if there is no way: it is as good as lost."""
    cdef Leg *leg
    cdef const Path *way
    d.interface = 0                 # the way is the system's choice; a link-local address carries its scope
    if endpoint_kind(remote.address) != ENDPOINT_LEG:
        d.remote = remote[0]
        memcpy(d.local, local, sizeof(d.local))
        return True
    leg = relay_find(x.relay, endpoint_id(remote.address))
    way = carrier_path(<Conn *>leg.conn) if leg != NULL and leg.other == NULL else NULL
    if way == NULL:
        x.counters.dropped_legless += 1
        return False
    write_u64(d.data, leg.id)
    d.remote = way.remote
    memcpy(d.local, way.local, sizeof(d.local))
    return True


cdef void carrier_ask(Context *x, const Path *p) noexcept nogil:
    """Nothing comes back on a relayed path: have the connection to the relay say where we are, for a NAT may have forgotten
    it, and what is relayed tells the relay nothing."""
    cdef Leg *leg = relay_find(x.relay, endpoint_id(p.remote.address))
    cdef Path *way = carrier_path(<Conn *>leg.conn) if leg != NULL else NULL
    if way != NULL:
        way.pending |= PATH_PENDING_PING
        (<Conn *>leg.conn).pending |= CONN_PENDING_PATHS
        conn_wake(<Conn *>leg.conn)
