"""How Python enters an engine: its lock, and the kick that asks for a turn.

A verb of a handle is take_lock, a few instructions on the machines, leave. Nothing in between may make an object that
the garbage collector tracks: a collection could run a destructor, which takes the lock, too.
"""

from sys import is_finalizing as _is_finalizing

from libc.stdint cimport uint64_t

from interpeer._core.engine cimport Engine
from interpeer._core.links cimport first_link
from interpeer.errors import ForkedError as _ForkedError

cdef extern from "platform.h" nogil:
    long atomic_swap_long(long *at, long value)


cdef int take_lock(Engine engine) except -1:
    """Take the engine's lock, which whoever holds it gives back within a turn, and without needing the GIL.

    So the GIL is kept while waiting, and while copying: among busy threads it takes 5 to 10 ms to get it back."""
    if engine.is_forked():
        raise _ForkedError("this process is a fork of the one that owns the node: open a node of its own")
    if not engine.try_lock():
        engine.lock_waiting()
    return 0


cpdef uint64_t wire_code(code) except? 0xFFFFFFFFFFFFFFFF:
    """Return an application's code if it fits in its field, which has 62 bits. Raises ValueError, and TypeError."""
    if not isinstance(code, int):
        raise TypeError(f"a code is an int, not {type(code).__name__}")
    if not 0 <= code < 0x4000000000000000:
        raise ValueError(f"a code is a number from 0 to 2**62 - 1, not {code}")
    return code


cdef int leave(Engine engine, bint may_tell=False) except -1:
    """Give the lock back, and ask for a turn if there is something to send, or, where the verb `may_tell`, to be told.

    Other verbs do not look: what is to be told while they run has its turn already, and each would ask for another."""
    cdef bint is_due = not engine.is_kicked and (first_link(&engine.registry.context.ready) != NULL
                                                 or (may_tell and engine.has_events()))
    callback = None
    if is_due:
        engine.is_kicked = True
        callback = engine.kick
    engine.unlock()
    if callback is not None:
        callback()
    return 0


cdef int kick(Engine engine) except -1:
    """Ask for a turn."""
    take_lock(engine)
    callback = engine.kick
    engine.unlock()
    if callback is not None:
        callback()
    return 0


cdef int begin_alone(long *users) except -1:
    """Begin to use what one caller at a time may use, without waiting. Raises RuntimeError."""
    if atomic_swap_long(users, 1):
        raise RuntimeError("another thread is driving this engine: one at a time can")
    return 0


cdef void end_alone(long *users) noexcept nogil:
    atomic_swap_long(users, 0)


cdef void kick_from_destructor(Engine engine) noexcept:
    """Ask for the turn that takes back what was let go of; nobody is told if that cannot be.

    When the interpreter ends, the collector has taken apart whatever Python code would run, and nobody needs a turn."""
    if _is_finalizing():
        return
    try:
        kick(engine)
    except Exception:
        pass
