from libc.stdint cimport int64_t, uint32_t, uint64_t

from interpeer._core.engine cimport Engine
from interpeer._core.slab cimport Datagrams, RecvBatch, SendBatch
from interpeer._core.udp cimport Udp, UdpCounters

cdef enum:
    MAX_SOCKETS = 2                 # one for each family
    MAX_ADOPTED = 12                # extra sockets, by which paths go that a spray has opened: peers behind NATs that need one
    SOCKET_SLOTS = 14               # both; pump_wait has room for 15 descriptors
    TURN_BUDGET_NS = 1000000        # after this a turn lets Python in, and comes back at once
    LONE_PACKET_BYTES = 1500        # one message of no more is one packet
    ENTROPY_LOW = 2048              # random bytes are added when there are fewer

cdef enum:                          # what a turn leaves behind
    TURN_EVENTS = 1                 # there are events for Python
    TURN_MORE = 2                   # the budget ended it: come back soon
    TURN_BLOCKED = 4                # a socket is full: come back when it can be written to
    TURN_DEADLINE = 8               # the deadline has changed, and there is no timer descriptor to set

cdef class Pump:
    cdef readonly Engine engine
    cdef Udp sockets[14]             # the listening ones first, then MAX_ADOPTED; fd -1: none
    cdef int count                  # listening
    cdef uint64_t numbers[14]        # of adopted sockets, in the virtual addresses of what goes by them
    cdef uint32_t reading           # sockets that it receives from, a bit each; it sends by all
    cdef int64_t wakes[32]          # what wakes the pumps of a node's shards; set before the threads run
    cdef RecvBatch received
    cdef SendBatch batch
    cdef bint is_blocked            # a socket is full; what it did not take waits in `batch`
    cdef int blocked                # ... and which
    cdef int timer_fd               # -1: none here
    cdef uint64_t armed_ns          # what it is set to; 0: not
    cdef readonly uint64_t deadline_ns
    cdef uint64_t spin_ns
    cdef uint64_t turns
    cdef uint64_t timer_uses
    cdef bint has_events            # when the lock was last held
    # adopting, and releasing: asked for under the lock by any thread, done by the next turn
    cdef long changes               # there are any
    cdef uint32_t claimed           # slots of sockets that are adopted and not released, a bit each, as are the next three
    cdef uint32_t leaving           # released, and still in their slots; others may be about to take those
    cdef uint32_t arriving
    cdef uint32_t arriving_to_read
    cdef Udp arrivals[14]
    cdef uint64_t arriving_numbers[14]
    cdef UdpCounters departed       # what released sockets have counted
    cdef UdpCounters told[15]        # of the sockets after the last turn, and `departed`: under the lock, for other threads
    cdef uint64_t told_turns
    cdef uint64_t told_timer_uses
    cdef long stopping
    cdef long users                 # threads in a turn: one at a time may be

    cdef void make_changes(self) noexcept nogil
    cdef int slot_for(self, const Datagrams *d) noexcept nogil
    cdef void add_entropy(self) noexcept nogil
    cdef int turn_nogil(self, uint32_t readable) noexcept nogil
    cdef void deliver(self, uint64_t now_ns) noexcept nogil
    cdef void wake_others(self, uint32_t posted) noexcept nogil
    cdef int receive(self, uint32_t readable, uint64_t now_ns) noexcept nogil
    cdef void transmit(self, uint64_t now_ns) noexcept nogil
    cdef bint take_refusals(self) noexcept nogil
    cdef bint send_batch(self) noexcept nogil
    cdef void tell_counters(self) noexcept nogil
    cdef void arm(self, uint64_t now_ns) noexcept nogil
