"""What Python does with the signals of a connection: say something to the peer's node, and read what it says."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free

from interpeer._core.conn cimport CONN_OPEN, CONN_PENDING_SIGNALS, Conn, conn_make_signals, conn_wake
from interpeer._core.connection_handle cimport ConnectionHandle
from interpeer._core.entry cimport leave
from interpeer._core.signals cimport MAX_SIGNAL_BYTES, MAX_SIGNALS, Signal, signals_push, signals_take
from interpeer._core.slab cimport Endpoint

MOST_BYTES = MAX_SIGNAL_BYTES


def send(ConnectionHandle handle not None, bytes message not None):
    """Send a message of at most MOST_BYTES to the peer's node; return False if too many wait, or it is not open.

    Raises ValueError for a longer one."""
    cdef Conn *c
    cdef bint is_taken = False
    if len(message) > MAX_SIGNAL_BYTES:
        raise ValueError(f"a signal has at most {MAX_SIGNAL_BYTES} bytes, not {len(message)}")
    c = handle.enter()
    if c.state == CONN_OPEN and conn_make_signals(c):
        is_taken = signals_push(c.signals, <const uint8_t *>PyBytes_AS_STRING(message),
                                <uint32_t>PyBytes_GET_SIZE(message)) == 0
    if is_taken:
        c.pending |= CONN_PENDING_SIGNALS
        conn_wake(c)
    leave(handle.engine)
    return bool(is_taken)


def take(ConnectionHandle handle not None):
    """Return the messages of the peer's node that have come since the last call, in the order of their arrival."""
    cdef Signal *taken[32]          # MAX_SIGNALS
    cdef Conn *c = handle.enter()
    cdef uint32_t i, n = 0
    if c.signals != NULL:
        while n < MAX_SIGNALS:
            taken[n] = signals_take(c.signals)
            if taken[n] == NULL:
                break
            n += 1
    leave(handle.engine)
    messages = []
    try:
        for i in range(n):
            messages.append(<bytes>taken[i].data[:taken[i].bytes])
    finally:
        for i in range(n):
            free(taken[i])
    return messages


def observed(ConnectionHandle handle not None):
    """Return our address as the peer says that it sees it, (16 bytes, port, scope); None: it has not said."""
    cdef Conn *c = handle.enter()
    cdef Endpoint seen
    cdef bint is_known = c.signals != NULL and c.signals.has_observed
    if is_known:
        seen = c.signals.observed
    leave(handle.engine)
    return (<bytes>seen.address[:16], seen.port, seen.scope) if is_known else None
