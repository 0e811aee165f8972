"""Python door into what punching is made of: the table, ports in the order of a spray, kinds of addresses."""

from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.address_class cimport address_is_private, address_refusal
from interpeer._core.punch cimport PUNCH_INPUTS, PUNCH_STATES, punch_next
from interpeer._core.slab cimport Endpoint
from interpeer._core.spray cimport PortWalk, sockets_for, walk_init, walk_next

STATE_COUNT, INPUT_COUNT = PUNCH_STATES, PUNCH_INPUTS


def step_punch(int state, int event):
    """Return the state that follows; None where the input is not allowed."""
    after = punch_next(state, event)
    return None if after < 0 else after


def walk(uint16_t low, uint16_t high, uint64_t seed):
    """Return all ports of a walk, in its order."""
    cdef PortWalk w
    walk_init(&w, low, high, seed)
    ports = []
    port = walk_next(&w)
    while port:
        ports.append(port)
        port = walk_next(&w)
    return ports


def sockets(int block_ports):
    """Return how many sockets the hard side opens."""
    return sockets_for(block_ports)


def classify(bytes address, uint16_t port, scope=0, *, bint is_same_machine=False):
    """Return (the number of the reason why nothing may be sent there, whether it is private)."""
    cdef Endpoint e
    memset(&e, 0, sizeof(Endpoint))
    memcpy(e.address, <const unsigned char *>address, 16)
    e.port = port
    e.scope = scope
    return address_refusal(&e, is_same_machine), bool(address_is_private(&e))
