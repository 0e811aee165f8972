"""What Python does with legs (docs/spec, chapter 21): have one as an address, join two as a relay, look at what passes.

Whose legs are joined, and at which rate, is decided above; here is only what the engine can do.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from interpeer._core.conn cimport CONN_OPEN, Conn
from interpeer._core.connection_handle cimport ConnectionHandle
from interpeer._core.engine cimport Engine
from interpeer._core.entry cimport kick, leave, take_lock
from interpeer._core.relay cimport Leg, Relay, bucket_set, relay_add, relay_find, relay_join
from interpeer._core.relaying cimport relaying_may_use, relaying_remove
from interpeer._core.slab cimport ENDPOINT_LEG, Endpoint, endpoint_set_virtual
from interpeer.errors import LocalError as _LocalError

cdef enum:                          # results of adding
    ADDED = 0
    NOT_OPEN = 1
    BAD_ID = 2
    NO_ROOM = 3


cdef struct Figures:                # of a pair
    uint64_t leg_a
    uint64_t leg_b
    uint64_t bytes_a_to_b
    uint64_t bytes_b_to_a
    uint64_t packets_a_to_b
    uint64_t packets_b_to_a
    uint64_t dropped_rate
    uint64_t dropped_queue
    uint64_t dropped_size
    uint64_t dropped_way
    uint64_t last_ns
    double bytes_per_s
    double burst


cdef int add_leg(ConnectionHandle handle, Conn *c, uint64_t id, Leg **out) noexcept:
    cdef int may
    if c.state != CONN_OPEN:
        return NOT_OPEN
    may = relaying_may_use(&handle.engine.registry, id)
    if may < 0:
        return NO_ROOM
    if may == 0:
        return BAD_ID
    out[0] = relay_add(handle.engine.registry.context.relay, id, c, &c.legs)
    return ADDED if out[0] != NULL else NO_ROOM


cdef int check(int result, uint64_t id) except -1:
    if result == NOT_OPEN:
        raise _LocalError("a leg belongs to an open connection, and this one is not")
    if result == BAD_ID:
        raise ValueError(f"{id:#018x} cannot be a leg's id here: it is taken, its top bit is not set, or another shard's")
    if result == NO_ROOM:
        raise MemoryError("there is no room for another leg")
    return 0


cdef int check_rate(double bytes_per_s, double burst) except -1:
    if not bytes_per_s > 0 or burst < 1:
        raise ValueError(f"a pair's rate and burst are greater than 0, not {bytes_per_s} and {burst}")
    return 0


def add(ConnectionHandle handle not None, uint64_t leg):
    """Use a leg of the connection to a relay: return the address of whoever is behind it, (16 bytes, port, scope).

    Raises ValueError for an id that cannot be used here, and LocalError for a connection that is not open."""
    cdef Leg *added = NULL
    cdef Endpoint e
    cdef Conn *c = handle.enter()
    cdef int result = add_leg(handle, c, leg, &added)
    cdef bint was_early = result == ADDED and handle.engine.handle_early(leg)
    leave(handle.engine)
    if was_early:
        kick(handle.engine)
    check(result, leg)
    endpoint_set_virtual(&e, ENDPOINT_LEG, leg)
    return <bytes>e.address[:16], e.port, e.scope


def join(ConnectionHandle handle_a not None, uint64_t leg_a, ConnectionHandle handle_b not None, uint64_t leg_b,
         double bytes_per_s, double burst):
    """Relay between two connections: what comes on either leg goes out on the other, `burst` bytes at once and otherwise at
    this rate, both ways together.

    Raises ValueError and LocalError as `add` does; LocalError also for connections of two shards."""
    cdef Leg *a = NULL
    cdef Leg *b = NULL
    cdef Conn *first
    cdef Conn *second
    cdef int of_a, of_b = ADDED
    cdef bint has_memory = True, was_early = False
    check_rate(bytes_per_s, burst)
    if handle_a.engine is not handle_b.engine:
        raise _LocalError("the two connections are in different shards, and packets are relayed within one")
    if handle_a is handle_b:
        raise _LocalError("a connection is not relayed to itself: what its peer sends would come back to it")
    first = handle_a.enter()
    second = handle_b.handle.conn
    of_a = add_leg(handle_a, first, leg_a, &a)
    if of_a == ADDED:
        of_b = add_leg(handle_b, second, leg_b, &b) if second != NULL else NOT_OPEN
        has_memory = of_b != ADDED or relay_join(a, b, bytes_per_s, burst) == 0
    if of_a == ADDED and (of_b != ADDED or not has_memory):
        relaying_remove(&handle_a.engine.registry, a, False)
        if b != NULL:
            relaying_remove(&handle_a.engine.registry, b, False)
    elif of_a == ADDED:
        was_early = handle_a.engine.handle_early(leg_a)
    leave(handle_a.engine)
    if was_early:
        kick(handle_a.engine)
    check(of_a, leg_a)
    check(of_b, leg_b)
    if not has_memory:
        raise MemoryError


def remove(Engine engine not None, uint64_t leg):
    """Take a leg away, and the one that it is joined to; without effect on one that is gone. No event tells of it."""
    cdef Leg *found
    take_lock(engine)
    found = relay_find(engine.registry.context.relay, leg)
    if found != NULL:
        relaying_remove(&engine.registry, found, False)
    leave(engine, True)


def set_rate(Engine engine not None, uint64_t leg, double bytes_per_s, double burst):
    """Change what may pass between a leg and the one it is joined to. Raises ValueError where there is no such pair."""
    cdef Leg *found
    cdef bint is_joined
    check_rate(bytes_per_s, burst)
    take_lock(engine)
    found = relay_find(engine.registry.context.relay, leg)
    is_joined = found != NULL and found.pair != NULL
    if is_joined:
        bucket_set(&found.pair.bucket, bytes_per_s, burst)
    leave(engine)
    if not is_joined:
        raise ValueError(f"no leg {leg:#018x} is joined to another")


def set_total(Engine engine not None, double bytes_per_s, double burst):
    """Change what may pass between all legs that are joined, together. Without legs there is nothing to change."""
    check_rate(bytes_per_s, burst)
    take_lock(engine)
    if engine.registry.context.relay != NULL:
        bucket_set(&engine.registry.context.relay.total, bytes_per_s, burst)
    leave(engine)


def pairs(Engine engine not None):
    """Return what has passed between each two legs that are joined, by name; `last_ns` is when something last came."""
    cdef Figures *figures = NULL
    cdef const Relay *relay
    cdef const Leg *leg
    cdef uint32_t i, n = 0
    cdef bint has_memory = True
    take_lock(engine)
    relay = engine.registry.context.relay
    if relay != NULL and relay.legs.count:
        figures = <Figures *>malloc(relay.legs.count * sizeof(Figures))
        has_memory = figures != NULL
        for i in range(relay.legs.capacity if has_memory else 0):
            leg = <const Leg *>relay.legs.values[i] if relay.legs.keys[i] else NULL
            if leg != NULL and leg.is_first:
                describe(leg, &figures[n])
                n += 1
    leave(engine)
    if not has_memory:
        raise MemoryError
    found = [figures[i] for i in range(n)]
    free(figures)
    return found


cdef void describe(const Leg *leg, Figures *out) noexcept:
    out.leg_a = leg.id
    out.leg_b = leg.other.id
    out.bytes_a_to_b = leg.bytes
    out.bytes_b_to_a = leg.other.bytes
    out.packets_a_to_b = leg.packets
    out.packets_b_to_a = leg.other.packets
    out.dropped_rate = leg.pair.dropped_rate
    out.dropped_queue = leg.pair.dropped_queue
    out.dropped_size = leg.pair.dropped_size
    out.dropped_way = leg.pair.dropped_way
    out.last_ns = leg.pair.last_ns
    out.bytes_per_s = leg.pair.bucket.bytes_per_s
    out.burst = leg.pair.bucket.burst
