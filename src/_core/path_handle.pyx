"""What Python does with the paths of a connection: look at them, open, prefer and give up (see connection_handle)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from interpeer._core.conn cimport (
    MAX_PATH_EVENTS, PATH_REASON_LOCAL, SCHEDULE_AGGREGATE, SCHEDULE_LOWEST_RTT, SCHEDULE_REDUNDANT, Conn, PathEvent, conn_wake)
from interpeer._core.connection_handle cimport ConnectionHandle
from interpeer._core.control cimport read_endpoint
from interpeer._core.entry cimport leave
from interpeer._core.pacing cimport pacing_rate
from interpeer._core.path cimport Path
from interpeer._core.paths cimport paths_abandon, paths_find, paths_open, paths_prefer, paths_set_standby
from interpeer._core.slab cimport Endpoint

SCHEDULERS = {"lowest-rtt": SCHEDULE_LOWEST_RTT, "aggregate": SCHEDULE_AGGREGATE, "redundant": SCHEDULE_REDUNDANT}
STATES = ("validating", "active", "suspect", "abandoned")
OPENED, NO_MEMORY, TOO_MANY, NO_ID, NOT_NOW = 0, -1, -2, -3, -4     # results of open_path: OPEN_*


cdef struct Figures:                # of one path
    uint32_t id
    uint8_t state
    bint is_preferred
    bint is_standby
    bint peer_standby
    bint is_opener
    uint32_t packet_bytes
    uint64_t rtt_ns
    uint64_t min_rtt_ns
    uint64_t latest_rtt_ns
    uint64_t rtt_variance_ns
    uint64_t window_bytes
    uint64_t bytes_in_flight
    uint64_t congestion_events
    uint64_t packets_sent
    uint64_t packets_received
    uint64_t packets_lost
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t pto_count
    uint64_t controller             # CONTROLLER_*
    uint64_t pacing_bytes_per_s     # 0: there is no round trip to tell from yet
    uint64_t ecn
    uint64_t ecn_sent               # packets marked
    uint64_t ecn_ce
    uint64_t ecn_received_ect0
    uint64_t ecn_received_ect1
    uint64_t ecn_received_ce


cdef tuple address_of(const Endpoint *e):
    return <bytes>e.address[:16], e.port, e.scope


cdef void identify(const Conn *c, const Path *p, Figures *f, Endpoint *remote, uint8_t *local) noexcept nogil:
    """Say which path it is, and leave out how it fares."""
    f.id = p.id
    f.state = p.state
    f.is_preferred = p == c.path
    f.is_standby = p.is_standby
    f.peer_standby = p.peer_standby
    remote[0] = p.remote
    memcpy(local, p.local, 16)


def ways(ConnectionHandle handle not None):
    """Return of each path its id, its state, whether it is preferred and whether one of the ends keeps it, remote and local.

    It is what every new connection is asked for, and so does without names."""
    cdef Figures figures[4]         # MAX_PATHS
    cdef Endpoint remotes[4]
    cdef uint8_t locals[4][16]
    cdef Conn *c = handle.enter()
    cdef uint32_t i, n = c.path_count
    for i in range(n):
        identify(c, c.paths[i], &figures[i], &remotes[i], locals[i])
    leave(handle.engine)
    return [
        (figures[i].id, figures[i].state, figures[i].is_preferred, figures[i].is_standby or figures[i].peer_standby,
         address_of(&remotes[i]), <bytes>locals[i][:16])
        for i in range(n)]


def paths(ConnectionHandle handle not None):
    """Return the figures of every path, by name; `remote` is (16 bytes, port, scope), `local` 16 bytes; times in ns."""
    cdef Figures figures[4]         # MAX_PATHS
    cdef Endpoint remotes[4]
    cdef uint8_t locals[4][16]
    cdef Conn *c = handle.enter()
    cdef Path *p
    cdef uint32_t i, n = c.path_count
    for i in range(n):
        p = c.paths[i]
        identify(c, p, &figures[i], &remotes[i], locals[i])
        figures[i].is_opener = p.is_opener
        figures[i].packet_bytes = p.packet_bytes
        figures[i].rtt_ns = p.recovery.rtt.smoothed_ns
        figures[i].min_rtt_ns = p.recovery.rtt.min_ns
        figures[i].latest_rtt_ns = p.recovery.rtt.latest_ns
        figures[i].rtt_variance_ns = p.recovery.rtt.variance_ns
        figures[i].window_bytes = p.cc.window
        figures[i].bytes_in_flight = p.recovery.bytes_in_flight
        figures[i].congestion_events = p.cc.congestion_events
        figures[i].packets_sent = p.packets_sent
        figures[i].packets_received = p.packets_received
        figures[i].packets_lost = p.packets_lost
        figures[i].bytes_sent = p.bytes_sent
        figures[i].bytes_received = p.bytes_received
        figures[i].pto_count = p.recovery.pto_count
        figures[i].controller = p.cc.kind
        figures[i].pacing_bytes_per_s = <uint64_t>pacing_rate(&p.cc, p.recovery.rtt.smoothed_ns)
        figures[i].ecn = p.ecn_state
        figures[i].ecn_sent = p.ecn_sent
        figures[i].ecn_received_ect0 = p.ecn_received[0]
        figures[i].ecn_received_ect1 = p.ecn_received[1]
        figures[i].ecn_received_ce = p.ecn_received[2]
        figures[i].ecn_ce = p.ecn_ce
    leave(handle.engine)
    return [{**figures[i], "remote": address_of(&remotes[i]), "local": <bytes>locals[i][:16]} for i in range(n)]


def has_crossed(ConnectionHandle handle not None, uint32_t path):
    """Tell whether a path was given up because the peer has opened the last one at the same time."""
    cdef Conn *c = handle.enter()
    cdef bint has = path and c.crossed_path == path
    leave(handle.engine)
    return has


def open_path(ConnectionHandle handle not None, remote, bytes local):
    """Start a path to `remote` (16 bytes, port, scope) from `local` (16 bytes; zeros: whatever the system takes).

    Return (OPENED, its id), or why not: one of the other numbers above, and None."""
    cdef Endpoint to
    cdef uint8_t from_[16]
    cdef Path *p = NULL
    cdef Conn *c
    cdef int result
    cdef uint32_t id = 0
    read_endpoint(remote, &to)
    if len(local) != 16:
        raise ValueError("an address has 16 bytes here")
    memcpy(from_, <const uint8_t *>local, 16)
    c = handle.enter()
    result = paths_open(c, &to, from_, &p)
    if p != NULL:
        id = p.id
    leave(handle.engine, True)
    return result, id if result == 0 else None


def abandon_path(ConnectionHandle handle not None, uint32_t path):
    """Give a path up. Return False when it is the last one; True also when there is no such path (any more)."""
    cdef Conn *c = handle.enter()
    cdef Path *p = paths_find(c, path)
    cdef bint done = p == NULL or paths_abandon(c, p, PATH_REASON_LOCAL) == 0
    leave(handle.engine, True)
    return bool(done)


def set_standby(ConnectionHandle handle not None, uint32_t path, bint is_standby):
    """Keep a path for when no other works, or use it again; without effect on one that is gone."""
    cdef Conn *c = handle.enter()
    cdef Path *p = paths_find(c, path)
    if p != NULL:
        paths_set_standby(c, p, is_standby)
    leave(handle.engine, True)


def set_path_keep_alive(ConnectionHandle handle not None, uint32_t path, double seconds):
    """Break the silence on a path, standby or not, after so long; 0: as the node does on all. Without effect on one that is
    gone."""
    cdef Conn *c
    cdef Path *p
    if not 0 <= seconds < 86400:
        raise ValueError(f"a path is kept open by a packet every so many seconds, less than a day, not {seconds}")
    c = handle.enter()
    p = paths_find(c, path)
    if p != NULL:
        p.keep_alive_ns = <uint64_t>(seconds * 1e9)
        conn_wake(c)
    leave(handle.engine)


def scheduler(ConnectionHandle handle not None):
    """Return which path a packet takes: the number in SCHEDULERS."""
    cdef uint8_t now = handle.enter().scheduler
    leave(handle.engine)
    return now


def set_scheduler(ConnectionHandle handle not None, int which):
    """Choose which path a packet takes; `which` is of SCHEDULERS."""
    cdef Conn *c = handle.enter()
    c.scheduler = <uint8_t>which
    if c.path_count > 1:
        paths_prefer(c)
    conn_wake(c)
    leave(handle.engine, True)


def take_path_events(ConnectionHandle handle not None):
    """Return (path, kind, reason, remote) of what has happened to paths, oldest first, and how many were not kept."""
    cdef PathEvent events[16]       # MAX_PATH_EVENTS
    cdef Conn *c = handle.enter()
    cdef uint32_t i, n = 0
    cdef uint64_t dropped = 0
    if c.path_events != NULL:
        n = c.path_events.count
        for i in range(n):
            events[i] = c.path_events.events[(c.path_events.first + i) % MAX_PATH_EVENTS]
        dropped = c.path_events.dropped
        c.path_events.first = (c.path_events.first + n) % MAX_PATH_EVENTS
        c.path_events.count = 0
        c.path_events.dropped = 0
    leave(handle.engine)
    return [(events[i].path, events[i].kind, events[i].reason, address_of(&events[i].remote)) for i in range(n)], dropped
