"""What Python does with tunnels (docs/spec, chapter 26): begin and end them, and hand over what their streams bring."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.engine cimport Engine
from interpeer._core.entry cimport kick, take_lock
from interpeer._core.slab cimport ENDPOINT_TUNNEL, Endpoint, endpoint_set_virtual
from interpeer._core.tunnel cimport (
    MAX_FRAME_BYTES, MAX_TUNNELS, TUNNEL_FULL, TUNNEL_NO_MEMORY, TUNNEL_TAKEN, Tunnel, frames_check, tunnels_add,
    tunnels_deliver, tunnels_find, tunnels_hold, tunnels_new, tunnels_remove)

from interpeer.errors import LocalError as _LocalError

MOST_TUNNELS = MAX_TUNNELS


def endpoint(uint64_t number):
    """Return what stands for a tunnel as the remote address of a path: (16 bytes, port, scope)."""
    cdef Endpoint e
    endpoint_set_virtual(&e, ENDPOINT_TUNNEL, number)
    return <bytes>e.address[:16], e.port, e.scope


def add(Engine engine not None, uint64_t number):
    """Begin a tunnel. Raises ValueError for a number that is taken, LocalError for more than MAX_TUNNELS."""
    cdef int result
    take_lock(engine)
    if engine.registry.tunnels == NULL:
        engine.registry.tunnels = tunnels_new()
    result = TUNNEL_NO_MEMORY if engine.registry.tunnels == NULL else tunnels_add(engine.registry.tunnels, number)
    engine.unlock()
    if result == TUNNEL_TAKEN:
        raise ValueError(f"{number} is the number of another tunnel, or 0")
    if result == TUNNEL_FULL:
        raise _LocalError(f"a node has at most {MAX_TUNNELS} tunnels")
    if result == TUNNEL_NO_MEMORY:
        raise MemoryError


def remove(Engine engine not None, uint64_t number):
    """End a tunnel, with what waits for it; harmless where there is none."""
    take_lock(engine)
    if engine.registry.tunnels != NULL:
        tunnels_remove(engine.registry.tunnels, number)
    engine.unlock()


def hold(Engine engine not None, uint64_t number, bint is_held):
    """Keep what is for a tunnel, or have it told as TUNNEL events again."""
    cdef Tunnel *tunnel
    take_lock(engine)
    tunnel = tunnels_find(engine.registry.tunnels, number)
    if tunnel != NULL:
        tunnels_hold(engine.registry.tunnels, tunnel, is_held)
    engine.unlock()
    if not is_held:
        kick(engine)


def receive(Engine engine not None, uint64_t number, data not None):
    """Take what has come on a tunnel's stream, from the start of a frame on; return how many bytes were whole frames.

    The caller keeps the rest, which is less than a frame, and puts what comes next behind it. Raises ValueError at a
    frame that cannot be: the stream makes no sense any more."""
    cdef Py_buffer view
    cdef Py_ssize_t whole
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        whole = frames_check(<const uint8_t *>view.buf, view.len)
        if whole > 0:
            take_lock(engine)
            if tunnels_find(engine.registry.tunnels, number) != NULL:
                tunnels_deliver(engine.registry.tunnels, number, <const uint8_t *>view.buf, whole)
            engine.unlock()
    finally:
        PyBuffer_Release(&view)
    if whole < 0:
        raise ValueError(f"a frame of a tunnel has from 1 to {MAX_FRAME_BYTES} bytes")
    if whole > 0:
        kick(engine)
    return whole


def figures(Engine engine not None, uint64_t number):
    """Return the bytes that wait to be written to a tunnel, and the packets that were dropped for want of room."""
    cdef Tunnel *tunnel
    cdef uint32_t used = 0
    cdef uint64_t dropped = 0
    take_lock(engine)
    tunnel = tunnels_find(engine.registry.tunnels, number)
    if tunnel != NULL:
        used, dropped = tunnel.used, tunnel.dropped
    engine.unlock()
    return used, dropped
