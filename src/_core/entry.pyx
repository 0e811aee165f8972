"""How Python enters an engine: its lock, and the kick that asks for a turn.

A verb of a handle is take_lock, a few instructions on the machines, leave. Nothing in between may make an object that
the garbage collector tracks: a collection could run a destructor, which takes the lock, too.
"""

from interpeer._core.engine cimport Engine
from interpeer._core.links cimport first_link
from interpeer.errors import ForkedError as _ForkedError


cdef int take_lock(Engine engine) except -1:
    """Take the engine's lock, which whoever holds it gives back within a turn, and without needing the GIL.

    So the GIL is kept while waiting, and while copying: among busy threads it takes 5 to 10 ms to get it back."""
    if engine.is_forked():
        raise _ForkedError("this process is a fork of the one that owns the node: open a node of its own")
    if not engine.try_lock():
        engine.lock_waiting()
    return 0


cdef int leave(Engine engine, bint may_tell=False) except -1:
    """Give the lock back, and ask for a turn if there is something to send, or, where the verb `may_tell`, to be told.

    Other verbs do not look: what is to be told while they run has its turn already, and each would ask for another."""
    cdef bint kick = not engine.is_kicked and (first_link(&engine.registry.context.ready) != NULL
                                               or (may_tell and engine.has_events()))
    if kick:
        engine.is_kicked = True
    engine.unlock()
    if kick and engine.on_kick is not None:
        engine.on_kick()
    return 0


cdef void kick_from_destructor(Engine engine) noexcept:
    """Ask for the turn that takes back what was let go of; nobody is told if that cannot be."""
    if engine.on_kick is not None and not engine.is_forked():
        try:
            engine.on_kick()
        except Exception:
            pass
