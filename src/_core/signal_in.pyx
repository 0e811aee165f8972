"""What the peer's node says to ours: signals, and what our address looks like from there (docs/spec, chapter 20).

A node that belongs to no network takes these frames for ignorable ones.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.conn cimport CONN_EVENT_SIGNAL, Conn, conn_make_signals, conn_notify
from interpeer._core.signals cimport MAX_SIGNAL_BYTES, Signals, signals_handle
from interpeer._core.slab cimport Endpoint, endpoint_is_virtual
from interpeer._core.wire cimport (
    CODE_FRAME_ENCODING, CODE_INTERNAL, FRAME_SIGNAL, PARSE_OK, Frame, Reader, read_varint)

cdef enum:
    IPV4_BYTES = 6                  # address and port
    IPV6_BYTES = 18


cdef uint64_t handle_signal_frame(Conn *c, const Frame *f) noexcept nogil:
    """Return 0, or the code of the rule that the frame breaks."""
    cdef Reader r
    cdef uint64_t number
    r.p = f.data
    r.end = f.data + f.bytes
    if not c.context.limits.observe:
        return 0
    if read_varint(&r, &number) != PARSE_OK:
        return CODE_FRAME_ENCODING
    if not conn_make_signals(c):
        return CODE_INTERNAL
    if f.type == FRAME_SIGNAL:
        return handle_signal(c, number, &r)
    return handle_observed(c, number, &r)


cdef uint64_t handle_signal(Conn *c, uint64_t number, const Reader *r) noexcept nogil:
    cdef uint64_t dropped = c.signals.dropped
    if r.end - r.p > MAX_SIGNAL_BYTES:
        return CODE_FRAME_ENCODING
    if signals_handle(c.signals, number, r.p, <uint32_t>(r.end - r.p)):
        conn_notify(c, CONN_EVENT_SIGNAL)
    c.context.counters.signals_dropped += c.signals.dropped - dropped
    return 0


cdef uint64_t handle_observed(Conn *c, uint64_t number, Reader *r) noexcept nogil:
    """Note what the peer sees of us, unless it has said something newer. It may lie: whoever uses it asks others, too."""
    cdef Signals *s = c.signals
    cdef uint64_t path
    cdef Py_ssize_t n
    cdef Endpoint seen
    if read_varint(r, &path) != PARSE_OK:
        return CODE_FRAME_ENCODING
    n = r.end - r.p
    if n != IPV4_BYTES and n != IPV6_BYTES:
        return CODE_FRAME_ENCODING
    memset(&seen, 0, sizeof(Endpoint))
    if n == IPV4_BYTES:
        seen.address[10] = 0xFF
        seen.address[11] = 0xFF
    memcpy(seen.address + 18 - n, r.p, n - 2)
    seen.port = <uint16_t>r.p[n - 2] << 8 | r.p[n - 1]
    if number < s.observed_number or seen.port == 0 or endpoint_is_virtual(seen.address):
        return 0
    s.observed_number = number + 1
    s.observed = seen
    s.has_observed = True
    conn_notify(c, CONN_EVENT_SIGNAL)
    return 0
